"""What a page says in numbers: counts, time and its bottleneck, what changed, what failed, the run before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow.compute as pc
from markupsafe import Markup

from features.errors import StoreError
from pipeline.record import Counts, RunReport, Spent
from pipeline.report import charts
from pipeline.report.material import Material
from pipeline.store.quarantine import Failure

SHOWN_NOTICES = 50
SHOWN_FAILURES = 200
"""Samples of one reason that a page names, at most; the first few with picture and traceback."""
SHOWN_CHARACTERS = 1_000
"""Of one note or message, at most (fewer in long lists); of one traceback, whose end says most, four times as many."""
_BECAUSE = {
    "new": "new",
    "removed": "removed",
    "failed before, and the recipe changed": "because it failed before, and the recipe changed",
    "must be fitted first": "because the feature had to be fitted first",
    "stale or missing, but not asked for": "stale or missing, but not asked for",
}
_STAYED = ("unchanged", "in quarantine, nothing changed")
_PAGE = "report"
_TREND = 20
_ENOUGH = 20
"""Rates of fewer pieces say nothing against each other."""


@dataclass(frozen=True)
class CountRow:
    """The counts of one feature, or of all samples."""

    name: str
    counts: Counts

    @property
    def shares(self) -> list[tuple[str, float, int]]:
        """(outcome, percent, count) of what is not nought, for a bar."""
        total = max(1, self.counts.samples_in)
        named = ("done", "unchanged", "quarantined", "deferred")
        return [(name, 100 * n / total, n) for name in named if (n := getattr(self.counts, name))]


def count_rows(record: RunReport) -> list[CountRow]:
    """Every feature, then all samples; empty where the run did not come so far."""
    rows = [CountRow(name, counts) for name, counts in record.features.items()]
    return rows if record.samples is None else [*rows, CountRow("all samples", record.samples)]


def changes(material: Material) -> dict[str, Any]:
    """What changed since the snapshot before: reasons of each feature, samples that came and went."""
    record = material.record
    told = {
        name: [(_BECAUSE.get(reason, f"because {reason}"), count) for reason, count in why if reason not in _STAYED]
        for name, why in record.reasons.items()
    }
    stayed = {name: sum(count for reason, count in why if reason in _STAYED) for name, why in record.reasons.items()}
    came = None
    if material.known is not None and material.samples is not None:
        there = pc.is_in(material.samples["sample_id"], value_set=material.known)
        came = len(there) - (pc.sum(there).as_py() or 0)
    return {
        "features": {name: why for name, why in told.items() if why},
        "unchanged": {name: count for name, count in stayed.items() if not told[name]},
        "came": came,
        "went": None if record.samples is None else record.samples.removed,
        "first": record.base is None,
        "base": record.base,
    }


def seconds_of(record: RunReport) -> float:
    """Wall seconds of all stages; what the page itself took is not in it."""
    return sum(seconds for stage, seconds in record.seconds.items() if stage != _PAGE)


def stages(record: RunReport) -> list[dict[str, Any]]:
    """Each stage: seconds, share of the run, and its rate where it has one."""
    total = max(seconds_of(record), 1e-9)
    pieces = {
        "scan": (0 if record.samples is None else record.samples.samples_in, "samples"),
        "extract": (record.computed - record.resumed, "rows"),
        "align": (record.aligned_rows_written, "rows"),
    }
    found = []
    for stage, seconds in record.seconds.items():
        if stage == _PAGE:
            continue
        count, unit = pieces.get(stage, (0, ""))
        rate = f"{count / seconds:,.1f} {unit}/s" if count > 0 and seconds > 0 else ""
        found.append({"name": stage, "seconds": seconds, "percent": 100 * seconds / total, "rate": rate})
    return found


def parts(material: Material) -> list[dict[str, Any]]:
    """Each part of the workers' time, the longest first, with its rate now and in the last run that did it."""
    record = material.record
    total = max(sum(spent.seconds for spent in record.spent.values()), 1e-9)
    found = []
    for name, spent in sorted(record.spent.items(), key=lambda item: -item[1].seconds):
        now = _rate(spent)
        last = next((run.spent[name] for run in material.earlier if _rate(run.spent.get(name, Spent()))), Spent())
        then = _rate(last)
        found.append(
            {
                "name": name,
                "count": spent.count,
                "seconds": spent.seconds,
                "percent": 100 * spent.seconds / total,
                "rate": now,
                "before": then,
                "ratio": now / then if now and then and min(spent.count, last.count) >= _ENOUGH else None,
            }
        )
    return found


def _rate(spent: Spent) -> float | None:
    return spent.count / spent.seconds if spent.count and spent.seconds > 0 else None


def bottleneck(record: RunReport) -> str:
    """Where the time went, in a sentence; empty where there is nothing to say."""
    total = seconds_of(record)
    if total <= 0:
        return ""
    stage, seconds = max(((name, s) for name, s in record.seconds.items() if name != _PAGE), key=lambda item: item[1])
    told = f"{stage} took {seconds:,.1f} of {total:,.1f} s ({seconds / total:.0%})"
    working = {name: spent for name, spent in record.spent.items() if name.partition(" ")[0] != "align"}
    worked = sum(spent.seconds for spent in working.values())
    if stage != "extract" or worked <= 0:
        return f"{told}."
    name, spent = max(working.items(), key=lambda item: item[1].seconds)
    rate = _rate(spent)
    pace = f", at {rate:,.1f} a second and worker" if rate else ""
    return f"{told}; of the workers' time, {spent.seconds / worked:.0%} is {name}{pace}."


def comparison(material: Material) -> list[dict[str, Any]]:
    """This run beside the one before, number by number."""
    now, then = material.record, material.previous
    if then is None:
        return []

    def row(name: str, of: Any, form: str = ",d") -> dict[str, Any] | None:
        values = [of(now), of(then)]
        if values == [None, None]:
            return None
        told = ["–" if value is None else f"{value:{form}}" for value in values]
        change = "" if None in values else f"{values[0] - values[1]:+{form}}"
        return {"name": name, "now": told[0], "then": told[1], "change": "" if change in ("+0", "+0.0") else change}

    def counted(name: str) -> Any:
        return lambda run: None if run.samples is None else getattr(run.samples, name)

    rows = [
        row("samples in", counted("samples_in")),
        row("samples computed", counted("done")),
        row("samples unchanged", counted("unchanged")),
        row("samples in quarantine", counted("quarantined")),
        row("rows computed", lambda run: run.computed),
        row("aligned rows written", lambda run: run.aligned_rows_written),
        row("seconds", seconds_of, ",.1f"),
    ]
    reasons = sorted({*now.quarantine_by_reason, *then.quarantine_by_reason})
    rows += [
        row(f"quarantine: {reason}", lambda run, r=reason: run.quarantine_by_reason.get(r, 0)) for reason in reasons
    ]
    return [found for found in rows if found is not None]


def trends(material: Material) -> list[tuple[str, Markup, str]]:
    """The last runs as bars: (what, chart, the newest number)."""
    runs = [*reversed(material.earlier[: _TREND - 1]), material.record]
    if len(runs) < 2:
        return []
    gap: list[float | None] = [None] * (_TREND - len(runs))
    shown: list[tuple[str, list[float | None], str]] = [
        ("seconds", [seconds_of(run) for run in runs], ",.1f"),
        ("rows computed", [float(run.computed) for run in runs], ",.0f"),
        (
            "samples in quarantine",
            [None if run.samples is None else float(run.samples.quarantined) for run in runs],
            ",.0f",
        ),
    ]
    return [
        (
            what,
            charts.history([*gap, *values], f"{what} of the last {len(runs)} runs"),
            "–" if values[-1] is None else f"{values[-1]:{form}}",
        )
        for what, values, form in shown
    ]


@dataclass(frozen=True)
class Trouble:
    """One sample that failed for one reason: the features it failed in, and whether it is new in quarantine."""

    sample_id: str
    reason: str
    stage: str
    message: str
    traceback: str
    features: tuple[str, ...]
    fresh: bool


def quarantine(material: Material) -> dict[str, Any]:
    """Failures by reason, each sample once; what came into quarantine since the snapshot before, and what left."""
    known: dict[tuple[str, str], str] = {}
    if material.base is not None:
        try:
            rows = material.base.quarantine.select(["sample_id", "feature", "reason"]).to_pylist()
            known = {(row["sample_id"], row["feature"]): row["reason"] for row in rows}
        except (StoreError, OSError):
            known = {}
    grouped: dict[str, dict[tuple[str, str, str], list[Failure]]] = {}
    for failure in material.failures:
        same = grouped.setdefault(failure.reason, {})
        same.setdefault((failure.sample_id, failure.stage, failure.message), []).append(failure)
    reasons = {
        reason: [_trouble(failures, known) for failures in found.values()]
        for reason, found in sorted(grouped.items(), key=lambda item: -len(item[1]))
    }
    here = {(failure.sample_id, failure.feature) for failure in material.failures}
    return {
        "reasons": reasons,
        "rows": dict(Counter(failure.reason for failure in material.failures)),
        "left": _first(sorted({sample_id for sample_id, _ in known.keys() - here})),
        "entered": len({sample_id for sample_id, _ in here - known.keys()}),
        "compared": material.base is not None,
    }


def _trouble(failures: Sequence[Failure], known: dict[tuple[str, str], str]) -> Trouble:
    first = failures[0]
    return Trouble(
        sample_id=first.sample_id,
        reason=first.reason,
        stage=first.stage,
        message=first.message,
        traceback=first.traceback,
        features=tuple(sorted({failure.feature for failure in failures if failure.feature})),
        fresh=any((failure.sample_id, failure.feature) not in known for failure in failures),
    )


def beginning(text: str, length: int = SHOWN_CHARACTERS) -> str:
    """The text, or its first ``length`` characters and how many were left out."""
    left = len(text) - length
    return text if left <= 0 else f"{text[:length]} … ({left:,} characters more)"


def ending(text: str, length: int = 4 * SHOWN_CHARACTERS) -> str:
    """The text, or how many characters were left out and its last ``length``."""
    left = len(text) - length
    return text if left <= 0 else f"({left:,} characters before) … {text[-length:]}"


def _first(names: Iterable[str]) -> dict[str, Any]:
    found = list(names)
    return {"count": len(found), "names": found[:10]}


def headline(record: RunReport) -> str:
    """What became of the run, in a sentence."""
    bad = 0 if record.samples is None else record.samples.quarantined
    held = f" {bad:,} of {record.samples.samples_in:,} samples are in quarantine." if bad and record.samples else ""
    if record.status == "published":
        rows = "row" if record.computed == 1 else "rows"
        computed = f"{record.computed:,} {rows} computed" if record.computed else "nothing computed"
        return f"Published snapshot {record.snapshot}: {computed} in {seconds_of(record):,.1f} s.{held}"
    if record.status == "unchanged":
        return f"Nothing changed, nothing computed: snapshot {record.snapshot} stands.{held}"
    stands = "readers have nothing yet" if record.base is None else f"readers still have snapshot {record.base}"
    return f"The run failed and published nothing; {stands}."


def when(text: str) -> str:
    """A time as people read it: ``2026-11-24 14:00 UTC``."""
    try:
        return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        return text
