"""A disk that is not mounted stops the runs of its own data set: not those of others, and nobody who reads features."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from features.errors import CatalogError
from pipeline import open_store
from pipeline.catalog import load_catalog
from pipeline.demo import CATALOG, write_corpus
from pipeline.scan import scan

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]

TWO = """
version: 1
store: store
engine: {kind: serial, device: cpu}
datasets:
  away:
    root: away
    source: {kind: csv, path: list.csv, columns: {audio: path}}
    features: {audio.mfcc: {}}
  here:
    root: here
    source: {kind: folder}
    features: {audio.mfcc: {}}
"""


def gristmill(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def two(tmp_path: Path) -> Path:
    tone = np.sin(np.arange(8_000) / 9).astype(np.float32)
    for name in ("away", "here"):
        (tmp_path / name).mkdir()
        soundfile.write(tmp_path / name / "a.wav", tone, 16_000)
    (tmp_path / "away/list.csv").write_text("path\na.wav\n")
    (tmp_path / "data_catalog.yaml").write_text(TWO)
    return tmp_path


def test_what_is_not_mounted_stops_its_own_runs_alone(two: Path) -> None:
    assert gristmill(two, "run").returncode == 0
    shutil.move(two / "away", two / "elsewhere")

    for command in ("plan", "run"):
        done = gristmill(two, command)
        assert done.returncode == 2, done.stderr
        told = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert told == [
            f"error: away: root: no such folder: {two}/away; cure: make or mount it, or correct the catalog"
        ]
        assert re.search(r"\bhere\b", done.stdout), done.stdout
    alone = gristmill(two, "run", "away")
    assert alone.returncode == 2
    assert "no such folder" in alone.stderr

    samples = open_store(load_catalog(two / "data_catalog.yaml"), "away").samples()
    assert len(samples) == 1, "what is stored is read without the media"
    assert gristmill(two, "show", "away").returncode == 0


def test_nothing_is_done_for_a_name_that_the_catalog_does_not_have(two: Path) -> None:
    done = gristmill(two, "run", "here", "hero")
    assert done.returncode == 2
    assert "hero" in done.stderr
    assert not (two / "store").exists()


def test_the_catalog_of_the_repository_is_that_of_the_demo(tmp_path: Path) -> None:
    text = (ROOT / "data_catalog.yaml").read_text()
    (tmp_path / CATALOG).write_text(text)
    loaded = load_catalog(tmp_path / CATALOG)  # as in a fresh clone: the demo has not been made yet
    with pytest.raises(CatalogError, match=r"no such folder: .*/gristmill-demo/media; cure: make or mount it"):
        scan(loaded.dataset("demo"))
    made = write_corpus(tmp_path / "gristmill-demo", samples=4)
    theirs = load_catalog(made.catalog)
    assert loaded == replace(theirs, path=loaded.path, store=str(tmp_path / "store"))
    assert len(scan(loaded.dataset("demo")).samples) == 6
