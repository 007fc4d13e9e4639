"""Who is told how a flow goes on: the command line while it draws, else the flow run's own log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from prefect.logging import get_run_logger

from pipeline.events import Events

_drawn: ContextVar[Events | None] = ContextVar("drawn", default=None)
_LINE_EVERY_SECONDS = 30.0


@contextmanager
def drawn_by(events: Events) -> Iterator[None]:
    """Flows that are called inside report to ``events``."""
    token = _drawn.set(events)
    try:
        yield
    finally:
        _drawn.reset(token)


def current_events() -> Events:
    """The events of the flow that runs now."""
    return _drawn.get() or _RunLog()


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
