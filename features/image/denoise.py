"""Removal of noise from pictures before an extractor sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from features.types import Device, Image, Stream

Method = Literal["gaussian", "mean", "median", "bilateral", "nlmeans"]

_PATCH = 7
_SEARCH = 21


@dataclass(frozen=True, kw_only=True)
class Denoise:
    """Smooth pictures; size and span stay.

    ``method``: "gaussian" weighs a ``kernel_size`` square with a normal curve of ``sigma_space`` pixels; "mean" weighs
    all pixels of that square alike; "median" takes its median for each channel (for salt and pepper); "bilateral"
    (Tomasi & Manduchi 1998) weighs a disc of that diameter by distance (``sigma_space``) and by likeness of colour
    (``sigma_color``, grey levels of 255), so edges stay; "nlmeans" (Buades, Coll & Morel 2005) averages the like 7 x 7
    patches in a 21 x 21 window, likeness being that of all three channels; ``strength`` is best at the standard
    deviation of the noise, in grey levels (of 255); it is slow, and best.

    Beyond the border the picture is mirrored ("median": its border pixels are repeated). ``kernel_size`` is odd.
    Options of the other methods are ignored. Raises ``ValueError`` for impossible options.
    """

    name: ClassVar[str] = "image.denoise"
    stream: ClassVar[Stream] = "image"
    numerics: ClassVar[tuple[str, ...]] = ("opencv-python",)

    method: Method = "gaussian"
    kernel_size: int = 5
    sigma_space: float = 1.0
    sigma_color: float = 25.0
    strength: float = 6.0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            allowed = ", ".join(map(repr, get_args(Method)))
            raise ValueError(f"image.denoise: method: got {self.method!r}, allowed: {allowed}")
        if not (3 <= self.kernel_size <= 255 and self.kernel_size % 2):
            raise ValueError(f"image.denoise: kernel_size: got {self.kernel_size}, allowed: odd, 3 to 255")
        for option in ("sigma_space", "sigma_color", "strength"):
            value = getattr(self, option)
            if not 0 < value < float("inf"):
                raise ValueError(f"image.denoise: {option}: got {value}, allowed: > 0 and finite")

    def prepare(self, batch: Sequence[Image], device: Device) -> list[Image]:
        """Return one smoothed picture for each of ``batch``. Runs on the CPU whatever ``device`` is."""
        del device
        return [Image(pixels=self._smooth(image.pixels), span=image.span) for image in batch]

    def _smooth(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        import cv2

        size = self.kernel_size
        if self.method == "gaussian":
            smooth = cv2.GaussianBlur(pixels, (size, size), self.sigma_space)
        elif self.method == "mean":
            smooth = cv2.blur(pixels, (size, size))
        elif self.method == "median":
            smooth = cv2.medianBlur(pixels, size)
        elif self.method == "bilateral":
            smooth = cv2.bilateralFilter(pixels, size, self.sigma_color, self.sigma_space)
        else:
            smooth = cv2.fastNlMeansDenoising(pixels, None, self.strength, _PATCH, _SEARCH)
        return np.asarray(smooth, dtype=np.uint8)
