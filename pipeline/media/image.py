"""Pictures in, upright RGB ``Image`` out.

OpenCV decodes the common JPEG and PNG files; Pillow decodes everything that OpenCV does not get right (transparency,
CMYK, palettes with alpha, animations) and all other formats. Profiles of colour spaces are applied to what either
gives. Dimensions are read from the header and checked before any pixel is decoded.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from features.errors import Reason
from features.types import Image
from pipeline.media.color import Pixels, cmyk_to_srgb, profile_of_jpeg, profile_of_png, to_srgb
from pipeline.media.source import DEFAULT_LIMITS, Limits, Source, looks_like

if TYPE_CHECKING:
    import PIL.Image

_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF")
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_EOI = b"\xff\xd9"
_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    ArithmeticError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
)
_warnings_lock = threading.Lock()


@dataclass(frozen=True)
class _Header:
    """What is known before decoding. ``plain``: OpenCV decodes it right; ``whole``: the file has its end."""

    width: int
    height: int
    plain: bool
    whole: bool
    profile: bytes | None


def read_image(source: Source, limits: Limits = DEFAULT_LIMITS) -> Image:
    """Read one picture, by content, whatever its name: JPEG, PNG, GIF, WebP, TIFF, BMP, PNM, JPEG 2000 or AVIF.

    Pixels are uint8 RGB, upright (EXIF orientation applied in every format that has it). Grey, palette, CMYK, YCbCr and
    LAB are converted; transparent pixels are composited over white; 16 bits become 8 by ``round(v / 257)``; floating
    point must lie in 0..1 and is scaled by 255. Colours of an ICC profile become sRGB (perceptual intent), before what
    is transparent meets the white; one that moves no colour by more than 2 levels counts as sRGB, and one that is
    damaged or of another kind than the pixels says nothing, as does a damaged EXIF block. A PNG's gAMA and cHRM are not
    applied. Of an animation, a multi-picture file or a multi-page TIFF the first picture is read.

    Raises ``SampleError``: what ``Source`` raises, ``unsupported_format`` (says what the file looks like), ``corrupt``
    (also when the file is cut: no filler pixels), ``non_finite`` (NaN in floating point) or ``too_large`` (before
    decoding).
    """
    data = source.read_bytes(limits.max_image_bytes)
    header = _jpeg_header(data) if data[:2] == b"\xff\xd8" else _png_header(data) if data[:8] == _PNG_MAGIC else None
    if header is not None:
        _check_size(source, header.width, header.height, limits)
        if not header.whole:  # also because OpenCV would allocate what a broken PNG chunk claims
            raise _cut(source, f"{looks_like(data[:16])} without its end")
        if header.plain:
            return Image(pixels=to_srgb(_decode_plain(source, data), header.profile))
    return Image(pixels=_decode_general(source, data, limits))


@lru_cache(maxsize=1)
def _cv2() -> ModuleType:
    import cv2

    cv2.utils.logging.setLogLevel(
        cv2.utils.logging.LOG_LEVEL_SILENT
    )  # its warnings would go to the process's standard error
    return cv2


def _check_size(source: Source, width: int, height: int, limits: Limits) -> None:
    if width * height > limits.max_image_pixels:
        raise source.error(
            Reason.TOO_LARGE,
            f"got {width}x{height} pixels, allowed: {limits.max_image_pixels} in all; cure: scale it down",
        )


def _jpeg_header(data: bytes) -> _Header | None:
    """Walk the markers of a JPEG to its first scan; ``None`` where there is no frame header."""
    position, size = 2, (0, 0, 0)
    profile: list[bytes] = []
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == 0xDA:
            # No end marker can stand inside the scans, but an embedded thumbnail before them has one of its own.
            whole = data.rfind(_EOI) > position
            return _Header(*size[:2], size[2] in (1, 3), whole, profile_of_jpeg(profile)) if size[2] else None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and position + 10 <= len(data):
            height, width, components = struct.unpack_from(">HHB", data, position + 5)
            size = (width, height, components)
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xE2:
            profile.append(data[position + 4 : position + 2 + length])
        position += 2 + length
    return None


def _png_header(data: bytes) -> _Header | None:
    """Read the IHDR of a PNG, and whether anything in it needs more than OpenCV's plain decoding."""
    if len(data) < 33 or data[12:16] != b"IHDR":
        return None
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    plain = depth <= 8 and not colour & 4
    position, kind, profile = 8, b"", None
    while position + 12 <= len(data) and kind != b"IEND":
        kind, start = data[position + 4 : position + 8], position + 8
        length = int.from_bytes(data[position : position + 4], "big")
        if kind == b"iCCP" and profile is None:
            profile = profile_of_png(data[start : start + length])
        if kind in (b"tRNS", b"eXIf") or (
            kind in (b"zTXt", b"tEXt", b"iTXt") and data[start : start + 8] == b"Raw prof"
        ):
            plain = False
        position += 12 + length
    return _Header(width, height, plain, whole=kind == b"IEND" and position <= len(data), profile=profile)


def _decode_plain(source: Source, data: bytes) -> Pixels:
    """Decode with OpenCV, which applies the EXIF orientation of a JPEG; it gives ``None`` for broken data."""
    cv2 = _cv2()
    try:
        pixels: Pixels | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise _cut(source, f"data that cannot be decoded ({error.err})") from error
    if pixels is None:
        raise _cut(source, f"{looks_like(data[:16])} that cannot be decoded")
    converted: Pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    return converted


def _cut(source: Source, what: str) -> Exception:
    return source.error(Reason.CORRUPT, f"got {what}, allowed: a whole picture; cure: copy or export it again")


def _decode_general(source: Source, data: bytes, limits: Limits) -> Pixels:
    import PIL.Image

    with _quiet():
        picture = _open(source, data, limits)
    # TIFF tags are read, and complained of, as they are used.
    with picture, _quiet() if picture.format == "TIFF" else nullcontext():
        try:
            profile = picture.info.get("icc_profile")
            pixels = _deep(source, data, profile) if _is_deep(picture, data) else _shallow(picture, profile)
        except PIL.Image.DecompressionBombError as error:
            raise source.error(Reason.TOO_LARGE, f"{error}; cure: scale it") from error
        except _DECODE_ERRORS as error:
            raise _cut(source, f"{picture.format} data that cannot be decoded ({error})") from error
        if picture.format == "TIFF":  # both decoders turn it themselves
            return pixels
        return _upright(pixels, _orientation(picture))


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back Pillow's warnings about metadata. Filters are process-wide, so one thread at a time."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _orientation(picture: PIL.Image.Image) -> int:
    with _quiet():
        try:
            return int(picture.getexif().get(_ORIENTATION, 1))
        except _DECODE_ERRORS:
            return 1  # an EXIF block that cannot be read says nothing


def _open(source: Source, data: bytes, limits: Limits) -> PIL.Image.Image:
    import PIL.Image

    PIL.Image.init()
    known = [name for name in _FORMATS if name in PIL.Image.OPEN]
    try:
        picture = PIL.Image.open(io.BytesIO(data), formats=known)
    except PIL.Image.DecompressionBombError as error:
        raise source.error(Reason.TOO_LARGE, f"{error}; cure: scale it") from error
    except _DECODE_ERRORS as error:
        what = looks_like(data[:64])
        if what.endswith(" image") and "HEIC" not in what:
            raise _cut(source, f"what looks like {what}, but its header cannot be read") from error
        raise source.error(
            Reason.UNSUPPORTED_FORMAT,
            f"got {what}, allowed: {', '.join(known)}; cure: convert it or correct the catalog",
        ) from error
    _check_size(source, *picture.size, limits)
    return picture


def _is_deep(picture: PIL.Image.Image, data: bytes) -> bool:
    """Tell whether samples have more than 8 bits that Pillow would cut off (it reads such PNM and JPEG 2000 well)."""
    if picture.format == "PNG":
        return data[24] == 16
    if picture.format == "TIFF":
        tags: Any = getattr(picture, "tag_v2", {})
        return bool(max(tags.get(_BITS_PER_SAMPLE, (1,))) > 8)
    return False


def _deep(source: Source, data: bytes, profile: bytes | None) -> Pixels:
    """Decode 16-bit and floating point samples with OpenCV."""
    cv2 = _cv2()
    try:
        values: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _cut(source, f"data that cannot be decoded ({error.err})") from error
    if values is None:
        raise _cut(source, "data that cannot be decoded")
    if values.dtype == np.uint16:
        scaled = values.astype(np.float32) / 257.0
    elif values.dtype in (np.float32, np.float64):
        if not np.isfinite(values).all():
            raise source.error(Reason.NON_FINITE, "got NaN or infinite pixels, allowed: 0 to 1; cure: export it again")
        if values.min() < 0 or values.max() > 1:
            raise source.error(
                Reason.UNSUPPORTED_FORMAT,
                f"got floating point pixels from {values.min():g} to {values.max():g}, allowed: 0 to 1",
            )
        scaled = values.astype(np.float32) * 255.0
    else:
        raise source.error(
            Reason.UNSUPPORTED_FORMAT, f"got {values.dtype} pixels, allowed: 8 or 16 bits, or floating point in 0..1"
        )
    if scaled.ndim == 2:
        scaled = np.repeat(scaled[:, :, None], 3, axis=2)
    colors = to_srgb(np.ascontiguousarray(_rounded(scaled[:, :, 2::-1])), profile)  # OpenCV gives blue first
    if scaled.shape[2] == 3:
        return colors
    alpha = scaled[:, :, 3:] / 255.0
    exact = scaled[:, :, 2::-1] if profile is None else colors
    return _rounded(exact * alpha + 255.0 * (1.0 - alpha))


def _rounded(values: npt.NDArray[Any]) -> Pixels:
    rounded: Pixels = np.floor(values + 0.5).astype(np.uint8)
    return rounded


def _shallow(picture: PIL.Image.Image, profile: bytes | None) -> Pixels:
    """Decode the first picture with Pillow and convert it to RGB."""
    import PIL.Image

    picture.load()
    if picture.mode in ("I", "I;16", "I;16B", "I;16L"):
        values = np.asarray(picture).astype(np.float64)
        grey = np.floor(np.clip(values, 0, 65535) / 257.0 + 0.5).astype(np.uint8)
        return to_srgb(np.repeat(grey[:, :, None], 3, axis=2), profile)
    if picture.mode == "CMYK":
        return cmyk_to_srgb(picture, profile)
    if picture.mode == "LAB":
        from PIL import ImageCms

        converted = ImageCms.profileToProfile(
            picture, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        if converted is None:
            raise ValueError("LAB cannot be converted")
        return np.asarray(converted)
    if "A" in picture.getbands() or "transparency" in picture.info:
        above = np.asarray(picture.convert("RGBA"))
        colors = to_srgb(np.ascontiguousarray(above[:, :, :3]), profile)
        layer = PIL.Image.fromarray(np.dstack([colors, above[:, :, 3]]))
        white = PIL.Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return np.asarray(PIL.Image.alpha_composite(white, layer).convert("RGB"))
    return to_srgb(np.asarray(picture.convert("RGB")), profile)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply an EXIF orientation (1 to 8; anything else counts as 1)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    vertical = -1 if orientation in (3, 4, 7, 8) else 1
    horizontal = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(pixels[::vertical, ::horizontal])
