"""Releases: names for snapshots. A released snapshot can be read by its name, and ``gc`` keeps it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from features.errors import StoreError
from pipeline.store.dataset import DatasetStore
from pipeline.store.snapshot import Snapshot

FOLDER = "_releases"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, kw_only=True)
class Release:
    """A name for a snapshot. ``created`` is ISO 8601, UTC."""

    name: str
    version: int
    created: str


def releases(store: DatasetStore) -> dict[str, Release]:
    """Every release of a data set by name. Raises ``StoreError`` for one that cannot be read."""
    folder = store.path(FOLDER)
    if not store.fs.exists(folder):
        return {}
    found = (str(path) for path in store.fs.ls(folder, detail=False))
    names = sorted(path.rpartition("/")[2].removesuffix(".json") for path in found if path.endswith(".json"))
    return {name: _read(store, name) for name in names}


def _read(store: DatasetStore, name: str) -> Release:
    content = store.fs.cat_file(store.path(_path(name)))
    try:
        return Release(**json.loads(content))
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{store.url}: release {name!r} cannot be read ({error}); cure: delete it (gristmill release --delete) "
            "and name the snapshot again"
        ) from error


def create_release(store: DatasetStore, name: str, which: str | int | None = None) -> Release:
    """Name a snapshot (a version, another release, or by default the last one).

    Naming it again is no error. Raises ``StoreError`` when there is no such snapshot, or the name is another's.
    """
    if not _NAME.fullmatch(name) or name.isdigit():
        raise StoreError(
            f"release: got the name {name!r}; allowed: letters, digits and '_.-', a letter or digit first, not only "
            "digits (those are versions)"
        )
    snapshot = open_snapshot(store, which)
    if snapshot is None:
        raise StoreError(f"{store.url}: nothing is published yet, so there is nothing to name")
    release = Release(name=name, version=snapshot.version, created=datetime.now(UTC).isoformat(timespec="seconds"))
    if not store.create(_path(name), json.dumps(asdict(release), sort_keys=True).encode()):
        there = _read(store, name)
        if there.version != release.version:
            raise StoreError(
                f"{store.url}: release {name!r} is snapshot {there.version} already; cure: another name, or "
                "gristmill release --delete first"
            )
        return there
    # gc marks what it removes, then reads the releases; we write the release, then read the marks: one sees the other
    if release.version in store.removed():
        delete_release(store, name)
        raise StoreError(f"{store.url}: snapshot {release.version} was removed by gc ({kept_in_words(store)})")
    return release


def delete_release(store: DatasetStore, name: str) -> None:
    """Forget a release; its snapshot stays until ``gc`` removes it. Raises ``StoreError`` where there is none."""
    if not _NAME.fullmatch(name) or not store.fs.exists(store.path(_path(name))):
        raise StoreError(f"{store.url}: no release {name!r}; {kept_in_words(store)}")
    store.fs.rm_file(store.path(_path(name)))


def open_snapshot(store: DatasetStore, which: str | int | None) -> Snapshot | None:
    """The snapshot that a person means: a version, the name of a release, or by default (``None``) the last one.

    ``None`` where nothing was published yet. Raises ``StoreError`` for a version or name that is not there.
    """
    if which is None:
        return store.snapshot()
    if isinstance(which, int) or (which.isascii() and which.isdigit()):
        found = store.snapshot(int(which))
        if found is None and store.commits():
            raise StoreError(f"{store.url}: no snapshot {which}; {kept_in_words(store)}")
        return found
    if not _NAME.fullmatch(which) or not store.fs.exists(store.path(_path(which))):
        raise StoreError(f"{store.url}: no snapshot or release {which!r}; {kept_in_words(store)}")
    return store.snapshot(_read(store, which).version)


def kept_in_words(store: DatasetStore) -> str:
    """Which snapshots and releases there are, for messages: ``kept: 5, 6, 7; releases: v1 = 5``."""
    removed = store.removed()
    versions = ", ".join(str(version) for version, _ in reversed(store.commits()) if version not in removed)
    names = ", ".join(f"{release.name} = {release.version}" for release in releases(store).values())
    return f"kept: {versions or 'none'}; releases: {names or 'none'}"


def _path(name: str) -> str:
    return f"{FOLDER}/{name}.json"
