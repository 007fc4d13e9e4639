"""Metrics of the last runs in Prometheus' text format, for the textfile collector of its node exporter.

The whole file is made anew from the records of all data sets of the catalog, so that runs which end at the same time
do not lose each other's lines.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime

from pipeline.catalog import Catalog
from pipeline.record import RunReport
from pipeline.report.records import RunEntry, list_runs
from pipeline.store import DatasetStore

_Sample = tuple[dict[str, str], float]

METRICS: dict[str, str] = {
    "gristmill_last_run_timestamp_seconds": "When the last run that came to an end has ended.",
    "gristmill_last_run_success": "1: the last run published, or there was nothing to do; 0: it failed.",
    "gristmill_last_success_timestamp_seconds": "When the last run that did not fail has ended.",
    "gristmill_last_run_duration_seconds": "Wall seconds of the last run, by stage.",
    "gristmill_snapshot_version": "The snapshot that readers see.",
    "gristmill_samples": "Samples of the last run, by what became of them.",
    "gristmill_feature_samples": "Samples of each feature in the last run, by what became of them.",
    "gristmill_quarantine_rows": "Rows in quarantine after the last run, by reason.",
}
"""Name -> what it says. All are gauges."""


def write_metrics(catalog: Catalog) -> None:
    """Write the file that the catalog names; it is replaced whole."""
    path = catalog.metrics
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        fresh.write_text(metrics_text(catalog), encoding="utf-8")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def metrics_text(catalog: Catalog) -> str:
    """The metrics of every data set of the catalog that has run."""
    found: dict[str, list[_Sample]] = {name: [] for name in METRICS}
    for name in catalog.datasets:
        for metric, labels, value in _of_dataset(list_runs(DatasetStore(catalog.store, name))):
            found[metric].append(({"dataset": name, **labels}, value))
    lines = []
    for metric, about in METRICS.items():
        if found[metric]:
            lines += [f"# HELP {metric} {about}", f"# TYPE {metric} gauge"]
            lines += [_line(metric, labels, value) for labels, value in found[metric]]
    return "\n".join(lines) + "\n"


def _of_dataset(entries: list[RunEntry]) -> Iterator[tuple[str, dict[str, str], float]]:
    ended = [entry.record for entry in entries if entry.record is not None and entry.record.finished]
    if not ended:
        return
    last = ended[0]
    yield "gristmill_last_run_timestamp_seconds", {}, _time(last)
    yield "gristmill_last_run_success", {}, float(last.status in ("published", "unchanged"))
    good = next((record for record in ended if record.status in ("published", "unchanged")), None)
    if good is not None:
        yield "gristmill_last_success_timestamp_seconds", {}, _time(good)
    for stage, seconds in last.seconds.items():
        yield "gristmill_last_run_duration_seconds", {"stage": stage}, seconds
    if last.snapshot is not None:
        yield "gristmill_snapshot_version", {}, last.snapshot
    if last.samples is not None:
        for outcome, count in asdict(last.samples).items():
            yield "gristmill_samples", {"outcome": outcome.removeprefix("samples_")}, count
    for feature, counts in last.features.items():
        for outcome, count in asdict(counts).items():
            yield "gristmill_feature_samples", {"feature": feature, "outcome": outcome.removeprefix("samples_")}, count
    for reason, count in last.quarantine_by_reason.items():
        yield "gristmill_quarantine_rows", {"reason": reason}, count


def _time(record: RunReport) -> float:
    return datetime.fromisoformat(record.finished).timestamp()


def _line(metric: str, labels: dict[str, str], value: float) -> str:
    told = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
    number = f"{value:.0f}" if float(value).is_integer() else repr(float(value))
    return f"{metric}{{{told}}} {number}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
