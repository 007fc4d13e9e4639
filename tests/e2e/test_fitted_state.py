"""Fitted state: frozen between nights, fitted again only when that is asked for."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pipeline import run as runs
from pipeline.catalog import load_catalog
from pipeline.run import published

if TYPE_CHECKING:
    from conftest import World

VECTORS = "text.word2vec: {options: {vector_size: 4, epochs: 1}}"


@pytest.fixture
def fitted(world: World) -> World:
    world.edit(world.catalog, "    features:\n", f"    features:\n      {VECTORS}\n")
    report = world.run()
    assert report.features["text.word2vec"].done == 12
    return world


def state(world: World) -> str:
    digest: str = published(load_catalog(world.catalog), "grain").info["fitted"]["text.word2vec"]["digest"]
    return digest


def test_new_samples_do_not_change_the_vectors_of_old_ones(fitted: World) -> None:
    before = state(fitted)
    fitted.add(40)
    report = fitted.run()
    assert report.features["text.word2vec"].done == 1
    assert report.features["text.word2vec"].unchanged == 12
    assert state(fitted) == before


def test_rebuild_fits_again(fitted: World) -> None:
    before = state(fitted)
    for i in range(40, 50):
        fitted.add(i)
    report = fitted.run(from_nothing=True)
    assert report.features["text.word2vec"].done == 22
    assert state(fitted) != before


def test_other_options_fit_again(fitted: World) -> None:
    fitted.edit(fitted.catalog, "vector_size: 4", "vector_size: 5")
    report = fitted.run()
    assert report.features["text.word2vec"].done == 12
    assert dict(report.reasons["text.word2vec"]) == {"must be fitted first": 12}


def test_the_catalogs_policy_fits_again_when_the_state_is_old(fitted: World, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted.edit(fitted.catalog, "    align:", "    fit: {every_days: 30}\n    align:")
    later = timedelta(days=29, hours=23)

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]  # a fixed distance from now
            return datetime.now(tz) + later

    monkeypatch.setattr(runs, "datetime", Later)
    assert fitted.run().computed == 0
    later = timedelta(days=30)
    report = fitted.run()
    assert dict(report.reasons["text.word2vec"]) == {"must be fitted first": 12}
    assert report.computed == 0, "the same corpus gives the same vectors, and so the same rows"
    assert report.published, "the age of the state is counted from here"
    assert not fitted.run().published
    later = timedelta(days=61)
    for i in range(40, 50):
        fitted.add(i)
    report = fitted.run()
    assert report.features["text.word2vec"].done == 22
    assert report.features["words"].done == 10
