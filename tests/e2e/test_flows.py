"""Flows call the same stages, one Prefect task each, and leave the same store as a plain run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from features.errors import RunFailedError
from pipeline.catalog import load_catalog
from pipeline.events import SILENT
from pipeline.run import STAGES, published, run_dataset

if TYPE_CHECKING:
    from conftest import World

PATIENCE = 60.0


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    """A Prefect server of the test's own, on loopback, with a database that goes when the tests are done."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.mark.usefixtures("server")
def test_nightly_publishes_what_a_run_publishes_and_is_seen_by_the_server(world: World) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.sorting import TaskRunSort

    from flows.nightly import nightly, rebuild

    (report,) = nightly(world.catalog)
    assert report.published
    assert report.computed == 24
    with get_client(sync_client=True) as client:
        until = time.monotonic() + PATIENCE  # the server writes down what tasks did a moment after they did it
        tasks: list[Any] = []
        while len(tasks) < len(STAGES) and time.monotonic() < until:
            time.sleep(0.2)
            tasks = client.read_task_runs(sort=TaskRunSort.EXPECTED_START_TIME_ASC, limit=50)
        (flow,) = client.read_flow_runs(limit=50)
    assert [task.name for task in tasks] == list(STAGES), "one task a stage, never one a shard or sample"
    assert flow.state_name == "Completed"
    (again,) = nightly(world.catalog, ["grain"])
    assert again.computed == 0
    assert not again.published
    (anew,) = rebuild(world.catalog)
    assert anew.published
    assert anew.computed == 24
    assert published(load_catalog(world.catalog), "grain").version == anew.snapshot


@pytest.mark.usefixtures("server")
def test_a_red_data_set_fails_the_flow(world: World) -> None:
    from flows.nightly import nightly

    for i in range(1, 11, 2):
        (world.media / "day" / f"s{i:02d}.png").write_bytes(b"nothing")
    with pytest.raises(RunFailedError, match=r"grain: datasets\.grain: 5 of 12 samples failed"):
        nightly(world.catalog)


@pytest.mark.usefixtures("server")
def test_of_two_at_once_the_second_says_so_and_stops(world: World) -> None:
    from flows.nightly import nightly

    catalog = load_catalog(world.catalog)
    refused: list[str] = []

    class Meanwhile(type(SILENT)):  # type: ignore[misc]
        """While the first one extracts, the second one is started."""

        def started(self, stage: str, total: int | None, unit: str) -> None:
            if stage == "extract":
                with pytest.raises(RunFailedError) as caught:
                    nightly(world.catalog)
                refused.append(str(caught.value))

    first = run_dataset(catalog, "grain", events=Meanwhile())
    assert first.published
    assert first.computed == 24
    (words,) = refused
    assert f"pid {os.getpid()}" in words
    assert published(catalog, "grain").version == first.snapshot, "the second one published nothing"
    (after,) = nightly(world.catalog)
    assert after.computed == 0
