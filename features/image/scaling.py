"""Scaling of pixels to another size."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

Interpolation: TypeAlias = Literal["bilinear", "bicubic", "area", "nearest"]
Pixels: TypeAlias = npt.NDArray[np.uint8]


def check_interpolation(step: str, value: str) -> None:
    """Raise ``ValueError`` when ``value`` is no ``Interpolation``."""
    if value not in get_args(Interpolation):
        allowed = ", ".join(map(repr, get_args(Interpolation)))
        raise ValueError(f"{step}: interpolation: got {value!r}, allowed: {allowed}")


def scaled(pixels: Pixels, width: int, height: int, interpolation: Interpolation = "bilinear") -> Pixels:
    """Return uint8 ``[H, W, 3]`` scaled to ``[height, width, 3]``; pixels have area, so corners lie on corners.

    "bilinear" and "bicubic" (a = -0.5) are antialiased: where a side shrinks, the filter is widened by the same factor,
    as in Pillow and in torchvision, with which they agree to 1 grey level (bicubic 2). "area" averages the pixels that
    each new one covers, and is "bilinear" where a side grows. "nearest" takes the pixel below each new pixel's centre.
    """
    rows, columns = pixels.shape[:2]
    if (rows, columns) == (height, width):
        return pixels
    import cv2

    if interpolation == "nearest":
        down, across = _nearest(rows, height), _nearest(columns, width)
        return pixels[down[:, None], across]
    if interpolation == "area":
        least = min(columns, width), min(rows, height)
        if least != (columns, rows):
            pixels = np.asarray(cv2.resize(pixels, least, interpolation=cv2.INTER_AREA))
        interpolation = "bilinear"
        if least == (width, height):
            return pixels
    import torch

    source = torch.from_numpy(np.require(pixels, requirements=["C", "W"])).permute(2, 0, 1)[None]
    found = torch.nn.functional.interpolate(source, (height, width), mode=interpolation, antialias=True)
    return np.asarray(cv2.merge(list(found[0].numpy())))


def _nearest(old: int, new: int) -> npt.NDArray[np.int64]:
    return (2 * np.arange(new, dtype=np.int64) + 1) * old // (2 * new)
