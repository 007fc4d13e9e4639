"""``video.flow``: rows, times, units and refusals. What the numbers are worth is judged in the golden test."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.base import FrameRequest, VideoExtractor, WeightsRef
from features.errors import SampleError, StateError
from features.types import Device, FeatureSequence, VideoClip
from features.video.fields import flow_field
from features.video.flow import Flow, FlowField
from features.video.motion import COLUMNS, SPEEDS, describe

CPU: Device = "cpu"
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
    assert Flow(bins=4).dim == len(COLUMNS) + len(SPEEDS) + 1 + 4
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
    assert rows.values.shape == (0, len(COLUMNS) + 7 + 3)


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
        assert np.abs(rows.values[:, :9]).max() < 0.02
        assert np.all(rows.values[:, -5:] == 0) or method == "farneback"


@settings(deadline=None, max_examples=40)
@given(st.floats(-9, 9), st.floats(-9, 9), st.integers(1, 12), st.floats(0.01, 2))
def test_description_of_a_uniform_field(dx: float, dy: float, bins: int, seconds: float) -> None:
    field = np.full((32, 50, 2), (dx, dy), dtype=np.float32)
    row = describe(field, seconds, bins)
    scale = 50 * seconds
    speed = np.hypot(dx, dy)
    wanted = np.array([speed, 0, dx, dy, dx, dy]) / scale
    np.testing.assert_allclose(row[:6], wanted, atol=2e-5 * max(1, speed) / scale)
    np.testing.assert_allclose(row[6:11], [0, 0, 0, 0, 1], atol=1e-5 / seconds)
    if all(abs(speed / scale - edge) > 1e-6 for edge in SPEEDS):
        assert row[11 + sum(speed / scale >= edge for edge in SPEEDS)] == 1
    row = row[11:]
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
    np.testing.assert_allclose(row[-4:], [0.75, 0.25, 0, 0], atol=1e-6)
    np.testing.assert_allclose(row[11:18], [0.5, 0.5, 0, 0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(row[:4], [0.02, 0.01, 0.015, 0.005], atol=1e-6)


def test_speed_depends_on_neither_rate_nor_resolution() -> None:
    pixels = _moving(9, size=(80, 160))
    (slow,) = Flow(preset="medium")([_clip(pixels[::2])], CPU)
    (twice,) = Flow(preset="medium")([_clip(pixels[::2], np.arange(5, dtype=np.int64) * STEP_NS // 2)], CPU)
    np.testing.assert_allclose(twice.values[:, :10], 2 * slow.values[:, :10], rtol=1e-4, atol=1e-5)
    big = pixels[::2].repeat(2, axis=1).repeat(2, axis=2)
    (large,) = Flow(preset="medium")([_clip(big)], CPU)
    np.testing.assert_allclose(large.values[:, 4:6], slow.values[:, 4:6], atol=0.02)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "horn"}, "method: got 'horn', allowed: 'dis', 'farneback', 'raft'"),
        ({"model": "raft"}, "model: got 'raft', allowed: 'raft_small', 'raft_large'"),
        (
            {"method": "raft", "weights": "V9"},
            "weights: got 'V9' for raft_small, allowed: DEFAULT, C_T_V1, C_T_V2, file",
        ),
        ({"method": "raft", "short_side": 100}, "short_side: got 100, allowed: >= 128"),
        ({"iterations": 0}, "iterations: got 0, allowed: >= 1"),
        ({"preset": "slow"}, "preset: got 'slow', allowed: 'ultrafast', 'fast', 'balanced', 'medium'"),
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
@pytest.mark.parametrize("preset", ["ultrafast", "fast", "balanced", "medium"])
def test_smallest_frames(shape: tuple[int, int], preset: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, *shape), dtype=np.uint8)
    assert np.isfinite(flow_field(pixels[0], pixels[1], preset=preset)).all()


def test_time_must_go_on() -> None:
    sink = Flow().open(CPU)
    sink.push(_clip(_moving(1), np.array([10])))
    with pytest.raises(SampleError, match=r"^bad_timestamps: video\.flow: a frame starts 7 ns before the last one"):
        sink.push(_clip(_moving(1), np.array([3])))


def test_the_field_on_a_grid() -> None:
    pixels = _moving(3, size=(64, 96))
    (rows,) = FlowField(rows=2, columns=3, preset="medium")([_clip(pixels)], CPU)
    assert rows.values.shape == (2, 12)
    field = flow_field(pixels[0], pixels[1], preset="medium") / (96 * 0.1)
    cells = field.reshape(2, 32, 3, 32, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(rows.values[0].reshape(2, 3, 2), cells, atol=1e-5)
    assert FlowField().dim == 2 * 9 * 16
    with pytest.raises(ValueError, match=r"video\.flow_field: rows: got 0, allowed: >= 1"):
        FlowField(rows=0)
    with pytest.raises(ValueError, match=r"video\.flow_field: method: got 'x'"):
        FlowField(method="x")


@pytest.fixture(scope="module")
def raft_state() -> dict[str, torch.Tensor]:
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torchvision.models.optical_flow.raft_small(weights=None)
        for parameter in net.parameters():
            parameter.data *= 0.5  # untrained, the recurrence would run away
    return net.state_dict()


def test_raft_is_torchvisions(raft_state: dict[str, torch.Tensor]) -> None:
    """The oracle is torchvision's own preset and network, on a size that needs no padding, and one that does."""
    import torchvision

    net = torchvision.models.optical_flow.raft_small(weights=None).eval()
    net.load_state_dict(raft_state)
    colour = np.stack([_moving(2, seed, size=(128, 160)) for seed in range(3)], axis=-1)
    transform = torchvision.models.optical_flow.Raft_Small_Weights.DEFAULT.transforms()
    one, other = transform(*(torch.from_numpy(frame).permute(2, 0, 1)[None] for frame in colour))
    with torch.inference_mode():
        wanted = net(one, other, num_flow_updates=3)[-1][0].permute(1, 2, 0).numpy()
    from features.video import raft

    ours = raft.network("raft_small", raft_state, CPU)
    found = raft.flow(ours, colour[0], colour[1], iterations=3, device=CPU)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    cropped = raft.flow(ours, colour[0, :, :155], colour[1, :, :155], iterations=3, device=CPU)
    assert cropped.shape == (128, 155, 2)


def test_raft_as_a_step(raft_state: dict[str, torch.Tensor]) -> None:
    step = Flow(method="raft", iterations=2, weights="file:raft.pth")
    assert step.weights_ref == WeightsRef(kind="file", locator="raft.pth")
    assert Flow(method="raft").weights_ref == WeightsRef(kind="torchvision", locator="raft_small/C_T_V2")
    assert Flow().weights_ref is None
    assert step.request == FrameRequest(pixel_format="rgb24", short_side=144, rate=10.0)
    assert (step.numerics, Flow().numerics) == (("opencv-python", "torch", "torchvision"), ("opencv-python",))
    clip = _clip(np.stack([_moving(3, seed, size=(128, 128)) for seed in range(3)], axis=-1))
    with pytest.raises(StateError, match=r"video\.flow: got no weights for raft_small; cure: with_state"):
        step([clip], CPU)
    with pytest.raises(StateError, match=r"weights do not fit raft_small: .* cure: give the state_dict"):
        step.with_state({"a": np.zeros(3)})
    with pytest.raises(StateError, match="method 'dis' needs no weights"):
        Flow().with_state({})
    bound = step.with_state(raft_state)
    assert isinstance(bound, VideoExtractor)
    (rows,) = bound([clip], CPU)
    assert rows.values.shape == (2, step.dim)
    assert _same(rows, _chunked(bound, clip, [1]))
    assert _same(rows, pickle.loads(pickle.dumps(bound))([clip], CPU)[0])
    with pytest.raises(SampleError, match="got frames of 128x100, allowed: both sides >= 128"):
        bound([_clip(clip.pixels[:, :100])], CPU)
    with pytest.raises(
        ValueError, match=r"allowed: RGB \[H, W, 3\] of one size; cure: decode with pixel_format='rgb24'"
    ):
        bound([_clip(_moving(2, size=(128, 128)))], CPU)
    (field,) = FlowField(method="raft", iterations=2).with_state(raft_state)([clip], CPU)
    assert field.dim == 288
