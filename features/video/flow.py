"""How the picture moves between successive frames: summed up in a few numbers, or the field itself."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt

from features.base import FrameRequest, State, VideoExtractor, WeightsRef, run_video
from features.errors import Reason, SampleError, StateError
from features.time import NS_PER_SECOND
from features.types import Device, FeatureSequence, Stream, VideoClip
from features.video.fields import MIN_SIDE, Estimate, Field, Luma, Method, Preset, allow, check_shapes, estimator
from features.video.motion import COLUMNS, SPEEDS, describe

if TYPE_CHECKING:
    from torch import nn

Model: TypeAlias = Literal["raft_small", "raft_large"]
Row: TypeAlias = npt.NDArray[np.float32]
Summary: TypeAlias = Callable[[Field, float, tuple[Luma, Luma]], Row]

_RAFT_MIN_SIDE = 128
_FILE = "file:"


class _Numerics:
    """The libraries that decide the numbers of a method: torch for RAFT alone."""

    def __get__(self, step: _Options | None, kind: type) -> tuple[str, ...]:
        raft = step is not None and step.method == "raft"
        return ("opencv-python", "torch", "torchvision") if raft else ("opencv-python",)


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The options that both steps share; see ``Flow``."""

    name: ClassVar[str]
    stream: ClassVar[Stream] = "video"
    numerics: ClassVar = _Numerics()

    method: Method = "dis"
    preset: Preset = "balanced"
    model: Model = "raft_small"
    weights: str = "DEFAULT"
    iterations: int = 12
    rate: float = 10.0
    short_side: int = 144

    def __post_init__(self) -> None:
        for option, allowed in (("method", Method), ("preset", Preset), ("model", Model)):
            allow(self.name, option, getattr(self, option), get_args(allowed))
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise ValueError(f"{self.name}: rate: got {self.rate}, allowed: > 0 and finite")
        least = _RAFT_MIN_SIDE if self.method == "raft" else MIN_SIDE
        if self.short_side < least:
            raise ValueError(f"{self.name}: short_side: got {self.short_side}, allowed: >= {least}")
        if self.iterations < 1:
            raise ValueError(f"{self.name}: iterations: got {self.iterations}, allowed: >= 1")
        if self.method == "raft":
            _ = self.weights_ref

    @property
    def weights_ref(self) -> WeightsRef | None:
        """Where RAFT's weights lie; the other methods need none."""
        if self.method != "raft":
            return None
        if self.weights.startswith(_FILE):
            return WeightsRef(kind="file", locator=self.weights.removeprefix(_FILE))
        from features.video import raft

        return WeightsRef(kind="torchvision", locator=f"{self.model}/{raft.weights_name(self.model, self.weights)}")

    @property
    def request(self) -> FrameRequest:
        """Small frames at ``rate``: luma, for RAFT in colour."""
        pixel_format: Literal["rgb24", "gray"] = "rgb24" if self.method == "raft" else "gray"
        return FrameRequest(pixel_format=pixel_format, short_side=self.short_side, rate=self.rate)

    @property
    def dim(self) -> int:
        """Width of a row."""
        raise NotImplementedError

    def summary(self) -> Summary:
        """Return what makes a row of a field, the seconds it is over and its two luma frames."""
        raise NotImplementedError

    def with_state(self, state: State) -> BoundFlow:
        """Return the extractor that uses these weights of RAFT. Raises ``StateError`` when they do not fit."""
        if self.method != "raft":
            raise StateError(f"{self.name}: method {self.method!r} needs no weights; cure: use the step as it is")
        return BoundFlow(self, state)

    def open(self, device: Device) -> FlowSink:
        """Begin a video. Raises ``StateError`` for RAFT, which needs weights."""
        del device
        if self.method == "raft":
            ref = self.weights_ref
            raise StateError(f"{self.name}: got no weights for {self.model}; cure: with_state(state of {ref})")
        return FlowSink(self, estimator(self.method, self.preset))

    def __call__(self, batch: Sequence[VideoClip], device: Device) -> list[FeatureSequence]:
        """Return the rows of each clip."""
        return run_video(cast("VideoExtractor", self), batch, device)


class FlowSink:
    """One video on its way: each frame is compared with the one before."""

    def __init__(self, options: _Options, estimate: Estimate) -> None:
        self._dim = options.dim
        self._summary = options.summary()
        self._estimate = estimate
        self._ndim, self._least = (3, _RAFT_MIN_SIDE) if options.method == "raft" else (2, MIN_SIDE)
        self._last: Luma | None = None
        self._starts: list[int] = []
        self._rows: list[Row] = []

    def push(self, frames: VideoClip) -> None:
        """Take the next chunk of frames, at the rate that was asked for."""
        for pixels, start in zip(frames.pixels, frames.start_ns.tolist(), strict=True):
            if self._last is None:
                check_shapes(pixels.shape, pixels.shape, self._ndim, self._least)
            else:
                self._pair(self._last, pixels, start - self._starts[-1])
            self._last = pixels
            self._starts.append(start)
        if self._last is not None:
            self._last = self._last.copy()  # the chunk is let go

    def _pair(self, previous: Luma, current: Luma, duration_ns: int) -> None:
        check_shapes(previous.shape, current.shape, self._ndim, self._least)
        if duration_ns <= 0:
            raise SampleError(
                Reason.BAD_TIMESTAMPS,
                f"video.flow: a frame starts {-duration_ns} ns before the last one, allowed: starts that increase",
            )
        field = self._estimate(previous, current)
        self._rows.append(self._summary(field, duration_ns / NS_PER_SECOND, (_luma(previous), _luma(current))))

    def finish(self) -> FeatureSequence:
        """Return one row for each pair of frames."""
        if not self._rows:
            return FeatureSequence.empty(self._dim)
        edges = np.array(self._starts, dtype=np.int64)
        return FeatureSequence(values=np.stack(self._rows), start_ns=edges[:-1], end_ns=edges[1:])


def _luma(pixels: Luma) -> Luma:
    if pixels.ndim == 2:
        return pixels
    import cv2

    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))


class BoundFlow:
    """``Flow`` or ``FlowField`` by RAFT with its weights; the network is built once for each process and device."""

    def __init__(self, options: _Options, state: State) -> None:

        from features.video import raft

        self.options = options
        self._state = dict(state)
        self._networks: dict[str, nn.Module] = {"cpu": raft.network(options.model, self._state, "cpu")}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[BoundFlow], tuple[_Options, State]]:
        return (BoundFlow, (self.options, self._state))

    def __repr__(self) -> str:
        return f"BoundFlow({self.options!r})"

    @property
    def name(self) -> str:
        """Name of the step."""
        return self.options.name

    @property
    def stream(self) -> Stream:
        """What the step reads."""
        return self.options.stream

    @property
    def numerics(self) -> tuple[str, ...]:
        """The libraries that decide the numbers."""
        return self.options.numerics

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self.options.dim

    @property
    def request(self) -> FrameRequest:
        """The frames that this extractor wants."""
        return self.options.request

    def open(self, device: Device) -> FlowSink:
        """Begin a video."""
        from features.video import raft

        with self._lock:
            if device not in self._networks:
                self._networks[device] = raft.network(self.options.model, self._state, device)
            net = self._networks[device]

        def estimate(previous: Luma, current: Luma) -> Field:
            return raft.flow(net, previous, current, iterations=self.options.iterations, device=device)

        return FlowSink(self.options, estimate)

    def __call__(self, batch: Sequence[VideoClip], device: Device) -> list[FeatureSequence]:
        """Return the rows of each clip."""
        return run_video(cast("VideoExtractor", self), batch, device)


@dataclass(frozen=True, kw_only=True)
class Flow(_Options):
    """Motion between successive frames: speeds, directions, camera motion and what remains of it, confidence.

    ``rate``: frames a second that are compared (chosen by timestamp when the video is decoded; frames that are pushed
    are all used). ``short_side``: working size in pixels. ``method``: "dis" (dense inverse search, Kroeger et al. 2016;
    ``preset``: OpenCV's "ultrafast", "fast" or "medium", or "balanced", about as exact on films as the next method and
    nine times as fast), "farneback" (Farnebäck 2003) or "raft" (torchvision's ``model``; ``weights``: "DEFAULT",
    one of torchvision's names, or ``file:PATH`` of a state_dict; ``iterations`` of its update; runs on the device, the
    others on the CPU). ``bins``: directions in the histogram.

    One row for each pair of successive frames, over ``[start of the first, start of the second)``; fewer than two
    frames give no row. Columns are ``columns``, then shares of speeds, then of directions: see
    ``features.video.motion.describe``. Speeds are in frame widths a second, so they depend neither on resolution nor
    on frame rate.

    Raises ``ValueError`` for unknown options and frames that are not of one size and kind; ``SampleError``: with
    ``unsupported_format`` for frames narrower than 32 pixels (128 for RAFT), with ``bad_timestamps`` when time does not
    advance; ``StateError`` for RAFT without weights.
    """

    name: ClassVar[str] = "video.flow"
    columns: ClassVar[tuple[str, ...]] = COLUMNS

    bins: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bins < 1:
            raise ValueError(f"video.flow: bins: got {self.bins}, allowed: >= 1")

    @property
    def dim(self) -> int:
        """Width of a row."""
        return len(COLUMNS) + len(SPEEDS) + 1 + self.bins

    def summary(self) -> Summary:
        """Return ``describe`` with ``bins`` directions."""
        return lambda field, seconds, frames: describe(field, seconds, self.bins, frames)


@dataclass(frozen=True, kw_only=True)
class FlowField(_Options):
    """The field of motion itself, between successive frames, averaged over the cells of a grid.

    A row holds ``dx`` and ``dy`` of each of ``rows`` x ``columns`` cells (row by row: ``[rows, columns, 2]``), in frame
    widths a second, right and down positive. The other options, the times of rows and the errors are those of ``Flow``.
    """

    name: ClassVar[str] = "video.flow_field"

    rows: int = 9
    columns: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        for option, value in (("rows", self.rows), ("columns", self.columns)):
            if value < 1:
                raise ValueError(f"video.flow_field: {option}: got {value}, allowed: >= 1")

    @property
    def dim(self) -> int:
        """Width of a row."""
        return 2 * self.rows * self.columns

    def summary(self) -> Summary:
        """Return the field on the grid, flat."""
        import cv2

        def cells(field: Field, seconds: float, frames: tuple[Luma, Luma]) -> Row:
            del frames
            grid = cv2.resize(field, (self.columns, self.rows), interpolation=cv2.INTER_AREA)
            return np.asarray(grid / np.float32(field.shape[1] * seconds), dtype=np.float32).ravel()

        return cells
