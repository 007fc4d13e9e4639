"""What was missed, what was killed: a night is caught up once, and no dead run is taken for a living one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefect import runtime
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Crashed

from pipeline.catalog import Catalog
from pipeline.report.records import list_runs
from pipeline.store import DatasetStore
from pipeline.store.lease import holder

STARTING = timedelta(minutes=10)
"""On a server that others use too, a run of this age that holds no lease may still be starting."""
_SCHEDULED = "auto-scheduled"
"""The tag that Prefect gives to runs of a schedule."""


def last_run(store: DatasetStore) -> datetime | None:
    """When the last run of a data set began that came to an end, well or not; ``None`` where there was none."""
    if not store.fs.exists(store.root):
        return None
    begun = [datetime.fromisoformat(entry.started) for entry in list_runs(store) if entry.record is not None]
    return max(begun, default=None)


def missed(catalog: Catalog, now: datetime) -> list[str]:
    """Data sets whose last scheduled night passed without a run that began after it and came to an end."""
    found = []
    for name, dataset in catalog.datasets.items():
        if dataset.schedule is None:
            continue
        due = next(dataset.schedule.ticks(now, reverse=True), None)
        store = DatasetStore(catalog.store, name)
        last = last_run(store)
        ever = last is not None or (store.fs.exists(store.root) and bool(list_runs(store, 1)))
        if due is not None and ever and (last is None or last < due):
            found.append(name)
    return found


def superseded(catalog: Catalog, name: str) -> bool:
    """Whether the scheduled flow run that runs now has been overtaken: a run that began after it was due has ended.

    So it is with nights that fell due while nothing was served, or while another run took longer than a night: the
    first of them does the work of all. A flow run that someone asked for is never overtaken.
    """
    due = runtime.flow_run.scheduled_start_time
    if _SCHEDULED not in (runtime.flow_run.tags or []) or due is None:
        return False
    last = last_run(DatasetStore(catalog.store, name))
    return last is not None and last > due


def settle(client: SyncPrefectClient, catalog: Catalog, *, alone: bool) -> int:
    """Runs that Prefect believes to be starting, running or being cancelled, but whose process is gone, are ended.

    ``alone``: nobody else starts runs on this server, so whatever is not at work is dead; elsewhere runs get
    ``STARTING`` to begin. Returns how many there were.
    """
    kinds = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
    chosen = FlowRunFilter.model_validate({"state": {"type": {"any_": kinds}}})
    count = 0
    for run in client.read_flow_runs(flow_run_filter=chosen):
        if not _is_ours(run, catalog.path):
            continue
        names = [name for name in run.parameters.get("datasets") or catalog.datasets if name in catalog.datasets]
        if any(holder(DatasetStore(catalog.store, name)) is not None for name in names):
            continue
        since = None if run.state is None else run.state.timestamp
        if not alone and since is not None and datetime.now(UTC) - since < STARTING:
            continue
        stopped = run.state is not None and run.state.type is StateType.CANCELLING
        state: State = Cancelled() if stopped else Crashed(message="its process is gone; the next run goes on")
        client.set_flow_run_state(run.id, state, force=True)
        count += 1
    return count


def _is_ours(run: FlowRun, catalog: Path) -> bool:
    return str(run.parameters.get("catalog")) == str(catalog)


def catch_up(client: SyncPrefectClient, names: list[str]) -> None:
    """Start one run for each of these data sets, however many nights were missed; one that is overdue is that run."""
    overdue = FlowRunFilter.model_validate(
        {
            "state": {"type": {"any_": [StateType.SCHEDULED]}},
            "next_scheduled_start_time": {"before_": datetime.now(UTC)},
        }
    )
    waiting = client.read_flow_runs(flow_run_filter=overdue, sort=FlowRunSort.EXPECTED_START_TIME_ASC)
    for name in names:
        deployment = client.read_deployment_by_name(f"nightly/{name}")
        if not any(run.deployment_id == deployment.id for run in waiting):
            client.create_flow_run_from_deployment(deployment.id, name="catching up")
