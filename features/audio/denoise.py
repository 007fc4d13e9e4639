"""Noise reduction by short-time spectral attenuation: a gain between a floor and one for every bin of every frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import numpy as np

from features.audio.resample import require_finite
from features.types import AudioClip, Stream

if TYPE_CHECKING:
    import torch

Method: TypeAlias = Literal["wiener", "spectral_gate"]

_OVERLAP = 4
"""Frames over each sample: squared Hann windows a quarter apart add up to the same everywhere."""

_WINDOW_SUM = 1.5
"""What they add up to."""

_CLEAN = 1e10
"""Ratio of a bin's power to the noise's beyond which nothing is gained; where there is no noise at all, it is this."""

_PACK = 1 << 24
"""Samples of overlapping frames held at a time, unless a single clip needs more."""


@dataclass(frozen=True, kw_only=True)
class Denoise:
    """Attenuate steady noise. Every channel by itself; same length, rate, clock; values beyond ±1 are left beyond ±1.

    The noise power of a bin is the ``quantile`` of its power over the clip's frames, divided by ``-ln(1 - quantile)``:
    the power of Gaussian noise is exponentially distributed, so that is its mean, provided that in a share
    ``quantile`` of the frames the bin holds little else. Noise that comes and goes is not followed.

    ``method``:

    - "wiener": the Wiener gain ``xi / (1 + xi)`` with the decision-directed estimate of the a-priori signal-to-noise
      ratio, ``smoothing`` being its weight on the frame before (Ephraim and Malah, "Speech enhancement using a minimum
      mean-square error short-time spectral amplitude estimator", IEEE ASSP 32, 1984).
    - "spectral_gate": bins less than ``threshold_db`` above the noise are closed, the others open, and the mask is
      averaged over ``gate_frames`` frames and ``gate_bins`` bins (as in Sainburg's ``noisereduce``).

    ``gain_floor_db``: the least gain, which keeps a bed of noise rather than musical tones. ``frame_ms``: frame length;
    frames overlap by three quarters. Raises ``SampleError`` (``non_finite``) for NaN or infinity.
    """

    name: ClassVar[str] = "audio.denoise"
    stream: ClassVar[Stream] = "audio"
    numerics: ClassVar[tuple[str, ...]] = ()

    method: Method = "wiener"
    frame_ms: float = 48.0
    quantile: float = 0.2
    gain_floor_db: float = -20.0
    smoothing: float = 0.9
    threshold_db: float = 5.0
    gate_frames: int = 5
    gate_bins: int = 3

    def __post_init__(self) -> None:
        checks = (
            ("method", self.method, self.method in ("wiener", "spectral_gate"), "wiener or spectral_gate"),
            ("frame_ms", self.frame_ms, 1 <= self.frame_ms <= 1000, "1 to 1000 ms"),
            ("quantile", self.quantile, 0 < self.quantile < 1, "between 0 and 1, both excluded"),
            ("gain_floor_db", self.gain_floor_db, -120 <= self.gain_floor_db < 0, "from -120 to below 0 dB"),
            ("smoothing", self.smoothing, 0 <= self.smoothing < 1, "from 0 to below 1"),
            ("threshold_db", self.threshold_db, math.isfinite(self.threshold_db), "a finite number of dB"),
            ("gate_frames", self.gate_frames, self.gate_frames >= 1 and self.gate_frames % 2 == 1, "odd, >= 1"),
            ("gate_bins", self.gate_bins, self.gate_bins >= 1 and self.gate_bins % 2 == 1, "odd, >= 1"),
        )
        for option, got, good, allowed in checks:
            if not good:
                raise ValueError(f"{self.name}: {option}: got {got!r}, allowed: {allowed}")

    def frame_length(self, sample_rate: int) -> int:
        """Samples of a frame: ``frame_ms``, up to the next ``4 * 2**n``, ``4 * 3 * 2**n`` or ``4 * 5 * 2**n``."""
        least = max(2, math.ceil(self.frame_ms * sample_rate / 1000 / _OVERLAP))
        return _OVERLAP * min(odd << max(0, math.ceil(math.log2(least / odd))) for odd in (1, 3, 5))

    def prepare(self, batch: Sequence[AudioClip], device: torch.device) -> list[AudioClip]:
        """Return one denoised clip for each of ``batch``, same shape, rate and start; 0 samples stay as they are."""
        import torch

        for clip in batch:
            require_finite(clip)
        results = list(batch)
        with torch.inference_mode():
            for group in self._groups(batch):
                for number, samples in zip(group, self._clean([batch[n] for n in group], device), strict=True):
                    clip = batch[number]
                    results[number] = AudioClip(samples=samples, sample_rate=clip.sample_rate, start_ns=clip.start_ns)
        return results

    def _groups(self, batch: Sequence[AudioClip]) -> Iterator[list[int]]:
        """Clips of one rate and of lengths within a factor of two, packed as far as memory goes."""
        filled = [number for number, clip in enumerate(batch) if clip.samples.shape[1]]
        order = sorted(filled, key=lambda number: (batch[number].sample_rate, batch[number].samples.shape[1], number))
        group: list[int] = []
        signals = 0
        for number in order:
            clip = batch[number]
            channels, length = clip.samples.shape
            if group:
                first = batch[group[0]]
                fits = (signals + channels) * length * _OVERLAP <= _PACK and length <= 2 * first.samples.shape[1]
                if first.sample_rate != clip.sample_rate or not fits:
                    yield group
                    group, signals = [], 0
            group.append(number)
            signals += channels
        if group:
            yield group

    def _clean(
        self, clips: Sequence[AudioClip], device: torch.device
    ) -> list[np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
        import torch

        frame = self.frame_length(clips[0].sample_rate)
        hop = frame // _OVERLAP
        lead = frame - hop
        lengths = [clip.samples.shape[1] for clip in clips for _ in clip.samples]
        frames = [-(-length // hop) + _OVERLAP - 1 for length in lengths]
        packed = np.zeros((len(lengths), (max(frames) - 1) * hop + frame), dtype=np.float32)
        for row, signal in zip(packed, (signal for clip in clips for signal in clip.samples), strict=True):
            row[lead : lead + len(signal)] = signal
        window = (
            (0.5 - 0.5 * torch.cos(2 * math.pi * torch.arange(frame, dtype=torch.float64) / frame)).float().to(device)
        )
        pieces = torch.from_numpy(packed).to(device).unfold(1, frame, hop).transpose(0, 1)
        spectrum = torch.fft.rfft(pieces * window)
        spectrum *= self._gain(_power(spectrum), frames)
        pieces = torch.fft.irfft(spectrum, n=frame) * (window / _WINDOW_SUM)
        out = torch.zeros((len(lengths), max(frames) + _OVERLAP - 1, hop), dtype=torch.float32, device=device)
        for quarter in range(_OVERLAP):
            out[:, quarter : quarter + max(frames)] += pieces[..., quarter * hop : (quarter + 1) * hop].transpose(0, 1)
        flat = out.reshape(len(lengths), -1)[:, lead:].cpu().numpy()
        results, row = [], 0
        for clip in clips:
            channels, length = clip.samples.shape
            results.append(flat[row : row + channels, :length].copy())
            row += channels
        return results

    def _gain(self, power: torch.Tensor, frames: Sequence[int]) -> torch.Tensor:
        """Gains in [floor, 1] for ``power`` ``[T, signals, bins]``; signal ``s`` fills ``frames[s]`` frames."""
        import torch

        noise = torch.stack([self._noise(power[:count, row]) for row, count in enumerate(frames)])
        ratio = (power / noise.clamp_(min=torch.finfo(torch.float32).tiny)).clamp_(max=_CLEAN)
        return self._wiener(ratio) if self.method == "wiener" else self._gate(ratio, frames)

    def _noise(self, power: torch.Tensor) -> torch.Tensor:
        """Mean noise power of each bin, from the frames that lie wholly inside the signal where there are any."""
        inside = power[_OVERLAP - 1 : len(power) - _OVERLAP + 1]
        rows = inside if len(inside) else power
        rank = math.floor(self.quantile * (len(rows) - 1))
        return rows.sort(dim=0).values[rank] / -math.log1p(-self.quantile)

    def _wiener(self, ratio: torch.Tensor) -> torch.Tensor:
        import torch

        floor = 10 ** (self.gain_floor_db / 20)
        least = floor / (1 - floor)
        fresh = (ratio - 1).clamp_(min=0).mul_(1 - self.smoothing)
        gain = torch.empty_like(ratio)
        before = torch.ones_like(ratio[0])
        for now, posterior, out in zip(fresh.unbind(0), ratio.unbind(0), gain.unbind(0), strict=True):
            prior = before.mul_(self.smoothing).add_(now).clamp_(min=least)
            torch.div(prior, prior + 1, out=out)
            before = torch.square(out).mul_(posterior)
        return gain

    def _gate(self, ratio: torch.Tensor, frames: Sequence[int]) -> torch.Tensor:
        import torch

        floor = 10 ** (self.gain_floor_db / 20)
        is_open = (ratio > 10 ** (self.threshold_db / 10)).float()
        for row, count in enumerate(frames):
            is_open[count:, row] = 0
        kernel, pad = (self.gate_frames, self.gate_bins), (self.gate_frames // 2, self.gate_bins // 2)
        mask = torch.nn.functional.avg_pool2d(is_open.transpose(0, 1).unsqueeze(1), kernel, 1, pad).squeeze(1)
        return mask.transpose(0, 1).mul(1 - floor).add_(floor)


def _power(spectrum: torch.Tensor) -> torch.Tensor:
    import torch

    real, imaginary = torch.view_as_real(spectrum).square().unbind(-1)
    return real + imaginary
