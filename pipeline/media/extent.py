"""How much is in a file, as its header says: how long it lasts, how many pixels it has. Nothing is decoded.

For planning only: what a header claims decides how work is cut into shards, never what is computed. Read in plain
Python, because a hostile file must not harm the process that plans.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from features.errors import SampleError
from features.time import NS_PER_SECOND
from pipeline.media.source import Source

_HEAD_BYTES = 64 << 10
_MOST_MOOV = 16 << 20
_MOST_BOXES = 10_000
_LONGEST_NS = 1_000_000 * NS_PER_SECOND
_NO_FRAME = (0xC4, 0xC8, 0xCC)


@dataclass(frozen=True)
class Extent:
    """``ns``: how long sound or video lasts; ``pixels``: width times height of a picture; 0: it is not said."""

    ns: int = 0
    pixels: int = 0


NOTHING_KNOWN = Extent()


def read_extent(source: Source) -> Extent:
    """What the header of a JPEG, PNG, GIF, WAV, FLAC, MP4 or QuickTime file says; of any other file, nothing.

    Raises nothing for a file that is broken or not there: that is found again, and told, when it is decoded.
    """
    try:
        with source.open() as stream:
            head = stream.read(_HEAD_BYTES)
            found = _of(head, stream)
    except (SampleError, OSError, struct.error, ArithmeticError):
        return NOTHING_KNOWN
    return found if 0 <= found.ns <= _LONGEST_NS else NOTHING_KNOWN


def _of(head: bytes, stream: BinaryIO) -> Extent:
    if head[:2] == b"\xff\xd8":
        return Extent(pixels=_jpeg_pixels(head))
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        width, height = struct.unpack_from(">II", head, 16)
        return Extent(pixels=width * height)
    if head[:4] == b"GIF8":
        width, height = struct.unpack_from("<HH", head, 6)
        return Extent(pixels=width * height)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return Extent(ns=_wav_ns(head, stream.seek(0, 2)))
    if head[:4] == b"fLaC":
        packed = int.from_bytes(head[18:26], "big")  # 20 bits of rate, 3 of channels, 5 of depth, 36 of samples
        return Extent(ns=(packed & 0xFFFFFFFFF) * NS_PER_SECOND // (packed >> 44))
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free"):
        return Extent(ns=_movie_ns(stream))
    return NOTHING_KNOWN


def _jpeg_pixels(head: bytes) -> int:
    position = 2
    while position + 9 <= len(head) and head[position] == 0xFF:
        marker = head[position + 1]
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            height, width = struct.unpack_from(">HH", head, position + 5)
            return int(height * width)
        position += 1 if marker == 0xFF else 2 + int.from_bytes(head[position + 2 : position + 4], "big")
    return 0


def _wav_ns(head: bytes, size: int) -> int:
    position, bytes_a_second = 12, 0
    while position + 8 <= len(head):
        kind, length = struct.unpack_from("<4sI", head, position)
        if kind == b"fmt ":
            (bytes_a_second,) = struct.unpack_from("<I", head, position + 16)
        if kind == b"data":
            length = min(length, size - position - 8)  # a recorder that was cut off claims 0 or 4 GiB
            return int(length * NS_PER_SECOND // bytes_a_second)
        position += 8 + length + length % 2
    return 0


def _movie_ns(stream: BinaryIO) -> int:
    """The duration in the movie header (``moov/mvhd``), wherever in the file it lies."""
    for kind, start, end in _boxes(stream, 0, stream.seek(0, 2)):
        if kind == b"moov" and end - start <= _MOST_MOOV:
            for inner, first, _ in _boxes(stream, start, end):
                if inner == b"mvhd":
                    stream.seek(first)
                    body = stream.read(32)
                    wide = body[0] == 1
                    scale, length = struct.unpack_from(">IQ" if wide else ">II", body, 20 if wide else 12)
                    return int(length * NS_PER_SECOND // scale)
    return 0


def _boxes(stream: BinaryIO, position: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(kind, begin and end of the body) of the boxes that lie one after the other in a part of a file."""
    for _ in range(_MOST_BOXES):
        if position + 8 > end:
            return
        stream.seek(position)
        head = stream.read(16)
        size, kind = struct.unpack_from(">I4s", head)
        start = position + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", head, 8)
            start = position + 16
        following = end if size == 0 else position + size
        if following < start or following > end:
            return
        yield kind, start, following
        position = following
