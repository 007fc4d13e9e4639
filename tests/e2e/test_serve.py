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
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import Request, urlopen
from uuid import uuid4

import psutil
import pytest

from flows.recover import last_run, missed
from pipeline.catalog import load_catalog
from pipeline.run import published, run_dataset
from pipeline.store import DatasetStore

if TYPE_CHECKING:
    from conftest import World

PICTURES = 40
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


def slow_steps(world: World) -> Path:
    """A feature that takes a second and a half a picture, and tells in a file which pictures it was computed of."""
    told = world.folder / "computed"
    world.edit(
        world.steps,
        "        return [\n            FeatureSequence.from_rows(scale(image",
        f"""\
        import time
        for image in batch:
            time.sleep(1.5)
            with open({str(told)!r}, "a") as out:
                out.write(str(image.pixels.sum()) + "\\n")
        return [
            FeatureSequence.from_rows(scale(image""",
    )
    world.edit(world.catalog, "kind: serial, workers: 1", "kind: dask, workers: 2")
    world.edit(world.catalog, "shard_samples: 4", "shard_samples: 2")
    for number in range(PICTURES):
        world.add(number)
    return told


def workers_of(server: Server) -> list[psutil.Process]:
    """The processes that compute: the children of Dask's workers."""
    found = []
    for process in psutil.Process(server.process.pid).children(recursive=True):
        with suppress(psutil.Error):
            if "pipeline.execute.child" in process.cmdline():
                found.append(process)
    return found


def test_a_night_is_cancelled_within_seconds_and_a_killed_one_goes_on(
    world: World, served: Callable[[], Server]
) -> None:
    told = slow_steps(world)
    schedule(world, "0 2 * * *")
    server = served()

    def computed() -> list[str]:
        return told.read_text().splitlines() if told.exists() else []

    def start() -> str:
        (nightly,) = wait_for(lambda: [each for each in server.ask("deployments/filter") or [] if each["schedules"]])
        asked = {
            "state": {"type": "SCHEDULED"},
            "idempotency_key": str(uuid4()),
        }  # one run, however often it is asked for
        run = wait_for(lambda: server.ask(f"deployments/{nightly['id']}/create_flow_run", **asked))
        return str(run["id"])

    def finished() -> int:
        """Pictures in shards that were finished and not published yet."""
        return 2 * len(list((world.folder / "store/grain/_ledger").glob("*.json")))

    cancelled = start()
    wait_for(lambda: len(computed()) >= 5)  # two workers, two pictures a shard: one shard is finished
    workers = workers_of(server)
    assert len(workers) == 2
    begun = time.monotonic()
    server.ask(f"flow_runs/{cancelled}/set_state", state={"type": "CANCELLING"})
    wait_for(lambda: not any(process.is_running() for process in workers))
    assert time.monotonic() - begun < 20
    assert [run["id"] for run in wait_for(lambda: server.runs("Cancelled"))] == [cancelled]
    kept = finished()
    assert 2 <= kept < PICTURES, "it was stopped before its end, and what it finished is kept"

    killed, before = start(), len(computed())
    wait_for(lambda: len(computed()) >= before + 5)
    workers = workers_of(server)
    server.stop(signal.SIGKILL)
    wait_for(lambda: not any(process.is_running() for process in workers))
    assert kept < finished() < PICTURES
    kept, before = finished(), len(computed())
    server = served()
    assert [run["id"] for run in wait_for(lambda: server.runs("Crashed"))] == [killed]
    start()
    wait_for(lambda: server.runs("Completed"))
    assert len(computed()) - before == PICTURES - kept, "what finished shards hold was not computed again"

    catalog = load_catalog(world.catalog)
    found = published(catalog, "grain").read("brightness")
    world.edit(world.catalog, "store: ./store", "store: ./undisturbed")
    run_dataset(load_catalog(world.catalog), "grain", engine="serial")
    assert found.equals(published(load_catalog(world.catalog), "grain").read("brightness"))


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
