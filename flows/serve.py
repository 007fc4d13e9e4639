"""The night shift: a Prefect server with its pages, and the schedules of a catalog, on this machine alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from prefect import serve
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.flows import Flow
from prefect.schedules import Cron
from prefect.states import Crashed
from prefect.types.entrypoint import EntrypointType

from features.errors import GristmillError
from flows.nightly import nightly, rebuild, train
from pipeline.catalog import Catalog, DataSet, load_catalog
from pipeline.store import DatasetStore
from pipeline.store.lease import holder

LOOPBACK = "127.0.0.1"
START_SECONDS = 120


@contextmanager
def prefect_server(port: int) -> Iterator[str]:
    """A Prefect server on loopback; its API's address. Where ``PREFECT_API_URL`` names one, that one is used."""
    running = os.environ.get("PREFECT_API_URL")
    if running:
        yield running
        return
    url = f"http://{LOOPBACK}:{port}/api"
    if _healthy(url):
        raise GristmillError(
            f"serve: a server answers at {url} already; cure: another --port, or PREFECT_API_URL={url} to use it"
        )
    environment = {**os.environ, "PREFECT_API_URL": url, "PREFECT_UI_API_URL": url}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(port)]
    process = subprocess.Popen(  # noqa: S603  # our own interpreter and Prefect
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        _wait_for(url, process)
        os.environ["PREFECT_API_URL"] = url
        yield url
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _healthy(url: str) -> bool:
    try:
        with urlopen(f"{url}/health", timeout=2) as answer:  # noqa: S310  # loopback, http
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + START_SECONDS
    while not _healthy(url):
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            said = process.stderr.read().decode(errors="replace")[-2000:] if process.stderr else ""
            raise GristmillError(f"serve: Prefect's server did not start at {url}: {said or 'no answer'}")
        time.sleep(0.2)


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


def missed(catalog: Catalog, now: datetime) -> list[str]:
    """Data sets whose last scheduled night passed without a run that began after it."""
    found = []
    for name, dataset in catalog.datasets.items():
        if dataset.schedule is None:
            continue
        due = next(dataset.schedule.ticks(now, reverse=True), None)
        last = last_run(DatasetStore(catalog.store, name))
        if due is not None and last is not None and last < due:
            found.append(name)
    return found


def last_run(store: DatasetStore) -> datetime | None:
    """When the last run of a data set began, by the names of its runs; ``None`` where there was none."""
    folder = store.path("_runs")
    if not store.fs.exists(folder):
        return None
    names = [str(path).rstrip("/").rpartition("/")[2] for path in store.fs.ls(folder, detail=False)]
    begun = [datetime.strptime(name[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC) for name in names if name[:1].isdigit()]
    return max(begun, default=None)


def mark_crashed(client: SyncPrefectClient, catalog: Catalog) -> int:
    """Runs that Prefect believes to be running, but whose process is gone, are set to Crashed. Returns how many."""
    running = FlowRunFilter.model_validate({"state": {"type": {"any_": [StateType.RUNNING]}}})
    count = 0
    for run in client.read_flow_runs(flow_run_filter=running):
        names = run.parameters.get("datasets") or list(catalog.datasets)
        known = [name for name in names if name in catalog.datasets]
        if known and all(holder(DatasetStore(catalog.store, name)) is None for name in known):
            client.set_flow_run_state(run.id, Crashed(message="its process is gone; the next run goes on"), force=True)
            count += 1
    return count


def catch_up(client: SyncPrefectClient, names: list[str]) -> None:
    """Start one run for each of these data sets, however many nights were missed."""
    for name in names:
        deployment = client.read_deployment_by_name(f"nightly/{name}")
        client.create_flow_run_from_deployment(deployment.id, name="catching up")


def serve_catalog(path: Path, port: int, tell: Callable[[str], None]) -> None:
    """Serve the flows of a catalog until interrupted: schedules, what is asked for in the pages, nights caught up."""
    catalog = load_catalog(path)
    with prefect_server(port) as url:
        tell(f"Prefect's pages: {url.removesuffix('/api')}")
        made = deployments(path)
        for deployment in made:
            deployment.apply()
        with get_client(sync_client=True) as client:
            crashed = mark_crashed(client, catalog)
            late = missed(catalog, datetime.now(UTC))
            catch_up(client, late)
        if crashed:
            tell(f"{crashed} runs whose process is gone were marked as crashed; what they finished is used")
        for name in late:
            tell(f"{name}: a scheduled night was missed; one run starts now")
        for name, dataset in catalog.datasets.items():
            if dataset.schedule is not None:
                following = next(dataset.schedule.ticks(datetime.now(UTC)))
                tell(f"{name}: next run {following:%Y-%m-%d %H:%M %Z}")
        serve(*made, pause_on_shutdown=False, print_starting_message=False, limit=1)
