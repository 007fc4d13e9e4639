"""Media of every kind that are made of a seed: the same seed, the same bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from features.time import ALWAYS, NS_PER_SECOND, Span
from features.types import AudioClip, Device, Image, Text, TextSegment, VideoClip

CPU: Device = "cpu"
SHIFT = 12_345_678_901


def audio(seed: int, start_ns: int = 0) -> AudioClip:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((2, 9000 + 1700 * seed)).astype(np.float32)
    return AudioClip(samples=np.float32(0.2) * noise, sample_rate=16_000, start_ns=start_ns)


def framed_by_silence(seed: int, start_ns: int = 0) -> AudioClip:
    clip = audio(seed, start_ns)
    quiet = np.zeros((2, 4000), np.float32)
    return AudioClip(
        samples=np.concatenate([quiet, clip.samples, quiet], axis=1), sample_rate=16_000, start_ns=start_ns
    )


def image(seed: int, start_ns: int | None = None) -> Image:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (40 + 9 * seed, 64 - 5 * seed, 3), dtype=np.uint8)
    return Image(pixels=pixels, span=ALWAYS if start_ns is None else Span(start_ns, start_ns + NS_PER_SECOND))


def timed_image(seed: int, start_ns: int = 0) -> Image:
    return image(seed, start_ns)


def text(seed: int, start_ns: int = 0) -> Text:
    words = (*["the", "mill", "ground", "wheat", "and", "rye"], "Unbekannt", f"word{seed}")
    return Text(
        tuple(
            TextSegment(word, Span(start_ns + k * 100, start_ns + k * 100 + 80))
            for k, word in enumerate(words[seed:] + words[:seed])
        )
    )


def video(channels: tuple[int, ...]) -> Callable[..., VideoClip]:
    def make(seed: int, start_ns: int = 0) -> VideoClip:
        rng = np.random.default_rng(seed)
        shots = []
        for length in (14, 12 + seed, 17):
            blocks = rng.integers(0, 256, (6, 8, *channels)).repeat(8, axis=0).repeat(8, axis=1)
            grain = rng.integers(0, 256, blocks.shape)
            still = (6 * blocks + grain + np.roll(grain, (1, 1), (0, 1))) // 8  # cuts for one step, texture for another
            shots += [np.roll(still, k, axis=1) for k in range(length)]
        starts = start_ns + np.cumsum(rng.integers(30, 50, len(shots))) * 1_000_000
        ends = np.append(starts[1:], starts[-1] + 40_000_000)
        return VideoClip(pixels=np.stack(shots).astype(np.uint8), start_ns=starts, end_ns=ends)

    return make


def scene() -> np.ndarray:
    """A still picture full of corners, luma."""
    blocks = np.random.default_rng(9).integers(0, 256, (40, 52), dtype=np.uint8)
    return blocks.repeat(7, axis=0).repeat(7, axis=1)


def pan(seed: int, start_ns: int = 0) -> VideoClip:
    """The scene as a camera sees it that moves, and at the end something else."""
    starts = start_ns + np.cumsum([40_000_000, 35_000_000 + seed, 50_000_000])
    whole = scene()
    frames = [whole[k * 9 : k * 9 + 96, 11 * k + seed : 11 * k + seed + 128] for k in range(2)]
    frames.append(whole[::-1, ::-1][:96, :128] // 2)
    return VideoClip(pixels=np.stack(frames), start_ns=starts, end_ns=np.append(starts[1:], starts[-1:] + 40_000_000))


def no_frames(*shape: int) -> VideoClip:
    nothing = np.zeros(0, np.int64)
    return VideoClip(pixels=np.zeros((0, 48, 64, *shape), np.uint8), start_ns=nothing, end_ns=nothing)
