"""``video.flow``: rows, times, units and refusals. What the numbers are worth is judged in the golden test."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.base import FrameRequest, VideoExtractor
from features.errors import SampleError
from features.types import FeatureSequence, VideoClip
from features.video.flow import COLUMNS, Flow, describe, flow_field

CPU = torch.device("cpu")
STEP_NS = 100_000_000


def _clip(pixels: np.ndarray, starts: np.ndarray | None = None) -> VideoClip:
    if starts is None:
        starts = np.arange(len(pixels), dtype=np.int64) * STEP_NS
    ends = np.append(starts[1:], starts[-1:] + STEP_NS)
    return VideoClip(pixels=pixels, start_ns=starts, end_ns=ends)


def _moving(count: int, seed: int = 0, size: tuple[int, int] = (40, 56)) -> np.ndarray:
    canvas = np.random.default_rng(seed).integers(0, 256, (size[0] // 4, size[1] // 4 + count), dtype=np.uint8)
    canvas = canvas.repeat(4, axis=0).repeat(4, axis=1)
    return np.stack([canvas[:, 2 * k : 2 * k + size[1]] for k in range(count)])


def _chunked(flow: Flow, clip: VideoClip, cuts: list[int]) -> FeatureSequence:
    sink = flow.open(CPU)
    edges = [0, *cuts, len(clip)]
    for a, b in pairwise(edges):
        pixels = clip.pixels[a:b].copy()
        sink.push(VideoClip(pixels=pixels, start_ns=clip.start_ns[a:b], end_ns=clip.end_ns[a:b]))
        pixels[:] = 0  # a decoder may use its buffer again
    return sink.finish()


def _same(one: FeatureSequence, other: FeatureSequence) -> bool:
    return all(np.array_equal(getattr(one, key), getattr(other, key)) for key in ("values", "start_ns", "end_ns"))


def test_asks_for_small_luma_frames() -> None:
    assert Flow().request == FrameRequest(pixel_format="gray", short_side=144, rate=10.0)
    assert Flow(bins=4).dim == len(COLUMNS) + 4
    assert isinstance(Flow(), VideoExtractor)


def test_a_row_for_each_pair_of_frames() -> None:
    starts = np.array([7, 50_000_007, 250_000_007], dtype=np.int64)
    (rows,) = Flow()([_clip(_moving(3), starts)], CPU)
    assert rows.start_ns.tolist() == [7, 50_000_007]
    assert rows.end_ns.tolist() == [50_000_007, 250_000_007]
    assert rows.values.shape == (2, Flow().dim)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_frames_give_no_row(count: int) -> None:
    (rows,) = Flow(bins=3)([_clip(_moving(2)[:count])], CPU)
    assert rows.values.shape == (0, 10)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.integers(0, 6), max_size=4), st.sampled_from(["dis", "farneback"]))
def test_chunks_change_nothing(cuts: list[int], method: str) -> None:
    clip, flow = _clip(_moving(6)), Flow(method=method)
    assert _same(_chunked(flow, clip, sorted(cuts)), flow([clip], CPU)[0])


def test_batch_and_clock_change_nothing() -> None:
    one, other, flow = _clip(_moving(4)), _clip(_moving(3, seed=1)), Flow()
    later = _clip(one.pixels, one.start_ns + 5)
    together = flow([one, other, later], CPU)
    assert _same(together[0], flow([one], CPU)[0])
    assert _same(together[1], flow([other], CPU)[0])
    assert np.array_equal(together[2].values, together[0].values)
    assert np.array_equal(together[2].start_ns, together[0].start_ns + 5)


def test_no_motion_gives_no_direction() -> None:
    still = np.repeat(_moving(1), 3, axis=0)
    for method in ("dis", "farneback"):
        (rows,) = Flow(method=method, bins=5)([_clip(still)], CPU)
        assert np.abs(rows.values[:, :7]).max() < 0.01
        assert np.all(rows.values[:, 7:] == 0) or method == "farneback"


@settings(deadline=None, max_examples=40)
@given(st.floats(-9, 9), st.floats(-9, 9), st.integers(1, 12), st.floats(0.01, 2))
def test_description_of_a_uniform_field(dx: float, dy: float, bins: int, seconds: float) -> None:
    field = np.full((32, 50, 2), (dx, dy), dtype=np.float32)
    row = describe(field, seconds, bins)
    scale = 50 * seconds
    speed = np.hypot(dx, dy)
    wanted = np.array([speed, 0, dx, dy, dx, dy, 0]) / scale
    np.testing.assert_allclose(row[:7], wanted, atol=2e-5 * max(1, speed) / scale)
    if abs(speed - 0.1) > 1e-6:
        assert row[7:].sum() == pytest.approx(1 if speed > 0.1 else 0, abs=1e-6)
    nearest = np.rint(np.arctan2(dy, dx) / (2 * np.pi / bins)) % bins
    offset = (np.arctan2(dy, dx) / (2 * np.pi / bins)) % 1
    if speed > 0.11 and abs(offset - 0.5) > 0.01:
        assert np.argmax(row[7:]) == nearest


def test_description_of_two_halves() -> None:
    field = np.zeros((40, 100, 2), dtype=np.float32)
    field[:, :50, 0] = 3  # right
    field[:, 50:, 1] = 1  # down
    row = describe(field, 1.0, 4)
    np.testing.assert_allclose(row[7:], [0.75, 0.25, 0, 0], atol=1e-6)
    np.testing.assert_allclose(row[:4], [0.02, 0.01, 0.015, 0.005], atol=1e-6)


def test_speed_depends_on_neither_rate_nor_resolution() -> None:
    pixels = _moving(9, size=(80, 160))
    (slow,) = Flow(preset="medium")([_clip(pixels[::2])], CPU)
    (twice,) = Flow(preset="medium")([_clip(pixels[::2], np.arange(5, dtype=np.int64) * STEP_NS // 2)], CPU)
    np.testing.assert_allclose(twice.values[:, :7], 2 * slow.values[:, :7], rtol=1e-4, atol=1e-6)
    big = pixels[::2].repeat(2, axis=1).repeat(2, axis=2)
    (large,) = Flow(preset="medium")([_clip(big)], CPU)
    np.testing.assert_allclose(large.values[:, 4:6], slow.values[:, 4:6], atol=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "raft"}, "method: got 'raft', allowed: 'dis', 'farneback'"),
        ({"preset": "slow"}, "preset: got 'slow', allowed: 'ultrafast', 'fast', 'medium'"),
        ({"rate": 0.0}, "rate: got 0.0, allowed: > 0 and finite"),
        ({"rate": float("inf")}, "rate: got inf"),
        ({"short_side": 31}, "short_side: got 31, allowed: >= 32"),
        ({"bins": 0}, "bins: got 0, allowed: >= 1"),
    ],
)
def test_impossible_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Flow(), **options)


def test_refuses_colour_and_frames_of_two_sizes() -> None:
    with pytest.raises(ValueError, match=r"got frames \[40, 40, 3\] .* cure: decode with pixel_format='gray'"):
        Flow()([_clip(np.zeros((1, 40, 40, 3), dtype=np.uint8))], CPU)
    sink = Flow().open(CPU)
    sink.push(_clip(np.zeros((1, 40, 40), dtype=np.uint8)))
    with pytest.raises(ValueError, match=r"got frames \[40, 40\] and \[40, 50\], allowed: luma \[H, W\] of one size"):
        sink.push(_clip(np.zeros((1, 40, 50), dtype=np.uint8), np.array([STEP_NS])))
    with pytest.raises(ValueError, match="of one size"):
        flow_field(np.zeros((40, 40), dtype=np.uint8), np.zeros((41, 40), dtype=np.uint8))
    with pytest.raises(ValueError, match="method: got 'x'"):
        flow_field(np.zeros((40, 40), dtype=np.uint8), np.zeros((40, 40), dtype=np.uint8), method="x")


def test_narrow_strips_are_refused_before_opencv_crashes() -> None:
    with pytest.raises(SampleError, match=r"^unsupported_format: .* got frames of 200x16, allowed: both sides >= 32"):
        Flow()([_clip(np.zeros((2, 16, 200), dtype=np.uint8))], CPU)


@pytest.mark.parametrize("shape", [(32, 32), (32, 90), (32, 700), (700, 32), (33, 63), (45, 64)])
@pytest.mark.parametrize("preset", ["ultrafast", "fast", "medium"])
def test_smallest_frames(shape: tuple[int, int], preset: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    assert np.isfinite(flow_field(pixels[0], pixels[1], preset=preset)).all()


def test_time_must_go_on() -> None:
    sink = Flow().open(CPU)
    sink.push(_clip(_moving(1), np.array([10])))
    with pytest.raises(SampleError, match=r"^bad_timestamps: video\.flow: a frame starts 7 ns before the last one"):
        sink.push(_clip(_moving(1), np.array([3])))
