"""``audio.augment``: speed, pitch, reverberation, noise and gain, each drawn from a seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from features.audio.frames import Signal, refuse
from features.audio.resample import mono, require_finite, resample
from features.base import State, WeightsRef
from features.errors import StateError
from features.random import generator
from features.types import AudioClip, Device, Stream

Wave: TypeAlias = npt.NDArray[np.float64]

_BLOCK = 1 << 17
"""Samples convolved at a time."""


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Alter a clip at random, each alteration with probability ``chance``, in this order:

    - ``speed``: up to so much faster or slower, in (1 / (1 + speed), 1 + speed), as a tape: pitch and length change.
    - ``pitch``: up to so many semitones up or down, at the same length (a phase vocoder).
    - ``reverberation``: "synthetic" convolves every channel with Gaussian noise that decays by 60 dB in a time between
      ``decay_low`` and ``decay_high`` seconds, ``direct_db`` quieter than the direct sound, which stays where and as
      loud as it was; "given" with the impulse response in ``file``, whose largest sample is the direct sound. The tail
      is cut.
    - ``noise``: "white", "pink" (power falls by 3 dB an octave) or "given" (from a random place of the noise in
      ``file``, over and over), at a signal-to-noise ratio between ``snr_low`` and ``snr_high`` dB over the whole clip,
      the same in all channels where it is given and independent otherwise. A clip of zeros gets none.
    - ``gain_db``: up to so many dB louder or softer.

    Each is off at 0 or "none". ``file`` is what ``augment_file`` made. Values beyond ±1 are left beyond ±1.

    The clock of a view begins where that of the sample does and runs with the altered sound: only ``speed`` changes its
    length, and what happened ``t`` after the start happens at ``t / speed`` then. Other streams of the sample are not
    moved with it, so ``speed`` is for sound that is not aligned with anything, and off unless asked for.

    Raises ``ValueError`` for options that do not fit, ``SampleError`` (``non_finite``) for NaN or infinity.
    """

    name: ClassVar[str] = "audio.augment"
    stream: ClassVar[Stream] = "audio"
    numerics: ClassVar[tuple[str, ...]] = ("numpy", "soxr", "torch")

    speed: float = 0.0
    pitch: float = 0.0
    reverberation: Literal["none", "synthetic", "given"] = "synthetic"
    decay_low: float = 0.1
    decay_high: float = 0.6
    direct_db: float = 6.0
    noise: Literal["none", "white", "pink", "given"] = "white"
    snr_low: float = 5.0
    snr_high: float = 30.0
    gain_db: float = 6.0
    chance: float = 0.5
    file: str = ""

    def __post_init__(self) -> None:
        given = "given" in (self.reverberation, self.noise)
        decays, levels = 0 < self.decay_low <= self.decay_high <= 10, -20 <= self.snr_low <= self.snr_high <= 100
        refuse(
            self.name,
            [
                ("speed", self.speed, 0 <= self.speed <= 1, "0 to 1"),
                ("pitch", self.pitch, 0 <= self.pitch <= 12, "0 to 12 semitones"),
                ("reverberation", self.reverberation, self.reverberation in ("none", "synthetic", "given"), "none, "
                 "synthetic or given"),
                ("decay_low", self.decay_low, decays, "above 0, at most decay_high, which is 10 s at most"),
                ("direct_db", self.direct_db, -20 <= self.direct_db <= 60, "-20 to 60 dB"),
                ("noise", self.noise, self.noise in ("none", "white", "pink", "given"), "none, white, pink or given"),
                ("snr_low", self.snr_low, levels, "from -20, at most snr_high, which is 100 dB at most"),
                ("gain_db", self.gain_db, 0 <= self.gain_db <= 60, "0 to 60 dB"),
                ("chance", self.chance, 0 < self.chance <= 1, "above 0, to 1"),
                ("file", self.file, bool(self.file) == given, "a path when something is 'given', empty otherwise"),
            ],
        )  # fmt: skip

    @property
    def weights_ref(self) -> WeightsRef | None:
        """The file of given noise and impulse response, where there is one."""
        return WeightsRef(kind="file", locator=self.file) if self.file else None

    def with_state(self, state: State) -> BoundAugment:
        """Return the step with what ``augment_file`` made. Raises ``StateError`` when what is given is not there."""
        return BoundAugment(self, state)

    def augment(
        self, batch: Sequence[AudioClip], seeds: Sequence[int], device: Device, given: Given | None = None
    ) -> list[AudioClip]:
        """Return one altered clip for each of ``batch``. All of it runs on the CPU, whatever ``device`` is."""
        del device
        if self.file and given is None:
            raise StateError(f"{self.name}: got no noise or impulse; cure: with_state(state of file {self.file})")
        return [self._altered(clip, seed, given) for clip, seed in zip(batch, seeds, strict=True)]

    def _altered(self, clip: AudioClip, seed: int, given: Given | None) -> AudioClip:
        require_finite(clip)
        if not clip.samples.shape[1]:
            return clip
        drawn = {name: generator(seed, self.name, name) for name in ("speed", "pitch", "room", "noise", "gain")}
        wanted = {name: bool(random.random() < self.chance) for name, random in drawn.items()}
        if self.speed and wanted["speed"]:
            clip = _at_speed(clip, (1 + self.speed) ** drawn["speed"].uniform(-1, 1))
        samples = clip.samples
        if self.pitch and wanted["pitch"]:
            samples = _shifted(samples, clip.sample_rate, drawn["pitch"].uniform(-self.pitch, self.pitch))
        if self.reverberation != "none" and wanted["room"]:
            samples = self._in_room(samples, clip.sample_rate, drawn["room"], given)
        if self.noise != "none" and wanted["noise"]:
            samples = samples + self._disturbance(samples, clip.sample_rate, drawn["noise"], given)
        if self.gain_db and wanted["gain"]:
            samples = samples * np.float32(10 ** (drawn["gain"].uniform(-self.gain_db, self.gain_db) / 20))
        return AudioClip(samples=samples, sample_rate=clip.sample_rate, start_ns=clip.start_ns)

    def _in_room(self, samples: Signal, rate: int, random: np.random.Generator, given: Given | None) -> Signal:
        impulse: Wave
        if self.reverberation == "given":
            impulse = (given or Given()).at("impulse", rate).astype(np.float64)
            direct = int(np.abs(impulse).argmax())
            impulse = impulse / impulse[direct]
        else:
            seconds = random.uniform(self.decay_low, self.decay_high)
            length, direct = max(2, round(seconds * rate)), 0
            tail = random.standard_normal(length) * 10 ** (-3 * np.arange(length) / length)
            tail[0] = 0
            impulse = tail * 10 ** (-self.direct_db / 20) / np.sqrt(tail @ tail)
            impulse[0] = 1
        return np.stack([_convolved(signal, impulse, direct) for signal in samples])

    def _disturbance(self, samples: Signal, rate: int, random: np.random.Generator, given: Given | None) -> Signal:
        channels, length = samples.shape
        made: Wave
        if self.noise == "given":
            source = (given or Given()).at("noise", rate)
            made = np.resize(np.roll(source, -int(random.integers(len(source)))), length)[None].astype(np.float64)
        else:
            made = random.standard_normal((channels, length))
            if self.noise == "pink":
                spectrum = np.fft.rfft(made)
                made = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(spectrum.shape[1]), 1)), length)
        power, level = float((samples.astype(np.float64) ** 2).mean()), float((made.astype(np.float64) ** 2).mean())
        ratio = random.uniform(self.snr_low, self.snr_high)
        scale = math.sqrt(power / level) * 10 ** (-ratio / 20) if level else 0.0
        disturbance: Signal = (scale * made).astype(np.float32)
        return disturbance


def _at_speed(clip: AudioClip, factor: float) -> AudioClip:
    """Play faster by ``factor``: resampled from a rate so much higher to the clip's own."""
    import soxr

    frames = soxr.resample(np.ascontiguousarray(clip.samples.T), clip.sample_rate * factor, clip.sample_rate)
    length = round(clip.samples.shape[1] / factor)
    samples = np.zeros((len(clip.samples), length), dtype=np.float32)
    samples[:, : len(frames)] = frames[:length].T
    return AudioClip(samples=samples, sample_rate=clip.sample_rate, start_ns=clip.start_ns)


def _shifted(samples: Signal, rate: int, semitones: float) -> Signal:
    """Stretch time with a phase vocoder (Flanagan and Golden 1966), then resample to the old length."""
    import soxr
    import torch

    channels, length = samples.shape
    frame, factor = 2048, 2 ** (semitones / 12)
    hop = frame // 4
    window = torch.hann_window(frame, dtype=torch.float64)
    padded = torch.from_numpy(np.pad(samples, ((0, 0), (0, frame))).astype(np.float64))
    spectrum = torch.stft(padded, frame, hop, window=window, pad_mode="constant", return_complex=True)
    at = torch.arange(0, spectrum.shape[2] - 1, 1 / factor, dtype=torch.float64)
    left = at.long()
    share = at - left
    size, angle = spectrum.abs(), spectrum.angle()
    turn = 2 * math.pi * hop * torch.arange(frame // 2 + 1, dtype=torch.float64)[None, :, None] / frame
    surplus = angle[:, :, left + 1] - angle[:, :, left] - turn
    steps = turn + surplus - 2 * math.pi * torch.round(surplus / (2 * math.pi))
    phase = torch.cumsum(torch.cat([angle[:, :, :1], steps[:, :, :-1]], dim=2), dim=2)
    polar = torch.polar((1 - share) * size[:, :, left] + share * size[:, :, left + 1], phase)
    stretched = torch.istft(polar, frame, hop, window=window).numpy()
    changed = soxr.resample(np.ascontiguousarray(stretched.T), rate * factor, rate).T[:, :length]
    found = np.zeros((channels, length), dtype=np.float32)
    found[:, : changed.shape[1]] = changed
    return found


def _convolved(signal: Signal, impulse: Wave, direct: int) -> Signal:
    """Convolve block by block; sample 0 of the result is where ``impulse[direct]`` meets sample 0 of the signal."""
    size = 1 << (_BLOCK + len(impulse) - 1).bit_length()
    if len(signal) <= _BLOCK:
        size = 1 << (len(signal) + len(impulse) - 1).bit_length()
    response = np.fft.rfft(impulse, size)
    total = np.zeros(len(signal) + len(impulse) - 1)
    for begin in range(0, len(signal), _BLOCK):
        block = signal[begin : begin + _BLOCK]
        part = np.fft.irfft(np.fft.rfft(block, size) * response, size)[: len(block) + len(impulse) - 1]
        total[begin : begin + len(part)] += part
    found: Signal = total[direct : direct + len(signal)].astype(np.float32)
    return found


@dataclass(frozen=True, eq=False)
class Given:
    """Recordings by name ("noise", "impulse")."""

    clips: tuple[tuple[str, AudioClip], ...] = ()

    def at(self, name: str, sample_rate: int) -> Signal:
        """Samples ``[N]`` of a recording at a rate."""
        found: Signal = resample(dict(self.clips)[name], sample_rate).samples[0]
        return found


def augment_file(*, noise: AudioClip | None = None, impulse: AudioClip | None = None) -> dict[str, Any]:
    """Return what ``file`` holds: the mean of the channels of recordings, and their rates.

    Save it with ``safetensors.numpy.save_file`` under a name that ends in ``.safetensors``.
    """
    state: dict[str, Any] = {}
    for name, clip in (("noise", noise), ("impulse", impulse)):
        if clip is not None:
            require_finite(clip)
            state[name] = mono(clip).copy()
            state[f"{name}_rate"] = np.array([clip.sample_rate], dtype=np.int64)
    return state


class BoundAugment:
    """``Augment`` with its recordings."""

    name: ClassVar[str] = Augment.name
    stream: ClassVar[Stream] = Augment.stream
    numerics: ClassVar[tuple[str, ...]] = Augment.numerics

    def __init__(self, options: Augment, state: State) -> None:
        self.options = options
        self._state = dict(state)
        wanted = [("noise", options.noise), ("impulse", options.reverberation)]
        try:
            clips = [
                (name, AudioClip(samples=np.asarray(state[name])[None], sample_rate=int(state[f"{name}_rate"][0])))
                for name, choice in wanted
                if choice == "given"
            ]
            if not all(clip.samples.any() for _, clip in clips):
                raise ValueError("it is silent")
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise StateError(
                f"audio.augment: {options.file!r} does not hold what is given ({error}); allowed: 'noise' or 'impulse' "
                "float32 [N] with 'noise_rate' or 'impulse_rate' [1], as features.audio.augment.augment_file makes them"
            ) from error
        self._given = Given(tuple(clips))

    def __reduce__(self) -> tuple[type[BoundAugment], tuple[Augment, State]]:
        return (BoundAugment, (self.options, self._state))

    def __repr__(self) -> str:
        return f"BoundAugment({self.options!r})"

    def augment(self, batch: Sequence[AudioClip], seeds: Sequence[int], device: Device) -> list[AudioClip]:
        """Return one altered clip for each of ``batch``: ``Augment.augment``."""
        return self.options.augment(batch, seeds, device, self._given)
