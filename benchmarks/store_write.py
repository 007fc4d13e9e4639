"""The cost of writing shards against plain `pq.write_table` of the same table.

    uv run python benchmarks/store_write.py [--quick]

CPU milliseconds, medians of interleaved rounds. `plain` is `pq.write_table` of the finished table at its cheapest: no
compression, dictionary or statistics; `default` is with Arrow's defaults. `layout` is our layout (values as they lie,
one page a row group), `file` is all that the store does: layout, digest, name. Each makes a new file. `hash` is the
digest alone, `rows` builds the table from one object a sample. `disk / raw` is our file over the raw float32.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import emit, figure, interleaved

from features.types import FeatureSequence
from pipeline.execute.task import write_file
from pipeline.store import DatasetStore
from pipeline.store.shard import Row, rows_to_table, write_shard
from pipeline.store.shard_file import file_digest

SHAPES = {
    "vectors 64 x 1,280": (64, 1, 1_280),
    "sequences 64 x 1,000 x 20": (64, 1_000, 20),
    "words 64 x 12 x 100": (64, 12, 100),
}


PLAIN: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}


def sample_rows(samples: int, length: int, dim: int) -> list[Row]:
    """Rows of one shard: seeded noise."""
    random = np.random.default_rng(0)
    starts = np.arange(length, dtype=np.int64) * 10_000_000
    return [
        Row(
            sample_id=f"clip-{i:06d}",
            split="train",
            label="day",
            content=random.bytes(16),
            recipe=bytes(16),
            sequence=FeatureSequence(
                values=random.standard_normal((length, dim), dtype=np.float32),
                start_ns=starts,
                end_ns=starts + 10_000_000,
            ),
        )
        for i in range(samples)
    ]


def measure(folder: str, shape: tuple[int, int, int], rounds: int) -> dict[str, Any]:
    """Medians of interleaved rounds for shards of one shape."""
    rows, metadata = sample_rows(*shape), {"feature": "f", "dim": shape[2]}
    table = rows_to_table(0, rows, metadata)
    store = DatasetStore(folder, "grain")
    fresh = itertools.count()

    def path() -> str:
        return store.path("plain", f"{next(fresh)}.parquet")

    store.fs.makedirs(store.path("plain"))
    content = pa.BufferOutputStream()
    write_shard(table, content)
    ours = content.getvalue()
    times = interleaved(
        {
            "rows ms": lambda: rows_to_table(0, rows, metadata),
            "plain ms": lambda: pq.write_table(table, path(), **PLAIN),
            "default ms": lambda: pq.write_table(table, path()),
            "layout ms": lambda: write_shard(table, path()),
            "hash ms": lambda: file_digest(ours),
            "file ms": lambda: write_file(store, "f", 0, table),
        },
        rounds,
    )
    default = store.path("default.parquet")
    pq.write_table(table, default)
    raw = shape[0] * shape[1] * shape[2] * 4
    return {
        **{name: value * 1e3 for name, value in times.items()},
        "layout / plain": times["layout ms"] / times["plain ms"],
        "file / layout": times["file ms"] / times["layout ms"],
        "disk / raw": ours.size / raw,
        "default / raw": store.fs.size(default) / raw,
    }


def main() -> None:
    """Measure every shape."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rounds")
    options = parser.parse_args()
    rows = []
    for name, shape in SHAPES.items():
        with tempfile.TemporaryDirectory(prefix="store-write-") as folder:
            rows.append({"shard": name, **measure(str(Path(folder)), shape, 5 if options.quick else 41)})
    measures = [
        figure(f"{row['shard']}: time / plain write_table of the layout", row["file / layout"], 1.2, at_most=True)
        for row in rows
    ]
    emit(rows, measures=measures)


if __name__ == "__main__":
    main()
