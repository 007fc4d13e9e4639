"""ICC profiles, made by hand (ICC.1:2001-04), against the closed form: curve, matrix, sRGB's curve."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pipeline.media.color import profile_of_jpeg, to_srgb
from pipeline.media.image import read_image
from pipeline.media.source import Source

# Columns are the primaries' XYZ, adapted to D50 (ICC's and Lindbloom's figures).
SRGB = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
ADOBE = np.array([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]])
D50 = (0.9642, 1.0, 0.8249)
GAMMA = 563 / 256

SMOOTH = np.stack(np.broadcast_arrays(np.arange(64)[:, None] * 4, np.arange(96)[None] * 2, 90), axis=2).astype(np.uint8)


def profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A version 2 monitor profile with these tags."""
    tags = {
        b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"made\0" + bytes(78),
        b"cprt": b"text" + bytes(5),
        **tags,
    }
    place, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", place + len(body), len(content))
        body += content
    head = struct.pack(
        ">I4sI4s4s4s12s4s", place + len(body), bytes(4), 0x02400000, b"mntr", space, b"XYZ ", bytes(12), b"acsp"
    )
    head = head.ljust(68, b"\0") + xyz(D50)[8:] + bytes(48)
    return head + struct.pack(">I", len(tags)) + table + body


def xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))


def rgb_profile(matrix: np.ndarray, gamma: float = GAMMA) -> bytes:
    tags = {b"wtpt": xyz(D50)}
    for index, letter in enumerate((b"r", b"g", b"b")):
        tags |= {letter + b"XYZ": xyz(tuple(matrix[:, index])), letter + b"TRC": curve(gamma)}
    return profile(b"RGB ", tags)


def grey_profile(gamma: float) -> bytes:
    return profile(b"GRAY", {b"wtpt": xyz(D50), b"kTRC": curve(gamma)})


def encoded(pixels: np.ndarray | PIL.Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture = pixels if isinstance(pixels, PIL.Image.Image) else PIL.Image.fromarray(pixels)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def srgb_levels(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def expected(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    light = (pixels / 255) ** GAMMA
    return srgb_levels(light @ (np.linalg.inv(SRGB) @ matrix).T)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], np.ndarray]:
    def read(data: bytes) -> np.ndarray:
        path = tmp_path / "picture"
        path.write_bytes(data)
        return read_image(Source(str(path))).pixels

    return read


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_adobe_rgb_becomes_srgb_in_every_format(read: Callable[[bytes], np.ndarray], kind: str) -> None:
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": 0}}.get(kind, {})
    found = read(encoded(SMOOTH, kind, icc_profile=rgb_profile(ADOBE), **options)).astype(float)
    wanted = expected(SMOOTH, ADOBE)
    assert np.abs(wanted - SMOOTH).max() > 60
    if kind == "JPEG":
        assert np.abs(found - wanted).mean() < 2
    else:
        assert np.abs(found - wanted).max() <= 1.5


def test_a_profile_in_many_segments_of_a_jpeg(read: Callable[[bytes], np.ndarray]) -> None:
    found = rgb_profile(ADOBE)
    large = found + bytes(150_000)
    large = struct.pack(">I", len(large)) + large[4:]
    data = encoded(SMOOTH, "JPEG", quality=98, subsampling=0, icc_profile=large)
    assert data.count(b"ICC_PROFILE\0") == 3
    assert np.abs(read(data) - expected(SMOOTH, ADOBE)).mean() < 2
    parts = [
        b"ICC_PROFILE\0" + bytes([number, 2]) + found[half] for number, half in ((2, slice(99, None)), (1, slice(99)))
    ]
    assert profile_of_jpeg(parts) == found
    assert profile_of_jpeg(parts[:1]) is None
    assert profile_of_jpeg([]) is None


def test_what_is_srgb_already_is_left_alone(read: Callable[[bytes], np.ndarray]) -> None:
    from PIL import ImageCms

    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(read(encoded(SMOOTH, "PNG", icc_profile=own)), SMOOTH)
    assert to_srgb(SMOOTH, own) is SMOOTH


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_grey_profile(read: Callable[[bytes], np.ndarray], kind: str) -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8)[None], 8, axis=0)
    found = read(encoded(grey, kind, icc_profile=grey_profile(1.0), **({"quality": 100} if kind == "JPEG" else {})))
    assert np.abs(found - srgb_levels(np.arange(256) / 255)[None, :, None]).max() <= 0.51
    assert np.abs(found.astype(int) - grey[:, :, None]).max() > 60


def test_colour_comes_before_transparency(read: Callable[[bytes], np.ndarray]) -> None:
    alpha = np.full(SMOOTH.shape[:2], 128, np.uint8)
    found = read(encoded(np.dstack([SMOOTH, alpha]), "PNG", icc_profile=rgb_profile(ADOBE)))
    wanted = expected(SMOOTH, ADOBE) * (128 / 255) + 255 * (1 - 128 / 255)
    assert np.quantile(np.abs(found - wanted), 0.99) < 2


def test_palettes_and_16_bits_have_profiles_too(read: Callable[[bytes], np.ndarray]) -> None:
    palette = PIL.Image.new("P", (2, 1))
    palette.putpalette([200, 60, 30, 40, 150, 60])
    palette.putpixel((1, 0), 1)
    wanted = expected(np.array([[[200, 60, 30], [40, 150, 60]]]), ADOBE)
    assert np.abs(read(encoded(palette, "PNG", icc_profile=rgb_profile(ADOBE))) - wanted).max() <= 2
    deep = np.repeat(np.arange(0, 65536, 257, dtype=np.uint16)[None], 4, axis=0)
    data = encoded(deep, "PNG")
    body = b"grey\0\0" + zlib.compress(grey_profile(1.0))
    chunk = struct.pack(">I", len(body)) + b"iCCP" + body + struct.pack(">I", zlib.crc32(b"iCCP" + body))
    found = read(data[:33] + chunk + data[33:])
    assert np.abs(found - srgb_levels(np.arange(256) / 255)[None, :, None]).max() <= 0.51


@pytest.mark.parametrize("damage", [b"nonsense", b"", grey_profile(1.0), rgb_profile(ADOBE)[:200]])
def test_a_profile_that_is_damaged_or_of_another_kind_says_nothing(
    read: Callable[[bytes], np.ndarray], damage: bytes
) -> None:
    assert np.array_equal(read(encoded(SMOOTH, "PNG", icc_profile=damage)), SMOOTH)


def test_cmyk_without_a_profile_is_the_plain_formula(read: Callable[[bytes], np.ndarray]) -> None:
    ink = np.random.default_rng(0).integers(0, 256, (9, 11, 4), dtype=np.uint8)
    found = read(encoded(PIL.Image.fromarray(ink, "CMYK"), "TIFF"))
    wanted = (255.0 - ink[:, :, :3]) * (255.0 - ink[:, :, 3:]) / 255
    assert np.abs(found - wanted).max() <= 1


def test_only_transparency_is_white_and_shapes_of_alpha_are_seen(read: Callable[[bytes], np.ndarray]) -> None:
    shape = np.zeros((6, 8), np.uint8)
    shape[2:4, 2:6] = 255
    nothing = np.zeros((6, 8), np.uint8)
    assert np.all(read(encoded(PIL.Image.merge("LA", [PIL.Image.fromarray(nothing)] * 2), "PNG")) == 255)
    found = read(encoded(PIL.Image.merge("LA", [PIL.Image.fromarray(nothing), PIL.Image.fromarray(shape)]), "PNG"))
    assert np.array_equal(found[:, :, 0], 255 - shape)


def test_a_photograph_in_adobe_rgb(real_media: Path) -> None:
    path = real_media / "image" / "rocket.jpg"
    with PIL.Image.open(path) as picture:
        stored = np.asarray(picture.convert("RGB"))
    found = read_image(Source(str(path))).pixels
    assert np.median(np.abs(found - expected(stored, ADOBE))) < 1.5
    assert np.abs(found.astype(int) - stored).max() > 30
