"""A GPU's own video decoder (NVDEC), used for a file only where it gives what software gives.

The standards of H.264, HEVC, VP8, VP9 and AV1 say to the bit what a decoder gives, so it does not matter which one
decoded, and no key of a feature says so. That is not taken on trust: before each pass some frames of three places of
the file are decoded both ways and compared, pixels, times and range. What is damaged there, or what the GPU cannot
decode or gives otherwise (MPEG-2 and MPEG-4 Visual leave rounding open), is decoded in software; a notice says why.

A file costs three more openings of the GPU's decoder, and more of the file, so it pays for long ones.
"""

from __future__ import annotations

from itertools import islice, zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np

from features.errors import Reason, SampleError
from features.time import NS_PER_SECOND, Span
from pipeline.media.container import Demuxer, choose, open_container, pyav, seek
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

    Compared are the first frames of ``span``; or of the file, from its middle on, and all of its last second, where
    files that are cut short show it.
    """
    try:
        for from_ns, count in _places(source) if span is None else [(span.start_ns, _COMPARED)]:
            pairs = zip_longest(_frames(source, None, from_ns), _frames(source, accelerator(), from_ns))
            for ours, theirs in islice(pairs, count):
                if (told := _difference(ours, theirs)) is not None:
                    return told
    except SampleError as error:
        return str(error)
    return None


def _places(source: Source) -> list[tuple[int, int | None]]:
    """From where frames of a whole file are compared, and how many (``None``: all that follow)."""
    with open_container(source) as container:
        length_ns = (container.duration or 0) * 1_000  # told in microseconds
    return [(0, _COMPARED), (length_ns // 2, _COMPARED), (max(0, length_ns - NS_PER_SECOND), None)]


def _frames(source: Source, hwaccel: HWAccel | None, from_ns: int) -> Iterator[VideoFrame]:
    """The frames from a key frame at or before ``from_ns`` on; for 0 from the beginning.

    Raises ``SampleError`` where one is damaged: a decoder may make of it what it likes.
    """
    av = pyav()
    with open_container(source, hwaccel) as container:
        stream = choose(source, container.streams.video, Reason.NO_VIDEO_TRACK)
        context = stream.codec_context
        if hwaccel is not None and not context.is_hwaccel:
            raise source.error(Reason.UNSUPPORTED_FORMAT, f"the GPU does not decode {context.name}")
        packets = Demuxer(container, (stream,))
        try:
            if from_ns:
                seek(container, stream, from_ns)
            for packet in packets:
                frames: list[Any] = packet.decode()
                if packet.is_corrupt or any(frame.is_corrupt for frame in frames):
                    raise source.error(Reason.CORRUPT, "it is damaged")
                yield from frames
        except av.FFmpegError as error:
            raise source.error(Reason.CORRUPT, f"it is damaged, or cannot be sought in ({error})") from error
        if packets.stopped:
            raise source.error(Reason.CORRUPT, f"it is cut short ({packets.stopped})")


def _difference(software: VideoFrame | None, hardware: VideoFrame | None) -> str | None:
    if software is None or hardware is None:
        return f"it gives {'fewer' if hardware is None else 'more'} frames"
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
