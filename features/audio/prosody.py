"""``audio.prosody``: loudness, brightness and pitch of every frame, equal to librosa's features of the same names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from features.audio.frames import Check, Framed, Rows, Signal, frame_rows
from features.audio.pitch import Column, Pitch, frames_of, pyin, yin
from features.audio.spectrogram import stft_analysis
from features.audio.spectrum import Power
from features.types import Device

_COLUMNS = ("rms", "zero_crossings", "centroid_hz", "rolloff_hz", "flatness", "f0_hz", "periodicity", "voiced")
_CHUNK = 2048
"""Rows worked on at a time."""

_CROSSING, _LEAST = 1e-10, 1e-10


@dataclass(frozen=True, kw_only=True)
class Prosody(Framed):
    """Eight named numbers for every hop of an audio clip, with librosa's definitions (0.11; of a float64 signal).

    - ``rms``: root mean square of the frame; full scale is 1.
    - ``zero_crossings``: share of the frame's samples whose sign differs from the one before.
    - ``centroid_hz``, ``rolloff_hz``: mean frequency of the magnitudes; frequency below which ``rolloff`` of them lies.
    - ``flatness``: geometric over arithmetic mean of the powers: 1 is white (and silence), 0 a tone.
    - ``f0_hz``: fundamental frequency between ``fmin`` and ``fmax`` Hz by ``pitch``: "yin" (``librosa.yin`` with
      ``yin_threshold``), or "pyin" (``librosa.pyin``: steadier, some hundred times slower). It is an estimate in every
      frame and means something only where ``voiced`` is 1.
    - ``periodicity``: in [0, 1]: 1 minus YIN's difference, or pYIN's probability. ``voiced``: 1 or 0; by YIN where the
      difference is below ``yin_threshold`` and the frame above -120 dB.

    The spectrum is taken with ``window``, everything else without. Raises ``ValueError`` for options that do not fit
    together. Rows, times, channels and errors: ``Framed``.
    """

    name: ClassVar[str] = "audio.prosody"
    numerics: ClassVar[tuple[str, ...]] = ("librosa", "soxr")

    n_fft: int = 1024
    fmin: float = 65.0
    fmax: float = 500.0
    pitch: Literal["yin", "pyin"] = "yin"
    yin_threshold: float = 0.1
    rolloff: float = 0.85

    def _checks(self) -> list[Check]:
        lowest = self.sample_rate / max(1, self.n_fft - 1)
        reach = f"{lowest:g} (sample_rate / (n_fft - 1)) to below fmax"
        return [
            ("fmin", self.fmin, lowest <= self.fmin < self.fmax, reach),
            ("fmax", self.fmax, self.fmax <= self.sample_rate / 2, f"at most {self.sample_rate / 2:g} Hz"),
            ("fmax", self.fmax, self._lags >= 3, "far enough above fmin for 3 periods in whole samples"),
            ("pitch", self.pitch, self.pitch in ("yin", "pyin"), "yin or pyin"),
            ("yin_threshold", self.yin_threshold, 0 < self.yin_threshold < 1, "between 0 and 1, both excluded"),
            ("rolloff", self.rolloff, 0 < self.rolloff < 1, "between 0 and 1, both excluded"),
        ]

    @property
    def _lags(self) -> int:
        longest = min(-(-self.sample_rate // self.fmin), self.n_fft - 1)
        return int(longest) - int(self.sample_rate // self.fmax) + 1

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""
        return _COLUMNS

    def _rows(self, signals: Sequence[Signal], device: Device) -> list[Rows]:
        spectra = stft_analysis(self).rows(signals, device, self._shape, peak=False, width=3)
        return [
            self._joined(signal, spectrum) if len(signal) else np.zeros((0, len(_COLUMNS)), np.float32)
            for signal, spectrum in zip(signals, spectra, strict=True)
        ]

    def _joined(self, signal: Signal, spectrum: Rows) -> Rows:
        rms, crossings = self._levels(signal)
        columns = (rms, crossings, *spectrum.T, *self._pitch(signal))
        return np.stack(columns, axis=1).astype(np.float32)

    def _shape(self, power: Power, peak: float) -> Rows:
        """Centroid, rolloff and flatness of every row."""
        del peak
        flatness = np.exp(np.log(np.maximum(power, _LEAST)).mean(axis=1)) / np.maximum(power, _LEAST).mean(axis=1)
        magnitude = np.sqrt(power, out=power)
        hz = np.fft.rfftfreq(self.n_fft, 1 / self.sample_rate)
        total = magnitude.sum(axis=1)
        centroid = magnitude @ hz / np.where(total > 0, total, 1)
        sums = np.cumsum(magnitude, axis=1)
        reached = sums >= self.rolloff * sums[:, -1:]
        return np.stack([centroid, hz[reached.argmax(axis=1)], flatness], axis=1).astype(np.float32)

    def _levels(self, signal: Signal) -> tuple[Column, Column]:
        rows = frame_rows(len(signal), self.hop_length)
        rms, crossings = np.empty(rows), np.empty(rows)
        for begin in range(0, rows, _CHUNK):
            end = min(begin + _CHUNK, rows)
            frames = frames_of(signal, self.n_fft, self.hop_length, begin, end)
            rms[begin:end] = np.sqrt((frames**2).mean(axis=1))
            frames = frames_of(signal, self.n_fft, self.hop_length, begin, end, edge=True)
            below = frames < -_CROSSING
            crossings[begin:end] = (below[:, 1:] != below[:, :-1]).sum(axis=1) / self.n_fft
        return rms, crossings

    def _pitch(self, signal: Signal) -> Pitch:
        where = (signal, self.sample_rate, self.n_fft, self.hop_length, self.fmin, self.fmax)
        return yin(*where, self.yin_threshold) if self.pitch == "yin" else pyin(*where)
