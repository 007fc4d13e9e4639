"""Dask workers and a serial run publish the same bytes, the user's own steps included."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from features.errors import GristmillError
from pipeline.catalog import load_catalog
from pipeline.execute.engine import resolve_device
from pipeline.run import published, run_dataset

if TYPE_CHECKING:
    from conftest import World


def test_dask_publishes_the_bytes_that_a_serial_run_publishes(world: World) -> None:
    (world.media / "day" / "s01.png").write_bytes(b"broken")
    catalog = load_catalog(world.catalog)
    serial = run_dataset(catalog, "grain", engine="serial")
    first = published(catalog, "grain")
    dask = run_dataset(catalog, "grain", engine="dask", from_nothing=True)
    second = published(catalog, "grain")
    assert serial.computed == dask.computed == 23
    assert serial.quarantine_by_reason == dask.quarantine_by_reason
    assert second.version > first.version
    for feature in ("brightness", "words", "aligned.brightness", "aligned.words"):
        assert {file.digest for file in first.files_of(feature)} == {file.digest for file in second.files_of(feature)}


def test_cuda_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(GristmillError, match="got 'cuda', but torch finds no CUDA device; allowed here: auto, cpu"):
        resolve_device("cuda")
    assert resolve_device("auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == resolve_device("cuda") == "cuda"


def test_our_packages_are_the_ones_imported() -> None:
    import features
    import flows
    import pipeline

    root = Path(__file__).resolve().parents[2]
    for package in (features, pipeline, flows):
        assert Path(str(package.__file__)).parent.parent == root
