"""Deployments: the flows of each data set, with its schedule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect.deployments.runner import RunnerDeployment
from prefect.flows import Flow
from prefect.schedules import Cron
from prefect.types.entrypoint import EntrypointType

from flows.nightly import nightly, rebuild, train
from pipeline.catalog import DataSet, load_catalog


def deployments(catalog: Path) -> list[RunnerDeployment]:
    """One deployment of each flow for each data set; ``nightly`` has the data set's schedule.

    Runs that are due at the same time wait for each other (each takes the whole machine); runs by other means are kept
    apart by the data set's lease.
    """
    return [
        _deployment(flow, catalog, dataset if flow is nightly else None, name)
        for name, dataset in load_catalog(catalog).datasets.items()
        for flow in (nightly, rebuild, train)
    ]


def _deployment(flow: Flow[Any, Any], catalog: Path, dataset: DataSet | None, name: str) -> RunnerDeployment:
    schedule = None if dataset is None else dataset.schedule
    made = flow.to_deployment(
        name=name,
        schedules=[] if schedule is None else [Cron(schedule.cron, timezone=schedule.timezone)],
        parameters={"catalog": str(catalog), "datasets": [name]},
        description=flow.description,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(made, RunnerDeployment)  # noqa: S101  # narrowed: it is a coroutine in async code only
    return made
