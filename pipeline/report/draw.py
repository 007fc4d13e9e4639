"""Numbers as pixels: thumbnails, spectrograms, flow in colours, features over time. Arrays in, arrays out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from features.types import AudioClip

Pixels = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
_TINT = 0.6
"""How much of a frame the colours of its flow hide where it is strongest."""
RANGE_DB = 70.0
"""What a spectrogram shows below its loudest point."""


def thumbnail(pixels: Pixels, side: int) -> Pixels:
    """The same picture with its longer side at most ``side``; a side of one pixel at least."""
    import cv2

    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def spectrogram_db(clip: AudioClip, width: int) -> Float32:
    """Power in dB of windows of some 32 ms, float32 ``[bins, at most width]``, low frequencies first; mean of channels.

    Full scale is 0 dB. A clip that is shorter than one window is filled up with silence.
    """
    signal = clip.samples.mean(axis=0)
    size = 1 << max(5, round(math.log2(clip.sample_rate * 0.032)))
    if len(signal) < size:
        signal = np.pad(signal, (0, size - len(signal)))
    hop = max(1, size // 4, -(-(len(signal) - size) // max(1, width - 1)))
    frames = np.lib.stride_tricks.sliding_window_view(signal, size)[::hop]
    window = np.hanning(size).astype(np.float32)
    spectrum = np.fft.rfft(frames * window, axis=1) / (window.sum() / 2)
    power: Float32 = (10 * np.log10(np.maximum(np.abs(spectrum) ** 2, 1e-12))).astype(np.float32).T
    return power


def heat(values: Float32, low: float, high: float) -> Pixels:
    """Values ``[H, W]`` as colours (magma), RGB; the first row at the bottom."""
    import cv2

    level = np.clip((values - low) / max(high - low, 1e-9) * 255, 0, 255).astype(np.uint8)
    shown: Any = cv2.applyColorMap(level[::-1], cv2.COLORMAP_MAGMA)
    return np.asarray(cv2.cvtColor(shown, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def envelope(clip: AudioClip, points: int) -> tuple[list[float], list[float]]:
    """Lowest and highest sample of each of at most ``points`` stretches; mean of channels."""
    signal = clip.samples.mean(axis=0)
    if not len(signal):
        return [], []
    starts = np.unique(np.linspace(0, len(signal), min(points, len(signal)), endpoint=False).astype(np.int64))
    return np.minimum.reduceat(signal, starts).tolist(), np.maximum.reduceat(signal, starts).tolist()


def flow_colours(field: Float32, limit: float) -> Pixels:
    """A flow field ``[H, W, 2]`` as colours: hue is the direction, brightness the length up to ``limit`` pixels."""
    import cv2

    size, degrees = cv2.cartToPolar(
        np.ascontiguousarray(field[..., 0]), np.ascontiguousarray(field[..., 1]), angleInDegrees=True
    )
    strength = np.clip(size / max(limit, 1e-6), 0, 1)
    hsv = np.stack([degrees / 2, np.full_like(degrees, 255), strength * 255], axis=-1).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), dtype=np.uint8)


def flow_over(frame: Pixels, field: Float32, limit: float, zoom: int = 2) -> Pixels:
    """A frame ``[H, W, 3]``, greyed, with its flow field over it in colours and as arrows."""
    import cv2

    height, width = field.shape[:2]
    strength = np.clip(np.linalg.norm(field, axis=2) / max(limit, 1e-6), 0, 1)[..., None]
    grey = frame.mean(axis=2, keepdims=True).repeat(3, axis=2)
    mixed = grey * (1 - _TINT * strength) + flow_colours(field, limit) * _TINT * strength
    large: Any = cv2.resize(mixed.astype(np.uint8), (width * zoom, height * zoom), interpolation=cv2.INTER_LINEAR)
    step = max(12, min(height, width) // 9)
    for y in range(step // 2, height, step):
        for x in range(step // 2, width, step):
            dx, dy = (float(value) for value in field[y, x])
            if math.hypot(dx, dy) >= 0.15 * limit:
                reach = 0.9 * step / max(limit, 1e-6)
                tip = (round((x + dx * reach) * zoom), round((y + dy * reach) * zoom))
                cv2.arrowedLine(large, (x * zoom, y * zoom), tip, (255, 255, 255), 1, cv2.LINE_AA, tipLength=0.35)
    return np.asarray(large, dtype=np.uint8)


def flow_wheel(size: int) -> Pixels:
    """The key to ``flow_colours``, RGBA: a disc whose centre is no motion and whose rim is ``limit``."""
    axis = np.linspace(-1, 1, size, dtype=np.float32)
    field = np.stack(np.meshgrid(axis, axis), axis=-1)
    inside = np.linalg.norm(field, axis=2) <= 1
    return np.dstack([flow_colours(field, 1.0), (inside * 255).astype(np.uint8)])


def over_time(
    values: Float32, start_ns: npt.NDArray[np.int64], end_ns: npt.NDArray[np.int64], edges: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Which row is drawn in each of the columns between ``edges`` (ns): its index, -1 where there is none.

    Rows are in order of start; where several cover the middle of a column, the one that starts last is drawn.
    """
    middle = edges[:-1] + (edges[1:] - edges[:-1]) // 2
    if not len(values):
        return np.full(len(middle), -1, dtype=np.int64)
    row = np.searchsorted(start_ns, middle, side="right") - 1
    held = (row >= 0) & (np.maximum(end_ns, start_ns + 1)[np.maximum(row, 0)] > middle)
    return np.where(held, row, -1).astype(np.int64)


def feature_strip(values: Float32, columns: npt.NDArray[np.int64], lines: int = 24) -> Pixels:
    """Feature rows ``[T, D]`` over time, RGBA ``[lines, len(columns), 4]``; transparent where ``columns`` is -1.

    At most ``lines`` of the D numbers are drawn, evenly chosen. Each is scaled by its own lowest and highest value;
    where nothing changes over time, by those of all numbers.
    """
    import cv2

    width = values.shape[1] if values.ndim == 2 else 0
    shown = columns >= 0
    if not width or not shown.any():
        return np.zeros((min(lines, max(1, width)), len(columns), 4), dtype=np.uint8)
    chosen = np.unique(np.linspace(0, width - 1, min(lines, width)).round().astype(np.int64))
    picked = values[:, chosen]
    used = picked[np.unique(columns[shown])]
    low, high = used.min(axis=0), used.max(axis=0)
    if np.array_equal(low, high):  # nothing changes over time: the numbers are set against each other
        low, high = used.min(keepdims=True), used.max(keepdims=True)
    level = np.where(high > low, (picked - low) / np.where(high > low, high - low, 1), 0.5)
    drawn = (np.clip(level[np.maximum(columns, 0)].T, 0, 1) * 255).astype(np.uint8)
    colours: Any = cv2.cvtColor(cv2.applyColorMap(drawn, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
    alpha = np.broadcast_to((shown * 255).astype(np.uint8), drawn.shape)
    return np.dstack([colours, alpha])
