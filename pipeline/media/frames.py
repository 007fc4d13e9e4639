"""Decoded frames on their way to one request: picked by time, turned upright, scaled, gathered into chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from features.base import FrameRequest
from features.time import NS_PER_SECOND
from features.types import VideoClip

if TYPE_CHECKING:
    from av.sidedata.sidedata import SideData
    from av.video.frame import VideoFrame

Pixels: TypeAlias = npt.NDArray[np.uint8]

_HALVED = ("yuv420", "yuvj420", "yuv422", "yuvj422")
_PLANAR = {"nv12": "yuv420p", "nv16": "yuv422p", "nv24": "yuv444p", "p010le": "yuv420p10le", "p210le": "yuv422p10le"}
"""Layouts in which hardware gives frames -> that in which software gives the same numbers."""
_CHUNK_BYTES = 4 << 20  # larger buffers cost more in page faults than in calls


@dataclass(frozen=True)
class Turn:
    """A display matrix of quarter turns and mirror images: swap the axes, then flip."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> Turn | None:
        """Read the frame's matrix (FFmpeg ``display.h``: x' = a x + c y, y' = b x + d y); ``None`` for any other."""
        data = cast("SideData | None", frame.side_data.get("DISPLAYMATRIX"))
        if data is None:
            return cls()
        a, b, _, c, d = (int(value) for value in np.frombuffer(bytes(data), dtype=np.int32)[:5])
        if b == c == 0 and a and d:
            return cls(flip_x=a < 0, flip_y=d < 0)
        if a == d == 0 and b and c:
            return cls(transpose=True, flip_x=c < 0, flip_y=b < 0)
        return None

    def apply(self, pixels: Pixels) -> Pixels:
        """Turn ``[H, W]`` or ``[H, W, 3]``; returns a view."""
        if self.transpose:
            pixels = pixels.swapaxes(0, 1)
        return pixels[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]


class Feed:
    """One request at work, for every ``key`` that made it: picks, scales and gathers frames."""

    def __init__(self, keys: tuple[str, ...], request: FrameRequest, chunk: int) -> None:
        self.keys = keys
        self._picks = _Picks(request)
        self._holds = request.until_next or request.keyframes_only
        self._scaler = _Scaler(request)
        self._chunk = chunk
        self._buffer: Pixels | None = None
        self._times: list[tuple[int, int]] = []

    def push(self, frame: VideoFrame, turn: Turn, span: tuple[int, int], *, key: bool) -> Iterator[VideoClip]:
        """Take the frame shown in ``span``, if it is wanted; gives a chunk when one is full."""
        start_ns, end_ns = span
        if not self._picks.want(start_ns, key=key):
            return
        if self._holds and self._times:
            self._times[-1] = (self._times[-1][0], start_ns)
            if self._buffer is not None and len(self._times) == len(self._buffer):
                yield from self._give()
        pixels = turn.apply(self._scaler.pixels(frame))
        if self._buffer is not None and self._buffer.shape[1:] != pixels.shape:
            yield from self._give()
        if self._buffer is None:
            count = max(1, min(self._chunk, _CHUNK_BYTES // pixels.size))
            self._buffer = np.empty((count, *pixels.shape), dtype=np.uint8)
        self._buffer[len(self._times)] = pixels
        self._times.append((start_ns, end_ns))
        if len(self._times) == len(self._buffer) and not self._holds:
            yield from self._give()

    def finish(self, end_ns: int) -> Iterator[VideoClip]:
        """Give what has been gathered; the video ends at ``end_ns``."""
        if self._holds and self._times:
            self._times[-1] = (self._times[-1][0], end_ns)
        yield from self._give()

    def _give(self) -> Iterator[VideoClip]:
        if self._buffer is None or not self._times:
            return
        times = np.array(self._times, dtype=np.int64)
        pixels = self._buffer[: len(self._times)]
        self._buffer, self._times = None, []
        yield VideoClip(
            pixels=pixels,
            start_ns=np.ascontiguousarray(times[:, 0]),
            end_ns=np.ascontiguousarray(times[:, 1]),
        )


class _Picks:
    """Which frames a request wants: by key frame, then by the grid of its rate."""

    def __init__(self, request: FrameRequest) -> None:
        self._rate = None if request.rate is None else Fraction(request.rate)
        self._keyframes_only = request.keyframes_only
        self._origin_ns: int | None = None
        self._tick = 0

    def want(self, start_ns: int, *, key: bool) -> bool:
        """Whether the frame that starts at ``start_ns`` is wanted; the first one always is."""
        if self._origin_ns is None:
            self._origin_ns = start_ns
        elif self._keyframes_only and not key:
            return False
        if self._rate is None:
            return True
        ticks = (start_ns - self._origin_ns) * self._rate / NS_PER_SECOND
        if ticks < self._tick:
            return False
        self._tick = int(ticks) + 1
        return True


class _Scaler:
    """Turns decoded frames into arrays of one size and format."""

    def __init__(self, request: FrameRequest) -> None:
        from av.video.reformatter import VideoReformatter

        self._request = request
        self._size: tuple[int, int] | None = None
        self._small, self._final = VideoReformatter(), VideoReformatter()

    def pixels(self, frame: VideoFrame) -> Pixels:
        """Return ``[H, W, 3]`` or ``[H, W]``, full range.

        Colour that is stored at half its resolution is scaled down as YUV 4:2:2 first, which FFmpeg makes faster.
        """
        from av.video.reformatter import ColorRange, Interpolation

        frame = planar(frame)
        if self._size is None:
            self._size = scaled(frame.width, frame.height, self._request.short_side)
        width, height = self._size
        full = (
            frame.color_range == ColorRange.JPEG
            or frame.format.name.startswith(("yuvj", "gray"))
            or frame.format.is_rgb
        )
        if self._request.pixel_format == "rgb24" and height < frame.height and frame.format.name.startswith(_HALVED):
            frame = self._small.reformat(
                frame,
                width=width,
                height=height,
                format="yuv422p",
                interpolation=Interpolation.AREA,
                src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
                dst_color_range=ColorRange.JPEG,
                threads=1,
            )
            full = True
        converted = self._final.reformat(
            frame,
            width=width,
            height=height,
            format=self._request.pixel_format,
            interpolation=Interpolation.AREA,
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        return cast("Pixels", converted.to_ndarray())


def planar(frame: VideoFrame) -> VideoFrame:
    """The same numbers in planes, as software decoders give them, where hardware gave colour interleaved."""
    layout = _PLANAR.get(frame.format.name)
    if layout is None:
        return frame
    return frame.reformat(format=layout, src_color_range=frame.color_range, dst_color_range=frame.color_range)


def scaled(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height with the shorter side at most ``short_side`` and the longer one rounded to an even number."""
    short = min(width, height)
    if short_side is None or short <= short_side:
        return width, height
    long = 2 * round(Fraction(max(width, height) * short_side, 2 * short))
    return (short_side, long) if width <= height else (long, short_side)
