"""``align.spatial``: where a picture lies in a frame, by constructions whose truth is known."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_image

from features.align.homography import area, clipped, corners, outline, projected
from features.align.spatial import Register, Spatial, register
from features.errors import Reason, SampleError
from features.types import Device, Image, VideoClip

CPU: Device = "cpu"


@lru_cache
def photograph(name: str) -> np.ndarray:
    whole = load_sample_image(name)
    return np.asarray(cv2.resize(whole, (480, 320), interpolation=cv2.INTER_AREA))


def seen_from(picture: np.ndarray, corner_points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture with its corners there, on other ground, in a frame of width and height ``size``."""
    finer = 3  # drawn larger and averaged, as a camera does
    there = cv2.getPerspectiveTransform(corners(picture.shape).astype(np.float32), corner_points.astype(np.float32))
    grow = np.array([[finer, 0, (finer - 1) / 2], [0, finer, (finer - 1) / 2], [0, 0, 1]])
    large = (size[0] * finer, size[1] * finer)
    drawn = cv2.warpPerspective(picture, grow @ there, large, flags=cv2.INTER_CUBIC)
    covered = cv2.warpPerspective(np.ones(picture.shape[:2], np.uint8), grow @ there, large, flags=cv2.INTER_NEAREST)
    ground = np.random.default_rng(2).integers(0, 256, (size[1] // 20, size[0] // 20, 3), dtype=np.uint8)
    drawn = np.where(covered[..., None] == 1, drawn, cv2.resize(ground, large, interpolation=cv2.INTER_LINEAR))
    return np.asarray(cv2.resize(drawn, size, interpolation=cv2.INTER_AREA))


def turned(scale: float, degrees: float, tilt: tuple[float, ...], centre: tuple[float, float]) -> np.ndarray:
    """Corners of a picture of 480x320: scaled, turned about its centre, each corner moved by some of ``tilt``."""
    points = (corners((320, 480)) - (239.5, 159.5)) * scale
    angle = np.radians(degrees)
    points = points @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return points + np.reshape(tilt, (4, 2)) + centre


FLAT, TILTED = (0.0,) * 8, (20.0, -12.0, -16.0, 8.0, 10.0, 14.0, -6.0, -18.0)
VIEWS = {
    "as it is": turned(1, 0, FLAT, (260.3, 180.7)),
    "small and turned": turned(0.5, 25, FLAT, (250.2, 190.4)),
    "large": turned(1.4, -4, FLAT, (300.0, 170.0)),
    "tilted": turned(0.9, 8, TILTED, (270.0, 185.0)),
    "half outside": turned(1.0, -10, TILTED, (430.0, 230.0)),
    "upside down": turned(0.8, 180, TILTED, (260.0, 180.0)),
}


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize("view", VIEWS)
def test_corners_within_a_pixel(name: str, view: str) -> None:
    picture, truth = photograph(name), VIEWS[view]
    light = np.clip(0.8 * seen_from(picture, truth, (520, 360)) + 15, 0, 255)
    frame = np.clip(light + np.random.default_rng(0).normal(0, 3, light.shape), 0, 255).astype(np.uint8)
    found = register(picture, frame)
    assert np.linalg.norm(found.corners - truth, axis=1).max() < 1
    moved, _ = projected(corners(picture.shape), found.homography)
    np.testing.assert_allclose(moved, found.corners, atol=1e-6)
    inside = clipped(truth, (360, 520))
    assert found.frame_share == pytest.approx(area(inside) / (519 * 359), abs=0.01)
    assert found.correlation > 0.9
    assert (found.picture_share == pytest.approx(1, abs=0.01)) == (view not in ("large", "half outside"))


@pytest.mark.parametrize("view", ["as it is", "tilted"])
def test_refinement_comes_closer(view: str) -> None:
    picture, truth = photograph("flower.jpg"), VIEWS[view]
    frame = seen_from(picture, truth, (520, 360))
    rough, fine = (register(picture, frame, Register(refine=refine)) for refine in (False, True))
    errors = [np.linalg.norm(found.corners - truth, axis=1).max() for found in (rough, fine)]
    assert errors[1] < errors[0]
    assert errors[1] < 0.2
    assert not rough.refined


def test_orb_finds_it_too() -> None:
    picture, truth = photograph("china.jpg"), VIEWS["as it is"]
    found = register(picture, seen_from(picture, truth, (520, 360)), Register(keypoints="orb"))
    assert np.linalg.norm(found.corners - truth, axis=1).max() < 1


def test_pictures_of_any_size_are_in_the_pixels_that_were_given() -> None:
    picture, truth = photograph("china.jpg"), VIEWS["tilted"]
    frame = seen_from(picture, truth, (520, 360))
    large = cv2.resize(picture, (1920, 1280), interpolation=cv2.INTER_CUBIC)
    assert np.linalg.norm(register(large, frame).corners - truth, axis=1).max() < 1


@pytest.mark.parametrize("keypoints", ["sift", "orb"])
@pytest.mark.parametrize(("one", "other"), [("china.jpg", "flower.jpg"), ("flower.jpg", "china.jpg")])
def test_pictures_without_anything_in_common_are_refused(keypoints: Any, one: str, other: str) -> None:
    with pytest.raises(SampleError, match=r"is not in the frame .* matches.*; cure: give a picture") as caught:
        register(photograph(one), photograph(other), Register(keypoints=keypoints))
    assert caught.value.reason is Reason.NO_OVERLAP


def test_a_mirrored_picture_and_a_flat_one_are_refused() -> None:
    picture = photograph("china.jpg")
    with pytest.raises(SampleError, match="no_overlap"):
        register(picture, picture[:, ::-1])
    with pytest.raises(SampleError, match=r"no_overlap: .*0 key points.*0 matches"):
        register(picture, np.full((200, 300, 3), 90, np.uint8))


def test_wrong_arrays_and_options() -> None:
    with pytest.raises(ValueError, match=r"got float64 \[40, 40\], allowed: uint8"):
        register(np.zeros((40, 40)), np.zeros((40, 40)))  # type: ignore[arg-type]
    with pytest.raises(SampleError, match="got a picture of 40x31, allowed: both sides >= 32"):
        register(np.zeros((31, 40), np.uint8), np.zeros((40, 40), np.uint8))
    for options, message in (
        ({"keypoints": "surf"}, "keypoints: got 'surf', allowed: 'sift', 'orb'"),
        ({"max_keypoints": 1}, "max_keypoints: got 1, allowed: >= 16"),
        ({"min_inliers": 4}, "min_inliers: got 4, allowed: >= 5"),
        ({"rate": 0.0}, "rate: got 0.0, allowed: > 0"),
        ({"short_side": 20}, "short_side: got 20, allowed: >= 32"),
    ):
        with pytest.raises(ValueError, match=rf"align.spatial: {message}"):
            Spatial(**options)


coordinate = st.floats(-200, 200, allow_nan=False, width=16)


@settings(max_examples=25, deadline=None)
@given(st.floats(5, 80), st.floats(5, 80), st.floats(0, 360), coordinate, coordinate)
def test_the_polygon_is_what_a_count_of_points_says(w: float, h: float, degrees: float, x: float, y: float) -> None:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    box = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) @ turn.T + (x, y)
    frame = (81, 121)
    found = clipped(box, frame)
    grid = np.stack(np.meshgrid(np.arange(0.25, 120, 0.5), np.arange(0.25, 80, 0.5)), axis=-1).reshape(-1, 2)
    inside = (np.abs((grid - (x, y)) @ turn) <= (w, h)).all(axis=1).sum() / 4
    assert area(found) == pytest.approx(inside, abs=0.02 * inside + 40)
    assert (found >= 0).all()
    assert (found <= (120, 80)).all()


def test_an_outline_behind_the_camera_or_mirrored_is_none() -> None:
    shape = (40, 60)
    assert outline(shape, np.array([[1, 0, 0], [0, 1, 0], [-0.02, 0, 1.0]])) is None
    assert outline(shape, np.diag([-1.0, 1, 1])) is None
    assert outline(shape, np.eye(3)) is not None


def test_as_a_feature_rows_are_where_the_picture_is() -> None:
    picture = photograph("china.jpg")
    shown = [VIEWS["as it is"], VIEWS["tilted"]]
    frames = [cv2.cvtColor(seen_from(picture, truth, (520, 360)), cv2.COLOR_RGB2GRAY) for truth in shown]
    frames.append(cv2.cvtColor(cv2.resize(photograph("flower.jpg"), (520, 360)), cv2.COLOR_RGB2GRAY))
    starts = np.array([5, 17, 40], dtype=np.int64)
    clip = VideoClip(pixels=np.stack(frames), start_ns=starts, end_ns=np.array([17, 40, 60], dtype=np.int64))
    step = Spatial().with_reference(Image(pixels=picture))
    (rows,) = step([clip], CPU)
    assert rows.valid.tolist() == [True, True, False]
    assert (rows.start_ns.tolist(), rows.end_ns.tolist()) == ([5, 17, 40], [17, 40, 60])
    for row, truth in zip(rows.values, shown, strict=False):
        np.testing.assert_allclose(row[:8].reshape(4, 2) * 520, truth, atol=1)
    flower = VideoClip(pixels=clip.pixels[2:], start_ns=starts[2:], end_ns=clip.end_ns[2:])
    with pytest.raises(SampleError, match=r"in none of 1 frames was the image found; of the first: "):
        step([flower], CPU)
    with pytest.raises(ValueError, match=r"got frames \[360, 520, 3\], allowed: luma"):
        step([VideoClip(pixels=clip.pixels[..., None].repeat(3, 3), start_ns=starts, end_ns=clip.end_ns)], CPU)
