"""The records that runs have left (``_runs/<run_id>/report.json``), read again."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from pipeline.record import RunReport, RunStatus
from pipeline.store import DatasetStore
from pipeline.store.lease import holder

FOLDER = "_runs"
RECORD, PAGE, INDEX = "report.json", "report.html", "index.html"
LISTED = 100
"""How many runs are looked at, the newest first."""
_READERS = 8
_RECORD: TypeAdapter[RunReport] = TypeAdapter(RunReport)


@dataclass(frozen=True)
class RunEntry:
    """One run of a data set. ``status`` is that of its record; ``crashed`` (or ``running``) where it left none."""

    run_id: str
    status: RunStatus | str
    record: RunReport | None

    @property
    def started(self) -> str:
        """When it began, ISO 8601; from its id where there is no record."""
        if self.record is not None:
            return self.record.started
        day, _, clock = self.run_id.partition("-")[0].partition("T")
        if len(day) != 8 or len(clock) != 6:
            return ""
        return f"{day[:4]}-{day[4:6]}-{day[6:]}T{clock[:2]}:{clock[2:4]}:{clock[4:]}+00:00"

    @property
    def has_page(self) -> bool:
        """Whether there is a page for people."""
        return self.record is not None and bool(self.record.page)


def record_path(run_id: str) -> str:
    """Where the record of a run lies, below the data set's folder."""
    return f"{FOLDER}/{run_id}/{RECORD}"


def page_path(run_id: str) -> str:
    """Where the page of a run lies, below the data set's folder."""
    return f"{FOLDER}/{run_id}/{PAGE}"


def write_record(store: DatasetStore, record: RunReport) -> None:
    """Write the record of a run, or replace it."""
    store.write_bytes(record_path(record.run_id), json.dumps(record.as_json(), indent=1).encode())


def read_record(store: DatasetStore, run_id: str) -> RunReport | None:
    """The record of a run; ``None`` where it left none, or one that cannot be read."""
    found = store.read(record_path(run_id))
    if found is None:
        return None
    try:
        document = json.loads(found.content)
        if "status" not in document:  # of an older version
            document["status"] = "published" if document["published"] else "unchanged"
        return _RECORD.validate_python(document)
    except (ValueError, KeyError, TypeError, ValidationError):
        return None


def run_ids(store: DatasetStore) -> list[str]:
    """The ids of all runs, the newest first: an id begins with the time."""
    folder = store.path(FOLDER)
    if not store.fs.exists(folder):
        return []
    names = (posixpath.basename(str(path).rstrip("/")) for path in store.fs.ls(folder, detail=False))
    return sorted((name for name in names if name != INDEX and not name.startswith(".")), reverse=True)


def list_runs(store: DatasetStore, limit: int = LISTED) -> list[RunEntry]:
    """The last runs of a data set, the newest first."""
    ids = run_ids(store)[:limit]
    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        records = list(pool.map(lambda run_id: read_record(store, run_id), ids))
    found = []
    for run_id, record in zip(ids, records, strict=True):
        status = record.status if record is not None else "crashed"
        found.append(RunEntry(run_id, status, record))
    if found and found[0].record is None and holder(store) is not None:
        found[0] = RunEntry(found[0].run_id, "running", None)
    return found


def before(store: DatasetStore, run_id: str, limit: int = LISTED) -> Iterator[RunReport]:
    """Records of the runs before ``run_id`` that came to an end, the newest first."""
    for older in [found for found in run_ids(store) if found < run_id][:limit]:
        record = read_record(store, older)
        if record is not None and record.status in ("published", "unchanged", "red"):
            yield record
