"""The cost of a plan in which nothing changed, at 10^4, 10^5 and 10^6 samples of 5 features.

    uv run python benchmarks/plan.py [--quick]

Builds a published store of real shard files (64 samples each, as is the default) with tiny values, and times in a
fresh process what `gristmill plan` does after the listing of the media: opening the snapshot, finding the remembered
digests of 4 media files a sample, and comparing every key. `first` is a plan that finds no remembered keys and opens
every shard file; `plan` is that of any later night. `aligned` digests what alignment reads of each sample.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from harness import emit, figure, in_fresh_process

from features.types import STREAMS, Stream
from pipeline.align import contents
from pipeline.content import CACHE_SCHEMA, stream_digests, windowed
from pipeline.execute.task import write_file
from pipeline.keys import digest_json
from pipeline.plan import Status, Wanted, make_plan
from pipeline.scan.samples import SAMPLES_SCHEMA
from pipeline.store import DatasetStore, ShardFile
from pipeline.store.quarantine import to_table
from pipeline.store.shard import METADATA_KEY, ROW_SCHEMA

SHARD_SAMPLES = 64
FEATURES: dict[str, Stream] = {
    "audio.mfcc": "audio",
    "image.cnn": "image",
    "text.word2vec": "text",
    "video.flow": "video",
    "video.keyframes": "video",
}
RECIPE: dict[str, Any] = {"steps": [], "weights": None, "state": None}
DIM = 2
SCANNED = "scanned.arrow"


def sample_table(count: int) -> pa.Table:
    """What a scan finds: four files a sample."""
    numbers = [f"{i:09d}" for i in range(count)]
    columns: dict[str, Any] = {
        "sample_id": [f"clips/{number}" for number in numbers],
        "split": pa.array(np.array(["train", "validation", "test"])[np.arange(count) % 3]),
        "label": pa.array(np.array(["day", "night"])[np.arange(count) % 2]),
        "start_ns": pa.nulls(count, pa.int64()),
        "end_ns": pa.nulls(count, pa.int64()),
    }
    for stream in STREAMS:
        columns[f"{stream}_uri"] = [f"/data/clips/{stream}/{number}.{stream}" for number in numbers]
        columns[f"{stream}_size"] = pa.array(np.arange(count) + 1_000)
        columns[f"{stream}_version"] = [f"17{number}0000000" for number in numbers]
    return pa.table(columns, schema=SAMPLES_SCHEMA)


def digests(count: int, stream: Stream) -> pa.Array:
    """Digests of the files of one stream, the same in every process."""
    raw = np.random.default_rng(STREAMS.index(stream)).bytes(16 * count)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), count, [None, pa.py_buffer(raw)])


def build(folder: str, count: int) -> None:
    """A published store of ``count`` samples: shards, side tables, remembered digests of media."""
    store = DatasetStore(folder, "grain")
    samples = sample_table(count)
    store.fs.makedirs(store.root)
    with pa.OSFile(store.path(SCANNED), "wb") as sink, pa.ipc.new_file(sink, samples.schema) as writer:
        writer.write_table(samples)
    shards = pa.array((np.random.default_rng(0).permutation(count) // SHARD_SAMPLES).astype(np.int32))
    samples = samples.append_column(pa.field("shard", pa.int32(), nullable=False), shards)
    for stream in STREAMS:
        columns = [samples[f"{stream}_{name}"] for name in ("uri", "size", "version")]
        store.write_cache(f"content-{stream}", pa.table([*columns, digests(count, stream)], schema=CACHE_SCHEMA))
    files = [file for feature in FEATURES for file in _shards(store, feature, samples)]
    info = {
        "run_id": "built",
        "created": "now",
        "samples": store.write_table("samples", samples),
        "quarantine": store.write_table("quarantine", to_table([])),
        "recipes": {name: {digest_json(RECIPE).hex(): RECIPE} for name in FEATURES},
        "fitted": {},
        "dims": dict.fromkeys(FEATURES, DIM),
    }
    store.commit(run_id="built", base=None, adds=files, removes=[], info=info)


def _shards(store: DatasetStore, feature: str, samples: pa.Table) -> list[ShardFile]:
    metadata = {METADATA_KEY: json.dumps({"feature": feature, "dim": DIM}).encode()}
    count = len(samples)
    samples = samples.select(["shard", "split", "label", "sample_id"]).append_column(
        "content", digests(count, FEATURES[feature])
    )
    samples = samples.sort_by([("shard", "ascending"), ("sample_id", "ascending")]).combine_chunks()
    every = pa.array([digest_json(RECIPE)], pa.binary(16)).take(pa.array(np.zeros(count, np.int64)))

    def lists(flat: np.ndarray[Any, Any], each: int, name: str) -> pa.Array:
        offsets = pa.array(np.arange(0, len(flat) + 1, each, dtype=np.int32))
        return pa.ListArray.from_arrays(offsets, pa.array(flat), type=ROW_SCHEMA.field(name).type)

    whole = pa.table(
        {
            **{name: samples[name] for name in ("shard", "split", "label", "sample_id")},
            "view": pa.array(np.zeros(count, np.int16)),
            "content": samples["content"],
            "recipe": every,
            "length": pa.array(np.ones(count, np.int32)),
            "start_ns": lists(np.zeros(count, np.int64), 1, "start_ns"),
            "end_ns": lists(np.ones(count, np.int64), 1, "end_ns"),
            "valid": lists(np.ones(count, np.bool_), 1, "valid"),
            "values": lists(np.ones(count * DIM, np.float32), DIM, "values"),
        },
        schema=ROW_SCHEMA.with_metadata(metadata),
    )
    return [
        write_file(store, feature, start // SHARD_SAMPLES, whole.slice(start, SHARD_SAMPLES))
        for start in range(0, count, SHARD_SAMPLES)
    ]


def measure(folder: str, count: int) -> dict[str, Any]:
    """One plan in this process: seconds by part, and the largest resident size, MiB, before and after."""
    store = DatasetStore(folder, "grain")
    with pa.OSFile(store.path(SCANNED)) as source:
        samples = pa.ipc.open_file(source).read_all()
    before = _resident()
    marks = [time.perf_counter()]
    base = store.snapshot()
    marks.append(time.perf_counter())
    found = {
        stream: stream_digests(samples, stream, store.read_cache(f"content-{stream}", CACHE_SCHEMA))[0]
        for stream in STREAMS
    }
    marks.append(time.perf_counter())
    wanted = {
        name: Wanted(None, RECIPE, windowed(found[stream], samples), np.ones(count, dtype=bool))  # type: ignore[arg-type]
        for name, stream in FEATURES.items()
    }
    plan = make_plan(base, samples, wanted, shard_samples=SHARD_SAMPLES)
    assert plan.to_compute == 0
    assert not plan.shards_to_write
    assert all(feature.count(Status.UNCHANGED) == count for feature in plan.features.values())
    marks.append(time.perf_counter())
    resident = _resident()
    contents({name: (want.present, want.content, want.content) for name, want in wanted.items()})
    marks.append(time.perf_counter())
    parts = np.diff(marks).tolist()
    return {
        **dict(zip(("open", "digests", "keys", "aligned"), parts, strict=True)),
        "plan": sum(parts[:3]),
        "scanned": before,
        "resident": resident,
    }


def _resident() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    """Measure every size, or build or measure one when called by itself."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="10^4 and 3 * 10^4 samples only")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--build", nargs=2, metavar=("FOLDER", "SAMPLES"))
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "SAMPLES"))
    options = parser.parse_args()
    if options.build:
        build(options.build[0], int(options.build[1]))
        print("{}")
        return
    if options.measure:
        json.dump(measure(options.measure[0], int(options.measure[1])), sys.stdout)
        return
    rows = []
    for count in (10_000, 30_000) if options.quick else (10_000, 100_000, 1_000_000):
        with tempfile.TemporaryDirectory(prefix="plan-") as folder:
            in_fresh_process(__file__, "--build", folder, count)
            first = in_fresh_process(__file__, "--measure", folder, count)
            later = [in_fresh_process(__file__, "--measure", folder, count) for _ in range(options.rounds)]
            files = sum(1 for _ in Path(folder).glob("grain/feature=*/*.parquet"))
        row: dict[str, Any] = {"samples": count, "files": files, "first s": first["plan"]}
        for name in ("open", "digests", "keys", "plan", "aligned"):
            row[f"{name} s"] = statistics.median(result[name] for result in later)
        row["us a sample"] = row["plan s"] / count * 1e6
        row["scan MiB"] = int(statistics.median(result["scanned"] for result in later))
        row["peak MiB"] = max(result["resident"] for result in later)
        rows.append(row)
        print(row, file=sys.stderr)
    before, after = rows[-2:]
    growth = after["us a sample"] / before["us a sample"]
    what = f"{after['samples']:,} samples x {len(FEATURES)} features, unchanged"
    limits = (10.0, 1.0) if after["samples"] == 1_000_000 else (None, None)  # what the limits are about
    emit(
        rows,
        measures=[
            figure(f"{what}: s", after["plan s"], limits[0], at_most=True),
            figure(f"{what}: GB at most", after["peak MiB"] * 2**20 / 1e9, limits[1], at_most=True),
            figure(f"time a sample at {after['samples']:,} / at {before['samples']:,}", growth, 1.0, at_most=True),
        ],
        growth=[round(after["plan s"] / before["plan s"], 1) for before, after in pairwise(rows)],
    )


if __name__ == "__main__":
    main()
