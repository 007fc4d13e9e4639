"""Mel bands, and ``audio.mel``: the mel spectrogram, equal to ``librosa.feature.melspectrogram``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from features.audio.frames import Check, Framed, Rows, Signal, frame_window
from features.audio.spectrum import Analysis, Bank, Power
from features.compiled import compiled
from features.types import Device

LEAST = 1e-10
"""Least power; everything below counts as this much (librosa's ``power_to_db``)."""

DECIBELS = 10.0 / math.log(10.0)
"""Decibels in a neper of power."""


def mel_bank(
    sample_rate: int, n_fft: int, n_mels: int, fmin: float, fmax: float, *, htk: bool = False, unit_area: bool = True
) -> npt.NDArray[np.float32]:
    """Triangular mel filters, float32 ``[n_mels, 1 + n_fft // 2]``: the same numbers as ``librosa.filters.mel``.

    The scale is that of Slaney's Auditory Toolbox (1998), or with ``htk`` ``2595 log10(1 + f / 700)``. ``unit_area``
    divides each triangle by half its width in Hz; without, its peak is 1. A filter narrower than a bin may be all zero;
    its band then lies at the floor, as in librosa (which warns of it).
    """
    knee_hz, hz_per_mel = 1000.0, 200.0 / 3
    knee_mel, step = knee_hz / hz_per_mel, math.log(6.4) / 27.0

    def to_mel(hz: float) -> float:
        if htk:
            return 2595.0 * math.log10(1.0 + hz / 700.0)
        return hz / hz_per_mel if hz < knee_hz else knee_mel + math.log(hz / knee_hz) / step

    mels = np.linspace(to_mel(fmin), to_mel(fmax), n_mels + 2)
    if htk:
        edges = 700.0 * (10.0 ** (mels / 2595.0) - 1.0)
    else:
        edges = np.where(mels < knee_mel, mels * hz_per_mel, knee_hz * np.exp(step * (mels - knee_mel)))
    bins = np.fft.rfftfreq(n_fft, 1.0 / sample_rate)
    widths = np.diff(edges)[:, None]
    distance = edges[:, None] - bins[None, :]
    triangles = np.maximum(0.0, np.minimum(-distance[:-2] / widths[:-1], distance[2:] / widths[1:]))
    if unit_area:
        triangles *= (2.0 / (edges[2:] - edges[:-2]))[:, None]
    bank: npt.NDArray[np.float32] = triangles.astype(np.float32)
    return bank


def nepers(power: Power, peak: float, top_db: float | None) -> Power:
    """Natural logarithm of ``power`` in place: at least 1e-10, and at most ``top_db`` below ``peak``."""
    least = LEAST if top_db is None else max(LEAST, 10.0 ** (-top_db / 10.0) * peak)
    compiled(_logarithms)(power.reshape(-1), least)
    return power


_STEP = 256
"""Numbers that go through one loop after the other, in the core's nearest cache."""

_ONE_UP = np.int64(0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
"""What lifts the bits of sqrt(1/2) to those of 1: above it lies the exponent of the nearest power of two."""

_MAGIC, _ORIGIN = np.int64(0x4330000000000000), 2.0**52 + 1023
"""Bits of 2**52, into which a small number is written to become a float; and what is then too much."""


def _logarithms(values: npt.NDArray[np.float64], least: float) -> None:
    """Natural logarithm of at least ``least`` in place, within 4e-15, in loops that the compiler makes vectors of.

    Of ``m * 2**k`` with m from sqrt(1/2) to sqrt(2) it is ``k ln 2 + 2 artanh((m - 1) / (m + 1))``.
    """
    exponents, mantissas = np.empty(_STEP), np.empty(_STEP)
    exponent_bits, mantissa_bits = exponents.view(np.int64), mantissas.view(np.int64)
    for at in range(0, len(values), _STEP):
        count = min(_STEP, len(values) - at)
        part = values[at : at + count]
        for i in range(count):
            mantissas[i] = max(part[i], least)
        for i in range(count):
            bits = mantissa_bits[i]
            exponent = (bits + _ONE_UP) >> 52
            exponent_bits[i] = exponent | _MAGIC
            mantissa_bits[i] = bits - ((exponent - 1023) << 52)
        for i in range(count):
            s = (mantissas[i] - 1.0) / (mantissas[i] + 1.0)
            z = s * s
            series = (
                ((((((z / 17 + 1 / 15) * z + 1 / 13) * z + 1 / 11) * z + 1 / 9) * z + 1 / 7) * z + 1 / 5) * z + 1 / 3
            ) * z
            part[i] = 2.0 * (s + s * series) + (exponents[i] - _ORIGIN) * 0.6931471805599453


@dataclass(frozen=True, kw_only=True)
class MelFramed(Framed):
    """What steps on mel bands share.

    ``n_mels`` bands between ``fmin`` and ``fmax`` Hz (``None``: half the sample rate); ``htk``: the scale of HTK, not
    Slaney's; ``mel_norm``: "slaney" gives filters of equal area, "none" of equal height. All as in librosa.
    """

    n_mels: int = 128
    fmin: float = 0.0
    fmax: float | None = None
    htk: bool = False
    mel_norm: Literal["slaney", "none"] = "slaney"

    def _checks(self) -> list[Check]:
        nyquist = self.sample_rate / 2
        return [
            ("n_mels", self.n_mels, self.n_mels >= 1, ">= 1"),
            ("fmin", self.fmin, 0 <= self.fmin < self.highest, "from 0 to below fmax"),
            ("fmax", self.fmax, self.highest <= nyquist, f"at most half the sample rate ({nyquist:g} Hz), or null"),
            ("mel_norm", self.mel_norm, self.mel_norm in ("slaney", "none"), "slaney or none"),
        ]

    @property
    def highest(self) -> float:
        """Upper edge of the highest mel band, Hz."""
        return self.sample_rate / 2 if self.fmax is None else self.fmax


@lru_cache(maxsize=16)
def mel_analysis(options: MelFramed) -> Analysis:
    """Frames and bands of ``options``, made once."""
    bank = mel_bank(
        options.sample_rate,
        options.n_fft,
        options.n_mels,
        options.fmin,
        options.highest,
        htk=options.htk,
        unit_area=options.mel_norm == "slaney",
    )
    window = frame_window(options.window, options.window_length, options.n_fft)
    return Analysis(window, options.hop_length, Bank.of(bank))


@dataclass(frozen=True, kw_only=True)
class Mel(MelFramed):
    """Mel spectrogram of an audio clip: one row per hop, one column per band.

    Equal to ``librosa.feature.melspectrogram`` (0.11; of a float64 signal) with the same options to the precision of
    float32. ``scale``: "db" is ``10 log10`` of the power, at least 1e-10 and within ``top_db`` of the loudest band of
    the clip (``None``: no such limit), as ``librosa.power_to_db``; "power" is the power itself.
    Raises ``ValueError`` for options that do not fit together. Rows, times, channels and errors: ``Framed``.
    """

    name: ClassVar[str] = "audio.mel"

    scale: Literal["db", "power"] = "db"
    top_db: float | None = 80.0

    def _checks(self) -> list[Check]:
        return [
            *super()._checks(),
            ("scale", self.scale, self.scale in ("db", "power"), "db or power"),
            ("top_db", self.top_db, self.top_db is None or self.top_db > 0, "above 0 dB, or null"),
        ]

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the bands."""
        return tuple(f"mel_{band}" for band in range(self.n_mels))

    def _rows(self, signals: Sequence[Signal], device: Device) -> list[Rows]:
        decibels = self.scale == "db"

        def finish(power: Power, peak: float) -> Rows:
            return (DECIBELS * nepers(power, peak, self.top_db) if decibels else power).astype(np.float32)

        limited = decibels and self.top_db is not None
        return mel_analysis(self).rows(signals, device, finish, peak=limited, width=self.n_mels)
