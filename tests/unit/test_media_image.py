import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from features.errors import Reason, SampleError
from pipeline.media.image import read_image
from pipeline.media.source import Limits, Source

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (13, 21, 3), dtype=np.uint8)
SMOOTH = np.stack(np.broadcast_arrays(np.arange(64)[:, None] * 4, np.arange(96)[None] * 2, 90), axis=2).astype(np.uint8)


@pytest.fixture
def read(tmp_path):
    def read(data, name="picture.bin", **options):
        if isinstance(data, PIL.Image.Image):
            raise TypeError("encode it first")
        path = tmp_path / name
        path.write_bytes(data)
        return read_image(Source(str(path)), **options).pixels

    return read


def encoded(array_or_image, kind, **options):
    buffer = io.BytesIO()
    image = array_or_image if isinstance(array_or_image, PIL.Image.Image) else PIL.Image.fromarray(array_or_image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(ihdr_colour, depth, rows, width, height, extra=b""):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    ihdr = struct.pack(">IIBBBBB", width, height, depth, ihdr_colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )


def refused(reason, text, call, *args, **options):
    with pytest.raises(SampleError, match=text) as caught:
        call(*args, **options)
    assert caught.value.reason is reason


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM"])
def test_lossless_formats_come_back_exactly(read, kind):
    assert np.array_equal(read(encoded(RGB, kind)), RGB)
    grey = RGB[:, :, 0].copy()
    assert np.array_equal(read(encoded(grey, kind)), np.repeat(grey[:, :, None], 3, axis=2))


def test_lossless_webp_and_jpeg2000_come_back_exactly(read):
    assert np.array_equal(read(encoded(RGB, "WEBP", lossless=True)), RGB)
    assert np.array_equal(read(encoded(RGB, "JPEG2000", irreversible=False)), RGB)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_is_close_to_what_was_saved(read, options):
    assert np.abs(read(encoded(SMOOTH, "JPEG", quality=95, **options)).astype(int) - SMOOTH).mean() < 3


def test_cmyk_jpeg(read):
    cmyk = PIL.Image.fromarray(SMOOTH).convert("CMYK")
    assert np.abs(read(encoded(cmyk, "JPEG", quality=95)).astype(int) - SMOOTH).mean() < 4


# EXIF 2.32, 4.6.4: what the stored rows and columns are; here the inverse, made by hand.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_exif_orientation_is_applied_in_every_format(read, kind, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    stored = np.ascontiguousarray(STORED[orientation](SMOOTH))
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    got = read(encoded(stored, kind, exif=exif, **options)).astype(int)
    assert got.shape == SMOOTH.shape
    assert np.abs(got - SMOOTH).mean() < (3 if kind == "JPEG" else 0.001)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_of_16_bit_pictures(read, kind, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    values = (SMOOTH[:, :, 0].astype(np.uint16) + SMOOTH[:, :, 1]) * 128
    stored = np.ascontiguousarray(STORED[orientation](values))
    assert np.array_equal(read(encoded(stored, kind, exif=exif))[:, :, 0], np.round(values / 257.0))


def test_transparency_is_composited_over_white(read):
    alpha = RNG.integers(0, 256, RGB.shape[:2], dtype=np.uint8)
    share = alpha[:, :, None] / 255.0
    expected = RGB * share + 255 * (1 - share)
    assert np.abs(read(encoded(np.dstack([RGB, alpha]), "PNG")) - expected).max() <= 1
    grey = RGB[:, :, 0].copy()
    got = read(encoded(PIL.Image.merge("LA", [PIL.Image.fromarray(grey), PIL.Image.fromarray(alpha)]), "PNG"))
    assert np.abs(got[:, :, 0] - (grey * share[:, :, 0] + 255 * (1 - share[:, :, 0]))).max() <= 1


def test_palette_with_a_transparent_entry(read):
    palette = PIL.Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert read(encoded(palette, "PNG")).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert read(encoded(palette, "PNG", transparency=1)).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_16_bits_are_scaled_with_rounding(read):
    values = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    expected = np.round(values / 257.0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    grey = read(png(0, 16, rows, 64, 64))
    assert np.array_equal(grey, np.repeat(expected[:, :, None], 3, axis=2))
    colour = np.stack([values, values[::-1], values.T], axis=2)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colour)
    assert np.array_equal(read(png(2, 16, rows, 64, 64)), np.round(colour / 257.0))
    assert np.array_equal(read(encoded(values, "TIFF"))[:, :, 0], expected)
    assert np.array_equal(read(b"P5\n64 64\n65535\n" + values.astype(">u2").tobytes())[:, :, 1], expected)


def test_floating_point_tiff(read):
    values = RNG.random((9, 7), dtype=np.float32)
    assert np.abs(read(encoded(values, "TIFF"))[:, :, 2] - values * 255).max() <= 0.5001
    refused(
        Reason.UNSUPPORTED_FORMAT, "floating point pixels from .* allowed: 0 to 1", read, encoded(values * 9, "TIFF")
    )
    values[3, 3] = np.nan
    refused(Reason.NON_FINITE, "got NaN or infinite pixels", read, encoded(values, "TIFF"))


def test_the_first_picture_of_an_animation(read):
    first, second = PIL.Image.fromarray(RGB), PIL.Image.fromarray(255 - RGB)
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True})):
        assert np.array_equal(read(encoded(first, kind, save_all=True, append_images=[second], **options)), RGB), kind


def test_one_pixel_and_the_wrong_name(read):
    assert np.array_equal(read(encoded(RGB[:1, :1], "PNG"), name="a.jpg"), RGB[:1, :1])


def test_damaged_metadata_gives_no_warning(read):
    data = bytearray(encoded(RGB, "TIFF", dpi=(72, 72)))
    at = data.index(struct.pack("<HH", 282, 5))  # XResolution, a rational that lies beyond the file
    data[at + 8 : at + 12] = struct.pack("<I", 1 << 30)
    assert np.array_equal(read(bytes(data)), RGB)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_cut_file_is_refused_not_filled_up(read, kind, share):
    noise = RNG.integers(0, 256, (90, 90, 3), dtype=np.uint8)
    data = encoded(noise, kind)
    refused(Reason.CORRUPT, "allowed: a whole picture", read, data[: int(len(data) * share)])


def test_a_cut_jpeg_with_a_whole_thumbnail_is_refused(read):
    data = encoded(RNG.integers(0, 256, (90, 90, 3), dtype=np.uint8), "JPEG")
    thumbnail = encoded(RGB, "JPEG")
    app = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    whole = data[:2] + app + data[2:]
    assert read(whole).shape == (90, 90, 3)
    refused(Reason.CORRUPT, "got a JPEG image without its end", read, whole[: len(whole) // 2])


def test_a_png_chunk_that_claims_gigabytes_is_refused_at_once(read):
    data = bytearray(encoded(RGB, "PNG"))
    at = data.index(b"IDAT")
    data[at - 4 : at] = b"\x7f\xff\xff\xff"
    refused(Reason.CORRUPT, "got a PNG image without its end", read, bytes(data))
    assert np.array_equal(read(encoded(RGB, "PNG") + b"junk after the end"), RGB)


def test_bombs_are_refused_by_their_header(read):
    refused(Reason.TOO_LARGE, "got 60000x60000 pixels, allowed: 100000000", read, png(2, 8, b"", 60_000, 60_000))
    limits = Limits(max_image_pixels=100)
    for kind in ("PNG", "JPEG", "TIFF", "GIF"):
        refused(Reason.TOO_LARGE, "got 21x13 pixels, allowed: 100", read, encoded(RGB, kind), limits=limits)
    refused(Reason.TOO_LARGE, "bytes, allowed: 10", read, encoded(RGB, "PNG"), limits=Limits(max_image_bytes=10))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<html>not found</html>", "an HTML page"),
        (b"%PDF-1.4", "a PDF document"),
        (b"\x00\x01\x02\x03" * 9, "unknown binary data"),
        (b"<svg xmlns=''/>", "SVG or XML text"),
    ],
)
def test_what_is_no_picture_is_named(read, data, words):
    refused(Reason.UNSUPPORTED_FORMAT, f"got {words}, allowed: JPEG, PNG", read, data, name="a.jpg")
