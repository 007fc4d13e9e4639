"""Histograms of colour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from features.types import Device, FeatureSequence, Image, Stream

Space: TypeAlias = Literal["rgb", "hsv", "lab", "gray"]
Scale: TypeAlias = Literal["share", "root", "count"]

_MAX_WIDTH = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How often each colour occurs in a picture: one row with the picture's span.

    ``space``: "rgb", "hsv", "lab" (CIE L*a*b*, D65, of sRGB) or "gray" (luma). Every channel is a level from 0 to 255,
    as OpenCV converts 8-bit pixels: hue turns once in 256, saturation, value and L* fill the range, a* and b* are
    shifted by 128. ``bins``: bins of equal width over 0 to 255, the same number for every channel or one for each; bin
    ``k`` of ``b`` holds the levels with ``floor(level * b / 256) = k``.

    ``joint``: ``False`` counts each channel on its own (one after the other in the row, in the order of the space's
    letters); ``True`` counts colours, the last channel's bins varying fastest (Swain & Ballard 1991). ``scale``:
    "share" divides by the number of pixels (each channel, or the joint histogram, sums to 1), "root" takes the square
    root of that, so that distances between rows are Hellinger's, "count" leaves the numbers of pixels.

    Raises ``ValueError`` for impossible options.
    """

    name: ClassVar[str] = "image.histogram"
    stream: ClassVar[Stream] = "image"
    numerics: ClassVar[tuple[str, ...]] = ("numpy", "opencv-python")

    space: Space = "hsv"
    bins: int | tuple[int, ...] = 16
    joint: bool = False
    scale: Scale = "share"

    def __post_init__(self) -> None:
        for option, kind in (("space", Space), ("scale", Scale)):
            value, allowed = getattr(self, option), get_args(kind)
            if value not in allowed:
                raise ValueError(f"image.histogram: {option}: got {value!r}, allowed: {', '.join(map(repr, allowed))}")
        if len(self._bins) != self._channels or not all(1 <= bins <= 256 for bins in self._bins):
            raise ValueError(
                f"image.histogram: bins: got {self.bins}, allowed: 1 to 256, one number or {self._channels} for "
                f"{self.space}"
            )
        if self.dim > _MAX_WIDTH:
            raise ValueError(f"image.histogram: bins: got {self.dim} joint bins, allowed: up to {_MAX_WIDTH}")

    @property
    def _channels(self) -> int:
        return 1 if self.space == "gray" else 3

    @property
    def _bins(self) -> tuple[int, ...]:
        return self.bins if isinstance(self.bins, tuple) else (self.bins,) * self._channels

    @property
    def dim(self) -> int:
        """Width of a row: the sum of the bins, or their product where they are counted jointly."""
        return int(np.prod(self._bins)) if self.joint else sum(self._bins)

    def __call__(self, batch: Sequence[Image], device: Device) -> list[FeatureSequence]:
        """Return one histogram for each picture. Runs on the CPU whatever ``device`` is."""
        del device
        return [FeatureSequence.from_rows(self._row(image.pixels)[None], [image.span]) for image in batch]

    def _row(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        levels = convert(pixels, self.space)
        binned = [np.arange(256) * bins // 256 for bins in self._bins]
        if self.joint:
            code = binned[0][levels[:, :, 0]]
            for channel in range(1, self._channels):
                code = code * self._bins[channel] + binned[channel][levels[:, :, channel]]
            counts = np.bincount(code.ravel(), minlength=self.dim)
        else:
            counts = np.concatenate(
                [
                    np.bincount(binned[channel], np.bincount(levels[:, :, channel].ravel(), minlength=256), bins)
                    for channel, bins in enumerate(self._bins)
                ]
            )
        if self.scale == "count":
            return np.asarray(counts, dtype=np.float32)
        share = counts / (levels.shape[0] * levels.shape[1])
        return np.asarray(np.sqrt(share) if self.scale == "root" else share, dtype=np.float32)


def convert(pixels: npt.NDArray[np.uint8], space: Space) -> npt.NDArray[np.uint8]:
    """Return RGB pixels uint8 ``[H, W, 3]`` in ``space``, uint8 ``[H, W, channels]``."""
    import cv2

    if space == "rgb":
        return pixels
    codes = {"hsv": cv2.COLOR_RGB2HSV_FULL, "lab": cv2.COLOR_RGB2LAB, "gray": cv2.COLOR_RGB2GRAY}
    found = np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), codes[space]), dtype=np.uint8)
    return found[:, :, None] if space == "gray" else found
