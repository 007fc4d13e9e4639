"""Shots of a video and one picture of each: selection in a single pass, with a few frames of look-ahead.

A shot change is found by the adaptive rule known from PySceneDetect's ``AdaptiveDetector``: the difference of
successive thumbnails must stand out from the differences around it, so that pans and fast action are no cuts. Beyond
that rule, the pictures on both sides of a cut must differ from each other over two frames, so that a flash, a dropped
frame or a repeated one is none, and repeated frames do not count as calm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from features.base import FrameRequest, run_video
from features.errors import Reason, SampleError
from features.time import NS_PER_SECOND, Span, seconds_to_ns
from features.types import FeatureSequence, Image, Stream, VideoClip

if TYPE_CHECKING:
    import torch

Method: TypeAlias = Literal["content", "uniform"]

_WINDOW = 4
_REPEATED = 0.002
_BLACK = 0.06
_THUMBNAIL = 32


@dataclass(frozen=True, kw_only=True)
class _Selection:
    """The options that both steps share; see ``Keyframes``."""

    stream: ClassVar[Stream] = "video"
    numerics: ClassVar[tuple[str, ...]] = ("opencv-python",)

    method: Method = "content"
    threshold: float = 3.0
    min_change: float = 0.08
    min_gap: float = 0.4
    interval: float = 2.0
    max_keyframes: int | None = None
    short_side: int = 224

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            allowed = ", ".join(map(repr, get_args(Method)))
            raise ValueError(f"video.keyframes: method: got {self.method!r}, allowed: {allowed}")
        if not (self.threshold >= 1 and math.isfinite(self.threshold)):
            raise ValueError(f"video.keyframes: threshold: got {self.threshold}, allowed: >= 1 and finite")
        if not 0 < self.min_change < 1:
            raise ValueError(f"video.keyframes: min_change: got {self.min_change}, allowed: between 0 and 1")
        if not (self.min_gap >= 0 and math.isfinite(self.min_gap)):
            raise ValueError(f"video.keyframes: min_gap: got {self.min_gap}, allowed: >= 0 and finite")
        if not (math.isfinite(self.interval) and seconds_to_ns(self.interval) > 0):
            raise ValueError(f"video.keyframes: interval: got {self.interval}, allowed: > 0 and finite")
        if self.max_keyframes is not None and self.max_keyframes < 1:
            raise ValueError(f"video.keyframes: max_keyframes: got {self.max_keyframes}, allowed: >= 1, or none")
        if self.short_side < 1:
            raise ValueError(f"video.keyframes: short_side: got {self.short_side}, allowed: >= 1")

    @property
    def request(self) -> FrameRequest:
        """Every frame, in colour, small."""
        return FrameRequest(pixel_format="rgb24", short_side=self.short_side)


@dataclass(eq=False, kw_only=True, slots=True)
class _Frame:
    """One frame and what is measured of it. ``lags``: differences from the frames 1, 2 and 3 before (0 to 1)."""

    pixels: npt.NDArray[np.uint8]
    start_ns: int
    end_ns: int
    thumbnail: npt.NDArray[np.uint8]
    luma: float
    sharpness: float
    lags: tuple[float, ...]
    owned: bool = False

    @property
    def quality(self) -> tuple[bool, float]:
        """Larger is a better picture of its shot: not black first, then sharp."""
        return (self.luma >= _BLACK, self.sharpness)

    def own(self) -> None:
        """Let go of the chunk that the frame came in."""
        if not self.owned:
            self.pixels, self.owned = self.pixels.copy(), True


@dataclass(eq=False, kw_only=True, slots=True)
class Shot:
    """A run of frames ``[start_ns, end_ns)``, how much the picture changed where it begins, and its keyframe."""

    change: float
    start_ns: int
    end_ns: int
    keyframe: _Frame = field(repr=False)


def _halved(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Half the size, by averages of 2 x 2; an odd last row or column is left out."""
    import cv2

    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    return np.asarray(cv2.resize(pixels[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA))


def _measure(pixels: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint8], float, float]:
    """Thumbnail, mean luma (0 to 1) and sharpness: log(1 + variance of the Laplacian), at half size against noise."""
    import cv2

    half = _halved(pixels) if min(pixels.shape[:2]) >= 2 else pixels
    luma = cv2.cvtColor(half, cv2.COLOR_RGB2GRAY)
    _, deviation = cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_16S))
    thumbnail = half
    while min(thumbnail.shape[:2]) >= 2 * _THUMBNAIL:
        thumbnail = _halved(thumbnail)
    return thumbnail, cv2.mean(luma)[0] / 255, math.log1p(float(deviation[0, 0]) ** 2)


def _difference(one: npt.NDArray[np.uint8], other: npt.NDArray[np.uint8]) -> float:
    """Mean absolute difference of two thumbnails, 0 to 1. The sum is of integers, so it is exact."""
    import cv2

    return float(cv2.norm(one, other, cv2.NORM_L1)) / (255 * one.size)


class ShotFinder:
    """Finds the shots of one video, chunk by chunk: how the frames are cut into chunks changes nothing.

    Memory: one picture for each shot (at most ``max_keyframes``) and about ten frames more.
    """

    def __init__(self, options: _Selection) -> None:
        self._options = options
        self._interval_ns = seconds_to_ns(options.interval)
        self._min_gap_ns = seconds_to_ns(options.min_gap)
        self._frames: list[_Frame] = []
        self._placed = 0
        self._shots: list[Shot] = []
        self._last_cut_ns = 0
        self._cell = 0

    def push(self, clip: VideoClip) -> None:
        """Take the next frames. Raises ``ValueError`` for luma, and ``SampleError`` when time or size jumps."""
        if clip.pixels.ndim != 4:
            raise ValueError(
                f"video.keyframes: got frames {list(clip.pixels.shape[1:])}, allowed: RGB [H, W, 3]; "
                "cure: decode with pixel_format='rgb24'"
            )
        for pixels, start, end in zip(clip.pixels, clip.start_ns.tolist(), clip.end_ns.tolist(), strict=True):
            self._frames.append(self._frame(pixels, start, end))
            if len(self._frames) - self._placed > _WINDOW:
                self._place()
        for frame in (*self._frames, *(shot.keyframe for shot in self._shots)):
            frame.own()

    def finish(self) -> list[Shot]:
        """Return the shots of the video, in order of time."""
        while self._placed < len(self._frames):
            self._place()
        return self._shots

    def _frame(self, pixels: npt.NDArray[np.uint8], start_ns: int, end_ns: int) -> _Frame:
        thumbnail, luma, sharpness = _measure(pixels)
        if self._frames:
            last = self._frames[-1]
            if start_ns < last.end_ns:
                raise SampleError(
                    Reason.BAD_TIMESTAMPS,
                    f"video.keyframes: got a frame at {start_ns} ns, allowed: not before {last.end_ns} ns, "
                    "where the one it follows ends",
                )
            if pixels.shape != last.pixels.shape:
                raise ValueError(
                    f"video.keyframes: got frames {list(last.pixels.shape)} and {list(pixels.shape)}, allowed: one size"
                )
        before = self._frames[:-4:-1]
        lags = tuple(_difference(thumbnail, frame.thumbnail) for frame in before)
        return _Frame(
            pixels=pixels,
            start_ns=start_ns,
            end_ns=end_ns,
            thumbnail=thumbnail,
            luma=luma,
            sharpness=sharpness,
            lags=lags,
        )

    def _place(self) -> None:
        """Decide on the oldest frame that is not in a shot yet."""
        index = self._placed
        frame = self._frames[index]
        change = self._change(index)
        if not self._shots or self._opens(frame, index, change):
            self._shots.append(Shot(change=change, start_ns=frame.start_ns, end_ns=frame.end_ns, keyframe=frame))
            self._last_cut_ns = frame.start_ns
            self._limit()
        else:
            self._extend(self._shots[-1], frame.end_ns, frame)
        self._placed += 1
        if self._placed > _WINDOW:
            del self._frames[0]
            self._placed -= 1

    def _change(self, index: int) -> float:
        """How much the two frames from ``index`` on differ from the two before: the least of the four differences."""
        pairs = [self._frames[index].lags[:2]]
        if index + 1 < len(self._frames):
            pairs.append(self._frames[index + 1].lags[1:3])
        return min((lag for pair in pairs for lag in pair), default=0.0)

    def _opens(self, frame: _Frame, index: int, change: float) -> bool:
        if self._options.method == "uniform":
            cell = (frame.start_ns - self._shots[0].start_ns) // self._interval_ns
            opens, self._cell = cell > self._cell, cell
            return opens
        if frame.start_ns - self._last_cut_ns < self._min_gap_ns or change < self._options.min_change:
            return False
        around = self._frames[max(0, index - _WINDOW) : index] + self._frames[index + 1 : index + 1 + _WINDOW]
        moving = [near.lags[0] for near in around if near.lags and near.lags[0] > _REPEATED]
        return not moving or change >= self._options.threshold * (sum(moving) / len(moving))

    def _extend(self, shot: Shot, end_ns: int, candidate: _Frame) -> None:
        shot.end_ns = end_ns
        if self._options.method == "content" and candidate.quality > shot.keyframe.quality:
            shot.keyframe = candidate

    def _limit(self) -> None:
        """Join the shot with the weakest beginning to the one before it when there are too many."""
        if self._options.max_keyframes is None or len(self._shots) <= self._options.max_keyframes:
            return
        weakest = min(range(1, len(self._shots)), key=lambda k: (self._shots[k].change, -k))
        shot = self._shots.pop(weakest)
        self._extend(self._shots[weakest - 1], shot.end_ns, shot.keyframe)


class _ImageSink:
    def __init__(self, options: _Selection) -> None:
        self._finder = ShotFinder(options)

    def push(self, frames: VideoClip) -> None:
        """Take the next chunk of frames."""
        self._finder.push(frames)

    def finish(self) -> list[Image]:
        """Return one picture for each shot."""
        return [
            Image(pixels=shot.keyframe.pixels, span=Span(shot.start_ns, shot.end_ns)) for shot in self._finder.finish()
        ]


class _ScoreSink:
    def __init__(self, options: KeyframeScores) -> None:
        self._finder = ShotFinder(options)
        self._dim = options.dim

    def push(self, frames: VideoClip) -> None:
        """Take the next chunk of frames."""
        self._finder.push(frames)

    def finish(self) -> FeatureSequence:
        """Return one row for each shot."""
        shots = self._finder.finish()
        if not shots:
            return FeatureSequence.empty(self._dim)
        rows: list[list[Any]] = [
            [
                shot.change,
                (shot.keyframe.start_ns - shot.start_ns) / NS_PER_SECOND,
                shot.keyframe.luma,
                shot.keyframe.sharpness,
            ]
            for shot in shots
        ]
        spans = [Span(shot.start_ns, shot.end_ns) for shot in shots]
        return FeatureSequence.from_rows(np.array(rows, dtype=np.float32), spans)


@dataclass(frozen=True, kw_only=True)
class Keyframes(_Selection):
    """One picture for each shot ("content") or for each ``interval`` seconds ("uniform"); an image extractor follows.

    "content": a frame opens a shot when the change there is at least ``min_change`` (mean absolute difference of RGB
    thumbnails, share of full scale) and at least ``threshold`` times the mean difference of the four frames on either
    side, and ``min_gap`` seconds have passed since the last cut. The change is the least of the four differences
    between the two frames before and the two from there on. Slow fades and dissolves are no cuts. The keyframe is the
    shot's sharpest frame that is not black (of a black shot, its sharpest), the earliest of equals.
    "uniform": a shot is the frames that begin in one ``interval``, counted from the first frame; its keyframe is the
    first of them.

    The first frame opens the first shot. ``max_keyframes``: when there would be more, the cuts with the smallest change
    are undone (the later of equals) and their shots joined, so the rest still covers the video. ``short_side``: size of
    the pictures in pixels, never enlarged.

    A picture's span is its whole shot, from the start of its first frame to the end of its last, so spans tile the
    video. Raises ``ValueError`` for impossible options; ``SampleError(bad_timestamps)`` when time goes back.
    """

    name: ClassVar[str] = "video.keyframes"

    def select(self) -> _ImageSink:
        """Begin a video."""
        return _ImageSink(self)


@dataclass(frozen=True, kw_only=True)
class KeyframeScores(_Selection):
    """One row for each keyframe, over its shot; options and choice of frames as in ``Keyframes``.

    Columns: ``change`` where the shot begins (0 to 1; 0 for the first, which nothing precedes); ``offset_seconds`` of
    the keyframe from the start of the shot; its mean ``luma`` (0 black to 1 white); its ``sharpness``, log(1 + variance
    of the Laplacian of 8-bit luma at half size). Runs on the CPU whatever the device.
    """

    name: ClassVar[str] = "video.keyframes"
    columns: ClassVar[tuple[str, ...]] = ("change", "offset_seconds", "luma", "sharpness")

    @property
    def dim(self) -> int:
        """Width of a row."""
        return len(self.columns)

    def open(self, device: torch.device) -> _ScoreSink:
        """Begin a video."""
        del device
        return _ScoreSink(self)

    def __call__(self, batch: Sequence[VideoClip], device: torch.device) -> list[FeatureSequence]:
        """Return the rows of each clip."""
        return run_video(self, batch, device)
