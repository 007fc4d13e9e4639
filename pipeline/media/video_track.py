"""The packets of one video stream as frames at their true times, handed to every request."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from features.base import FrameRequest
from features.errors import Reason
from features.time import NS_PER_SECOND, Span, round_ns, seconds_to_ns, ticks_to_ns
from features.types import VideoClip
from pipeline.media.audio import track_span
from pipeline.media.container import SOFTWARE, choose, clock_offset_ns, pyav, seek
from pipeline.media.frames import Feed, Turn
from pipeline.media.source import Limits, Source

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


@dataclass(frozen=True)
class FrameChunk:
    """The next frames for one request."""

    key: str
    clip: VideoClip


@dataclass(frozen=True)
class Notice:
    """Something a person must be told: what is missing or was mended."""

    message: str


@dataclass(frozen=True)
class Job:
    """What is to be decoded."""

    source: Source
    frames: Mapping[str, FrameRequest]
    span: Span | None
    limits: Limits
    chunk: int
    threads: int
    hardware: bool = False
    """Decoded by the GPU, which was seen to give what software gives."""


class SeekMissedError(Exception):
    """The decoder came out after the beginning of the window."""


class VideoTrack:
    """One video stream at work. Equal requests share their frames.

    Where every request is for key frames only, the other packets are not decoded, save those that lead up to the first
    frame of a window: their times alone are read, to know when the video ends.
    """

    def __init__(self, job: Job, container: InputContainer, *, sought: bool = False) -> None:
        self._source = job.source
        self._span = job.span
        self._sought = sought
        self.stream: VideoStream = choose(job.source, container.streams.video, Reason.NO_VIDEO_TRACK)
        self._time_base = self.stream.time_base or Fraction(1, 1)
        self._offset_ns = clock_offset_ns(container)
        self._declared = _declared(self.stream, self._offset_ns)
        context = self.stream.codec_context
        context.thread_count = job.threads
        context.thread_type = "SLICE"
        self._limits = job.limits
        self._hardware = job.hardware
        self._check_size(context.width, context.height)
        keys: dict[FrameRequest, list[str]] = {}
        for key, request in job.frames.items():
            keys.setdefault(request, []).append(key)
        self._feeds = [Feed(tuple(names), request, job.chunk) for request, names in keys.items()]
        self._skips = all(request.keyframes_only for request in keys)
        self._packets = _PacketTimes(self._time_ns, job.span)
        self._pending: VideoFrame | None = None
        self._pending_ns = self._end_ns = 0
        self._last_ns: int | None = None
        self._gap_ns = 0
        self._good = self._kept = self._broken = self._corrupt = self._untimed = self._disordered = self._resized = 0
        self._size: tuple[int, int] | None = None
        self._odd_matrix = self._interlaced = False
        self._short: str | None = None
        self.done = False

    def seek(self, container: InputContainer, time_ns: int) -> None:
        """Go to a key frame at or before ``time_ns``; raises ``SeekMissedError`` where the container cannot.

        A window that begins before the track does needs no seek.
        """
        if self._declared is not None and self._span is not None and self._declared.start_ns >= self._span.start_ns:
            self._sought = False
            return
        try:
            seek(container, self.stream, time_ns)
        except pyav().FFmpegError as error:
            raise SeekMissedError from error

    def push(self, packet: Packet[Any]) -> Iterator[FrameChunk]:
        """Decode one packet (or flush the decoder with the empty packet that ends a stream)."""
        self._packets.add(packet)
        if self._skips and self._kept and packet.size and not packet.is_keyframe:
            return
        try:
            frames: list[VideoFrame] = packet.decode()
        except pyav().FFmpegError:
            self._broken += 1
            return
        for frame in frames:
            if self.done:
                return
            yield from self._take(frame)

    def finish(self) -> Iterator[FrameChunk | Notice]:
        """Deliver the last frames and the notices. Raises ``SampleError`` when there was no usable frame."""
        if self._sought and self._last_ns is None:
            raise SeekMissedError
        if self._pending is not None and not self.done:
            end_ns = self._pending_ns + self._last_duration_ns(self._pending)
            if self._skips:
                end_ns = self._packets.end_ns(end_ns)
            yield from self._deliver(self._pending, self._pending_ns, end_ns)
            if self._declared is not None and self._declared.end_ns - end_ns > 2 * (end_ns - self._pending_ns):
                self._short = f"the video ends at {_seconds(end_ns)} of {_seconds(self._declared.end_ns)} declared"
        elif self._skips:
            self._end_ns = self._packets.end_ns(self._end_ns)
        self._pending = None
        for feed in self._feeds:
            yield from _chunks(feed, feed.finish(self._end_ns))
        self._check_outcome()
        yield from (Notice(f"{self._source.uri}: {message}") for message in self._messages())

    def _time_ns(self, ticks: int) -> int:
        return ticks_to_ns(ticks, self._time_base) - self._offset_ns

    def _take(self, frame: VideoFrame) -> Iterator[FrameChunk]:
        if frame.is_corrupt:
            self._corrupt += 1
            return
        ticks = frame.pts if frame.pts is not None else frame.dts
        if ticks is None:
            self._untimed += 1
            return
        start_ns = self._time_ns(ticks)
        if self._last_ns is None and self._sought and self._span is not None and start_ns > self._span.start_ns:
            raise SeekMissedError
        if self._last_ns is not None and start_ns <= self._last_ns:
            self._disordered += 1
            return
        if self._pending is not None:
            self._gap_ns = start_ns - self._pending_ns
            yield from self._deliver(self._pending, self._pending_ns, start_ns)
        self._good += 1
        self._pending, self._pending_ns, self._last_ns = frame, start_ns, start_ns
        self.done = self._span is not None and start_ns >= self._span.end_ns

    def _last_duration_ns(self, frame: VideoFrame) -> int:
        if frame.duration:
            return ticks_to_ns(frame.duration, self._time_base)
        if self._gap_ns:
            return self._gap_ns
        rate = self.stream.average_rate or self.stream.guessed_rate
        return round_ns(NS_PER_SECOND * rate.denominator, rate.numerator) if rate else 0

    def _deliver(self, frame: VideoFrame, start_ns: int, end_ns: int) -> Iterator[FrameChunk]:
        if self._span is not None and Span(start_ns, end_ns).overlap_ns(self._span) == 0:
            return
        self._check_size(frame.width, frame.height)
        self._size = self._size or (frame.width, frame.height)
        self._resized += self._size != (frame.width, frame.height)
        turn = Turn.of(frame)
        self._odd_matrix |= turn is None
        self._interlaced |= bool(frame.interlaced_frame)
        self._kept += 1
        self._end_ns = end_ns
        key = self._packets.is_key(frame.pts if frame.pts is not None else frame.dts)
        for feed in self._feeds:
            yield from _chunks(feed, feed.push(frame, turn or Turn(), (start_ns, end_ns), key=key))

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limits.max_image_pixels:
            raise self._source.error(
                Reason.TOO_LARGE,
                f"got frames of {width}x{height}, allowed: {self._limits.max_image_pixels} pixels; cure: scale it or "
                "raise the limit",
            )

    def _check_outcome(self) -> None:
        if self._hardware and self._broken + self._corrupt:
            raise self._source.error(
                Reason.UNREADABLE,
                f"the GPU decoded {self._broken} packets not at all and {self._corrupt} frames with faults, where "
                f"software may use more; {SOFTWARE}",
            )
        bad_times = self._untimed + self._disordered
        if bad_times > self._good:
            raise self._source.error(
                Reason.BAD_TIMESTAMPS,
                f"{self._untimed} frames have no time and {self._disordered} go back in time, {self._good} are good; "
                "cure: put it into a container with times (ffmpeg -fflags +genpts -i IN -c copy OUT.mp4)",
            )
        if self._kept:
            return
        if self._span is not None and self._last_ns is not None:
            raise self._source.error(
                Reason.EMPTY,
                f"got no frame inside {self._span}, allowed: a window that overlaps {self._declared}; cure: correct it",
            )
        raise self._source.error(
            Reason.CORRUPT,
            f"not one frame can be decoded ({self._broken} broken packets, {self._corrupt} corrupt frames); "
            "cure: copy it again",
        )

    def _messages(self) -> Iterator[str]:
        if self._broken:
            yield f"{self._broken} video packets could not be decoded"
        if self._corrupt:
            yield f"{self._corrupt} damaged frames were left out; the frame before lasts until the next good one"
        if self._untimed or self._disordered:
            yield f"{self._untimed} frames without a time and {self._disordered} that go back in time were dropped"
        if self._resized:
            yield f"the frame size changes: {self._resized} frames were scaled to the size of the first"
        if self._odd_matrix:
            yield "the display matrix is no quarter turn or mirror image and was not applied"
        if self._interlaced:
            yield "the video is interlaced: a frame shows two fields, which are not separated"
        if self._short:
            yield self._short


def _chunks(feed: Feed, clips: Iterator[VideoClip]) -> Iterator[FrameChunk]:
    for clip in clips:
        yield from (FrameChunk(key, clip) for key in feed.keys)


class _PacketTimes:
    """What the packets of a stream tell without being decoded: which are key frames, and when the frames end."""

    def __init__(self, time_ns: Callable[[int], int], span: Span | None) -> None:
        self._time_ns = time_ns
        self._span = span
        self._keys: set[int] = set()
        self._last: list[tuple[int, int]] = []
        self._beyond_ns: int | None = None

    def add(self, packet: Packet[Any]) -> None:
        """Note the times of one packet. Those that only prepare the decoder (an edit list cuts them) do not count."""
        ticks = packet.pts if packet.pts is not None else packet.dts
        if ticks is None or packet.is_discard:
            return
        if packet.is_keyframe:
            self._keys.add(ticks)
        start_ns = self._time_ns(ticks)
        self._last = sorted([*self._last, (start_ns, self._time_ns(ticks + (packet.duration or 0)))])[-2:]
        if self._span is not None and start_ns >= self._span.end_ns:
            self._beyond_ns = start_ns if self._beyond_ns is None else min(self._beyond_ns, start_ns)

    def end_ns(self, otherwise_ns: int) -> int:
        """When the last frame ends (of a window, the last one that begins in it): as ``VideoTrack`` says of frames."""
        if self._beyond_ns is not None:
            return self._beyond_ns
        if not self._last:
            return otherwise_ns
        (before_ns, _), (start_ns, end_ns) = self._last[0], self._last[-1]
        if end_ns > start_ns:
            return end_ns
        return 2 * start_ns - before_ns if before_ns < start_ns else otherwise_ns

    def is_key(self, ticks: int | None) -> bool:
        """Whether the frame shown at ``ticks`` came as a key frame; asked in order of time."""
        found = ticks in self._keys
        if ticks is not None and self._keys:
            self._keys = {key for key in self._keys if key > ticks}
        return found


def _declared(stream: VideoStream, offset_ns: int) -> Span | None:
    """When the container says that the track lasts; Matroska says it in a tag (``DURATION: 00:00:30.003000000``)."""
    span = track_span(stream, offset_ns)
    tag = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)\D*", stream.metadata.get("DURATION", ""))
    if span is not None or tag is None or stream.time_base is None:
        return span
    hours, minutes, seconds = tag.groups()
    end_ns = seconds_to_ns(3600 * int(hours) + 60 * int(minutes) + Fraction(seconds))
    start_ns = ticks_to_ns(stream.start_time or 0, stream.time_base)
    return Span(start_ns - offset_ns, end_ns - offset_ns) if end_ns > start_ns else None


def _seconds(time_ns: int) -> str:
    return f"{time_ns / NS_PER_SECOND:.3f} s"
