"""One writer at a time: who holds the lease, who is dead, who takes over, and what the loser is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from features.errors import StoreError
from pipeline.store import DatasetStore, lease
from pipeline.store.lease import FILE, Holder, Lease, acquire

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> DatasetStore:
    return DatasetStore(str(tmp_path) if request.param == "local" else f"memory://{tmp_path}", "grain")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heart that beats fast, and little patience."""
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.02)
    monkeypatch.setattr(lease, "SILENT_SECONDS", 0.3)


@dataclass
class Notes:
    """Events that keep what is told."""

    told: list[str] = field(default_factory=list)

    def started(self, stage: str, total: int | None, unit: str) -> None: ...
    def advanced(self, stage: str, n: int = 1) -> None: ...
    def finished(self, stage: str, message: str = "") -> None: ...
    def note(self, message: str) -> None:
        self.told.append(message)


def holder(store: DatasetStore) -> Holder:
    found = store.read(FILE)
    assert found is not None
    return Holder(**json.loads(found.content))


def stamp(store: DatasetStore) -> str:
    found = store.read(FILE)
    assert found is not None
    return found.stamp


def left_behind(store: DatasetStore, **changes: Any) -> Holder:
    """The file of a holder that died, ``changes`` telling how it was."""
    with acquire(store, "run"):
        left = replace(holder(store), **changes)
    store.write_bytes(FILE, json.dumps(asdict(left)).encode())
    return left


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "waited for 10 s"
        time.sleep(0.005)


def test_a_second_writer_is_refused_and_told_who_writes(store: DatasetStore) -> None:
    with acquire(store, "rebuild") as first:
        told = (
            rf"another run \(rebuild, pid {os.getpid()} on .*, since 20.*\) is writing .*; cure: wait until it is done"
        )
        with pytest.raises(StoreError, match=told), acquire(store, "run"):
            pytest.fail("two writers at once")
        first.check()
    with acquire(store, "run"):
        assert holder(store).purpose == "run"


def test_it_is_given_back_on_errors_and_interrupts(store: DatasetStore) -> None:
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), acquire(store, "run"):
            raise error
        assert holder(store).released
    with acquire(store, "run"):
        assert not holder(store).released


def test_data_sets_have_leases_of_their_own(tmp_path: Path) -> None:
    with acquire(DatasetStore(str(tmp_path), "a"), "run"), acquire(DatasetStore(str(tmp_path), "b"), "run") as second:
        second.check()


def test_readers_need_none(store: DatasetStore) -> None:
    with acquire(store, "run"):
        assert store.snapshot() is None


def test_a_killed_process_is_followed_at_once(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from pipeline.store import DatasetStore\n"
        "from pipeline.store.lease import acquire\n"
        "with acquire(DatasetStore(sys.argv[1], 'grain'), 'run'):\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    store, notes = DatasetStore(str(tmp_path), "grain"), Notes()
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(StoreError, match=rf"pid {process.pid} on "), acquire(store, "run"):
            pytest.fail("the other process lives")
        process.send_signal(signal.SIGKILL)
        until(lambda: Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z")
        with acquire(store, "run", events=notes):  # not waited for: a zombie is dead
            assert holder(store).pid == os.getpid()
    assert notes.told == [told for told in notes.told if told.startswith("took over from a run that died (run, pid ")]
    assert len(notes.told) == 1


def test_a_later_process_of_the_same_number_is_not_taken_for_the_holder(store: DatasetStore) -> None:
    left_behind(store, process_started="1")
    with acquire(store, "run"):
        assert holder(store).process_started != "1"


def test_a_holder_elsewhere_is_watched_and_followed_when_it_is_silent(store: DatasetStore, quick: None) -> None:
    left_behind(store, machine="another", host="far")
    notes = Notes()
    with acquire(store, "run", events=notes) as taken:
        taken.check()
    assert notes.told[0].startswith("waiting up to 0 s for a sign of life of another run (run, pid ")
    assert notes.told[1].startswith("took over from a run that died (run, pid ")


def test_a_holder_elsewhere_that_gives_a_sign_of_life_is_not_disturbed(
    store: DatasetStore, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SILENT_SECONDS", 30.0)
    monkeypatch.setattr(lease, "_LOOK_SECONDS", 0.02)
    with acquire(store, "run"):
        monkeypatch.setattr(lease, "_machine", lambda: "another")
        with pytest.raises(StoreError, match=r"another run .* is writing this data set, and it lives"):
            Lease(store, "run").take(Notes())


def test_a_crash_of_days_ago_costs_no_waiting(store: DatasetStore) -> None:
    left_behind(store, machine="another", renewed=time.time() - 2 * lease.STALE_SECONDS)
    notes = Notes()
    with acquire(store, "run", events=notes):
        assert len(notes.told) == 1
        assert notes.told[0].startswith("took over from a run that died")


def test_the_heart_beats(store: DatasetStore, quick: None) -> None:
    with acquire(store, "run"):
        first = holder(store)
        until(lambda: holder(store).renewed > first.renewed)
        assert holder(store).token == first.token


def test_who_lost_the_lease_is_told_and_leaves_the_new_holder_alone(store: DatasetStore, quick: None) -> None:
    with acquire(store, "run") as lost:
        left = replace(holder(store), token="of another", purpose="rebuild")
        until(lambda: store.swap(FILE, json.dumps(asdict(left)).encode(), stamp(store)))
        told = r"this run lost its lease: another run \(rebuild.*took over.*nothing of it was published; cure: run"
        with pytest.raises(StoreError, match=told):
            lost.check()
    assert holder(store) == left, "neither the heart nor the release wrote over it"
    store.fs.rm_file(store.path(FILE))
    with pytest.raises(StoreError, match="its file is gone"):
        lost.check()


def test_of_many_who_take_over_one_wins(tmp_path: Path) -> None:
    store = DatasetStore(str(tmp_path), "grain")
    for _ in range(20):
        left_behind(store, process_started="1")
        start, done, won, refused = threading.Barrier(4), threading.Barrier(4), [], []

        def contend(start: threading.Barrier, done: threading.Barrier, won: list[str], refused: list[str]) -> None:
            start.wait()
            try:
                with acquire(DatasetStore(str(tmp_path), "grain"), "run") as mine:
                    won.append("won")
                    done.wait()
                    mine.check()
            except StoreError as error:
                refused.append(str(error))
                done.wait()

        threads = [threading.Thread(target=contend, args=(start, done, won, refused)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(refused)) == (1, 3)


def test_a_put_whose_answer_was_lost_still_counts(tmp_path: Path) -> None:
    class Deaf(DatasetStore):
        """Writes, and says that it did not: what a retried conditional put looks like."""

        def create(self, path: str, content: bytes) -> bool:
            super().create(path, content)
            return False

        def swap(self, path: str, content: bytes, stamp: str) -> bool:
            super().swap(path, content, stamp)
            return False

    store = Deaf(str(tmp_path), "grain")
    for _ in range(2):
        mine = Lease(store, "run")
        mine.take(Notes())
        mine.check()
        mine.release()
        assert holder(store).released


def test_a_file_that_is_no_lease_is_not_passed_over(store: DatasetStore) -> None:
    store.write_bytes(FILE, b"{}")
    with pytest.raises(StoreError, match=r"_lease.json: is no lease \(\d+ faults\); cure: see that nobody writes"):
        Lease(store, "run").take(Notes())


def test_a_lease_that_cannot_be_renewed_or_released_does_not_hide_the_error(
    tmp_path: Path, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    store = DatasetStore(str(tmp_path), "grain")

    def unreachable(*_: object) -> bool:
        raise StoreError("the network is down")

    def goes_wrong() -> None:
        with acquire(store, "run"):
            store.swap = unreachable  # type: ignore[method-assign]
            until(lambda: "could not be renewed: the network is down" in caplog.text)
            raise ValueError("what went wrong")

    with pytest.raises(ValueError, match="what went wrong"):
        goes_wrong()
    assert "could not be released: the network is down" in caplog.text


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_small_files_are_created_swapped_and_replaced(kind: str, tmp_path: Path) -> None:
    store = DatasetStore(str(tmp_path) if kind == "local" else f"memory://{tmp_path}", "grain")
    assert store.read("a/file") is None
    assert not store.swap("a/file", b"x", "nothing")
    assert store.create("a/file", b"one")
    assert not store.create("a/file", b"two")
    first = store.read("a/file")
    assert first is not None
    assert first.content == b"one"
    assert store.swap("a/file", b"three", first.stamp)
    assert not store.swap("a/file", b"four", first.stamp)
    store.write_bytes("a/file", memoryview(b"five"))
    last = store.read("a/file")
    assert last is not None
    assert last.content == b"five"
    assert not [name for name in store.fs.ls(store.path("a"), detail=False) if name.endswith(".part")]


def test_swaps_at_once_lose_nothing(tmp_path: Path) -> None:
    store = DatasetStore(str(tmp_path), "grain")
    store.create("n", b"0")

    def count() -> None:
        done = 0
        while done < 25:
            found = store.read("n")
            assert found is not None
            done += store.swap("n", str(int(found.content) + 1).encode(), found.stamp)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = store.read("n")
    assert found is not None
    assert found.content == b"100"


def test_a_store_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = DatasetStore(str(tmp_path / "file"), "grain")
    with pytest.raises(StoreError, match="cannot be written: Not a directory; nothing of this run was published"):
        store.write_bytes("x", b"y")
    with pytest.raises(StoreError, match="cannot be read: Not a directory; cure: check the address"):
        store.read("x")
