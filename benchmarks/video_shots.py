"""Films with known cuts and fades, assembled from real shots, and how well detectors find them.

The shots lie beside the checkout (``../shared/data/video``); each was looked at frame by frame to be without a cut. The
sources are split: TUNING for choosing thresholds, JUDGING for figures; no film material is in both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

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
