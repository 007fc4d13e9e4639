"""From files to shards on workers, as a share of what the kernels alone do on as many cores in the same run.

    uv run python benchmarks/throughput.py [--quick] [--only images audio video] [--workers 1 2]

- *images*: JPEG of 500x375 -> ``image.cnn`` (EfficientNet-Lite0) -> shard. Kernels: read and ``cv2.imdecode``, scale to
  the network's input, forward in batches of 16.
- *sounds*: 16-bit wav at 16 kHz, of 1 and of 10 s -> ``audio.mfcc`` -> shard. Kernels: ``soundfile.read``, MFCC by 16.
- *video*: H.264 -> ``video.flow`` -> shard. Kernels: PyAV, scaling to the frames that flow looks at, DIS flow.

The limit of kernels that follow each other is 1 / (1/a + 1/b). They run in processes of their own, one for each worker,
with one thread and with the workers' environment; rounds of kernels and engine alternate. *wall* and *cpu* are the
engine's share of the limit by wall time, and by CPU seconds of all its processes (driver and scheduler too).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
from corpora import jpegs, videos, wavs
from harness import ROOT, emit, figure
from shards import shard_work

from features.audio.mfcc import Mfcc
from features.image.cnn import Cnn, model_input
from features.types import AudioClip, Image, Stream
from features.video.flow import Flow
from pipeline.catalog.models import Engine as Settings
from pipeline.chain import Chain
from pipeline.execute.cluster import ENVIRONMENT
from pipeline.execute.engine import open_engine
from pipeline.execute.task import run_shard
from pipeline.execute.work import ShardWork
from pipeline.extents import PICTURED
from pipeline.state import StateRef, with_weights

BATCH = 16


@dataclass(frozen=True)
class Job:
    """One kind of work: its media, how many units (images, seconds, frames) they hold, and the feature."""

    paths: list[str]
    units: float
    unit: str
    stream: Stream
    chain: Chain
    shard_samples: int


def job(kind: str, folder: Path, *, quick: bool) -> Job:
    """Write the media of ``kind`` (unless they are there) and describe the work."""
    if kind == "images":
        paths = jpegs(folder / kind, 128 if quick else 384)
        return Job(paths, len(paths), "images", "image", Chain("cnn", (), Cnn()), PICTURED)
    if kind.startswith("sounds"):
        seconds = int(kind.partition("-")[2])
        count = (512 if quick else 2048) if seconds == 1 else (64 if quick else 512)
        paths = wavs(folder / kind, count, seconds)
        shard_samples = count // 4 if seconds == 1 else PICTURED
        return Job(paths, count * seconds, "audio-seconds", "audio", Chain("mfcc", (), Mfcc()), shard_samples)
    paths, frames = videos(folder / kind, 2 if quick else 4)
    return Job(paths, frames, "frames", "video", Chain("flow", (), Flow()), shard_samples=1)


def pieces(work: Job, folder: Path) -> Iterator[ShardWork]:
    """The shards of a job."""
    state = StateRef(str(folder / "store"), "bench", str(folder))
    states = {work.chain.name: state} if work.stream == "image" else {}
    for shard, first in enumerate(range(0, len(work.paths), work.shard_samples)):
        samples: dict[str, dict[Stream, str]] = {
            path: {work.stream: path} for path in work.paths[first : first + work.shard_samples]
        }
        yield shard_work(samples, [work.chain], shard=shard, store=str(folder / "store"), states=states)


def read_pictures(paths: list[str]) -> list[Image]:
    """Decode with OpenCV alone."""
    import cv2
    import numpy as np

    found = []
    for path in paths:
        pixels = cv2.imdecode(np.frombuffer(Path(path).read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        found.append(Image(pixels=cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)))
    return found


def kernels(work: Job, folder: Path) -> dict[str, Callable[[], object]]:
    """What has to be computed in any case, each part by itself."""
    import torch

    batches = [work.paths[first : first + BATCH] for first in range(0, len(work.paths), BATCH)]
    if work.stream == "image":
        extractor: Any = with_weights(work.chain, StateRef(str(folder), "bench", str(folder))).extractor
        preset = extractor.options.preset()
        pixels = torch.from_numpy(model_input(read_pictures(batches[0]), preset))
        network = extractor.network("cpu")  # the forward pass alone

        def forward() -> None:
            with torch.inference_mode():
                for _ in batches:
                    network(pixels)

        return {
            "decode and resize": lambda: [model_input(read_pictures(batch), preset) for batch in batches],
            "forward": forward,
        }
    if work.stream == "audio":
        import soundfile

        samples, rate = soundfile.read(work.paths[0], dtype="float32")
        clips = [AudioClip(samples=samples[None], sample_rate=rate, start_ns=0)] * BATCH
        mfcc: Any = work.chain.extractor
        return {
            "decode": lambda: [soundfile.read(path, dtype="float32") for path in work.paths],
            "mfcc": lambda: [mfcc(clips, "cpu") for _ in batches],
        }
    return flow_kernels(work)


def flow_kernels(work: Job) -> dict[str, Callable[[], object]]:
    """PyAV and OpenCV alone, on the frames that the feature looks at."""
    import av
    import cv2

    assert isinstance(work.chain.extractor, Flow)
    options = work.chain.extractor
    kept: list[list[Any]] = []

    def decode() -> None:
        kept.clear()
        for path in work.paths:
            kept.append([])
            with av.open(path) as container:
                due = 0.0
                for frame in container.decode(video=0):
                    assert frame.time is not None
                    if frame.time >= due:
                        due += 1 / options.rate
                        height = options.short_side
                        width = 2 * round(frame.width * height / frame.height / 2)
                        small = frame.reformat(width, height, "gray", interpolation="AREA")
                        kept[-1].append(small.to_ndarray())

    def flow() -> None:
        method = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        for frames in kept:
            for before, after in itertools.pairwise(frames):
                method.calc(before, after, None)

    return {"decode and resize": decode, "flow": flow}


def serve_kernels(kind: str, folder: Path, *, quick: bool) -> None:
    """One round for each line of standard input; wall and CPU seconds of each kernel as a line of JSON."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    found = kernels(job(kind, folder, quick=quick), folder)
    for kernel in found.values():
        kernel()
    print("{}", flush=True)
    for _ in sys.stdin:
        took = {}
        for name, kernel in found.items():
            begun, cpu = time.perf_counter(), time.process_time()
            kernel()
            took[name] = (time.perf_counter() - begun, time.process_time() - cpu)
        print(json.dumps(took), flush=True)


class Kernels:
    """Processes that run the kernels at the same time, one for each worker."""

    def __init__(self, kind: str, folder: Path, count: int, opened: ExitStack, *, quick: bool) -> None:
        command = [sys.executable, __file__, "--kernels", kind, str(folder), *(["--quick"] if quick else [])]
        environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}
        self._processes = [
            opened.enter_context(
                subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
                )
            )
            for _ in range(count)
        ]
        for process in self._processes:
            opened.callback(process.stdin.close)  # type: ignore[union-attr]
            self._answer(process)

    @staticmethod
    def _answer(process: subprocess.Popen[str]) -> dict[str, tuple[float, float]]:
        assert process.stdout is not None
        found: dict[str, tuple[float, float]] = json.loads(process.stdout.readline())
        return found

    @property
    def pids(self) -> set[int]:
        """The processes."""
        return {process.pid for process in self._processes}

    def round(self) -> list[dict[str, tuple[float, float]]]:
        """One round of all; kernel -> wall and CPU seconds, for each process."""
        for process in self._processes:
            print("go", file=process.stdin)
        with ThreadPoolExecutor(len(self._processes)) as pool:
            return list(pool.map(self._answer, self._processes))


def cpu_seconds(but: set[int]) -> float:
    """CPU seconds of this process and those it started, but for the kernels."""
    me = psutil.Process()
    mine = [me, *(child for child in me.children(recursive=True) if child.pid not in but)]
    return sum(sum(process.cpu_times()[:2]) for process in mine)


@contextmanager
def engine_round(work: Job, folder: Path, workers: int) -> Iterator[Callable[[set[int]], tuple[float, float]]]:
    """A function that runs the whole job on warm workers and gives wall and CPU seconds."""
    with open_engine(Settings(workers=workers, device="cpu", memory=6 << 30), "cpu", folder) as engine:
        guarded = [replace(piece, guard=engine.guard) for piece in pieces(work, folder)]

        def once(but: set[int]) -> tuple[float, float]:
            cpu, begun = cpu_seconds(but), time.perf_counter()
            reports = list(engine.map(run_shard, guarded))
            took = time.perf_counter() - begun
            assert sum(report.computed[work.chain.name] for report in reports) == len(work.paths)
            return took, cpu_seconds(but) - cpu

        once(set())  # workers and children are up, models are loaded
        yield once


def measure(kind: str, folder: Path, workers: int, rounds: int, *, quick: bool) -> dict[str, Any]:
    """One row of the table: medians over alternating rounds."""
    work = job(kind, folder, quick=quick)
    walls: list[float] = []
    cpus: list[float] = []
    speeds: list[float] = []
    parts: dict[str, list[float]] = {}
    with ExitStack() as opened:
        once = opened.enter_context(engine_round(work, folder, workers))
        beside = Kernels(kind, folder, workers, opened, quick=quick)
        but = beside.pids
        for number in range(rounds):
            took = beside.round() if number % 2 else None
            wall, cpu = once(but)
            took = took or beside.round()
            # Each process did the whole job, so that all of them together did it ``workers`` times.
            speed = sum(1 / sum(part[0] for part in one.values()) for one in took)
            walls.append(1 / wall / speed)
            cpus.append(statistics.mean(sum(part[1] for part in one.values()) for one in took) / cpu)
            speeds.append(work.units / wall)
            for name in took[0]:
                parts.setdefault(name, []).append(sum(work.units / one[name][0] for one in took))
    return {
        "what": kind,
        "workers": workers,
        "unit": work.unit,
        "engine /s": statistics.median(speeds),
        "limit /s": statistics.median(speeds) / statistics.median(walls),
        "wall": statistics.median(walls),
        "cpu": statistics.median(cpus),
        "kernels /s": ", ".join(f"{name} {statistics.median(found):,.0f}" for name, found in parts.items()),
    }


KINDS = {"images": ["images"], "audio": ["sounds-1", "sounds-10"], "video": ["video"]}


def main() -> None:
    """Measure all kinds."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a quarter of the media, three rounds")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--workers", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--kernels", nargs=2)
    options = parser.parse_args()
    if options.kernels:
        serve_kernels(options.kernels[0], Path(options.kernels[1]), quick=options.quick)
        return
    with tempfile.TemporaryDirectory(prefix="throughput-") as name:
        kinds = [kind for only in options.only for kind in KINDS[only]]
        rounds = 3 if options.quick else 5
        rows = [
            measure(kind, Path(name), workers, rounds, quick=options.quick)
            for kind in kinds
            for workers in options.workers
        ]
    measures = [
        figure(f"{row['what']}, {row['workers']} workers: share of the kernels' speed, {by}", row[by], 0.9)
        for row in rows
        for by in ("wall", "cpu")
    ]
    emit(rows, measures=measures)


if __name__ == "__main__":
    sys.exit(main())
