"""Draw the pictures of docs/scale.md from the last result of `benchmarks/run.py scale`.

uv run python benchmarks/scale_pictures.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from harness import ROOT

mpl.use("Agg")
from matplotlib import pyplot as plt  # after the backend is set

PICTURES = ROOT / "docs" / "pictures"
COLOURS = ("#264653", "#2a9d8f", "#e76f51", "#8a6fb0")
GOAL, SAMPLES_A_FILE = 10_000_000, 64 / 5
SHARD_SECONDS = (5, 15, 60)
Rows = Sequence[dict[str, Any]]


def grow(axes: Any, colour: str, label: str, rows: Rows, name: str, per: float = 1.0) -> None:
    """One line by the number of samples; hollow and dotted where a straight line goes on to the goal."""
    scale, by = (1.0, "samples") if "samples" in rows[0] else (SAMPLES_A_FILE, "files")
    x, y = [row[by] * scale for row in rows], [row[name] / per for row in rows]
    axes.plot(x, y, "o-", color=colour, label=label, markersize=4)
    if x[-1] < GOAL * 0.99:
        end = y[-1] + (y[-1] - y[-2]) / (x[-1] - x[-2]) * (GOAL - x[-1])
        axes.plot([x[-1], GOAL], [y[-1], end], ":", color=colour)
        axes.plot([GOAL], [end], "o", color=colour, markerfacecolor="white", markersize=5)


def size(found: dict[str, Rows]) -> None:
    """Time and memory of the driver by the size of the data set."""
    figure, (time, memory) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    lines = (
        ("first plan", "plan", "first plan s", "peak MiB"),
        ("plan of a later night", "plan", "night: keys s", "night: peak MiB"),
        ("commit (the log)", "log", "commit s", "commit: peak MiB"),
        ("opening a snapshot", "log", "open s", "open: peak MiB"),
    )
    for colour, (label, part, seconds, peak) in zip(COLOURS, lines, strict=True):
        grow(time, colour, label, found[part], seconds)
        grow(memory, colour, label, found[part], peak, 1024)
    for axes, what in ((time, "seconds"), (memory, "GiB at most")):
        axes.set(xscale="log", yscale="log", xlabel="samples (64 a shard, five features)", ylabel=what)
    time.set_title("The driver's time (hollow: extrapolated)", fontsize=10)
    memory.set_title("The driver's memory", fontsize=10)
    finish(figure, (time, memory), "scale-size.png")


def workers(found: dict[str, Rows]) -> None:
    """Shards a second that one driver feeds, and how busy it keeps workers."""
    figure, (rate, share) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    fed, most = found["feed"], found["feed"][-1]["workers"]
    rate.plot([row["workers"] for row in fed], [row["shards/s"] for row in fed], "o-", color=COLOURS[0], label="fed")
    for colour, each in zip(COLOURS[1:], SHARD_SECONDS, strict=True):
        label = f"asked for at {each} s a shard"
        rate.plot([10, most], [10 / each, most / each], "--", color=colour, label=label)
    rate.set(xscale="log", yscale="log", xlabel="workers", ylabel="shards a second")
    rate.set_title("What one driver and scheduler feed", fontsize=10)
    length = np.geomspace(1, 100, 200)
    for colour, row in zip(COLOURS, fed, strict=False):
        busy = np.minimum(1, row["shards/s"] * length / row["workers"])
        share.plot(length, 100 * busy, color=colour, label=f"{row['workers']:,} workers, from the rate")
    for mark, row in zip("xo", found["busy"], strict=True):
        label = f"{row['workers']:,} workers, measured"
        share.plot(row["seconds of a shard"], 100 * row["busy"], f"k{mark}", markersize=8, label=label)
    share.set(xscale="log", xlabel="seconds of work a shard", ylabel="time at work, %", ylim=(0, 105))
    share.set_title("How busy workers are kept", fontsize=10)
    finish(figure, (rate, share), "scale-workers.png")


def finish(figure: Any, both: Sequence[Any], name: str) -> None:
    """Grid, legend, file."""
    for axes in both:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(fontsize=8, frameon=False)
    figure.savefig(PICTURES / name, dpi=90)
    plt.close(figure)


if __name__ == "__main__":
    result: dict[str, Rows] = json.loads((ROOT / "benchmarks" / "results" / "scale.json").read_text())["found"]
    size(result)
    workers(result)
