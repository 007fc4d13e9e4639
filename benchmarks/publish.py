"""The cost of a commit against the number of shard files that it adds: 10, 100, 1,000, 10,000.

    uv run python benchmarks/publish.py [--quick]

`check` opens every file that is to be published (Delta checks nothing); `log` is the transaction; `commit` is both, as
`DatasetStore.commit` does them on an empty store; `open` reads the published list of files back. Every round publishes
the same real shard files to a new log.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from harness import emit, figure, seconds

from features.types import FeatureSequence
from pipeline.execute.task import write_file
from pipeline.store import DatasetStore, ShardFile
from pipeline.store.quarantine import to_table
from pipeline.store.shard import Row, rows_to_table


def build(store: DatasetStore, count: int) -> list[ShardFile]:
    """``count`` real shard files of one row each, not yet published."""
    sequence = FeatureSequence(
        values=np.ones((1, 4), np.float32), start_ns=np.zeros(1, np.int64), end_ns=np.ones(1, np.int64)
    )
    row = Row(sample_id="s", split="train", label=None, content=bytes(16), recipe=bytes(16), sequence=sequence)
    return [
        write_file(store, "f", shard, rows_to_table(shard, [row], {"feature": "f", "dim": 4})) for shard in range(count)
    ]


def measure(folder: str, count: int, rounds: int) -> dict[str, Any]:
    """Median seconds of publishing ``count`` files."""
    store = DatasetStore(folder, "grain")
    files = build(store, count)
    info = {
        "run_id": "r",
        "created": "now",
        "samples": store.write_table("samples", pa.table({"sample_id": ["s"], "shard": pa.array([0], pa.int32())})),
        "quarantine": store.write_table("quarantine", to_table([])),
    }
    found: dict[str, list[float]] = {"commit s": [], "check s": [], "open s": []}
    for _ in range(rounds):
        found["commit s"].append(
            seconds(lambda: store.commit(run_id="r", base=None, adds=files, removes=[], info=info))
        )
        found["check s"].append(seconds(lambda: store.check(files)))
        found["open s"].append(seconds(store.snapshot))
        shutil.rmtree(store.path("_delta_log"))
    medians = {name: statistics.median(times) for name, times in found.items()}
    log = medians["commit s"] - medians["check s"]
    return {"files": count, **medians, "log s": log, "ms a file": medians["commit s"] / count * 1e3}


def main() -> None:
    """Measure every number of files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="up to 1,000 files")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = []
    for count in (10, 100, 1_000) if options.quick else (10, 100, 1_000, 10_000):
        with tempfile.TemporaryDirectory(prefix="publish-") as folder:
            rows.append(measure(str(Path(folder)), count, options.rounds))
    few, many = rows[-2:]
    what = f"time a file at {many['files']:,} files / at {few['files']:,}"
    emit(rows, measures=[figure(what, many["ms a file"] / few["ms a file"], at_most=True)])


if __name__ == "__main__":
    main()
