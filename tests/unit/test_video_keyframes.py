"""``video.keyframes``: known cuts are found and nothing else, spans tile the video, chunks change nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.base import FrameRequest, FrameSelector, VideoExtractor
from features.errors import SampleError
from features.types import Device, FeatureSequence, Image, VideoClip
from features.video.keyframes import Keyframes, KeyframeScores, Selector
from features.video.shots import Shot

CPU: Device = "cpu"
FRAME_NS = 40_000_000
METHODS = ["content", "uniform", "container", "cluster"]
SIZE = (72, 128)


def _canvas(seed: int, brightness: float = 128, contrast: float = 45, side: int = 400) -> np.ndarray:
    """A colour picture with the spectrum of natural ones."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1
    planes = []
    for _ in range(3):
        signal = np.fft.irfft2(np.exp(2j * np.pi * rng.random(frequency.shape)) / frequency**1.3, s=(side, side))
        planes.append((signal - signal.mean()) / signal.std() * contrast + brightness + rng.uniform(-40, 40))
    return np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)


def _scene(seed: int, count: int, *, pan: float = 1.5, zoom: float = 0.0, noise: float = 4.0) -> np.ndarray:
    """``count`` frames of a camera that pans (pixels a frame) and zooms over a canvas, with grain."""
    canvas, rng = _canvas(seed), np.random.default_rng(seed + 1000)
    frames = []
    for k in range(count):
        scale = 1 + zoom * k
        matrix = np.array([[1 / scale, 0, 100 + pan * k], [0, 1 / scale, 120 - pan * k / 2]])
        seen = cv2.warpAffine(
            canvas, matrix, SIZE[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_WRAP
        )
        frames.append(np.clip(seen + rng.normal(0, noise, seen.shape), 0, 255).astype(np.uint8))
    return np.stack(frames)


def _clip(pixels: np.ndarray, first_ns: int = 0) -> VideoClip:
    starts = first_ns + np.arange(len(pixels), dtype=np.int64) * FRAME_NS
    return VideoClip(pixels=pixels, start_ns=starts, end_ns=starts + FRAME_NS)


def _pushed(clip: VideoClip, push: Callable[[VideoClip], None], cuts: list[int]) -> None:
    for a, b in pairwise([0, *sorted(cuts), len(clip)]):
        pixels = clip.pixels[a:b].copy()
        push(VideoClip(pixels=pixels, start_ns=clip.start_ns[a:b], end_ns=clip.end_ns[a:b]))
        pixels[:] = 99  # a decoder may use its buffer again


def _shots(clip: VideoClip, **options: object) -> list[Shot]:
    finder = Selector(replace(Keyframes(), **options))
    finder.push(clip)
    return finder.finish()


def _cut_frames(pixels: np.ndarray, **options: object) -> list[int]:
    return [shot.start_ns // FRAME_NS for shot in _shots(_clip(pixels), **options)][1:]


@pytest.fixture(scope="module")
def film() -> VideoClip:
    """Five scenes: still, slow pan, fast pan, zoom, grainy."""
    scenes = [
        _scene(1, 20, pan=0),
        _scene(2, 31, pan=1),
        _scene(3, 25, pan=9),
        _scene(4, 18, zoom=0.02),
        _scene(5, 40, noise=20),
    ]
    return _clip(np.concatenate(scenes), first_ns=FRAME_NS * 1000)


CUTS = [20, 51, 76, 94]


def _images(clip: VideoClip, step: Keyframes) -> list[Image]:
    sink = step.select()
    sink.push(clip)
    return sink.finish()


def test_known_cuts_are_found_exactly(film: VideoClip) -> None:
    shots = _shots(film)
    assert [(shot.start_ns - film.start_ns[0]) // FRAME_NS for shot in shots] == [0, *CUTS]


@pytest.mark.parametrize("seed", range(6))
def test_random_films(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(12, 30, 5)
    scenes = [_scene(100 * seed + k, int(n), pan=float(rng.uniform(0, 5))) for k, n in enumerate(lengths)]
    assert _cut_frames(np.concatenate(scenes)) == np.cumsum(lengths)[:-1].tolist()


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(_scene(7, 60, pan=12), id="fast pan"),
        pytest.param(_scene(7, 60, pan=0, noise=40), id="heavy noise"),
        pytest.param(_scene(7, 60, zoom=0.05), id="zoom"),
        pytest.param(np.random.default_rng(0).integers(0, 256, (40, *SIZE, 3), dtype=np.uint8), id="nothing but noise"),
        pytest.param(np.zeros((40, *SIZE, 3), dtype=np.uint8), id="black"),
        pytest.param(_scene(7, 20, pan=8).repeat(3, axis=0), id="every frame three times"),
    ],
)
def test_no_cut_where_there_is_none(pixels: np.ndarray) -> None:
    assert _cut_frames(pixels) == []


def test_pan_that_starts_or_stops_is_no_cut() -> None:
    still, moving = _scene(8, 20, pan=0, noise=1), _scene(8, 20, pan=6, noise=1)
    assert _cut_frames(np.concatenate([still, moving])) == []
    assert _cut_frames(np.concatenate([moving[::-1], still])) == []


@pytest.mark.parametrize("value", [0, 255])
def test_a_flash_or_a_dropped_frame_is_no_cut(value: int) -> None:
    pixels = _scene(9, 50)
    pixels[25] = value
    assert _cut_frames(pixels) == []


def test_repeated_frames_hide_no_cut() -> None:
    pixels = np.concatenate([_scene(10, 12), _scene(11, 12)]).repeat(2, axis=0)
    assert _cut_frames(pixels) == [24]


def test_a_very_slow_dissolve_is_no_cut() -> None:
    one, other = _scene(12, 60, pan=0), _scene(13, 60, pan=0)
    weight = np.linspace(0, 1, 60)[:, None, None, None]
    assert _cut_frames((one * (1 - weight) + other * weight).astype(np.uint8)) == []


def test_a_cut_in_monochrome() -> None:
    grey = np.concatenate([_scene(14, 20), _scene(15, 20)]).mean(axis=3, keepdims=True).astype(np.uint8)
    assert _cut_frames(grey.repeat(3, axis=3)) == [20]


def test_min_gap() -> None:
    pixels = np.concatenate([_scene(16, 20), _scene(17, 6), _scene(18, 20)])
    assert _cut_frames(pixels, min_gap=0.2) == [20, 26]
    assert _cut_frames(pixels, min_gap=0.4) == [20]


@settings(deadline=None, max_examples=15)
@given(
    cuts=st.lists(st.integers(0, 134), max_size=8),
    method=st.sampled_from(METHODS),
    limit=st.sampled_from([None, 1, 2, 3]),
)
def test_chunks_change_nothing(film: VideoClip, cuts: list[int], method: str, limit: int | None) -> None:
    scores = KeyframeScores(method=method, max_keyframes=limit, interval=0.7)
    keyframes = Keyframes(method=method, max_keyframes=limit, interval=0.7)
    rows, images = scores.open(CPU), keyframes.select()
    _pushed(film, rows.push, cuts)
    _pushed(film, images.push, cuts)
    found, wanted = rows.finish(), scores([film], CPU)[0]
    for name in ("values", "start_ns", "end_ns"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name))
    for one, other in zip(images.finish(), _images(film, keyframes), strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert one.span == other.span


@settings(deadline=None, max_examples=10)
@given(
    method=st.sampled_from(METHODS[:3]),
    limit=st.sampled_from([None, 1, 3]),
    threshold=st.floats(1, 4),
    gap=st.floats(0, 1),
)
def test_spans_tile_the_video(film: VideoClip, method: str, limit: int | None, threshold: float, gap: float) -> None:
    shots = _shots(film, method=method, max_keyframes=limit, threshold=threshold, min_gap=gap, interval=0.5)
    assert shots[0].start_ns == film.start_ns[0]
    assert shots[-1].end_ns == film.end_ns[-1]
    assert all(one.end_ns == other.start_ns for one, other in pairwise(shots))
    assert all(shot.start_ns <= shot.keyframe.start_ns < shot.end_ns for shot in shots)


@pytest.mark.parametrize("method", METHODS[:3])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 50])
def test_max_keyframes_keeps_the_strongest_cuts(film: VideoClip, method: str, limit: int) -> None:
    options = {"method": method, "interval": 0.6, "min_gap": 0.0, "threshold": 1.0, "min_change": 0.02}
    every = _shots(film, **options)
    assert len(every) >= 5
    strongest = sorted(every[1:], key=lambda shot: (-shot.change, shot.start_ns))[: limit - 1]
    wanted = sorted([every[0].start_ns, *(shot.start_ns for shot in strongest)])
    found = _shots(film, max_keyframes=limit, **options)
    assert [shot.start_ns for shot in found] == wanted


@pytest.mark.parametrize("limit", [2, 3, 4])
def test_of_equal_cuts_the_later_are_undone(limit: int) -> None:
    one, other = (np.repeat(_scene(seed, 1, noise=0), 15, axis=0) for seed in (1, 2))
    clip = _clip(np.concatenate([one, other, one, other, one]))
    assert [shot.start_ns // FRAME_NS for shot in _shots(clip, max_keyframes=limit)] == [0, 15, 30, 45][:limit]


def test_uniform_takes_the_first_frame_of_each_interval(film: VideoClip) -> None:
    images = _images(film, Keyframes(method="uniform", interval=1.0))
    assert len(images) == 6  # 134 frames at 25 a second
    for k, image in enumerate(images):
        assert image.span.start_ns == film.start_ns[25 * k]
        assert np.array_equal(image.pixels, film.pixels[25 * k])


def test_uniform_goes_by_time_not_by_count() -> None:
    starts = np.array([0, 10, 990, 1000, 3500, 3600], dtype=np.int64) * 1_000_000
    clip = VideoClip(pixels=_scene(1, 6), start_ns=starts, end_ns=np.append(starts[1:], starts[-1] + 1))
    images = _images(clip, Keyframes(method="uniform", interval=1.0))
    assert [image.span.start_ns // 1_000_000 for image in images] == [0, 1000, 3500]


def test_the_keyframe_is_sharp_and_not_black() -> None:
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 3) for frame in _scene(20, 10, noise=0)])
    pixels = np.concatenate([np.zeros((12, *SIZE, 3), dtype=np.uint8), blurred, _scene(20, 1, noise=0), blurred])
    pixels[3, ::10, ::10] = pixels[3, 1::10, ::10] = 255  # very sharp, but black
    (image,) = _images(_clip(pixels), Keyframes(min_change=0.9))
    assert np.array_equal(image.pixels, pixels[22])


def test_scores_say_what_the_columns_promise() -> None:
    one, other = _scene(21, 20, pan=0, noise=0), _scene(22, 20, pan=0, noise=0)
    pixels = np.concatenate([one, other])
    pixels[20:25] = np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in pixels[20:25]])
    (rows,) = KeyframeScores()([_clip(pixels)], CPU)
    assert len(rows) == 2
    assert rows.dim == KeyframeScores().dim == len(KeyframeScores.columns)
    scores = dict(zip(KeyframeScores.columns, rows.values.T, strict=True))
    assert scores["change"][0] == 0
    assert scores["change"][1] == pytest.approx(np.abs(one[-1].astype(float) - other[0]).mean() / 255, rel=0.25)
    assert scores["offset_seconds"].tolist() == pytest.approx([0.0, 0.2])
    luma = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).mean() / 255 for frame in (one[0], other[0])]
    assert scores["luma"].tolist() == pytest.approx(luma, abs=0.01)
    blurred = KeyframeScores()([_clip(pixels[20:25])], CPU)[0].values[0, 3]
    assert scores["sharpness"][1] > blurred + 0.5


def test_both_steps_choose_the_same(film: VideoClip) -> None:
    assert [field.name for field in fields(Keyframes)] == [field.name for field in fields(KeyframeScores)]
    assert Keyframes().request == KeyframeScores().request == FrameRequest(pixel_format="rgb24", short_side=224)
    assert isinstance(Keyframes(), FrameSelector)
    assert isinstance(KeyframeScores(), VideoExtractor)
    images, (rows,) = _images(film, Keyframes()), KeyframeScores()([film], CPU)
    assert [image.span.start_ns for image in images] == rows.start_ns.tolist()
    assert [image.span.end_ns for image in images] == rows.end_ns.tolist()


def test_shifting_the_clock_shifts_only_times(film: VideoClip) -> None:
    later = VideoClip(pixels=film.pixels, start_ns=film.start_ns + 77, end_ns=film.end_ns + 77)
    one, other = KeyframeScores()([film, later], CPU)
    assert np.array_equal(one.values, other.values)
    assert np.array_equal(one.start_ns + 77, other.start_ns)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_very_short_videos(count: int) -> None:
    clip = _clip(_scene(1, 3)[:count])
    (rows,) = KeyframeScores()([clip], CPU)
    assert isinstance(rows, FeatureSequence)
    assert rows.values.shape == (min(count, 1), 6)
    assert len(_images(clip, Keyframes())) == min(count, 1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (3, 2), (65, 64)])
def test_odd_sizes(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, *shape, 3), dtype=np.uint8)
    assert np.isfinite(KeyframeScores()([_clip(pixels)], CPU)[0].values).all()


def test_memory_is_a_frame_a_shot_and_those_of_a_second() -> None:
    selector = Selector(Keyframes(max_keyframes=3))
    for k in range(12):
        selector.push(_clip(_scene(k, 15), first_ns=k * 15 * FRAME_NS))
        finder = selector._finder
        pictures = {id(frame): frame for frame in finder._frames if frame.pixels.size}
        pictures |= {id(shot.keyframe): shot.keyframe for shot in selector._shots}
        assert len(pictures) <= 3 + 1 + 30
        assert all(frame.pixels.base is None for frame in pictures.values())
        assert len(finder._frames) <= 45
    assert len(selector.finish()) == 3


@pytest.mark.parametrize("method", ["content", "uniform"])
def test_scores_of_a_long_video_hold_no_pictures(method: str) -> None:
    options = KeyframeScores(method=method, interval=0.5, min_gap=0.0)  # type: ignore[arg-type]
    sink = options.open(CPU)
    clips = [_clip(_scene(k, 15), first_ns=k * 15 * FRAME_NS) for k in range(12)]
    for clip in clips:
        sink.push(clip)
    kept = [shot.keyframe for shot in sink._selector._shots]
    assert len(kept) >= 10
    assert sum(frame.pixels.nbytes + frame.thumbnail.nbytes for frame in kept) == 0
    assert all(frame.sketch is None for frame in kept)
    pixels = np.concatenate([clip.pixels for clip in clips])
    (whole,) = options([_clip(pixels)], CPU)
    assert np.array_equal(sink.finish().values, whole.values)
    assert len(_images(_clip(pixels), Keyframes(method=method, interval=0.5, min_gap=0.0))) == len(whole)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "random"}, "method: got 'random', allowed: 'content', 'uniform', 'container', 'cluster'"),
        ({"threshold": 0.5}, "threshold: got 0.5, allowed: >= 1 and finite"),
        ({"min_change": 0.0}, "min_change: got 0.0, allowed: between 0 and 1"),
        ({"min_gap": -1.0}, "min_gap: got -1.0, allowed: >= 0 and finite"),
        ({"interval": 0.0}, "interval: got 0.0, allowed: > 0 and finite"),
        ({"interval": float("nan")}, "interval: got nan"),
        ({"distance": 1.5}, "distance: got 1.5, allowed: 0 to 1"),
        ({"max_keyframes": 0}, "max_keyframes: got 0, allowed: >= 1, or none"),
        ({"short_side": 0}, "short_side: got 0, allowed: >= 1"),
    ],
)
@pytest.mark.parametrize("step", [Keyframes(), KeyframeScores()])
def test_impossible_options(step: Keyframes | KeyframeScores, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(step, **options)


def test_refuses_luma_other_sizes_and_time_that_goes_back() -> None:
    finder = Selector(Keyframes())
    with pytest.raises(
        ValueError, match=r"got frames \[8, 8\], allowed: RGB .* cure: decode with pixel_format='rgb24'"
    ):
        finder.push(_clip(np.zeros((1, 8, 8), dtype=np.uint8)))
    finder.push(_clip(np.zeros((2, 8, 8, 3), dtype=np.uint8)))
    with pytest.raises(
        SampleError, match=r"^bad_timestamps: .* got a frame at 40000000 ns, allowed: not before 80000000"
    ):
        finder.push(_clip(np.zeros((1, 8, 8, 3), dtype=np.uint8), first_ns=FRAME_NS))
    with pytest.raises(ValueError, match=r"got frames \[8, 8, 3\] and \[8, 9, 3\], allowed: one size"):
        finder.push(_clip(np.zeros((1, 8, 9, 3), dtype=np.uint8), first_ns=2 * FRAME_NS))
