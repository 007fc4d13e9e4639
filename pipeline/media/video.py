"""Video in, chunks of frames at their true times out: one pass over the file feeds every request, and the sound too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from features.base import FrameRequest
from features.errors import Reason, SampleError
from features.time import NS_PER_SECOND, Span
from features.types import AudioClip, Stream
from pipeline.media.audio import AudioTrack, check_finite, read_audio
from pipeline.media.container import Demuxer, choose, clock_offset_ns, open_container
from pipeline.media.hardware import accelerator, disagreement
from pipeline.media.source import DEFAULT_LIMITS, Limits, Source
from pipeline.media.video_track import FrameChunk, Job, Notice, SeekMissedError, VideoTrack

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

__all__ = ["AudioChunk", "Event", "Failure", "FrameChunk", "Notice", "decode"]

_STEPS_BACK_NS = (0, 2 * NS_PER_SECOND, 20 * NS_PER_SECOND)


@dataclass(frozen=True)
class AudioChunk:
    """The next piece of the sound; pieces follow each other without gap."""

    clip: AudioClip


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
    hardware: bool = False,
) -> Iterator[Event]:
    """Decode a video once for every request in ``frames`` and, with ``audio``, the sound of the same container.

    The first default video track is read (cover pictures do not count). A frame is shown from its own presentation
    time to that of the next frame; the last one for its own duration, or else for as long as the one before it. All
    times are on the file's clock (``container.clock_offset_ns``). Frames come upright (display matrix applied), in
    display order; pixels are square as coded (the sample aspect ratio is not applied); the fields of interlaced video
    are not separated, which a ``Notice`` tells.

    Each request gets its frames in chunks of at most ``chunk`` frames and 4 MiB (or one frame), so memory does not
    grow with the length. ``short_side`` scales down by area, never up; the longer side is rounded to the nearest
    even number. ``rate`` lays a grid of ticks from the first frame and takes the first frame at or after each tick (a
    frame that serves several ticks comes once). ``keyframes_only`` takes the first frame and then those of packets that
    the container marks as key frames. With it, or with ``until_next``, a frame lasts until the next one of its request,
    the last one until the video (or the last frame of the window) ends. Where all requests are for key frames, only
    those are decoded, at the same times; other damage than theirs then goes unseen. Grey and RGB are full range, by the
    colour matrix that the stream declares (BT.601 where it does not). ``threads`` is what one decoder may use.

    ``hardware``: the GPU decodes, where it gives what software gives (see ``hardware``, the module); where not, a
    ``Notice`` says why, and software does.

    With ``span`` the frames whose time ``[start, end)`` overlaps it are returned; the first may begin before it. They
    are the frames that a full pass gives, at the same times (of key frames: the first frame of the window, which need
    not be one, and those that begin in it). The sound is cut to the sample, as by ``read_audio``.

    Broken packets, and frames that the decoder marks as corrupt, are left out with a ``Notice``: the frame before them
    lasts until the next good one. Frames whose time does not increase are dropped with a ``Notice``.

    Raises ``ValueError`` at once for impossible arguments, and while iterating ``SampleError`` when nothing asked for
    can be read: what ``Source`` raises, ``unsupported_format``, ``corrupt``, ``no_video_track``, ``no_audio_track``,
    ``empty`` (no frame, or none inside ``span``), ``bad_timestamps`` (no times, or more frames dropped for their time
    than kept), ``too_large``, or ``unreadable`` where the GPU failed in the middle. When both streams are asked for
    and one fails, a ``Failure`` says so and the other goes on.
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
    job = Job(source, frames, span, limits, chunk, threads)
    return _on_hardware(job, audio=audio) if hardware and frames else _pass(job, audio=audio)


def _on_hardware(job: Job, *, audio: bool) -> Iterator[Event]:
    reason = disagreement(job.source, job.span)
    if reason is not None:
        yield Notice(f"{job.source.uri}: decoded in software, not by the GPU: {reason}")
    yield from _pass(replace(job, hardware=reason is None), audio=audio)


def _pass(job: Job, *, audio: bool) -> Iterator[Event]:
    return _full_pass(job, audio=audio) if job.span is None else _window_pass(job, job.span, audio=audio)


def _opened(job: Job) -> AbstractContextManager[InputContainer]:
    return open_container(job.source, accelerator() if job.hardware else None)


def _window_pass(job: Job, span: Span, *, audio: bool) -> Iterator[Event]:
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


def _full_pass(job: Job, *, audio: bool) -> Iterator[Event]:
    """One full pass; a stream that fails ends the pass only when no other is left."""
    with _opened(job) as container:
        tracks: dict[Stream, VideoTrack | _SoundTrack] = {}
        failures: list[Failure] = []
        makers: list[tuple[Stream, Any]] = []
        if job.frames:
            makers.append(("video", VideoTrack))
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


def _window(job: Job, span: Span) -> Iterator[Event]:
    """Decode from a key frame before the window; where a seek lands too late, from further back or the start."""
    for back_ns in _STEPS_BACK_NS:
        try:
            yield from _window_from(job, span.start_ns - back_ns)
        except SeekMissedError:
            continue
        return
    yield from _window_from(job, None)


def _window_from(job: Job, from_ns: int | None) -> Iterator[Event]:
    with _opened(job) as container:
        track = VideoTrack(job, container, sought=from_ns is not None)
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


def _window_audio(job: Job, span: Span, failed: SampleError | None) -> Iterator[Event]:
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
    def __init__(self, job: Job, container: InputContainer) -> None:
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
