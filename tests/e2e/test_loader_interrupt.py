"""Ctrl-C in the middle of an epoch: the program ends, and neither a thread nor a process is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job, and what it starts, ignores it

import numpy as np
from torch.utils.data import DataLoader

from pipeline import open_store

folder, workers = sys.argv[1], int(sys.argv[2])
batches = open_store(folder, "grain").samples().batches(2, prefetch=4)
loader = DataLoader(batches, batch_size=None, num_workers=workers) if workers else batches
try:
    for epoch in range(1_000_000):
        batches.set_epoch(epoch)
        for batch in loader:
            print("batch", flush=True)
            time.sleep(0.01)
except KeyboardInterrupt:
    alive = [thread.name for thread in threading.enumerate() if thread.name == "gristmill-prefetch"]
    print("interrupted", alive, flush=True)
    raise
"""


@pytest.mark.e2e
@pytest.mark.parametrize("workers", [0, 2])
def test_nothing_is_left_behind(workers: int, tmp_path: Path) -> None:
    sys.path.insert(0, str(ROOT / "tests" / "unit"))
    try:
        from loader_store import Feature, Grain
    finally:
        sys.path.pop(0)
    Grain(tmp_path, {"picture": Feature(dim=4)}, count=200).publish()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), str(workers)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as program:
        try:
            assert program.stdout is not None
            for _ in range(20):
                assert program.stdout.readline() == "batch\n"
            family = [psutil.Process(program.pid), *psutil.Process(program.pid).children(recursive=True)]
            assert len(family) == 1 + workers
            os.killpg(program.pid, signal.SIGINT)  # what a terminal does: to every process of the group
            out, error = program.communicate(timeout=60)
        finally:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
    assert "interrupted []\n" in out
    assert error.rstrip().endswith("KeyboardInterrupt")
    assert program.returncode in (-signal.SIGINT, 130)
    deadline = time.monotonic() + 30
    while any(process.is_running() for process in family) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [process for process in family if process.is_running()] == []
