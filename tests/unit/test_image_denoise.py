"""``image.denoise``: against SciPy and closed forms, and what stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from scipy import ndimage
from sklearn.datasets import load_sample_image

from features.base import Prepare
from features.image.denoise import Denoise
from features.time import Span
from features.types import Device, Image

CPU: Device = "cpu"
METHODS = ("gaussian", "mean", "median", "bilateral", "nlmeans")


@pytest.fixture(scope="module")
def clean() -> np.ndarray:
    return np.ascontiguousarray(load_sample_image("flower.jpg")[150:270, 200:360])


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


def _run(step: Denoise, pixels: np.ndarray) -> np.ndarray:
    return step.prepare([Image(pixels=pixels)], CPU)[0].pixels


def _grainy(clean: np.ndarray, sigma: float = 20.0) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, sigma, clean.shape)
    return np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)


def _peppered(clean: np.ndarray) -> np.ndarray:
    dice = np.random.default_rng(1).random(clean.shape[:2])[..., None]
    return np.where(dice < 0.05, 0, np.where(dice > 0.95, 255, clean)).astype(np.uint8)


@pytest.mark.parametrize(
    ("step", "spoil"),
    [
        (Denoise(method="gaussian", sigma_space=0.8), _grainy),
        (Denoise(method="mean", kernel_size=3), partial(_grainy, sigma=40)),
        (Denoise(method="median"), _peppered),
        (Denoise(method="bilateral", sigma_color=60, sigma_space=2), _grainy),
        (Denoise(method="nlmeans", strength=20), _grainy),
    ],
)
def test_the_noise_it_is_for_falls(step: Denoise, spoil: Callable[[np.ndarray], np.ndarray], clean: np.ndarray) -> None:
    noisy = spoil(clean)
    assert _psnr(_run(step, noisy), clean) > _psnr(noisy, clean) + 1.5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(40, 60), (1, 1), (1, 9), (7, 3)])
def test_size_span_and_input_stay(method: str, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (*shape, 3), dtype=np.uint8)
    before = pixels.copy()
    images = [Image(pixels=pixels, span=Span(3, 9)), Image(pixels=np.full((*shape, 3), 77, dtype=np.uint8))]
    step = Denoise(method=method)
    out = step.prepare(images, CPU)
    assert isinstance(step, Prepare)
    assert [image.span for image in out] == [image.span for image in images]
    assert [image.pixels.shape for image in out] == [(*shape, 3)] * 2
    assert np.array_equal(pixels, before)
    assert np.all(out[1].pixels == 77)
    assert step.prepare([], CPU) == []


def test_median_is_scipys(clean: np.ndarray) -> None:
    wanted = ndimage.median_filter(clean, size=(5, 5, 1), mode="nearest")
    assert np.array_equal(_run(Denoise(method="median", kernel_size=5), clean), wanted)


def test_mean_is_scipys(clean: np.ndarray) -> None:
    wanted = ndimage.uniform_filter(clean.astype(float), (7, 7, 0), mode="mirror")
    assert np.abs(_run(Denoise(method="mean", kernel_size=7), clean) - wanted).max() <= 0.5 + 1e-9


def test_gaussian_is_scipys(clean: np.ndarray) -> None:
    wanted = ndimage.gaussian_filter(clean.astype(float), (1.5, 1.5, 0), mode="mirror", radius=(4, 4, 0))
    found = _run(Denoise(method="gaussian", kernel_size=9, sigma_space=1.5), clean)
    assert np.abs(found - wanted).max() <= 1.0


@pytest.mark.parametrize("method", METHODS)
def test_red_stays_red(method: str) -> None:
    red = np.zeros((32, 32, 3), dtype=np.uint8)
    red[..., 0] = 200
    assert np.abs(_run(Denoise(method=method), red).astype(int) - red).max() <= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "wiener"}, "method: got 'wiener', allowed: 'gaussian', 'mean', 'median', 'bilateral', 'nlmeans'"),
        ({"kernel_size": 4}, "kernel_size: got 4, allowed: odd, 3 to 255"),
        ({"kernel_size": 257}, "kernel_size: got 257"),
        ({"sigma_space": 0.0}, "sigma_space: got 0.0, allowed: > 0 and finite"),
        ({"sigma_color": float("inf")}, "sigma_color: got inf"),
        ({"strength": float("nan")}, "strength: got nan"),
    ],
)
def test_impossible_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Denoise(), **options)
