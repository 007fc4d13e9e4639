"""What the engine costs: by the shard, by the number of shards, and what a second worker is worth.

    uv run python benchmarks/engine.py [--quick] [--full]

- *shards*: pieces of next to no work through a local cluster of two workers. Tasks that the scheduler holds, and
  what the driver (in which the scheduler runs) grows by, must not depend on their number. ``--full``: 100,000 too.
- *overhead*: shards of 64 samples that wait five seconds in all, one worker against a plain loop over the same ones.
  Waiting, not computing, so that other work on the machine does not count.
- *scaling*: shards of samples that compute, by one worker and by two.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from harness import emit, figure, in_fresh_process, seconds
from shards import shard_work

from features.types import Stream
from pipeline.catalog.models import Engine as Settings
from pipeline.chain import Chain
from pipeline.execute.compute import compute
from pipeline.execute.engine import open_engine
from pipeline.execute.guard import Outcome
from pipeline.execute.task import run_shard
from pipeline.execute.work import FeatureWork, ShardWork
from pipeline.importing import importable

STEP = """
    import time
    from dataclasses import dataclass

    import numpy as np

    from features.time import ALWAYS
    from features.types import FeatureSequence

    @dataclass(frozen=True, kw_only=True)
    class Busy:
        name = "busy"
        stream = "text"
        numerics = ()
        seconds: float
        wait: bool
        batch_size = 1
        dim = 1

        def __call__(self, batch, device):
            if self.wait:
                time.sleep(self.seconds)
            else:
                until = time.thread_time() + self.seconds
                while time.thread_time() < until:
                    np.ones(1000).sum()
            return [FeatureSequence.from_rows(np.ones((1, 1), np.float32), [ALWAYS]) for _ in batch]
    """


@dataclass(frozen=True)
class Nothing:
    """A piece of work of next to nothing."""

    shard: int
    roster: Mapping[str, Any] = field(default_factory=dict)


def number(work: Nothing) -> int:
    """Return the shard."""
    return work.shard


def simulate(count: int) -> dict[str, Any]:
    """``count`` pieces through the engine."""
    most, process = 0, psutil.Process()
    with open_engine(Settings(workers=2, device="cpu", memory=3 << 30), "cpu", Path.cwd()) as engine:
        list(engine.map(number, (Nothing(shard) for shard in range(100))))
        before = process.memory_info().rss
        scheduler = engine.client.cluster.scheduler  # type: ignore[attr-defined]

        def drain() -> None:
            nonlocal most
            for done, _ in enumerate(engine.map(number, (Nothing(shard) for shard in range(count)))):
                if done % 100 == 0:
                    most = max(most, len(scheduler.tasks))

        took = seconds(drain)
        grown = (process.memory_info().rss - before) / 2**20
    return {"shards": count, "ms a shard": took / count * 1e3, "tasks held": most, "driver grows MiB": grown}


def shards(folder: Path, step: Any, count: int, samples_each: int) -> Iterator[ShardWork]:
    """``count`` shards of ``samples_each`` short texts."""
    text = folder / "text.txt"
    text.write_text("grain")
    for shard in range(count):
        uris: dict[Stream, str] = {"text": str(text)}
        samples = {f"{shard}-{index}": uris for index in range(samples_each)}
        yield shard_work(samples, [Chain("busy", (), step)], shard=shard, store=str(folder / "store"))


def on_workers(folder: Path, work: list[ShardWork], workers: int) -> float:
    """Seconds of ``work`` on warm workers."""
    from dataclasses import replace

    with open_engine(Settings(workers=workers, device="cpu", memory=6 << 30), "cpu", folder) as engine:
        guarded = [replace(piece, guard=engine.guard) for piece in work]
        small = [replace(piece, samples=piece.samples[:1]) for piece in guarded[: 2 * workers]]
        one = [replace(piece, features=tuple(_first(feature) for feature in piece.features)) for piece in small]
        list(engine.map(run_shard, one))  # workers and their children are up
        return seconds(lambda: list(engine.map(run_shard, guarded)))


def _first(feature: FeatureWork) -> FeatureWork:
    from dataclasses import replace

    return replace(feature, compute=dict(itertools.islice(feature.compute.items(), 1)))


def in_a_loop(work: list[ShardWork]) -> float:
    """Seconds of the same samples in a plain loop."""
    steps = [(piece.features[0].chain.extractor, len(piece.samples)) for piece in work]

    def loop() -> None:

        for step, samples in steps:
            for _ in range(samples):
                step([None], "cpu")

    compute(work[0], Outcome())
    return seconds(loop)


def main() -> None:
    """Measure all three."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="up to 2,000 shards, one round")
    parser.add_argument("--full", action="store_true", help="100,000 shards too (a quarter of an hour)")
    parser.add_argument("--simulate", type=int)
    options = parser.parse_args()
    if options.simulate:
        import json

        print(json.dumps(simulate(options.simulate)))
        return
    counts = (500, 2_000) if options.quick else (1_000, 10_000, *((100_000,) if options.full else ()))
    growth = [in_fresh_process(__file__, "--simulate", count) for count in counts]
    rounds = 1 if options.quick else 3
    with tempfile.TemporaryDirectory(prefix="engine-") as name:
        folder = Path(name)
        (folder / "busy_steps.py").write_text(textwrap.dedent(STEP))
        with importable(folder):
            from busy_steps import Busy  # type: ignore[import-not-found]

            waiting = list(shards(folder, Busy(seconds=5 / 64, wait=True), 4, 64))
            ratios = [on_workers(folder, waiting, 1) / in_a_loop(waiting) for _ in range(rounds)]
            working = list(shards(folder, Busy(seconds=0.02, wait=False), 12, 64))
            speedups = [on_workers(folder, working, 1) / on_workers(folder, working, 2) for _ in range(rounds)]
    cost, speedup = statistics.median(ratios), statistics.median(speedups)
    few, many = growth[0], growth[-1]
    emit(
        growth,
        measures=[
            figure("5 s of work a shard: one worker's time / plain loop", cost, 1.03, at_most=True),
            figure(
                f"ms a shard at {counts[-1]:,} shards / at {counts[0]:,}",
                many["ms a shard"] / few["ms a shard"],
                1.0,
                at_most=True,
            ),
            figure("speed of two workers / one", speedup),
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
