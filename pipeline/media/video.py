"""Video in, chunks of frames at their true times out: one pass over the file feeds every request, and the sound too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from features.base import FrameRequest
from features.errors import Reason, SampleError
from features.time import NS_PER_SECOND, Span, round_ns, ticks_to_ns
from features.types import AudioClip, Stream, VideoClip
from pipeline.media.audio import AudioTrack, check_finite, read_audio, track_span
from pipeline.media.container import Demuxer, choose, clock_offset_ns, open_container, pyav
from pipeline.media.source import DEFAULT_LIMITS, Limits, Source

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.sidedata.sidedata import SideData
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

Pixels: TypeAlias = npt.NDArray[np.uint8]

_CHUNK_BYTES = 4 << 20  # larger buffers cost more in page faults than in calls
_STEPS_BACK_NS = (0, 2 * NS_PER_SECOND, 20 * NS_PER_SECOND)


@dataclass(frozen=True)
class FrameChunk:
    """The next frames for one request."""

    key: str
    clip: VideoClip


@dataclass(frozen=True)
class AudioChunk:
    """The next piece of the sound; pieces follow each other without gap."""

    clip: AudioClip


@dataclass(frozen=True)
class Notice:
    """Something a person must be told: what is missing or was mended."""

    message: str


@dataclass(frozen=True)
class Failure:
    """One of the two streams asked for cannot be used, for the reason in ``error``; the other one goes on."""

    stream: Stream
    error: SampleError


Event: TypeAlias = FrameChunk | AudioChunk | Notice | Failure


def decode(
    source: Source,
    *,
    frames: Mapping[str, FrameRequest],
    span: Span | None = None,
    audio: bool = False,
    limits: Limits = DEFAULT_LIMITS,
    chunk: int = 16,
    threads: int = 1,
) -> Iterator[Event]:
    """Decode a video once for every request in ``frames`` and, with ``audio``, the sound of the same container.

    The first default video track is read (cover pictures do not count). A frame is shown from its own presentation
    time to that of the next frame; the last one for its own duration, or else for as long as the one before it. All
    times are on the file's clock (``container.clock_offset_ns``). Frames come upright (display matrix applied), in
    display order; pixels are square as coded (the sample aspect ratio is not applied), fields are not separated.

    Each request gets its frames in chunks of at most ``chunk`` frames and 4 MiB (or one frame), so memory does not
    grow with the length. ``short_side`` scales down by area, never up; the longer side is rounded to the nearest
    even number. ``rate`` lays a grid of ticks from the first frame and takes the first frame at or after each tick (a
    frame that serves several ticks comes once). Grey and RGB are full range, by the colour matrix that the stream
    declares (BT.601 where it does not). ``threads`` is what one decoder may use.

    With ``span`` the frames whose time ``[start, end)`` overlaps it are returned; the first may begin before it. They
    are the frames that a full pass gives, at the same times. The sound is cut to the sample, as by ``read_audio``.

    Broken packets, and frames that the decoder marks as corrupt, are left out with a ``Notice``: the frame before them
    lasts until the next good one. Frames whose time does not increase are dropped with a ``Notice``.

    Raises ``ValueError`` at once for impossible arguments, and while iterating ``SampleError`` when nothing asked for
    can be read: what ``Source`` raises, ``unsupported_format``, ``corrupt``, ``no_video_track``, ``no_audio_track``,
    ``empty`` (no frame, or none inside ``span``), ``bad_timestamps`` (no times, or more frames dropped for their time
    than kept) or ``too_large``. When both streams are asked for and one fails, a ``Failure`` says so and the other
    goes on.
    """
    if not frames and not audio:
        raise ValueError("decode: got no request, allowed: at least one of frames and audio")
    if chunk < 1 or threads < 1:
        raise ValueError(f"decode: got chunk {chunk} and threads {threads}, allowed: at least 1")
    for key, request in frames.items():
        if request.rate is not None and not request.rate > 0:
            raise ValueError(f"decode: {key}: got rate {request.rate}, allowed: above 0, or None for every frame")
        if request.short_side is not None and request.short_side < 1:
            raise ValueError(f"decode: {key}: got short_side {request.short_side}, allowed: at least 1, or None")
    job = _Job(source, frames, span, limits, chunk, threads)
    return _full_pass(job, audio=audio) if span is None else _window_pass(job, span, audio=audio)


def _window_pass(job: _Job, span: Span, *, audio: bool) -> Iterator[Event]:
    failed: SampleError | None = None
    if job.frames:
        try:
            yield from _window(job, span)
        except SampleError as error:
            if not audio:
                raise
            failed = error
    if audio:
        yield from _window_audio(job, span, failed)


@dataclass(frozen=True)
class _Job:
    source: Source
    frames: Mapping[str, FrameRequest]
    span: Span | None
    limits: Limits
    chunk: int
    threads: int


class _SeekMissedError(Exception):
    """The decoder came out after the beginning of the window."""


def _full_pass(job: _Job, *, audio: bool) -> Iterator[Event]:
    """One full pass; a stream that fails ends the pass only when no other is left."""
    with open_container(job.source) as container:
        tracks: dict[Stream, _VideoTrack | _SoundTrack] = {}
        failures: list[Failure] = []
        makers: list[tuple[Stream, Any]] = []
        if job.frames:
            makers.append(("video", _VideoTrack))
        if audio:
            makers.append(("audio", _SoundTrack))
        for name, make in makers:
            try:
                tracks[name] = make(job, container)
            except SampleError as error:
                failures.append(Failure(name, error))
        yield from _report(failures, tracks)
        packets = Demuxer(container, tuple(track.stream for track in tracks.values()))
        by_index = {track.stream.index: name for name, track in tracks.items()}
        for packet in packets:
            name = by_index[packet.stream.index]
            if name in tracks:
                try:
                    yield from tracks[name].push(packet)
                except SampleError as error:
                    del tracks[name]
                    yield from _report([Failure(name, error)], tracks)
        for name in list(tracks):
            try:
                yield from tracks[name].finish()
            except SampleError as error:
                del tracks[name]
                yield from _report([Failure(name, error)], tracks)
        if packets.stopped:
            yield Notice(f"{job.source.uri}: reading stopped: {packets.stopped}")


def _report(failures: list[Failure], others: Mapping[Stream, object]) -> Iterator[Event]:
    if failures and not others:
        raise failures[0].error
    yield from failures


def _window(job: _Job, span: Span) -> Iterator[Event]:
    """Decode from a key frame before the window; where a seek lands too late, from further back or the start."""
    for back_ns in _STEPS_BACK_NS:
        try:
            yield from _window_from(job, span.start_ns - back_ns)
        except _SeekMissedError:
            continue
        return
    yield from _window_from(job, None)


def _window_from(job: _Job, from_ns: int | None) -> Iterator[Event]:
    with open_container(job.source) as container:
        track = _VideoTrack(job, container, sought=from_ns is not None)
        if from_ns is not None:
            track.seek(container, from_ns)
        packets = Demuxer(container, (track.stream,))
        for packet in packets:
            yield from track.push(packet)
            if track.done:
                break
        yield from track.finish()
        if packets.stopped:
            yield Notice(f"{job.source.uri}: reading stopped: {packets.stopped}")


def _window_audio(job: _Job, span: Span, failed: SampleError | None) -> Iterator[Event]:
    notes: list[str] = []
    try:
        clip = read_audio(job.source, span=span, limits=job.limits, note=notes.append)
    except SampleError as error:
        if failed is not None or not job.frames:
            raise failed or error from None
        yield Failure("audio", error)
        return
    if failed is not None:
        yield Failure("video", failed)
    yield from (Notice(message) for message in notes)
    yield AudioChunk(clip)


class _SoundTrack:
    def __init__(self, job: _Job, container: InputContainer) -> None:
        self._source = job.source
        self.stream = choose(job.source, container.streams.audio, Reason.NO_AUDIO_TRACK)
        self._track = AudioTrack(job.source, self.stream, clock_offset_ns(container), job.limits)

    def push(self, packet: Packet[Any]) -> Iterator[Event]:
        for clip in self._track.push(cast("Packet[AudioStream]", packet)):
            yield self._chunk(clip)

    def finish(self) -> Iterator[Event]:
        for clip in self._track.finish():
            yield self._chunk(clip)
        yield from (Notice(message) for message in self._track.notes)

    def _chunk(self, clip: AudioClip) -> AudioChunk:
        check_finite(self._source, clip.samples)
        return AudioChunk(clip)


class _VideoTrack:
    """The packets of one video stream as chunks for every request."""

    def __init__(self, job: _Job, container: InputContainer, *, sought: bool = False) -> None:
        self._source = job.source
        self._span = job.span
        self._sought = sought
        self.stream: VideoStream = choose(job.source, container.streams.video, Reason.NO_VIDEO_TRACK)
        self._time_base = self.stream.time_base or Fraction(1, 1)
        self._offset_ns = clock_offset_ns(container)
        self._declared = track_span(self.stream, self._offset_ns)
        context = self.stream.codec_context
        context.thread_count = job.threads
        context.thread_type = "SLICE"
        self._limits = job.limits
        self._check_size(context.width, context.height)
        self._feeds = [_Feed(key, request, job.chunk) for key, request in job.frames.items()]
        self._pending: VideoFrame | None = None
        self._pending_ns = 0
        self._last_ns: int | None = None
        self._gap_ns = 0
        self._good = self._kept = self._broken = self._corrupt = self._untimed = self._disordered = self._resized = 0
        self._size: tuple[int, int] | None = None
        self._odd_matrix = False
        self._short: str | None = None
        self.done = False

    def seek(self, container: InputContainer, time_ns: int) -> None:
        """Go to a key frame at or before ``time_ns``; raises ``_SeekMissedError`` where the container cannot.

        A window that begins before the track does needs no seek.
        """
        if self._declared is not None and self._span is not None and self._declared.start_ns >= self._span.start_ns:
            self._sought = False
            return
        base = self._time_base
        ticks = (time_ns + self._offset_ns) * base.denominator // (base.numerator * NS_PER_SECOND)
        try:
            container.seek(ticks, stream=self.stream)
        except pyav().FFmpegError as error:
            raise _SeekMissedError from error

    def push(self, packet: Packet[Any]) -> Iterator[Event]:
        """Decode one packet (or flush the decoder with the empty packet that ends a stream)."""
        try:
            frames: list[VideoFrame] = packet.decode()
        except pyav().FFmpegError:
            self._broken += 1
            return
        for frame in frames:
            if self.done:
                return
            yield from self._take(frame)

    def finish(self) -> Iterator[Event]:
        """Deliver the last frames and the notices. Raises ``SampleError`` when there was no usable frame."""
        if self._sought and self._last_ns is None:
            raise _SeekMissedError
        if self._pending is not None and not self.done:
            end_ns = self._pending_ns + self._last_duration_ns(self._pending)
            yield from self._deliver(self._pending, self._pending_ns, end_ns)
            if self._declared is not None and self._declared.end_ns - end_ns > 2 * (end_ns - self._pending_ns):
                self._short = f"the video ends at {_seconds(end_ns)} of {_seconds(self._declared.end_ns)} declared"
        self._pending = None
        for feed in self._feeds:
            yield from feed.flush()
        self._check_outcome()
        yield from (Notice(f"{self._source.uri}: {message}") for message in self._messages())

    def _take(self, frame: VideoFrame) -> Iterator[Event]:
        if frame.is_corrupt:
            self._corrupt += 1
            return
        ticks = frame.pts if frame.pts is not None else frame.dts
        if ticks is None:
            self._untimed += 1
            return
        start_ns = ticks_to_ns(ticks, self._time_base) - self._offset_ns
        if self._last_ns is None and self._sought and self._span is not None and start_ns > self._span.start_ns:
            raise _SeekMissedError
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

    def _deliver(self, frame: VideoFrame, start_ns: int, end_ns: int) -> Iterator[Event]:
        if self._span is not None and Span(start_ns, end_ns).overlap_ns(self._span) == 0:
            return
        self._check_size(frame.width, frame.height)
        self._size = self._size or (frame.width, frame.height)
        self._resized += self._size != (frame.width, frame.height)
        turn = _Turn.of(frame)
        self._odd_matrix |= turn is None
        self._kept += 1
        for feed in self._feeds:
            yield from feed.push(frame, turn or _Turn(), start_ns, end_ns)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._limits.max_image_pixels:
            raise self._source.error(
                Reason.TOO_LARGE,
                f"got frames of {width}x{height}, allowed: {self._limits.max_image_pixels} pixels; cure: scale it or "
                "raise the limit",
            )

    def _check_outcome(self) -> None:
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
        if self._short:
            yield self._short


def _seconds(time_ns: int) -> str:
    return f"{time_ns / NS_PER_SECOND:.3f} s"


@dataclass(frozen=True)
class _Turn:
    """A display matrix of quarter turns and mirror images: swap the axes, then flip."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def of(cls, frame: VideoFrame) -> _Turn | None:
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


class _Feed:
    """One request at work: picks, scales and gathers frames."""

    def __init__(self, key: str, request: FrameRequest, chunk: int) -> None:
        from av.video.reformatter import VideoReformatter

        self._key = key
        self._request = request
        self._chunk = chunk
        self._reformatter = VideoReformatter()
        self._size: tuple[int, int] | None = None
        self._buffer: Pixels | None = None
        self._times: list[tuple[int, int]] = []
        self._origin_ns: int | None = None
        self._tick = 0
        self._rate = None if request.rate is None else Fraction(request.rate)

    def push(self, frame: VideoFrame, turn: _Turn, start_ns: int, end_ns: int) -> Iterator[FrameChunk]:
        """Take one frame, if it is wanted; gives a chunk when one is full."""
        if not self._wanted(start_ns):
            return
        pixels = turn.apply(self._pixels(frame))
        if self._buffer is not None and self._buffer.shape[1:] != pixels.shape:
            yield from self.flush()
        if self._buffer is None:
            count = max(1, min(self._chunk, _CHUNK_BYTES // pixels.size))
            self._buffer = np.empty((count, *pixels.shape), dtype=np.uint8)
        self._buffer[len(self._times)] = pixels
        self._times.append((start_ns, end_ns))
        if len(self._times) == len(self._buffer):
            yield from self.flush()

    def flush(self) -> Iterator[FrameChunk]:
        """Give what has been gathered."""
        if self._buffer is None or not self._times:
            return
        times = np.array(self._times, dtype=np.int64)
        pixels = self._buffer[: len(self._times)]
        self._buffer, self._times = None, []
        yield FrameChunk(
            self._key,
            VideoClip(
                pixels=pixels,
                start_ns=np.ascontiguousarray(times[:, 0]),
                end_ns=np.ascontiguousarray(times[:, 1]),
            ),
        )

    def _wanted(self, start_ns: int) -> bool:
        if self._rate is None:
            return True
        if self._origin_ns is None:
            self._origin_ns = start_ns
        ticks = (start_ns - self._origin_ns) * self._rate / NS_PER_SECOND
        if ticks < self._tick:
            return False
        self._tick = int(ticks) + 1
        return True

    def _pixels(self, frame: VideoFrame) -> Pixels:
        from av.video.reformatter import ColorRange, Interpolation

        if self._size is None:
            self._size = _scaled(frame.width, frame.height, self._request.short_side)
        full = (
            frame.color_range == ColorRange.JPEG
            or frame.format.name.startswith(("yuvj", "gray"))
            or frame.format.is_rgb
        )
        converted = self._reformatter.reformat(
            frame,
            width=self._size[0],
            height=self._size[1],
            format=self._request.pixel_format,
            interpolation=Interpolation.AREA,
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        return cast("Pixels", converted.to_ndarray())


def _scaled(width: int, height: int, short_side: int | None) -> tuple[int, int]:
    """Width and height with the shorter side at most ``short_side`` and the longer one rounded to an even number."""
    short = min(width, height)
    if short_side is None or short <= short_side:
        return width, height
    long = 2 * round(Fraction(max(width, height) * short_side, 2 * short))
    return (short_side, long) if width <= height else (long, short_side)
