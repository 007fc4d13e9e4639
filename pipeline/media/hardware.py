"""A GPU's own video decoder (NVDEC), used for a file only where it gives what software gives.

The standards of H.264, HEVC, VP8, VP9 and AV1 say to the bit what a decoder gives, so it does not matter which one
decoded, and no key of a feature says so. That is not taken on trust: before each pass some frames of two places of the
file are decoded both ways and compared, pixels, times and range. What the GPU cannot decode or gives otherwise (MPEG-2
and MPEG-4 Visual leave rounding open) is decoded in software, and a notice says why.

A file costs two more openings of the GPU's decoder and of the file, so it pays for long ones.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from features.errors import Reason, SampleError
from features.time import NS_PER_SECOND, Span
from pipeline.media.container import Demuxer, choose, clock_offset_ns, open_container, pyav
from pipeline.media.frames import Pixels, planar
from pipeline.media.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.codec.hwaccel import HWAccel
    from av.video.frame import VideoFrame

_COMPARED = 4
"""Frames compared at each place."""


def accelerator() -> HWAccel:
    """What tells PyAV to decode on the GPU."""
    from av.codec.hwaccel import HWAccel

    return HWAccel("cuda", allow_software_fallback=False)


def missing() -> str | None:
    """Why no GPU decodes video on this machine; ``None`` where one does."""
    av = pyav()
    try:
        accelerator().create(av.codec.Codec("h264", "r"))
    except (av.FFmpegError, NotImplementedError) as error:
        return str(error)
    return None


def disagreement(source: Source, span: Span | None) -> str | None:
    """Why a file is not decoded on the GPU; ``None`` where the frames compared are the same as in software.

    Compared are the first frames of ``span``, or of the file and from its middle on.
    """
    try:
        for from_ns in [0, _middle_ns(source)] if span is None else [span.start_ns]:
            wanted = list(islice(_frames(source, None, from_ns), _COMPARED))
            got = list(islice(_frames(source, accelerator(), from_ns), _COMPARED))
            if len(got) != len(wanted):
                return f"it gives {len(got)} of {len(wanted)} frames"
            for ours, theirs in zip(wanted, got, strict=True):
                if (told := _difference(ours, theirs)) is not None:
                    return told
    except SampleError as error:
        return str(error)
    return None


def _middle_ns(source: Source) -> int:
    with open_container(source) as container:
        return (container.duration or 0) * 500  # told in microseconds


def _frames(source: Source, hwaccel: HWAccel | None, from_ns: int) -> Iterator[VideoFrame]:
    """The frames from a key frame at or before ``from_ns`` on; all of them for 0."""
    av = pyav()
    with open_container(source, hwaccel) as container:
        stream = choose(source, container.streams.video, Reason.NO_VIDEO_TRACK)
        context = stream.codec_context
        if hwaccel is not None and not context.is_hwaccel:
            raise source.error(Reason.UNSUPPORTED_FORMAT, f"the GPU does not decode {context.name}")
        if from_ns:
            seconds = Fraction(from_ns + clock_offset_ns(container), NS_PER_SECOND)
            try:
                container.seek(int(seconds / (stream.time_base or Fraction(1))), stream=stream)
            except av.FFmpegError:
                return  # cannot be sought in, by neither
        for packet in Demuxer(container, (stream,)):
            try:
                frames: list[Any] = packet.decode()
            except av.FFmpegError:
                continue  # as in a pass, which counts it
            yield from frames


def _difference(software: VideoFrame, hardware: VideoFrame) -> str | None:
    hardware = planar(hardware)
    if software.pts != hardware.pts:
        return f"it gives a frame at tick {hardware.pts} where software gives one at {software.pts}"
    if software.color_range != hardware.color_range or not _same_pixels(software, hardware):
        return f"its frame at tick {software.pts} is another"
    return None


def _same_pixels(one: VideoFrame, other: VideoFrame) -> bool:
    if (one.width, one.height, len(one.planes)) != (other.width, other.height, len(other.planes)):
        return False
    return all(np.array_equal(*pair) for pair in zip(_planes(one), _planes(other), strict=True))


def _planes(frame: VideoFrame) -> Iterator[Pixels]:
    """The bytes of each plane, ``[H, W]``, without what pads a line."""
    bits = max(component.bits for component in frame.format.components)
    for plane in frame.planes:
        lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        yield lines[: plane.height, : plane.width * (2 if bits > 8 else 1)]
