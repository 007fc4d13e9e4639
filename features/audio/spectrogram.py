"""``audio.stft`` and ``audio.chroma``: the short-time spectrum, and its energy by pitch class, equal to librosa's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from features.audio.frames import Check, Framed, Rows, Signal, frame_window
from features.audio.mel import DECIBELS, nepers
from features.audio.spectrum import Analysis, Bank, Power
from features.types import Device, FeatureSequence

_PITCHES = ("c", "c_sharp", "d", "d_sharp", "e", "f", "f_sharp", "g", "g_sharp", "a", "a_sharp", "b")
_CENTRE_OCTAVE, _OCTAVES = 5.0, 2.0
_TINY = float(np.finfo(np.float32).tiny)


@lru_cache(maxsize=16)
def stft_analysis(options: Framed) -> Analysis:
    """Frames of ``options``, and all bins."""
    return Analysis(frame_window(options.window, options.window_length, options.n_fft), options.hop_length)


@dataclass(frozen=True, kw_only=True)
class Stft(Framed):
    """Short-time Fourier spectrum of an audio clip: one row per hop, ``1 + n_fft // 2`` columns.

    ``scale``: "magnitude" is ``abs(librosa.stft(y))``; "power" its square; "db" is ``10 log10`` of the power, at least
    1e-10 and within ``top_db`` of the highest bin of the clip (``None``: no such limit), as ``librosa.power_to_db``.
    Equal to librosa (0.11; of a float64 signal) to the precision of float32. The phase is not kept.
    Raises ``ValueError`` for options that do not fit together. Rows, times, channels and errors: ``Framed``.
    """

    name: ClassVar[str] = "audio.stft"

    scale: Literal["magnitude", "power", "db"] = "db"
    top_db: float | None = 80.0

    def _checks(self) -> list[Check]:
        return [
            ("scale", self.scale, self.scale in ("magnitude", "power", "db"), "magnitude, power or db"),
            ("top_db", self.top_db, self.top_db is None or self.top_db > 0, "above 0 dB, or null"),
        ]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the bins."""
        return tuple(f"bin_{number}" for number in range(1 + self.n_fft // 2))

    def _rows(self, signals: Sequence[Signal], device: Device) -> list[Rows]:
        def finish(power: Power, peak: float) -> Rows:
            if self.scale == "db":
                return (DECIBELS * nepers(power, peak, self.top_db)).astype(np.float32)
            return (np.sqrt(power, out=power) if self.scale == "magnitude" else power).astype(np.float32)

        limited = self.scale == "db" and self.top_db is not None
        return stft_analysis(self).rows(signals, device, finish, peak=limited, width=1 + self.n_fft // 2)


def chroma_bank(sample_rate: int, n_fft: int, tuning: float) -> npt.NDArray[np.float32]:
    """Filters of the twelve pitch classes from C, float32 ``[12, 1 + n_fft // 2]``, as ``librosa.filters.chroma``.

    A Gaussian bump around every octave of a pitch class, columns of unit length, weighted by a Gaussian of two octaves
    around octave 5 (Ellis, "Chroma feature analysis and synthesis", 2007). ``tuning``: of A440, in semitones.
    """
    count = len(_PITCHES)
    hz = np.linspace(0, sample_rate, n_fft, endpoint=False)[1:]
    places = count * np.log2(hz / (440.0 * 2.0 ** (tuning / count) / 16))
    places = np.concatenate([[places[0] - 1.5 * count], places])
    widths = np.append(np.maximum(np.diff(places), 1.0), 1.0)
    distance = np.remainder(places[None, :] - np.arange(count)[:, None] + 10.5 * count, count) - count / 2
    bumps = np.exp(-0.5 * (2 * distance / widths) ** 2)
    bumps /= np.linalg.norm(bumps, axis=0)
    bumps *= np.exp(-0.5 * ((places / count - _CENTRE_OCTAVE) / _OCTAVES) ** 2)
    rows: npt.NDArray[np.float32] = np.roll(bumps, -3, axis=0)[:, : 1 + n_fft // 2].astype(np.float32)
    return rows


@lru_cache(maxsize=16)
def _chroma_analysis(options: Chroma) -> Analysis:
    bank = Bank.of(chroma_bank(options.sample_rate, options.n_fft, options.tuning))
    return Analysis(frame_window(options.window, options.window_length, options.n_fft), options.hop_length, bank)


@dataclass(frozen=True, kw_only=True)
class Chroma(Framed):
    """Energy by pitch class (C, C sharp, ... B) of an audio clip: one row of twelve per hop, the highest being 1.

    Equal to ``librosa.feature.chroma_stft`` (0.11; of a float64 signal) with the same options and the same ``tuning``
    (deviation of A from 440 Hz, in semitones; not estimated here) to the precision of float32. A silent row has no
    pitch class: it is not valid.
    Raises ``ValueError`` for options that do not fit together. Rows, times, channels and errors: ``Framed``.
    """

    name: ClassVar[str] = "audio.chroma"

    n_fft: int = 2048
    hop_length: int = 512
    tuning: float = 0.0

    def _checks(self) -> list[Check]:
        return [("tuning", self.tuning, -0.5 <= self.tuning <= 0.5, "-0.5 to 0.5 semitones")]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the pitch classes."""
        return _PITCHES

    def _rows(self, signals: Sequence[Signal], device: Device) -> list[Rows]:
        def finish(power: Power, peak: float) -> Rows:
            del peak
            highest = power.max(axis=1, keepdims=True)
            power /= np.where(highest < _TINY, np.inf, highest)
            return power.astype(np.float32)

        return _chroma_analysis(self).rows(signals, device, finish, peak=False, width=len(_PITCHES))

    def _sequence(
        self, values: Rows, start_ns: npt.NDArray[np.int64], end_ns: npt.NDArray[np.int64]
    ) -> FeatureSequence:
        by_channel = values.reshape(len(values), self.channel_count, len(_PITCHES))
        valid: npt.NDArray[np.bool_] = np.all(np.any(by_channel != 0, axis=2), axis=1)
        values[~valid] = 0
        return FeatureSequence(values=values, start_ns=start_ns, end_ns=end_ns, valid=valid)
