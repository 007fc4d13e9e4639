"""``video.temporal``: windows by time, pooling against NumPy, recurrence against torch's own modules."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

from features.base import FrameRequest, VideoExtractor, WeightsRef
from features.errors import SampleError, StateError
from features.image.cnn import Cnn
from features.types import Device, FeatureSequence, Image, VideoClip
from features.video.temporal import Temporal

CPU: Device = "cpu"
MS = 1_000_000
SMALL: dict[str, Any] = {"model": "resnet18", "image_size": 32, "batch_size": 4}
TIMES = [5, 100, 230, 480, 500, 760, 1020, 1300, 1310, 2900, 3000]


@pytest.fixture(scope="module")
def backbone() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torchvision.models.resnet18(weights=None).state_dict()


def clip(times: list[int] = TIMES, first: int = 0) -> VideoClip:
    pixels = np.random.default_rng(3).integers(0, 256, (len(times), 40, 60, 3), dtype=np.uint8)
    starts = (np.array(times, dtype=np.int64) + first) * MS
    return VideoClip(pixels=pixels, start_ns=starts, end_ns=np.append(starts[1:], starts[-1:] + 40 * MS))


def frame_vectors(state: dict[str, torch.Tensor], frames: VideoClip) -> np.ndarray:
    """The same by ``image.cnn``."""
    cnn = Cnn(model="resnet18", image_size=32, weights="file:x").with_state(state)
    return np.concatenate([found.values for found in cnn([Image(pixels=pixels) for pixels in frames.pixels], CPU)])


def windows(times: list[int], window: int, hop: int) -> list[list[int]]:
    """Indices of the frames in each window, by brute force."""
    found, begin = [], times[0]
    while True:
        found.append([k for k, time in enumerate(times) if begin <= time < begin + window])
        if begin + window > times[-1] or begin + hop > times[-1]:
            return found
        begin += hop


@pytest.mark.parametrize("encoder", ["mean", "max", "std", "mean_std"])
@pytest.mark.parametrize(("window", "hop"), [(0.5, 0.25), (1.0, 1.0), (0.3, 0.7), (10.0, 1.0)])
def test_pooling_is_that_of_the_frames_that_begin_in_each_window(
    backbone: dict[str, torch.Tensor], encoder: str, window: float, hop: float
) -> None:
    step = Temporal(encoder=encoder, window=window, hop=hop, **SMALL)
    (rows,) = step.with_state(backbone)([clip()], CPU)
    vectors = frame_vectors(backbone, clip())
    inside = windows(TIMES, int(window * 1000), int(hop * 1000))
    assert len(rows) == len(inside)
    assert rows.dim == step.dim
    pools = {"mean": [np.mean], "max": [np.max], "std": [np.std], "mean_std": [np.mean, np.std]}[encoder]
    for k, chosen in enumerate(inside):
        assert rows.start_ns[k] == (TIMES[0] + k * round(hop * 1000)) * MS
        assert rows.end_ns[k] == min(rows.start_ns[k] + int(window * 1000) * MS, clip().end_ns[-1])
        assert rows.valid[k] == bool(chosen)
        if chosen:
            wanted = np.concatenate([pool(vectors[chosen], axis=0) for pool in pools])
            np.testing.assert_allclose(rows.values[k], wanted, atol=2e-4)
        else:
            assert not rows.values[k].any()


@pytest.mark.parametrize("encoder", ["gru", "lstm"])
def test_recurrence_is_torchs(backbone: dict[str, torch.Tensor], encoder: str) -> None:
    torch.manual_seed(1)
    own = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[encoder](512, 6, 2, batch_first=True).eval()
    state = {f"backbone.{name}": value for name, value in backbone.items()}
    state |= {f"encoder.{name}": value for name, value in own.state_dict().items()}
    step = Temporal(encoder=encoder, hidden=6, layers=2, window=0.5, hop=0.5, weights="file:both.pth", **SMALL)
    assert (step.dim, step.weights_ref) == (6, WeightsRef(kind="file", locator="both.pth"))
    (rows,) = step.with_state(state)([clip()], CPU)
    vectors = torch.from_numpy(frame_vectors(backbone, clip()))
    for k, chosen in enumerate(windows(TIMES, 500, 500)):
        if chosen:
            with torch.inference_mode():
                wanted = own(vectors[chosen][None])[0][0, -1].numpy()
            np.testing.assert_allclose(rows.values[k], wanted, atol=1e-4)
    with pytest.raises(StateError, match=r"under 'encoder\.' do not fit .* cure: set 'hidden'"):
        Temporal(encoder=encoder, hidden=7, layers=2, weights="file:b", **SMALL).with_state(state)
    with pytest.raises(StateError, match=r"hold no entry under 'backbone\.'"):
        step.with_state(backbone)


@pytest.mark.parametrize("cuts", [[1], [3, 4, 9], list(range(11))])
def test_chunks_change_nothing(backbone: dict[str, torch.Tensor], cuts: list[int]) -> None:
    bound = Temporal(window=0.5, hop=0.25, **SMALL).with_state(backbone)
    sink, whole = bound.open(CPU), clip()
    for a, b in pairwise([0, *cuts, len(whole)]):
        pixels = whole.pixels[a:b].copy()
        sink.push(VideoClip(pixels=pixels, start_ns=whole.start_ns[a:b], end_ns=whole.end_ns[a:b]))
        pixels[:] = 0
    found, wanted = sink.finish(), bound([whole], CPU)[0]
    for name in ("values", "start_ns", "end_ns", "valid"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name))


def test_memory_is_one_window_of_vectors(backbone: dict[str, torch.Tensor]) -> None:
    sink = Temporal(window=1.0, hop=0.5, **SMALL).with_state(backbone).open(CPU)
    for k in range(8):
        sink.push(clip([40 * i for i in range(10)], first=400 * k))
        assert len(sink._vectors) <= 25 + 10
        assert len(sink._starts) <= 25 + 10 + 4


def test_the_installed_network_works_without_a_download() -> None:
    from pipeline import weights

    step = Temporal(encoder="mean")
    ref = step.weights_ref
    assert ref.kind == "package"
    state = weights.load(ref, Path())
    frames = clip([0, 250])
    (rows,) = step.with_state(state)([frames], CPU)
    cnn = Cnn().with_state(state)([Image(pixels=pixels) for pixels in frames.pixels], CPU)
    wanted = np.mean([found.values[0] for found in cnn], axis=0)
    np.testing.assert_allclose(rows.values[0], wanted, atol=1e-4)


def test_asks_for_frames_at_its_rate() -> None:
    assert Temporal().request == FrameRequest(short_side=256, rate=4.0)
    assert Temporal(model="resnet18").weights_ref == WeightsRef(kind="torchvision", locator="resnet18/IMAGENET1K_V1")
    assert Temporal(model="resnet18", encoder="max").dim == 512
    assert Temporal().dim == 2560


def test_nothing_and_time_that_stands_still(backbone: dict[str, torch.Tensor]) -> None:
    bound = Temporal(**SMALL).with_state(backbone)
    assert isinstance(bound, VideoExtractor)
    assert isinstance(bound.open(CPU).finish(), FeatureSequence)
    sink, times = bound.open(CPU), np.array([11 * MS])
    luma = VideoClip(pixels=np.zeros((1, 4, 4), np.uint8), start_ns=times, end_ns=times)
    sink.push(clip([10]))
    with pytest.raises(SampleError, match=r"bad_timestamps: .* a frame starts at 3000000 ns, allowed: after 10000000"):
        sink.push(clip([3]))
    with pytest.raises(
        ValueError, match=r"got frames \[4, 4\], allowed: RGB .* cure: decode with pixel_format='rgb24'"
    ):
        sink.push(luma)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "mamba"}, "encoder: got 'mamba', allowed: 'mean', 'max', 'std', 'mean_std', 'gru', 'lstm'"),
        ({"encoder": "gru"}, "weights: got 'DEFAULT' for encoder 'gru', allowed: 'file:PATH' of a trained encoder"),
        ({"model": "resnet"}, "model: got 'resnet', allowed: 'efficientnet_lite0' or a torchvision classifier"),
        ({"model": "resnet18", "weights": "X"}, "weights: got 'X' for resnet18, allowed: DEFAULT, IMAGENET1K_V1"),
        ({"weights": "X"}, "weights: got 'X' for efficientnet_lite0, allowed: 'DEFAULT', 'file:PATH'"),
        ({"model": "squeezenet1_0"}, "got 'squeezenet1_0', which has no linear classifier"),
        ({"window": 0.0}, "window: got 0.0, allowed: > 0 and finite"),
        ({"hop": float("nan")}, "hop: got nan, allowed: > 0 and finite"),
        ({"hidden": 0}, "hidden: got 0, allowed: >= 1"),
        ({"image_size": 8}, "image_size: got 8, allowed: >= 32"),
    ],
)
def test_impossible_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Temporal(**options)


def test_weights_that_do_not_fit_are_refused(backbone: dict[str, torch.Tensor]) -> None:
    state = dict(backbone)
    state["conv1.weight"] = torch.zeros(3, 3)
    del state["layer1.0.conv1.weight"]
    with pytest.raises(StateError, match=r"1 entries are missing \(layer1.0.conv1.weight\), 1 are of another shape"):
        Temporal(**SMALL).with_state(state)
