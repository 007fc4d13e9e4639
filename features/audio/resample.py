"""Sample rate and channels: what every audio step shares."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from features.errors import Reason, SampleError
from features.types import AudioClip

Channels: TypeAlias = Literal["mean", "first", "each"]
CHANNELS: tuple[Channels, ...] = ("mean", "first", "each")


def require_finite(clip: AudioClip) -> None:
    """Raise ``SampleError`` (``non_finite``) when a sample of ``clip`` is NaN or infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.vdot(clip.samples, clip.samples)):  # one pass; it may overflow, so a no is looked at again
            return
    finite = np.isfinite(clip.samples)
    if not finite.all():
        first = int(np.flatnonzero(~finite.all(axis=0))[0])
        raise SampleError(
            Reason.NON_FINITE,
            f"audio: got NaN or infinity (first at sample {first} of {clip.samples.shape[1]}), allowed: finite samples",
        )


def mono(clip: AudioClip, channels: Literal["mean", "first"] = "mean") -> npt.NDArray[np.float32]:
    """Return one signal, float32 ``[N]``: the mean of the channels, or the first one. Never writes into the clip."""
    if channels not in ("mean", "first"):
        raise ValueError(f"channels: got {channels!r}, allowed: mean or first")
    if channels == "first" or len(clip.samples) == 1:
        first: npt.NDArray[np.float32] = clip.samples[0]
        return first
    mixed: npt.NDArray[np.float32] = clip.samples.mean(axis=0, dtype=np.float64).astype(np.float32)
    return mixed


def select(clip: AudioClip, channels: Channels, count: int, who: str) -> AudioClip:
    """Return ``clip`` with the channels that a step wants: one ("mean", "first"), or all of exactly ``count`` ("each").

    ``who`` is named in errors. Raises ``SampleError``: ``non_finite``, or ``unsupported_format`` for another number of
    channels than "each" expects (one channel is not doubled, and none is left out).
    """
    require_finite(clip)
    if channels == "each":
        if len(clip.samples) != count:
            raise SampleError(
                Reason.UNSUPPORTED_FORMAT,
                f"{who}: got {len(clip.samples)} channels, allowed: {count}, since channels is 'each'; cure: set "
                "channel_count, or channels to mean or first",
            )
        return clip
    if len(clip.samples) == 1:
        return clip
    return AudioClip(samples=mono(clip, channels)[None, :], sample_rate=clip.sample_rate, start_ns=clip.start_ns)


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
