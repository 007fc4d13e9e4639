"""Sound files that need no general decoder: plain WAV as it lies in the file, and what libsndfile reads."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from features.errors import Reason
from features.time import Span, samples_to_ns
from features.types import AudioClip
from pipeline.media import wav as wav_format
from pipeline.media.sound import Note, Samples, check_channels, check_length, nothing_found, sample_range
from pipeline.media.source import Limits, Source
from pipeline.media.wav import Wav

if TYPE_CHECKING:
    from soundfile import SoundFile

_BLOCK_VALUES = 1 << 26
_NATIVE_MAGICS = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b".snd", b"fLaC")
_HEAD_BYTES = 4096


def _is_native(head: bytes) -> bool:
    mp3_frame = len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2  # sync, layer III
    return head[:4] in _NATIVE_MAGICS or head[:3] == b"ID3" or mp3_frame


def read_native(source: Source, span: Span | None, limits: Limits, note: Note) -> AudioClip | None:
    """Read plain WAV as it lies, and other formats of libsndfile with it; ``None`` when the file is not one of them."""
    path = source.local
    if path is None:
        with source.open() as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            head = stream.read(_HEAD_BYTES)

            def read_at(at: int, count: int) -> bytes:
                stream.seek(at)
                return stream.read(count)

            wav = wav_format.parse(source, size, read_at) if _is_native(head) else None
            stream.seek(0)
            return _read_sndfile(source, stream, wav, span, limits, note) if _is_native(head) else None
    with _descriptor(source, path) as descriptor:
        head = os.pread(descriptor, _HEAD_BYTES, 0)
        if not _is_native(head):
            return None
        wav = None
        if head[:4] == b"RIFF":
            size = os.fstat(descriptor).st_size
            wav = wav_format.parse(source, size, lambda at, count: _bytes(descriptor, head, at, count))
        if wav is not None and wav.plain:
            first, stop = _wanted(source, wav.frames, wav.rate, wav.channels, span, limits)
            samples = wav.read(descriptor, first, stop)
            if samples.shape[1] == stop - first:
                return AudioClip(samples=samples, sample_rate=wav.rate, start_ns=samples_to_ns(first, wav.rate))
        return _read_sndfile(source, descriptor, wav, span, limits, note)


@contextmanager
def _descriptor(source: Source, path: str) -> Iterator[int]:
    """A file descriptor of a regular file with something in it; whatever else it is, ``Source.open`` says so."""
    try:
        status = os.stat(path)  # noqa: PTH116  # a Path costs more than the call
        plain = stat.S_ISREG(status.st_mode) and status.st_size > 0
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if plain else -1
    except OSError:
        descriptor = -1
    if descriptor < 0:
        with source.open() as stream:
            yield stream.fileno()
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _bytes(descriptor: int, head: bytes, at: int, count: int) -> bytes:
    return head[at : at + count] if at + count <= len(head) else os.pread(descriptor, count, at)


def _read_sndfile(
    source: Source, file: BinaryIO | int, wav: Wav | None, span: Span | None, limits: Limits, note: Note
) -> AudioClip | None:
    import soundfile

    try:
        opened = soundfile.SoundFile(file, closefd=False) if isinstance(file, int) else soundfile.SoundFile(file)
    except soundfile.LibsndfileError:
        return None
    with opened as sound:
        if sound.frames >= 2**62 or (sound.format == "MP3" and sound.frames * sound.channels > _BLOCK_VALUES):
            return None  # length not declared, or an MP3 too long for one read: FFmpeg reads it in pieces
        try:
            clip = _read_soundfile(source, sound, span, limits, note)
        except soundfile.LibsndfileError as error:
            raise source.error(Reason.CORRUPT, f"cannot be decoded ({error}); cure: copy it again") from error
    if wav is not None and wav.missing:
        note(f"{source.uri}: the file is cut: {wav.missing} bytes of sound that its header declares are missing")
    return clip


def _wanted(
    source: Source, declared: int, rate: int, channels: int, span: Span | None, limits: Limits
) -> tuple[int, int]:
    """The samples, of those declared, that are to be read. Raises ``SampleError`` for none and for too many."""
    check_channels(source, channels, limits)
    first, stop = (0, declared) if span is None else sample_range(0, rate, declared, span)
    if declared == 0 or first == stop:
        raise nothing_found(source, span, Span(0, samples_to_ns(declared, rate)) if declared else None)
    check_length(source, stop - first, rate, limits)
    return first, stop


def _read_soundfile(source: Source, file: SoundFile, span: Span | None, limits: Limits, note: Note) -> AudioClip:
    rate, declared = file.samplerate, file.frames
    first, stop = _wanted(source, declared, rate, file.channels, span, limits)
    if file.format == "MP3":  # libsndfile seeks in MP3 after each read and lands hundreds of samples off: read once
        samples = np.ascontiguousarray(_read_blocks(file, stop)[:, first:])
    else:
        if first:
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
