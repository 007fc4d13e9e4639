"""The night shift: a Prefect server with its pages, and the schedules of a catalog, on this machine alone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psutil
from prefect.client.orchestration import get_client
from prefect.runner import Runner
from prefect.settings import PREFECT_API_URL, temporary_settings

from features.errors import GristmillError
from flows.artifacts import REPORTS_URL
from flows.deployments import deployments
from flows.pages import LOOPBACK, serve_pages
from flows.recover import catch_up, missed, settle
from pipeline.catalog import load_catalog

START_SECONDS = 120
STOP_SECONDS = 10


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
        os.environ["PREFECT_API_URL"] = url  # for the processes of flow runs
        # And for this one, whose settings were read before: or Prefect starts another server here, on the same
        # database, which hears nothing of what happens at this one, such as that a run is cancelled.
        with temporary_settings({PREFECT_API_URL: url}):
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


@contextmanager
def _children_ended() -> Iterator[None]:
    """Flow runs do not outlive what started them: they are told to stop, and the next run goes on where they were."""
    before = {child.pid for child in psutil.Process().children()}
    try:
        yield
    finally:
        _end([child for child in psutil.Process().children() if child.pid not in before])


def _end(children: list[psutil.Process]) -> None:
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.terminate()
    for child in psutil.wait_procs(children, timeout=STOP_SECONDS)[1]:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def serve_catalog(path: Path, port: int, reports_port: int, tell: Callable[[str], None]) -> None:
    """Serve the flows of a catalog until interrupted: schedules, what is asked for in the pages, nights caught up."""
    catalog = load_catalog(path)
    alone = "PREFECT_API_URL" not in os.environ
    with serve_pages(catalog, reports_port) as reports, prefect_server(port) as url:
        os.environ[REPORTS_URL] = reports
        tell(f"Prefect's pages: {url.removesuffix('/api')}")
        tell(f"Reports of runs: {reports}/")
        made = deployments(path)
        for deployment in made:
            deployment.apply()
        with get_client(sync_client=True) as client:
            crashed = settle(client, catalog, alone=alone)
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
        runner = _Runner(pause_on_shutdown=False, limit=1)
        for deployment in made:
            runner.add_deployment(deployment)
        with _children_ended(), suppress(KeyboardInterrupt):
            asyncio.run(runner.start())


class _Runner(Runner):
    """Prefect's runner, which takes SIGTERM as it takes Ctrl-C: its own way out ends in a traceback."""

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        """Stop."""
        del args, kwargs
        signal.raise_signal(signal.SIGINT)
