"""What the Prefect server shows of a run: its counts as tables, what changed in words, its report, and pictures."""

from __future__ import annotations

import base64
import os
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)

from pipeline.catalog import Catalog
from pipeline.record import RunReport
from pipeline.report.records import page_path
from pipeline.report.sheet import contact_sheet
from pipeline.store import DatasetStore

REPORTS_URL = "GRISTMILL_REPORTS_URL"
"""Environment: where ``gristmill serve`` serves the pages of runs."""


def publish_artifacts(catalog: Catalog, report: RunReport) -> None:
    """Create the artifacts of one run, inside its flow run."""
    key = re.sub(r"[^a-z0-9]+", "-", report.dataset.lower()).strip("-") or "data-set"
    create_table_artifact(_counts(report), key=f"{key}-counts", description="Samples of each feature: in and out.")
    create_markdown_artifact(_words(report), key=f"{key}-changes", description="What was computed, and why.")
    if not report.page:
        return
    create_link_artifact(_link(report), link_text="Report of this run", key=f"{key}-report")
    page = DatasetStore(catalog.store, report.dataset).read(page_path(report.run_id))
    sheet = None if page is None else contact_sheet(page.content.decode())
    if sheet is not None:
        picture = f"data:image/jpeg;base64,{base64.b64encode(sheet).decode()}"
        create_image_artifact(picture, key=f"{key}-pictures", description="The first pictures of the report.")


def _link(report: RunReport) -> str:
    served = os.environ.get(REPORTS_URL)
    if served:
        return f"{served}/{report.dataset}/{page_path(report.run_id)}"
    return report.page if "://" in report.page else Path(report.page).as_uri()


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
