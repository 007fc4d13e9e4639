"""Images against scikit-image, Pillow, torchvision and closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from scipy import ndimage
from skimage import color, data, exposure, feature, filters, restoration
from sklearn.datasets import load_sample_image
from torchvision.transforms.v2 import functional

from features.base import Example
from features.image.augment import Augmentation
from features.image.denoise import Denoise
from features.image.geometry import Pad, Resize
from features.image.histogram import Histogram, convert
from features.image.hog import Hog
from features.image.pixels import Pixels, StandardizedPixels
from features.image.quality import COLUMNS, Quality
from features.types import Device, Image

CPU: Device = "cpu"
FLOWER = np.ascontiguousarray(load_sample_image("flower.jpg")[100:292, 180:436])
CHINA = np.ascontiguousarray(load_sample_image("china.jpg")[60:252, 120:376])
PHOTOS = pytest.mark.parametrize("pixels", [FLOWER, CHINA], ids=["flower", "china"])


def row(step: Any, pixels: np.ndarray) -> np.ndarray:
    (found,) = step([Image(pixels=pixels)], CPU)
    values: np.ndarray = found.values[0]
    return values


def prepared(step: Any, pixels: np.ndarray) -> np.ndarray:
    found: np.ndarray = step.prepare([Image(pixels=pixels)], CPU)[0].pixels
    return found


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


# Features


@PHOTOS
@pytest.mark.parametrize("options", [{}, {"orientations": 6, "pixels_per_cell": 16, "cells_per_block": 3}])
def test_hog_is_scikit_images(pixels: np.ndarray, options: dict[str, int]) -> None:
    step = Hog(width=pixels.shape[1], height=pixels.shape[0], **options)  # its own size: nothing is scaled
    theirs = feature.hog(
        pixels,
        orientations=step.orientations,
        pixels_per_cell=(step.pixels_per_cell,) * 2,
        cells_per_block=(step.cells_per_block,) * 2,
        block_norm="L2-Hys",
        channel_axis=-1,
    )
    # of two channels with equally long gradients they take the one that rounding makes longer, we the first
    apart = np.abs(row(step, pixels) - theirs)
    assert np.mean(apart > 2e-6) < 0.1
    assert apart.max() < 0.02
    grey = convert(pixels, "gray").repeat(3, axis=2)
    theirs = feature.hog(
        grey[..., 0],
        orientations=step.orientations,
        pixels_per_cell=(step.pixels_per_cell,) * 2,
        cells_per_block=(step.cells_per_block,) * 2,
        block_norm="L2-Hys",
    )
    np.testing.assert_allclose(row(step, grey), theirs, atol=2e-6)


@PHOTOS
def test_histograms_are_scikit_images_and_numpys(pixels: np.ndarray) -> None:
    ours = row(Histogram(space="rgb", bins=256, scale="count"), pixels).reshape(3, 256)
    for channel in range(3):
        counts, _ = exposure.histogram(pixels[:, :, channel], nbins=256, source_range="dtype")
        np.testing.assert_array_equal(ours[channel], counts)
    joint = row(Histogram(space="rgb", bins=(4, 8, 2), joint=True), pixels)
    theirs, _ = np.histogramdd(pixels.reshape(-1, 3), bins=(4, 8, 2), range=[(0, 256)] * 3)
    np.testing.assert_allclose(joint, theirs.ravel() / theirs.sum(), atol=1e-7)
    root = row(Histogram(space="rgb", bins=(4, 8, 2), joint=True, scale="root"), pixels)
    np.testing.assert_allclose(root**2, joint, atol=1e-6)


@PHOTOS
def test_colour_spaces_are_scikit_images(pixels: np.ndarray) -> None:
    lab = color.rgb2lab(pixels)
    wanted = np.stack([lab[..., 0] * 255 / 100, lab[..., 1] + 128, lab[..., 2] + 128], axis=-1)
    assert np.abs(convert(pixels, "lab") - wanted).max() <= 2.5
    hsv = color.rgb2hsv(pixels)
    ours = convert(pixels, "hsv")
    assert np.abs(ours[..., 1:] - 255 * hsv[..., 1:]).max() <= 1.0
    turn = np.abs(ours[..., 0] - 256 * hsv[..., 0])
    coloured = hsv[..., 1] > 0.1  # the hue of a grey is anything
    assert np.minimum(turn, 256 - turn)[coloured].max() <= 1.5
    luma = 0.299 * pixels[..., 0] + 0.587 * pixels[..., 1] + 0.114 * pixels[..., 2]
    assert np.abs(convert(pixels, "gray")[..., 0] - luma).max() <= 0.51


@PHOTOS
def test_quality_figures_are_what_they_say(pixels: np.ndarray) -> None:
    found = dict(zip(COLUMNS, row(Quality(), pixels).tolist(), strict=True))
    luma = convert(pixels, "gray")[..., 0].astype(float)
    np.testing.assert_allclose(found["sharpness"], ndimage.laplace(luma, mode="mirror").var(), rtol=1e-5)
    across, down = filters.sobel_v(luma, mask=None), filters.sobel_h(luma, mask=None)  # a step of h gives h
    inside = np.s_[1:-1, 1:-1]
    steep = np.mean(np.hypot(across, down)[inside] > 32)
    assert abs(found["edge_density"] - steep) < 0.01
    np.testing.assert_allclose(
        [found["luma_mean"], found["luma_spread"]], [luma.mean() / 255, luma.std() / 255], rtol=1e-5
    )
    assert found["dark"] == pytest.approx(np.mean(luma <= 5), abs=1e-6)
    assert found["bright"] == pytest.approx(np.mean(luma >= 250), abs=1e-6)
    middle = np.sort(pixels.reshape(-1, 3), axis=0)[(pixels.shape[0] * pixels.shape[1] - 1) // 2].astype(int)
    like = np.all(np.abs(pixels - middle) <= 8, axis=-1)
    assert found["blankness"] == pytest.approx(like.mean(), abs=1e-6)


def test_blur_darkness_and_emptiness_move_their_own_figures() -> None:
    sharp = dict(zip(COLUMNS, row(Quality(), CHINA).tolist(), strict=True))
    blurred = filters.gaussian(CHINA, 2.5, channel_axis=-1, preserve_range=True).astype(np.uint8)
    soft = dict(zip(COLUMNS, row(Quality(), blurred).tolist(), strict=True))
    assert soft["sharpness"] < sharp["sharpness"] / 20
    assert soft["edge_density"] < sharp["edge_density"] / 2
    assert soft["luma_mean"] == pytest.approx(sharp["luma_mean"], abs=0.01)
    black = dict(zip(COLUMNS, row(Quality(), CHINA // 64).tolist(), strict=True))
    assert black["dark"] > 0.95
    page = np.full_like(CHINA, 250)
    page[:4, :4] = 0
    empty = dict(zip(COLUMNS, row(Quality(), page).tolist(), strict=True))
    assert empty["blankness"] > 0.99
    assert empty["bright"] > 0.99
    assert sharp["blankness"] < 0.5


# Cleaning and size


def noisy(pixels: np.ndarray, sigma: float) -> np.ndarray:
    grain = np.random.default_rng(0).normal(0, sigma, pixels.shape)
    return np.clip(np.rint(pixels + grain), 0, 255).astype(np.uint8)


def test_gaussian_and_median_are_scikit_images() -> None:
    grainy = noisy(CHINA, 15)
    wanted = filters.gaussian(grainy, 1.0, mode="mirror", truncate=2.0, channel_axis=-1, preserve_range=True)
    assert np.abs(prepared(Denoise(method="gaussian", kernel_size=5, sigma_space=1.0), grainy) - wanted).max() <= 1.2
    median = filters.median(grainy[..., 0], np.ones((5, 5)), mode="nearest")
    np.testing.assert_array_equal(prepared(Denoise(method="median", kernel_size=5), grainy)[..., 0], median)


@pytest.mark.parametrize("sigma", [10.0, 20.0])
def test_bilateral_and_non_local_means_clean_as_well_as_scikit_images(sigma: float) -> None:
    grainy = noisy(FLOWER, sigma)
    bilateral = restoration.denoise_bilateral(
        grainy, win_size=9, sigma_color=2 * sigma / 255, sigma_spatial=2.0, channel_axis=-1
    )
    ours = prepared(Denoise(method="bilateral", kernel_size=9, sigma_color=3 * sigma, sigma_space=2.0), grainy)
    assert psnr(ours, FLOWER) > psnr(255 * bilateral, FLOWER) - 0.5
    part = np.s_[40:168, 60:220]
    means = restoration.denoise_nl_means(
        grainy[part] / 255, patch_size=7, patch_distance=10, h=0.8 * sigma / 255, sigma=sigma / 255, channel_axis=-1
    )
    ours = prepared(Denoise(method="nlmeans", strength=sigma), grainy[part])
    assert psnr(ours, FLOWER[part]) > psnr(255 * means, FLOWER[part]) - 1.0
    assert psnr(ours, FLOWER[part]) > psnr(grainy[part], FLOWER[part]) + 2.0


@PHOTOS
@pytest.mark.parametrize("size", [(64, 48), (31, 77), (400, 300)])
@pytest.mark.parametrize(("name", "theirs", "most"), [("bilinear", "BILINEAR", 1), ("bicubic", "BICUBIC", 2)])
def test_scaling_is_pillows(pixels: np.ndarray, size: tuple[int, int], name: Any, theirs: str, most: int) -> None:
    wanted = np.asarray(PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling[theirs])).astype(int)
    found = prepared(Resize(width=size[0], height=size[1], interpolation=name), pixels)
    assert np.abs(found - wanted).max() <= most


@PHOTOS
def test_area_scaling_averages(pixels: np.ndarray) -> None:
    found = prepared(Resize(width=64, height=48, interpolation="area"), pixels)
    blocks = pixels.reshape(48, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(found - blocks).max() <= 0.5 + 1e-9


@pytest.mark.parametrize(("fill", "mode"), [("edge", "edge"), ("reflect", "reflect"), ("constant", "constant")])
def test_padding_is_numpys(fill: Any, mode: Any) -> None:
    pixels = FLOWER[:7, :11]
    wanted = np.pad(pixels, ((6, 7), (4, 5), (0, 0)), mode=mode)
    np.testing.assert_array_equal(prepared(Pad(width=20, height=20, fill=fill), pixels), wanted)


# Numeric ranges and statistics


def test_pixels_are_scaled_and_standardised_as_torchvision_does() -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    height, width = CHINA.shape[:2]
    tensor = functional.to_dtype(torch.from_numpy(CHINA).permute(2, 0, 1), torch.float32, scale=True)
    step = Pixels(width=width, height=height, mean=mean, std=std, layout="chw")
    wanted = functional.normalize(tensor, list(mean), list(std)).numpy().ravel()
    np.testing.assert_allclose(row(step, CHINA), wanted, atol=1e-6)
    np.testing.assert_allclose(
        row(Pixels(width=width, height=height, range="signed"), CHINA), CHINA.ravel() / 127.5 - 1, atol=1e-6
    )


@pytest.mark.parametrize("per", ["channel", "pixel"])
def test_statistics_of_a_data_set_are_numpys_in_any_order(per: Any) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (16, 24, 3), dtype=np.uint8) for _ in range(9)]
    step = StandardizedPixels(width=24, height=16, per=per)
    state = step.fit(Example(Image(pixels=one)) for one in pictures)
    axes = (0, 1, 2) if per == "channel" else 0
    stack = np.stack(pictures).astype(np.float64)
    np.testing.assert_allclose(state["mean"].squeeze(), stack.mean(axis=axes), rtol=1e-12)
    np.testing.assert_allclose(state["std"].squeeze(), stack.std(axis=axes), rtol=1e-12)
    again = step.fit(Example(Image(pixels=one)) for one in reversed(pictures))
    assert all(state[name].tobytes() == again[name].tobytes() for name in state)
    bound = step.with_state(state)
    rows = np.stack([row(bound, one) for one in pictures]).reshape(-1, 16, 24, 3)
    np.testing.assert_allclose(rows.mean(axis=axes), 0, atol=1e-5)
    np.testing.assert_allclose(rows.std(axis=axes), 1, atol=1e-5)


# Views


def views(step: Augmentation, pixels: np.ndarray, count: int = 60) -> list[np.ndarray]:
    return [found.pixels for found in step.augment([Image(pixels=pixels)] * count, range(count), CPU)]


def test_flips_are_numpys_and_as_likely_as_asked() -> None:
    mirrored = {"flip_horizontal": FLOWER[:, ::-1], "flip_vertical": FLOWER[::-1]}
    for option, wanted in mirrored.items():
        found = views(Augmentation(**{option: 0.3}), FLOWER, 200)
        flipped = [np.array_equal(view, wanted) for view in found]
        kept = [np.array_equal(view, FLOWER) for view in found]
        assert all(a != b for a, b in zip(flipped, kept, strict=True))
        assert 35 < sum(flipped) < 85  # 60, deviation 6.5


def test_turning_is_about_the_centre_and_within_the_angle() -> None:
    disc = np.zeros((101, 101, 3), np.uint8)
    rows, columns = np.mgrid[:101, :101] - 50
    disc[np.hypot(rows, columns) < 30] = 255
    found = views(Augmentation(rotate=180.0, fill=(0, 0, 0)), disc, 12)
    assert all(np.mean(np.abs(view.astype(int) - disc) > 128) < 0.01 for view in found)
    pointer = np.zeros((101, 101, 3), np.uint8)
    pointer[48:53, 50:] = 255
    angles = []
    for view in views(Augmentation(rotate=15.0, fill=(0, 0, 0)), pointer, 40):
        down, right = np.argwhere(view[..., 0] > 128).mean(axis=0) - 50
        angles.append(np.degrees(np.arctan2(down, right)))
    assert max(map(abs, angles)) < 16
    assert min(angles) < -8
    assert max(angles) > 8


def test_colours_move_as_in_torchvision() -> None:
    found = views(Augmentation(brightness=0.4), FLOWER, 10)
    for view in found:
        factor = view[view < 250].mean() / FLOWER[view < 250].mean()
        wanted = functional.adjust_brightness(torch.from_numpy(FLOWER).permute(2, 0, 1), float(factor))
        assert np.abs(view.astype(int) - wanted.permute(1, 2, 0).numpy()).max() <= 6
        assert 0.58 < factor < 1.42
    grey = np.full((8, 8, 3), 77, np.uint8)
    for view in views(Augmentation(saturation=0.9, hue=0.5), grey, 10):
        assert np.abs(view.astype(int) - grey).max() <= 1, "grey has no colour to move"


def test_noise_and_blur_keep_the_mean_and_have_their_strength() -> None:
    flat = np.full((64, 64, 3), 128, np.uint8)
    spread = [view.std() for view in views(Augmentation(noise=20.0), flat)]
    assert max(spread) < 20.5
    assert np.mean(spread) == pytest.approx(10, abs=2.5)
    assert all(abs(view.mean() - 128) < 1 for view in views(Augmentation(noise=20.0), flat))
    blurred = views(Augmentation(blur=2.0), CHINA, 12)
    sharpness = [row(Quality(), view)[0] for view in blurred]
    assert max(sharpness) <= row(Quality(), CHINA)[0] * 1.01
    assert min(sharpness) < row(Quality(), CHINA)[0] / 5


def test_erased_rectangles_have_the_share_of_the_area() -> None:
    step = Augmentation(erase=1.0, erase_area=(0.1, 0.2), fill=(1, 2, 3))
    white = np.full((90, 120, 3), 255, np.uint8)
    for view in views(step, white):
        gone = np.all(view == (1, 2, 3), axis=-1)
        places = np.argwhere(gone)
        box = places.max(axis=0) - places.min(axis=0) + 1
        assert gone.sum() == box.prod(), "one rectangle"
        assert 0.09 < gone.mean() < 0.21


def test_a_crop_is_a_part_of_the_picture_scaled_up() -> None:
    ramp = np.zeros((96, 128, 3), np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(128)[None] * 2, np.arange(96)[:, None] * 2
    for view in views(Augmentation(crop=(0.3, 0.5)), ramp, 20):
        assert view.shape == ramp.shape
        wide, high = (np.ptp(view[48, :, 0].astype(int)) / 254, np.ptp(view[:, 64, 1].astype(int)) / 190)
        assert 0.25 < wide * high < 0.55


def test_seeds_decide_everything_and_turning_one_on_leaves_the_others_alone() -> None:
    both = views(Augmentation(flip_horizontal=0.5, noise=10.0), FLOWER, 30)
    flips = views(Augmentation(flip_horizontal=0.5), FLOWER, 30)
    for one, other in zip(both, flips, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 10
    assert all(np.array_equal(view, FLOWER) for view in views(Augmentation(), FLOWER, 3))
    astronaut = data.astronaut()[:64, :64]
    assert len({view.tobytes() for view in views(Augmentation(rotate=20.0, brightness=0.2), astronaut, 20)}) == 20
