"""Dense optical flow between two frames: the methods, each as a function of two pictures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from features.errors import Reason, SampleError

Method: TypeAlias = Literal["dis", "farneback", "raft"]
Preset: TypeAlias = Literal["ultrafast", "fast", "balanced", "medium"]
Luma: TypeAlias = npt.NDArray[np.uint8]
Field: TypeAlias = npt.NDArray[np.float32]
Estimate: TypeAlias = Callable[[Luma, Luma], Field]

MIN_SIDE = 32


def allow(step: str, option: str, value: object, allowed: tuple[Any, ...]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{step}: {option}: got {value!r}, allowed: {', '.join(map(repr, allowed))}")


def estimator(method: Method, preset: Preset) -> Estimate:
    """Return the function of two luma frames that OpenCV offers as ``method``."""
    import cv2

    nothing: Any = None  # a field of zeros would be a first guess, which makes the search worse at large motion
    if method == "farneback":

        def farneback(previous: Luma, current: Luma) -> Field:
            field = cv2.calcOpticalFlowFarneback(
                previous,
                current,
                nothing,
                pyr_scale=0.5,
                levels=4,
                winsize=15,
                iterations=3,
                poly_n=5,
                poly_sigma=1.1,
                flags=0,
            )
            return np.asarray(field, dtype=np.float32)

        return farneback
    presets = {
        "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
        "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
        "balanced": cv2.DISOPTICAL_FLOW_PRESET_FAST,
        "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
    }
    search = cv2.DISOpticalFlow.create(presets[preset])
    if preset == "balanced":
        search.setFinestScale(1)
        search.setPatchStride(6)
        search.setGradientDescentIterations(12)
        search.setVariationalRefinementIterations(0)

    def dis(previous: Luma, current: Luma) -> Field:
        return np.asarray(search.calc(previous, current, nothing), dtype=np.float32)

    return dis


def flow_field(
    previous: Luma, current: Luma, *, method: Literal["dis", "farneback"] = "dis", preset: Preset = "balanced"
) -> Field:
    """Return where each pixel of ``previous`` went: float32 ``[H, W, 2]``, pixels right and pixels down.

    ``previous`` and ``current`` are luma, uint8 ``[H, W]``, both sides at least 32. ``method`` "dis" is dense inverse
    search (Kroeger et al. 2016) with a ``preset`` of OpenCV's, or "balanced": searched down to half the resolution
    (finest scale 1) on a wider grid of patches (stride 6), 12 descents, no variational refinement. "farneback" is
    polynomial expansion (Farnebäck 2003). Needs no weights; for RAFT see ``features.video.raft``.

    Raises ``ValueError`` for unknown options and frames that are not luma of one size, and
    ``SampleError(unsupported_format)`` for smaller ones (OpenCV's dense inverse search crashes on narrow strips).
    """
    allow("video.flow", "method", method, ("dis", "farneback"))
    allow("video.flow", "preset", preset, get_args(Preset))
    check_shapes(previous.shape, current.shape, 2, MIN_SIDE)
    return estimator(method, preset)(previous, current)


def check_shapes(previous: tuple[int, ...], current: tuple[int, ...], ndim: int, least: int) -> None:
    """Raise unless both frames are of one size, of the kind that the method takes, and large enough for it."""
    if previous != current or len(current) != ndim:
        kind, pixel_format = ("luma [H, W]", "gray") if ndim == 2 else ("RGB [H, W, 3]", "rgb24")
        raise ValueError(
            f"video.flow: got frames {list(previous)} and {list(current)}, allowed: {kind} of one size; "
            f"cure: decode with pixel_format={pixel_format!r}"
        )
    if min(current[:2]) < least:
        raise SampleError(
            Reason.UNSUPPORTED_FORMAT,
            f"video.flow: got frames of {current[1]}x{current[0]}, allowed: both sides >= {least} pixels",
        )
