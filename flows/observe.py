"""Who is told how a flow goes on: the flow run's own log, and the command line while it draws."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from prefect.logging import get_run_logger

from pipeline.events import Events

_drawn: ContextVar[Events | None] = ContextVar("drawn", default=None)
_LINE_EVERY_SECONDS = 30.0
_OTHERS = ("prefect", "distributed", "httpx", "httpcore", "asyncio", "uvicorn", "websockets", "docket")
"""Loggers of what runs the flow; their words are not about the data."""


@contextmanager
def drawn_by(events: Events) -> Iterator[None]:
    """Flows that are called inside report to ``events`` too."""
    token = _drawn.set(events)
    try:
        yield
    finally:
        _drawn.reset(token)


def current_events() -> Events:
    """The events of the flow that runs now."""
    log, drawn = _RunLog(), _drawn.get()
    return log if drawn is None else _Both(log, drawn)


@contextmanager
def logs_kept() -> Iterator[None]:
    """Warnings of this process's libraries and of its workers, which they hand on, reach the log of the flow run."""
    handler = _ToRun(get_run_logger())
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


class _ToRun(logging.Handler):
    """Hands records to a flow run's logger, from whatever thread they come."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        if record.name.partition(".")[0] not in _OTHERS:
            self._logger.log(record.levelno, "%s: %s", record.name, record.getMessage())


class _Both:
    """Tells two."""

    def __init__(self, first: Events, second: Events) -> None:
        self._first, self._second = first, second

    def started(self, stage: str, total: int | None, unit: str) -> None:
        self._first.started(stage, total, unit)
        self._second.started(stage, total, unit)

    def advanced(self, stage: str, n: int = 1) -> None:
        self._first.advanced(stage, n)
        self._second.advanced(stage, n)

    def said(self, stage: str, message: str) -> None:
        self._first.said(stage, message)
        self._second.said(stage, message)

    def finished(self, stage: str, message: str = "") -> None:
        self._first.finished(stage, message)
        self._second.finished(stage, message)

    def note(self, message: str) -> None:
        self._first.note(message)
        self._second.note(message)


class _RunLog:
    """Stages as lines of the flow run's log, at most one every half minute for each."""

    def __init__(self) -> None:
        self._logger = get_run_logger()
        self._stages: dict[str, tuple[float, int, str]] = {}
        self._said: dict[str, float] = {}

    def started(self, stage: str, total: int | None, unit: str) -> None:
        self._stages[stage] = (time.monotonic(), 0, f" of {total} {unit}" if total else f" {unit}")
        self._said[stage] = time.monotonic()

    def advanced(self, stage: str, n: int = 1) -> None:
        begun, done, of = self._stages[stage]
        self._stages[stage] = (begun, done + n, of)
        if time.monotonic() - self._said[stage] >= _LINE_EVERY_SECONDS:
            self._said[stage] = time.monotonic()
            self._logger.info("%s: %d%s", stage, done + n, of)

    def said(self, stage: str, message: str) -> None:
        if time.monotonic() - self._said[stage] >= _LINE_EVERY_SECONDS:
            self._said[stage] = time.monotonic()
            self._logger.info("%s: %s", stage, message)

    def finished(self, stage: str, message: str = "") -> None:
        begun, done, _ = self._stages.pop(stage)
        self._logger.info("%s: %s in %.1f s", stage, message or done, time.monotonic() - begun)

    def note(self, message: str) -> None:
        self._logger.warning(message)
