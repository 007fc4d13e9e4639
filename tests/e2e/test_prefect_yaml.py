"""The commands of docs/night.md for teams, as they stand there, with the project's prefect.yaml on a real server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.catalog import load_catalog
from pipeline.run import published

if TYPE_CHECKING:
    from conftest import World

PROJECT = Path(__file__).resolve().parents[2]
ADDRESS = "http://prefect.example.org:4200/api"
WORKER = "prefect worker start --pool gristmill"


@pytest.fixture
def api() -> Iterator[str]:
    """The address of a Prefect server of the test's own, on loopback."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield str(PREFECT_API_URL.value())


def commands() -> str:
    """The block of the page that has the commands."""
    (found,) = re.findall(rf"```sh\n(export PREFECT_API_URL={ADDRESS}.*?)```", night(), re.DOTALL)
    return str(found)


def night() -> str:
    return (PROJECT / "docs/night.md").read_text()


def test_a_team_deploys_triggers_and_runs_a_night(world: World, api: str) -> None:
    from prefect.client.orchestration import get_client

    world.edit(world.catalog, "  grain:\n", "  clips:\n")
    shutil.copy(PROJECT / "prefect.yaml", world.folder)
    script = commands()
    assert WORKER in script
    script = script.replace(ADDRESS, api).replace(WORKER, f"{WORKER} --run-once")
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=world.folder,
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PREFECT_HOME": str(world.folder / "prefect"),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=480,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    with get_client(sync_client=True) as client:
        deployments = client.read_deployments()
        flows = {flow.id: flow.name for flow in client.read_flows()}
        runs = [run for run in client.read_flow_runs() if run.state_name != "Scheduled"]
        kept = {artifact.key for artifact in client.read_artifacts()}
    schedules = {flows[each.flow_id]: each.schedules for each in deployments}
    assert {each.name for each in deployments} == {"clips"}
    assert schedules.keys() == {"nightly", "rebuild", "train"}
    assert [(str(each.schedule.cron), each.schedule.timezone) for each in schedules["nightly"]] == [  # type: ignore[union-attr]
        ("0 2 * * *", "Europe/Berlin")
    ]
    assert schedules["rebuild"] == schedules["train"] == []
    (run,) = runs
    assert run.state_name == "Completed", f"{run.state}\n{done.stdout}"
    assert flows[run.flow_id] == "nightly"
    assert {"clips-counts", "clips-changes", "clips-report"} <= kept
    assert len(published(load_catalog(world.catalog), "clips").read("brightness")) == 12
