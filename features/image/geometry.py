"""Pictures of the size that one wants: scaling, cropping, padding. Pixels stay uint8, and spans stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import numpy as np

from features.errors import Reason, SampleError
from features.image.scaling import Interpolation, Pixels, check_interpolation, scaled
from features.types import Device, Image, Stream

MAX_PIXELS = 100_000_000
"""No picture is made larger than this: a strip of 20,000 x 1 with a short side of 224 would have a billion pixels."""

_FILLS = Literal["constant", "edge", "reflect"]


def check_sizes(step: str, sizes: dict[str, int | None]) -> None:
    """Raise ``ValueError`` for a size that is not at least 1."""
    for option, value in sizes.items():
        if value is not None and value < 1:
            raise ValueError(f"{step}: {option}: got {value}, allowed: >= 1")


@dataclass(frozen=True, kw_only=True)
class Resize:
    """Scale pictures. Give either ``width`` and ``height`` (the aspect ratio is not kept), or ``short_side``, or
    ``long_side`` (it is kept, the other side rounded to whole pixels and at least 1).

    ``enlarge``: ``False`` leaves pictures alone whose given side is smaller already. ``interpolation``: "bilinear" and
    "bicubic" are antialiased as in Pillow; "area" averages; "nearest" makes no new colours (see ``scaled``).

    Raises ``ValueError`` for impossible options, ``SampleError`` (``too_large``) where more than 100 million pixels
    would come out.
    """  # noqa: D205  # the options are the sentence

    name: ClassVar[str] = "image.resize"
    stream: ClassVar[Stream] = "image"
    numerics: ClassVar[tuple[str, ...]] = ("opencv-python", "torch")

    width: int | None = None
    height: int | None = None
    short_side: int | None = None
    long_side: int | None = None
    enlarge: bool = True
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        sizes = {"width": self.width, "height": self.height, "short_side": self.short_side, "long_side": self.long_side}
        check_sizes(self.name, sizes)
        given = {option for option, value in sizes.items() if value is not None}
        if given not in ({"width", "height"}, {"short_side"}, {"long_side"}):
            got = " and ".join(sorted(given)) or "no size"
            raise ValueError(f"image.resize: got {got}, allowed: width and height, or short_side, or long_side")
        if not self.enlarge and self.width is not None:
            raise ValueError("image.resize: enlarge: got False with width and height, allowed: with a side only")
        check_interpolation(self.name, self.interpolation)

    def prepare(self, batch: Sequence[Image], device: Device) -> list[Image]:
        """Return one scaled picture for each of ``batch``. Runs on the CPU whatever ``device`` is."""
        del device
        return [Image(pixels=self._scaled(image.pixels), span=image.span) for image in batch]

    def _scaled(self, pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        new_width, new_height = self._size(width, height)
        if new_width * new_height > MAX_PIXELS:
            raise SampleError(
                Reason.TOO_LARGE,
                f"image.resize: got {width}x{height}, which would become {new_width}x{new_height}, "
                f"allowed: {MAX_PIXELS} pixels; cure: long_side",
            )
        return scaled(pixels, new_width, new_height, self.interpolation)

    def _size(self, width: int, height: int) -> tuple[int, int]:
        if self.width is not None and self.height is not None:
            return self.width, self.height
        wanted, side = self.short_side or 0, min(width, height)
        if self.long_side is not None:
            wanted, side = self.long_side, max(width, height)
        if side < wanted and not self.enlarge:
            return width, height
        return max(1, round(width * wanted / side)), max(1, round(height * wanted / side))


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Cut out the central ``width`` x ``height`` pixels; of an odd rest, the smaller half is cut off left and above.

    Raises ``ValueError`` for impossible options, ``SampleError`` (``low_quality``) for a picture that is smaller:
    nothing is filled up.
    """

    name: ClassVar[str] = "image.crop"
    stream: ClassVar[Stream] = "image"
    numerics: ClassVar[tuple[str, ...]] = ()

    width: int
    height: int

    def __post_init__(self) -> None:
        check_sizes(self.name, {"width": self.width, "height": self.height})

    def prepare(self, batch: Sequence[Image], device: Device) -> list[Image]:
        """Return one cut picture for each of ``batch``."""
        del device
        return [Image(pixels=self._cut(image.pixels), span=image.span) for image in batch]

    def _cut(self, pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        if width < self.width or height < self.height:
            raise SampleError(
                Reason.LOW_QUALITY,
                f"image.crop: got {width}x{height}, allowed: at least {self.width}x{self.height}; "
                "cure: image.resize or image.pad before it",
            )
        top, left = (height - self.height) // 2, (width - self.width) // 2
        return np.ascontiguousarray(pixels[top : top + self.height, left : left + self.width])


@dataclass(frozen=True, kw_only=True)
class Pad:
    """Put pictures in the middle of a larger one: of ``width`` x ``height``, or square where neither is given.

    The square has the side of the longer side. Of an odd border, the smaller half is left and above. ``fill``:
    "constant" is ``color`` (R, G, B, 0 to 255), "edge" repeats the border pixels, "reflect" mirrors the picture at them
    (again and again, where the border is wider than the picture).

    Raises ``ValueError`` for impossible options, ``SampleError`` (``too_large``) for a picture that is larger already:
    nothing is cut off.
    """

    name: ClassVar[str] = "image.pad"
    stream: ClassVar[Stream] = "image"
    numerics: ClassVar[tuple[str, ...]] = ("numpy",)

    width: int | None = None
    height: int | None = None
    fill: _FILLS = "constant"
    color: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        check_sizes(self.name, {"width": self.width, "height": self.height})
        if (self.width is None) != (self.height is None):
            got, other = ("width", "height") if self.height is None else ("height", "width")
            raise ValueError(f"image.pad: {got}: got it without {other}, allowed: both, or neither for a square")
        if self.fill not in get_args(_FILLS):
            raise ValueError(f"image.pad: fill: got {self.fill!r}, allowed: {', '.join(map(repr, get_args(_FILLS)))}")
        check_color(self.name, "color", self.color)

    def prepare(self, batch: Sequence[Image], device: Device) -> list[Image]:
        """Return one larger picture for each of ``batch``."""
        del device
        return [Image(pixels=self._padded(image.pixels), span=image.span) for image in batch]

    def _padded(self, pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        new_width = new_height = max(width, height)
        allowed = f"{MAX_PIXELS} pixels in all"
        if self.width is not None and self.height is not None:
            new_width, new_height, allowed = self.width, self.height, f"at most {self.width}x{self.height}"
        if width > new_width or height > new_height or new_width * new_height > MAX_PIXELS:
            raise SampleError(
                Reason.TOO_LARGE,
                f"image.pad: got {width}x{height}, allowed: {allowed}; cure: image.resize with long_side before it",
            )
        top, left = (new_height - height) // 2, (new_width - width) // 2
        border = ((top, new_height - height - top), (left, new_width - width - left), (0, 0))
        if self.fill == "edge":
            return np.pad(pixels, border, mode="edge")
        if self.fill == "reflect":
            return np.pad(pixels, border, mode="reflect")
        made = np.empty((new_height, new_width, 3), np.uint8)
        made[...] = self.color
        made[top : top + height, left : left + width] = pixels
        return made


def check_color(step: str, option: str, value: Sequence[int]) -> None:
    """Raise ``ValueError`` when ``value`` is no colour."""
    if len(value) != 3 or not all(0 <= part <= 255 for part in value):
        raise ValueError(f"{step}: {option}: got {list(value)}, allowed: three numbers from 0 to 255")
