"""Altered views of pictures for training: seeded, of the same size, each alteration off unless it is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from features.image.geometry import check_color
from features.random import generator
from features.types import Device, Image, Stream

if TYPE_CHECKING:
    import torch

Range = tuple[float, float]

_SMALLEST_SIGMA = 0.1
_TRIES = 10


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Alter pictures at random; size and span stay. With all options at their defaults nothing is changed.

    In this order, each drawn on its own from the medium's seed, so that turning one on leaves the others' draws alone:

    - ``crop``: a rectangle with this share of the area, (least, most) in (0, 1], and an aspect ratio of ``crop_ratio``
      times the picture's own is cut out and scaled to the whole (Szegedy et al. 2014, section 6). Usual: (0.6, 1.0);
    - ``flip_horizontal``, ``flip_vertical``: the probability of mirroring left and right, above and below;
    - ``rotate``: by up to so many degrees to either side, 0 to 180. Usual: 15. ``scale``: enlarged about the centre by
      a factor in (least, most), each > 0. Usual: (0.8, 1.25). Both are one bilinear transform; what comes from outside
      is ``fill``;
    - ``brightness``, ``contrast``, ``saturation``: a factor in [1 - x, 1 + x], not below 0, on the pixels, on their
      distance from the mean luma, and from their own luma; x >= 0. ``hue``: a turn of up to this share of the circle to
      either side, 0 to 0.5. Usual: 0.2 each, hue 0.05;
    - ``blur``: a Gaussian with a standard deviation of 0.1 to this many pixels, at least 0.1. Usual: 1.5;
    - ``noise``: Gaussian noise with a standard deviation of 0 to this many grey levels (of 255). Usual: 10;
    - ``erase``: the probability that a rectangle becomes ``fill`` (Zhong et al. 2017), with a share of the area in
      ``erase_area`` and a width in ``erase_ratio`` times its height.

    The arithmetic is that of ``torchvision.transforms.v2.functional`` on uint8 pixels, on the CPU whatever the device.
    Raises ``ValueError`` for impossible options.
    """

    name: ClassVar[str] = "image.augment"
    stream: ClassVar[Stream] = "image"
    numerics: ClassVar[tuple[str, ...]] = ("numpy", "opencv-python", "torch", "torchvision")

    crop: Range | None = None
    crop_ratio: Range = (0.75, 1.3333)
    flip_horizontal: float = 0.0
    flip_vertical: float = 0.0
    rotate: float = 0.0
    scale: Range | None = None
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    blur: float = 0.0
    noise: float = 0.0
    erase: float = 0.0
    erase_area: Range = (0.02, 0.2)
    erase_ratio: Range = (0.3, 3.3)
    fill: tuple[int, int, int] = (127, 127, 127)

    def __post_init__(self) -> None:
        for option in ("flip_horizontal", "flip_vertical", "erase"):
            self._within(option, getattr(self, option), 0, 1)
        self._within("rotate", self.rotate, 0, 180)
        self._within("hue", self.hue, 0, 0.5)
        self._within("blur", self.blur, 0, 100)
        self._within("noise", self.noise, 0, 255)
        if 0 < self.blur < _SMALLEST_SIGMA:
            raise ValueError(f"image.augment: blur: got {self.blur}, allowed: 0, or {_SMALLEST_SIGMA} to 100")
        for option in ("brightness", "contrast", "saturation"):
            self._within(option, getattr(self, option), 0, 10)
        for option, most in (("crop", 1.0), ("scale", 10.0), ("erase_area", 1.0)):
            self._ordered(option, getattr(self, option), most)
        for option in ("crop_ratio", "erase_ratio"):
            self._ordered(option, getattr(self, option), 100.0)
        check_color(self.name, "fill", self.fill)

    def _within(self, option: str, value: float, least: float, most: float) -> None:
        if not least <= value <= most:
            raise ValueError(f"image.augment: {option}: got {value}, allowed: {least} to {most}")

    def _ordered(self, option: str, value: Range | None, most: float) -> None:
        if value is not None and not 0 < value[0] <= value[1] <= most:
            raise ValueError(f"image.augment: {option}: got {list(value)}, allowed: [least, most], > 0, up to {most:g}")

    def augment(self, batch: Sequence[Image], seeds: Sequence[int], device: Device) -> list[Image]:
        """Return one altered picture for each of ``batch``."""
        del device
        return [
            Image(pixels=self._altered(image.pixels, seed), span=image.span)
            for image, seed in zip(batch, seeds, strict=True)
        ]

    def _altered(self, pixels: npt.NDArray[np.uint8], seed: int) -> npt.NDArray[np.uint8]:
        import torch

        x = torch.from_numpy(np.array(pixels.transpose(2, 0, 1), order="C"))
        with torch.inference_mode():
            for alter in (self._crop, self._flip, self._turn, self._color, self._blur, self._noise, self._erase):
                x = alter(x, generator(seed, self.name, alter.__name__.lstrip("_")))
        return np.ascontiguousarray(x.numpy().transpose(1, 2, 0))

    def _crop(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        if self.crop is None:
            return x
        from torchvision.transforms.v2 import functional

        height, width = x.shape[1:]
        top, left, rows, columns = _rectangle(rng, height, width, self.crop, self.crop_ratio, width / height)
        cut: torch.Tensor = functional.resized_crop(x, top, left, rows, columns, [height, width], antialias=True)
        return cut

    def _flip(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        chance = rng.random(2)
        axes = [
            axis for axis, p, drawn in ((2, self.flip_horizontal, 0), (1, self.flip_vertical, 1)) if chance[drawn] < p
        ]
        return x.flip(axes) if axes else x

    def _turn(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        angle, exponent = rng.uniform(-self.rotate, self.rotate), rng.random()
        least, most = self.scale or (1.0, 1.0)
        factor = least * (most / least) ** exponent  # halving is as likely as doubling
        if angle == 0 and factor == 1:
            return x
        from torchvision.transforms.v2 import InterpolationMode, functional

        turned: torch.Tensor = functional.affine(
            x, angle, [0, 0], factor, [0.0, 0.0], interpolation=InterpolationMode.BILINEAR, fill=list(self.fill)
        )
        return turned

    def _color(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        drawn = rng.uniform(-1, 1, 4)
        from torchvision.transforms.v2 import functional

        for option, strength, apply in (
            (0, self.brightness, functional.adjust_brightness),
            (1, self.contrast, _contrast),
            (2, self.saturation, functional.adjust_saturation),
        ):
            if strength:
                x = apply(x, max(0.0, 1 + strength * drawn[option]))
        return functional.adjust_hue(x, self.hue * drawn[3]) if self.hue else x

    def _blur(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        if not self.blur:
            return x
        from torchvision.transforms.v2 import functional

        sigma = rng.uniform(_SMALLEST_SIGMA, self.blur)
        radius = math.ceil(3 * sigma)  # and no further than the mirrored picture reaches
        kernel = [2 * min(radius, side - 1) + 1 for side in (x.shape[2], x.shape[1])]
        blurred: torch.Tensor = functional.gaussian_blur(x, kernel, [sigma, sigma])
        return blurred

    def _noise(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        if not self.noise:
            return x
        import torch

        sigma = rng.uniform(0, self.noise)
        grain = rng.standard_normal(tuple(x.shape), dtype=np.float32) * np.float32(sigma)
        return torch.from_numpy(np.clip(np.rint(x.numpy() + grain), 0, 255).astype(np.uint8))

    def _erase(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        if rng.random() >= self.erase:
            return x
        import torch

        height, width = x.shape[1:]
        top, left, rows, columns = _rectangle(rng, height, width, self.erase_area, self.erase_ratio, 1.0)
        color = torch.tensor(self.fill, dtype=torch.uint8)[:, None, None]
        erased = x.clone()
        erased[:, top : top + rows, left : left + columns] = color
        return erased


def _contrast(x: torch.Tensor, factor: float) -> torch.Tensor:
    """``adjust_contrast`` with an exact mean, so that the number of threads does not matter."""
    import torch
    from torchvision.transforms.v2 import functional

    luma = functional.rgb_to_grayscale(x)
    mean = int(luma.sum(dtype=torch.int64)) / luma.numel()
    return x.to(torch.float32).mul_(factor).add_((1 - factor) * mean).clamp_(0, 255).to(torch.uint8)


def _rectangle(
    rng: np.random.Generator, height: int, width: int, area: Range, ratio: Range, natural: float
) -> tuple[int, int, int, int]:
    """Top, left, rows and columns of a rectangle inside, its shares uniform and its ratio log-uniform.

    Ten draws may not fit, as in torchvision; the last is then cut to the picture.
    """
    rows = columns = 1
    for _ in range(_TRIES):
        pixels = rng.uniform(*area) * height * width
        aspect = natural * math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        rows, columns = max(1, round(math.sqrt(pixels / aspect))), max(1, round(math.sqrt(pixels * aspect)))
        if rows <= height and columns <= width:
            break
    rows, columns = min(rows, height), min(columns, width)
    return int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1)), rows, columns
