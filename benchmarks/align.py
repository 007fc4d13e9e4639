"""Alignment against the published triple loop, and against one pass over the bytes.

    uv run python benchmarks/align.py [--quick] [--stage]

*loop* is the algorithm of CMU-MultimodalSDK's ``mmdataset.align`` (``mmsdk/mmdatasdk/dataset/dataset.py``), written
again without its files, progress bars and log: for every entry, every interval of the reference and every modality,
all rows of the modality are compared with the interval, those that intersect are copied, clipped, those of no length
dropped, and averaged by ``numpy.average`` (its tutorial's collapse function). *ours* is ``pool_batch`` on the rows of
all entries, as they come out of shards (overlap-weighted means, masks and coverage); *one by one* is ``pool``, called
for each entry and modality. *one pass* adds up every number, time and flag that has to be read, each once, with numpy.

The entries are those of CMU-MOSI: words of 0.1 to 0.5 s, COVAREP (74 numbers, 100 rows a second), FACET (47 numbers, 30
a second) and word vectors (300, one a word).

``--stage``: bytes a second of the whole stage (files read, aligned, written) in this process, and what it takes to
start workers: from these ``pipeline.align.WORTH_WORKERS`` is set.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from harness import emit, figure, interleaved, seconds

from features.align.pool import Batch, Timelines, pool, pool_batch
from features.types import FeatureSequence

EPSILON = 10e-6
RATES = {"covarep": (100, 74), "facet": (30, 47), "words": (0, 300)}
Entry = dict[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]


def entries(count: int, length: float) -> list[tuple[np.ndarray[Any, Any], Entry]]:
    """For each entry the intervals of its words, and by modality the intervals and numbers of its rows (seconds)."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        edges = np.cumsum(rng.uniform(0.1, 0.5, int(length / 0.3)))
        words = np.stack([np.append(0, edges[:-1]), edges], axis=1)
        parts: Entry = {}
        for name, (rate, dim) in RATES.items():
            starts = words[:, 0] if not rate else np.arange(round(edges[-1] * rate)) / rate
            ends = words[:, 1] if not rate else starts + 1 / rate
            parts[name] = np.stack([starts, ends], axis=1), rng.standard_normal((len(starts), dim)).astype(np.float32)
        found.append((words, parts))
    return found


def loop(data: list[tuple[np.ndarray[Any, Any], Entry]]) -> dict[str, dict[str, tuple[Any, Any]]]:
    """The published algorithm."""
    aligned: dict[str, dict[str, tuple[Any, Any]]] = {name: {} for name in RATES}
    for key, (reference, parts) in enumerate(data):
        for i in range(reference.shape[0]):
            interval = reference[i, :]
            if abs(interval[0] - interval[1]) < EPSILON:
                continue
            for name, (intervals, features) in parts.items():
                where, numbers = intersect_and_copy(interval, intervals, features)
                if where.shape[0] == 0:
                    continue
                whole = np.array([[where.min(), where.max()]])
                aligned[name][f"{key}[{i}]"] = whole, np.average(numbers, axis=0)[None, :]
    return aligned


def intersect_and_copy(reference: Any, intervals: Any, features: Any) -> tuple[Any, Any]:
    """The rows that share time with an interval, clipped to it."""
    turned = reference.copy()
    turned[1] = -turned[1]
    turned = turned[::-1]
    rows = intervals.copy()
    rows[:, 0] = -rows[:, 0]
    where = np.all((rows - turned) > (-EPSILON), axis=1)
    found = intervals[where, :]
    found = np.concatenate(
        [np.maximum(found[:, 0], reference[0])[:, None], np.minimum(found[:, 1], reference[1])[:, None]], axis=1
    )
    numbers = features[where, :]
    lasting = np.where(abs(found[:, 0] - found[:, 1]) > EPSILON)
    return found[lasting], numbers[lasting]


def to_ns(edges: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Starts and ends in nanoseconds."""
    rounded = np.floor(edges * 1e9 + 0.5).astype(np.int64)
    return np.ascontiguousarray(rounded[:, 0]), np.ascontiguousarray(rounded[:, 1])


def sequences(data: list[tuple[np.ndarray[Any, Any], Entry]]) -> dict[str, list[FeatureSequence]]:
    """The rows of each modality, one sequence an entry."""
    found: dict[str, list[FeatureSequence]] = {}
    for name in RATES:
        found[name] = []
        for _, parts in data:
            start, end = to_ns(parts[name][0])
            found[name].append(FeatureSequence(values=parts[name][1], start_ns=start, end_ns=end))
    return found


def one_pass(batches: dict[str, Batch], timelines: Timelines) -> float:
    """Read every byte once."""
    total = 0.0
    for batch in batches.values():
        total += float(batch.values.sum())
        total += float(batch.start_ns.sum()) + float(batch.end_ns.sum()) + float(batch.valid.view(np.uint8).sum())
    return total + float(timelines.start_ns.sum()) + float(timelines.end_ns.sum())


def measure(length: float, megabytes: float, rounds: int) -> dict[str, Any]:
    """One length of entry: CPU seconds of everything, and what follows from them."""
    rate = sum(4 * dim * (rows or 1 / 0.3) for rows, dim in RATES.values())
    count = max(2, round(megabytes * 1e6 / (rate * length)))
    data = entries(count, length)
    few = data[: max(1, round(60 / length))]
    parts, lines = sequences(data), [to_ns(words) for words, _ in data]
    batches = {name: Batch.of(found) for name, found in parts.items()}
    timelines = Timelines.of(lines)
    pooled = {name: pool_batch(batch, timelines, "mean") for name, batch in batches.items()}
    check(few, pooled, loop(few))

    def ours() -> None:
        for batch in batches.values():
            pool_batch(batch, timelines, "mean")

    def one_by_one() -> None:
        for found in parts.values():
            for sequence, line in zip(found, lines, strict=True):
                pool(sequence, *line, "mean")

    works = {"ours": ours, "single": one_by_one, "pass": lambda: one_pass(batches, timelines)}
    fast = interleaved(works, rounds)
    slow = interleaved({"loop": lambda: loop(few)}, max(3, rounds // 3))["loop"]
    intervals, in_few = len(timelines.start_ns), sum(len(words) for words, _ in few)
    size = sum(batch.values.nbytes + 17 * len(batch.start_ns) for batch in batches.values())
    return {
        "entry s": length,
        "entries": count,
        "MB": size / 1e6,
        "loop intervals/s": in_few / slow,
        "ours intervals/s": intervals / fast["ours"],
        "ours / loop": (intervals / fast["ours"]) / (in_few / slow),
        "one by one / loop": (intervals / fast["single"]) / (in_few / slow),
        "pass GB/s": size / fast["pass"] / 1e9,
        "share of one pass": fast["pass"] / fast["ours"],
    }


def check(few: list[tuple[np.ndarray[Any, Any], Entry]], pooled: dict[str, Any], expected: dict[str, Any]) -> None:
    """Both give the same means where rows lie wholly inside: words on words; elsewhere edges are weighted here only."""
    place = 0
    for key, (words, _) in enumerate(few):
        for i in range(len(words)):
            np.testing.assert_allclose(
                pooled["words"].values[place], expected["words"][f"{key}[{i}]"][1][0], rtol=1e-3, atol=1e-3
            )
            assert pooled["covarep"].valid[place] == (f"{key}[{i}]" in expected["covarep"])
            place += 1


def by_policy(megabytes: float, rounds: int) -> list[dict[str, Any]]:
    """Share of one pass of every policy, at 20 and at 74 numbers a row, windows of half a second."""
    from features.align.pool import POLICIES

    found = []
    for dim in (20, 74, 1280):
        count = round(megabytes * 1e6 / (4 * dim))
        start = np.arange(count, dtype=np.int64) * 10_000_000
        values = np.random.default_rng(0).standard_normal((count, dim)).astype(np.float32)
        splits = np.array([0, count])
        batch = Batch(
            values=values, start_ns=start, end_ns=start + 10_000_000, valid=np.ones(count, np.bool_), splits=splits
        )
        edges = np.arange(0, start[-1], 500_000_000, dtype=np.int64)
        timelines = Timelines(start_ns=edges, end_ns=edges + 500_000_000, splits=np.array([0, len(edges)]))
        works: dict[str, Any] = {"pass": lambda b=batch, t=timelines: one_pass({"": b}, t)}
        for policy in POLICIES:
            pool_batch(batch, timelines, policy)
            works[policy] = lambda b=batch, t=timelines, p=policy: pool_batch(b, t, p)
        spent = interleaved(works, rounds)
        found.append({"numbers a row": dim, **{policy: spent["pass"] / spent[policy] for policy in POLICIES}})
    return found


def stage(shards: int) -> dict[str, Any]:
    """The whole stage in this process: MB of rows read a second; and seconds until workers have answered."""
    from pathlib import PurePath

    from pipeline.align import AlignWork, align_shard
    from pipeline.align_rows import Setting
    from pipeline.catalog import Align
    from pipeline.catalog.models import Engine
    from pipeline.execute.engine import open_engine
    from pipeline.execute.task import write_file
    from pipeline.store import DatasetStore
    from pipeline.store.shard import Row, rows_to_table

    streams: dict[str, Any] = {"covarep": "audio", "facet": "video", "words": "text"}
    with tempfile.TemporaryDirectory(prefix="align-") as folder:
        store = DatasetStore(folder, "mosi")
        work = []
        setting = Setting(
            align=Align(rows_of="words"), dims={n: d for n, (_, d) in RATES.items()}, streams=streams, estimates={}
        )
        for shard in range(shards):
            parts = sequences(entries(64, 30.0))
            files = {}
            for name, found in parts.items():
                rows = [
                    Row(sample_id=f"{k:04}", split="train", label=None, content=b"0" * 16, recipe=b"1" * 16, sequence=s)
                    for k, s in enumerate(found)
                ]
                table = rows_to_table(shard, rows, {"feature": name, "dim": RATES[name][1]})
                files[name] = write_file(store, name, shard, table)
            ids = frozenset(f"{k:04}" for k in range(64))
            work.append(
                AlignWork(
                    store=folder,
                    dataset="mosi",
                    run_id="bench",
                    shard=shard,
                    roster=dict.fromkeys(ids, ("train", None)),
                    spans=dict.fromkeys(ids),
                    inputs=files,
                    setting=setting,
                    texts={},
                    given={},
                    recipes=dict.fromkeys(RATES, b"2" * 16),
                    contents=dict.fromkeys(RATES, dict.fromkeys(ids, b"3" * 16)),
                    compute=dict.fromkeys(RATES, ids),
                    keep=dict.fromkeys(RATES, frozenset()),
                    base=dict.fromkeys(RATES),
                )
            )
        align_shard(work[0])
        size = sum(file.size for piece in work for file in piece.inputs.values() if file is not None)
        alone = seconds(lambda: [align_shard(piece) for piece in work])
        begun = time.perf_counter()
        with open_engine(Engine(kind="dask", device="cpu"), "cpu", Path(PurePath(folder))) as engine:
            list(engine.map(align_shard, iter(work[:1])))
            started = time.perf_counter() - begun
            spread = seconds(lambda: list(engine.map(align_shard, iter(work))))
        closed = time.perf_counter() - begun - started - spread
    return {
        "shards": shards,
        "MB": size / 1e6,
        "alone s": alone,
        "alone MB/s": size / alone / 1e6,
        "workers start and stop s": started + closed,
        "on workers s": spread,
    }


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="little data, few rounds")
    parser.add_argument("--stage", action="store_true", help="the whole stage, alone and on workers")
    options = parser.parse_args()
    if options.stage:
        emit([stage(2 if options.quick else 12)])
        return
    megabytes, rounds = (20.0, 3) if options.quick else (200.0, 15)
    targets = {10.0: 50.0, 60.0: 150.0, 300.0: 500.0}
    rows = [measure(length, megabytes, rounds) for length in targets]
    measures = []
    for row in rows:
        length = row["entry s"]
        measures += [
            figure(f"entries of {length:g} s: share of one pass over the bytes", row["share of one pass"], 0.3),
            figure(f"entries of {length:g} s: speed / published loop", row["ours / loop"], targets[length]),
        ]
    emit(rows, measures=measures, share_of_one_pass_by_policy=by_policy(megabytes, rounds))


if __name__ == "__main__":
    main()
