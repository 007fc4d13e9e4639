"""The store: whole or not at all, checked before it is visible, one version for all features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from features.errors import StoreError
from features.types import FeatureSequence
from pipeline.execute.task import write_file
from pipeline.store import DatasetStore, ShardFile, Snapshot
from pipeline.store.quarantine import to_table
from pipeline.store.shard import Row, rows_to_table


def file(store: DatasetStore, feature: str, shard: int, value: float) -> ShardFile:
    ones = np.ones(1, dtype=np.int64)
    sequence = FeatureSequence(values=np.full((1, 2), value, dtype=np.float32), start_ns=ones * 0, end_ns=ones)
    row = Row(sample_id=f"s{shard}", split="train", label=None, content=b"c" * 16, recipe=b"r" * 16, sequence=sequence)
    return write_file(store, feature, shard, rows_to_table(shard, [row], {"feature": feature, "dim": 2}))


def info(store: DatasetStore) -> dict[str, Any]:
    samples = pa.table({"sample_id": ["s0"], "shard": pa.array([0], pa.int32())})
    tables = {"samples": store.write_table("samples", samples), "quarantine": store.write_table("q", to_table([]))}
    return {"run_id": "r", "created": "now", "recipes": {}, "fitted": {}, "dims": {"f": 2, "g": 2}, **tables}


def publish(store: DatasetStore, run_id: str, base: Snapshot | None, *adds: ShardFile, removes: Any = ()) -> int:
    return store.commit(run_id=run_id, base=base, adds=adds, removes=removes, info=info(store))


@pytest.fixture
def store(tmp_path: Path) -> DatasetStore:
    return DatasetStore(str(tmp_path), "grain")


def values(snapshot: Snapshot | None, feature: str) -> list[list[float]]:
    assert snapshot is not None
    found: list[list[float]] = snapshot.read(feature, ["values"])["values"].to_pylist()
    return found


def test_nothing_is_published_at_first(store: DatasetStore) -> None:
    assert store.snapshot() is None


def test_files_are_invisible_until_they_are_committed(store: DatasetStore) -> None:
    publish(store, "one", None, file(store, "f", 0, 1))
    file(store, "f", 1, 2)
    snapshot = store.snapshot()
    assert snapshot is not None
    assert [found.shard for found in snapshot.files] == [0]


def test_one_commit_adds_and_removes_for_all_features(store: DatasetStore) -> None:
    first = publish(store, "one", None, file(store, "f", 0, 1), file(store, "g", 0, 2))
    base = store.snapshot()
    assert base is not None
    publish(store, "two", base, file(store, "f", 0, 3), removes=base.files_of("f"))
    assert values(store.snapshot(), "f") == [[3, 3]]
    assert values(store.snapshot(), "g") == [[2, 2]]
    assert values(store.snapshot(first), "f") == [[1, 1]], "the old snapshot still reads as it was"
    assert base.summary()["features"]["f"]["rows"] == 1


def test_a_run_planned_on_an_old_snapshot_is_refused(store: DatasetStore) -> None:
    publish(store, "one", None, file(store, "f", 0, 1))
    base = store.snapshot()
    publish(store, "two", base, file(store, "f", 1, 2))
    with pytest.raises(StoreError, match="another run published snapshot 2 while this one worked on snapshot 1"):
        publish(store, "three", base, file(store, "f", 2, 3))
    with pytest.raises(StoreError, match="another run published snapshot 2 while this one worked on snapshot None"):
        publish(store, "four", None, file(store, "f", 2, 3))


@pytest.mark.parametrize("damage", ["missing", "short", "rows", "columns"])
def test_a_damaged_file_is_not_published(store: DatasetStore, damage: str) -> None:
    good = file(store, "f", 0, 1)
    path = Path(store.path(good.path))
    if damage == "missing":
        path.unlink()
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-20])
    elif damage == "rows":
        good = ShardFile(good.path, good.size, good.rows + 1)
    else:
        import pyarrow.parquet as pq

        pq.write_table(pa.table({"a": [1]}), path)
        good = ShardFile(good.path, path.stat().st_size, 1)
    with pytest.raises(StoreError, match="cannot be published"):
        publish(store, "one", None, good)
    assert store.snapshot() is None


def test_keys_are_read_once_and_follow_the_snapshot(store: DatasetStore) -> None:
    def keys() -> list[tuple[str, int, bytes]]:
        snapshot = store.snapshot()
        assert snapshot is not None
        rows = snapshot.keys("f").to_pylist()
        assert {row["file"] for row in rows} == {found.path for found in snapshot.files_of("f")}
        return sorted((row["sample_id"], row["shard"], row["content"]) for row in rows)

    files = [file(store, "f", shard, 1) for shard in range(3)]
    publish(store, "one", None, *files)
    assert keys() == [(f"s{shard}", shard, b"c" * 16) for shard in range(3)]
    for found in files:
        Path(store.path(found.path)).unlink()
    assert len(keys()) == 3, "files that were read before are not opened again"
    base = store.snapshot()
    publish(store, "two", base, file(store, "f", 3, 1), removes=[files[0]])
    assert [row[0] for row in keys()] == ["s1", "s2", "s3"]
    assert [row[0] for row in keys()] == ["s1", "s2", "s3"]


def test_an_unknown_feature_or_version_is_named(store: DatasetStore) -> None:
    publish(store, "one", None, file(store, "f", 0, 1))
    snapshot = store.snapshot()
    assert snapshot is not None
    with pytest.raises(StoreError, match="no rows of 'h' in snapshot 1; it has: f"):
        snapshot.read("h")
    with pytest.raises(StoreError, match="cannot open snapshot 77"):
        store.snapshot(77)


def test_a_file_of_another_name_is_refused() -> None:
    with pytest.raises(StoreError, match="not the name of a shard file"):
        _ = ShardFile("feature=f/other.parquet", 1, 1).shard
