"""Sound in, ``AudioClip`` out: every channel, every sample, at its true time.

Two decoders: libsndfile for the formats that it reads exactly and fast (WAV, RF64, W64, AIFF, AU, FLAC, MP3), FFmpeg
for everything else and for the sound tracks of video files.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from features.errors import Reason, SampleError
from features.time import NS_PER_SECOND, Span, samples_to_ns, ticks_to_ns
from features.types import AudioClip
from pipeline.media.container import Demuxer, choose, clock_offset_ns, open_container, pyav
from pipeline.media.source import DEFAULT_LIMITS, Limits, Source

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream
    from soundfile import SoundFile

Samples: TypeAlias = npt.NDArray[np.float32]
Note: TypeAlias = Callable[[str], None]

_PREROLL_NS = NS_PER_SECOND // 2
_MAX_DRIFT_NS = NS_PER_SECOND // 20
_BLOCK_VALUES = 1 << 26
_FULL_SCALE = {"u8": 2.0**7, "s16": 2.0**15, "s32": 2.0**31, "s64": 2.0**63, "flt": 1.0, "dbl": 1.0}
_NATIVE_MAGICS = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b".snd", b"fLaC")

_STREAMED = 0xFFFFFF00  # a data chunk from here on is a stream whose length was never filled in
_PCM_TAGS = (1, 3, 0xFFFE)

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
    clip = _read_native(source, span, limits, note)
    if clip is None:
        clip = _read_track(source, span, limits, note)
    check_finite(source, clip.samples)
    return clip


def check_finite(source: Source, samples: Samples) -> None:
    """Raise ``SampleError(non_finite)`` when any sample is NaN or infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.vdot(samples, samples)):  # one pass; it may overflow, so a no is looked at again
            return
    bad = int(samples.size - np.count_nonzero(np.isfinite(samples)))
    if bad:
        raise source.error(
            Reason.NON_FINITE,
            f"got {bad} NaN or infinite samples, allowed: finite numbers; cure: export the sound again",
        )


def sample_range(start_ns: int, sample_rate: int, count: int, span: Span) -> tuple[int, int]:
    """Return ``(first, stop)``: the samples, of ``count`` that begin at ``start_ns``, whose time lies in ``span``."""

    def first_at_or_after(time_ns: int) -> int:
        index = max(0, min(count, (time_ns - start_ns) * sample_rate // NS_PER_SECOND - 1))
        while index < count and start_ns + samples_to_ns(index, sample_rate) < time_ns:
            index += 1
        return index

    return first_at_or_after(span.start_ns), first_at_or_after(span.end_ns)


def _is_native(head: bytes) -> bool:
    mp3_frame = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2  # sync, layer III
    return head[:4] in _NATIVE_MAGICS or head[:3] == b"ID3" or mp3_frame


def _read_native(source: Source, span: Span | None, limits: Limits, note: Note) -> AudioClip | None:
    """Read with libsndfile; ``None`` when the file is not one of its formats."""
    with source.open() as stream:
        if not _is_native(stream.read(4)):
            return None
        import soundfile

        missing = _riff_missing_bytes(source, stream)
        try:
            opened = soundfile.SoundFile(stream if source.local_path is None else source.local_path)
        except soundfile.LibsndfileError:
            return None
        with opened as file:
            if file.frames >= 2**62 or (file.format == "MP3" and file.frames * file.channels > _BLOCK_VALUES):
                return None  # length not declared, or an MP3 too long for one read: FFmpeg reads it in pieces
            try:
                clip = _read_soundfile(source, file, span, limits, note)
            except soundfile.LibsndfileError as error:
                raise source.error(Reason.CORRUPT, f"cannot be decoded ({error}); cure: copy it again") from error
    if missing:
        note(f"{source.uri}: the file is cut: {missing} bytes of sound that its header declares are missing")
    return clip


def _read_soundfile(source: Source, file: SoundFile, span: Span | None, limits: Limits, note: Note) -> AudioClip:
    rate, declared = file.samplerate, file.frames
    _check_channels(source, file.channels, limits)
    whole = Span(0, samples_to_ns(declared, rate))
    first, stop = (0, declared) if span is None else sample_range(0, rate, declared, span)
    if declared == 0 or first == stop:
        raise _nothing(source, span, whole if declared else None)
    _check_length(source, stop - first, rate, limits)
    if file.format == "MP3":  # libsndfile seeks in MP3 after each read and lands hundreds of samples off: read once
        samples = np.ascontiguousarray(_read_blocks(file, stop)[:, first:])
    else:
        file.seek(first)
        samples = _read_blocks(file, stop - first)
    got = samples.shape[1]
    if got == 0:
        raise source.error(Reason.CORRUPT, f"got none of the {declared} samples declared; cure: copy it again")
    if got < stop - first:
        note(f"{source.uri}: the file is cut: {first + got} of {declared} samples can be decoded")
    return AudioClip(samples=samples, sample_rate=rate, start_ns=samples_to_ns(first, rate))


def _read_blocks(file: SoundFile, count: int) -> Samples:
    """Read ``count`` frames, allocating as they come and not as the header claims."""
    step = max(1, _BLOCK_VALUES // file.channels)
    blocks: list[Samples] = []
    while count > 0:
        block: Samples = file.read(min(step, count), dtype="float32", always_2d=True).T
        if block.shape[1] == 0:
            break
        blocks.append(block)
        count -= block.shape[1]
    if not blocks:
        return np.zeros((file.channels, 0), dtype=np.float32)
    return np.ascontiguousarray(blocks[0] if len(blocks) == 1 else np.concatenate(blocks, axis=1))


def _riff_missing_bytes(source: Source, stream: BinaryIO) -> int:
    """Bytes of the ``data`` chunk that a WAV file declares and does not have (0 for a stream of unknown length).

    Raises ``SampleError(corrupt)`` when its PCM samples do not fill whole bytes of the declared block.
    """
    size = stream.seek(0, 2)
    stream.seek(0)
    missing = 0
    head = stream.read(12)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        position = 12
        while position + 8 <= size:
            stream.seek(position)
            chunk = stream.read(24)
            length = int.from_bytes(chunk[4:8], "little")
            if chunk[:4] == b"fmt " and len(chunk) == 24:
                _check_block(source, *struct.unpack("<HHIIHH", chunk[8:]))
            if chunk[:4] == b"data":
                missing = 0 if length >= _STREAMED else max(0, position + 8 + length - size)
                break
            position += 8 + length + length % 2
    stream.seek(0)
    return missing


def _check_block(source: Source, tag: int, channels: int, rate: int, byte_rate: int, block: int, bits: int) -> None:
    del rate, byte_rate
    if tag in _PCM_TAGS and channels and (block % channels or 8 * block < channels * bits):
        raise source.error(
            Reason.CORRUPT,
            f"the WAV header declares {channels} channels of {bits} bits in blocks of {block} bytes, allowed: whole "
            "bytes for every channel; cure: export it again",
        )


def _check_channels(source: Source, channels: int, limits: Limits) -> None:
    if channels > limits.max_audio_channels:
        raise source.error(
            Reason.TOO_LARGE,
            f"got {channels} channels, allowed: {limits.max_audio_channels}; cure: mix down or raise the limit",
        )


def _check_length(source: Source, count: int, rate: int, limits: Limits) -> None:
    if count > limits.max_audio_seconds * rate:
        raise source.error(
            Reason.TOO_LARGE,
            f"got {count / rate:.0f} s of sound or more, allowed: {limits.max_audio_seconds:g} s; cure: cut it, use "
            "windows (start and end in the catalog), or raise the limit",
        )


def _nothing(source: Source, span: Span | None, whole: Span | None) -> SampleError:
    if span is None or whole is None:
        return source.error(Reason.EMPTY, "got 0 samples of sound; cure: record it again or remove it from the catalog")
    return source.error(
        Reason.EMPTY, f"got no sample inside {span}, allowed: a window that overlaps {whole}; cure: correct it"
    )


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
            raise _nothing(self._source, None, None)

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
            _check_channels(self._source, self._channels, self._limits)
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
        _check_length(self._source, self._kept, self._rate, self._limits)

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
        raise _nothing(source, span, whole)
    rate, start_ns = clips[0].sample_rate, clips[0].start_ns
    samples = clips[0].samples if len(clips) == 1 else np.concatenate([clip.samples for clip in clips], axis=1)
    if span is not None:
        first, stop = sample_range(start_ns, rate, samples.shape[1], span)
        if first == stop:
            raise _nothing(source, span, whole or Span(start_ns, start_ns + samples_to_ns(samples.shape[1], rate)))
        samples, start_ns = samples[:, first:stop], start_ns + samples_to_ns(first, rate)
    return AudioClip(samples=np.ascontiguousarray(samples), sample_rate=rate, start_ns=start_ns)
