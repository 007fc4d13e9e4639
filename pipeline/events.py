"""Progress and notes as callbacks: the library never draws; the CLI and the flows do."""

from __future__ import annotations

from typing import Protocol


class Events(Protocol):
    """Receives what happens. Stages are named; one stage may run at a time with the same name."""

    def started(self, stage: str, total: int | None, unit: str) -> None:
        """A stage begins; ``total`` counts ``unit`` where it is known."""
        ...

    def advanced(self, stage: str, n: int = 1) -> None:
        """``n`` more units of the stage are done."""
        ...

    def said(self, stage: str, message: str) -> None:
        """Where the stage stands, in words that the next ones replace."""
        ...

    def finished(self, stage: str, message: str = "") -> None:
        """The stage has ended."""
        ...

    def note(self, message: str) -> None:
        """Something a person should be told."""
        ...


class _Silent:
    def started(self, stage: str, total: int | None, unit: str) -> None:
        del stage, total, unit

    def advanced(self, stage: str, n: int = 1) -> None:
        del stage, n

    def said(self, stage: str, message: str) -> None:
        del stage, message

    def finished(self, stage: str, message: str = "") -> None:
        del stage, message

    def note(self, message: str) -> None:
        del message


SILENT: Events = _Silent()
"""Draws nothing: the default."""
