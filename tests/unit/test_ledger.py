"""The ledger of finished shards: what is cleared is gone, all else stays, and it costs no request an entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.execute import ledger
from pipeline.execute.ledger import FOLDER, Ledger
from pipeline.execute.work import ShardReport
from pipeline.store import DatasetStore


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(str(tmp_path), "grain")


def entered(store: DatasetStore, count: int) -> list[str]:
    names = [f"{number:032x}" for number in range(count)]
    for number, name in enumerate(names):
        Ledger(store).record(ShardReport(shard=number, entry=name))
    return names


def test_cleared_entries_are_gone_and_all_others_stay(store: DatasetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "_AT_ONCE", 3)
    names = entered(store, 9)
    Ledger(store).clear([*names[:7], names[0], "f" * 32])  # one twice, and one that is not there
    assert sorted(Path(store.path(FOLDER)).iterdir()) == [
        Path(store.path(FOLDER, f"{name}.json")) for name in names[7:]
    ]
    left = Ledger(store)
    assert left.find(names[0]) is None
    found = left.find(names[8])
    assert found is not None
    assert found.shard == 8


def test_clearing_does_not_ask_for_each_entry(store: DatasetStore, monkeypatch: pytest.MonkeyPatch) -> None:
    names = entered(store, 50)
    asked: list[str] = []
    there = store.fs.exists
    monkeypatch.setattr(store.fs, "exists", lambda path: asked.append(path) or there(path))
    Ledger(store).clear(names)
    assert len(asked) == 1
    assert not list(Path(store.path(FOLDER)).iterdir())


def test_a_store_without_a_ledger_has_nothing_to_clear(store: DatasetStore) -> None:
    Ledger(store).clear(["0" * 32])
    assert not Path(store.path(FOLDER)).exists()
