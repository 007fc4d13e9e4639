"""Removing what no kept snapshot needs.

Kept are the last snapshots, all released ones and the current one, whatever they name, and the ledger's entries of runs
that may still be resumed. Everything else that runs have written is removed. The lease is held meanwhile, so there is
no live run whose files could be met. Killed at any moment, it leaves every kept snapshot whole, and no removed one
that could be opened: the versions are marked as removed before the first file goes, and the next call finishes.
"""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from features.errors import StoreError
from pipeline.events import SILENT, Events
from pipeline.store.dataset import REMOVED, DatasetStore
from pipeline.store.lease import Lease, acquire
from pipeline.store.releases import releases
from pipeline.store.snapshot import Snapshot

KEEP = 10
LEDGER_DAYS = 7.0
_LEFTOVER_AGE = timedelta(days=1)
"""Temporary files of those who write without the lease (``plan``, ``train``) are nobody's when they are this old."""
_AT_ONCE = 200

ROWS = "shard files of removed snapshots"
TABLES = "tables of samples and quarantine of removed snapshots"
FITTED = "fitted state of removed snapshots"
MODELS = "models trained on removed snapshots"
PICTURES = "pictures kept of removed snapshots"
LEDGER = "ledger entries that are old or of no use"
UNPUBLISHED = "files of runs that ended without publishing"


@dataclass(frozen=True)
class Freed:
    """Files of one kind: how many, and their bytes."""

    files: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What was removed (``dry_run``: would be removed). ``removed``: versions that cannot be read any more.

    ``resumable`` counts the kept ledger entries: finished shards of runs that have not published.
    """

    dataset: str
    kept: tuple[int, ...]
    releases: dict[str, int]
    removed: tuple[int, ...]
    freed: dict[str, Freed]
    resumable: int
    dry_run: bool

    @property
    def bytes(self) -> int:
        """Bytes freed in all."""
        return sum(freed.bytes for freed in self.freed.values())

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON document."""
        return asdict(self) | {"bytes": self.bytes}


@dataclass(frozen=True)
class _File:
    path: str
    size: int
    kind: str


def collect(
    store: DatasetStore,
    *,
    keep: int = KEEP,
    ledger_days: float = LEDGER_DAYS,
    dry_run: bool = False,
    events: Events = SILENT,
) -> Collected:
    """Keep the last ``keep`` snapshots, the released ones and the current one; remove what none of them needs.

    Finished shards of runs that did not publish are kept for ``ledger_days``, to be resumed. Raises ``StoreError`` when
    a live run holds the lease, or a file that is to be kept is not there (nothing is removed then).
    """
    if keep < 1:
        raise StoreError(f"gc: got keep {keep}; allowed: 1 or more")
    if not store.fs.exists(store.root):
        raise StoreError(f"{store.url}: nothing is published yet; there is nothing to remove")
    with acquire(store, "gc", events=events) as lease:
        return _collect(store, lease, keep, timedelta(days=ledger_days), dry_run, events)


def _collect(
    store: DatasetStore, lease: Lease, keep: int, ledger_age: timedelta, dry_run: bool, events: Events
) -> Collected:
    marked = store.removed()
    there = [version for version, _ in store.commits() if version not in marked]
    named = {release.name: release.version for release in releases(store).values()}
    kept = {*there[:keep], *(version for version in there if version in named.values())}
    doomed = sorted(set(there) - kept)
    found = _Listing(store)
    for version in [*sorted(kept), None]:  # None: the current one, even if other tools have committed after us
        found.keep(store.at(version))
    if not dry_run:
        for version in doomed:
            store.create(marker(version), json.dumps({"removed": datetime.now(UTC).isoformat()}).encode())
        spared = _spared(store, found)
        kept |= spared
        doomed = [version for version in doomed if version not in spared]
    for version in doomed:
        found.drop(store.at(version))
    gone = {*doomed, *marked} - kept
    files = list(found.unneeded(gone, ledger_age))
    if not dry_run:
        _remove(store, lease, files, events)
    totals: Counter[str] = Counter()
    for file in files:
        totals[file.kind] += file.size
    return Collected(
        dataset=posixpath.basename(store.url),
        kept=tuple(sorted(kept)),
        releases={release.name: release.version for release in releases(store).values()},
        removed=tuple(doomed),
        freed={kind: Freed(sum(file.kind == kind for file in files), size) for kind, size in sorted(totals.items())},
        resumable=len(found.resumable),
        dry_run=dry_run,
    )


def marker(version: int) -> str:
    """The file whose presence says that a version is removed."""
    return f"{REMOVED}/{version:020d}.json"


def _spared(store: DatasetStore, found: _Listing) -> set[int]:
    """Marked versions that have been released meanwhile and are still whole: the mark is taken back."""
    spared = set()
    for version in sorted({release.version for release in releases(store).values()} & store.removed()):
        snapshot = store.at(version)
        if snapshot is not None and found.is_whole(snapshot):
            found.keep(snapshot)
            store.fs.rm_file(store.path(marker(version)))
            spared.add(version)
    return spared


class _Listing:
    """The files of a data set, and which of them are needed."""

    def __init__(self, store: DatasetStore) -> None:
        self._store = store
        start = len(store.root.rstrip("/")) + 1
        found = store.fs.find(store.root, detail=True).items()
        self._sizes: dict[str, int] = {str(path)[start:]: int(entry["size"] or 0) for path, entry in found}
        self._needed: set[str] = set()
        self._dropped: set[str] = set()
        self.resumable: set[str] = set()

    def keep(self, snapshot: Snapshot | None) -> None:
        """Mark the files of a snapshot as needed. Raises ``StoreError`` when one is not there."""
        if snapshot is None:
            return
        missing = _needs(snapshot) - self._sizes.keys()
        if missing:
            raise StoreError(
                f"{self._store.url}: snapshot {snapshot.version} is to be kept, but {len(missing)} of its files are "
                f"not there (the first: {min(missing)}); nothing was removed; cure: see gristmill verify, then delete "
                "its release, keep fewer snapshots, or rebuild"
            )
        self._needed |= _needs(snapshot)

    def drop(self, snapshot: Snapshot | None) -> None:
        """Remember which files only a removed snapshot names."""
        if snapshot is not None:
            self._dropped |= _needs(snapshot)

    def is_whole(self, snapshot: Snapshot) -> bool:
        """Whether every file of a snapshot is there."""
        return _needs(snapshot) <= self._sizes.keys()

    def unneeded(self, gone: set[int], ledger_age: timedelta) -> Iterator[_File]:
        """Every file that can go."""
        resumed = self._resumed(ledger_age)
        for path, size in sorted(self._sizes.items()):
            kind = self._kind(path, gone, resumed)
            if kind is not None:
                yield _File(path, size, kind)

    def _resumed(self, age: timedelta) -> set[str]:
        """Files that ledger entries name which a run may still use; the entries are noted as ``resumable``."""
        files: set[str] = set()
        for path in self._sizes:
            if path.startswith("_ledger/") and path.endswith(".json") and not self._is_older(path, age):
                named = self._entry(path)
                if named is not None and named <= self._sizes.keys():
                    files |= named
                    self.resumable.add(path)
        return files

    def _entry(self, path: str) -> set[str] | None:
        """The files that a ledger entry names; ``None`` where it cannot be read: no run will use it either."""
        try:
            return {file["path"] for file in json.loads(self._store.fs.cat_file(self._store.path(path)))["files"]}
        except (ValueError, TypeError, KeyError):
            return None

    def _is_older(self, path: str, age: timedelta) -> bool:
        modified: datetime = self._store.fs.modified(self._store.path(path))
        return datetime.now(UTC) - modified > age

    def _kind(self, path: str, gone: set[int], resumed: set[str]) -> str | None:
        """Why a file can go; ``None``: it stays."""
        if path in self._needed or path in resumed or path in self.resumable:
            return None
        folder, _, name = path.partition("/")
        if folder.startswith("feature="):
            return ROWS if path in self._dropped else UNPUBLISHED
        if folder == "_tables":
            return TABLES if path in self._dropped else UNPUBLISHED
        if folder == "_fitted":
            return FITTED if path in self._dropped else UNPUBLISHED
        if folder == "_ledger":
            return LEDGER
        if folder == "_models":
            version = name.partition("-")[0]
            return MODELS if version.isdigit() and int(version) in gone else None
        if folder == "_pictures":
            version = posixpath.basename(name).partition(".")[0]
            return PICTURES if version.isdigit() and int(version) in gone else None
        if name.rpartition("/")[2].startswith(".") and name.endswith(".part") and self._is_older(path, _LEFTOVER_AGE):
            return UNPUBLISHED
        return None


def _needs(snapshot: Snapshot) -> set[str]:
    """Every file that a snapshot names."""
    fitted = (state["path"] for state in snapshot.info["fitted"].values())
    return {*(file.path for file in snapshot.files), snapshot.info["samples"], snapshot.info["quarantine"], *fitted}


def _remove(store: DatasetStore, lease: Lease, files: Iterable[_File], events: Events) -> None:
    """Remove files; the ledger's entries go before the files that they name."""
    ordered = sorted(files, key=lambda file: file.kind != LEDGER)
    events.started("gc", len(ordered), "files")
    paths = iter(ordered)
    while some := list(islice(paths, _AT_ONCE)):
        lease.check()
        store.fs.rm([store.path(file.path) for file in some])
        events.advanced("gc", len(some))
    events.finished("gc")
