"""Homographies between two pictures: estimated from matches, refined on the pixels, applied to outlines.

Coordinates are pixels, x right and y down, 0 at the centre of the first pixel; points are float64 ``[N, 2]``.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.uint8]
Matrix: TypeAlias = npt.NDArray[np.float64]

MIN_SIDE = 32
_REACH = 2.0
_ROUNDS = 5000
_SURE = 0.9995
_ECC_ROUNDS, _ECC_STEP, _ECC_BLUR, _ECC_MARGIN = 30, 1e-4, 3, 4
_ECC_MOVES = 4.0
_LEAST_SEEN = 400
_AHEAD = 1e-9


def ransac(one: Matrix, other: Matrix) -> tuple[Matrix | None, npt.NDArray[np.bool_]]:
    """The homography from ``one`` to ``other`` that most pairs agree on to 2 pixels, and which do: bool ``[N]``.

    Fischler & Bolles 1981, then least squares over those that agree; OpenCV draws from a fixed seed.
    """
    import cv2

    found, mask = cv2.findHomography(one, other, cv2.RANSAC, _REACH, maxIters=_ROUNDS, confidence=_SURE)
    matrix = np.asarray(found, dtype=np.float64)  # NaN where there is none
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        return None, np.zeros(len(one), dtype=np.bool_)
    return matrix, np.asarray(mask).ravel().astype(np.bool_)


def corners(shape: tuple[int, ...]) -> Matrix:
    """The centres of a picture's corner pixels, clockwise from the top left; ``shape`` is ``[H, W]``."""
    right, low = shape[1] - 1.0, shape[0] - 1.0
    return np.array([[0.0, 0.0], [right, 0.0], [right, low], [0.0, low]])


def projected(points: Matrix, homography: Matrix) -> tuple[Matrix, npt.NDArray[np.bool_]]:
    """Where points go, and which of them lie ahead of the camera (the others mean nothing)."""
    moved = np.c_[points, np.ones(len(points))] @ homography.T
    ahead = moved[:, 2] > _AHEAD
    return moved[:, :2] / np.where(ahead, moved[:, 2], 1.0)[:, None], ahead


def outline(shape: tuple[int, ...], homography: Matrix) -> Matrix | None:
    """Where the corners of a picture go; ``None`` where it would be folded, mirrored or partly behind the camera."""
    found, ahead = projected(corners(shape), homography)
    edges = np.roll(found, -1, axis=0) - found
    following = np.roll(edges, -1, axis=0)
    convex = edges[:, 0] * following[:, 1] - edges[:, 1] * following[:, 0] > 0
    return found if ahead.all() and convex.all() else None


def area(polygon: Matrix) -> float:
    """Square pixels inside a polygon without crossings."""
    if len(polygon) < 3:
        return 0.0
    x, y = (polygon - polygon[0]).T
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


def clipped(polygon: Matrix, shape: tuple[int, ...]) -> Matrix:
    """What of a convex polygon lies in a frame of ``[H, W]`` (Sutherland & Hodgman 1974); none where nothing does."""
    points: list[list[float]] = polygon.tolist()
    for axis, sign, edge in ((0, 1, 0.0), (0, -1, shape[1] - 1.0), (1, 1, 0.0), (1, -1, shape[0] - 1.0)):
        kept: list[list[float]] = []
        for point, following in zip(points, points[1:] + points[:1], strict=True):
            here, there = sign * (point[axis] - edge), sign * (following[axis] - edge)
            if here >= 0:
                kept.append(point)
            if here * there < 0:
                share = here / (here - there)
                cut = [a + share * (b - a) for a, b in zip(point, following, strict=True)]
                cut[axis] = edge
                kept.append(cut)
        points = kept
    return np.array(points, dtype=np.float64).reshape(-1, 2)


def correlation(picture: Pixels, frame: Pixels, homography: Matrix) -> float:
    """Correlation of the grey levels of ``picture`` and of ``frame`` where it lies there, -1 to 1.

    0 where fewer than 400 pixels overlap or one of the two is flat.
    """
    import cv2

    height, width = picture.shape
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    there = np.asarray(cv2.warpPerspective(frame, homography, (width, height), flags=how))
    seen = np.asarray(cv2.warpPerspective(np.full_like(frame, 255), homography, (width, height), flags=how)) == 255
    if np.count_nonzero(seen) < _LEAST_SEEN:
        return 0.0
    one, other = picture[seen].astype(np.float64), there[seen].astype(np.float64)
    one, other = one - one.mean(), other - other.mean()
    scale = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / scale if scale else 0.0


def refined(picture: Pixels, frame: Pixels, homography: Matrix) -> Matrix | None:
    """The homography after enhanced correlation (ECC), or ``None`` where that does not converge or runs away.

    Evangelidis & Psarakis 2008, OpenCV's ``findTransformECC``. The finer of the two is first scaled down to the other's
    resolution, so that both show the same detail, and edges are left out: there, blur mixes in what is around.
    """
    import cv2

    before = outline(picture.shape, homography)
    if before is None or not len(clipped(before, frame.shape)):
        return None
    scale = math.sqrt(area(before) / picture.size)
    template, from_template = _shrunk(picture, min(1.0, scale))
    target, from_target = _shrunk(frame, min(1.0, 1 / scale))
    template = np.ascontiguousarray(template[_ECC_MARGIN:-_ECC_MARGIN, _ECC_MARGIN:-_ECC_MARGIN])
    from_template = from_template @ np.array([[1.0, 0.0, _ECC_MARGIN], [0.0, 1.0, _ECC_MARGIN], [0.0, 0.0, 1.0]])
    start = np.linalg.inv(from_target) @ homography @ from_template
    stop = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, _ECC_ROUNDS, _ECC_STEP)
    inside = np.zeros(target.shape, dtype=np.uint8)
    inside[_ECC_MARGIN:-_ECC_MARGIN, _ECC_MARGIN:-_ECC_MARGIN] = 255
    try:
        _, found = cv2.findTransformECC(
            template,
            target,
            (start / start[2, 2]).astype(np.float32),
            cv2.MOTION_HOMOGRAPHY,
            stop,
            inside,
            _ECC_BLUR,
        )
    except cv2.error:  # it did not converge
        return None
    result = from_target @ np.asarray(found, dtype=np.float64) @ np.linalg.inv(from_template)
    after = outline(picture.shape, result) if np.isfinite(result).all() else None
    if after is None or np.abs(after - before).max() > _ECC_MOVES * max(scale, 1.0):
        return None
    return np.asarray(result / result[2, 2])


def scaling(given: tuple[int, int], size: tuple[int, int]) -> Matrix:
    """From pixels of a picture scaled to ``size`` (width, height) to those of the ``given`` one: edges lie on edges."""
    sx, sy = given[0] / size[0], given[1] / size[1]
    return np.array([[sx, 0.0, (sx - 1) / 2], [0.0, sy, (sy - 1) / 2], [0.0, 0.0, 1.0]])


def _shrunk(luma: Pixels, scale: float) -> tuple[Pixels, Matrix]:
    """A smaller picture, and the matrix from its pixels to those of ``luma``; as it is where little would change."""
    import cv2

    height, width = luma.shape
    size = (max(MIN_SIDE, round(width * scale)), max(MIN_SIDE, round(height * scale)))
    if scale > 0.8:
        return luma, np.eye(3)
    return np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), dtype=np.uint8), scaling(
        (width, height), size
    )
