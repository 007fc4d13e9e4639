"""Mel-frequency cepstral coefficients, equal to ``librosa.feature.mfcc`` and several times faster."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from features.audio.frames import Check, Rows, Signal
from features.audio.mel import DECIBELS, MelFramed, mel_analysis, nepers
from features.audio.spectrum import Power
from features.types import Device

_TOP_DB = 80.0


def cosine_basis(n_mfcc: int, n_mels: int) -> npt.NDArray[np.float64]:
    """Return the first ``n_mfcc`` rows of the orthonormal type-II cosine transform, float64 ``[n_mfcc, n_mels]``."""
    angle = np.pi / n_mels * np.outer(np.arange(n_mfcc), np.arange(n_mels) + 0.5)
    basis: npt.NDArray[np.float64] = np.cos(angle) * math.sqrt(2.0 / n_mels)
    basis[0] /= math.sqrt(2.0)
    return basis


def slopes(values: Rows, width: int, order: int) -> Rows:
    """Slope (``order`` 1) or curvature (2) over rows ``[T, D]``: ``librosa.feature.delta`` with ``mode="nearest"``.

    A polynomial of that order is fitted to ``width`` rows around each (Savitzky and Golay 1964); beyond the ends stand
    the first and the last row, so that clips of any length have one for every row.
    """
    if not len(values):
        return values
    half = width // 2
    powers = np.vander(np.arange(-half, half + 1, dtype=np.float64), order + 1, increasing=True)
    weights = math.factorial(order) * np.linalg.pinv(powers)[order]
    padded = np.concatenate([values[:1].repeat(half, axis=0), values, values[-1:].repeat(half, axis=0)])
    total = np.zeros(values.shape)
    for shift, weight in enumerate(weights):
        total += weight * padded[shift : shift + len(values)]
    return total.astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Mfcc(MelFramed):
    """MFCC of an audio clip: one row per hop, ``1 + N // hop_length`` rows for ``N`` samples at ``sample_rate``.

    Equal to ``librosa.feature.mfcc`` (0.11; of a float64 signal) with the same options within 1e-5 and the rounding of
    the result to float32; librosa's own answer to a float32 signal is up to some 2e-4 off both. Frames are centred with
    zeros beyond the ends; mel power in dB with a range of 80 dB below the loudest band of the clip; orthonormal DCT-II.
    Frame times are those of ``frame_spans``. A clip of 0 samples gives 0 rows.

    ``n_mfcc``: coefficients. ``lifter``: coefficient ``n`` is multiplied by ``1 + lifter / 2 * sin(pi (n + 1) /
    lifter)`` (0: not at all). ``deltas``: 1 adds the slope of every coefficient, 2 the curvature too, over
    ``delta_width`` rows (see ``slopes``). Options of frames, channels and bands: ``Framed`` and ``MelFramed``.
    Raises ``ValueError`` for options that do not fit together; ``SampleError`` as ``Framed`` does.
    """

    name: ClassVar[str] = "audio.mfcc"

    n_mfcc: int = 20
    lifter: float = 0.0
    deltas: int = 0
    delta_width: int = 9

    def _checks(self) -> list[Check]:
        odd = self.delta_width >= 3 and self.delta_width % 2 == 1
        return [
            *super()._checks(),
            ("n_mfcc", self.n_mfcc, 1 <= self.n_mfcc <= self.n_mels, f"1 to n_mels ({self.n_mels})"),
            ("lifter", self.lifter, 0 <= self.lifter < math.inf, "0 or above"),
            ("deltas", self.deltas, self.deltas in (0, 1, 2), "0, 1 or 2"),
            ("delta_width", self.delta_width, odd, "odd, >= 3"),
        ]

    @property
    def columns(self) -> tuple[str, ...]:
        """``mfcc_0 ...``, then their slopes ``delta_0 ...`` and curvatures ``delta2_0 ...`` where asked for."""
        kinds = ("mfcc", "delta", "delta2")[: 1 + self.deltas]
        return tuple(f"{kind}_{number}" for kind in kinds for number in range(self.n_mfcc))

    def _rows(self, signals: Sequence[Signal], device: Device) -> list[Rows]:
        def finish(power: Power, peak: float) -> Rows:
            return (nepers(power, peak, _TOP_DB) @ _cosines(self)).astype(np.float32)

        found = mel_analysis(self).rows(signals, device, finish, peak=True, width=self.n_mfcc)
        if not self.deltas:
            return found
        orders = range(1, self.deltas + 1)
        return [
            np.concatenate([rows, *(slopes(rows, self.delta_width, order) for order in orders)], axis=1)
            for rows in found
        ]


@lru_cache(maxsize=16)
def _cosines(options: Mfcc) -> npt.NDArray[np.float64]:
    """From nepers of the bands to coefficients of decibels: float64 ``[n_mels, n_mfcc]``."""
    basis = DECIBELS * cosine_basis(options.n_mfcc, options.n_mels)
    if options.lifter:
        basis *= 1 + options.lifter / 2 * np.sin(np.pi * np.arange(1, options.n_mfcc + 1) / options.lifter)[:, None]
    return np.ascontiguousarray(basis.T)
