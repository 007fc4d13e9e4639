"""Flows: the stages of a run, observed and scheduled by Prefect. One task a stage; the work is ``pipeline``'s."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from features.errors import GristmillError, RunFailedError
from flows.artifacts import publish_artifacts
from flows.observe import current_events, logs_kept
from flows.recover import superseded
from pipeline.catalog import Catalog, load_catalog
from pipeline.record import RunReport
from pipeline.run import STAGES, Run
from pipeline.train import train_dataset

REPEATABLE = ("scan", "plan")
"""Stages that only read. What computes and writes has retries of its own: workers, the ledger, the next run."""
_FAILURES_LOGGED = 20


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{stage}")
def run_stage(run: Run, stage: str) -> None:
    """One stage of a run, by name."""
    getattr(run, stage)()


def _transient(_task: Any, _run: Any, state: Any) -> bool:
    """Whether trying again can help: the network or a disk failed, not the data or the catalog."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, OSError) and not isinstance(error, GristmillError)


read_stage = run_stage.with_options(retries=2, retry_delay_seconds=[5, 30], retry_condition_fn=_transient)


@flow(name="nightly", persist_result=False)
def nightly(catalog: Path, datasets: list[str] | None = None) -> list[RunReport]:
    """Bring data sets up to date. One that fails does not stop the others; the flow fails at its end."""
    return _run_all(catalog, datasets, from_nothing=False)


@flow(name="rebuild", persist_result=False)
def rebuild(catalog: Path, datasets: list[str] | None = None) -> list[RunReport]:
    """Compute data sets from nothing beside their old snapshots, and swap at the end."""
    return _run_all(catalog, datasets, from_nothing=True)


def _run_all(path: Path, datasets: list[str] | None, *, from_nothing: bool) -> list[RunReport]:
    catalog = load_catalog(path)
    reports, problems = [], []
    with logs_kept():
        for name in _named(catalog, datasets):
            if not from_nothing and superseded(catalog, name):
                get_run_logger().info("%s: a run that began after this one was due has done its work", name)
                continue
            run = None
            try:
                run = Run(catalog, name, events=current_events(), from_nothing=from_nothing)
                with run:
                    for stage in STAGES:
                        (read_stage if stage in REPEATABLE else run_stage)(run, stage)
            except GristmillError as error:
                problems.append(f"{name}: {error}")
            else:
                reports.append(run.report)
            if run is not None and run.report.finished:
                _tell(catalog, run.report, run.failures)
    if problems:
        raise RunFailedError("\n".join(problems))
    return reports


def _named(catalog: Catalog, datasets: list[str] | None) -> list[str]:
    """The data sets that are meant, each known to the catalog. Raises ``CatalogError``."""
    return [catalog.dataset(name).name for name in datasets or catalog.datasets]


def _tell(catalog: Catalog, report: RunReport, failures: list[Any]) -> None:
    """What became of a run: artifacts, and what failed as lines of the log."""
    logger = get_run_logger()
    for notice in report.notices:
        logger.info("%s: %s", report.dataset, notice)
    for failure in failures[:_FAILURES_LOGGED]:
        logger.warning("%s: %s: %s: %s", report.dataset, failure.sample_id, failure.reason, failure.message)
    if len(failures) > _FAILURES_LOGGED:
        logger.warning("%s: %d more failures: gristmill quarantine", report.dataset, len(failures) - _FAILURES_LOGGED)
    publish_artifacts(catalog, report)


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="train {dataset}")
def train_one(catalog: Path, dataset: str, retrain: bool) -> dict[str, Any]:
    """Train the fusion models of one data set."""
    found: dict[str, Any] = train_dataset(
        load_catalog(catalog), dataset, retrain=retrain, events=current_events()
    ).document
    return found


@flow(name="train", persist_result=False)
def train(catalog: Path, datasets: list[str] | None = None, retrain: bool = False) -> list[dict[str, Any]]:
    """Train fusion models on the published snapshots of data sets."""
    with logs_kept():
        return [train_one(catalog, name, retrain) for name in _named(load_catalog(catalog), datasets)]
