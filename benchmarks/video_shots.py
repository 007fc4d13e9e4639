"""Films with known cuts and fades, assembled from real shots: how well detectors find them, and how fast.

    python benchmarks/video_shots.py [--tuning] [--films 3] [--rounds 3]

Needs the group `peers` (PySceneDetect) and the real media beside the checkout. All detectors are at their
defaults, but for the shortest shot, which is 0.4 s for each. A detection counts when it lies in a change or within 2
frames of it, one for each change. Seconds are of reading the file and finding the shots, decoding included; medians of
interleaved rounds. PySceneDetect decodes in a thread of its own, ours in the one that looks: compare CPU seconds, for
a run has a worker on every core.

The shots lie beside the checkout (``../shared/data/video``); each was looked at frame by frame to be without a cut. The
sources are split: TUNING for choosing thresholds, JUDGING for figures; no film material is in both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from harness import emit, figure

from features.video.keyframes import KeyframeScores
from pipeline.media.source import Source
from pipeline.media.video import FrameChunk, decode

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "data" / "video"
WIDTH, HEIGHT, RATE = 640, 360, 25

TUNING = (
    ("trailer_bbb.mp4", 36, 212),
    ("trailer_bbb.mp4", 266, 310),
    ("trailer_bbb.mp4", 360, 590),
    ("trailer_bbb.mp4", 596, 742),
    ("trailer_bbb.mp4", 795, 862),
    ("trailer_bbb.mp4", 866, 898),
    ("trailer_bbb.mp4", 906, 985),
    ("trailer_bbb.mp4", 990, 1046),
    ("trailer_bbb.mp4", 1052, 1100),
    ("trailer_bbb.mp4", 1152, 1206),
)
JUDGING = (
    ("big_buck_bunny_0_30.webm", 285, 374),
    ("big_buck_bunny_0_30.webm", 553, 718),
    ("chaplin.mp4", 0, 241),
    ("nasa_13013.mp4", 0, 118),
    ("nasa_13013.mp4", 158, 200),
    ("nasa_13013.mp4", 205, 325),
    ("example.mp4", 0, 400),
    ("smpte-2997.mp4", 0, 251),
)


@dataclass(frozen=True)
class Change:
    """A shot change: frames ``first`` to ``last`` belong to neither shot alone; a cut has ``first == last``."""

    kind: str
    first: int
    last: int


def shots(sources: Sequence[tuple[str, int, int]]) -> list[np.ndarray]:
    """The frames of each source, RGB, at the height of the films."""
    found = []
    for name, first, stop in sources:
        with av.open(str(FOLDER / name)) as container:
            frames = []
            for index, frame in enumerate(container.decode(video=0)):
                if index >= stop:
                    break
                if index >= first:
                    frames.append(frame.to_ndarray(format="rgb24", width=WIDTH, height=HEIGHT))
            found.append(np.stack(frames))
    return found


def _piece(shot: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Some frames of a shot, cropped and perhaps mirrored."""
    length = int(min(rng.integers(30, 80), len(shot)))
    begin = int(rng.integers(0, len(shot) - length + 1))
    share = rng.uniform(0.75, 1)
    height, width = int(HEIGHT * share), int(WIDTH * share)
    top, left = int(rng.integers(0, HEIGHT - height + 1)), int(rng.integers(0, WIDTH - width + 1))
    frames = shot[begin : begin + length, top : top + height, left : left + width]
    if rng.random() < 0.5:
        frames = frames[:, :, ::-1]
    return np.stack([cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA) for frame in frames])


def assemble(found: Sequence[np.ndarray], count: int, seed: int) -> tuple[np.ndarray, list[Change]]:
    """A film of ``count`` shots: 60 % cuts, 25 % dissolves of 8 to 25 frames, 15 % fades through black."""
    rng = np.random.default_rng(seed)
    source = int(rng.integers(len(found)))
    film, changes, length = [_piece(found[source], rng)], [], 0
    length = len(film[0])
    for _ in range(count - 1):
        source = int((source + rng.integers(1, len(found))) % len(found))
        piece, draw = _piece(found[source], rng), rng.random()
        if draw < 0.6:
            changes.append(Change("cut", length, length))
        elif draw < 0.85:
            over = int(min(rng.integers(8, 26), len(film[-1]) // 2, len(piece) // 2))
            weight = ((np.arange(over) + 1) / (over + 1)).astype(np.float32)[:, None, None, None]
            mixed = film[-1][-over:] * (1 - weight) + piece[:over] * weight
            film[-1] = film[-1][:-over]
            changes.append(Change("dissolve", length - over, length))
            piece = np.concatenate([mixed.astype(np.uint8), piece[over:]])
            length -= over
        else:
            out, black, into = (int(value) for value in rng.integers((6, 2, 6), (18, 12, 18)))
            down = np.linspace(1, 0, out + 1, dtype=np.float32)[1:, None, None, None]
            film[-1] = np.concatenate([film[-1][:-out], (film[-1][-out:] * down).astype(np.uint8)])
            up = np.linspace(0, 1, into + 1, dtype=np.float32)[:-1, None, None, None]
            dark = np.zeros((black, HEIGHT, WIDTH, 3), np.uint8)
            piece = np.concatenate([dark, (piece[:into] * up).astype(np.uint8), piece[into:]])
            changes.append(Change("fade", length - out, length + black + into))
        film.append(piece)
        length += len(piece)
    return np.concatenate(film), changes


def write(path: Path, frames: np.ndarray, codec: str = "libx264") -> None:
    """Encode a film: H.264, CRF 23, a key frame at least every 10 s wherever the encoder likes."""
    with av.open(str(path), "w") as made:
        stream = made.add_stream(codec, rate=RATE, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))


def matches(found: Sequence[int], changes: Sequence[Change], slack: int = 2) -> list[bool]:
    """For each change whether a detection of its own lies in it, ``slack`` frames more on either side."""
    left, hits = sorted(found), []
    for change in changes:
        inside = [frame for frame in left if change.first - slack <= frame <= change.last + slack]
        hits.append(bool(inside))
        if inside:
            left.remove(inside[0])
    return hits


def f1(found: Sequence[int], changes: Sequence[Change]) -> tuple[int, int, int]:
    """Hits, false alarms and misses (their sums over films give F1)."""
    hits = sum(matches(found, changes))
    return hits, len(found) - hits, len(changes) - hits


def ours(path: Path) -> list[int]:
    """Frames that open a shot, by ``video.keyframes``."""
    step = KeyframeScores()
    sink = step.open("cpu")
    for event in decode(Source(str(path)), frames={"": step.request}):
        if isinstance(event, FrameChunk):
            sink.push(event.clip)
    starts = sink.finish().start_ns[1:]
    return [round(start * RATE / 1_000_000_000) for start in starts.tolist()]


def peers() -> dict[str, Callable[[Path], list[int]]]:
    """PySceneDetect's detectors, with its own fastest way to read a file (OpenCV)."""
    import scenedetect

    def finder(kind: type) -> Callable[[Path], list[int]]:
        def find(path: Path) -> list[int]:
            video = scenedetect.open_video(str(path))
            manager = scenedetect.SceneManager()
            manager.add_detector(kind(min_scene_len=RATE * 2 // 5))
            manager.detect_scenes(video)
            return [scene[0].frame_num for scene in manager.get_scene_list()[1:]]

        return find

    return {
        "PySceneDetect Content": finder(scenedetect.ContentDetector),
        "PySceneDetect Adaptive": finder(scenedetect.AdaptiveDetector),
    }


def decoding(path: Path) -> list[int]:
    """Nothing but decoding, by PyAV with one thread: what a detector cannot be faster than."""
    with av.open(str(path)) as container:
        for _ in container.decode(video=0):
            pass
    return []


def main() -> None:
    """Make the films, find the shots, and print F1 and speed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuning", action="store_true", help="judge on the films that thresholds were chosen on")
    parser.add_argument("--films", type=int, default=4)
    parser.add_argument("--shots", type=int, default=16, help="shots of each film")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    cv2.setNumThreads(1)
    works = {"video.keyframes": ours, **peers(), "decoding alone": decoding}
    walls: dict[str, list[float]] = {name: [] for name in works}
    cpus: dict[str, list[float]] = {name: [] for name in works}
    counts = {name: np.zeros(3, dtype=int) for name in works}
    kinds: dict[str, dict[str, list[bool]]] = {name: {} for name in works}
    frames = 0
    with tempfile.TemporaryDirectory() as folder:
        real = shots(TUNING if given.tuning else JUDGING)
        films: dict[Path, list[Change]] = {}
        for seed in range(given.films):
            path = Path(folder) / f"{seed}.mp4"
            film, changes = assemble(real, given.shots, seed)
            write(path, film)
            films[path] = changes
            frames += len(film)
        del real, film
        order = list(works)
        for turn in range(given.rounds):
            order.append(order.pop(0))
            for name in order:
                wall, cpu = time.perf_counter(), time.process_time()
                found = {path: works[name](path) for path in films}
                walls[name].append(time.perf_counter() - wall)
                cpus[name].append(time.process_time() - cpu)
                if turn == 0:
                    for path, changes in films.items():
                        counts[name] += f1(found[path], changes)
                        for change, hit in zip(changes, matches(found[path], changes), strict=True):
                            kinds[name].setdefault(change.kind, []).append(hit)
    rows = []
    for name in works:
        hits, false, missed = (int(value) for value in counts[name])
        wall, cpu = statistics.median(walls[name]), statistics.median(cpus[name])
        rows.append(
            {
                "detector": name,
                "F1": 2 * hits / max(1, 2 * hits + false + missed),
                "false": false,
                **{kind: f"{sum(found)}/{len(found)}" for kind, found in sorted(kinds[name].items())},
                "frames/s": round(frames / wall),
                "CPU ms a frame": 1000 * cpu / frames,
            }
        )
    best = max((row for row in rows if "PySceneDetect" in row["detector"]), key=lambda row: row["F1"])
    mine = rows[0]
    measures = [
        figure(f"F1 / best detector of PySceneDetect ({best['detector']})", mine["F1"] / best["F1"], 1.0),
        figure("speed / the same detector, CPU", best["CPU ms a frame"] / mine["CPU ms a frame"], 1.1),
        figure("speed / the same detector, wall", mine["frames/s"] / best["frames/s"], 1.1),
    ]
    emit(rows, measures=measures, frames=frames)


if __name__ == "__main__":
    main()
