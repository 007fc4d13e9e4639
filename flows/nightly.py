"""Flows: the stages of a run, observed and scheduled by Prefect. One task a stage; the work is ``pipeline``'s."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from features.errors import GristmillError, RunFailedError
from flows.observe import current_events
from pipeline.catalog import load_catalog
from pipeline.record import RunReport
from pipeline.run import STAGES, Run


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{stage}")
def run_stage(run: Run, stage: str) -> None:
    """One stage of a run, by name."""
    getattr(run, stage)()


@flow(name="nightly", persist_result=False)
def nightly(catalog: Path, datasets: list[str] | None = None) -> list[RunReport]:
    """Bring data sets up to date. One that fails does not stop the others; the flow fails at its end."""
    return _run_all(catalog, datasets, from_nothing=False)


@flow(name="rebuild", persist_result=False)
def rebuild(catalog: Path, datasets: list[str] | None = None) -> list[RunReport]:
    """Compute data sets from nothing beside their old snapshots, and swap at the end."""
    return _run_all(catalog, datasets, from_nothing=True)


def _run_all(catalog: Path, datasets: list[str] | None, *, from_nothing: bool) -> list[RunReport]:
    loaded = load_catalog(catalog)
    reports, problems = [], []
    for name in datasets or loaded.datasets:
        try:
            with Run(loaded, name, events=current_events(), from_nothing=from_nothing) as run:
                for stage in STAGES:
                    run_stage(run, stage)
        except GristmillError as error:
            problems.append(f"{name}: {error}")
        else:
            reports.append(run.report)
    if problems:
        raise RunFailedError("\n".join(problems))
    return reports
