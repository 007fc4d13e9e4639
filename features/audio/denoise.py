"""Noise reduction by short-time spectral attenuation: a gain between a floor and one for every bin of every frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from features.audio import gains
from features.audio.frames import refuse
from features.audio.noise import MinimumTracker, PresenceTracker, Quantile
from features.audio.overlap import Adder, Cutter, Samples, Shape
from features.audio.resample import mono, require_finite, resample
from features.base import State, WeightsRef
from features.errors import StateError
from features.types import AudioClip, Device, Stream

if TYPE_CHECKING:
    import torch

Method: TypeAlias = Literal["wiener", "mmse_lsa", "spectral_subtraction", "spectral_gate"]
Noise: TypeAlias = Literal["quantile", "leading", "mmse_spp", "minimum", "profile"]
Power: TypeAlias = npt.NDArray[np.float32]

METHODS: tuple[Method, ...] = ("wiener", "mmse_lsa", "spectral_subtraction", "spectral_gate")
NOISES: tuple[Noise, ...] = ("quantile", "leading", "mmse_spp", "minimum", "profile")

_BLOCK, _GPU_BLOCK = 64, 4096
"""Frames transformed at a time; on CPU they stay in the core's cache."""

_PIECE = 1 << 20
"""Samples of a clip that are fed at a time."""

_START_SECONDS = 1.0
"""What trackers begin with is a quantile over so much of the beginning."""


@dataclass(frozen=True, kw_only=True)
class Denoise:
    """Attenuate noise. Every channel by itself; same length, rate, clock; values beyond ±1 are left beyond ±1.

    ``method``, how a bin's gain follows from its power and the noise's (``features/audio/gains.py``):

    - "wiener": the Wiener gain with the decision-directed estimate of the a-priori signal-to-noise ratio, ``smoothing``
      being its weight on the frame before.
    - "mmse_lsa": the log-spectral amplitude estimator weighed by speech presence (OM-LSA), with the same ``smoothing``.
    - "spectral_subtraction": ``over_subtraction`` times the noise power is taken from the power of the bin.
    - "spectral_gate": bins less than ``threshold_db`` above the noise are closed, the others open, and the mask is
      averaged over ``gate_frames`` frames and ``gate_bins`` bins (as in Sainburg's ``noisereduce``).

    ``noise``, how its power is known (``features/audio/noise.py``):

    - "quantile": from the ``quantile`` of each bin's power over the clip. Noise that comes and goes is not followed.
    - "leading": mean over the first ``noise_seconds``, where there must be nothing else.
    - "mmse_spp", "minimum": followed through speech presence probability, or through minimum statistics.
    - "profile": from the recording of noise alone in the file ``profile`` (made by ``noise_profile``).

    ``gain_floor_db``: the least gain, which keeps a bed of noise rather than musical tones. ``frame_ms``: frame length;
    ``overlap``: frames over each sample, 4, or 2 for half the work.
    Raises ``ValueError`` for options that do not fit, ``SampleError`` (``non_finite``) for NaN or infinity.
    """

    name: ClassVar[str] = "audio.denoise"
    stream: ClassVar[Stream] = "audio"
    numerics: ClassVar[tuple[str, ...]] = ("torch",)

    method: Method = "wiener"
    noise: Noise = "quantile"
    frame_ms: float = 48.0
    overlap: int = 4
    quantile: float = 0.2
    noise_seconds: float = 0.5
    profile: str = ""
    gain_floor_db: float = -20.0
    smoothing: float = 0.9
    absence: float = 0.2
    over_subtraction: float = 2.0
    threshold_db: float = 5.0
    gate_frames: int = 5
    gate_bins: int = 3

    def __post_init__(self) -> None:
        named = bool(self.profile) == (self.noise == "profile")
        refuse(
            self.name,
            [
                ("method", self.method, self.method in METHODS, " or ".join(METHODS)),
                ("noise", self.noise, self.noise in NOISES, " or ".join(NOISES)),
                ("frame_ms", self.frame_ms, 1 <= self.frame_ms <= 1000, "1 to 1000 ms"),
                ("overlap", self.overlap, self.overlap in (2, 4), "2 or 4"),
                ("quantile", self.quantile, 0 < self.quantile < 1, "between 0 and 1, both excluded"),
                ("noise_seconds", self.noise_seconds, 0 < self.noise_seconds <= 60, "above 0 to 60 s"),
                ("profile", self.profile, named, "a path when noise is 'profile', empty otherwise"),
                ("gain_floor_db", self.gain_floor_db, -120 <= self.gain_floor_db < 0, "from -120 to below 0 dB"),
                ("smoothing", self.smoothing, 0 <= self.smoothing < 1, "from 0 to below 1"),
                ("absence", self.absence, 0 < self.absence < 1, "between 0 and 1, both excluded"),
                ("over_subtraction", self.over_subtraction, 0 < self.over_subtraction <= 100, "above 0 to 100"),
                ("threshold_db", self.threshold_db, math.isfinite(self.threshold_db), "a finite number of dB"),
                ("gate_frames", self.gate_frames, self.gate_frames >= 1 and self.gate_frames % 2 == 1, "odd, >= 1"),
                ("gate_bins", self.gate_bins, self.gate_bins >= 1 and self.gate_bins % 2 == 1, "odd, >= 1"),
            ],
        )

    def frame_length(self, sample_rate: int) -> int:
        """Samples of a frame: ``frame_ms``, up to the next ``4 * 2**n``, ``4 * 3 * 2**n`` or ``4 * 5 * 2**n``."""
        return Shape.at_least(self.frame_ms * sample_rate / 1000, self.overlap).frame

    @property
    def weights_ref(self) -> WeightsRef | None:
        """The file of the noise profile, where there is one."""
        return WeightsRef(kind="file", locator=self.profile) if self.noise == "profile" else None

    def with_state(self, state: State) -> BoundDenoise:
        """Return the step with its noise profile, as ``noise_profile`` makes it. Raises ``StateError`` for others."""
        return BoundDenoise(self, state)

    def open(self, sample_rate: int, device: Device, profile: AudioClip | None = None) -> Denoiser:
        """Begin one signal that comes piece by piece. ``profile`` is the recording of noise that "profile" needs."""
        return Denoiser(self, sample_rate, device, profile)

    def prepare(self, batch: Sequence[AudioClip], device: Device, profile: AudioClip | None = None) -> list[AudioClip]:
        """Return one denoised clip for each of ``batch``, same shape, rate and start; 0 samples stay as they are.

        Each channel goes through ``open`` in pieces, so working memory does not grow with its length. Fourier
        transforms run on ``device``, recursions from frame to frame in compiled loops on the CPU.
        """
        return [self._clean(clip, device, profile) if clip.samples.shape[1] else clip for clip in batch]

    def _clean(self, clip: AudioClip, device: Device, profile: AudioClip | None) -> AudioClip:
        require_finite(clip)
        cleaned = np.empty_like(clip.samples)
        length = clip.samples.shape[1]
        for signal, out in zip(clip.samples, cleaned, strict=True):
            denoiser = self.open(clip.sample_rate, device, profile)
            pieces = [signal[at : at + _PIECE] for at in range(0, length, _PIECE)]
            if self.noise == "quantile":
                for piece in pieces:
                    denoiser.learn(piece)
            at = 0
            for found in chain(map(denoiser.push, pieces), (denoiser.finish() for _ in range(1))):
                out[at : at + len(found)] = found
                at += len(found)
        return AudioClip(samples=cleaned, sample_rate=clip.sample_rate, start_ns=clip.start_ns)


class Denoiser:
    """``Denoise`` at work on one signal: ``learn`` it all (noise "quantile" only), then ``push`` it and ``finish``.

    However the signal is cut into pieces, the result is the same, bit by bit, and so is that of ``Denoise.prepare``.
    Memory does not grow with the length of the signal.
    """

    def __init__(self, options: Denoise, sample_rate: int, device: Device, profile: AudioClip | None) -> None:
        self._options, self._device = options, device
        self._shape = Shape.at_least(options.frame_ms * sample_rate / 1000, options.overlap)
        self._hop_seconds = self._shape.hop / sample_rate
        self._floor = 10 ** (options.gain_floor_db / 20)
        self._context = options.gate_frames // 2 if options.method == "spectral_gate" else 0
        self._block = _BLOCK if device == "cpu" else _GPU_BLOCK
        self._heard = Cutter(self._shape)
        self._counted = self._shape.overlap - 1  # the first frame that lies wholly inside the signal
        self._quantile = Quantile(self._shape.bins, options.quantile) if options.noise == "quantile" else None
        self._cutter = Cutter(self._shape)
        self._adder = Adder(self._shape)
        self._next = 0
        self._before = np.ones(self._shape.bins, dtype=np.float32)
        self._fixed: Power | None = None
        self._tracker: PresenceTracker | MinimumTracker | None = None
        seconds = options.noise_seconds if options.noise == "leading" else _START_SECONDS
        self._opening = max(self._shape.overlap, math.ceil(seconds / self._hop_seconds))
        if options.noise == "profile":
            self._fixed = self._profiled(profile, sample_rate)

    def learn(self, samples: Samples) -> None:
        """Hear the next samples ``[n]`` of the signal before any is pushed, for the noise "quantile"."""
        if self._quantile is None:
            raise ValueError(f"audio.denoise: noise is {self._options.noise!r}, which learns nothing beforehand")
        self._heard.feed(samples)
        while self._heard.ready - self._counted >= self._block:
            self._count(self._counted + self._block)

    def _count(self, end: int) -> None:
        assert self._quantile is not None  # noqa: S101  # narrowed for mypy; callers have checked it
        self._quantile.observe(self._power(self._spectrum(self._heard, self._counted, end)))
        self._counted = end
        self._heard.drop(end)

    def push(self, samples: Samples) -> Samples:
        """Take the next samples ``[n]``; return those that are finished."""
        self._cutter.feed(samples)
        return self._advance(self._cutter.ready, final=False)

    def finish(self) -> Samples:
        """Return what is left at the end of the signal."""
        rows = self._shape.rows(self._cutter.samples)
        rest = self._advance(rows, final=True)
        surplus = (rows - self._shape.overlap + 1) * self._shape.hop - self._cutter.samples
        return rest[: len(rest) - surplus] if rows else rest

    def _advance(self, ready: int, *, final: bool) -> Samples:
        found: list[Samples] = []
        while self._next < ready and (final or ready - self._next >= self._block + self._context):
            if self._fixed is None and self._tracker is None:
                if not final and ready < self._opening:
                    break
                self._begin(min(ready, self._opening))
            end = min(self._next + self._block, ready)
            found.append(self._frames(self._next, end, ready))
            self._next = end
            self._cutter.drop(end - self._context)
        return np.concatenate(found) if found else np.zeros(0, dtype=np.float32)

    def _frames(self, begin: int, end: int, ready: int) -> Samples:
        import torch

        more = self._context
        spectrum = self._spectrum(self._cutter, begin - more, end + more)
        power = self._power(spectrum)
        if more:
            power[: max(0, more - begin)] = 0
            power[len(power) - max(0, end + more - ready) :] = 0
        gain = torch.from_numpy(self._gain(power)).to(self._device)
        kept = spectrum[more : more + end - begin]
        torch.view_as_real(kept).mul_(gain.unsqueeze(-1))
        return self._adder.add(torch.fft.irfft(kept, n=self._shape.frame).cpu().numpy())

    def _spectrum(self, cutter: Cutter, begin: int, end: int) -> torch.Tensor:
        import torch

        frames = torch.empty((end - begin, self._shape.frame), dtype=torch.float32)
        cutter.cut(begin, end, frames.numpy())
        spectrum: torch.Tensor = torch.fft.rfft(frames.to(self._device))
        return spectrum

    def _power(self, spectrum: torch.Tensor) -> Power:
        import torch

        real, imaginary = torch.view_as_real(spectrum).square().unbind(-1)
        power: Power = (real + imaginary).cpu().numpy()
        return power

    def _begin(self, opening: int) -> None:
        """Find the noise, or what its tracker begins with."""
        name = self._options.noise
        if self._quantile is not None:
            if self._heard.samples < self._cutter.samples:
                raise ValueError(
                    f"audio.denoise: {self._cutter.samples} samples were pushed but {self._heard.samples} learned; "
                    "allowed: learn the whole signal first"
                )
            if self._heard.ready > self._counted:
                self._count(self._heard.ready)
            if self._heard.ready <= self._shape.overlap - 1:  # shorter than a frame
                self._quantile.observe(self._power(self._spectrum(self._cutter, 0, opening)))
            self._fixed = self._quantile.mean()[None]
            return
        first = min(self._shape.overlap - 1, opening - 1)
        power = self._power(self._spectrum(self._cutter, first, opening))
        if name == "leading":
            self._fixed = power.mean(axis=0, dtype=np.float64).astype(np.float32)[None]
            return
        start = Quantile(self._shape.bins, self._options.quantile)
        start.observe(power)
        kind = PresenceTracker if name == "mmse_spp" else MinimumTracker
        self._tracker = kind(start.mean(), self._hop_seconds)

    def _profiled(self, profile: AudioClip | None, sample_rate: int) -> Power:
        if profile is None:
            raise StateError(
                f"audio.denoise: got no noise profile; cure: with_state(state of file {self._options.profile})"
            )
        cutter = Cutter(self._shape)
        cutter.feed(resample(profile, sample_rate).samples[0])
        first, end = self._shape.overlap - 1, cutter.ready
        if end <= first:
            seconds = self._shape.frame / sample_rate
            raise StateError(
                f"audio.denoise: the noise profile is shorter than a frame; allowed: {seconds:g} s or more"
            )
        total = np.zeros(self._shape.bins)
        for at in range(first, end, self._block):
            power = self._power(self._spectrum(cutter, at, min(at + self._block, end)))
            total += power.sum(axis=0, dtype=np.float64)
        return (total / (end - first)).astype(np.float32)[None]

    def _gain(self, power: Power) -> Power:
        options, floor = self._options, self._floor
        noise = self._fixed if self._tracker is None else self._tracker.follow(power)
        assert noise is not None  # noqa: S101  # narrowed for mypy; ``_begin`` has found one of them
        if options.method == "wiener":
            return gains.wiener(power, noise, self._before, smoothing=options.smoothing, floor=floor)
        if options.method == "mmse_lsa":
            return gains.log_spectral(
                power, noise, self._before, smoothing=options.smoothing, floor=floor, absence=options.absence
            )
        if options.method == "spectral_subtraction":
            return gains.subtraction(power, noise, factor=options.over_subtraction, floor=floor)
        return gains.gate(
            power,
            noise,
            threshold_db=options.threshold_db,
            frames=options.gate_frames,
            bins=options.gate_bins,
            floor=floor,
        )


def noise_profile(clip: AudioClip) -> dict[str, Any]:
    """Return what a profile file holds: the mean of the channels of ``clip``, a recording of noise alone, and its rate.

    Save it with ``safetensors.numpy.save_file`` under a name that ends in ``.safetensors``. Raises ``SampleError``
    (``non_finite``).
    """
    require_finite(clip)
    return {"samples": mono(clip).copy(), "sample_rate": np.array([clip.sample_rate], dtype=np.int64)}


class BoundDenoise:
    """``Denoise`` with its noise profile."""

    name: ClassVar[str] = Denoise.name
    stream: ClassVar[Stream] = Denoise.stream
    numerics: ClassVar[tuple[str, ...]] = Denoise.numerics

    def __init__(self, options: Denoise, state: State) -> None:
        self.options = options
        try:
            samples, (rate,) = (np.asarray(state[name]) for name in ("samples", "sample_rate"))
            self._profile = AudioClip(samples=samples[None], sample_rate=int(rate))
        except (KeyError, ValueError, TypeError) as error:
            raise StateError(
                f"audio.denoise: {options.profile!r} is no noise profile ({error}); allowed: 'samples' float32 [N] and "
                "'sample_rate' [1], as features.audio.denoise.noise_profile makes them"
            ) from error

    def __reduce__(self) -> tuple[type[BoundDenoise], tuple[Denoise, State]]:
        return (BoundDenoise, (self.options, noise_profile(self._profile)))

    def __repr__(self) -> str:
        return f"BoundDenoise({self.options!r})"

    def prepare(self, batch: Sequence[AudioClip], device: Device) -> list[AudioClip]:
        """Return one denoised clip for each of ``batch``: ``Denoise.prepare``."""
        return self.options.prepare(batch, device, self._profile)
