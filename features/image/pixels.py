"""The pixels themselves as a vector: scaled to one size and to a numeric range."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from features.base import Example, State
from features.errors import StateError
from features.image.geometry import MAX_PIXELS, check_sizes
from features.image.scaling import Interpolation, check_interpolation, scaled
from features.types import Device, FeatureSequence, Image, Stream

Colors: TypeAlias = Literal["rgb", "gray"]
Layout: TypeAlias = Literal["hwc", "chw"]
Range: TypeAlias = Literal["unit", "signed"]
Floats: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Scaled:
    """The options that both extractors share; see ``Pixels``."""

    stream: ClassVar[Stream] = "image"
    numerics: ClassVar[tuple[str, ...]] = ("numpy", "opencv-python", "torch")

    width: int = 32
    height: int = 32
    colors: Colors = "rgb"
    layout: Layout = "hwc"
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        name = type(self).name  # type: ignore[attr-defined]
        check_sizes(name, {"width": self.width, "height": self.height})
        if self.width * self.height > MAX_PIXELS:
            raise ValueError(f"{name}: width: got {self.width} by {self.height}, allowed: {MAX_PIXELS} pixels in all")
        check_interpolation(name, self.interpolation)
        for option, kind in (("colors", Colors), ("layout", Layout)):
            value, allowed = getattr(self, option), get_args(kind)
            if value not in allowed:
                raise ValueError(f"{name}: {option}: got {value!r}, allowed: {', '.join(map(repr, allowed))}")

    @property
    def channels(self) -> int:
        """Numbers a pixel."""
        return 3 if self.colors == "rgb" else 1

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self.width * self.height * self.channels

    def raster(self, image: Image) -> npt.NDArray[np.uint8]:
        """The picture at its size, uint8 ``[height, width, channels]``."""
        pixels = scaled(image.pixels, self.width, self.height, self.interpolation)
        if self.colors == "rgb":
            return pixels
        import cv2

        return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY), dtype=np.uint8)[:, :, None]

    def row(self, values: Floats, image: Image) -> FeatureSequence:
        """One row of ``values`` ``[height, width, channels]``."""
        ordered = values if self.layout == "hwc" else values.transpose(2, 0, 1)
        return FeatureSequence.from_rows(ordered.astype(np.float32).reshape(1, -1), [image.span])


@dataclass(frozen=True, kw_only=True)
class Pixels(_Scaled):
    """One row for each picture: its pixels, scaled to ``width`` x ``height`` (the aspect ratio is not kept).

    ``colors``: "rgb", or "gray" for luma (0.299 R + 0.587 G + 0.114 B). ``range``: "unit" is ``v / 255``, 0 to 1;
    "signed" is ``v / 127.5 - 1``, -1 to 1. ``mean`` and ``std``, given together, one number a channel on the scale of
    ``range``: what comes out is ``(x - mean) / std``. ``layout``: "hwc" puts the channels of a pixel side by side,
    row by row from the top; "chw" puts whole channels one after the other. ``interpolation`` as in ``image.resize``.

    Raises ``ValueError`` for impossible options.
    """

    name: ClassVar[str] = "image.pixels"

    range: Range = "unit"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.range not in get_args(Range):
            allowed = ", ".join(map(repr, get_args(Range)))
            raise ValueError(f"image.pixels: range: got {self.range!r}, allowed: {allowed}")
        if (self.mean is None) != (self.std is None):
            got, other = ("mean", "std") if self.std is None else ("std", "mean")
            raise ValueError(f"image.pixels: {got}: got it without {other}, allowed: both or neither")
        for option in ("mean", "std"):
            value: tuple[float, ...] | None = getattr(self, option)
            if value is not None and (len(value) != self.channels or not all(map(math.isfinite, value))):
                raise ValueError(
                    f"image.pixels: {option}: got {list(value)}, allowed: {self.channels} finite numbers, one a channel"
                )
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"image.pixels: std: got {list(self.std)}, allowed: > 0")

    def __call__(self, batch: Sequence[Image], device: Device) -> list[FeatureSequence]:
        """Return one row for each picture, with the picture's span. Runs on the CPU whatever ``device`` is."""
        del device
        table = self._table()
        channel = np.arange(self.channels)
        return [self.row(table[channel, self.raster(image)], image) for image in batch]

    def _table(self) -> Floats:
        """What each of the 256 levels becomes, for each channel: ``[channels, 256]``."""
        level = np.arange(256, dtype=np.float64)
        x = level / 255 if self.range == "unit" else level / 127.5 - 1
        mean, std = self.mean or (0.0,) * self.channels, self.std or (1.0,) * self.channels
        return np.asarray((x - np.array(mean)[:, None]) / np.array(std)[:, None])


@dataclass(frozen=True, kw_only=True)
class StandardizedPixels(_Scaled):
    """``image.pixels``, standardised by the statistics of the data set: ``(v - mean) / std`` of the training pictures.

    The statistics are computed once, in ``fit``, exactly (sums of whole numbers in one pass); they are stored with
    their digest, which is part of the key of every row. ``per``: "channel" has one mean and deviation for a channel,
    "pixel" one for each position and channel (the mean picture). The deviation is the population's; where it is 0 the
    difference from the mean is left as it is, in grey levels, as in scikit-learn's ``StandardScaler``. The other
    options are those of ``image.pixels``.

    Raises ``ValueError`` for impossible options. ``fit``, then ``with_state``, make it compute.
    """

    name: ClassVar[str] = "image.standardized_pixels"

    per: Literal["channel", "pixel"] = "channel"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per not in ("channel", "pixel"):
            raise ValueError(f"image.standardized_pixels: per: got {self.per!r}, allowed: 'channel', 'pixel'")

    @property
    def _shape(self) -> tuple[int, int, int]:
        """Shape of the statistics."""
        return (1, 1, self.channels) if self.per == "channel" else (self.height, self.width, self.channels)

    def fit(self, corpus: Iterable[Example]) -> dict[str, Any]:
        """Return "mean" and "std", float64, and "count", int64: the numbers that each of them is made from.

        Order does not matter: sums are exact. Raises ``StateError`` where the corpus is empty.
        """
        count, total, squares = 0, np.zeros(self._shape, np.int64), np.zeros(self._shape, np.int64)
        axes = (0, 1) if self.per == "channel" else ()
        for example in corpus:
            raster = self.raster(example.medium).astype(np.int64)
            count += raster.size // total.size
            total += raster.sum(axis=axes, keepdims=True) if axes else raster
            squares += (raster * raster).sum(axis=axes, keepdims=True) if axes else raster * raster
        if not count:
            raise StateError(
                f"{self.name}: got no pictures to take statistics of, allowed: at least one; "
                "cure: a training split with images that can be read"
            )
        exact, exact_squares = total.astype(object), squares.astype(object)  # Python's integers: no overflow below
        variance = ((count * exact_squares - exact**2) / count**2).astype(np.float64)
        mean = (exact / count).astype(np.float64)
        return {"mean": mean, "std": np.sqrt(variance), "count": np.array(count, np.int64)}

    def with_state(self, state: State) -> BoundPixels:
        """Return the extractor that uses these statistics. Raises ``StateError`` when they do not fit."""
        found = {name: np.asarray(value) for name, value in state.items()}
        shapes = {name: list(value.shape) for name, value in found.items()}
        wanted = {"count": [], "mean": list(self._shape), "std": list(self._shape)}
        if shapes != wanted:
            raise StateError(
                f"{self.name}: got state with shapes {shapes}, allowed: {wanted}; cure: fit it again with these options"
            )
        mean, std = (found[name].astype(np.float64) for name in ("mean", "std"))
        if not (np.isfinite(mean).all() and np.isfinite(std).all() and (std >= 0).all()):
            raise StateError(f"{self.name}: got statistics that are not finite, or negative; cure: fit it again")
        return BoundPixels(self, mean, std)

    def __call__(self, batch: Sequence[Image], device: Device) -> list[FeatureSequence]:
        """Raise ``StateError``: standardising needs statistics."""
        raise StateError(
            f"{self.name}: got a batch of {len(batch)} for {device} but no statistics; cure: with_state(fit(corpus))"
        )


@dataclass(frozen=True, eq=False)
class BoundPixels:
    """``StandardizedPixels`` with the statistics of its data set."""

    name: ClassVar[str] = StandardizedPixels.name
    stream: ClassVar[Stream] = StandardizedPixels.stream
    numerics: ClassVar[tuple[str, ...]] = StandardizedPixels.numerics

    options: StandardizedPixels
    mean: Floats
    std: Floats

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self.options.dim

    def __call__(self, batch: Sequence[Image], device: Device) -> list[FeatureSequence]:
        """Return one row for each picture, with the picture's span. Runs on the CPU whatever ``device`` is."""
        del device
        scale = np.where(self.std > 0, self.std, 1.0)
        return [self.options.row((self.options.raster(image) - self.mean) / scale, image) for image in batch]
