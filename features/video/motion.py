"""A flow field in a few numbers: speeds, directions, the camera's motion, what remains of it, and how sure they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from features.compiled import compiled
from features.video.fields import Field, Luma

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Gradient = npt.NDArray[np.float32]

COLUMNS = (
    *("mean_speed", "std_speed", "mean_dx", "mean_dy", "global_dx", "global_dy", "zoom", "rotation"),
    *("residual_speed", "divergence", "confidence"),
)
"""The columns before the histograms."""

SPEEDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Edges between the bins of the histogram of speeds, in frame widths a second."""

_STILL_PIXELS = np.float32(0.1)
_LOOKED_AT = 2304
_FITTED = 600
_ROUNDS = 5
_TUKEY = 4.685
_MAD = 1.4826
_LEAST_SCALE = 0.02
_TEXTURE = 2.0
_TEXTURE_WINDOW = 7
_FOUND_AGAIN = 20.0
_FEW = 0.05


@dataclass(frozen=True, kw_only=True)
class CameraMotion:
    """A similarity: the centre of the picture moves by ``dx``, ``dy`` pixels, everything by ``zoom`` and ``rotation``.

    A point at ``(x, y)`` from the centre moves by ``(dx + zoom * x - rotation * y, dy + zoom * y + rotation * x)``.
    """

    dx: float
    dy: float
    zoom: float
    rotation: float

    def at(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Displacement of the points ``(x, y)``, counted from the centre, in pixels."""
        return self.dx + self.zoom * x - self.rotation * y, self.dy + self.zoom * y + self.rotation * x


def camera_motion(u: Array, v: Array, x: Array, y: Array, trust: Array) -> CameraMotion:
    """Fit the motion of the whole picture to displacements ``u, v`` at ``x, y``, so that moving things do not count.

    Iteratively reweighted least squares with Tukey's biweight, from the median on (Holland & Welsch 1977); ``trust``
    weighs the points, 0 to 1. Where hardly any (fewer than 5 %) is trusted, all are.
    """
    u, v, x, y, trust = (part.ravel() for part in (u, v, x, y, trust))
    if trust.sum() < _FEW * trust.size:
        trust = np.ones_like(trust)
    sure = trust > 0
    motion = CameraMotion(dx=_median(u[sure]), dy=_median(v[sure]), zoom=0.0, rotation=0.0)
    for _ in range(_ROUNDS):
        expected_u, expected_v = motion.at(x, y)
        error = np.sqrt((u - expected_u) ** 2 + (v - expected_v) ** 2)
        reach = _TUKEY * max(_MAD * _median(error[sure]), _LEAST_SCALE)
        dx, dy, zoom, rotation = compiled(_similarity)(u, v, x, y, trust, error / reach)
        motion = CameraMotion(dx=dx, dy=dy, zoom=zoom, rotation=rotation)
    return motion


def _similarity(u: Array, v: Array, x: Array, y: Array, trust: Array, error: Array) -> tuple[float, ...]:
    """Least squares in closed form, weighted by trust and Tukey's biweight of ``error``; float64 ``[n]`` each."""
    weight = np.empty(u.size)
    total = mean_u = mean_v = mean_x = mean_y = 0.0
    for i in range(u.size):
        share = max(0.0, 1 - error[i] ** 2)
        weight[i] = trust[i] * share * share
        total += weight[i]
        mean_u += weight[i] * u[i]
        mean_v += weight[i] * v[i]
        mean_x += weight[i] * x[i]
        mean_y += weight[i] * y[i]
    mean_u, mean_v, mean_x, mean_y = mean_u / total, mean_v / total, mean_x / total, mean_y / total
    spread = grown = turned = 0.0
    for i in range(u.size):
        at_x, at_y, by_u, by_v = x[i] - mean_x, y[i] - mean_y, u[i] - mean_u, v[i] - mean_v
        spread += weight[i] * (at_x * at_x + at_y * at_y)
        grown += weight[i] * (at_x * by_u + at_y * by_v)
        turned += weight[i] * (at_x * by_v - at_y * by_u)
    zoom, rotation = (grown / spread, turned / spread) if spread > 0 else (0.0, 0.0)
    dx = mean_u - zoom * mean_x + rotation * mean_y
    dy = mean_v - zoom * mean_y - rotation * mean_x
    return dx, dy, zoom, rotation


def _median(values: Array) -> float:
    """The upper median; NumPy's own takes five times as long for so few."""
    middle = values.size // 2
    return float(np.partition(values, middle, axis=None)[middle])


def texture(luma: Luma, y: Index, x: Index) -> Array:
    """Root of the smaller eigenvalue of the structure tensor: grey levels a pixel in the direction that has least.

    Shi & Tomasi 1994. uint8 ``[H, W]`` in, float64 for each of the pixels ``y, x`` out; where it is small, motion along
    one direction (or any) cannot be seen. Beyond its edges the picture is taken as mirrored.
    """
    import cv2

    gx, gy = (cv2.Sobel(luma, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    return np.asarray(compiled(_tensor)(gx, gy, y.ravel(), x.ravel())).reshape(y.shape)


def _tensor(gx: Gradient, gy: Gradient, y: Index, x: Index) -> Array:
    """The loop of ``texture``: the mean of the tensor over a window around each pixel, and its smaller eigenvalue."""
    height, width = gx.shape
    reach, found = _TEXTURE_WINDOW // 2, np.empty(y.size)
    for i in range(y.size):
        xx = yy = xy = 0.0
        for row in range(y[i] - reach, y[i] + reach + 1):
            inside = abs(row) if row < height else 2 * (height - 1) - row
            for column in range(x[i] - reach, x[i] + reach + 1):
                within = abs(column) if column < width else 2 * (width - 1) - column
                across, down = float(gx[inside, within]), float(gy[inside, within])
                xx += across * across
                yy += down * down
                xy += across * down
        size = _TEXTURE_WINDOW * _TEXTURE_WINDOW
        xx, yy, xy = xx / size, yy / size, xy / size
        half = (xx - yy) / 2
        found[i] = math.sqrt(max(0.0, (xx + yy) / 2 - math.sqrt(half * half + xy * xy)))
    return found


def _trust(frames: tuple[Luma, Luma], field: Field, y: Index, x: Index) -> Array:
    """1 where a pixel has texture and is found again where the flow says (neither hidden nor left the picture)."""
    import cv2

    previous, current = frames
    height, width = previous.shape
    size = ((width + 1) // 2, (height + 1) // 2)
    half = np.asarray(cv2.resize(previous, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    seen = texture(half, y // 2, x // 2) >= _TEXTURE
    at_x, at_y = (x + field[y, x, 0]).astype(np.float32), (y + field[y, x, 1]).astype(np.float32)
    inside = (at_x >= 0) & (at_x <= width - 1) & (at_y >= 0) & (at_y <= height - 1)
    there = cv2.remap(current, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    change = there.astype(np.float64) - previous[y, x]
    same = np.abs(change - _median(change)) <= _FOUND_AGAIN
    return np.asarray(seen & inside & same, dtype=np.float64)


def _divergence(field: Field) -> float:
    """Mean divergence of the inner three quarters of the field, a pixel: by Gauss' theorem, what flows out of them."""
    height, width = field.shape[:2]
    top, left = height // 8, width // 8
    rows, columns = slice(top, height - top), slice(left, width - left)
    high, wide = height - 2 * top - 1, width - 2 * left - 1
    right, bottom = field[rows, left + wide, 0].astype(np.float64), field[top + high, columns, 1].astype(np.float64)
    across = (right - field[rows, left, 0]).mean() / wide if wide else 0.0
    down = (bottom - field[top, columns, 1]).mean() / high if high else 0.0
    return float(across + down)


def _histograms(
    size: Gradient, degrees: Gradient, edges: Gradient, sectors: np.float32, bins: int
) -> tuple[Index, Array]:
    """How many vectors (their length and direction, float32 ``[n]``) lie between ``edges``; length by direction."""
    counts, directions = np.zeros(edges.size + 1, np.int64), np.zeros(bins)
    for i in range(size.size):
        place = 0
        for edge in edges:
            place += size[i] >= edge
        counts[place] += 1
        if size[i] >= _STILL_PIXELS:
            directions[int(degrees[i] * sectors + np.float32(0.5)) % bins] += size[i]
    return counts, directions


def describe(
    field: Field, seconds: float, bins: int, frames: tuple[Luma, Luma] | None = None
) -> npt.NDArray[np.float32]:
    """Sum up a flow field (pixels, ``[H, W, 2]``, over ``seconds``): ``COLUMNS``, shares of speeds, of directions.

    Speeds and displacements are in frame widths a second. ``global_dx``, ``global_dy``: how the camera lets the centre
    of the picture move, right and down positive; ``zoom``: share that the picture grows a second; ``rotation``:
    degrees a second, clockwise positive (see ``camera_motion``). ``residual_speed``: mean speed once that is taken
    away. ``divergence``: a second, of the inner three quarters. ``confidence``: share of pixels that have texture and
    are found again where the flow says, by the two luma ``frames`` that the field is between; without them 1.

    Then the shares of pixels whose speed lies between ``SPEEDS`` (7 bins), then ``bins`` directions: bin ``k`` is
    centred on ``k * 360 / bins`` degrees, 0 being right and 90 down, and holds the share of all motion that goes that
    way; vectors shorter than 0.1 pixel, below the methods' accuracy, are left out. Without any motion these are all 0.
    The methods give fields that are smooth over many pixels, so some 2,300 points of a grid are looked at, and some 600
    for the camera's motion, what remains of it, and confidence.
    """
    import cv2

    height, width = field.shape[:2]
    every = max(2, _step(field, _LOOKED_AT))
    dx, dy = (np.ascontiguousarray(field[::every, ::every, axis]) for axis in (0, 1))
    size, degrees = cv2.cartToPolar(dx, dy, angleInDegrees=True)
    (mean,), (spread,) = (value[0] for value in cv2.meanStdDev(size))

    y, x = _grid(height, width, _step(field, _FITTED))
    trust = np.ones(y.shape) if frames is None else _trust(frames, field, y, x)
    u, v = (field[y, x, axis].astype(np.float64) for axis in (0, 1))
    from_x, from_y = x - (width - 1) / 2, y - (height - 1) / 2
    camera = camera_motion(u, v, from_x, from_y, trust)
    # not cv2.magnitude: what it rounds to depends on where its arrays lie in memory
    camera_u, camera_v = camera.at(from_x, from_y)
    residual = float(np.sqrt((u - camera_u) ** 2 + (v - camera_v) ** 2).mean())

    scale = width * seconds
    edges, sectors = np.array(SPEEDS, np.float64) * scale, np.float32(bins / 360)
    counts, directions = compiled(_histograms)(size.ravel(), degrees.ravel(), edges.astype(np.float32), sectors, bins)
    speeds, total = counts / size.size, directions.sum()
    row = [
        *(mean / scale, spread / scale, cv2.mean(dx)[0] / scale, cv2.mean(dy)[0] / scale),
        *(camera.dx / scale, camera.dy / scale, camera.zoom / seconds, float(np.degrees(camera.rotation)) / seconds),
        *(residual / scale, _divergence(field) / seconds, float(trust.mean())),
        *speeds,
        *(directions / total if total > 0 else directions),
    ]
    return np.array(row, dtype=np.float32)


def _step(field: Field, count: int) -> int:
    """The step at which about ``count`` points of a grid cover the field."""
    return max(1, round(math.sqrt(field.shape[0] * field.shape[1] / count)))


@lru_cache(maxsize=16)
def _grid(height: int, width: int, step: int) -> tuple[Index, Index]:
    """Rows and columns of the points of a grid, int64 ``[h, w]`` each."""
    y, x = np.mgrid[step // 2 : height : step, step // 2 : width : step]
    return y, x
