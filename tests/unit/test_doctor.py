"""The doctor: what is well is green, what is ill is red and names its cure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline import doctor
from pipeline.catalog import load_catalog
from pipeline.cli import app
from pipeline.doctor import Finding, examine
from pipeline.run import run_dataset

CATALOG = """\
version: 1
store: ./store
engine: {kind: serial, device: cpu}
datasets:
  clips:
    root: ./media
    source: {kind: folder}
    features:
      image.histogram: {}
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    (tmp_path / "media").mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (16, 24, 3), dtype=np.uint8)
        cv2.imwrite(str(tmp_path / f"media/s{i}.png"), pixels)
    path = tmp_path / "data_catalog.yaml"
    path.write_text(CATALOG)
    return path


def found(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_a_machine_that_is_well_is_green_down_to_a_made_sample(catalog: Path) -> None:
    told = found(examine(catalog))
    assert [finding for finding in told.values() if not finding.ok] == []
    assert told["clips: media"].found.startswith("3 samples in ")
    assert told["clips: store"].found == "no snapshot yet"
    assert told["memory"].found.endswith(" GiB free for 1 worker"), "a serial engine has one"
    assert "made samples stored and read" in told["clips: image.histogram"].found
    assert not (catalog.parent / "store/clips").exists(), "nothing is left in the store"
    assert not list((catalog.parent / "store").glob("_doctor*"))


def test_a_wrong_catalog_is_a_finding(catalog: Path) -> None:
    catalog.write_text(CATALOG.replace("image.histogram", "image.histogramm"))
    told = found(examine(catalog))
    assert not told["catalog"].ok
    assert "did you mean 'image.histogram'" in told["catalog"].found
    assert told["codecs"].ok, "what needs no catalog is looked at all the same"


def test_a_lost_file_of_the_store_is_found(catalog: Path) -> None:
    run_dataset(load_catalog(catalog), "clips")
    told = found(examine(catalog, golden=False))
    assert "1 files whole in size" in told["clips: store"].found
    (shard,) = (catalog.parent / "store/clips").glob("feature=*/*.parquet")
    shard.unlink()
    told = found(examine(catalog, golden=False))
    assert "1 of 1 files are missing or cut short" in told["clips: store"].found
    assert told["clips: store"].cure.startswith("gristmill verify clips; then ")


def test_what_is_missing_is_named_with_its_cure(catalog: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(doctor, "LEAST_DISK", 1 << 60)
    text = CATALOG.replace("image.histogram: {}", "image.cnn: {options: {model: resnet18}}")
    catalog.write_text("on_failure: [./no-such-hook]\n" + text.replace("./media", "./nothing-here"))
    (tmp_path / "nothing-here").mkdir()
    told = found(examine(catalog))
    assert not told["disk"].ok
    assert told["disk"].cure == "gristmill gc, or more room"
    assert told["on_failure"].found == "./no-such-hook is no command"
    assert told["clips: media"].found.startswith("clips: no media files below ")
    assert not told["clips: weights of image.cnn"].ok
    assert "clips: image.cnn" not in told, "a feature without its weights is not tried"


def test_the_command_exits_with_one_where_a_line_is_red(catalog: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(app, ["doctor", "--quick", "-c", str(catalog)])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "All 9 things are well.")
    for path in (catalog.parent / "media").iterdir():
        path.unlink()
    done = runner.invoke(app, ["doctor", "--quick", "-c", str(catalog)])
    assert done.exit_code == 1
    assert "BAD clips: media: " in done.stdout
    assert "    cure: put media there, or correct root" in done.stdout
    document = json.loads(runner.invoke(app, ["doctor", "--quick", "--json", "-c", str(catalog)]).stdout)
    assert document["ok"] is False
    assert {"name", "ok", "found", "cure"} == set(document["findings"][0])
