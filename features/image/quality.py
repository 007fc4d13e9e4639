"""Figures of how good a picture is (blur, exposure, emptiness), and a step that refuses those that are not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from features.errors import Reason, SampleError
from features.types import Device, FeatureSequence, Image, Stream

COLUMNS = ("sharpness", "edge_density", "luma_mean", "luma_spread", "dark", "bright", "blankness")
"""The figures of ``quality``, in this order; ``image.quality`` says what they are."""

_EDGE = 32
_DARK = 5
_BRIGHT = 250
_BLANK = 8
_SOBEL_GAIN = 4  # the response to a step edge is 4 times its height


def _reduced(pixels: npt.NDArray[np.uint8], long_side: int | None) -> npt.NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    if long_side is None or max(height, width) <= long_side:
        return pixels
    import cv2

    scale = long_side / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))


def _share(mask: npt.NDArray[np.uint8]) -> float:
    import cv2

    return float(cv2.countNonZero(mask)) / mask.size


def _median(channel: npt.NDArray[np.uint8]) -> int:
    """The (lower) median: the least level that at least half of the pixels do not exceed."""
    counts = np.bincount(channel.ravel(), minlength=256)
    return int(np.searchsorted(np.cumsum(counts), (channel.size + 1) // 2))


def quality(pixels: npt.NDArray[np.uint8], long_side: int | None = None) -> dict[str, float]:
    """Return the figures of one picture, uint8 ``[H, W, 3]``, by the names of ``COLUMNS``.

    Sums are of whole numbers, so the figures do not depend on the order of pixels in memory.
    """
    import cv2

    pixels = np.ascontiguousarray(_reduced(pixels, long_side))
    luma = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    _, spread = cv2.meanStdDev(cv2.Laplacian(luma, cv2.CV_16S))
    across, down = cv2.Sobel(luma, cv2.CV_32F, 1, 0), cv2.Sobel(luma, cv2.CV_32F, 0, 1)
    steep = across * across + down * down > (_EDGE * _SOBEL_GAIN) ** 2
    mean, deviation = cv2.meanStdDev(luma)
    middle = [_median(pixels[:, :, channel]) for channel in range(3)]
    like = cv2.inRange(pixels, np.array(middle) - _BLANK, np.array(middle) + _BLANK)
    figures = (
        float(spread[0, 0]) ** 2,
        _share(steep.view(np.uint8)),
        float(mean[0, 0]) / 255,
        float(deviation[0, 0]) / 255,
        _share((luma <= _DARK).view(np.uint8)),
        _share((luma >= _BRIGHT).view(np.uint8)),
        _share(np.asarray(like)),
    )
    return dict(zip(COLUMNS, figures, strict=True))


def _check_long_side(step: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(f"{step}: long_side: got {value}, allowed: >= 1, or none")


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Figures of how good each picture is: one row with the picture's span.

    Columns, ``columns``, where luma is 0.299 R + 0.587 G + 0.114 B:

    - ``sharpness``: variance of the 4-neighbour Laplacian of luma in grey levels (0 to 255), the figure of Pech-Pacheco
      et al. 2000; under some 100 a photograph of a megapixel looks blurred. It grows with noise and falls with
      enlargement, so compare pictures of like size (``long_side``);
    - ``edge_density``: share of pixels whose Sobel gradient is that of a step of more than 32 grey levels;
    - ``luma_mean``, ``luma_spread``: mean and standard deviation of luma, on the scale 0 to 1;
    - ``dark``, ``bright``: share of pixels whose luma is clipped or nearly so: at most 5, at least 250, of 255;
    - ``blankness``: share of pixels within 8 grey levels of the median colour in every channel: 1 for an empty page.

    ``long_side``: pictures with a longer side are measured scaled down to it (areas averaged); ``None``: as they are.
    Raises ``ValueError`` for impossible options.
    """

    name: ClassVar[str] = "image.quality"
    stream: ClassVar[Stream] = "image"
    numerics: ClassVar[tuple[str, ...]] = ("numpy", "opencv-python")
    columns: ClassVar[tuple[str, ...]] = COLUMNS

    long_side: int | None = None

    def __post_init__(self) -> None:
        _check_long_side(self.name, self.long_side)

    @property
    def dim(self) -> int:
        """Width of a row: one for each of ``columns``."""
        return len(self.columns)

    def __call__(self, batch: Sequence[Image], device: Device) -> list[FeatureSequence]:
        """Return one row of figures for each picture. Runs on the CPU whatever ``device`` is."""
        del device
        rows = [np.array([list(quality(image.pixels, self.long_side).values())], np.float32) for image in batch]
        return [FeatureSequence.from_rows(row, [image.span]) for row, image in zip(rows, batch, strict=True)]


@dataclass(frozen=True, kw_only=True)
class Check:
    """Refuse, or flag, pictures that are too small, blurred, badly exposed or empty; the others pass as they are.

    Each limit is off (``None``) unless given, and at least one must be given. They bound the figures of
    ``image.quality``, measured at ``long_side``: ``min_sharpness``, ``min_edge_density``, ``min_luma`` and ``max_luma``
    (``luma_mean``), ``min_luma_spread``, ``max_dark``, ``max_bright``, ``max_blankness``; ``min_side``: pixels of the
    shorter side of the picture as it comes.

    ``action`` "quarantine": a picture out of bounds raises ``SampleError`` (``low_quality``) with every figure that is
    out of bounds, so its sample goes to quarantine; of a video, one such picture is enough. "flag": it passes, and the
    report of the run names its sample and the figures (``image.quality`` stores the figures of every picture).

    Raises ``ValueError`` for impossible options.
    """

    name: ClassVar[str] = "image.check"
    stream: ClassVar[Stream] = "image"
    numerics: ClassVar[tuple[str, ...]] = ("numpy", "opencv-python")

    min_sharpness: float | None = None
    min_edge_density: float | None = None
    min_luma: float | None = None
    max_luma: float | None = None
    min_luma_spread: float | None = None
    max_dark: float | None = None
    max_bright: float | None = None
    max_blankness: float | None = None
    min_side: int | None = None
    long_side: int | None = None
    action: Literal["quarantine", "flag"] = "quarantine"

    def __post_init__(self) -> None:
        _check_long_side(self.name, self.long_side)
        if self.action not in ("quarantine", "flag"):
            raise ValueError(f"image.check: action: got {self.action!r}, allowed: 'quarantine', 'flag'")
        if self.min_side is not None and self.min_side < 1:
            raise ValueError(f"image.check: min_side: got {self.min_side}, allowed: >= 1, or none")
        for option, figure in _BOUNDS.items():
            value, most = getattr(self, option), math.inf if figure == "sharpness" else 1
            if value is not None and not (0 <= value <= most and math.isfinite(value)):
                allowed = ">= 0 and finite" if most == math.inf else "0 to 1"
                raise ValueError(f"image.check: {option}: got {value}, allowed: {allowed}, or none")
        if self.min_luma is not None and self.max_luma is not None and self.min_luma > self.max_luma:
            raise ValueError(f"image.check: min_luma: got {self.min_luma}, allowed: <= max_luma, {self.max_luma}")
        if all(getattr(self, option) is None for option in (*_BOUNDS, "min_side")):
            raise ValueError(f"image.check: no limit is given, allowed: at least one of {', '.join(_BOUNDS)}, min_side")

    def prepare(self, batch: Sequence[Image], device: Device) -> list[Image]:
        """Return the pictures as they are. Raises ``SampleError`` for the first to be refused."""
        del device
        for image in batch if self.action == "quarantine" else ():
            faults = self._faults(image.pixels)
            if faults:
                raise SampleError(
                    Reason.LOW_QUALITY,
                    f"image.check: a picture of {image.pixels.shape[1]}x{image.pixels.shape[0]}: {'; '.join(faults)}; "
                    "cure: a better picture, or another limit",
                )
        return list(batch)

    def flags(self, batch: Sequence[Image]) -> list[str]:
        """Return the figures of each picture that are out of bounds, in words; empty where none is."""
        return ["; ".join(self._faults(image.pixels)) if self.action == "flag" else "" for image in batch]

    def _faults(self, pixels: npt.NDArray[np.uint8]) -> list[str]:
        faults = []
        side = min(pixels.shape[:2])
        if self.min_side is not None and side < self.min_side:
            faults.append(f"shorter side: got {side}, allowed: >= {self.min_side}")
        limits = {option: getattr(self, option) for option in _BOUNDS if getattr(self, option) is not None}
        figures = quality(pixels, self.long_side) if limits else {}
        for option, limit in limits.items():
            got, least = figures[_BOUNDS[option]], option.startswith("min_")
            if got < limit if least else got > limit:
                faults.append(f"{_BOUNDS[option]}: got {got:.4g}, allowed: {'>=' if least else '<='} {limit:g}")
        return faults


_BOUNDS = {
    "min_sharpness": "sharpness",
    "min_edge_density": "edge_density",
    "min_luma": "luma_mean",
    "max_luma": "luma_mean",
    "min_luma_spread": "luma_spread",
    "max_dark": "dark",
    "max_bright": "bright",
    "max_blankness": "blankness",
}
"""Each limit of ``image.check`` -> the figure that it bounds."""
