"""The ledger of finished shards: what a killed or red run has computed is used by the next one.

An entry is named by the digest of the work that it answers (samples, content, recipes, kept rows, base file), so it is
used by whichever run asks for exactly that work, and by none that asks for anything else. It is written after the files
that it names, and only where there is none yet: of two runs that finish the same shard, the first one counts. Files
that no entry and no snapshot names are never read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, partial
from itertools import islice
from typing import Any, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.execute.engine import Engine, Piece
from pipeline.execute.work import ShardReport
from pipeline.keys import digest_json
from pipeline.store import ALIGNED_PREFIX, DatasetStore

W = TypeVar("W", bound="Work")

FOLDER = "_ledger"
_AT_ONCE = 1_000
"""Entries that are removed by one request, where the store can do that."""
_ENTRY = TypeAdapter(ShardReport)


class Work(Piece, Protocol):
    """Work on one shard that can be entered in the ledger."""

    @property
    def store(self) -> str:
        """The store's root."""
        ...

    @property
    def dataset(self) -> str:
        """The data set's name."""
        ...

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the result, as a JSON document."""
        ...


def entry_name(work: Work) -> str:
    """The ledger's name for a piece of work: the digest of everything in it that decides its result."""
    return digest_json([type(work).__name__, work.identity]).hex()


def recorded(function: Callable[[W], ShardReport], work: W) -> ShardReport:
    """Do the work and enter it in the ledger. Runs where the work runs, so that it counts even if the driver dies."""
    name = entry_name(work)
    ledger = Ledger(DatasetStore(work.store, work.dataset))
    finished = ledger.read(name)
    if finished is not None:  # a worker died after the entry and before its answer
        return finished
    report = function(work)
    report.entry = name
    return ledger.record(report)


class Ledger:
    """The finished shards of one data set."""

    def __init__(self, store: DatasetStore) -> None:
        self._store = store

    @cached_property
    def _names(self) -> frozenset[str]:
        """The entries that there were when this ledger was first asked."""
        return self._listed()

    def _listed(self) -> frozenset[str]:
        """The entries that there are now."""
        folder = self._store.path(FOLDER)
        if not self._store.fs.exists(folder):
            return frozenset()
        found = self._store.fs.ls(folder, detail=False)
        return frozenset(str(path).rpartition("/")[2].removesuffix(".json") for path in found)

    def find(self, name: str) -> ShardReport | None:
        """The report of work that was finished before, where its files are still what they were."""
        return self.read(name) if name in self._names else None

    def read(self, name: str) -> ShardReport | None:
        """The same, asked of the store now."""
        try:
            report = _ENTRY.validate_json(self._store.fs.cat_file(self._path(name)))
        except FileNotFoundError:
            return None
        except ValidationError:  # the machine lost power while it was written
            return None
        whole = all(self._store.has(file) for file in report.files)
        return report if whole else None

    def record(self, report: ShardReport) -> ShardReport:
        """Enter finished work; return the report that counts (another run's, where it was first)."""
        content = _ENTRY.dump_json(report)
        if self._store.create(f"{FOLDER}/{report.entry}.json", content):
            return report
        first = self.read(report.entry)
        if first is not None:
            return first
        self._store.write_bytes(f"{FOLDER}/{report.entry}.json", content)
        return report

    def clear(self, names: Iterable[str]) -> None:
        """Forget entries: their files are published, or must be computed again."""
        paths = (self._path(name) for name in sorted(self._listed() & set(names)))
        while some := list(islice(paths, _AT_ONCE)):
            self._store.fs.rm(some)

    def _path(self, name: str) -> str:
        return self._store.path(FOLDER, f"{name}.json")


class Progress:
    """The work of one run: what an earlier, unpublished run finished is taken from the ledger, the rest is done."""

    def __init__(self, store: DatasetStore) -> None:
        self._ledger = Ledger(store)
        self._entries: dict[str, bool] = {}
        self.resumed = 0
        """Rows that were taken from the ledger, aligned ones not counted."""

    def reports(self, engine: Engine, function: Callable[[W], ShardReport], work: Iterable[W]) -> Iterator[ShardReport]:
        """The report of every piece of work, as it is finished."""
        finished: list[ShardReport] = []

        def todo() -> Iterator[W]:
            for piece in work:
                found = self._ledger.find(entry_name(piece))
                if found is None:
                    yield piece
                else:
                    finished.append(found)

        for report in engine.map(partial(recorded, function), todo()):
            yield self._enter(report)
            yield from self._resume(finished)
        yield from self._resume(finished)

    def forget(self, *, failed: bool = False) -> None:
        """Clear the ledger of this run's work; of that in which samples ``failed`` only, so that it is tried again."""
        self._ledger.clear(name for name, has_failures in self._entries.items() if has_failures or not failed)

    def _resume(self, finished: list[ShardReport]) -> Iterator[ShardReport]:
        while finished:
            report = finished.pop()
            counted = (rows for name, rows in report.computed.items() if not name.startswith(ALIGNED_PREFIX))
            self.resumed += sum(counted)
            yield self._enter(report)

    def _enter(self, report: ShardReport) -> ShardReport:
        self._entries[report.entry] = bool(report.failures)
        return report
