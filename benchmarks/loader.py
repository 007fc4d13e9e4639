"""The loader against the limit (raw `np.memmap`) and against what others read the same rows with.

    uv run python benchmarks/loader.py [--quick] [--no-peers] [--share 0.25] [--cases "vectors,two aligned"]
    uv run --no-dev --group peers python benchmarks/loader.py       # beside WebDataset too

Every reader gives the same rows in batches of the same size as torch tensors; the sums of all numbers are compared
first. Medians of interleaved rounds over whole epochs, warm page cache, the allocator set as docs/loader.md advises:
wall and CPU seconds, and the memmap's over the reader's (`/ memmap`, higher is better; CPU counts all threads).
Peers that are not installed are left out and named. Some 0.6 GB a case in a temporary folder, which is removed.

The memmap of a case is a plain file of the same numbers: read in order for `unshuffled`, gathered by a permutation of
all rows for `shuffled`; for sequences one slice a sample, concatenated or laid into zeros. The loader shuffles within
its window (see `pipeline/loader/order.py`), the memmap over everything, as is natural to each.
"""

from __future__ import annotations

import argparse
import gc
import io
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads
import torch
from harness import emit, figure, table, with_allocator
from loader_data import CASES, Case, Data

from pipeline import open_store

Read = Callable[[], Iterable[torch.Tensor]]

# The limit


def memmap_vectors(data: Data, *, shuffled: bool) -> Iterator[torch.Tensor]:
    values = data.memmap("f")
    for chunk in data.chunks(shuffled=shuffled):
        yield torch.from_numpy(values[chunk] if shuffled else np.array(values[chunk[0] : chunk[-1] + 1]))


def memmap_packed(data: Data, *, shuffled: bool) -> Iterator[torch.Tensor]:
    values, first, length = data.memmap("f"), data.first, data.lengths
    for chunk in data.chunks(shuffled=shuffled):
        yield torch.from_numpy(np.concatenate([values[first[i] : first[i] + length[i]] for i in chunk]))


def memmap_padded(data: Data, *, shuffled: bool) -> Iterator[torch.Tensor]:
    values, first, length = data.memmap("f"), data.first, data.lengths
    for chunk in data.chunks(shuffled=shuffled):
        padded = np.zeros((len(chunk), length[chunk].max(), values.shape[1]), dtype=np.float32)
        mask = np.zeros(padded.shape[:2], dtype=np.bool_)
        for place, i in enumerate(chunk):
            padded[place, : length[i]] = values[first[i] : first[i] + length[i]]
            mask[place, : length[i]] = True
        torch.from_numpy(mask)
        yield torch.from_numpy(padded)


def memmap_two(data: Data, *, shuffled: bool) -> Iterator[torch.Tensor]:
    rows = data.case.lengths[0]
    both = [data.memmap(name).reshape(-1, rows * dim) for name, dim in data.case.features.items()]
    for chunk in data.chunks(shuffled=shuffled):
        # both are there at one time, as a trainer needs them
        yield from [
            torch.from_numpy(values[chunk] if shuffled else np.array(values[chunk[0] : chunk[-1] + 1]))
            for values in both
        ]


# The loader


def loader(data: Data, *, shuffled: bool, layout: str = "pad", opened: dict[str, Any]) -> Iterator[torch.Tensor]:
    if "samples" not in opened:
        opened["samples"] = open_store(data.folder, "grain").samples(aligned=data.case.aligned)
        assert set(opened["samples"].mapped.values()) == {1.0}
    batches = opened["samples"].batches(data.case.batch, shuffle="window" if shuffled else "none", layout=layout)
    for batch in batches:
        yield from batch["values"].values()


# Peers


def pyarrow_dataset(data: Data) -> Iterator[torch.Tensor]:
    found = pads.dataset(data.shards("f"), format="parquet", partitioning=None)
    for batch in found.to_batches(columns=["sample_id", "length", "values"], batch_size=data.case.batch):
        yield torch.from_numpy(batch["values"].flatten().to_numpy().copy())


def hf_datasets(data: Data, opened: dict[str, Any], *, shuffled: bool) -> Iterator[torch.Tensor]:
    """Arrow tables mapped from disk, flat lists as numpy arrays."""
    if "hf" not in opened:
        from datasets import Dataset, disable_progress_bars

        disable_progress_bars()
        cache = str(data.folder / "hf")
        opened["hf"] = Dataset.from_parquet(data.shards("f"), columns=["sample_id", "values"], cache_dir=cache)
    found = opened["hf"].with_format("numpy", columns=["values"])
    for chunk in data.chunks(shuffled=shuffled):
        values = found[chunk if shuffled else slice(int(chunk[0]), int(chunk[-1]) + 1)]["values"]
        joined = np.concatenate(list(values)) if values.dtype == object or values.ndim > 1 else values
        yield torch.from_numpy(joined)


def web_dataset(data: Data) -> Iterator[torch.Tensor]:
    """Tar shards of .npy members."""
    import webdataset as wds

    folder = data.folder / "wds"
    if not folder.exists():
        folder.mkdir()
        values, each = data.memmap("f"), 2_000
        for shard, begin in enumerate(range(0, data.case.samples, each)):
            with tarfile.open(folder / f"{shard:05d}.tar", "w") as tar:
                for i in range(begin, min(begin + each, data.case.samples)):
                    content = io.BytesIO()
                    np.save(content, values[data.first[i] : data.first[i] + data.lengths[i]])
                    member = tarfile.TarInfo(f"s{i:08d}.npy")
                    member.size = content.tell()
                    content.seek(0)
                    tar.addfile(member, content)
    urls = sorted(str(path) for path in folder.iterdir())
    join = partial(
        wds.batched, batchsize=data.case.batch, collation_fn=lambda rows: np.concatenate([r[0] for r in rows])
    )
    for batch in wds.DataPipeline(
        wds.SimpleShardList(urls), wds.tarfile_to_samples(), wds.decode(), wds.to_tuple("npy"), join()
    ):
        yield torch.from_numpy(batch)


def readers(data: Data) -> dict[str, tuple[str, Read]]:
    """Reader -> (what it is compared with, how it reads)."""
    case, opened = data.case, dict[str, Any]()
    made: dict[str, tuple[str, Read]] = {}
    if len(case.features) > 1:
        made["memmap gather x 2"] = ("", partial(memmap_two, data, shuffled=True))
        made["loader shuffled"] = ("memmap gather x 2", partial(loader, data, shuffled=True, opened=opened))
        return made
    if case.lengths[0] != case.lengths[1]:
        for layout, limit in (("pack", memmap_packed), ("pad", memmap_padded)):
            for shuffled, how in ((False, "unshuffled"), (True, "shuffled")):
                name = f"memmap {layout} {how}"
                made[name] = ("", partial(limit, data, shuffled=shuffled))
                made[f"loader {layout} {how}"] = (
                    name,
                    partial(loader, data, shuffled=shuffled, layout=layout, opened=opened),
                )
        first = "memmap pack unshuffled"
    else:
        made["memmap sequential"] = ("", partial(memmap_vectors, data, shuffled=False))
        made["memmap gather"] = ("", partial(memmap_vectors, data, shuffled=True))
        made["loader unshuffled"] = ("memmap sequential", partial(loader, data, shuffled=False, opened=opened))
        made["loader shuffled"] = ("memmap gather", partial(loader, data, shuffled=True, opened=opened))
        first = "memmap sequential"
    if case.peers:
        made["pyarrow dataset unshuffled"] = (first, partial(pyarrow_dataset, data))
        if installed("datasets"):
            for shuffled, how in ((False, "unshuffled"), (True, "shuffled")):
                limit_name = first if not shuffled else "memmap pack shuffled" if "pack" in first else "memmap gather"
                made[f"HF datasets {how}"] = (limit_name, partial(hf_datasets, data, opened, shuffled=shuffled))
        if installed("webdataset"):
            made["WebDataset unshuffled"] = (first, partial(web_dataset, data))
    return made


def installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def epoch(read: Read) -> tuple[float, float]:
    """Wall and CPU seconds of one epoch."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in read():
        pass
    return time.perf_counter() - wall, time.process_time() - cpu


def check(data: Data, made: dict[str, tuple[str, Read]]) -> None:
    """Every reader gives the same numbers; this also warms the page cache."""
    wanted = sum(float(data.memmap(name).sum(dtype=np.float64)) for name in data.case.features)
    for name, (_, read) in made.items():
        got = sum(float(values.double().sum()) for values in read())
        if not np.isclose(got, wanted, rtol=1e-6, atol=1e-3):
            raise AssertionError(f"{name}: got sum {got}, allowed: {wanted}")


def measure(case: Case, rounds: int) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="bench-loader-") as place:
        data = Data(case, Path(place))
        begun = time.perf_counter()
        open_store(place, "grain").samples(aligned=case.aligned)
        opening = time.perf_counter() - begun
        begun = time.perf_counter()
        open_store(place, "grain").samples(aligned=case.aligned)
        again = time.perf_counter() - begun
        made = readers(data)
        check(data, made)
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
        order = list(made)
        for _ in range(rounds):
            order.append(order.pop(0))
            for name in order:
                times[name].append(epoch(made[name][1]))
        medians = {
            name: [statistics.median(part) for part in zip(*found, strict=True)] for name, found in times.items()
        }
        size = sum(data.plain(name).stat().st_size for name in case.features) / 1e6
        rows = [
            {
                "case": case.name,
                "reader": name,
                "wall s": wall,
                "CPU s": cpu,
                "MB/s": size / wall,
                "wall / memmap": medians[limit][0] / wall if limit else 1.0,
                "CPU / memmap": medians[limit][1] / cpu if limit else 1.0,
            }
            for name, (wall, cpu) in medians.items()
            for limit in [made[name][0]]
        ]
        print(f"{case.name}: {size:,.0f} MB; opening took {opening:.2f} s, opening again {again:.2f} s", flush=True)
    return rows


TARGETS = {
    ("vectors", "loader unshuffled"): 0.6,
    ("vectors", "loader shuffled"): 0.7,
    ("vectors, shards of 64", "loader unshuffled"): 0.6,
    ("vectors, shards of 64", "loader shuffled"): 0.7,
    ("sequences", "loader pack unshuffled"): 0.6,
    ("sequences", "loader pack shuffled"): 0.6,
    ("sequences", "loader pad unshuffled"): 0.75,
    ("sequences", "loader pad shuffled"): 0.75,
    ("two aligned", "loader shuffled"): 1.0,
    ("two aligned, narrow", "loader shuffled"): 1.0,
}
"""The memmap's seconds over the loader's, at least."""


def measures(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What has a target, by wall and by CPU seconds."""
    by = {(row["case"], row["reader"]): row for row in rows}
    for key, target in TARGETS.items():
        if key in by:
            name = f"{key[0]}: {key[1].removeprefix('loader ')} / memmap"
            yield figure(f"{name}, wall", by[key]["wall / memmap"], target)
            yield figure(f"{name}, CPU", by[key]["CPU / memmap"], target)
    peer, ours = by.get(("vectors", "pyarrow dataset unshuffled")), by.get(("vectors", "loader shuffled"))
    if peer is not None and ours is not None:
        yield figure("vectors: shuffled / pyarrow unshuffled, wall", peer["wall s"] / ours["wall s"], 3.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rounds, a tenth of the data")
    parser.add_argument(
        "--cases", default="", help="only these, separated by commas: " + "; ".join(c.name for c in CASES)
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--share", type=float, default=1.0, help="of the samples of each case")
    parser.add_argument("--no-peers", action="store_true", help="the limit and the loader alone")
    options = parser.parse_args()
    with_allocator()
    torch.set_num_threads(1)
    missing = [name for name in ("datasets", "webdataset") if not installed(name)]
    rows: list[dict[str, Any]] = []
    for case in CASES:
        if options.cases and case.name not in options.cases.split(","):
            continue
        share = options.share / 10 if options.quick else options.share
        case = replace(case, samples=int(case.samples * share), peers=case.peers and not options.no_peers)
        rows += measure(case, 3 if options.quick else options.rounds)
        print(table(rows), flush=True)
    emit(rows, measures=list(measures(rows)), missing=", ".join(missing) or "none")


if __name__ == "__main__":
    main()
