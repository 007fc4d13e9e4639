"""Sample rate and channels: what every audio step shares."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from features.errors import Reason, SampleError
from features.types import AudioClip

Channels: TypeAlias = Literal["mean", "first"]
CHANNELS: tuple[Channels, ...] = ("mean", "first")


def require_finite(clip: AudioClip) -> None:
    """Raise ``SampleError`` (``non_finite``) when a sample of ``clip`` is NaN or infinite."""
    finite = np.isfinite(clip.samples)
    if not finite.all():
        first = int(np.flatnonzero(~finite.all(axis=0))[0])
        raise SampleError(
            Reason.NON_FINITE,
            f"audio: got NaN or infinity (first at sample {first} of {clip.samples.shape[1]}), allowed: finite samples",
        )


def mono(clip: AudioClip, channels: Channels = "mean") -> npt.NDArray[np.float32]:
    """Return one signal, float32 ``[N]``: the mean of the channels, or the first one. Never writes into the clip."""
    if channels not in CHANNELS:
        raise ValueError(f"channels: got {channels!r}, allowed: {' or '.join(CHANNELS)}")
    if channels == "first" or len(clip.samples) == 1:
        first: npt.NDArray[np.float32] = clip.samples[0]
        return first
    mixed: npt.NDArray[np.float32] = clip.samples.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mixed


def resample(clip: AudioClip, sample_rate: int) -> AudioClip:
    """Return ``clip`` at ``sample_rate`` Hz, same channels and start; the very same object when the rate is equal.

    The SoX resampler at quality "HQ", band-limited. The new length is the old one times the ratio of the rates, to the
    nearest sample. Raises ``SampleError`` (``non_finite``), since one NaN would spread over its neighbours.
    """
    if sample_rate < 1:
        raise ValueError(f"sample_rate: got {sample_rate}, allowed: >= 1")
    if sample_rate == clip.sample_rate:
        return clip
    if not clip.samples.shape[1]:
        return AudioClip(samples=clip.samples, sample_rate=sample_rate, start_ns=clip.start_ns)
    import soxr

    require_finite(clip)
    frames = np.ascontiguousarray(clip.samples.T)
    changed = soxr.resample(frames, clip.sample_rate, sample_rate, quality="HQ")
    return AudioClip(samples=np.ascontiguousarray(changed.T), sample_rate=sample_rate, start_ns=clip.start_ns)
