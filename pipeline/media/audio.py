"""Sound in, ``AudioClip`` out: every channel, every sample, at its true time.

Plain WAV is read as it lies in the file. Two decoders do the rest: libsndfile for the formats that it reads exactly and
fast (other WAV, RF64, W64, AIFF, AU, FLAC, MP3), FFmpeg for everything else and for the sound tracks of video files.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from features.errors import Reason, SampleError
from features.time import NS_PER_SECOND, Span, samples_to_ns, ticks_to_ns
from features.types import AudioClip
from pipeline.media.container import Demuxer, choose, clock_offset_ns, open_container, pyav
from pipeline.media.native import read_native
from pipeline.media.sound import Note, Samples, check_channels, check_length, nothing_found
from pipeline.media.sound import check_finite as check_finite
from pipeline.media.sound import sample_range as sample_range
from pipeline.media.source import DEFAULT_LIMITS, Limits, Source

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

_PREROLL_NS = NS_PER_SECOND // 2
_MAX_DRIFT_NS = NS_PER_SECOND // 20
_FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63, "flt": 1.0, "dbl": 1.0}

_log = logging.getLogger(__name__)


def read_audio(
    source: Source,
    *,
    span: Span | None = None,
    limits: Limits = DEFAULT_LIMITS,
    note: Note = _log.warning,
) -> AudioClip:
    """Read the sound of a sound or video file: the first default audio track, all channels, at its own rate.

    Samples are float32 ``[channels, N]``; integer formats have full scale ±1, floats are kept as they are, above 1 too.
    ``start_ns`` is the presentation time of the first sample on the file's clock (start offsets and edit lists count;
    encoder priming that the container declares is taken off). A format without times starts at 0.

    With ``span`` (on the same clock) exactly those samples are returned whose time lies in ``[start, end)``: for
    uncompressed sound, FLAC and MP3 they equal the same samples of the whole file bit by bit. In MP4, codecs with a
    memory (AAC, Opus) are decoded from half a second earlier. Containers that cannot seek to the sample (Matroska, MPEG
    streams, Ogg) are decoded from their beginning: a window never moves to save time.

    Timestamps may wander by 50 ms against the count of samples. What a person must be told (the file is cut short, its
    last packets are broken) goes to ``note``.

    Raises ``SampleError``: what ``Source`` raises, ``no_audio_track``, ``unsupported_format``, ``corrupt`` (also for a
    hole that broken packets leave), ``bad_timestamps`` (a gap or overlap of more than half a packet), ``empty`` (no
    samples, or none inside ``span``), ``non_finite`` (NaN or infinite samples) or ``too_large``.
    """
    clip = read_native(source, span, limits, note)
    if clip is None:
        clip = _read_track(source, span, limits, note)
    check_finite(source, clip.samples)
    return clip


class AudioTrack:
    """The packets of one audio stream as consecutive clips of about a second.

    Frames outside ``span`` are counted and left out; ``done`` tells that a frame beyond it has come. ``first_ns`` is
    when the first decoded frame begins. Raises ``SampleError`` as ``read_audio`` does, except ``non_finite``.
    """

    def __init__(
        self, source: Source, stream: AudioStream, offset_ns: int, limits: Limits, span: Span | None = None
    ) -> None:
        self._source = source
        self._time_base = stream.time_base or Fraction(1, 1)
        self._offset_ns = offset_ns
        self._declared = track_span(stream, offset_ns)
        self._limits = limits
        self._span = span
        self._rate = 0
        self._channels = 0
        self._start_ns = 0
        self._count = 0
        self._deviation_ns = 0
        self._suspect_ns: int | None = None
        self._kept = 0
        self._kept_from = 0
        self._largest = 0
        self._broken = 0
        self._pending: AudioFrame | None = None
        self._pieces: list[Samples] = []
        self.first_ns: int | None = None
        self.done = False

    def push(self, packet: Packet[AudioStream]) -> Iterator[AudioClip]:
        """Decode one packet (or flush the decoder with the empty packet that ends a stream)."""
        try:
            frames = packet.decode()
        except pyav().FFmpegError:
            self._broken += 1
            return
        for frame in frames:
            if self._pending is not None:
                self._join(self._pending)
            self._pending = frame
            if sum(piece.shape[1] for piece in self._pieces) >= max(self._rate, 1):
                yield self._clip()

    def finish(self) -> Iterator[AudioClip]:
        """Return what is left at the end of the stream, without the padding that the container declares."""
        if self._pending is not None and not self.done:
            frame, self._pending = self._pending, None
            declared = Fraction(frame.duration or 0) * self._time_base * frame.sample_rate
            exact = self._time_base * frame.sample_rate <= 1
            self._join(frame, stop=round(declared) if exact and 0 < declared < frame.samples else None)
        if self._suspect_ns is not None and abs(self._suspect_ns) > _MAX_DRIFT_NS and not self.done:
            raise self._gap(self._start_ns + samples_to_ns(self._count, self._rate), self._suspect_ns)
        if self._pieces:
            yield self._clip()
        if self.first_ns is None:
            if self._broken:
                raise self._source.error(
                    Reason.CORRUPT,
                    f"none of {self._broken} sound packets can be decoded; cure: copy or record it again",
                )
            raise nothing_found(self._source, None, None)

    @property
    def notes(self) -> list[str]:
        """What a person should be told once the track has been read."""
        found: list[str] = []
        if self._broken:
            found.append(f"{self._broken} sound packets at the edges could not be decoded and are missing")
        end_ns = self._start_ns + samples_to_ns(self._count, max(self._rate, 1))
        if self._declared is not None and not self.done and end_ns < self._declared.end_ns - _MAX_DRIFT_NS:
            found.append(f"the sound ends at {_seconds(end_ns)} of {_seconds(self._declared.end_ns)} declared")
        return [f"{self._source.uri}: {message}" for message in found]

    def _clip(self) -> AudioClip:
        samples = np.concatenate(self._pieces, axis=1)
        self._pieces.clear()
        begin = self._kept_from
        self._kept_from += samples.shape[1]
        return AudioClip(
            samples=samples, sample_rate=self._rate, start_ns=self._start_ns + samples_to_ns(begin, self._rate)
        )

    def _join(self, frame: AudioFrame, stop: int | None = None) -> None:
        ticks = frame.pts if frame.pts is not None else frame.dts
        time_ns = None if ticks is None else ticks_to_ns(ticks, self._time_base) - self._offset_ns
        if self.first_ns is None:
            self.first_ns = time_ns or 0
            self._rate, self._channels = frame.sample_rate, frame.layout.nb_channels
            self._start_ns = self.first_ns
            check_channels(self._source, self._channels, self._limits)
        if (frame.sample_rate, frame.layout.nb_channels) != (self._rate, self._channels):
            raise self._source.error(
                Reason.UNSUPPORTED_FORMAT,
                f"changes from {self._channels} channels at {self._rate} Hz to {frame.layout.nb_channels} at "
                f"{frame.sample_rate} Hz, allowed: one format; cure: convert it",
            )
        self._check_time(time_ns, frame)
        begin_ns = self._start_ns + samples_to_ns(self._count, self._rate)
        samples = _to_float(frame)[:, :stop]
        self._count += samples.shape[1]
        if self._span is not None:
            self.done = begin_ns >= self._span.end_ns
            if self.done or self._start_ns + samples_to_ns(self._count, self._rate) <= self._span.start_ns:
                return
        if not self._kept:
            self._kept_from = self._count - samples.shape[1]
        self._pieces.append(samples)
        self._kept += samples.shape[1]
        check_length(self._source, self._kept, self._rate, self._limits)

    def _check_time(self, time_ns: int | None, frame: AudioFrame) -> None:
        if time_ns is None:
            return
        deviation_ns = time_ns - self._start_ns - samples_to_ns(self._count, self._rate)
        self._largest = max(frame.samples, self._largest)
        half_ns = samples_to_ns(self._largest, self._rate) // 2
        tick_ns = ticks_to_ns(1, self._time_base)
        jump_ns = deviation_ns - self._deviation_ns
        if abs(jump_ns) > half_ns + tick_ns or abs(deviation_ns) > _MAX_DRIFT_NS + tick_ns:
            # Ogg Vorbis stamps single packets wrongly at page ends: only what stays is a gap.
            if self._suspect_ns is None:
                self._suspect_ns = deviation_ns
                return
            raise self._gap(time_ns, deviation_ns)
        self._deviation_ns = deviation_ns
        self._suspect_ns = None

    def _gap(self, time_ns: int, deviation_ns: int) -> SampleError:
        where = f"at {_seconds(time_ns)}"
        if self._broken:
            return self._source.error(
                Reason.CORRUPT,
                f"{where}: {self._broken} sound packets before it cannot be decoded; cure: copy it again",
            )
        return self._source.error(
            Reason.BAD_TIMESTAMPS,
            f"{where}: sound packets are {deviation_ns / 1e6:+.1f} ms off the samples before them, allowed: half a "
            f"packet, {_MAX_DRIFT_NS / 1e6:g} ms in all; cure: convert it, filling gaps (ffmpeg -af aresample)",
        )


def _to_float(frame: AudioFrame) -> Samples:
    """Return the frame as float32 ``[channels, n]``, full scale ±1."""
    kind = frame.format.name.removesuffix("p")
    if kind == "s64":  # which to_ndarray does not know
        count = frame.samples * (1 if frame.format.is_planar else frame.layout.nb_channels)
        values: npt.NDArray[Any] = np.stack([np.frombuffer(bytes(plane), np.int64, count) for plane in frame.planes])
    else:
        values = frame.to_ndarray()
    if not frame.format.is_planar:
        values = values.reshape(-1, frame.layout.nb_channels).T
    if kind in ("flt", "dbl"):
        return values.astype(np.float32)
    centre = 128 if kind == "u8" else 0
    return ((values.astype(np.float64) - centre) / _FULL_SCALE[kind]).astype(np.float32)


class _SeekMissedError(Exception):
    """The decoder did not come out before the window: read from the beginning instead."""


def _read_track(source: Source, span: Span | None, limits: Limits, note: Note) -> AudioClip:
    if span is not None:
        try:
            return _decode_track(source, span, limits, note, from_ns=span.start_ns - _PREROLL_NS)
        except _SeekMissedError:
            _log.debug("%s: no exact seek, decoding from the beginning", source.uri)
    return _decode_track(source, span, limits, note, from_ns=None)


def _decode_track(source: Source, span: Span | None, limits: Limits, note: Note, from_ns: int | None) -> AudioClip:
    with open_container(source) as container:
        stream = choose(source, container.streams.audio, Reason.NO_AUDIO_TRACK)
        offset_ns = clock_offset_ns(container)
        if from_ns is not None:
            _seek(container, stream, from_ns + offset_ns)
        track = AudioTrack(source, stream, offset_ns, limits, span)
        packets = Demuxer(container, (stream,))
        clips: list[AudioClip] = []
        for packet in packets:
            clips.extend(track.push(cast("Packet[AudioStream]", packet)))
            if (
                from_ns is not None
                and span is not None
                and track.first_ns is not None
                and track.first_ns > span.start_ns
            ):
                raise _SeekMissedError
            if track.done:
                break
        clips.extend(track.finish())
        whole = track_span(stream, offset_ns)
    for message in (*track.notes, *([f"{source.uri}: reading stopped: {packets.stopped}"] if packets.stopped else [])):
        note(message)
    return _cut(source, clips, span, whole)


def track_span(stream: AudioStream | VideoStream, offset_ns: int) -> Span | None:
    """From when to when the container says that a stream lasts, on the file's clock; ``None`` where it does not say."""
    if stream.time_base is None or not stream.duration:
        return None
    start = stream.start_time or 0
    return Span(*(ticks_to_ns(ticks, stream.time_base) - offset_ns for ticks in (start, start + stream.duration)))


def _seconds(time_ns: int) -> str:
    return f"{time_ns / NS_PER_SECOND:.3f} s"


def _seek(container: InputContainer, stream: AudioStream, time_ns: int) -> None:
    """Seek where seeking is exact: in MP4 and QuickTime, whose index knows every sample."""
    base, rate = stream.time_base, stream.rate
    if base is None or not rate or base * rate > 1 or "mp4" not in container.format.name:
        raise _SeekMissedError
    try:
        container.seek(time_ns * base.denominator // (base.numerator * NS_PER_SECOND), stream=stream)
    except pyav().FFmpegError as error:
        raise _SeekMissedError from error


def _cut(source: Source, clips: list[AudioClip], span: Span | None, whole: Span | None) -> AudioClip:
    if not clips:
        raise nothing_found(source, span, whole)
    rate, start_ns = clips[0].sample_rate, clips[0].start_ns
    samples = clips[0].samples if len(clips) == 1 else np.concatenate([clip.samples for clip in clips], axis=1)
    if span is not None:
        first, stop = sample_range(start_ns, rate, samples.shape[1], span)
        if first == stop:
            raise nothing_found(source, span, whole or Span(start_ns, start_ns + samples_to_ns(samples.shape[1], rate)))
        samples, start_ns = samples[:, first:stop], start_ns + samples_to_ns(first, rate)
    return AudioClip(samples=np.ascontiguousarray(samples), sample_rate=rate, start_ns=start_ns)
