"""What grows with a data set, and where the first limit lies: on the way to 10^7 samples and 1,000 workers.

    uv run python benchmarks/scale.py [--quick] [--only plan log feed busy]

The pictures of docs/scale.md are made from its result by `scale_pictures.py`.

Cheap work through the real code, each measurement in a process of its own:

- *plan*: a made table of samples (four files each, five features): the first plan, what a shard's specification costs
  the driver, and the plan of a later night, on a published store whose shard files are names in the log only.
- *log*: so many names of shard files through ``DatasetStore.commit``, without the check that opens them; then the
  snapshot is opened.
- *feed*: as many workers of one thread as asked for, in one other process and without work to do; specifications of 64
  samples and five features go to them by ``Cluster.map`` as fast as it can, reports come back.
- *busy*: the same, but every piece of work waits some seconds: the share of the time in which a worker has work.

All workers are in one process, on the cores of the driver: 300 are what two cores carry (of 1,000 none finished in a
quarter of an hour), so that more is for a real cluster.
"""

from __future__ import annotations

import argparse
import itertools
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from harness import ROOT, emit, figure, in_fresh_process, seconds, table
from plan import FEATURES, RECIPE, SHARD_SAMPLES

from features.audio.mfcc import Mfcc
from features.types import STREAMS
from pipeline.chain import Chain
from pipeline.execute.cluster import Cluster
from pipeline.execute.ledger import entry_name
from pipeline.execute.work import Guard, ShardReport, ShardWork
from pipeline.plan import Plan, Wanted, make_plan
from pipeline.scan.samples import SAMPLES_SCHEMA
from pipeline.store import DatasetStore, ShardFile
from pipeline.store.quarantine import to_table
from pipeline.store.snapshot import KEYS_SCHEMA
from pipeline.work import Place, shard_work

GOAL_SAMPLES = 10_000_000
GOAL_SHARDS = GOAL_SAMPLES // SHARD_SAMPLES


class Unchecked(DatasetStore):
    """A store whose shard files need not be there when they are published."""

    def check(self, files: Any) -> None:
        """Believe everything."""


# The plan


def sample_table(count: int) -> pa.Table:
    """What a scan finds: four files a sample, paths of 36 characters."""
    numbers = pc.utf8_lpad(pa.array(np.arange(count)).cast(pa.string()), 9, "0")

    def joined(before: str, after: str) -> pa.Array:
        return pc.binary_join_element_wise(before, numbers, after, "")

    columns: dict[str, Any] = {
        "sample_id": joined("clips/", ""),
        "split": pa.array(["train"]).take(pa.array(np.zeros(count, np.int64))),
        "label": pa.array(["day", "night"]).take(pa.array(np.arange(count) % 2)),
        "start_ns": pa.nulls(count, pa.int64()),
        "end_ns": pa.nulls(count, pa.int64()),
    }
    for stream in STREAMS:
        columns[f"{stream}_uri"] = joined(f"/data/recordings/{stream}/", f".{stream}")
        columns[f"{stream}_size"] = pa.array(np.arange(count) % 1_000 + 1_000)
        columns[f"{stream}_version"] = joined("17", "0000000")
    return pa.table(columns, schema=SAMPLES_SCHEMA)


def wanted(count: int) -> dict[str, Wanted]:
    """Five features of every sample."""
    chain, present = Chain("audio.mfcc", (), Mfcc()), np.ones(count, dtype=bool)
    content = np.random.default_rng(0).integers(0, 256, (count, 16), dtype=np.uint8)
    return {name: Wanted(chain, RECIPE, content, present) for name in FEATURES}


def path(feature: str, shard: int) -> str:
    """The name of a file that is not there."""
    return f"feature={feature}/shard-{shard:06d}-{shard:032x}-{0:08x}.parquet"


def names(shards: int) -> list[ShardFile]:
    """Shard files that are names only, one a feature and shard."""
    return [ShardFile(path(name, shard), 400_000, SHARD_SAMPLES) for name in FEATURES for shard in range(shards)]


def publish(store: DatasetStore, samples: pa.Table, files: Sequence[ShardFile], recipe: bytes) -> None:
    """Commit names of files."""
    info = {
        "run_id": "r",
        "created": "now",
        "samples": store.write_table("samples", samples),
        "quarantine": store.write_table("quarantine", to_table([])),
        "recipes": {name: {recipe.hex(): RECIPE} for name in FEATURES},
        "fitted": {},
        "dims": dict.fromkeys(FEATURES, 20),
    }
    store.commit(run_id="r", base=None, adds=files, removes=[], info=info)


def remember(store: DatasetStore, plan: Plan) -> None:
    """Write what the store remembers of the keys of its files, as if it had read them."""
    samples, count = plan.samples, len(plan.samples)
    zeros, shards = pa.array(np.zeros(count, np.int64)), samples["shard"].combine_chunks()
    for name, feature in plan.features.items():
        paths = pa.array([path(name, shard) for shard in range(int(pc.max(shards).as_py()) + 1)])
        raw = pa.py_buffer(feature.wanted.content)
        columns = {name: samples[name] for name in ("shard", "sample_id", "split", "label")} | {
            "file": pa.DictionaryArray.from_arrays(shards, paths),
            "content": pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), count, [None, raw]),
            "recipe": pa.array([feature.recipe_digest], pa.binary(16)).take(zeros),
        }
        store.write_cache(f"keys-{name}", pa.table(columns, schema=KEYS_SCHEMA))


def measure_plan(count: int, folder: str) -> dict[str, Any]:
    """The first plan of ``count`` samples and what follows from it; a published store is left in ``folder``."""
    samples, want = sample_table(count), wanted(count)
    marks = [time.perf_counter()]
    plan = make_plan(None, samples, want, shard_samples=SHARD_SAMPLES)
    marks.append(time.perf_counter())
    shards = plan.shards_to_write
    marks.append(time.perf_counter())
    peak = held()
    pieces = specifications(plan, shards)
    next(pieces)  # the samples are in order of their shards now
    begun, size = time.perf_counter(), 0
    few = list(itertools.islice(pieces, 500))
    for piece in few:
        entry_name(piece)
        size += len(pickle.dumps(piece))
    each = (time.perf_counter() - begun) / len(few)
    store = Unchecked(folder, "grain")
    remember(store, plan)
    publish(store, plan.samples, names(len(shards)), plan.features["audio.mfcc"].recipe_digest)
    return {
        "samples": count,
        "shards": len(shards),
        "first plan s": marks[1] - marks[0],
        "list of shards s": marks[2] - marks[1],
        "table MiB": samples.nbytes / 2**20,
        "peak MiB": peak,
        "ms a specification": each * 1e3,
        "KiB a specification": size / len(few) / 2**10,
    }


def specifications(plan: Plan, shards: dict[int, set[str]]) -> Iterator[ShardWork]:
    """The work of a plan."""
    place = Place(store="/store", dataset="grain", run_id="r")
    return shard_work(plan, shards, place, dict.fromkeys(FEATURES), "cpu")


def measure_night(count: int, folder: str) -> dict[str, Any]:
    """A plan in which nothing changed."""
    samples, want = sample_table(count), wanted(count)
    begun = time.perf_counter()
    base = Unchecked(folder, "grain").snapshot()
    opened = time.perf_counter()
    plan = make_plan(base, samples, want, shard_samples=SHARD_SAMPLES)
    assert plan.to_compute == 0
    assert not plan.shards_to_write
    done = time.perf_counter()
    return {"night: open s": opened - begun, "night: keys s": done - opened, "night: peak MiB": held()}


def held() -> float:
    """The most MiB that this process has held."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


# The log


def measure_log(count: int, folder: str) -> dict[str, Any]:
    """A commit of ``count`` names."""
    store, files = Unchecked(folder, "grain"), names(count // len(FEATURES))
    samples = pa.table({"sample_id": ["s"], "shard": pa.array([0], pa.int32())})
    took = seconds(lambda: publish(store, samples, files, bytes(16)))
    log = Path(store.path("_delta_log", f"{1:020d}.json")).stat().st_size
    return {"files": len(files), "commit s": took, "commit: peak MiB": held(), "log MiB": log / 2**20}


def measure_open(folder: str) -> dict[str, Any]:
    """Opening what is published."""
    store = Unchecked(folder, "grain")
    opened = seconds(store.snapshot)
    return {"open s": opened, "open: peak MiB": held()}


# The cluster


def nothing(work: ShardWork, wait: float) -> ShardReport:
    """Wait, and report as if a file of every feature had been written."""
    time.sleep(wait)
    return ShardReport(
        shard=work.shard,
        files=[ShardFile(path(name, work.shard), 400_000, SHARD_SAMPLES) for name in FEATURES],
        computed=dict.fromkeys(FEATURES, SHARD_SAMPLES),
        rows=dict.fromkeys(FEATURES, SHARD_SAMPLES),
    )


def fleet(address: str, count: int) -> None:
    """``count`` workers of one thread in this process, until it is ended."""
    import asyncio

    import dask
    from distributed import Worker

    async def serve() -> None:
        workers = [Worker(address, nthreads=1, memory_limit=0, dashboard=False, name=n) for n in range(count)]
        for begin in range(0, count, 50):
            await asyncio.gather(*workers[begin : begin + 50])
        await asyncio.gather(*(worker.finished() for worker in workers))

    quiet = {"distributed.worker.profile.enabled": False, "distributed.admin.system-monitor.interval": "60 s"}
    with tempfile.TemporaryDirectory(prefix="fleet-") as place, dask.config.set(quiet, temporary_directory=place):
        asyncio.run(serve())


def measure_feed(workers: int, shards: int, wait: float) -> dict[str, Any]:
    """``shards`` pieces that wait ``wait`` seconds through ``workers`` workers, by the engine's own ``map``."""
    import logging
    from functools import partial

    from distributed import Client, LocalCluster

    count = SHARD_SAMPLES * (shards + 4 * workers)
    plan = make_plan(None, sample_table(count), wanted(count), shard_samples=SHARD_SAMPLES)
    options: dict[str, Any] = {"n_workers": 0, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with LocalCluster(silence_logs=logging.CRITICAL, **options) as cluster, Client(cluster) as client:
        command = [sys.executable, __file__, "--fleet", cluster.scheduler_address, str(workers)]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            client.wait_for_workers(workers, timeout=300)
            guard = Guard(folder=str(ROOT), environment={}, sample_seconds=60, memory=1 << 30)
            engine = Cluster(client, workers, guard, decode_threads=0, resources={})
            pieces = specifications(plan, plan.shards_to_write)
            named = (piece for piece in pieces if entry_name(piece))
            list(engine.map(partial(nothing, wait=0.0), itertools.islice(named, 2 * workers)))
            most, cpu, begun = 0, time.process_time(), time.perf_counter()
            for done, _ in enumerate(engine.map(partial(nothing, wait=wait), itertools.islice(named, shards))):
                if done % 100 == 0:
                    most = max(most, len(cluster.scheduler.tasks))
            wall = time.perf_counter() - begun
            cpu = time.process_time() - cpu
        finally:
            process.kill()
            process.wait()
    return {
        "workers": workers,
        "seconds of a shard": wait,
        "shards": shards,
        "shards/s": shards / wall,
        "driver CPU ms a shard": cpu / shards * 1e3,
        "tasks held": most,
        "busy": shards * wait / wall / workers,
    }


# All of it


def planned(counts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Rows of *plan*."""
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="scale-") as folder:
            first = in_fresh_process(__file__, "--one", "plan", count, folder)
            yield first | in_fresh_process(__file__, "--one", "night", count, folder)


def logged(counts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Rows of *log*."""
    for count in counts:
        with tempfile.TemporaryDirectory(prefix="scale-") as folder:
            found = in_fresh_process(__file__, "--one", "log", count, folder)
            yield found | in_fresh_process(__file__, "--one", "open", count, folder)


def fed(cases: Sequence[tuple[int, int, float]]) -> Iterator[dict[str, Any]]:
    """Rows of *feed* and *busy*: workers, shards, seconds a shard."""
    for case in cases:
        yield in_fresh_process(__file__, "--feed", *case)


def measures(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Growth (1: in proportion), how many shards are fed, and how busy workers are kept; without targets."""
    growing = {"samples": ("first plan s", "night: keys s", "peak MiB"), "files": ("commit s", "open s", "log MiB")}
    listed = []
    for rows, by in ((found.get("plan", []), "samples"), (found.get("log", []), "files")):
        for name in growing[by] if len(rows) > 1 else ():
            few, many = rows[-2:]
            ratio = many[name] / few[name] / (many[by] / few[by])
            listed.append(figure(f"{name}: growth from {few[by]:,} to {many[by]:,} {by}", ratio, at_most=True))
    rows = found.get("feed", [])
    listed += [figure(f"shards a second to {row['workers']:,} workers", row["shards/s"]) for row in rows]
    for row in found.get("busy", []):
        what = f"{row['workers']:,} workers, {row['seconds of a shard']:g} s a shard: share of the time at work"
        listed.append(figure(what, row["busy"]))
    return listed


def main() -> None:
    """Measure everything, or one thing in this process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes")
    parser.add_argument("--only", nargs="+", choices=["plan", "log", "feed", "busy"])
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--feed", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--fleet", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fleet:
        fleet(options.fleet[0], int(options.fleet[1]))
    elif options.feed:
        print(json.dumps(measure_feed(int(options.feed[0]), int(options.feed[1]), float(options.feed[2]))))
    elif options.one:
        what, count, folder = options.one[0], int(options.one[1]), options.one[2]
        one = {"plan": measure_plan, "night": measure_night, "log": measure_log}
        print(json.dumps(one[what](count, folder) if what in one else measure_open(folder)))
    else:
        measure(options.only or ["plan", "log", "feed", "busy"], quick=options.quick)


def measure(only: Sequence[str], *, quick: bool) -> None:
    """All parts that are asked for."""
    parts = {
        "plan": lambda: planned((10_000, 30_000) if quick else (100_000, 300_000, 1_000_000)),
        "log": lambda: logged((1_000, 10_000) if quick else (1_000, 10_000, 100_000, GOAL_SHARDS * len(FEATURES))),
        "feed": lambda: fed([(10, 300, 0)] if quick else [(count, 1_500, 0) for count in (10, 100, 300)]),
        "busy": lambda: fed([(10, 40, 1)] if quick else [(100, 1_000, 5), (300, 1_200, 15)]),
    }
    found: dict[str, list[dict[str, Any]]] = {}
    for name in only:
        found[name] = []
        for row in parts[name]():
            found[name].append(row)
            print(table(found[name]), flush=True)
    emit([{"part": name, "rows": len(rows)} for name, rows in found.items()], measures=measures(found), found=found)


if __name__ == "__main__":
    main()
