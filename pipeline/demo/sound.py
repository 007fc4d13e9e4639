"""What is heard: high chirps by day, low hoots by night."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.demo.truth import Truth, generator

SAMPLE_RATE = 16_000


def sound_of(truth: Truth, seed: int) -> npt.NDArray[np.float32]:
    """Chirps of 2,200 to 3,400 Hz by day, hoots of 300 to 700 Hz by night, in noise. float32 ``[N]``."""
    rng = generator(seed, truth.sample_id, "audio")
    n = int(truth.duration * SAMPLE_RATE)
    rumble = np.cumsum(rng.normal(0.0, 1.0, n))
    rumble -= np.convolve(rumble, np.full(800, 1 / 800), mode="same")
    sound = rng.normal(0.0, 1.0, n) + rumble / rumble.std()
    sound *= rng.uniform(0.03, 0.07)
    if truth.audio != "obscured":
        low, high = {"day": (2_200.0, 3_400.0), "night": (300.0, 700.0)}[truth.time]
        at = int(rng.integers(0, 2_000))
        while at < n:
            length = int(rng.integers(1_600, 4_000))
            begin, end = rng.uniform(low, high, 2)
            phase = 2 * np.pi * np.cumsum(np.linspace(begin, end, length)) / SAMPLE_RATE
            call = rng.uniform(0.12, 0.3) * np.hanning(length) * np.sin(phase)
            sound[at : at + length] += call[: n - at]
            at += length + int(rng.integers(1_000, 5_000))
    clipped: npt.NDArray[np.float32] = np.clip(sound, -0.95, 0.95).astype(np.float32)
    return clipped
