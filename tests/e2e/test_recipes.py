"""The recipes of docs/recipes load, run and train on small made data, as they stand but for shorter training."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest

from pipeline.catalog import load_catalog
from pipeline.demo import DemoCorpus, write_corpus
from pipeline.run import run_dataset
from pipeline.train import train_dataset

RECIPES = Path(__file__).resolve().parents[2] / "docs" / "recipes"
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> DemoCorpus:
    return write_corpus(tmp_path_factory.mktemp("corpus"), samples=24)


def made(corpus: DemoCorpus, folder: Path, root: str) -> None:
    """The demo's media as the recipes want them: text files beside captions, and a table of windows."""
    media = folder / root
    shutil.copytree(corpus.folder / "media", media, ignore=shutil.ignore_patterns("broken*"))
    for captions in media.glob("*/*.srt"):
        words = [line for line in captions.read_text().splitlines() if line and not re.match(r"[\d:,> -]+$", line)]
        captions.with_suffix(".txt").write_text(" ".join(words))
    if root != "avdigits":
        return
    for text in media.glob("*/*.txt"):
        text.unlink()
    with (media / "segments.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["split", "label", "start", "end", "video"])
        for number, video in enumerate(sorted(media.glob("*/*.mp4"))):
            for window in range(3):
                split = "test" if number % 4 == 0 else "train"
                table.writerow([split, window, window * 0.5, window * 0.5 + 0.4, video.relative_to(media)])


@pytest.mark.e2e
@pytest.mark.parametrize("name", NAMES)
def test_recipe(name: str, corpus: DemoCorpus, tmp_path: Path) -> None:
    text = (RECIPES / f"{name}.yaml").read_text()
    (root,) = re.findall(r"root: \./(\w+)", text)
    made(corpus, tmp_path, root)
    short = re.sub(r"seeds: \d+", "seeds: 1\n      epochs: 2", re.sub(r" +epochs: \d+\n", "", text))
    assert short.count("epochs: 2\n") == 1
    (tmp_path / "data_catalog.yaml").write_text(short)
    catalog = load_catalog(tmp_path / "data_catalog.yaml")
    (dataset,) = catalog.datasets
    report = run_dataset(catalog, dataset, engine="serial")
    assert report.samples is not None
    assert report.samples.quarantined == 0
    assert report.samples.done == (72 if name == "avdigits" else 24)
    entry = catalog.datasets[dataset]
    trained = train_dataset(catalog, dataset)
    assert [row["model"] for row in trained.rows] == [
        "majority",
        "linear",
        *sorted(entry.features),
        *entry.train.methods,
    ]
    assert trained.document["catalog"]["train"]["methods"] == list(entry.train.methods)
    assert (name == "video-image-audio") == bool(trained.document["without"])


def test_the_page_names_every_recipe() -> None:
    page = (RECIPES.parent / "fusion.md").read_text()
    assert {f"recipes/{name}.yaml" for name in NAMES} <= set(re.findall(r"\((recipes/[\w-]+\.yaml)\)", page))
