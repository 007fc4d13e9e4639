"""What happens in a run as lines of JSON (``_runs/<run_id>/events.jsonl``), for scripts and those who come later."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime
from typing import Any

from features.errors import StoreError
from pipeline.events import SILENT, Events
from pipeline.record import RunReport
from pipeline.store import DatasetStore

FILE = "events.jsonl"
PROGRESS_SECONDS = 30.0
"""A stage that goes on is written of this often."""
MAX_NOTES = 1000
"""Notes beyond these are counted, not written."""
_logger = logging.getLogger(__name__)


class Journal:
    """Events that are passed on to ``events`` and, while it is open, kept as lines.

    Every line has ``time`` (ISO 8601, UTC), ``run_id``, ``dataset`` and ``event``: ``run_started``, ``stage_started``,
    ``progress``, ``stage_finished``, ``note`` or ``run_finished``. The file is replaced whole whenever a stage begins
    or ends, so that a reader never sees half a line; of a killed run it ends where the run was. A store that cannot be
    written stops the journal, not the run.
    """

    def __init__(self, events: Events = SILENT) -> None:
        self._events = events
        self._store: DatasetStore | None = None
        self._path = ""
        self._head: dict[str, str] = {}
        self._lines: list[str] = []
        self._stages: dict[str, _Stage] = {}
        self._notes = 0

    def open(self, store: DatasetStore, report: RunReport) -> None:
        """Begin to keep lines."""
        self._store, self._path = store, f"_runs/{report.run_id}/{FILE}"
        self._head = {"run_id": report.run_id, "dataset": report.dataset}
        self._write("run_started", base=report.base)

    def close(self, report: RunReport) -> None:
        """Write the last line: how the run ended."""
        self._write(
            "run_finished",
            status=report.status,
            snapshot=report.snapshot,
            computed=report.computed,
            quarantined=0 if report.samples is None else report.samples.quarantined,
            quarantine_by_reason=report.quarantine_by_reason,
            seconds=report.seconds,
            error=report.error,
        )
        self._store = None

    def started(self, stage: str, total: int | None, unit: str) -> None:
        """See ``Events``."""
        self._stages[stage] = _Stage(total, unit)
        self._events.started(stage, total, unit)
        self._write("stage_started", stage=stage, total=total, unit=unit)

    def advanced(self, stage: str, n: int = 1) -> None:
        """See ``Events``."""
        self._events.advanced(stage, n)
        state = self._stages[stage]
        state.done += n
        if time.monotonic() - state.said >= PROGRESS_SECONDS:
            state.said = time.monotonic()
            self._write("progress", stage=stage, **state.told())

    def said(self, stage: str, message: str) -> None:
        """See ``Events``."""
        self._events.said(stage, message)

    def finished(self, stage: str, message: str = "") -> None:
        """See ``Events``."""
        self._events.finished(stage, message)
        self._write("stage_finished", stage=stage, **self._stages.pop(stage).told(), message=message)

    def note(self, message: str) -> None:
        """See ``Events``."""
        self._events.note(message)
        self._notes += 1
        if self._notes <= MAX_NOTES:
            self._keep("note", message=message)

    def _keep(self, event: str, **what: Any) -> None:
        if self._store is not None:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            self._lines.append(json.dumps({"time": now, **self._head, "event": event, **what}))

    def _write(self, event: str, **what: Any) -> None:
        if event == "run_finished" and self._notes > MAX_NOTES:
            self._keep("note", message=f"{self._notes - MAX_NOTES} more notes were not written")
        self._keep(event, **what)
        if self._store is None:
            return
        try:
            self._store.write_bytes(self._path, ("\n".join(self._lines) + "\n").encode())
        except (StoreError, OSError) as error:
            _logger.warning("events of the run are not kept any more: %s", error)
            self._store = None


class _Stage:
    def __init__(self, total: int | None, unit: str) -> None:
        self.begun = self.said = time.monotonic()
        self.total, self.unit, self.done = total, unit, 0

    def told(self) -> dict[str, Any]:
        seconds = time.monotonic() - self.begun
        return {"done": self.done, "total": self.total, "unit": self.unit, "seconds": round(seconds, 3)}
