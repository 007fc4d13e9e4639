"""How the data sets of a catalog stand, at a glance."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.catalog import Catalog
from pipeline.report.records import RunEntry, list_runs
from pipeline.store import ALIGNED_PREFIX, DatasetStore
from pipeline.store.lease import holder

_RUNS = 20


@dataclass(frozen=True, kw_only=True)
class Status:
    """One data set. ``last_run`` and ``last_status`` are of the last run that has begun, ``None`` before the first.

    ``snapshot`` is what readers see, ``published`` when it was made; ``rows`` are those of its features (aligned ones
    not counted), ``quarantined`` its samples in quarantine. ``disk``: bytes of everything below the data set's folder.
    ``running``: who writes it now, in words. ``next_run``: when its schedule is due next (ISO 8601, in the schedule's
    time zone), ``None`` without one.
    """

    dataset: str
    last_run: str | None
    last_status: str | None
    last_error: str
    page: str
    snapshot: int | None
    published: str | None
    samples: int
    rows: int
    quarantined: int
    disk: int
    running: str | None
    next_run: str | None

    def as_json(self) -> dict[str, Any]:
        """The status as a JSON document."""
        return asdict(self)


def status(catalog: Catalog, dataset: str) -> Status:
    """How a data set stands. Reads no media and no rows."""
    store = DatasetStore(catalog.store, catalog.dataset(dataset).name)
    there = store.fs.exists(store.root)
    runs: list[RunEntry] = list_runs(store, _RUNS) if there else []
    snapshot = store.snapshot() if there else None
    last = runs[0] if runs else None
    writing = holder(store) if there else None
    record = None if last is None else last.record
    info = {} if snapshot is None else snapshot.info
    counts = info.get("counts", {})
    return Status(
        dataset=dataset,
        last_run=None if last is None else last.started,
        last_status=None if last is None else last.status,
        last_error="" if record is None else record.error,
        page="" if record is None else record.page,
        snapshot=None if snapshot is None else snapshot.version,
        published=info.get("created"),
        samples=counts.get("samples", 0),
        rows=sum(n for name, n in info.get("rows", {}).items() if not name.startswith(ALIGNED_PREFIX)),
        quarantined=counts.get("quarantined", 0),
        disk=int(store.fs.du(store.root)) if there else 0,
        running=None if writing is None else str(writing),
        next_run=_next(catalog, dataset),
    )


def _next(catalog: Catalog, dataset: str) -> str | None:
    schedule = catalog.dataset(dataset).schedule
    if schedule is None:
        return None
    following = next(schedule.ticks(datetime.now(UTC)), None)
    return None if following is None else following.isoformat(timespec="minutes")
