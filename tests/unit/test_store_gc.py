"""Removing what no kept snapshot needs: exactly that, at whatever moment it is killed, and never of a live run."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from made_store import Made

from features.errors import StoreError
from pipeline.store import ShardFile, Snapshot
from pipeline.store.gc import Collected, collect, marker
from pipeline.store.lease import acquire
from pipeline.store.releases import create_release, releases

DAY = 86_400.0


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """Five snapshots: shard 0 is never changed, shard 1 by each of them."""
    made = Made(tmp_path)
    stays, last = made.file("f", 0, {"a": [[1, 1]]}), made.file("f", 1, {"b": [[1, 0]]})
    fitted = {"f": {"path": state(made, 1)}}
    made.publish(stays, last, samples={"a": 0, "b": 1}, fitted=fitted)
    for version in range(2, 6):
        fresh = made.file("f", 1, {"b": [[1, version]]})
        fitted = {"f": {"path": state(made, version)}}
        made.publish(fresh, removes=[last], samples={"a": 0, "b": 1}, fitted=fitted)
        last = fresh
    for version in range(1, 6):
        made.store.write_bytes(f"_models/{version}-abc/result.json", b"{}")
    return made


def state(made: Made, version: int) -> str:
    path = f"_fitted/f-{version}.safetensors"
    made.store.write_bytes(path, b"state")
    return path


def needs(snapshot: Snapshot) -> set[str]:
    tables = {snapshot.info["samples"], snapshot.info["quarantine"], snapshot.info["fitted"]["f"]["path"]}
    return tables | {file.path for file in snapshot.files} | {f"_models/{snapshot.version}-abc/result.json"}


def snapshot(made: Made, version: int) -> Snapshot:
    found = made.store.snapshot(version)
    assert found is not None
    return found


def data(made: Made) -> set[str]:
    """Every file but the log, the marks, the releases and the lease."""
    return {path for path in made.files() if path.startswith(("feature=", "_tables", "_fitted", "_models"))}


def enter(made: Made, name: str, *files: ShardFile, days_ago: float = 0) -> None:
    """Put an entry into the ledger, as a worker does when it has finished a shard."""
    entry = {"files": [{"path": file.path, "size": file.size, "rows": file.rows} for file in files]}
    path = f"_ledger/{name}.json"
    made.store.write_bytes(path, json.dumps(entry).encode())
    then = time.time() - days_ago * DAY
    os.utime(made.folder / path, (then, then))


def test_what_is_left_is_what_the_kept_snapshots_need(made: Made) -> None:
    create_release(made.store, "paper-1", 2)
    wanted = needs(snapshot(made, 2)) | needs(snapshot(made, 4)) | needs(snapshot(made, 5))
    before = data(made)
    found = collect(made.store, keep=2)
    assert data(made) == wanted
    assert (found.kept, found.removed, found.releases) == ((2, 4, 5), (1, 3), {"paper-1": 2})
    assert sum(freed.files for freed in found.freed.values()) == len(before) - len(wanted)
    assert {kind: freed.files for kind, freed in found.freed.items()} == {
        "shard files of removed snapshots": 2,
        "tables of samples and quarantine of removed snapshots": 4,
        "fitted state of removed snapshots": 2,
        "models trained on removed snapshots": 2,
    }
    for version in (2, 4, 5):
        assert snapshot(made, version).read("f")["sample_id"].to_pylist() == ["a", "b"]
        assert snapshot(made, version).samples["sample_id"].to_pylist() == ["a", "b"]


def test_a_removed_snapshot_says_so_and_what_is_kept(made: Made) -> None:
    create_release(made.store, "paper-1", 2)
    collect(made.store, keep=2)
    said = re.escape("snapshot 3 was removed by gc (kept: 2, 4, 5; releases: paper-1 = 2)")
    with pytest.raises(StoreError, match=said):
        made.store.snapshot(3)


def test_bytes_freed_are_those_of_the_files_that_went(made: Made) -> None:
    sizes = {path: (made.folder / path).stat().st_size for path in data(made)}
    found = collect(made.store, keep=1)
    assert found.bytes == sum(sizes.values()) - sum(sizes[path] for path in data(made)) > 0
    assert found.as_json()["bytes"] == found.bytes


def test_a_dry_run_says_the_same_and_removes_nothing(made: Made) -> None:
    before = made.files()
    would = collect(made.store, keep=2, dry_run=True)
    assert made.files() - before <= {"_lease.json", "_lease.json.lock"}
    assert made.store.removed() == frozenset()
    did = collect(made.store, keep=2)
    assert would.dry_run
    assert (would.freed, would.removed, would.kept) == (did.freed, did.removed, did.kept)


def test_a_second_call_finds_nothing(made: Made) -> None:
    collect(made.store, keep=2)
    before = data(made)
    again = collect(made.store, keep=2)
    assert (again.freed, again.removed, again.bytes) == ({}, (), 0)
    assert data(made) == before
    wider = collect(made.store, keep=10)
    assert wider.kept == (4, 5), "what is gone does not come back"


def test_files_of_dead_runs_go_but_finished_shards_stay_resumable(made: Made) -> None:
    orphan, finished, old = (made.file("f", 7, {"x": [[i, 1]]}) for i in range(3))
    enter(made, "young", finished, days_ago=6)
    enter(made, "old", old, days_ago=8)
    enter(made, "broken-work", orphan)
    (made.folder / orphan.path).unlink()
    unnamed = made.file("f", 8, {"y": [[1, 1]]})
    made.store.write_bytes("_ledger/torn.json", b'{"files": [')
    found = collect(made.store)
    assert found.resumable == 1
    assert made.files("_ledger") == {"_ledger/young.json"}
    assert finished.path in data(made)
    assert not {old.path, unnamed.path} & data(made)
    assert {kind: freed.files for kind, freed in found.freed.items()} == {
        "files of runs that ended without publishing": 2,
        "ledger entries that are old or of no use": 3,
    }
    assert collect(made.store, ledger_days=0).resumable == 0
    assert finished.path not in data(made)


def test_other_files_are_left_alone(made: Made) -> None:
    kept = ["_runs/one/report.json", "_cache/content.parquet", "_models/README", "notes.txt", "_cache/.a.1.part"]
    for path in kept:
        made.store.write_bytes(path, b"x")
    made.store.write_bytes("_cache/.old.2.part", b"x")
    then = time.time() - 2 * DAY
    os.utime(made.folder / "_cache/.old.2.part", (then, then))
    collect(made.store, keep=1)
    assert set(kept) <= made.files()
    assert "_cache/.old.2.part" not in made.files()


def test_nothing_is_removed_while_another_writes(made: Made) -> None:
    before = data(made)
    with acquire(made.store, "run"), pytest.raises(StoreError, match="run"):
        collect(made.store, keep=1)
    assert data(made) == before
    assert made.store.removed() == frozenset()
    assert collect(made.store, keep=1).removed == (1, 2, 3, 4)


@pytest.mark.parametrize("after", range(14))
def test_killed_at_any_moment_it_leaves_kept_snapshots_whole_and_is_finished_by_the_next(
    made: Made, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The marks and the removals are counted; the process 'dies' after some of them."""

    class KilledError(BaseException):
        pass

    left = [after]

    def step() -> None:
        if not left[0]:
            raise KilledError
        left[0] -= 1

    create, remove = made.store.create, made.store.fs.rm

    def counted_create(path: str, content: bytes) -> bool:
        if path.startswith("_gc/"):
            step()
        return create(path, content)

    def one_by_one(paths: list[str]) -> None:
        for path in paths:
            step()
            remove(path)

    with monkeypatch.context() as patch:
        patch.setattr(made.store, "create", counted_create)
        patch.setattr(made.store.fs, "rm", one_by_one)
        with pytest.raises(KilledError):
            collect(made.store, keep=2)
    for version in (1, 2, 3, 4, 5):
        if version in made.store.removed():
            with pytest.raises(StoreError, match="was removed by gc"):
                made.store.snapshot(version)
        else:
            assert needs(snapshot(made, version)) <= made.files()
    collect(made.store, keep=2)
    assert data(made) == needs(snapshot(made, 4)) | needs(snapshot(made, 5))
    assert made.store.removed() == {1, 2, 3}


def test_a_snapshot_that_is_released_meanwhile_is_spared(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that was made before the mark could be seen wins."""
    create = made.store.create

    def meanwhile(path: str, content: bytes) -> bool:
        if path == marker(2):
            create_release(made.store, "paper-1", 2)
        return create(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(made.store, "create", meanwhile)
        found: Collected = collect(made.store, keep=1)
    assert (found.kept, found.removed, found.releases) == ((2, 5), (1, 3, 4), {"paper-1": 2})
    assert needs(snapshot(made, 2)) <= made.files()


def test_a_mark_without_removal_is_taken_back_for_a_release_and_kept_where_files_are_gone(made: Made) -> None:
    create_release(made.store, "whole", 2)
    create_release(made.store, "gone", 3)
    for version in (2, 3):
        made.store.create(marker(version), b"{}")
    (made.folder / snapshot_file(made, 3)).unlink()
    assert collect(made.store, keep=1).kept == (2, 5)
    assert snapshot(made, 2).read("f")["sample_id"].to_pylist() == ["a", "b"]
    with pytest.raises(StoreError, match="snapshot 3 was removed by gc"):
        made.store.snapshot(3)
    assert set(releases(made.store)) == {"whole", "gone"}


def snapshot_file(made: Made, version: int) -> str:
    found = made.store.at(version)
    assert found is not None
    return found.files_of("f")[1].path


def test_a_kept_snapshot_with_missing_files_stops_it(made: Made) -> None:
    (made.folder / snapshot_file(made, 5)).unlink()
    before = data(made)
    with pytest.raises(
        StoreError, match=r"snapshot 5 is to be kept, but 1 of its files are not there \(the first: fea"
    ):
        collect(made.store, keep=1)
    assert data(made) == before
    assert made.store.removed() == frozenset()


def test_wrong_use_is_told(made: Made, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="got keep 0; allowed: 1 or more"):
        collect(made.store, keep=0)
    with pytest.raises(StoreError, match="nothing is published yet"):
        collect(Made(tmp_path / "elsewhere").store)
    assert not (tmp_path / "elsewhere").exists()
