"""What several features of one video cost together, and how much memory a video takes by its length.

    uv run python benchmarks/long_video.py [--quick]

- *together*: flow, key frames through ``image.cnn``, scores of shots, and MFCC of the sound track of one film, each
  alone and all at once, in CPU seconds of one thread. All at once may cost what the slowest does alone, what the others
  compute, and 15 % of what the others decode (``over``: the share that was needed).
- *memory*: peak of a fresh process above what it held after a film of one minute (320x180, 25 frames a second, sound at
  16 kHz), for flow and shot scores, and for MFCC, whose sound is held whole.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from corpora import film, repeated
from harness import emit, figure, in_fresh_process, table
from shards import shard_work

from features.audio.mfcc import Mfcc
from features.image.cnn import Cnn
from features.video.flow import Flow
from features.video.keyframes import Keyframes, KeyframeScores
from pipeline.chain import Chain
from pipeline.execute.compute import compute
from pipeline.execute.guard import Outcome
from pipeline.execute.work import ShardWork
from pipeline.state import StateRef

CHAINS = (
    Chain("flow", (), Flow()),
    Chain("cnn of key frames", (Keyframes(),), Cnn()),
    Chain("shot scores", (), KeyframeScores()),
    Chain("mfcc", (), Mfcc()),
)
ALLOWED = 0.15


def piece(path: Path, chains: Sequence[Chain]) -> ShardWork:
    """A shard of one film."""
    states = {chain.name: StateRef("/nowhere", "bench", "/") for chain in chains if isinstance(chain.extractor, Cnn)}
    return shard_work({"film": {"video": str(path), "audio": str(path)}}, chains, states=states)


def cost(path: Path, chains: Sequence[Chain]) -> tuple[float, float]:
    """CPU seconds in all, and of them the seconds that features computed (not decoded)."""
    outcome = Outcome()
    begun, wall = time.process_time(), time.perf_counter()
    tally = compute(piece(path, chains), outcome)
    cpu, took = time.process_time() - begun, time.perf_counter() - wall
    assert not outcome.failures, outcome.failures
    return cpu, tally.seconds["extract"] * cpu / took


def together(path: Path, rounds: int) -> list[dict[str, Any]]:
    """Each feature alone and all at once."""
    cost(path, CHAINS)
    sets = {chain.name: [chain] for chain in CHAINS} | {"all at once": list(CHAINS)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in sets}
    for _ in range(rounds):
        for name, chains in sets.items():
            found[name].append(cost(path, chains))
    rows = []
    for name, costs in found.items():
        cpu, computed = (statistics.median(part) for part in zip(*costs, strict=True))
        rows.append({"feature": name, "cpu s": cpu, "decoding": cpu - computed, "computing": computed})
    *alone, whole = rows
    slowest = max(alone, key=lambda row: row["cpu s"])
    others = [row for row in alone if row is not slowest]
    least = slowest["cpu s"] + sum(row["computing"] for row in others)
    over = (whole["cpu s"] - least) / sum(row["decoding"] for row in others)
    separately = sum(row["cpu s"] for row in alone)
    rows.append({"feature": "one after the other", "cpu s": separately, "decoding": "", "computing": ""})
    rows.append({"feature": f"over (allowed {ALLOWED})", "cpu s": over, "decoding": "", "computing": ""})
    return rows


def peak(short: Path, path: Path, which: str) -> dict[str, Any]:
    """Peak MiB above the first minute's, and its seconds."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    chains = {
        "video": [Chain("flow", (), Flow(rate=2.0)), Chain("scores", (), KeyframeScores())],
        "sound": [Chain("mfcc", (), Mfcc())],
    }[which]
    cost(short, chains)
    before = high_water()
    begun = time.perf_counter()
    cost(path, chains)
    return {"held MiB": before, "more MiB": high_water() - before, "s": time.perf_counter() - begun}


def high_water() -> float:
    """MiB that this process has held at most (``ru_maxrss`` begins with what its parent held)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="up to 5 minutes of film, one round")
    parser.add_argument("--peak", nargs=3)
    options = parser.parse_args()
    if options.peak:
        print(json.dumps(peak(Path(options.peak[0]), Path(options.peak[1]), options.peak[2])))
        return
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory(prefix="long-video-") as name:
        folder = Path(name)
        film(folder / "hd.mp4", 10 if options.quick else 30)
        costs = together(folder / "hd.mp4", 1 if options.quick else 5)
        print(table(costs))
        film(folder / "1.mp4", 60, size=(320, 180))
        rows = []
        for minutes in (1, 5) if options.quick else (1, 5, 20, 60):
            path = folder / f"of-{minutes}.mp4"
            repeated(folder / "1.mp4", path, minutes)
            for which in ("video", "sound"):
                found = in_fresh_process(__file__, "--peak", folder / "1.mp4", path, which)
                rows.append({"minutes": minutes, "what": which, **found})
        what = f"{len(CHAINS)} features at once: share of the others' decoding above the slowest alone"
        emit(rows, measures=[figure(what, costs[-1]["cpu s"], ALLOWED, at_most=True)], together=costs)


if __name__ == "__main__":
    sys.exit(main())
