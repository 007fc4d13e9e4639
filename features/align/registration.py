"""Where a picture lies in another, or that it does not.

Key points (SIFT, Lowe 2004, or ORB, Rublee et al. 2011) are matched both ways under Lowe's ratio test; RANSAC finds the
homography that most matches agree on; enhanced correlation refines it. What too few matches agree on is refused by the
test of Brown & Lowe 2007 ("Automatic panoramic image stitching using invariant features", equation 13).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from features.align.homography import (
    MIN_SIDE,
    Matrix,
    Pixels,
    area,
    clipped,
    correlation,
    outline,
    projected,
    ransac,
    refined,
    scaling,
)
from features.errors import Reason, SampleError

Keypoints: TypeAlias = Literal["sift", "orb"]

_RATIO = {"sift": 0.8, "orb": 0.85}
_LONG_SIDE = 1024
_SAID_BEFORE, _SAID_SHARE = 8.0, 0.3
_LEAST_AREA = 100.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Registration:
    """Where a picture lies in a frame. Coordinates are pixels, x right and y down, 0 at the centre of the first pixel.

    ``homography`` float64 ``[3, 3]``, from the picture to the frame, its last entry 1. ``corners`` float64 ``[4, 2]``:
    the centres of the picture's corner pixels in the frame, clockwise from its top left. ``polygon`` float64
    ``[K, 2]``: what of the picture lies inside the frame. ``picture_share`` and ``frame_share``, 0 to 1: the share of
    the picture that is inside the frame, and of the frame that the picture covers. ``matches`` of key points, and the
    ``inliers`` among them. ``correlation`` of the grey levels of both where they overlap, -1 to 1. ``refined``: ECC
    has improved the homography; where it does not converge or does not correlate better, RANSAC's stands.
    """

    homography: Matrix
    corners: Matrix
    polygon: Matrix
    picture_share: float
    frame_share: float
    matches: int
    inliers: int
    correlation: float
    refined: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class View:
    """A picture and its key points.

    ``luma`` uint8 ``[h, w]`` is what is searched, ``size`` the width and height that were given. ``points`` float64
    ``[N, 2]``, in pixels of ``luma``; ``descriptors`` ``[N, D]``, float32 of SIFT, uint8 of ORB.
    """

    luma: Pixels
    size: tuple[int, int]
    points: Matrix
    descriptors: npt.NDArray[Any]

    @property
    def to_given(self) -> Matrix:
        """From pixels of ``luma`` to those of the picture that was given."""
        return scaling(self.size, (self.luma.shape[1], self.luma.shape[0]))


@dataclass(frozen=True, kw_only=True)
class Register:
    """Finds a picture in frames. ``keypoints``: "sift", or "orb" (several times as fast, and finds less).

    ``max_keypoints`` of each picture. ``min_inliers``: matches that must agree, and at least 8 + 0.3 of the matches
    where the two overlap. ``refine`` by ECC. Pictures with a side above 1,024 pixels are scaled down for the search;
    results are in the pixels that were given. Raises ``ValueError`` for impossible options.
    """

    keypoints: Keypoints = "sift"
    max_keypoints: int = 2000
    min_inliers: int = 12
    refine: bool = True

    def __post_init__(self) -> None:
        if self.keypoints not in get_args(Keypoints):
            allowed = ", ".join(map(repr, get_args(Keypoints)))
            raise ValueError(f"align.spatial: keypoints: got {self.keypoints!r}, allowed: {allowed}")
        for option, least in (("max_keypoints", 16), ("min_inliers", 5)):
            if getattr(self, option) < least:
                raise ValueError(f"align.spatial: {option}: got {getattr(self, option)}, allowed: >= {least}")

    def look(self, picture: Pixels) -> View:
        """Find the key points of a picture, uint8, RGB ``[H, W, 3]`` or luma ``[H, W]``; both sides >= 32 pixels.

        Raises ``ValueError`` for another kind of array and ``SampleError(unsupported_format)`` for a smaller picture.
        """
        import cv2

        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)):
            got = f"{picture.dtype} {list(picture.shape)}"
            raise ValueError(f"align.spatial: got {got}, allowed: uint8 [H, W, 3] or [H, W]")
        height, width = picture.shape[:2]
        if min(height, width) < MIN_SIDE:
            raise SampleError(
                Reason.UNSUPPORTED_FORMAT,
                f"align.spatial: got a picture of {width}x{height}, allowed: both sides >= {MIN_SIDE} pixels",
            )
        luma = picture if picture.ndim == 2 else np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY))
        share = min(1.0, _LONG_SIDE / max(height, width))
        small = (max(MIN_SIDE, round(width * share)), max(MIN_SIDE, round(height * share)))
        if share < 1:
            luma = np.asarray(cv2.resize(luma, small, interpolation=cv2.INTER_AREA))
        luma = np.ascontiguousarray(luma, dtype=np.uint8)
        points, descriptors = self._detect(luma)
        return View(luma=luma, size=(width, height), points=points, descriptors=descriptors)

    def _detect(self, luma: Pixels) -> tuple[Matrix, npt.NDArray[Any]]:
        """The strongest key points, in an order of their own: OpenCV's depends on its threads."""
        import cv2

        detector: Any
        if self.keypoints == "orb":
            detector = cv2.ORB.create(nfeatures=self.max_keypoints, fastThreshold=7)
        else:
            detector = cv2.SIFT.create(nfeatures=self.max_keypoints, contrastThreshold=0.02)
        found, descriptors = detector.detectAndCompute(luma, None)
        if not found:
            return np.zeros((0, 2)), np.zeros((0, 1), dtype=np.uint8)
        keys = np.array([(*point.pt, point.size, point.angle) for point in found], dtype=np.float64)
        order = np.lexsort(keys.T[::-1])
        return np.ascontiguousarray(keys[order, :2]), np.ascontiguousarray(descriptors[order])

    def find(self, picture: View, frame: View) -> Registration:
        """Return where ``picture`` lies in ``frame``. Raises ``SampleError(no_overlap)``, saying what was found."""
        pairs = _matches(picture, frame, _RATIO[self.keypoints])
        one, other = picture.points[pairs[:, 0]], frame.points[pairs[:, 1]]
        found, agree = ransac(one, other) if len(pairs) >= 4 else (None, np.zeros(0, dtype=np.bool_))
        if found is None:
            raise _refused(picture, frame, f"{len(pairs)} matches, on which no homography can be based")
        inliers = int(np.count_nonzero(agree))
        overlapping = _overlapping(picture, frame, one, other, found)
        least = max(self.min_inliers, math.floor(_SAID_BEFORE + _SAID_SHARE * overlapping) + 1)
        if inliers < least:
            raise _refused(picture, frame, f"{inliers} of {len(pairs)} matches agree, allowed: at least {least}")
        where = outline(picture.luma.shape, found)
        if where is None or area(clipped(where, frame.luma.shape)) < _LEAST_AREA:
            raise _refused(picture, frame, f"{inliers} of {len(pairs)} matches agree, but on no plain view of it")
        level = correlation(picture.luma, frame.luma, found)
        better = refined(picture.luma, frame.luma, found) if self.refine else None
        gain = -1.0 if better is None else correlation(picture.luma, frame.luma, better)
        if better is not None and gain >= level:
            found, level = better, gain
        else:
            better = None
        given = frame.to_given @ found @ np.linalg.inv(picture.to_given)
        (width, height), frame_shape = picture.size, frame.size[::-1]
        edges = outline((height, width), given)
        if edges is None:
            raise _refused(picture, frame, f"{inliers} of {len(pairs)} matches agree, but on no plain view of it")
        polygon = clipped(edges, frame_shape)
        shown, _ = projected(polygon, np.linalg.inv(given))
        return Registration(
            homography=given / given[2, 2],
            corners=edges,
            polygon=polygon,
            picture_share=min(1.0, area(shown) / ((width - 1) * (height - 1))),
            frame_share=min(1.0, area(polygon) / ((frame.size[0] - 1) * (frame.size[1] - 1))),
            matches=len(pairs),
            inliers=inliers,
            correlation=level,
            refined=better is not None,
        )


def register(picture: Pixels, frame: Pixels, options: Register | None = None) -> Registration:
    """Return where ``picture`` lies in ``frame``, both uint8, RGB ``[H, W, 3]`` or luma ``[H, W]``.

    Raises ``SampleError(no_overlap)`` where they have nothing in common, and as ``Register.look`` does.

    >>> scene = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    >>> found = register(scene[40:200, 80:280], scene)
    >>> found.corners.round().astype(int).tolist()
    [[80, 40], [279, 40], [279, 199], [80, 199]]
    """
    how = options or Register()
    return how.find(how.look(picture), how.look(frame))


def _matches(one: View, other: View, ratio: float) -> npt.NDArray[np.int64]:
    """Pairs of key points, int64 ``[N, 2]``, that are each other's best and clearly better than the second best."""
    import cv2

    if len(one.points) < 2 or len(other.points) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING if one.descriptors.dtype == np.uint8 else cv2.NORM_L2)
    there = matcher.knnMatch(one.descriptors, other.descriptors, k=2)
    back = {match.queryIdx: match.trainIdx for match in matcher.match(other.descriptors, one.descriptors)}
    pairs = [
        (first.queryIdx, first.trainIdx)
        for first, second in there
        if first.distance < ratio * second.distance and back.get(first.trainIdx) == first.queryIdx
    ]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _overlapping(picture: View, frame: View, one: Matrix, other: Matrix, homography: Matrix) -> int:
    """Matches whose key points both lie where the two overlap: all of these could agree."""
    inside = np.ones(len(one), dtype=np.bool_)
    for points, matrix, luma in (
        (one, homography, frame.luma),
        (other, np.asarray(np.linalg.pinv(homography), dtype=np.float64), picture.luma),
    ):
        at, ahead = projected(points, matrix)
        inside &= ahead & (at >= 0).all(axis=1) & (at < luma.shape[::-1]).all(axis=1)
    return int(np.count_nonzero(inside))


def _refused(picture: View, frame: View, what: str) -> SampleError:
    names = (f"{view.size[0]}x{view.size[1]} with {len(view.points)} key points" for view in (picture, frame))
    return SampleError(
        Reason.NO_OVERLAP,
        "align.spatial: the picture ({}) is not in the frame ({}): {}; cure: give a picture of what the video "
        "shows".format(*names, what),
    )
