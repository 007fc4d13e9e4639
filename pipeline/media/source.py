"""Where the bytes of one stream lie, and how much of them a decoder may take."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from features.errors import Reason, SampleError

_MIB = 1 << 20
_FILE = "file://"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one file may claim before it is refused as ``too_large``. Headers are checked before anything is allocated.

    ``max_image_pixels`` holds for a picture and for a frame of video; ``max_audio_seconds`` for what is decoded (the
    window, when one is asked for).
    """

    max_image_bytes: int = 512 * _MIB
    max_image_pixels: int = 100_000_000
    max_text_bytes: int = 64 * _MIB
    max_audio_seconds: float = 6 * 3600.0
    max_audio_channels: int = 64


DEFAULT_LIMITS = Limits()
"""The limits when nothing else is said."""


@dataclass(frozen=True)
class Source:
    """One file: an absolute local path, or any URL that fsspec knows (``s3://bucket/key``, ``memory://name``).

    Raises ``ValueError`` for a relative path. Every method raises ``SampleError``: ``missing_file``, ``unreadable`` (a
    folder, a device, no permission, any other ``OSError``) or ``empty``.
    """

    uri: str

    def __post_init__(self) -> None:
        if self.local is None and "://" not in self.uri:
            raise ValueError(f"source: got {self.uri!r}, allowed: an absolute path or a URL")

    @property
    def local(self) -> str | None:
        """The path on this machine, or ``None`` for a URL."""
        if self.uri.startswith("/"):
            return self.uri
        return self.uri.removeprefix(_FILE) if self.uri.startswith(_FILE + "/") else None

    @property
    def local_path(self) -> Path | None:
        """``local`` as a ``Path``."""
        return None if self.local is None else Path(self.local)

    @property
    def name(self) -> str:
        """The last part of the path or URL."""
        return self.uri.rstrip("/").rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The extension in lower case with its dot, or an empty string."""
        return Path(self.name).suffix.lower()

    def open(self) -> BinaryIO:
        """Open for reading; the stream can seek."""
        with self._os_errors():
            stream = self._open()
            if not stream.seekable():
                raise self.error(
                    Reason.UNREADABLE, "got a stream that cannot seek, allowed: a file; cure: copy it first"
                )
            if stream.seek(0, 2) == 0:
                stream.close()
                raise self.error(Reason.EMPTY, "got 0 bytes; cure: copy the file again or remove it from the catalog")
            stream.seek(0)
            return stream

    def read_bytes(self, max_bytes: int) -> bytes:
        """Read the whole file, at most ``max_bytes``. Raises ``SampleError(too_large)`` before reading more."""
        with self._os_errors(), self.open() as stream:
            size = stream.seek(0, 2)
            if size > max_bytes:
                raise self.error(
                    Reason.TOO_LARGE, f"got {size} bytes, allowed: {max_bytes}; cure: a smaller file or a higher limit"
                )
            stream.seek(0)
            return stream.read()

    def read_head(self, count: int = 64) -> bytes:
        """Read the first ``count`` bytes, or fewer where the file is shorter."""
        with self._os_errors(), self.open() as stream:
            return stream.read(count)

    def describe(self) -> str:
        """Say in a few words what the file is, by its size and first bytes; nothing is decoded."""
        try:
            with self._os_errors(), self.open() as stream:
                size = stream.seek(0, 2)
                stream.seek(0)
                return f"{self.uri}: {size} bytes, looks like {looks_like(stream.read(64))}"
        except SampleError as error:
            return error.message

    def error(self, reason: Reason, message: str) -> SampleError:
        """Make a ``SampleError`` that names this file."""
        return SampleError(reason, f"{self.uri}: {message}")

    def _open(self) -> BinaryIO:
        path = self.local_path
        if path is not None:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                raise self.error(Reason.UNREADABLE, "got a folder, allowed: a file; cure: name the file inside it")
            if not stat.S_ISREG(mode):
                raise self.error(Reason.UNREADABLE, "got a device, pipe or socket, allowed: a regular file")
            return path.open("rb")
        import fsspec

        try:
            return cast("BinaryIO", fsspec.open(self.uri, "rb").open())
        except ImportError as error:
            raise self.error(
                Reason.UNREADABLE, f"got a URL whose driver is missing ({error}); cure: install it"
            ) from error
        except ValueError as error:
            raise self.error(Reason.UNREADABLE, f"got a URL that fsspec refuses ({error})") from error

    @contextmanager
    def _os_errors(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise self.error(
                Reason.MISSING_FILE, "no such file; cure: restore it or remove it from the catalog"
            ) from error
        except PermissionError as error:
            raise self.error(Reason.UNREADABLE, "no permission to read; cure: chmod it for this user") from error
        except IsADirectoryError as error:
            raise self.error(Reason.UNREADABLE, "got a folder, allowed: a file") from error
        except OSError as error:
            raise self.error(Reason.UNREADABLE, f"cannot be read ({error})") from error


_SIGNATURES: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"GIF8", "a GIF image"),
    (8, b"WEBP", "a WebP image"),
    (8, b"WAVE", "WAV audio"),
    (8, b"AVI ", "AVI video"),
    (8, b"AIF", "AIFF audio"),
    (0, b"II*\x00", "a TIFF image"),
    (0, b"MM\x00*", "a TIFF image"),
    (0, b"BM", "a BMP image"),
    (0, b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 image"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (4, b"ftypavif", "an AVIF image"),
    (4, b"ftypheic", "a HEIC image"),
    (4, b"ftyp", "MP4 or QuickTime media"),
    (4, b"moov", "MP4 or QuickTime media"),
    (4, b"mdat", "MP4 or QuickTime media"),
    (0, b"\x1aE\xdf\xa3", "Matroska or WebM media"),
    (0, b"OggS", "Ogg media"),
    (0, b"fLaC", "FLAC audio"),
    (0, b"ID3", "MP3 audio"),
    (0, b".snd", "Sun AU audio"),
    (0, b"RIFX", "big-endian WAV audio"),
    (0, b"\x00\x00\x01\xba", "MPEG video"),
    (0, b"\x00\x00\x01\xb3", "MPEG video"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"#EXTM3U", "an HLS playlist"),
)


def looks_like(head: bytes) -> str:
    """Say in words what the first bytes of a file look like (64 bytes are enough)."""
    for offset, magic, name in _SIGNATURES:
        if head[offset : offset + len(magic)] == magic:
            return name
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if start.startswith((b"<svg", b"<?xml")):
        return "SVG or XML text"
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head):
        return "plain text"
    return "unknown binary data"
