"""From WAV files to a published shard file of MFCCs: our shard work beside its kernel limit and others.

    uv run python benchmarks/audio.py [--quick] [--reading]

240 files of 3 s at 16 kHz. `limit`: reading (`read_audio`) and `audio.mfcc` in a bare loop, nothing written. `shards`:
`pipeline.execute.task.run_shard` on four shards of 60, digests of files and Parquet with it. `script`: a loop over
`soundfile.read`, `librosa.feature.mfcc` and one `pq.write_table`. `datasets`: the same function through Hugging Face
`Dataset.map` without workers, its Arrow file with it. One thread each. `warm` are CPU seconds of a process that has
done it once; `whole` is wall time of a fresh process, imports and compilation with it. Then reading alone, beside
`soundfile.read`, for three formats (`--reading`: only that).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np  # noqa: E402  # after the threads are set
from harness import emit, figure, in_fresh_process, interleaved, table  # noqa: E402

FILES, SECONDS, RATE = 240, 3, 16_000
Job = Callable[[], object]


def write_files(folder: Path) -> list[Path]:
    """Seeded noise bursts."""
    import soundfile

    rng = np.random.default_rng(0)
    paths = []
    for number in range(FILES):
        wave = 0.1 * rng.standard_normal(SECONDS * RATE) * np.repeat(rng.uniform(0, 1, 30), SECONDS * RATE // 30)
        paths.append(folder / f"{number:04d}.wav")
        soundfile.write(paths[-1], wave, RATE)
    return paths


def limit(paths: list[Path], out: Path) -> Job:
    """Reading and the kernel."""
    import torch

    from features.audio.mfcc import Mfcc
    from pipeline.media.audio import read_audio
    from pipeline.media.source import Source

    torch.set_num_threads(1)
    step, device = Mfcc(), "cpu"
    del out

    def run() -> None:
        for begin in range(0, len(paths), 16):
            step([read_audio(Source(str(path))) for path in paths[begin : begin + 16]], device)

    return run


def shards(paths: list[Path], out: Path) -> Job:
    """The shard work of a run."""
    import torch
    from shards import shard_work

    from features.audio.mfcc import Mfcc
    from pipeline.chain import Chain
    from pipeline.execute.task import run_shard

    torch.set_num_threads(1)
    chain = Chain("audio.mfcc", (), Mfcc())

    def run() -> None:
        for shard in range(4):
            part = {path.stem: {"audio": str(path)} for path in paths[shard * 60 : (shard + 1) * 60]}
            report = run_shard(shard_work(part, [chain], shard=shard, store=str(out)))
            if report.failures or report.computed != {"audio.mfcc": len(part)}:
                raise RuntimeError(f"{report.failures or report.computed}")

    return run


def _plain(path: str) -> Any:
    import librosa
    import soundfile

    wave, rate = soundfile.read(path, dtype="float32")
    return librosa.feature.mfcc(y=wave, sr=rate, n_fft=512, hop_length=160).T


def script(paths: list[Path], out: Path) -> Job:
    """What one writes first."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def run() -> None:
        rows = [_plain(str(path)).ravel() for path in paths]
        pq.write_table(pa.table({"file": [path.stem for path in paths], "mfcc": rows}), out / "plain.parquet")

    return run


def datasets(paths: list[Path], out: Path) -> Job:
    """Hugging Face datasets."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    turns = iter(range(10**6))

    def run() -> None:
        source = Dataset.from_dict({"path": [str(path) for path in paths]})
        source.map(
            lambda row: {"mfcc": _plain(row["path"])}, cache_file_name=str(out / f"{next(turns)}.arrow"),
            load_from_cache_file=False,
        )  # fmt: skip

    return run


JOBS: dict[str, Callable[[list[Path], Path], Job]] = {
    "limit": limit, "shards": shards, "script": script, "datasets": datasets,
}  # fmt: skip


def reading(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """`read_audio` beside `soundfile.read`."""
    import soundfile

    from pipeline.media.audio import read_audio
    from pipeline.media.source import Source

    rows = []
    for kind in ("wav", "flac", "mp3"):
        for seconds in (1, 10, 60):
            path = folder / f"{seconds}.{kind}"
            soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(seconds * RATE), RATE)
            source, files = Source(str(path)), max(1, 20 // seconds)
            times = interleaved(
                {
                    "soundfile": lambda path=path, files=files: [
                        soundfile.read(path, dtype="float32", always_2d=True) for _ in range(files)
                    ],
                    "ours": lambda source=source, files=files: [read_audio(source) for _ in range(files)],
                },
                rounds,
            )
            ours, theirs = times["ours"] / files, times["soundfile"] / files
            times = {"soundfile ms": 1e3 * theirs, "ours ms": 1e3 * ours, "speed": theirs / ours}
            rows.append({"file": path.name, "kind": kind, **times})
    return rows


def main() -> None:
    """Warm rates in this process, whole jobs in fresh ones, then reading alone."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--reading", action="store_true", help="only reading, beside soundfile")
    parser.add_argument("job", nargs="?", help="run one job once, in the folder that follows")
    parser.add_argument("folder", nargs="?", type=Path)
    options = parser.parse_args()
    if options.job:
        JOBS[options.job](sorted(options.folder.glob("*.wav")), options.folder / options.job)()
        print("{}")
        return
    rounds = 3 if options.quick else 11
    with tempfile.TemporaryDirectory(prefix="audio-") as name:
        folder = Path(name)
        if options.reading:
            emit(reading(folder, 11 if options.quick else 51))
            return
        paths = write_files(folder)
        for job in JOBS:
            (folder / job).mkdir()
        whole: dict[str, list[float]] = {job: [] for job in JOBS}
        for _ in range(1 if options.quick else 3):
            for job in JOBS:
                begun = time.perf_counter()
                in_fresh_process(__file__, job, folder)
                whole[job].append(time.perf_counter() - begun)
        works = {job: make(paths, folder / job) for job, make in JOBS.items()}
        for work in works.values():
            work()
        warm = interleaved(works, rounds)
        rows = [
            {
                "job": job,
                "warm s": warm[job],
                "files/s": FILES / warm[job],
                "of the limit": warm["limit"] / warm[job],
                "whole s": statistics.median(whole[job]),
            }
            for job in JOBS
        ]
        read = reading(folder, 11 if options.quick else 101)
    print(table(read))
    emit(rows, measures=measures(rows, read), reading=read)


def measures(rows: list[dict[str, Any]], read: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What has a target; of reading, the file of each kind at which it does worst."""
    by = {row["job"]: row for row in rows}
    ours = by["shards"]
    peer = min(by[job]["warm s"] for job in ("script", "datasets"))
    found = [
        figure("wav -> MFCC -> shard: share of the limit", ours["of the limit"], 0.9),
        figure("wav -> MFCC -> shard: speed / best of script and datasets.map", peer / ours["warm s"], 3.0),
        figure(f"whole job of {FILES} files: script's time / ours", by["script"]["whole s"] / ours["whole s"], 1.0),
    ]
    for kind in dict.fromkeys(row["kind"] for row in read):
        worst = min((row for row in read if row["kind"] == kind), key=lambda row: row["speed"])
        found.append(figure(f"reading {kind} / soundfile (worst: {worst['file']})", worst["speed"], 0.9))
    return found


if __name__ == "__main__":
    sys.exit(main())
