"""Flows: the stages of a run, observed and scheduled by Prefect. One task a stage; the work is ``pipeline``'s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from features.errors import GristmillError, RunFailedError
from pipeline.catalog import load_catalog
from pipeline.events import SILENT, Events
from pipeline.report import RunReport
from pipeline.run import Run

STAGES = ("scan", "plan", "fit", "extract", "align", "publish")


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{stage}")
def run_stage(run: Run, stage: str) -> None:
    """One stage of a run: ``scan``, ``plan``, ``fit``, ``extract``, ``align`` or ``publish``."""
    getattr(run, stage)()


@flow(name="nightly", flow_run_name="nightly", validate_parameters=False, persist_result=False)
def nightly(catalog: Path, datasets: list[str] | None = None, events: Events = SILENT) -> list[RunReport]:
    """Bring data sets up to date. One that fails does not stop the others; the flow fails at its end."""
    return _run_all(catalog, datasets, events)


@flow(name="rebuild", flow_run_name="rebuild", validate_parameters=False, persist_result=False)
def rebuild(catalog: Path, datasets: list[str] | None = None, events: Events = SILENT) -> list[RunReport]:
    """Compute data sets from nothing beside their old snapshots, and swap at the end."""
    return _run_all(catalog, datasets, events, from_nothing=True)


def _run_all(catalog: Path, datasets: list[str] | None, events: Events, **options: Any) -> list[RunReport]:
    loaded = load_catalog(catalog)
    reports, problems = [], []
    for name in datasets or loaded.datasets:
        run = Run(loaded, name, events=events, **options)
        try:
            for stage in STAGES:
                run_stage(run, stage)
        except GristmillError as error:
            problems.append(f"{name}: {error}")
        else:
            reports.append(run.report)
    if problems:
        raise RunFailedError("\n".join(problems))
    return reports
