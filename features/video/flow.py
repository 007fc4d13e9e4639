"""How the picture moves: dense optical flow between successive frames, summed up in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from features.base import FrameRequest, run_video
from features.errors import Reason, SampleError
from features.time import NS_PER_SECOND
from features.types import FeatureSequence, Stream, VideoClip

if TYPE_CHECKING:
    import torch

Method: TypeAlias = Literal["dis", "farneback"]
Preset: TypeAlias = Literal["ultrafast", "fast", "medium"]
Luma: TypeAlias = npt.NDArray[np.uint8]
Field: TypeAlias = npt.NDArray[np.float32]

COLUMNS = ("mean_speed", "std_speed", "mean_dx", "mean_dy", "median_dx", "median_dy", "residual_speed")
"""The columns before the histogram of directions."""

_MIN_SIDE = 32
_STILL_PIXELS = 0.1


def _allow(option: str, value: object, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"video.flow: {option}: got {value!r}, allowed: {', '.join(map(repr, allowed))}")


def _estimator(method: Method, preset: Preset) -> Callable[[Luma, Luma], Field]:
    import cv2

    if method == "farneback":

        def farneback(previous: Luma, current: Luma) -> Field:
            start = np.zeros((*previous.shape, 2), dtype=np.float32)
            field = cv2.calcOpticalFlowFarneback(
                previous,
                current,
                start,
                pyr_scale=0.5,
                levels=4,
                winsize=15,
                iterations=3,
                poly_n=5,
                poly_sigma=1.1,
                flags=0,
            )
            return np.asarray(field, dtype=np.float32)

        return farneback
    presets = {
        "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
        "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
        "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    }
    search = cv2.DISOpticalFlow.create(presets[preset])

    def dis(previous: Luma, current: Luma) -> Field:
        start = np.zeros((*previous.shape, 2), dtype=np.float32)
        return np.asarray(search.calc(previous, current, start), dtype=np.float32)

    return dis


def flow_field(previous: Luma, current: Luma, *, method: Method = "dis", preset: Preset = "fast") -> Field:
    """Return where each pixel of ``previous`` went: float32 ``[H, W, 2]``, pixels right and pixels down.

    ``previous`` and ``current`` are luma, uint8 ``[H, W]``, both sides at least 32. ``method`` "dis" is dense inverse
    search (Kroeger et al. 2016) with OpenCV's ``preset``; "farneback" is polynomial expansion (Farnebäck 2003).

    Raises ``ValueError`` for unknown options and frames that are not luma of one size, and
    ``SampleError(unsupported_format)`` for smaller ones (OpenCV's dense inverse search crashes on narrow strips).
    """
    _allow("method", method, get_args(Method))
    _allow("preset", preset, get_args(Preset))
    _check_shapes(previous.shape, current.shape)
    return _estimator(method, preset)(previous, current)


def _check_shapes(previous: tuple[int, ...], current: tuple[int, ...]) -> None:
    if previous != current or len(current) != 2:
        raise ValueError(
            f"video.flow: got frames {list(previous)} and {list(current)}, allowed: luma [H, W] of one size; "
            "cure: decode with pixel_format='gray'"
        )
    if min(current) < _MIN_SIDE:
        raise SampleError(
            Reason.UNSUPPORTED_FORMAT,
            f"video.flow: got frames of {current[1]}x{current[0]}, allowed: both sides >= {_MIN_SIDE} pixels",
        )


def describe(field: Field, seconds: float, bins: int) -> npt.NDArray[np.float32]:
    """Sum up a flow field (pixels, ``[H, W, 2]``, over ``seconds``) as one row: ``COLUMNS``, then ``bins`` directions.

    Speeds and displacements are in frame widths a second. Bin ``k`` of the histogram is centred on the direction
    ``k * 360 / bins`` degrees, 0 being right and 90 down, and holds the share of all motion that goes that way; vectors
    shorter than 0.1 pixel, below the methods' accuracy, are left out. Without any motion the histogram is all zeros.
    Both methods give fields that are smooth over many pixels, so every second row and column is looked at.
    """
    import cv2

    dx, dy = np.ascontiguousarray(field[::2, ::2, 0]), np.ascontiguousarray(field[::2, ::2, 1])
    size, degrees = cv2.cartToPolar(dx, dy, angleInDegrees=True)
    median_dx, median_dy = float(np.median(dx)), float(np.median(dy))
    # not cv2.magnitude: what it rounds to depends on where its arrays lie in memory
    residual = np.sqrt((dx - np.float32(median_dx)) ** 2 + (dy - np.float32(median_dy)) ** 2)
    (mean,), (spread,) = (value[0] for value in cv2.meanStdDev(size))
    pixels = [mean, spread, cv2.mean(dx)[0], cv2.mean(dy)[0], median_dx, median_dy, cv2.mean(residual)[0]]
    sector = (degrees * np.float32(bins / 360) + np.float32(0.5)).astype(np.intp).ravel() % bins
    moved = np.where(size >= _STILL_PIXELS, size, 0).ravel()
    directions = np.bincount(sector, weights=moved, minlength=bins)
    total = directions.sum()
    shares = directions / total if total > 0 else directions
    return np.concatenate([np.array(pixels) / (field.shape[1] * seconds), shares]).astype(np.float32)


class _FlowSink:
    def __init__(self, options: Flow) -> None:
        self._bins = options.bins
        self._dim = options.dim
        self._estimate = _estimator(options.method, options.preset)
        self._last: Luma | None = None
        self._starts: list[int] = []
        self._rows: list[npt.NDArray[np.float32]] = []

    def push(self, frames: VideoClip) -> None:
        """Take the next chunk of frames: luma, at the rate that was asked for."""
        for luma, start in zip(frames.pixels, frames.start_ns.tolist(), strict=True):
            if self._last is None:
                _check_shapes(luma.shape, luma.shape)
            else:
                self._pair(self._last, luma, start - self._starts[-1])
            self._last = luma
            self._starts.append(start)
        if self._last is not None:
            self._last = self._last.copy()  # the chunk is let go

    def _pair(self, previous: Luma, current: Luma, duration_ns: int) -> None:
        _check_shapes(previous.shape, current.shape)
        if duration_ns <= 0:
            raise SampleError(
                Reason.BAD_TIMESTAMPS,
                f"video.flow: a frame starts {-duration_ns} ns before the last one, allowed: starts that increase",
            )
        field = self._estimate(previous, current)
        self._rows.append(describe(field, duration_ns / NS_PER_SECOND, self._bins))

    def finish(self) -> FeatureSequence:
        """Return one row for each pair of frames."""
        if not self._rows:
            return FeatureSequence.empty(self._dim)
        edges = np.array(self._starts, dtype=np.int64)
        return FeatureSequence(values=np.stack(self._rows), start_ns=edges[:-1], end_ns=edges[1:])


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Motion between successive frames: speed, camera motion, what remains of it, and directions.

    ``rate``: frames a second that are compared (chosen by timestamp when the video is decoded; frames that are pushed
    are all used). ``short_side``: working size in pixels. ``method``, ``preset``: see ``flow_field`` (``preset`` is
    for "dis"). ``bins``: directions in the histogram.

    One row for each pair of successive frames, over ``[start of the first, start of the second)``; fewer than two
    frames give no row. Columns are ``columns`` and then the histogram (see ``describe``); speeds are in frame widths a
    second, so they depend neither on resolution nor on frame rate. ``mean_speed`` and ``std_speed`` are over all
    pixels; ``median_dx`` and ``median_dy`` are the global (camera) motion, right and down positive; ``residual_speed``
    is the mean speed once that is taken away. Runs on the CPU whatever the device.

    Raises ``ValueError`` for unknown options and frames that are not luma of one size; ``SampleError``: with
    ``unsupported_format`` for frames narrower than 32 pixels, with ``bad_timestamps`` when time does not advance.
    """

    name: ClassVar[str] = "video.flow"
    stream: ClassVar[Stream] = "video"
    numerics: ClassVar[tuple[str, ...]] = ("opencv-python",)
    columns: ClassVar[tuple[str, ...]] = COLUMNS

    method: Method = "dis"
    preset: Preset = "fast"
    rate: float = 10.0
    short_side: int = 144
    bins: int = 8

    def __post_init__(self) -> None:
        _allow("method", self.method, get_args(Method))
        _allow("preset", self.preset, get_args(Preset))
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise ValueError(f"video.flow: rate: got {self.rate}, allowed: > 0 and finite")
        if self.short_side < _MIN_SIDE:
            raise ValueError(f"video.flow: short_side: got {self.short_side}, allowed: >= {_MIN_SIDE}")
        if self.bins < 1:
            raise ValueError(f"video.flow: bins: got {self.bins}, allowed: >= 1")

    @property
    def dim(self) -> int:
        """Width of a row."""
        return len(COLUMNS) + self.bins

    @property
    def request(self) -> FrameRequest:
        """Small luma frames at ``rate``."""
        return FrameRequest(pixel_format="gray", short_side=self.short_side, rate=self.rate)

    def open(self, device: torch.device) -> _FlowSink:
        """Begin a video."""
        del device
        return _FlowSink(self)

    def __call__(self, batch: Sequence[VideoClip], device: torch.device) -> list[FeatureSequence]:
        """Return the rows of each clip."""
        return run_video(self, batch, device)
