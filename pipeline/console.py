"""What the command line draws: progress bars in a terminal, plain lines in a log, tables of results."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from pipeline.events import Events
from pipeline.report import RunReport

_LINE_EVERY_SECONDS = 5.0


class _Bars:
    """Progress bars with rate and time left."""

    def __init__(self, console: Console) -> None:
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}  {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._bars: dict[str, tuple[TaskID, float]] = {}

    def started(self, stage: str, total: int | None, unit: str) -> None:
        bar = self.progress.add_task(stage, total=total, unit=unit, rate="")
        self._bars[stage] = (bar, time.monotonic())

    def advanced(self, stage: str, n: int = 1) -> None:
        bar, begun = self._bars[stage]
        done = next(task.completed for task in self.progress.tasks if task.id == bar) + n
        self.progress.update(bar, advance=n, rate=f"{done / max(time.monotonic() - begun, 1e-3):,.1f}/s")

    def finished(self, stage: str, message: str = "") -> None:
        bar, begun = self._bars.pop(stage)
        self.progress.remove_task(bar)
        _say(self.progress.console, stage, message, time.monotonic() - begun)

    def note(self, message: str) -> None:
        self.progress.console.print(Text(f"note: {message}", style="yellow"))


class _Lines:
    """Plain lines for logs: one when a stage begins to take long, one every few seconds, one at its end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._stages: dict[str, list[Any]] = {}

    def started(self, stage: str, total: int | None, unit: str) -> None:
        now = time.monotonic()
        self._stages[stage] = [now, now, 0, total, unit]

    def advanced(self, stage: str, n: int = 1) -> None:
        state = self._stages[stage]
        begun, last, done, total, unit = state
        done += n
        state[2] = done
        now = time.monotonic()
        if now - last < _LINE_EVERY_SECONDS:
            return
        state[1] = now
        rate = done / (now - begun)
        left = f", {max(0.0, total - done) / rate:,.0f} s left" if total and rate else ""
        of = f" of {total:,}" if total else ""
        self._console.print(Text(f"{stage}: {done:,}{of} {unit}, {rate:,.1f}/s{left}"))

    def finished(self, stage: str, message: str = "") -> None:
        begun = self._stages.pop(stage)[0]
        _say(self._console, stage, message, time.monotonic() - begun)

    def note(self, message: str) -> None:
        self._console.print(Text(f"note: {message}"))


def _say(console: Console, stage: str, message: str, seconds: float) -> None:
    if message or seconds >= 1:
        console.print(Text(f"{stage}: {message + ', ' if message else ''}{seconds:.1f} s", style="dim"))


@contextmanager
def drawing(console: Console) -> Iterator[Events]:
    """Events that are drawn on ``console``: bars in a terminal, lines elsewhere."""
    if console.is_terminal:
        bars = _Bars(console)
        with bars.progress:
            yield bars
    else:
        yield _Lines(console)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    table.add_column(columns[0])
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def print_report(console: Console, report: RunReport) -> None:
    """The result of a run as tables."""
    counts = _table(f"Data set {report.dataset}", "feature", "in", "done", "unchanged", "quarantined", "removed")
    rows = dict(report.features)
    if report.samples is not None:
        rows["all samples"] = report.samples
    for name, c in rows.items():
        if name == "all samples":
            counts.add_section()
        numbers = (c.samples_in, c.done, c.unchanged, c.quarantined, c.removed)
        counts.add_row(Text(name), *(f"{number:,}" for number in numbers))
    console.print(counts)
    stages = _table("Time", "stage", "seconds", "rate")
    for stage, seconds in report.seconds.items():
        rate = f"{report.computed / seconds:,.1f} rows/s" if stage == "extract" and seconds else ""
        stages.add_row(stage, f"{seconds:.2f}", rate)
    for part, seconds in report.worker_seconds.items():
        stages.add_row(f"  {part} (all workers)", f"{seconds:.2f}", "")
    console.print(stages)
    if report.quarantine_by_reason:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.quarantine_by_reason.items())
        console.print(Text(f"Quarantine: {reasons}. See: gristmill quarantine {report.dataset}", style="yellow"))
    for notice in report.notices:
        console.print(Text(f"note: {notice}", style="yellow"))
    if report.resumed:
        resumed = f"{report.resumed:,} of these rows were computed by an earlier run that did not publish."
        console.print(Text(resumed, style="green"))
    if report.published:
        computed = f"{report.computed:,} rows computed" if report.computed else "nothing computed"
        console.print(Text(f"Published snapshot {report.snapshot}: {computed}.", style="bold green"))
    else:
        console.print(
            Text(f"Nothing changed, nothing computed: snapshot {report.snapshot} stands.", style="bold green")
        )


def print_plan(console: Console, dataset: str, reasons: Mapping[str, list[tuple[str, int]]]) -> None:
    """A plan as a table: how many rows of which feature, and why."""
    table = _table(f"Plan for {dataset}", "feature", "rows")
    table.add_column("why")
    for feature, found in reasons.items():
        for reason, count in found:
            table.add_row(Text(feature), f"{count:,}", Text(reason))
    console.print(table)


def print_quarantine(console: Console, rows: list[dict[str, Any]]) -> None:
    """The quarantine, a paragraph for each sample and reason: what failed, in which features, and the whole message."""
    if not rows:
        console.print(Text("The quarantine is empty.", style="green"))
        return
    features: dict[tuple[str, str, str, str], list[str]] = {}
    for row in rows:
        what = (row["sample_id"], row["reason"], row["stage"], row["message"])
        features.setdefault(what, []).append(row["feature"] or "all features")
    console.print(Text(f"Quarantine: {len({row['sample_id'] for row in rows}):,} samples", style="bold"))
    for (sample_id, reason, stage, message), names in features.items():
        head = Text.assemble((sample_id, "bold"), "  ", (reason, "red"), f"  in {stage}: {', '.join(names)}")
        console.print(head)
        console.print(Padding(Text(message), (0, 0, 0, 4)))


def print_training(console: Console, title: str, results: list[dict[str, Any]]) -> None:
    """Training results: one row a model, single modalities beside the fusions."""
    table = _table(title, "model", "accuracy", "precision", "recall", "macro F1")
    for row in results:
        spread = f" ± {row['accuracy_std']:.3f}" if row["runs"] > 1 else ""
        table.add_row(
            Text(row["model"]),
            f"{row['accuracy']:.3f}{spread}",
            *(f"{row[name]:.3f}" for name in ("precision", "recall", "f1")),
        )
    console.print(table)


def print_snapshot(console: Console, summary: Mapping[str, Any]) -> None:
    """What a snapshot holds as a table, and where its files lie."""
    title = f"{summary['dataset']}, snapshot {summary['snapshot']} of {summary['created']}"
    table = _table(title, "feature", "rows", "width", "bytes", "files")
    for name, found in summary["features"].items():
        numbers = (found["rows"], found["dim"], found["bytes"], len(found["files"]))
        table.add_row(Text(name), *(f"{number:,}" for number in numbers))
    console.print(table)
    console.print(f"{summary['samples']:,} samples, {summary['quarantined']:,} of them in quarantine.")
    for name, found in summary["features"].items():
        console.print(Text(f"{name}: {found['files'][0]}"))
