"""Video: one decoding pass against many, speed against raw readers, memory by length, flow by method.

    python benchmarks/video.py passes|speed|memory|flow [--media ../shared/data/video/trailer_bbb.mp4]

``passes``: every video feature of one file alone, and all of them in one pass. ``speed``: frames a second of the
decoder beside PyAV and OpenCV by themselves. ``memory``: peak resident memory of one pass for keyframes and flow over
films of 1 to 60 minutes. ``flow``: end-point error on photographs warped by a known motion, what remains of the
difference between frames of real films (median of luma levels), and pairs of frames a second. All with one thread; CPU
seconds, the least of interleaved rounds, so that other work counts little.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import av
import cv2
import numpy as np
import torch
from harness import ROOT, emit, figure, in_fresh_process, table

from features.base import FrameRequest
from features.types import Device
from features.video.fields import Preset, estimator
from features.video.flow import Flow, FlowField
from features.video.keyframes import Keyframes, KeyframeScores
from features.video.temporal import Temporal
from pipeline import weights
from pipeline.media.source import Source
from pipeline.media.video import FrameChunk, decode

CPU: Device = "cpu"
MEDIA = ROOT.parent / "shared/data/video/trailer_bbb.mp4"


def least(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Least CPU seconds of each; every round runs all of them, each time beginning with another one."""
    found = dict.fromkeys(works, float("inf"))
    order = list(works)
    for _ in range(rounds):
        order.append(order.pop(0))
        for name in order:
            begun = time.process_time()
            works[name]()
            found[name] = min(found[name], time.process_time() - begun)
    return found


def extract(path: Path, steps: dict[str, Any]) -> int:
    """All of ``steps`` in one pass; returns the number of rows."""
    sinks = {name: step.select() if hasattr(step, "select") else step.open(CPU) for name, step in steps.items()}
    for event in decode(Source(str(path)), frames={name: step.request for name, step in steps.items()}):
        if isinstance(event, FrameChunk):
            sinks[event.key].push(event.clip)
    return sum(len(sink.finish()) for sink in sinks.values())


def passes(path: Path, rounds: int) -> None:
    """Each feature alone against all in one pass."""
    temporal = Temporal()
    steps = {
        "video.keyframes": KeyframeScores(),
        "keyframes as pictures": Keyframes(method="cluster"),
        "video.flow": Flow(),
        "video.flow_field": FlowField(),
        "video.temporal": temporal.with_state(weights.load(temporal.weights_ref, Path())),
    }
    works: dict[str, Callable[[], object]] = {"decoding alone": lambda: raw_pyav(path)}
    for name, step in steps.items():
        works[name] = lambda name=name, step=step: extract(path, {name: step})  # type: ignore[misc]
    works["all in one pass"] = lambda: extract(path, steps)
    found = least(works, rounds)
    alone = sum(found[name] for name in steps)
    decoding, together = found["decoding alone"], found["all in one pass"]
    rows = [{"what": name, "CPU s": seconds} for name, seconds in found.items()]
    rows.append({"what": "the sum of all alone", "CPU s": alone})
    slowest, others = max(found[name] for name in steps), len(steps) - 1
    over = (together - slowest - (alone - slowest - others * decoding)) / (others * decoding)
    what = f"{len(steps)} features in one pass: share of the others' decoding above the slowest alone"
    emit(
        rows,
        measures=[figure(what, over, 0.15, at_most=True)],
        one_pass_over_sum=round(together / alone, 3),
        decodes_saved=round((alone - together) / decoding, 2),
        decodes_that_can_be_saved=len(steps) - 1,
    )


def raw_pyav(path: Path, pixel_format: str | None = None) -> int:
    """PyAV by itself, one thread; to RGB or grey where asked."""
    count = 0
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        for frame in container.decode(video=0):
            count += 1
            if pixel_format is not None:
                frame.to_ndarray(format=pixel_format)
    return count


def raw_opencv(path: Path) -> int:
    """OpenCV by itself, one thread; it always makes BGR."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    count = 0
    while capture.read()[0]:
        count += 1
    return count


def frames(path: Path, **request: Any) -> int:
    """Our decoder, one thread, for one request."""
    events = decode(Source(str(path)), frames={"": FrameRequest(**request)})
    return sum(len(event.clip) for event in events if isinstance(event, FrameChunk))


def speed(path: Path, rounds: int) -> None:
    """Frames of the file for each CPU second."""
    works: dict[str, Callable[[], object]] = {
        "PyAV, decoding alone": lambda: raw_pyav(path),
        "PyAV, to RGB": lambda: raw_pyav(path, "rgb24"),
        "PyAV, to grey": lambda: raw_pyav(path, "gray"),
        "OpenCV, to BGR": lambda: raw_opencv(path),
        "RGB, whole size": lambda: frames(path),
        "RGB, short side 224": lambda: frames(path, short_side=224),
        "grey, whole size": lambda: frames(path, pixel_format="gray"),
        "grey, short side 144, 10 a second": lambda: frames(path, pixel_format="gray", short_side=144, rate=10.0),
        "key frames alone, short side 224": lambda: frames(path, short_side=224, keyframes_only=True),
    }
    count, found = raw_pyav(path), least(works, rounds)
    base = found["PyAV, decoding alone"]
    rows = [{"reader": name, "frames/s": round(count / s), "of PyAV": base / s} for name, s in found.items()]
    measures = [
        figure("RGB, whole size: speed / PyAV to RGB", found["PyAV, to RGB"] / found["RGB, whole size"]),
        figure("RGB, whole size: speed / OpenCV to BGR", found["OpenCV, to BGR"] / found["RGB, whole size"]),
        figure("grey, whole size: speed / PyAV to grey", found["PyAV, to grey"] / found["grey, whole size"]),
    ]
    emit(rows, measures=measures)


def long_film(path: Path, minutes: int) -> None:
    """A minute of moving noise with a cut every two seconds, as often as wanted."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder) / "a.mp4"
        with av.open(str(part), "w") as made:
            stream = made.add_stream("libx264", rate=25, options={"preset": "ultrafast", "bf": "0", "g": "50"})
            stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
            for k in range(1500):
                if k % 50 == 0:
                    canvas = rng.integers(0, 256, (12, 32, 3), dtype=np.uint8).repeat(16, axis=0).repeat(16, axis=1)
                frame = av.VideoFrame.from_ndarray(canvas[:180, k % 50 * 2 : k % 50 * 2 + 320].copy(), format="rgb24")
                frame.pts, frame.time_base = k, Fraction(1, 25)
                made.mux(stream.encode(frame))
            made.mux(stream.encode(None))
        with av.open(str(path), "w") as whole:
            target = None
            for turn in range(minutes):
                with av.open(str(part)) as given:
                    source = given.streams.video[0]
                    target = target or whole.add_stream_from_template(source)
                    minute = int(60 / source.time_base)
                    for packet in given.demux(source):
                        if packet.dts is None or packet.pts is None:
                            continue
                        packet.pts, packet.dts = packet.pts + turn * minute, packet.dts + turn * minute
                        packet.stream = target
                        whole.mux(packet)


def memory(minutes: tuple[int, ...]) -> None:
    """Peak resident memory of one pass, each length in a process of its own."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for length in minutes:
            path = Path(folder) / f"{length}.mp4"
            long_film(path, length)
            found = in_fresh_process(__file__, "one-memory", "--media", path)
            rows.append({"minutes": length, **found})
    emit(rows, growth=round(rows[-1]["peak MiB"] / rows[0]["peak MiB"], 3))


def one_memory(path: Path) -> None:
    """One length, as a JSON document."""
    steps = {"keyframes": KeyframeScores(max_keyframes=64), "flow": Flow(rate=2.0)}
    rows = extract(path, steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": rows, "peak MiB": round(peak, 1)}))


def warped(picture: np.ndarray, zoom: float, degrees: float, shift: tuple[float, float]) -> tuple[np.ndarray, ...]:
    """Two frames of 256x144 and the true motion between them; the edges come from the picture itself."""
    height, width, margin = 144, 256, 60
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1 + zoom)
    matrix[:, 2] += shift
    offset = np.array([margin, margin], dtype=float)
    outer = matrix.copy()
    outer[:, 2] += offset - matrix[:, :2] @ offset
    large = picture[40 : 40 + height + 2 * margin, 90 : 90 + width + 2 * margin]
    turned = cv2.warpAffine(large, outer, large.shape[::-1], flags=cv2.INTER_CUBIC)
    y, x = np.mgrid[0:height, 0:width].astype(float)
    inner = slice(margin, margin + height), slice(margin, margin + width)
    truth = np.stack([x, y, np.ones_like(x)], axis=-1) @ matrix.T - np.stack([x, y], axis=-1)
    return large[inner].copy(), turned[inner].copy(), truth


MOTIONS = {
    "shift 0.25 px": (0.0, 0.0, (0.25, -0.1)),
    "shift 3 px": (0.0, 0.0, (3.0, -1.0)),
    "shift 10 px": (0.0, 0.0, (10.0, 4.0)),
    "shift 20 px": (0.0, 0.0, (20.0, 0.0)),
    "zoom 3 %": (0.03, 0.0, (0.0, 0.0)),
    "turn 2 degrees": (0.0, 2.0, (0.0, 0.0)),
    "zoom, turn and shift": (0.02, -1.0, (5.0, -3.0)),
}


def residual(previous: np.ndarray, current: np.ndarray, field: np.ndarray) -> float:
    """Mean difference of luma levels between a frame and the next one, brought back by ``field``."""
    height, width = previous.shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    back = cv2.remap(current, x + field[..., 0], y + field[..., 1], cv2.INTER_LINEAR)
    return float(np.abs(back.astype(int) - previous)[8:-8, 8:-8].mean())


def film(path: Path, count: int = 90) -> list[np.ndarray]:
    """The first frames of a film, ten a second, as ``video.flow`` sees them."""
    request = FrameRequest(pixel_format="gray", short_side=144, rate=10.0)
    chunks = (
        event.clip.pixels for event in decode(Source(str(path)), frames={"": request}) if isinstance(event, FrameChunk)
    )
    return list(np.concatenate(list(chunks))[:count])


def flow(rounds: int, films: list[Path]) -> None:
    """End-point error in pixels, mean over two photographs, by motion; what remains on films; and speed of both."""
    from sklearn.datasets import load_sample_image

    pictures = [cv2.cvtColor(load_sample_image(name), cv2.COLOR_RGB2GRAY) for name in ("china.jpg", "flower.jpg")]
    pairs = {name: [warped(picture, *motion) for picture in pictures] for name, motion in MOTIONS.items()}
    methods: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
        "farneback": estimator("farneback", "fast"),
        "farneback, raw call": lambda a, b: cv2.calcOpticalFlowFarneback(a, b, None, 0.5, 4, 15, 3, 5, 1.1, 0),
    }
    raw_presets = {"ultrafast": 0, "fast": 1, "medium": 2}
    for preset in get_args(Preset):
        methods[f"dis {preset}"] = estimator("dis", preset)
        if preset in raw_presets:
            raw = cv2.DISOpticalFlow.create(raw_presets[preset])
            methods[f"dis {preset}, raw call"] = lambda a, b, raw=raw: raw.calc(a, b, None)  # type: ignore[misc]
    work = [pair for found in pairs.values() for pair in found]
    works = {name: (lambda m=method: [m(a, b) for a, b, _ in work]) for name, method in methods.items()}  # type: ignore[misc]
    found = least(works, rounds)
    frames = {path.name: film(path) for path in films}
    shown = [pair for each in frames.values() for pair in pairwise(each)]
    on_films = {
        name: (lambda m=method: [m(a, b) for a, b in shown])  # type: ignore[misc]
        for name, method in methods.items()
        if "raw" not in name
    }
    of_films = least(on_films, 2) if shown else {}
    rows, remains = [], []
    for name, method in methods.items():
        errors = {
            motion: float(np.mean([np.hypot(*np.moveaxis(method(a, b) - truth, -1, 0))[8:-8, 8:-8].mean()
                                   for a, b, truth in given]))
            for motion, given in pairs.items()
        }  # fmt: skip
        rows.append(
            {
                "method": name,
                **errors,
                "mean": float(np.mean(list(errors.values()))),
                "pairs/s": round(len(work) / found[name]),
                "times farneback": found["farneback"] / found[name],
            }
        )
        if name in of_films:
            left = {
                media: statistics.median(residual(a, b, method(a, b)) for a, b in pairwise(each))
                for media, each in frames.items()
            }
            speed_up = of_films["farneback"] / of_films[name]
            remains.append({"on films": name, **left, "times farneback": speed_up})
    by = {row["method"]: row for row in rows}
    measures = []
    for name, row in ((f"dis {preset}", by[f"dis {preset}"]) for preset in ("balanced", "ultrafast")):
        measures += [
            figure(f"{name}: speed / Farneback, photographs", row["times farneback"], 8.0),
            figure(
                f"{name}: mean end-point error / Farneback", row["mean"] / by["farneback"]["mean"], 1.0, at_most=True
            ),
        ]
    for row in remains:
        if row["on films"] == "dis balanced":
            worst = max(row[media] / remains[0][media] for media in frames)
            measures += [
                figure("dis balanced: speed / Farneback, films", row["times farneback"], 8.0),
                figure("dis balanced: what remains / Farneback, worst film", worst, 1.0, at_most=True),
            ]
    if remains:
        print(table(remains))
    emit(rows, films=remains, measures=measures)


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["passes", "speed", "memory", "flow", "one-memory"])
    parser.add_argument("--media", type=Path, default=MEDIA)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=int, nargs="+", default=[1, 10, 60])
    given = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    match given.what:
        case "passes":
            passes(given.media, given.rounds)
        case "speed":
            speed(given.media, given.rounds)
        case "memory":
            memory(tuple(given.minutes))
        case "flow":
            names = (given.media.name, "chaplin.mp4", "nasa_13013.mp4", "example.mp4")
            flow(given.rounds, [path for path in (given.media.parent / name for name in names) if path.exists()])
        case _:
            one_memory(given.media)


if __name__ == "__main__":
    main()
