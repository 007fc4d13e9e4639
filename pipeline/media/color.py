"""Colours of embedded ICC profiles to sRGB, by LittleCMS through Pillow."""

from __future__ import annotations

import io
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import PIL.Image
    from PIL.ImageCms import ImageCmsTransform

Pixels: TypeAlias = npt.NDArray[np.uint8]

_ALIKE = 2
"""A profile that moves no colour by more levels than this is taken as sRGB: writers round its curves differently."""
_MAX_PROFILE_BYTES = 1 << 22
_GREYS = np.arange(256, dtype=np.uint8)[None]
_STEPS = np.arange(0, 256, 15, dtype=np.uint8)
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def to_srgb(pixels: Pixels, profile: bytes | None) -> Pixels:
    """Return RGB or grey pixels uint8 ``[H, W, 3]``, whose colours ``profile`` defines, in sRGB.

    Without a profile, with one of sRGB, and with one that cannot be read or is of another kind than the pixels, they
    come back as they are. Intent: perceptual.
    """
    if not profile:
        return pixels
    found = _transform(profile)
    if found is None or found[0] == "CMYK":
        return pixels
    mode, transform = found
    if mode == "RGB":
        return _applied(transform, pixels)
    if np.any(pixels != pixels[:, :, :1]):
        return pixels
    levels: Pixels = _applied(transform, _GREYS)[0]
    return levels[pixels[:, :, 0]]


def cmyk_to_srgb(picture: PIL.Image.Image, profile: bytes | None) -> Pixels:
    """Return a CMYK picture in sRGB: by its profile, or as ``(255 - ink) * (255 - black) / 255``."""
    found = _transform(profile) if profile else None
    if found is None or found[0] != "CMYK":
        return np.asarray(picture.convert("RGB"))
    return np.asarray(found[1].apply(picture))


def _applied(transform: ImageCmsTransform, pixels: Pixels) -> Pixels:
    import PIL.Image

    return np.asarray(transform.apply(PIL.Image.fromarray(pixels)))


@lru_cache(maxsize=32)
def _transform(profile: bytes) -> tuple[str, ImageCmsTransform] | None:
    """The mode that a profile takes, and the way to sRGB; ``None`` where nothing is to be done or can be."""
    from PIL import ImageCms

    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        mode = _MODES.get(opened.profile.xcolor_space.strip())
        if mode is None:
            return None
        exact = (
            ImageCms.Flags.NOOPTIMIZE if mode == "L" else ImageCms.Flags.NONE
        )  # colours: to 1 level, 10 times as fast
        transform = ImageCms.buildTransform(opened, ImageCms.createProfile("sRGB"), mode, "RGB", flags=exact)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if mode == "CMYK":
        return mode, transform
    probe = _GREYS if mode == "L" else np.stack(np.meshgrid(*[_STEPS] * 3), axis=-1).reshape(18, -1, 3)
    moved = np.abs(_applied(transform, probe).astype(np.int16) - (probe[:, :, None] if mode == "L" else probe))
    return None if moved.max() <= _ALIKE else (mode, transform)


def profile_of_jpeg(segments: list[bytes]) -> bytes | None:
    """Join the bodies of a JPEG's APP2 segments (ICC.1:2010, annex B.4): number, count and part of the profile each."""
    parts = {body[12]: body[14:] for body in segments if body[:12] == b"ICC_PROFILE\0" and len(body) > 14}
    counts = {body[13] for body in segments if body[:12] == b"ICC_PROFILE\0" and len(body) > 14}
    if len(counts) != 1 or sorted(parts) != list(range(1, counts.pop() + 1)):
        return None
    return b"".join(parts[number] for number in sorted(parts))


def profile_of_png(body: bytes) -> bytes | None:
    """Unpack the body of a PNG's iCCP chunk: name, 0, method 0, a zlib stream."""
    _, zero, rest = body.partition(b"\0")
    if not zero or rest[:1] != b"\0":
        return None
    try:
        return zlib.decompressobj().decompress(rest[1:], _MAX_PROFILE_BYTES)
    except zlib.error:
        return None
