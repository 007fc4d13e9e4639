"""The history of a data set: every snapshot that was published, and what changed in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.store.dataset import DatasetStore
from pipeline.store.releases import releases


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published snapshot, as its commit tells it.

    ``rows``: feature -> rows. ``changes``: feature -> (reason, rows) for everything that its run did not keep as it
    was. ``samples`` and ``quarantined`` count samples. ``rebuilt``: made from nothing beside an older snapshot.
    ``removed``: ``gc`` has removed its files.
    """

    version: int
    created: str
    run_id: str
    samples: int
    quarantined: int
    rows: Mapping[str, int]
    changes: Mapping[str, tuple[tuple[str, int], ...]]
    releases: tuple[str, ...]
    rebuilt: bool
    removed: bool

    @property
    def changed(self) -> str:
        """What changed, in words: ``audio.mfcc: new (3), removed (1); image.cnn: new (3)``."""
        told = (
            f"{name}: " + ", ".join(f"{reason} ({count:,})" for reason, count in why)
            for name, why in self.changes.items()
            if why
        )
        return ("rebuilt: " if self.rebuilt else "") + ("; ".join(told) or "no row changed")

    def as_json(self) -> dict[str, Any]:
        """The entry as a JSON document."""
        return asdict(self) | {"changed": self.changed}


def history(store: DatasetStore) -> list[Published]:
    """Every snapshot of a data set, the newest first."""
    removed = store.removed()
    named: dict[int, list[str]] = {}
    for release in releases(store).values():
        named.setdefault(release.version, []).append(release.name)
    return [
        Published(
            version=version,
            created=info["created"],
            run_id=info["run_id"],
            samples=info["counts"]["samples"],
            quarantined=info["counts"]["quarantined"],
            rows=info["rows"],
            changes={name: tuple((reason, count) for reason, count in why) for name, why in info["changes"].items()},
            releases=tuple(named.get(version, ())),
            rebuilt=info["rebuilt"],
            removed=version in removed,
        )
        for version, info in store.commits()
    ]
