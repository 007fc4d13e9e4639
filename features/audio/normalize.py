"""``audio.normalize``: one level for all clips."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from features.audio.frames import refuse
from features.audio.resample import require_finite
from features.errors import Reason, SampleError
from features.types import AudioClip, Device, Stream

_TARGETS = {"peak": -1.0, "rms": -20.0, "loudness": -23.0}
_BLOCK_SECONDS = 0.4
_CHANNELS = 5


@dataclass(frozen=True, kw_only=True)
class Normalize:
    """Scale a clip, all channels by the same factor, so that its level is ``target``; same length, rate and clock.

    ``method``: "peak" is the largest absolute sample and "rms" the root mean square over all channels, both in dB of
    full scale; "loudness" is the integrated loudness after EBU R128 (ITU-R BS.1770-4, by pyloudnorm) in LUFS, for 0.4 s
    or more of at most 5 channels. ``target``: ``None`` is -1 dB, -20 dB or -23 LUFS. No sample is ever clipped. Where
    the peak would lie above full scale, ``over`` says what happens: "keep" leaves it there (samples are floats),
    "reduce" scales to a peak of full scale instead, which misses the target, "refuse" raises ``SampleError``
    (``too_large``). A clip without a level (all samples 0, or for "loudness" all of it below the gate of -70 LUFS) is
    refused (``silent``), or kept as it is with ``silent="keep"``; 0 samples stay as they are.
    Raises ``ValueError`` for options that do not fit, ``SampleError`` also for NaN or infinity (``non_finite``), too
    short a clip (``empty``) and too many channels (``unsupported_format``).
    """

    name: ClassVar[str] = "audio.normalize"
    stream: ClassVar[Stream] = "audio"
    numerics: ClassVar[tuple[str, ...]] = ("pyloudnorm",)

    method: Literal["peak", "rms", "loudness"] = "loudness"
    target: float | None = None
    over: Literal["keep", "reduce", "refuse"] = "keep"
    silent: Literal["refuse", "keep"] = "refuse"

    def __post_init__(self) -> None:
        level = self.target is None or -100 <= self.target <= 20
        refuse(
            self.name,
            [
                ("method", self.method, self.method in _TARGETS, " or ".join(_TARGETS)),
                ("target", self.target, level, "-100 to 20 dB (or LUFS), or null"),
                ("over", self.over, self.over in ("keep", "reduce", "refuse"), "keep or reduce or refuse"),
                ("silent", self.silent, self.silent in ("refuse", "keep"), "refuse or keep"),
            ],
        )

    def prepare(self, batch: Sequence[AudioClip], device: Device) -> list[AudioClip]:
        """Return one scaled clip for each of ``batch``."""
        del device
        return [self._scaled(clip) if clip.samples.shape[1] else clip for clip in batch]

    def _scaled(self, clip: AudioClip) -> AudioClip:
        require_finite(clip)
        level = self.level(clip)
        if level == -math.inf:
            if self.silent == "keep":
                return clip
            raise SampleError(
                Reason.SILENT,
                f"{self.name}: got a clip without a {self.method} level, allowed: sound; cure: record it again, or set "
                "silent to keep",
            )
        target = _TARGETS[self.method] if self.target is None else self.target
        factor = 10 ** ((target - level) / 20)
        peak = _peak(clip) * factor
        if peak > 1 and self.over == "refuse":
            raise SampleError(
                Reason.TOO_LARGE,
                f"{self.name}: the peak would be {20 * math.log10(peak):+.1f} dB of full scale, allowed: 0; cure: a "
                "lower "
                "target, or over: keep or reduce",
            )
        if peak > 1 and self.over == "reduce":
            factor /= peak
        return AudioClip(
            samples=clip.samples * np.float32(factor), sample_rate=clip.sample_rate, start_ns=clip.start_ns
        )

    def level(self, clip: AudioClip) -> float:
        """Level of a clip by this method, dB of full scale or LUFS; minus infinity where it has none."""
        if self.method == "loudness":
            return self._loudness(clip)
        found = _peak(clip) if self.method == "peak" else _rms(clip)
        return 20 * math.log10(found) if found else -math.inf

    def _loudness(self, clip: AudioClip) -> float:
        import pyloudnorm

        channels, length = clip.samples.shape
        if channels > _CHANNELS:
            raise SampleError(
                Reason.UNSUPPORTED_FORMAT,
                f"{self.name}: got {channels} channels, allowed: {_CHANNELS} for loudness; cure: audio.channels "
                "before it",
            )
        if length < _BLOCK_SECONDS * clip.sample_rate:
            raise SampleError(
                Reason.EMPTY,
                f"{self.name}: got {length / clip.sample_rate:.3f} s, allowed: {_BLOCK_SECONDS} s or more for "
                "loudness; "
                "cure: method rms or peak",
            )
        with np.errstate(divide="ignore"):  # of blocks that are silent
            meter = pyloudnorm.Meter(clip.sample_rate, block_size=_BLOCK_SECONDS)
            return float(meter.integrated_loudness(clip.samples.T.astype(np.float64)))


def _peak(clip: AudioClip) -> float:
    return max(float(clip.samples.max()), -float(clip.samples.min()))


def _rms(clip: AudioClip) -> float:
    squares = sum(float(np.einsum("i,i->", signal, signal, dtype=np.float64)) for signal in clip.samples)
    return math.sqrt(squares / clip.samples.size)
