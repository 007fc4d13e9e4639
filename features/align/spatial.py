"""Spatial alignment as a feature: where a sample's still image lies in the frames of its video.

From Python, for two pictures: ``register``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from features.align.homography import MIN_SIDE
from features.align.registration import Keypoints, Register, Registration, register
from features.base import FrameRequest, run_video
from features.errors import Reason, SampleError, StateError
from features.types import Device, FeatureSequence, Image, Stream, VideoClip

__all__ = ["Register", "Registration", "Spatial", "SpatialTo", "register"]


@dataclass(frozen=True, kw_only=True)
class Spatial:
    """Where a sample's still image lies in the frames of its video: one row for each frame that is looked at.

    Reads two streams, ``video`` and ``image``. ``rate``: frames a second that are looked at; ``short_side``: their size
    in pixels. ``keypoints``, ``max_keypoints``, ``min_inliers`` and ``refine`` as in ``Register``.

    Columns: ``x0, y0`` to ``x3, y3``, the corners of the image in the frame, clockwise from the image's top left, in
    frame widths (the homography is the one that takes the corners there); ``picture_share`` of the image that the frame
    shows and ``frame_share`` that it covers; ``inliers``, their share of the matches, and ``correlation`` of the grey
    levels, as in ``Registration``. A row lasts until the next frame that is looked at. Where the image is not in a
    frame the row is not valid; where it is in no frame at all the sample is refused. Runs on the CPU whatever the
    device.

    Raises ``ValueError`` for impossible options and for frames that are not luma; ``SampleError``: ``no_overlap``, or
    ``unsupported_format`` for pictures narrower than 32 pixels. Without an image it only describes;
    ``with_reference`` computes.
    """

    name: ClassVar[str] = "align.spatial"
    stream: ClassVar[Stream] = "video"
    reference: ClassVar[Stream] = "image"
    numerics: ClassVar[tuple[str, ...]] = ("opencv-python",)
    columns: ClassVar[tuple[str, ...]] = (
        *("x0", "y0", "x1", "y1", "x2", "y2", "x3", "y3"),
        *("picture_share", "frame_share", "inliers", "inlier_share", "correlation"),
    )

    rate: float = 1.0
    short_side: int = 360
    keypoints: Keypoints = "sift"
    max_keypoints: int = 2000
    min_inliers: int = 12
    refine: bool = True

    def __post_init__(self) -> None:
        _ = self.register
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise ValueError(f"align.spatial: rate: got {self.rate}, allowed: > 0 and finite")
        if self.short_side < MIN_SIDE:
            raise ValueError(f"align.spatial: short_side: got {self.short_side}, allowed: >= {MIN_SIDE}")

    @property
    def register(self) -> Register:
        """How the image is found in one frame."""
        return Register(
            keypoints=self.keypoints,
            max_keypoints=self.max_keypoints,
            min_inliers=self.min_inliers,
            refine=self.refine,
        )

    @property
    def dim(self) -> int:
        """Width of a row."""
        return len(self.columns)

    @property
    def request(self) -> FrameRequest:
        """Luma at ``rate``."""
        return FrameRequest(pixel_format="gray", short_side=self.short_side, rate=self.rate, until_next=True)

    def with_reference(self, medium: Image) -> SpatialTo:
        """Return the extractor that looks for ``medium``."""
        return SpatialTo(self, medium)

    def open(self, device: Device) -> SpatialSink:
        """Raise ``StateError``: there is nothing to look for."""
        del device
        raise StateError("align.spatial: got no image to look for; cure: with_reference(image)")

    def __call__(self, batch: Sequence[VideoClip], device: Device) -> list[FeatureSequence]:
        """Raise ``StateError`` for any clip: there is nothing to look for."""
        return run_video(self, batch, device)


class SpatialTo:
    """``Spatial`` with the image that it looks for. Raises as ``Register.look`` for an image that is too small."""

    name: ClassVar[str] = Spatial.name
    stream: ClassVar[Stream] = Spatial.stream
    numerics: ClassVar[tuple[str, ...]] = Spatial.numerics

    def __init__(self, options: Spatial, medium: Image) -> None:
        self.options = options
        self.image = medium
        self.view = options.register.look(medium.pixels)

    def __reduce__(self) -> tuple[type[SpatialTo], tuple[Spatial, Image]]:
        return (SpatialTo, (self.options, self.image))

    def __repr__(self) -> str:
        return f"SpatialTo({self.options!r}, {self.image!r})"

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self.options.dim

    @property
    def request(self) -> FrameRequest:
        """The frames that this extractor wants."""
        return self.options.request

    def open(self, device: Device) -> SpatialSink:
        """Begin a video."""
        del device
        return SpatialSink(self)

    def __call__(self, batch: Sequence[VideoClip], device: Device) -> list[FeatureSequence]:
        """Return the rows of each clip."""
        return run_video(self, batch, device)


class SpatialSink:
    """One video on its way; each frame is looked at by itself."""

    def __init__(self, step: SpatialTo) -> None:
        self._step = step
        self._how = step.options.register
        self._rows: list[npt.NDArray[np.float32] | None] = []
        self._times: list[tuple[int, int]] = []
        self._refusal: SampleError | None = None

    def push(self, frames: VideoClip) -> None:
        """Take the next chunk of frames."""
        if frames.pixels.ndim != 3:
            raise ValueError(
                f"align.spatial: got frames {list(frames.pixels.shape[1:])}, allowed: luma [H, W]; "
                "cure: decode with pixel_format='gray'"
            )
        for pixels, start, end in zip(frames.pixels, frames.start_ns.tolist(), frames.end_ns.tolist(), strict=True):
            frame = self._how.look(pixels)
            try:
                self._rows.append(_row(self._how.find(self._step.view, frame), pixels.shape[1]))
            except SampleError as error:
                self._refusal = self._refusal or error
                self._rows.append(None)
            self._times.append((start, end))

    def finish(self) -> FeatureSequence:
        """Return one row for each frame. Raises ``SampleError(no_overlap)`` where the image is in none of them."""
        if not self._rows:
            return FeatureSequence.empty(self._step.dim)
        if self._refusal is not None and not any(row is not None for row in self._rows):
            raise SampleError(
                Reason.NO_OVERLAP,
                f"in none of {len(self._rows)} frames was the image found; of the first: {self._refusal.message}",
            )
        nothing = np.zeros(self._step.dim, dtype=np.float32)
        times = np.array(self._times, dtype=np.int64)
        return FeatureSequence(
            values=np.stack([nothing if row is None else row for row in self._rows]),
            start_ns=np.ascontiguousarray(times[:, 0]),
            end_ns=np.ascontiguousarray(times[:, 1]),
            valid=np.array([row is not None for row in self._rows]),
        )


def _row(found: Registration, width: int) -> npt.NDArray[np.float32]:
    shares = (found.picture_share, found.frame_share, found.inliers, found.inliers / found.matches, found.correlation)
    return np.array([*(found.corners / width).ravel(), *shares], dtype=np.float32)
