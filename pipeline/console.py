"""What the command line draws: progress bars in a terminal, plain lines in a log, tables of results."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
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
from pipeline.record import RunReport

if TYPE_CHECKING:
    from pipeline.adopt import Adopted
    from pipeline.bench import Bench
    from pipeline.estimate import Estimate
    from pipeline.store.diff import Diff, FeatureDiff
    from pipeline.store.gc import Collected
    from pipeline.store.history import Published
    from pipeline.store.verify import Verified

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
            TextColumn("{task.fields[said]}", style="dim"),
            console=console,
        )
        self._bars: dict[str, tuple[TaskID, float]] = {}

    def started(self, stage: str, total: int | None, unit: str) -> None:
        bar = self.progress.add_task(stage, total=total, unit=unit, rate="", said="")
        self._bars[stage] = (bar, time.monotonic())

    def advanced(self, stage: str, n: int = 1) -> None:
        bar, begun = self._bars[stage]
        done = next(task.completed for task in self.progress.tasks if task.id == bar) + n
        self.progress.update(bar, advance=n, rate=f"{done / max(time.monotonic() - begun, 1e-3):,.1f}/s")

    def said(self, stage: str, message: str) -> None:
        self.progress.update(self._bars[stage][0], said=escape(message))

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
        self._stages[stage] = [now, now, 0, total, unit, ""]

    def advanced(self, stage: str, n: int = 1) -> None:
        state = self._stages[stage]
        state[2] += n
        self._tell(stage, state)

    def said(self, stage: str, message: str) -> None:
        state = self._stages[stage]
        state[5] = f"; {message}"
        self._tell(stage, state)

    def _tell(self, stage: str, state: list[Any]) -> None:
        begun, last, done, total, unit, said = state
        now = time.monotonic()
        if now - last < _LINE_EVERY_SECONDS:
            return
        state[1] = now
        rate = done / (now - begun)
        left = f", {max(0.0, total - done) / rate:,.0f} s left" if total and rate else ""
        of = f" of {total:,}" if total else ""
        self._console.print(Text(f"{stage}: {done:,}{of} {unit}, {rate:,.1f}/s{left}{said}"))

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
    rows = dict(report.features)
    if report.samples is not None:
        rows["all samples"] = report.samples
    late = ("deferred",) if any(c.deferred for c in rows.values()) else ()
    columns = ("feature", "in", "done", "unchanged", "quarantined", *late, "removed")
    counts = _table(f"Data set {report.dataset}", *columns)
    for name, c in rows.items():
        if name == "all samples":
            counts.add_section()
        numbers = (c.samples_in, c.done, c.unchanged, c.quarantined, *((c.deferred,) if late else ()), c.removed)
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
        unit = "row" if report.computed == 1 else "rows"
        computed = f"{report.computed:,} {unit} computed" if report.computed else "nothing computed"
        console.print(Text(f"Published snapshot {report.snapshot}: {computed}.", style="bold green"))
    else:
        console.print(
            Text(f"Nothing changed, nothing computed: snapshot {report.snapshot} stands.", style="bold green")
        )


def print_plan(
    console: Console, dataset: str, reasons: Mapping[str, list[tuple[str, int]]], estimate: Estimate
) -> None:
    """A plan as a table: how many rows of which feature, why, and what it will cost."""
    table = _table(f"Plan for {dataset}", "feature", "rows")
    table.add_column("why")
    for feature, found in reasons.items():
        for reason, count in found:
            table.add_row(Text(feature), f"{count:,}", Text(reason))
    console.print(table)
    if not (any(cost.seconds != 0 for cost in estimate.features.values()) or estimate.decode):
        console.print(Text("Nothing to compute.", style="green"))
        return
    counted = [cost for cost in (*estimate.decode.values(), *estimate.features.values()) if cost.count]
    if counted and all(cost.seconds is None for cost in counted):
        console.print(Text("What it will cost is known when a first run has measured it."))
        return
    costs = _table("Estimate, from earlier runs", "part", "samples or rows", "worker seconds", "bytes")
    for stream, cost in estimate.decode.items():
        costs.add_row(f"decode {stream}", f"{cost.count:,}", _known(cost.seconds, ",.1f"), "")
    for feature, cost in {**estimate.features, **({"align": estimate.align} if estimate.align else {})}.items():
        if cost.seconds != 0:
            costs.add_row(Text(feature), f"{cost.count:,}", _known(cost.seconds, ",.1f"), _known(cost.bytes, ","))
    console.print(costs)
    workers = "1 worker" if estimate.workers == 1 else f"{estimate.workers} workers"
    seconds, size = _known(estimate.seconds, ",.0f", " s"), _known(estimate.bytes, ",", " bytes")
    console.print(Text(f"In all, with {workers}: {seconds}; written: {size}."))


def _known(value: float | None, form: str, unit: str = "") -> str:
    return "unknown (first run)" if value is None else f"{value:{form}}{unit}"


def print_adopted(console: Console, adopted: Adopted) -> None:
    """What ``adopt`` has proved, and what it has done."""
    equal = "are equal" if adopted.largest is None else f"differ by {adopted.largest} at most"
    console.print(Text(f"{len(adopted.sampled):,} rows of {adopted.feature} were computed again and {equal}."))
    if adopted.snapshot is None:
        told = f"Dry run: {adopted.rows:,} rows would be adopted; nothing was published."
    else:
        told = (
            f"Published snapshot {adopted.snapshot}: {adopted.rows:,} rows of {adopted.feature} and "
            f"{adopted.aligned_rows:,} aligned rows adopted, none computed."
        )
    console.print(Text(told, style="bold green"))


def print_quarantine(console: Console, rows: list[dict[str, Any]]) -> None:
    """The quarantine, a paragraph for each sample and reason: what failed, in which features, and the whole message."""
    if not rows:
        console.print(Text("The quarantine is empty.", style="green"))
        return
    features: dict[tuple[str, str, str, str], list[str]] = {}
    for row in rows:
        what = (row["sample_id"], row["reason"], row["stage"], row["message"])
        features.setdefault(what, []).append(row["feature"] or "all features")
    samples = len({row["sample_id"] for row in rows})
    console.print(Text(f"Quarantine: {samples:,} {'sample' if samples == 1 else 'samples'}", style="bold"))
    for (sample_id, reason, stage, message), names in features.items():
        head = Text.assemble((sample_id, "bold"), "  ", (reason, "red"), f"  in {stage}: {', '.join(names)}")
        console.print(head)
        console.print(Padding(Text(message), (0, 0, 0, 4)))


def print_training(console: Console, title: str, results: list[dict[str, Any]]) -> None:
    """Training results: one row a model, single modalities beside the fusions."""
    metrics = [name.removesuffix("_std") for name in results[0] if name.endswith("_std")]
    table = _table(title, "model", *("macro F1" if name == "f1" else name for name in metrics))
    for row in results:
        cells = [f"{row[name]:.3f}" + (f" ± {row[f'{name}_std']:.3f}" if row["runs"] > 1 else "") for name in metrics]
        table.add_row(Text(row["model"]), *cells)
    console.print(table)


def print_bench(console: Console, found: Bench) -> None:
    """Where the time goes, what would help, and the floors that are held or missed."""
    title = (
        f"{found.dataset}: {found.samples:,} samples on {found.device}, {found.workers} workers, {found.cores} cores"
    )
    table = _table(title, "part of one worker's time", "share", "count", "a second")
    for part in found.parts:
        table.add_row(Text(part.what), f"{part.share:.1%}", f"{part.count:,}", f"{part.rate:,.1f}")
    console.print(table)
    rate = (found.samples - found.failed) / found.seconds["all"]
    console.print(Text(f"Bottleneck: {found.bottleneck.what}. All workers together: {rate:,.1f} samples a second."))
    for line in (*(f"Not measured: {skipped}" for skipped in found.skipped), *found.advice):
        console.print(Padding(Text(line), (0, 0, 0, 2)))
    for check in found.checks:
        mark = Text("held  ", style="green") if check.passed else Text("MISSED", style="bold red")
        console.print(Text.assemble(mark, f"  {check.figure} {check.got:.2f} (floor {check.allowed}): {check.why}"))


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
        console.print(Text(f"{name}: {found['files'][0]}"), soft_wrap=True)


def print_log(console: Console, entries: Iterable[Published]) -> None:
    """The history of a data set, a paragraph for each snapshot."""
    for entry in entries:
        named = "".join(f"  [{name}]" for name in entry.releases)
        gone = "  removed by gc" if entry.removed else ""
        head = Text.assemble(
            (f"snapshot {entry.version}", "bold"), f"  {entry.created}  {entry.run_id}", (named, "green"), (gone, "red")
        )
        console.print(head)
        rows = ", ".join(f"{name} {count:,}" for name, count in entry.rows.items() if not name.startswith("aligned."))
        held = f"{entry.samples:,} samples, {entry.quarantined:,} in quarantine; rows: {rows or 'none'}"
        for line in (held, entry.changed):
            console.print(Padding(Text(line), (0, 0, 0, 4)))


_SHOWN_FAILURES = 20


def print_diff(console: Console, found: Diff) -> None:
    """Two snapshots compared: a row for each feature, then why rows changed and who went in and out of quarantine."""
    kinds = ("added", "removed", "changed", "relabelled", "unchanged")
    table = _table(f"Snapshot {found.before} -> {found.after}", "feature", *kinds)
    for name, feature in found.features.items():
        table.add_row(Text(name), *(f"{getattr(feature, kind):,}" for kind in kinds))
    table.add_section()
    table.add_row(
        "samples (split, label)", *(f"{found.samples[kind]:,}" if kind in found.samples else "" for kind in kinds)
    )
    console.print(table)
    for name, feature in found.features.items():
        for line in _changes(feature):
            console.print(Text(f"{name}: {line}"))
    for title, failures in (("Into quarantine", found.entered), ("Out of quarantine", found.left)):
        for sample_id, feature_name, reason in failures[:_SHOWN_FAILURES]:
            console.print(Text(f"{title}: {sample_id}, {feature_name or 'all features'}, {reason}"))
        if len(failures) > _SHOWN_FAILURES:
            console.print(Text(f"{title}: {len(failures) - _SHOWN_FAILURES:,} more (--json lists all)"))


def _changes(feature: FeatureDiff) -> Iterator[str]:
    """Why the rows of a feature changed, and how far their values moved."""
    if not feature.changed:
        return
    if feature.content:
        yield f"what was read changed ({feature.content:,})"
    for reason, count in feature.recipes.items():
        yield f"{reason} ({count:,})"
    before, after = feature.widths
    if before != after:
        yield f"width {before} -> {after}"
        return
    yield f"{feature.same_bytes:,} of {feature.changed:,} changed rows hold the same numbers"
    if feature.shift is not None and feature.same_bytes < feature.changed:
        shift = feature.shift
        yield f"1 - cosine: {shift.mean:.2g} on average, at most {shift.max:.2g} ({shift.sample_id})"


def print_verified(console: Console, found: Verified) -> None:
    """What was checked of a snapshot, and every fault."""
    for fault in found.faults:
        console.print(Text.assemble((fault.where, "bold"), ": ", (fault.message, "red")))
    what = (
        f"{found.dataset}, snapshot {found.snapshot}: {found.files:,} files, {found.bytes:,} bytes, {found.rows:,} rows"
    )
    if found.faults:
        cure = f"cure: gristmill rebuild {found.dataset}, or bring the files back from a copy"
        console.print(Text(f"{what}: {len(found.faults):,} faults; {cure}", style="bold red"))
    else:
        console.print(Text(f"{what}: all as it must be.", style="bold green"))


def print_collected(console: Console, found: Collected) -> None:
    """What gc has removed, or would remove."""
    table = _table("Would be removed" if found.dry_run else "Removed", "what", "files", "bytes")
    for kind, freed in found.freed.items():
        table.add_row(kind, f"{freed.files:,}", f"{freed.bytes:,}")
    if found.freed:
        console.print(table)
    versions = ", ".join(map(str, found.removed)) or "none"
    console.print(f"Snapshots {'that would go' if found.dry_run else 'removed'}: {versions}.", markup=False)
    names = "".join(f", {name} = {version}" for name, version in found.releases.items())
    console.print(f"Kept: {', '.join(map(str, found.kept)) or 'none'}{names}.", markup=False)
    if found.resumable:
        console.print(f"Kept for runs that can be resumed: {found.resumable:,} finished shards.")
    done = "to be freed" if found.dry_run else "freed"
    console.print(Text(f"{found.bytes / 1e6:,.1f} MB {done}.", style="bold green"))
