"""History, releases and time travel: a snapshot is what it was, and is found by version or by name."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from made_store import Made

from features.errors import StoreError
from pipeline.store.gc import collect
from pipeline.store.history import history
from pipeline.store.quarantine import Failure
from pipeline.store.releases import create_release, delete_release, open_snapshot, releases


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Three snapshots of one feature: one sample, another one, and the first one gone."""
    made = Made(tmp_path)
    first = made.file("f", 0, {"a": [[1, 0]]})
    made.publish(first, samples={"a": 0}, changes={"f": [["new", 1]]})
    made.publish(made.file("f", 1, {"b": [[0, 1]]}), samples={"a": 0, "b": 1}, changes={"f": [["new", 1]]})
    failure = Failure(sample_id="c", feature="f", stage="decode", reason="corrupt", message="no")
    changes = {"f": [["removed", 1]]}
    made.publish(removes=[first], samples={"b": 1, "c": 2}, quarantine=[failure], changes=changes)
    return made


def test_an_old_snapshot_has_its_own_tables_not_those_of_the_last(made: Made) -> None:
    ids = {}
    for version in (1, 2, 3):
        snapshot = made.store.snapshot(version)
        assert snapshot is not None
        assert snapshot.info["run_id"] == f"run-{version}"
        ids[version] = (snapshot.samples["sample_id"].to_pylist(), snapshot.quarantine["sample_id"].to_pylist())
    assert ids == {1: (["a"], []), 2: (["a", "b"], []), 3: (["b", "c"], ["c"])}


def test_the_history_tells_what_each_snapshot_holds_and_what_changed(made: Made) -> None:
    create_release(made.store, "paper-1", 2)
    told = [
        (entry.version, entry.samples, entry.quarantined, dict(entry.rows), entry.changed, entry.releases)
        for entry in history(made.store)
    ]
    assert told == [
        (3, 2, 1, {"f": 1}, "f: removed (1)", ()),
        (2, 2, 0, {"f": 2}, "f: new (1)", ("paper-1",)),
        (1, 1, 0, {"f": 1}, "f: new (1)", ()),
    ]
    made.publish(samples={"b": 1, "c": 2}, rebuilt=True)
    assert history(made.store)[0].changed == "rebuilt: no row changed"
    assert history(made.store)[0].as_json()["changed"] == "rebuilt: no row changed"


def test_a_store_without_snapshots_has_no_history(tmp_path: Path) -> None:
    assert history(Made(tmp_path).store) == []
    assert open_snapshot(Made(tmp_path).store, None) is None
    assert open_snapshot(Made(tmp_path).store, "3") is None


@pytest.mark.parametrize(("which", "version"), [(None, 3), (1, 1), ("2", 2), ("paper-1", 1), ("v2.0_b", 2)])
def test_a_snapshot_is_found_by_version_or_release(made: Made, which: str | int | None, version: int) -> None:
    create_release(made.store, "paper-1", 1)
    create_release(made.store, "v2.0_b", 2)
    found = open_snapshot(made.store, which)
    assert found is not None
    assert found.version == version


def test_what_is_not_there_is_answered_with_what_is(made: Made) -> None:
    create_release(made.store, "paper-1", 2)
    there = r"kept: 1, 2, 3; releases: paper-1 = 2"
    for which in ("paper-2", "../_cache/content", "0"):
        with pytest.raises(StoreError, match=there):
            open_snapshot(made.store, which)
    with pytest.raises(StoreError, match="cannot open snapshot 77"):
        open_snapshot(made.store, "77")
    with pytest.raises(StoreError, match=f"no release 'paper-2'; {there}"):
        delete_release(made.store, "paper-2")


def test_a_release_is_made_once(made: Made) -> None:
    release = create_release(made.store, "paper-1", 2)
    assert create_release(made.store, "paper-1", 2) == release
    with pytest.raises(StoreError, match="release 'paper-1' is snapshot 2 already; cure: another name, or"):
        create_release(made.store, "paper-1")
    delete_release(made.store, "paper-1")
    assert create_release(made.store, "paper-1").version == 3


@pytest.mark.parametrize("name", ["12", "", "-x", "a/b", "a b", ".a"])
def test_a_release_has_a_name_that_is_no_version_and_no_path(made: Made, name: str) -> None:
    with pytest.raises(StoreError, match=r"allowed: letters, digits and '_\.-'"):
        create_release(made.store, name)


def test_a_damaged_release_is_told_and_can_be_deleted(made: Made) -> None:
    create_release(made.store, "paper-1")
    (made.folder / "_releases" / "paper-1.json").write_text("{")
    with pytest.raises(StoreError, match="release 'paper-1' cannot be read"):
        releases(made.store)
    with pytest.raises(StoreError, match="release 'paper-1' cannot be read"):
        collect(made.store, keep=1)
    assert len(history_versions(made)) == 3
    delete_release(made.store, "paper-1")
    assert releases(made.store) == {}


def history_versions(made: Made) -> list[int]:
    return [version for version in (1, 2, 3) if made.store.snapshot(version) is not None]


def test_a_snapshot_that_gc_removes_while_it_is_named_is_not_released(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = made.store.create

    def meanwhile(path: str, content: bytes) -> bool:
        if path.startswith("_releases/"):
            collect(made.store, keep=1)
        return create(path, content)

    monkeypatch.setattr(made.store, "create", meanwhile)
    with pytest.raises(StoreError, match=r"snapshot 1 was removed by gc \(kept: 3; "):
        create_release(made.store, "paper-1", 1)
    assert releases(made.store) == {}


def test_a_log_that_was_cleaned_up_is_told(made: Made) -> None:
    DeltaTable(made.store.url).create_checkpoint()
    (made.folder / "_delta_log" / "00000000000000000002.json").unlink()
    with pytest.raises(StoreError, match="the log of a data set must not be cleaned up"):
        history(made.store)


def test_what_a_commit_says_is_read_without_its_list_of_files(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    class Lines(BytesIO):
        def __next__(self) -> bytes:
            read.append(super().__next__())
            return read[-1]

    def opened(path: str, *_: Any, **__: Any) -> Lines:
        return Lines(Path(path).read_bytes())

    expected = made.store.commits()
    monkeypatch.setattr(made.store.fs, "open", opened)
    assert made.store.commits() == expected
    said = [line for line in read if line.startswith(b'{"commitInfo"')]
    assert len(said) == 4  # versions 0 to 3
    assert not [line for line in read if line.startswith(b'{"add"')]
