"""The night shift on a real Prefect server on loopback: deployments, a schedule that fires, artifacts, recovery."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from flows.recover import last_run, missed
from pipeline.catalog import load_catalog
from pipeline.run import published, run_dataset
from pipeline.store import DatasetStore

if TYPE_CHECKING:
    from conftest import World

GRISTMILL = """
import signal
from flows.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job, and what it starts, ignores it
main()
"""
PATIENCE = 480.0  # of a crowded machine; a run that fails ends the wait at once


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(what: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        found = what()
        if found:
            return found
        time.sleep(0.5)
    raise AssertionError(f"{what} did not come about in {PATIENCE:g} s")


class Server:
    """``gristmill serve`` in a process of its own, with a home of its own."""

    def __init__(self, world: World) -> None:
        self.port = free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        environment = {
            **os.environ,
            "PREFECT_HOME": str(world.folder / "prefect"),
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
        }
        environment |= {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2", "PYTHONUNBUFFERED": "1"}
        environment.pop("PREFECT_API_URL", None)
        self.log = world.folder / "serve.log"
        command = [
            sys.executable,
            "-c",
            GRISTMILL,
            "serve",
            "--catalog",
            str(world.catalog),
            "--port",
            str(self.port),
            "--reports-port",
            "0",
        ]
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                command, env=environment, stdout=out, stderr=out, start_new_session=True, cwd=world.folder
            )

    def ask(self, path: str, **body: Any) -> Any:
        request = Request(f"{self.api}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except URLError:
            assert self.process.poll() is None, self.log.read_text()
            return None

    def runs(self, *states: str) -> list[dict[str, Any]]:
        """Flow runs in these states. A short cron fills a plain list with the runs of the next hour."""
        found = self.ask("flow_runs/filter", limit=50, flow_runs={"state": {"name": {"any_": list(states)}}})
        return found or []

    def done(self) -> list[dict[str, Any]]:
        """Completed flow runs. One that failed or crashed ends the wait with its log."""
        for run in self.runs("Failed", "Crashed"):
            of_run = {"flow_run_id": {"any_": [run["id"]]}}
            log = "\n".join(line["message"] for line in self.ask("logs/filter", logs=of_run) or [])
            raise AssertionError(f"{run['name']}: {run['state']['message']}\n{log}\n{self.log.read_text()}")
        return self.runs("Completed")

    def stop(self, how: signal.Signals) -> float:
        begun = time.monotonic()
        if how is signal.SIGKILL:
            os.killpg(self.process.pid, how)
        else:
            self.process.send_signal(how)
        self.process.wait(timeout=60)
        return time.monotonic() - begun


@pytest.fixture
def served(world: World) -> Iterator[Callable[[], Server]]:
    started: list[Server] = []

    def start() -> Server:
        started.append(Server(world))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.stop(signal.SIGKILL)


def schedule(world: World, cron: str) -> None:
    world.catalog.write_text(world.catalog.read_text() + f"    schedule: {{cron: '{cron}', timezone: Europe/Berlin}}\n")


def test_a_schedule_fires_and_artifacts_are_seen(world: World, served: Callable[[], Server]) -> None:
    schedule(world, "* * * * *")
    server = served()
    wait_for(server.done)
    assert published(load_catalog(world.catalog), "grain").version >= 0
    found = server.ask("deployments/filter")
    assert sorted(each["name"] for each in found) == ["grain"] * 3
    (nightly,) = [each for each in found if each["schedules"]]
    assert nightly["schedules"][0]["schedule"]["timezone"] == "Europe/Berlin"
    artifacts = server.ask("artifacts/filter")
    kinds = {artifact["key"]: artifact for artifact in artifacts}
    assert {"grain-counts", "grain-changes", "grain-report", "grain-pictures"} <= set(kinds)
    (address,) = re.findall(
        r"\((http://127\.0\.0\.1:\d+/grain/_runs/[^)]+/report\.html)\)", kinds["grain-report"]["data"]
    )
    with urlopen(address, timeout=10) as page:
        assert b"brightness" in page.read()
    said = [line["message"] for line in server.ask("logs/filter")]
    assert any(line.startswith("scan: 12 samples in ") for line in said), said
    (counts,) = [artifact for artifact in artifacts if artifact["key"] == "grain-counts"][:1]
    assert {row["feature"]: row["samples_in"] for row in json.loads(counts["data"])}["brightness"] == 12
    assert server.stop(signal.SIGINT) < 30
    with pytest.raises(URLError):
        urlopen(f"{server.api}/health", timeout=2)
    assert "next run" in server.log.read_text()


def test_missed_nights_are_known_by_the_last_run(world: World) -> None:
    schedule(world, "0 2 * * *")
    catalog = load_catalog(world.catalog)
    store = DatasetStore(catalog.store, "grain")
    now = datetime.now(UTC)
    assert last_run(store) is None
    assert missed(catalog, now) == [], "a data set that never ran waits for its first night"
    run_dataset(catalog, "grain")
    begun = last_run(store)
    assert begun is not None
    assert abs(begun - now) < timedelta(minutes=2)
    assert missed(catalog, now + timedelta(seconds=1)) == []
    assert missed(catalog, now + timedelta(days=3)) == ["grain"]
