"""What a whole job costs, with every process that it starts, and what it wrote: for `peers.py`."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow.parquet as pq
from harness import ROOT


def become_subreaper() -> None:
    """Orphans of a contender become children of this process, so that all its processes can be seen."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def measured(script: str, job: str, name: str, folder: Path, out: Path) -> tuple[float, float]:
    """Wall and CPU seconds of a contender of ``script``, with all its processes (sampled ten times a second)."""
    command = [sys.executable, script, "--child", name, "--job", job, "--folder", str(folder), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DAFT_ANALYTICS_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    log = out.with_suffix(".log")
    begun = time.perf_counter()
    with log.open("wb") as sink:
        process = subprocess.Popen(command, env=environment, stdout=sink, stderr=sink)
        me, seen = psutil.Process(), dict[int, float]()
        while process.poll() is None:
            _sample(me, seen)
            time.sleep(0.1)
        took = time.perf_counter() - begun
        _sample(me, seen)
    for left in me.children(recursive=True):
        left.kill()
    psutil.wait_procs(me.children(), timeout=5)
    if process.returncode:
        raise RuntimeError(f"{name}: exit code {process.returncode}:\n{log.read_text(errors='replace')[-2000:]}")
    return took, sum(seen.values())


def _sample(me: psutil.Process, seen: dict[int, float]) -> None:
    for child in me.children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.Error:
            continue
        seen[child.pid] = times.user + times.system


def result(name: str, out: Path) -> dict[str, npt.NDArray[np.float32]]:
    """What a contender wrote, by id."""
    if name == "gristmill":
        from pipeline.catalog import load_catalog
        from pipeline.run import published

        snapshot = published(load_catalog(out / "data_catalog.yaml"), "bench")
        files = [out / "store" / "bench" / file.path for file in snapshot.files]
        key = "sample_id"
    else:
        files, key = sorted(out.rglob("*.parquet")) if out.is_dir() else [out], "id"
    found = {}
    for file in files:
        table = pq.ParquetFile(file).read(columns=[key, "values"])
        values = table["values"].combine_chunks()
        for name_, row in zip(table[key].to_pylist(), values, strict=True):
            flat = row.values.to_numpy(zero_copy_only=False) if hasattr(row, "values") else np.array(row.as_py())
            found[name_] = np.asarray(flat, dtype=np.float32)
    return found


def difference(job: str, mine: dict[str, Any], reference: dict[str, Any]) -> float:
    """Pictures: the largest angle's 1 - cosine; sounds: the largest difference; NaN where there is one.

    Raises where ids differ.
    """
    if mine.keys() != reference.keys():
        raise ValueError(f"got {len(mine)} rows, wanted {len(reference)}")
    if job == "sounds":
        return float(np.max([np.abs(mine[key] - reference[key]).max() for key in reference]))
    cosines = [
        float(np.dot(mine[key], reference[key]) / np.linalg.norm(mine[key]) / np.linalg.norm(reference[key]))
        for key in reference
    ]
    return float(1 - np.min(cosines))
