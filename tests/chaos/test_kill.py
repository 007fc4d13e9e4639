"""A short form of ``kill.py``: one kill each of a new run, a nightly run, gc and a worker; two runs; a full disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from distributed import Future

from features.errors import RunFailedError
from pipeline.catalog.models import Engine as Settings
from pipeline.execute import cluster
from pipeline.execute.engine import open_engine

SCRIPT = Path(__file__).with_name("kill.py")


def test_what_is_killed_is_resumed_and_nothing_is_lost() -> None:
    done = subprocess.run(  # our own script; in a process of its own, because it forks
        [sys.executable, str(SCRIPT), "--quick"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["kills"] + figures["ended before the kill"] == 4
    assert figures["by kind"]["dask worker, by progress"] == 1


@dataclass(frozen=True)
class Piece:
    """As much of a piece of work as an engine asks for."""

    shard: int
    roster: Mapping[str, None]


def die(piece: Piece) -> int:
    """Kill the worker that does this piece, if it is the seventh."""
    if piece.shard == 9:
        time.sleep(60)  # until it is cancelled
    if piece.shard == 7:
        time.sleep(3)  # Dask has seen it start
        os.kill(os.getpid(), signal.SIGKILL)
    return piece.shard


def test_a_shard_that_always_kills_its_worker_is_named() -> None:
    poison = Piece(7, dict.fromkeys("fedcba"))
    with (
        open_engine(Settings(workers=1, device="cpu"), "cpu", Path(__file__).parent) as engine,
        pytest.raises(
            RunFailedError,
            match=r"(5 worker processes died while they held|shard 7 waits:) .*killed",
        ),
    ):
        list(engine.map(die, [poison]))


def test_a_run_without_any_worker_left_ends_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "WORKERS_MISSING_SECONDS", 2.0)
    pieces = [Piece(number, dict.fromkeys("ab")) for number in range(3)]
    with open_engine(Settings(workers=1, device="cpu"), "cpu", Path(__file__).parent) as engine:
        assert isinstance(engine, cluster.Cluster)
        assert sorted(engine.map(die, pieces)) == [0, 1, 2]
        assert engine.client.cluster is not None
        engine.client.cluster.scale(0)
        time.sleep(1)
        with pytest.raises(RunFailedError, match=r"shard \d waits: no worker process has been there for 60 s"):
            list(engine.map(die, pieces))


def test_what_somebody_cancels_ends_with_other_words() -> None:
    with open_engine(Settings(workers=1, device="cpu"), "cpu", Path(__file__).parent) as engine:
        assert isinstance(engine, cluster.Cluster)
        client = engine.client

        def cancel() -> None:
            client.cancel([Future(key, client) for key in list(client.futures)])

        timer = threading.Timer(2, cancel)
        timer.start()
        with pytest.raises(RunFailedError, match=r"shard 9 was cancelled \(.*\); nothing was published"):
            list(engine.map(die, [Piece(9, dict.fromkeys("ab"))]))
        timer.join()
