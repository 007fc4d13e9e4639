"""Shots of a video, found in a single pass with about a second of look-ahead: cuts, dissolves and fades.

A cut is found by the adaptive rule known from PySceneDetect's ``AdaptiveDetector``: the difference of successive
thumbnails must stand out from the differences around it, so that pans and fast action are no cuts. Beyond that rule,
the pictures on both sides of a cut must differ from each other over two frames, so that a flash, a dropped frame or a
repeated one is none, and repeated frames do not count as calm.

A dissolve is found by what it is: for a while each picture is the weighted mean of the pictures 0.4 s before and after
it (the model in Lienhart 2001, "Reliable transition detection in videos"), and those two have little in common. A pan
has no such mean, and a change of light leaves the picture's structure as it was. Black is no shot: it ends the one
before, or precedes the first, so a fade through black is one change.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from features.errors import Reason, SampleError
from features.time import NS_PER_SECOND
from features.types import VideoClip

Pixels = npt.NDArray[np.uint8]

_WINDOW = 4
_REPEATED = 0.002
_BLACK = 0.06
_BLANK_PEAK = 0.15
_THUMBNAIL = 32
_SKETCH = 14

_REACH_NS = 2 * NS_PER_SECOND // 5
_LONGEST_NS = 2 * _REACH_NS
_GRADUAL_CHANGE = 0.05
_GRADUAL_ERROR = 0.2
_GRADUAL_LIKENESS = 0.5
_FLAT = 1.0

_LET_GO = np.zeros((0, 0, 3), dtype=np.uint8)


class ShotOptions(Protocol):
    """What finding shots depends on; see ``features.video.keyframes.Keyframes``."""

    @property
    def threshold(self) -> float: ...  # noqa: D102
    @property
    def min_change(self) -> float: ...  # noqa: D102
    @property
    def min_gap(self) -> float: ...  # noqa: D102
    @property
    def fades(self) -> bool: ...  # noqa: D102


@dataclass(eq=False, kw_only=True, slots=True)
class Frame:
    """One frame and what is measured of it. ``lags``: differences from the frames 1, 2 and 3 before (0 to 1)."""

    pixels: Pixels
    shape: tuple[int, ...]
    start_ns: int
    end_ns: int
    thumbnail: Pixels
    luma: float
    sharpness: float
    blank: bool
    lags: tuple[float, ...] = ()
    sketch: Pixels | None = None
    gradual: float = 0.0
    owned: bool = False

    @property
    def quality(self) -> tuple[bool, float]:
        """Larger is a better picture of its shot: not black first, then sharp."""
        return (self.luma >= _BLACK, self.sharpness)

    def own(self) -> None:
        """Let go of the chunk that the frame came in."""
        if not self.owned:
            self.pixels, self.owned = self.pixels.copy(), True

    def let_go(self) -> None:
        """Forget the picture."""
        self.pixels, self.owned = _LET_GO, True

    def kept(self, *, pixels: bool) -> Frame:
        """The same figures without what frames are compared by and, unless ``pixels``, without the picture."""
        return replace(self, pixels=self.pixels if pixels else _LET_GO, thumbnail=_LET_GO, sketch=None)


@dataclass(eq=False, kw_only=True, slots=True)
class Shot:
    """A run of frames ``[start_ns, end_ns)``, how much the picture changed where it begins, and its keyframe.

    ``gradual``: it begins with a dissolve or a fade. ``share``: how much of the video its keyframe stands for, 0 to 1
    (known once the video has ended).
    """

    change: float
    gradual: bool
    start_ns: int
    end_ns: int
    keyframe: Frame = field(repr=False)
    blank: bool = False
    share: float = 0.0


def check_frames(clip: VideoClip) -> None:
    """Raise ``ValueError`` for frames that are not RGB."""
    if clip.pixels.ndim != 4:
        raise ValueError(
            f"video.keyframes: got frames {list(clip.pixels.shape[1:])}, allowed: RGB [H, W, 3]; "
            "cure: decode with pixel_format='rgb24'"
        )


def check_follows(last: Frame, start_ns: int, pixels: Pixels) -> None:
    """Raise ``SampleError`` when a frame begins before the last one ends, ``ValueError`` when it is of another size."""
    if start_ns < last.end_ns:
        raise SampleError(
            Reason.BAD_TIMESTAMPS,
            f"video.keyframes: got a frame at {start_ns} ns, allowed: not before {last.end_ns} ns, "
            "where the one it follows ends",
        )
    if pixels.shape != last.shape:
        raise ValueError(f"video.keyframes: got frames {list(last.shape)} and {list(pixels.shape)}, allowed: one size")


def _halved(pixels: Pixels) -> Pixels:
    """Half the size, by averages of 2 x 2; an odd last row or column is left out."""
    import cv2

    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    even = pixels[: 2 * height, : 2 * width]
    return np.asarray(cv2.resize(even, (width, height), interpolation=cv2.INTER_LINEAR_EXACT))


def measure(pixels: Pixels, start_ns: int, end_ns: int) -> Frame:
    """Thumbnail, mean luma (0 to 1), and sharpness at half size: log(1 + mean square of the Laplacian)."""
    import cv2

    half = _halved(pixels) if min(pixels.shape[:2]) >= 2 else pixels
    grey = cv2.cvtColor(half, cv2.COLOR_RGB2GRAY)
    energy = cv2.norm(cv2.Laplacian(grey, cv2.CV_16S), cv2.NORM_L2SQR) / grey.size
    thumbnail = half
    while min(thumbnail.shape[:2]) >= 2 * _THUMBNAIL:
        thumbnail = _halved(thumbnail)
    luma = cv2.mean(grey)[0] / 255
    return Frame(
        pixels=pixels,
        shape=pixels.shape,
        start_ns=start_ns,
        end_ns=end_ns,
        thumbnail=thumbnail,
        luma=luma,
        sharpness=math.log1p(energy),
        blank=luma < _BLACK and int(thumbnail.max()) < 255 * _BLANK_PEAK,
    )


def difference(one: Pixels, other: Pixels) -> float:
    """Mean absolute difference of two thumbnails, 0 to 1. The sum is of integers, so it is exact."""
    import cv2

    return float(cv2.norm(one, other, cv2.NORM_L1)) / (255 * one.size)


def _sketch(thumbnail: Pixels) -> Pixels:
    """The picture with a short side of 14 to 27 pixels, luma and colour differences, uint8 ``[h, w, 3]``."""
    import cv2

    small = thumbnail
    while min(small.shape[:2]) >= 2 * _SKETCH:
        small = _halved(small)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb))


def gradual_change(before: Frame, frame: Frame, after: Frame) -> float:
    """How much ``before`` and ``after`` differ (mean, 0 to 1) if ``frame`` lies in a dissolve between them, else 0."""
    if before.sketch is None or frame.sketch is None or after.sketch is None or after.blank:
        return 0.0
    change = difference(before.sketch, after.sketch)
    if change < _GRADUAL_CHANGE:
        return 0.0
    first, middle, last = (sketch.astype(np.float64) for sketch in (before.sketch, frame.sketch, after.sketch))
    weight = (frame.start_ns - before.start_ns) / (after.start_ns - before.start_ns)
    if np.abs(middle - first - weight * (last - first)).mean() > 255 * _GRADUAL_ERROR * change:
        return 0.0
    one, other = (sketch[..., 0] - sketch[..., 0].mean() for sketch in (first, last))
    variance = max((one * one).mean(), (other * other).mean(), _FLAT)
    return change if (one * other).mean() <= _GRADUAL_LIKENESS * variance else 0.0


class ShotFinder:
    """Finds the shots of one video, chunk by chunk: how the frames are cut into chunks changes nothing.

    Each frame is decided on when those of the next 0.4 s, and at least four, are known; in a dissolve, when that has
    been seen for 0.8 s or is over. ``next_shots`` gives the shots that are over. Memory: those 1.2 s of pictures.
    ``longest_ns``: shots are cut into pieces that last no longer. Without ``pictures`` keyframes have no pixels.
    """

    def __init__(
        self, options: ShotOptions, min_gap_ns: int, longest_ns: int | None = None, *, pictures: bool = True
    ) -> None:
        self._options = options
        self._min_gap_ns = min_gap_ns
        self._longest_ns = longest_ns
        self._pictures = pictures
        self._frames: list[Frame] = []
        self._placed = self._tested = 0
        self._run: list[Frame] = []
        self._exhausted = False
        self._over: list[Shot] = []
        self._shot: Shot | None = None

    def push(self, clip: VideoClip) -> None:
        """Take the next frames. Raises ``ValueError`` for luma, and ``SampleError`` when time or size jumps."""
        check_frames(clip)
        for pixels, start, end in zip(clip.pixels, clip.start_ns.tolist(), clip.end_ns.tolist(), strict=True):
            self._frames.append(self._frame(pixels, start, end))
            self._test(last=False)
            while self._placed < min(self._tested - len(self._run), len(self._frames) - _WINDOW):
                self._place()
        held = self._over if self._shot is None else [*self._over, self._shot]
        for frame in (*self._frames[self._placed :], *(shot.keyframe for shot in held)):
            frame.own()

    def next_shots(self) -> list[Shot]:
        """Return the shots that have ended since the last call."""
        found, self._over = self._over, []
        return found

    def finish(self) -> list[Shot]:
        """Return the remaining shots of the video, in order of time."""
        self._test(last=True)
        while self._placed < len(self._frames):
            self._place()
        return self.next_shots() if self._shot is None else [*self.next_shots(), self._shot]

    def _frame(self, pixels: Pixels, start_ns: int, end_ns: int) -> Frame:
        if self._frames:
            check_follows(self._frames[-1], start_ns, pixels)
        frame = measure(pixels, start_ns, end_ns)
        if not self._pictures:
            frame.let_go()
        frame.lags = tuple(difference(frame.thumbnail, before.thumbnail) for before in self._frames[:-4:-1])
        if self._options.fades:
            frame.sketch = _sketch(frame.thumbnail)
        return frame

    def _test(self, *, last: bool) -> None:
        """Look for dissolves around every frame whose future is known; mark the strongest frame of each."""
        while self._tested < len(self._frames):
            frame = self._frames[self._tested]
            if self._options.fades:
                if frame.start_ns + _REACH_NS > self._frames[-1].start_ns and not last:
                    return
                self._follow(frame, self._gradual(frame))
            self._tested += 1
        if last:
            self._close_run()

    def _follow(self, frame: Frame, change: float) -> None:
        """Take the next frame, in a dissolve if ``change`` is above 0, into the run of such frames."""
        if not change:
            self._close_run()
            self._exhausted = False
        elif not self._exhausted:
            frame.gradual = change
            self._run.append(frame)
            if frame.start_ns - self._run[0].start_ns >= _LONGEST_NS:
                self._close_run()
                self._exhausted = True

    def _close_run(self) -> None:
        if self._run:
            peak = max(self._run, key=lambda frame: frame.gradual)
            for frame in self._run:
                if frame is not peak:
                    frame.gradual = 0.0
            self._run = []

    def _gradual(self, frame: Frame) -> float:
        before = bisect_right(self._frames, frame.start_ns - _REACH_NS, key=_start) - 1
        after = bisect_left(self._frames, frame.start_ns + _REACH_NS, key=_start)
        if before < 0 or after == len(self._frames):
            return 0.0
        return gradual_change(self._frames[before], frame, self._frames[after])

    def _place(self) -> None:
        """Decide on the oldest frame that is not in a shot yet."""
        frame = self._frames[self._placed]
        change = max(self._change(self._placed), frame.gradual)
        if self._shot is None or self._opens(self._shot, frame, change):
            if self._shot is not None:
                self._over.append(self._shot)
            self._shot = Shot(
                change=change if self._shot is not None else 0.0,
                gradual=self._shot is not None and frame.gradual > 0,
                start_ns=frame.start_ns,
                end_ns=frame.end_ns,
                keyframe=frame,
                blank=frame.blank,
            )
        else:
            before = self._shot.keyframe
            extend(self._shot, frame)
            loser = frame if self._shot.keyframe is before else before
            loser.let_go()  # what follows looks back, but not at pictures
        self._placed += 1
        needed = bisect_right(self._frames, frame.start_ns - _REACH_NS, key=_start) - 1
        count = max(0, min(needed, self._placed - _WINDOW))
        del self._frames[:count]
        self._placed -= count
        self._tested -= count

    def _change(self, index: int) -> float:
        """How much the two frames from ``index`` on differ from the two before: the least of the four differences."""
        pairs = [self._frames[index].lags[:2]]
        if index + 1 < len(self._frames):
            pairs.append(self._frames[index + 1].lags[1:3])
        return min((lag for pair in pairs for lag in pair), default=0.0)

    def _opens(self, shot: Shot, frame: Frame, change: float) -> bool:
        if frame.blank or shot.blank:
            return False
        if self._longest_ns is not None and frame.start_ns - shot.start_ns >= self._longest_ns:
            return True
        if frame.start_ns - shot.start_ns < self._min_gap_ns:
            return False
        return frame.gradual > 0 or self._cuts(self._placed, change)

    def _cuts(self, index: int, change: float) -> bool:
        if change < self._options.min_change:
            return False
        around = self._frames[max(0, index - _WINDOW) : index] + self._frames[index + 1 : index + 1 + _WINDOW]
        moving = [near.lags[0] for near in around if near.lags and near.lags[0] > _REPEATED]
        return not moving or change >= self._options.threshold * (sum(moving) / len(moving))


def extend(shot: Shot, frame: Frame) -> None:
    """Let ``shot`` go on until ``frame`` ends, with the better of its keyframe and ``frame``."""
    shot.end_ns = frame.end_ns
    shot.blank &= frame.blank
    if frame.quality > shot.keyframe.quality:
        shot.keyframe = frame


def _start(frame: Frame) -> int:
    return frame.start_ns
