"""What the documentation shows is run as it stands."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile

from pipeline.catalog import load_catalog
from pipeline.run import published, run_dataset

if TYPE_CHECKING:
    from conftest import World

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def blocks(page: str) -> dict[str, str]:
    """The fenced blocks of a page that have a title."""
    found = re.findall(r"```\w+ title=(\S+)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return dict(found)


def expected(world: World) -> list[tuple[Any, ...]]:
    table = published(load_catalog(world.catalog), "grain").read("brightness").sort_by("sample_id").to_pylist()
    return [(row["sample_id"], row["label"], row["length"], row["values"][0]) for row in table]


@pytest.mark.parametrize("tool", ["duckdb", "polars", "pandas", "datasets", "pyarrow"])
def test_the_store_is_open_to(tool: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    world.run()
    names: dict[str, Any] = {"folder": str(world.folder / "store" / "grain"), "cache": str(tmp_path / "cache")}
    exec(blocks("reading-the-store.md")[tool], names)  # the page's own code
    assert [tuple(row) for row in names["found"]] == expected(world)


def test_an_extractor_of_ones_own(tmp_path: Path) -> None:
    found = blocks("adding-an-extractor.md")
    code = found["loudness.py"]
    assert len(code.strip().splitlines()) <= 25
    (tmp_path / "loudness.py").write_text(code)
    (tmp_path / "data_catalog.yaml").write_text(found["data_catalog.yaml"])

    media = tmp_path / "media"
    media.mkdir(exist_ok=True)

    for i in range(3):
        soundfile.write(media / f"tone{i}.wav", np.sin(np.arange(8000) / 5) * (i + 1) / 4, 8000)
    catalog = load_catalog(tmp_path / "data_catalog.yaml")
    (name,) = catalog.datasets
    report = run_dataset(catalog, name, engine="serial")
    (feature,) = catalog.datasets[name].features
    assert report.features[feature].done == 3
    before = published(catalog, name).read(feature)["values"].to_pylist()
    assert before[0] != before[2]


def test_help_answers_without_heavy_imports() -> None:
    code = (
        "import sys; sys.argv = ['gristmill', '--help']\n"
        "from flows.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'prefect', 'dask', 'cv2', 'librosa', 'pyarrow', 'av', 'gensim'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert "gristmill demo" in done.stdout


def test_the_options_of_the_report_are_what_the_catalog_takes(tmp_path: Path) -> None:
    page = (DOCS / "report.md").read_text()
    option, top = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "media").mkdir()
    text = f"version: 1\nstore: ./store\n{top}datasets:\n  clips:\n    root: ./media\n    source: {{kind: folder}}\n"
    (tmp_path / "data_catalog.yaml").write_text(text + "    features: {audio.mfcc: {}}\n" + option)
    catalog = load_catalog(tmp_path / "data_catalog.yaml")
    assert catalog.dataset("clips").report.pictures == 12
    assert catalog.on_failure == ("./tell-the-team.sh", "#data")
    assert catalog.metrics == Path("/var/lib/node_exporter/gristmill.prom")
    assert (DOCS / re.findall(r"!\[.*?\]\((.*?)\)", page)[0]).stat().st_size < 250_000


def test_the_width_of_a_row_stands_in_its_file(world: World) -> None:
    world.run()
    names: dict[str, Any] = {"folder": str(world.folder / "store" / "grain")}
    exec(blocks("reading-the-store.md")["width"], names)
    assert names["matrix"].shape == (3, 3)  # captions of 1.5 s on a grid of half a second


def test_the_loader_does_what_its_page_shows(world: World) -> None:
    for i in range(12, 30):
        world.add(i)
    world.run()
    names: dict[str, Any] = {"place": str(world.catalog), "dataset": "grain"}
    found = blocks("loader.md")
    assert list(found) == ["first", "choice", "map-style", "resume"]
    for block in found.values():
        exec(block, names)
    assert names["values"].shape[2] == 3
    assert names["offsets"].tolist() == [0, 1, 2, 3, 4]
    train = len(names["samples"])
    assert sum(map(len, names["rest"])) == train - 2
    assert names["state"]["position"] == train
    assert set(names["few"].labels.tolist()) == {0}
    assert len(names["both"]) == 30


def test_exports_are_what_their_page_shows(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import open_store
    from pipeline.export import export_dataset
    from pipeline.export.template import Template

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    world.run()
    found, reader = blocks("export.md"), open_store(world.catalog, "grain")
    export_dataset(reader, tmp_path / "hf", "huggingface")
    names: dict[str, Any] = {"folder": str(tmp_path / "hf"), "cache": str(tmp_path / "cache")}
    exec(found["hf"], names)
    assert names["names"] == ["day", "night"]
    assert len(names["row"]["brightness"]) == 3
    (tmp_path / "mine.yaml").write_text(found["template"])
    template = Template.load(str(tmp_path / "mine.yaml"))
    export_dataset(reader, tmp_path / "rows", "jsonl", template=template)
    row = json.loads((tmp_path / "rows" / "train.jsonl").read_text().splitlines()[0])
    assert row["messages"][1]["content"] in ("day", "night")
    assert row["messages"][0]["content"].endswith("\n\nWhich of these is it: day, night?")
    assert (row["picture"]["dim"], len(row["numbers"][0])) == (3, 3)
    assert Path(row["source"]["file"]).is_file()
