"""Gradual changes, black, and the other ways to choose keyframes: by the container, by groups of colour."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from test_video_keyframes import FRAME_NS, SIZE, _clip, _images, _scene

from features.base import FrameRequest
from features.types import Device, VideoClip
from features.video.cluster import MOST, Clusters, colours
from features.video.keyframes import Keyframes, KeyframeScores, Selector
from features.video.shots import Shot, measure

CPU: Device = "cpu"


def shots(clip: VideoClip, **options: object) -> list[Shot]:
    selector = Selector(Keyframes(**options))
    selector.push(clip)
    return selector.finish()


def begins(pixels: np.ndarray, **options: object) -> list[int]:
    return [shot.start_ns // FRAME_NS for shot in shots(_clip(pixels), **options)][1:]


def dissolved(one: np.ndarray, other: np.ndarray, over: int) -> np.ndarray:
    weight = ((np.arange(over) + 1) / (over + 1))[:, None, None, None]
    mixed = one[-over:] * (1 - weight) + other[:over] * weight
    return np.concatenate([one[:-over], mixed.astype(np.uint8), other[over:]])


def faded(one: np.ndarray, other: np.ndarray, out: int, black: int, into: int) -> np.ndarray:
    down, up = np.linspace(1, 0, out)[:, None, None, None], np.linspace(0, 1, into)[:, None, None, None]
    dark = np.zeros((black, *SIZE, 3), np.uint8)
    parts = [one[:-out], (one[-out:] * down).astype(np.uint8), dark, (other[:into] * up).astype(np.uint8)]
    return np.concatenate([*parts, other[into:]])


@pytest.mark.parametrize("over", [8, 12, 20, 25])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_dissolve_is_found_near_its_middle(over: int, seed: int) -> None:
    film = dissolved(_scene(seed, 50, pan=0.2), _scene(seed + 40, 50, pan=0.2), over)
    (frame,) = begins(film)
    assert abs(frame - (50 - over / 2)) <= over / 2
    assert begins(film, fades=False) == []
    found = shots(_clip(film))
    assert [shot.gradual for shot in found] == [False, True]
    assert found[1].change > 0.05


@pytest.mark.parametrize("lengths", [(10, 4, 10), (16, 1, 16), (8, 30, 8)])
def test_a_fade_through_black_is_one_change_where_the_next_shot_appears(lengths: tuple[int, int, int]) -> None:
    out, black, into = lengths
    film = faded(_scene(1, 40, pan=0.4), _scene(2, 40, pan=0.4), out, black, into)
    (frame,) = begins(film)
    assert 40 - out <= frame <= 40 + black + into


def test_black_is_no_shot_and_white_text_on_black_is_one() -> None:
    black = np.zeros((20, *SIZE, 3), np.uint8)
    text = black.copy()
    text[:, 30:40:3, 40:90:2] = 255
    film = np.concatenate([black, _scene(1, 20), black, _scene(2, 20), text, black])
    assert begins(film) == [60, 80]
    assert [shot.keyframe.luma > 0.06 for shot in shots(_clip(film))] == [True, True, False]
    assert begins(black) == []


def test_light_that_changes_is_no_dissolve() -> None:
    scene = _scene(3, 60, pan=0, noise=1)
    gain = np.concatenate([np.full(20, 1.0), np.linspace(1, 0.6, 20), np.full(20, 0.6)])[:, None, None, None]
    assert begins((scene * gain).astype(np.uint8)) == []


def test_a_cut_is_no_dissolve_and_a_row_says_which_it_is() -> None:
    film = np.concatenate([dissolved(_scene(1, 40, pan=0.4), _scene(2, 40, pan=0.4), 10), _scene(3, 30)])
    (rows,) = KeyframeScores()([_clip(film)], CPU)
    scores = dict(zip(KeyframeScores.columns, rows.values.T, strict=True))
    assert scores["gradual"].tolist() == [0, 1, 0]
    assert scores["share"].sum() == pytest.approx(1)
    assert scores["share"][2] == pytest.approx(30 / 100)


def test_dissolves_at_another_frame_rate() -> None:
    film = dissolved(_scene(1, 50, pan=0.2), _scene(2, 50, pan=0.2), 12)
    starts = np.arange(len(film), dtype=np.int64) * FRAME_NS
    for factor in (0.5, 2):
        times = (starts * factor).astype(np.int64)
        clip = VideoClip(pixels=film, start_ns=times, end_ns=np.append(times[1:], times[-1] + 1000))
        (_, second) = shots(clip)
        assert abs(second.start_ns / (FRAME_NS * factor) - 44) <= 6


def test_each_method_asks_for_no_more_than_it_needs() -> None:
    every = FrameRequest(short_side=224)
    assert Keyframes().request == Keyframes(method="cluster").request == every
    uniform = FrameRequest(short_side=224, rate=Fraction(10, 7), until_next=True)
    assert Keyframes(method="uniform", interval=0.7).request == uniform
    container = FrameRequest(short_side=224, keyframes_only=True, until_next=True)
    assert Keyframes(method="container").request == container


def test_container_takes_every_frame_given_but_black_and_early_ones() -> None:
    pixels = _scene(1, 6, pan=40, noise=0)
    pixels[3] = 0
    starts = np.array([0, 1000, 1200, 2000, 3000, 4000], dtype=np.int64) * 1_000_000
    clip = VideoClip(pixels=pixels, start_ns=starts, end_ns=np.append(starts[1:], 5_000_000_000))
    images = _images(clip, Keyframes(method="container"))
    assert [image.span.start_ns // 1_000_000 for image in images] == [0, 1000, 3000, 4000]
    assert [image.span.end_ns // 1_000_000 for image in images] == [1000, 3000, 4000, 5000]
    sharpest = max((1, 2), key=lambda k: measure(pixels[k], 0, 1).sharpness)
    assert np.array_equal(images[1].pixels, pixels[sharpest])


def test_clusters_show_each_place_once_with_its_share_of_the_time() -> None:
    one, other, third = _scene(1, 40), _scene(2, 40), _scene(3, 20)
    film = _clip(np.concatenate([one, other, one[:30], other[:20], third]))
    found = shots(film, method="cluster", distance=0.5)
    assert len(found) == 3
    assert [round(shot.share * 150) for shot in found] == [70, 60, 20]
    assert [shot.start_ns // FRAME_NS for shot in found] == [0, 40, 130]
    two = shots(film, method="cluster", distance=0.5, max_keyframes=2)
    assert len(two) == 2
    assert sum(shot.share for shot in two) == pytest.approx(1)
    assert len(shots(film, method="cluster", distance=0.0, interval=0.4)) > 8


def test_clusters_hold_no_more_than_they_say() -> None:
    clusters = Clusters()
    rng = np.random.default_rng(0)
    for k in range(3 * MOST):
        frame = measure(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), k * FRAME_NS, (k + 1) * FRAME_NS)
        clusters.add(Shot(change=0.0, gradual=False, start_ns=frame.start_ns, end_ns=frame.end_ns, keyframe=frame))
        assert len(clusters._groups) <= MOST
    found = clusters.finish(0.0, None)
    assert len(found) == MOST
    assert sum(shot.share for shot in found) == pytest.approx(1)
    assert [shot.start_ns for shot in found] == sorted(shot.start_ns for shot in found)


def test_colours_are_shares() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0] = 255
    found = colours(pixels)
    assert (found[0], found[-1], found.sum(), len(found)) == (0.75, 0.25, 1, 512)
