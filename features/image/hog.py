"""Histograms of oriented gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from features.image.scaling import Interpolation, check_interpolation, scaled
from features.types import Device, FeatureSequence, Image, Stream

_LEVELS = 511  # differences of grey levels: -255 to 255
_CLIP = 0.2
_TINY = 1e-5


@dataclass(frozen=True, kw_only=True)
class Hog:
    """Histograms of oriented gradients (Dalal & Triggs 2005), as ``skimage.feature.hog`` computes them.

    Pictures are scaled to ``width`` x ``height`` (antialiased; the aspect ratio is not kept). Each pixel votes with its
    gradient's length, in the channel where it is longest, for one of ``orientations`` directions of [0, 180) degrees in
    its cell of ``pixels_per_cell`` squared; votes are averaged over the cell. Every square of ``cells_per_block`` cells
    is a block, divided by its length, clipped at 0.2 and divided by its length again (L2-Hys). The row is all blocks
    from the left to the right and from above to below, in each its cells likewise, in each its directions: values from
    0 to 1, with the picture's span. Pixels that fill no whole cell, right and below, do not count.

    Raises ``ValueError`` for impossible options.
    """

    name: ClassVar[str] = "image.hog"
    stream: ClassVar[Stream] = "image"
    numerics: ClassVar[tuple[str, ...]] = ("numpy", "opencv-python", "torch")

    width: int = 128
    height: int = 128
    orientations: int = 9
    pixels_per_cell: int = 8
    cells_per_block: int = 2
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        for option, least in (("orientations", 1), ("pixels_per_cell", 2), ("cells_per_block", 1)):
            value = getattr(self, option)
            if value < least:
                raise ValueError(f"image.hog: {option}: got {value}, allowed: >= {least}")
        if self.orientations > 180:
            raise ValueError(f"image.hog: orientations: got {self.orientations}, allowed: 1 to 180")
        least = self.pixels_per_cell * self.cells_per_block
        for option in ("width", "height"):
            if not least <= getattr(self, option) <= 4096:
                got = getattr(self, option)
                raise ValueError(f"image.hog: {option}: got {got}, allowed: {least} (one block) to 4096")
        check_interpolation(self.name, self.interpolation)

    @property
    def _cells(self) -> tuple[int, int]:
        return self.height // self.pixels_per_cell, self.width // self.pixels_per_cell

    @property
    def dim(self) -> int:
        """Width of a row: blocks x cells a block x orientations."""
        blocks = [cells - self.cells_per_block + 1 for cells in self._cells]
        return blocks[0] * blocks[1] * self.cells_per_block**2 * self.orientations

    def __call__(self, batch: Sequence[Image], device: Device) -> list[FeatureSequence]:
        """Return one row for each picture. Runs on the CPU whatever ``device`` is."""
        del device
        return [FeatureSequence.from_rows(self._row(image.pixels)[None], [image.span]) for image in batch]

    def _row(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        votes = self._votes(scaled(pixels, self.width, self.height, self.interpolation))
        blocks = np.lib.stride_tricks.sliding_window_view(votes, (self.cells_per_block,) * 2, axis=(0, 1))
        rows = blocks.transpose(0, 1, 3, 4, 2).reshape(blocks.shape[0] * blocks.shape[1], -1)
        rows = rows / np.sqrt(np.sum(rows * rows, axis=1, keepdims=True) + _TINY**2)
        rows = np.minimum(rows, _CLIP)
        rows = rows / np.sqrt(np.sum(rows * rows, axis=1, keepdims=True) + _TINY**2)
        return np.asarray(rows.ravel(), dtype=np.float32)

    def _votes(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        """Mean votes of each cell, ``[rows, columns, orientations]``."""
        longest, place = np.full(pixels.shape[:2], -1, np.int32), np.zeros(pixels.shape[:2], np.int32)
        for channel in range(3):
            level = pixels[:, :, channel].astype(np.int32)
            down, across = np.zeros_like(level), np.zeros_like(level)
            down[1:-1] = level[2:] - level[:-2]
            across[:, 1:-1] = level[:, 2:] - level[:, :-2]
            squared = down * down + across * across
            longer = squared > longest
            np.copyto(longest, squared, where=longer)
            np.copyto(place, (down + 255) * _LEVELS + across + 255, where=longer)
        direction = _directions(self.orientations)[place]
        size, (rows, columns) = self.pixels_per_cell, self._cells
        of_row, of_column = np.arange(rows * size) // size, np.arange(columns * size) // size
        inside = np.s_[: rows * size, : columns * size]
        code = (of_row[:, None] * columns + of_column) * self.orientations + direction[inside]
        total = np.bincount(
            code.ravel(), np.sqrt(longest[inside], dtype=np.float64).ravel(), rows * columns * self.orientations
        )
        return total.reshape(rows, columns, self.orientations) / size**2


@lru_cache(maxsize=8)
def _directions(orientations: int) -> npt.NDArray[np.intp]:
    """The bin of every gradient of whole grey levels, at ``(down + 255) * 511 + across + 255``."""
    steps = np.arange(-255, 256, dtype=np.float64)
    angle = np.rad2deg(np.arctan2(steps[:, None], steps[None])) % 180
    found: npt.NDArray[np.intp] = np.minimum(angle * orientations // 180, orientations - 1).astype(np.intp).ravel()
    found.flags.writeable = False
    return found
