"""What the Prefect server shows of a run: its counts as tables, what changed in words, and where its report lies."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from pipeline.record import RunReport


def publish_artifacts(report: RunReport, link: str | None = None) -> None:
    """Create the artifacts of one run, inside its flow run. ``link``: the address of its report."""
    key = re.sub(r"[^a-z0-9]+", "-", report.dataset.lower()).strip("-") or "data-set"
    create_table_artifact(_counts(report), key=f"{key}-counts", description="Samples of each feature: in and out.")
    create_markdown_artifact(_words(report), key=f"{key}-changes", description="What was computed, and why.")
    if link is not None:
        create_link_artifact(link, link_text="Report of this run", key=f"{key}-report")


def _counts(report: RunReport) -> list[dict[str, Any]]:
    named = {"all samples": report.samples, **report.features}
    return [{"feature": name, **asdict(counts)} for name, counts in named.items() if counts is not None]


def _words(report: RunReport) -> str:
    state = f"snapshot {report.snapshot} published" if report.published else f"snapshot {report.snapshot} stands"
    lines = [f"# {report.dataset}: {state}", "", f"Run `{report.run_id}`, {report.computed} feature rows computed.", ""]
    for feature, reasons in report.reasons.items():
        lines += [f"- `{feature}`: " + "; ".join(f"{count} {reason}" for reason, count in reasons)]
    if report.quarantine_by_reason:
        lines += ["", "Quarantine: " + ", ".join(f"{n} {reason}" for reason, n in report.quarantine_by_reason.items())]
    if report.seconds:
        lines += ["", "| stage | seconds |", "|---|---:|"]
        lines += [f"| {stage} | {seconds:.1f} |" for stage, seconds in report.seconds.items()]
    return "\n".join(lines)
