"""``video.flow`` against motion that is known: pictures shifted exactly (by the Fourier theorem) and turned."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from features.types import Device, VideoClip
from features.video.fields import flow_field
from features.video.flow import Flow
from features.video.motion import COLUMNS, describe

CPU: Device = "cpu"
WIDTH = 256
SMALL = [(0.3, -0.2), (0.5, 0.5), (1.3, 0.7), (-2.0, 1.0), (4.0, -2.5)]
LARGE = [(10.0, -5.0), (-20.0, 0.0), (20.0, 8.0)]


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    return cv2.cvtColor(load_sample_image("china.jpg"), cv2.COLOR_RGB2GRAY)


@pytest.fixture(scope="module")
def texture() -> np.ndarray:
    """Random phases with the spectrum of natural pictures (amplitude falls with frequency)."""
    height, width = 427, 640
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    phase = np.exp(2j * np.pi * np.random.default_rng(1).random(frequency.shape))
    signal = np.fft.irfft2(phase / frequency**1.2, s=(height, width))
    return np.clip((signal - signal.mean()) / signal.std() * 45 + 128, 0, 255).astype(np.uint8)


def _shifted(picture: np.ndarray, dx: float, dy: float) -> np.ndarray:
    """The picture moved right by ``dx`` and down by ``dy`` pixels, any fractions; a window of 256x144."""
    height, width = picture.shape
    turn = np.fft.fftfreq(height)[:, None] * dy + np.fft.rfftfreq(width)[None] * dx
    moved = np.fft.irfft2(np.fft.rfft2(picture.astype(float)) * np.exp(-2j * np.pi * turn), s=(height, width))
    return np.clip(np.rint(moved), 0, 255).astype(np.uint8)[100:244, 150 : 150 + WIDTH].copy()


def _row(picture: np.ndarray, dx: float, dy: float, **options: str) -> np.ndarray:
    pixels = np.stack([_shifted(picture, 0, 0), _shifted(picture, dx, dy)])
    starts = np.array([0, 500_000_000], dtype=np.int64)
    clip = VideoClip(pixels=pixels, start_ns=starts, end_ns=starts + 500_000_000)
    (rows,) = Flow(**options)([clip], CPU)
    return rows.values[0]


@pytest.mark.parametrize("preset", ["ultrafast", "fast", "balanced", "medium"])
@pytest.mark.parametrize("shift", [*SMALL, *LARGE])
@pytest.mark.parametrize("kind", ["photograph", "texture"])
def test_global_motion_within_a_tenth_of_a_pixel(
    preset: str, shift: tuple[float, float], kind: str, request: pytest.FixtureRequest
) -> None:
    row = _row(request.getfixturevalue(kind), *shift, preset=preset)
    found = row[4:6] * WIDTH * 0.5  # widths a second -> pixels
    np.testing.assert_allclose(found, shift, atol=0.1)


@pytest.mark.parametrize("shift", SMALL)
def test_farneback_finds_small_motion_too(shift: tuple[float, float], photograph: np.ndarray) -> None:
    found = _row(photograph, *shift, method="farneback")[4:6] * WIDTH * 0.5
    np.testing.assert_allclose(found, shift, atol=0.1)


@pytest.mark.parametrize(("shift", "direction"), [((6, 0), 0), ((4, 4), 1), ((0, 6), 2), ((-6, 0), 4), ((4, -4), 7)])
def test_direction(shift: tuple[float, float], direction: int, photograph: np.ndarray) -> None:
    row = _row(photograph, *shift)
    assert np.argmax(row[-8:]) == direction
    assert row[-8:][direction] > 0.8
    assert row[0] * WIDTH * 0.5 == pytest.approx(np.hypot(*shift), rel=0.1)


def test_an_object_on_a_still_ground_is_what_remains(texture: np.ndarray) -> None:
    ground = np.stack([_shifted(texture, 0, 0)] * 2)
    thing = np.rot90(texture)[50:114, 50:114]
    ground[0, 40:104, 60:124] = thing
    ground[1, 40:104, 66:130] = thing
    field = flow_field(ground[0], ground[1], preset="medium")
    assert np.median(field[50:94, 70:114], axis=(0, 1)) == pytest.approx([6, 0], abs=0.2)
    assert np.median(field, axis=(0, 1)) == pytest.approx([0, 0], abs=0.1)


def test_rotation(photograph: np.ndarray) -> None:
    """Two degrees about the centre: the end points lie within half a pixel of the truth, half of them within 0.2."""
    picture = np.ascontiguousarray(photograph[100:244, 150 : 150 + WIDTH])
    centre, angle = (WIDTH / 2, 72.0), 2.0
    matrix = cv2.getRotationMatrix2D(centre, angle, 1.0)
    turned = cv2.warpAffine(photograph[60:284, 110:446], _about(matrix, 40), (336, 224), flags=cv2.INTER_CUBIC)
    field = flow_field(picture, np.ascontiguousarray(turned[40:184, 40:296]), preset="medium")
    y, x = np.mgrid[0:144, 0:WIDTH].astype(float)
    truth = np.stack(
        [
            matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2] - x,
            matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2] - y,
        ],
        axis=-1,
    )
    error = np.hypot(*np.moveaxis(field - truth, -1, 0))[8:-8, 8:-8]
    assert np.median(error) < 0.2
    assert np.quantile(error, 0.8) < 0.5


def _about(matrix: np.ndarray, margin: int) -> np.ndarray:
    """The same motion in a picture with ``margin`` pixels more on the left and on top."""
    offset = np.array([margin, margin], dtype=float)
    moved = matrix.copy()
    moved[:, 2] += offset - matrix[:, :2] @ offset
    return moved


def _warped(photograph: np.ndarray, zoom: float, degrees: float, shift: tuple[float, float]) -> tuple[np.ndarray, ...]:
    """Two frames of 256x144 and the true field: the second is the first zoomed, turned about its centre and shifted."""
    height, width = 144, WIDTH
    margin = 60
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1 + zoom)
    matrix[:, 2] += shift
    large = photograph[40 : 40 + height + 2 * margin, 90 : 90 + width + 2 * margin]
    turned = cv2.warpAffine(large, _about(matrix, margin), large.shape[::-1], flags=cv2.INTER_CUBIC)
    y, x = np.mgrid[0:height, 0:width].astype(float)
    points = np.stack([x, y, np.ones_like(x)], axis=-1)
    inner = slice(margin, margin + height), slice(margin, margin + width)
    return large[inner].copy(), turned[inner].copy(), points @ matrix.T - points[..., :2]


def _described(previous: np.ndarray, current: np.ndarray, **options: str) -> dict[str, float]:
    row = describe(flow_field(previous, current, **options), 1.0, 8, (previous, current))
    return dict(zip(COLUMNS, row.tolist(), strict=False))


CAMERA = [(0.0, 0.0, (0.4, -0.3)), (0.02, 0.0, (0.0, 0.0)), (-0.03, 0.0, (2.0, 1.0)), (0.0, 1.5, (0.0, 0.0))]
CAMERA += [(0.01, -1.0, (5.0, -3.0)), (0.0, 0.0, (20.0, 0.0)), (0.04, 2.0, (0.0, 0.0))]


@pytest.mark.parametrize(("zoom", "degrees", "shift"), CAMERA)
def test_what_the_camera_does_is_told(
    photograph: np.ndarray, zoom: float, degrees: float, shift: tuple[float, float]
) -> None:
    previous, current, truth = _warped(photograph, zoom, degrees, shift)
    row = _described(previous, current, preset="medium")
    middle = truth[71:73, 127:129].mean(axis=(0, 1))
    assert np.array([row["global_dx"], row["global_dy"]]) * WIDTH == pytest.approx(middle, abs=0.1)
    assert row["zoom"] == pytest.approx((1 + zoom) * np.cos(np.radians(degrees)) - 1, abs=0.003)
    assert row["rotation"] == pytest.approx(degrees, abs=0.15)
    assert row["divergence"] == pytest.approx(2 * zoom, abs=0.01)
    assert row["residual_speed"] * WIDTH < 0.7
    assert row["confidence"] > 0.3


@pytest.mark.parametrize("method", ["dis", "farneback"])
@pytest.mark.parametrize(("zoom", "degrees", "shift"), CAMERA)
def test_no_worse_than_the_raw_call(
    photograph: np.ndarray, method: str, zoom: float, degrees: float, shift: tuple[float, float]
) -> None:
    """The end points of ``flow_field`` are those of OpenCV's own call with the same parameters, to the bit."""
    previous, current, truth = _warped(photograph, zoom, degrees, shift)
    if method == "dis":
        raw = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(previous, current, None)
    else:
        raw = cv2.calcOpticalFlowFarneback(previous, current, None, 0.5, 4, 15, 3, 5, 1.1, 0)
    found = flow_field(previous, current, method=method, preset="medium")
    errors = [float(np.hypot(*np.moveaxis(field - truth, -1, 0))[8:-8, 8:-8].mean()) for field in (found, raw)]
    assert errors[0] <= errors[1]
    if method == "dis" and max(map(abs, shift)) < 10:
        assert errors[0] < 0.7


def test_a_thing_that_moves_is_not_the_camera(texture: np.ndarray) -> None:
    ground = np.stack([_shifted(texture, 0, 0), _shifted(texture, 3, -1)])
    thing = np.rot90(texture)[50:114, 50:146]
    ground[0, 40:104, 60:156] = thing
    ground[1, 40:104, 72:168] = thing
    row = _described(ground[0], ground[1])
    assert np.array([row["global_dx"], row["global_dy"]]) * WIDTH == pytest.approx([3, -1], abs=0.15)
    assert row["residual_speed"] * WIDTH > 1


def test_confidence_falls_where_nothing_can_be_seen(texture: np.ndarray) -> None:
    full = [_shifted(texture, 0, 0), _shifted(texture, 3, 0)]
    half = [frame.copy() for frame in full]
    for frame in half:
        frame[:, 128:] = 90
    flat = [np.full_like(frame, 90) for frame in full]
    column = COLUMNS.index("confidence")
    found = [describe(flow_field(*pair), 1.0, 8, tuple(pair))[column] for pair in (full, half, flat)]
    assert found[0] > 0.75
    assert found[1] == pytest.approx(found[0] / 2, abs=0.1)
    assert found[2] == 0
    other = [full[0], _shifted(np.rot90(texture, 2), 50, 30)]
    assert describe(flow_field(*other), 1.0, 8, tuple(other))[column] < 0.6 * found[0]
