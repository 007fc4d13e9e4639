"""What is seen: sea and sky, calm or in a storm, as a still image and as the frames of a video."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.demo.truth import FRAME_RATE, Truth, generator

Pixels: TypeAlias = npt.NDArray[np.uint8]
WIDTH, HEIGHT = 160, 120
IMAGE_WIDTH, IMAGE_HEIGHT = 256, 192
PAN_MARGIN = 104


def _scenery(rng: np.random.Generator, weather: str | None, hue: float, width: int, height: int) -> Pixels:
    """Paint sea and sky in colours around ``hue`` (0 to 1): calm, stormy, or in fog (``None``). BGR."""
    import cv2

    hsv = np.empty((height, width, 3), dtype=np.uint8)
    hsv[..., 0] = int(hue * 180) % 180
    hsv[..., 1] = int(rng.integers(50, 140))
    hsv[..., 2] = np.linspace(rng.integers(110, 190), rng.integers(60, 150), height).astype(np.uint8)[:, None]
    canvas = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR).astype(np.float32)
    grain = cv2.GaussianBlur(rng.normal(0.0, 1.0, (height, width)).astype(np.float32), (0, 0), 2.5)
    canvas += (grain * (18.0 / grain.std()))[..., None]
    if weather == "calm":
        _paint_calm(canvas, rng)
    elif weather == "storm":
        _paint_storm(canvas, rng)
    else:
        canvas = 150.0 + 0.25 * (cv2.GaussianBlur(canvas, (0, 0), 3.0) - 110.0)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _paint_calm(canvas: npt.NDArray[np.float32], rng: np.random.Generator) -> None:
    import cv2

    height, width = canvas.shape[:2]
    rows = np.arange(height, dtype=np.float32)[:, None]
    bend = rng.uniform(2, 5) * np.sin(np.arange(width, dtype=np.float32) / rng.uniform(25, 45))
    canvas += 14.0 * np.sin((rows + bend) * rng.uniform(0.25, 0.45))[..., None]
    for _ in range(max(2, width * height // 14_000)):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        tint = rng.uniform(170, 250, 3).tolist()
        cv2.circle(canvas, centre, int(rng.integers(10, 22)), tint, -1, cv2.LINE_AA)


def _paint_storm(canvas: npt.NDArray[np.float32], rng: np.random.Generator) -> None:
    import cv2

    height, width = canvas.shape[:2]
    canvas *= 0.85
    slant = rng.uniform(0.4, 0.9)
    for _ in range(width * height // 220):
        x, y, length = int(rng.integers(-20, width)), int(rng.integers(-20, height)), int(rng.integers(8, 26))
        tint = rng.uniform(140, 230, 3).tolist()
        cv2.line(canvas, (x, y), (x + int(slant * length), y + length), tint, 1, cv2.LINE_AA)
    for _ in range(max(2, width * height // 14_000)):
        steps = np.cumsum(rng.integers((-14, 6), (15, 18), (7, 2)), axis=0)
        bolt = (steps + rng.integers((0, -20), (width, height // 2))).astype(np.int32)
        cv2.polylines(canvas, [bolt], isClosed=False, color=(235.0, 245.0, 250.0), thickness=2, lineType=cv2.LINE_AA)


def _noisy(picture: npt.NDArray[Any], rng: np.random.Generator, sigma: float) -> Pixels:
    return np.clip(picture + rng.normal(0.0, sigma, picture.shape), 0, 255).astype(np.uint8)


def jpeg(truth: Truth, seed: int) -> bytes:
    """The still image, as a JPEG file; cut after 100 bytes where it is to be broken."""
    import cv2

    rng = generator(seed, truth.sample_id, "image")
    weather = None if truth.image == "obscured" else truth.weather
    picture = _scenery(rng, weather, rng.uniform(), IMAGE_WIDTH, IMAGE_HEIGHT)
    encoded = cv2.imencode(".jpg", _noisy(picture, rng, rng.uniform(6, 16)), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    content = encoded.tobytes()
    return content[:100] if truth.image == "broken" else content


def shots(truth: Truth, seed: int) -> Iterator[Pixels]:
    """Yield the frames of the video, BGR: two shots of other colours, both panned the same way."""
    import cv2

    rng = generator(seed, truth.sample_id, "video")
    weather = None if truth.video == "obscured" else truth.weather
    hue, speed = rng.uniform(), rng.uniform(24, 60)
    motion = {"calm": (-1.0, 0.0), "storm": (1.0, 0.0)}.get(weather or "", (0.0, rng.choice((-1.0, 1.0))))
    for shot, frames in enumerate((truth.cut, truth.frames - truth.cut)):
        wide = _scenery(rng, weather, hue + 0.45 * shot, WIDTH + PAN_MARGIN, HEIGHT + PAN_MARGIN)
        wide = np.clip(wide.astype(np.int16) + (-25, 35)[shot], 0, 255).astype(np.uint8)
        middle = np.array([wide.shape[1], wide.shape[0]]) / 2
        for frame in range(frames):
            moved = speed * (frame - frames / 2) / float(FRAME_RATE)
            x, y = middle - np.array(motion) * moved + rng.uniform(-0.4, 0.4, 2)
            window = cv2.getRectSubPix(wide, (WIDTH, HEIGHT), (float(x), float(y)))
            yield _noisy(window, rng, 4.0)
