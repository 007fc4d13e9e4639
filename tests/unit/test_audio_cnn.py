"""``audio.cnn``: pictures, patches and their times, networks and weights."""

from __future__ import annotations

from typing import Any

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.audio.cnn import Cnn
from features.audio.networks import SmallCnn, fit_state
from features.base import WeightsRef
from features.errors import StateError
from features.time import Span
from features.types import AudioClip, Device

CPU: Device = "cpu"
SMALL: dict[str, Any] = {"model": "small", "weights": "file:w.pth", "num_classes": 3}


def clip(n: int, *, seed: int = 0, start_ns: int = 0, channels: int = 1) -> AudioClip:
    noise = 0.1 * np.random.default_rng(seed).standard_normal((channels, n))
    return AudioClip(samples=noise.astype(np.float32), sample_rate=16_000, start_ns=start_ns)


def small(num_classes: int = 3) -> SmallCnn:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return SmallCnn(num_classes).eval()


def test_pictures_are_the_mel_spectrogram_from_80_decibels_below_its_peak() -> None:
    source = clip(40_000)
    pictures = Cnn(**SMALL).pictures(source.samples[0], CPU)
    assert pictures.shape == (3, 64, 96)
    mel = librosa.feature.melspectrogram(
        y=source.samples[0].astype(np.float64), sr=16_000, n_fft=512, hop_length=160, n_mels=64
    )
    expected = (librosa.power_to_db(mel, ref=np.max, top_db=80) + 80) / 80
    np.testing.assert_allclose(np.concatenate(list(pictures), axis=1)[:, :251], expected, atol=1e-5)
    assert not pictures[2][:, 251 - 192 :].any()
    assert not Cnn(**SMALL).pictures(np.zeros(5000, np.float32), CPU).any()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60_000), st.integers(16, 120), st.integers(1, 120), st.integers(-(10**12), 10**12))
def test_patches_cover_the_clip_and_the_last_ends_with_it(n: int, frames: int, hop: int, start_ns: int) -> None:
    step = Cnn(**SMALL, patch_frames=frames, patch_hop=min(hop, frames))
    source = clip(n, start_ns=start_ns)
    rows = len(step.pictures(source.samples[0], CPU))
    start, end = step.patch_spans(rows, source.span)
    assert (start[0], end[-1]) == (source.span.start_ns, source.span.end_ns)
    assert np.all(start[1:] <= end[:-1])
    assert np.all(start < end)
    assert rows == 1 or (rows - 2) * min(hop, frames) + frames < 1 + n // 160
    if rows > 2:
        assert end[1] - start[1] == frames * 10_000_000


def test_the_small_network_is_the_one_whose_weights_are_given() -> None:
    net, source = small(), clip(40_000, start_ns=7)
    options = Cnn(**SMALL, layer="logits")
    (found,) = options.with_state(net.state_dict())([source], CPU)
    with torch.inference_mode():
        expected = net(torch.from_numpy(options.pictures(source.samples[0], CPU))[:, None]).numpy()
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert [Span(int(a), int(b)) for a, b in zip(found.start_ns, found.end_ns, strict=True)] == [
        Span(7, 7 + 955_000_000), Span(7 + 955_000_000, 7 + 1_915_000_000), Span(7 + 1_915_000_000, 7 + 2_500_000_000),
    ]  # fmt: skip
    pool = Cnn(**SMALL).with_state(net.state_dict())
    assert pool.dim == 128
    (vectors,) = pool([source], CPU)
    head = net.head.weight.detach().numpy()
    np.testing.assert_allclose(vectors.values @ head.T + net.head.bias.detach().numpy(), expected, atol=1e-5)


def test_each_channel_has_a_vector_beside_the_other() -> None:
    both = clip(20_000, channels=2)
    step = Cnn(**SMALL, channels="each", channel_count=2).with_state(small().state_dict())
    (found,) = step([both], CPU)
    assert (found.dim, step.dim) == (256, 256)
    second = AudioClip(samples=both.samples[1:], sample_rate=16_000)
    (alone,) = Cnn(**SMALL).with_state(small().state_dict())([second], CPU)
    np.testing.assert_allclose(found.values[:, 128:], alone.values, atol=1e-6)


def test_the_network_that_comes_with_a_package() -> None:
    from pathlib import Path

    from pipeline.weights import load

    step = Cnn()
    assert (step.dim, step.weights_ref.kind) == (1280, "package")
    bound = step.with_state(load(step.weights_ref, Path()))
    speech, other = bound([clip(30_000), clip(30_000, seed=1)], CPU)
    assert speech.values.shape == (2, 1280)
    tone = AudioClip(
        samples=np.sin(np.arange(30_000) * 0.3, dtype=np.float64)[None].astype(np.float32), sample_rate=16_000
    )
    (third,) = bound([tone], CPU)

    def cosine(a: Any, b: Any) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    assert cosine(speech.values[0], other.values[0]) > cosine(speech.values[0], third.values[0]) + 0.2


def test_a_torchvision_network() -> None:
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = torchvision.models.resnet18(num_classes=5).eval()
    step = Cnn(model="resnet18", weights="file:r.pth", num_classes=5, layer="logits", image_size=96)
    (found,) = step.with_state(net.state_dict())([clip(20_000)], CPU)
    pictures = torch.from_numpy(step.pictures(clip(20_000).samples[0], CPU))[:, None].flip(2)
    with torch.inference_mode():
        x = torch.nn.functional.interpolate(pictures, (96, 96), mode="bilinear", antialias=True).expand(-1, 3, -1, -1)
        mean, scale = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        expected = net((x - mean) / scale).numpy()
    np.testing.assert_allclose(found.values, expected, atol=1e-4)
    assert Cnn(model="resnet18").weights_ref == WeightsRef(kind="torchvision", locator="resnet18/IMAGENET1K_V1")
    assert Cnn(model="resnet18", weights="file:r.pth", num_classes=5).dim == 512


def test_weights_that_do_not_fit_are_refused() -> None:
    state = small(4).state_dict()
    message = (
        r"audio.cnn: 2 entries of the weights do not fit small with 3 classes \(head.weight \[4, 128\] for \[3, 128\]"
    )
    with pytest.raises(StateError, match=message):
        Cnn(**SMALL).with_state(state)
    with pytest.raises(StateError, match=r"head\.bias missing"):
        fit_state({name: value for name, value in state.items() if name != "head.bias"}, "small", 4)
    with pytest.raises(StateError, match="extra unknown"):
        fit_state({**state, "extra": torch.zeros(1)}, "small", 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet81"}, "audio.cnn: model: got 'resnet81', allowed: .*did you mean 'resnet18'"),
        ({"model": "resnet18", "weights": "V9"}, "weights: got 'V9' for resnet18, allowed: DEFAULT, IMAGENET1K_V1"),
        ({"model": "small"}, "weights: got 'DEFAULT', allowed: file:PATH"),
        ({"weights": "file:"}, "weights: got 'file:', allowed: DEFAULT or file:PATH"),
        ({"num_classes": 10}, "num_classes: got 10, allowed: 1000 unless weights are a file"),
        ({**SMALL, "patch_frames": 15}, "patch_frames: got 15, allowed: >= 16"),
        ({**SMALL, "n_mels": 8}, "n_mels: got 8, allowed: >= 16"),
        ({"patch_hop": 97}, r"patch_hop: got 97, allowed: 1 to patch_frames \(96\)"),
        ({"layer": "conv"}, "layer: got 'conv', allowed: pool or logits"),
        ({"image_size": 8}, "image_size: got 8, allowed: 32 to 1024"),
        ({"batch_size": 0}, "batch_size: got 0, allowed: >= 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cnn(**options)
