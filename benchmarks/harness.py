"""What the benchmarks share: the machine's description, timing, a fresh process for each measurement."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("numpy", "pyarrow", "deltalake", "blake3", "torch", "opencv-python", "av", "librosa", "dask", "prefect")
LOAD = os.getloadavg()[0]
"""Of the minute before this process began."""


def machine() -> str:
    """CPU, cores, memory, versions, and how busy the machine was, in one line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    python = platform.python_version()
    return f"{model}, {cores} cores, {memory:.0f} GiB, Python {python}, {versions}; load {LOAD:.1f} at the start"


def seconds(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def interleaved(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median CPU seconds of each; every round runs all of them, each time beginning with another one."""
    found: dict[str, list[float]] = {name: [] for name in works}
    order = list(works)
    for _ in range(rounds):
        order.append(order.pop(0))
        for name in order:
            begun = time.process_time()
            works[name]()
            found[name].append(time.process_time() - begun)
    return {name: statistics.median(times) for name, times in found.items()}


def in_fresh_process(script: str, *arguments: object) -> dict[str, Any]:
    """Run a benchmark's script again with arguments, in a process of its own; it prints one JSON document."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, script, *(str(argument) for argument in arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def with_allocator() -> None:
    """Begin this process again with the allocator's settings of our workers, which are read when a process starts."""
    from pipeline.execute.cluster import ENVIRONMENT

    wanted = {name: value for name, value in ENVIRONMENT.items() if name.startswith("MALLOC")}
    if not wanted.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **wanted})


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as a table for people, all with the keys of the first."""
    names = list(rows[0])
    cells = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def _cell(value: object) -> str:
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def figure(what: str, ratio: float, target: float | None = None, *, at_most: bool = False) -> dict[str, Any]:
    """One of ``measures``: what was measured in this run, and the least (or most) that it should be, if anything."""
    return {"what": what, "ratio": float(ratio), "target": target, "at_most": at_most}


def emit(rows: Sequence[dict[str, Any]], *, measures: Sequence[dict[str, Any]] = (), **more: Any) -> None:
    """Print the machine, the table, the figures with their targets, and the same as one line of JSON."""
    described = machine()
    print(described)
    print(table(rows))
    for name, value in more.items():
        print(f"{name}: {value}")
    for measure in measures:
        sign = "at most" if measure["at_most"] else "at least"
        wanted = "" if measure["target"] is None else f" ({sign} {measure['target']:g})"
        print(f"{measure['what']}: {measure['ratio']:.3g}{wanted}")
    print(json.dumps({"machine": described, "rows": list(rows), "measures": list(measures), **more}))
