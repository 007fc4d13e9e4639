"""How loud the noise is in each bin: fixed for a clip, or followed from frame to frame.

Powers are float32 ``[T, bins]`` of the frames of one signal. The loops are compiled on their first use in a process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from features.compiled import compiled

Power = npt.NDArray[np.float32]

_STEPS = 3
"""Bits of a float32's mantissa that tell cells of the histogram apart: 8 cells an octave, 0.5 dB or less each."""

_SHIFT = 23 - _STEPS
_LOWEST = 47 << 23 >> _SHIFT  # 2**-80: below it noise is nothing
_CELLS = (157 << 23 >> _SHIFT) - _LOWEST  # up to 2**30


class Quantile:
    """Mean noise power of each bin from a quantile of its powers over any number of frames, in bounded memory.

    The power of Gaussian noise is exponentially distributed: its mean is a quantile over ``-ln(1 - quantile)``,
    provided that in so large a share of the frames the bin holds little else. Powers are counted in logarithmic
    cells, and inside a cell the quantile is interpolated: the order and grouping of frames do not matter.
    """

    def __init__(self, bins: int, quantile: float) -> None:
        self._quantile = quantile
        self._counts = np.zeros((bins, _CELLS), dtype=np.uint32)
        self._total = 0

    def observe(self, power: Power) -> None:
        """Count the powers of some frames."""
        self._total += len(power)
        compiled(_count)(np.ascontiguousarray(power).view(np.uint32), self._counts)

    def mean(self) -> Power:
        """Mean noise power of each bin, float32 ``[bins]``; zero where nothing was observed."""
        edges = (np.arange(_LOWEST, _LOWEST + _CELLS + 1, dtype=np.uint32) << _SHIFT).view(np.float32)
        edges[0] = 0.0
        found = np.zeros(len(self._counts), dtype=np.float32)
        compiled(_rank)(self._counts, self._total, self._quantile, edges, found)
        return found / np.float32(-math.log1p(-self._quantile))


def _count(bits: npt.NDArray[np.uint32], counts: npt.NDArray[np.uint32]) -> None:
    rows, bins = bits.shape
    for b in range(bins):
        for t in range(rows):
            cell = int(bits[t, b] >> _SHIFT) - _LOWEST
            counts[b, min(max(cell, 0), _CELLS - 1)] += 1


def _rank(counts: npt.NDArray[np.uint32], total: int, quantile: float, edges: Power, out: Power) -> None:
    for b in range(len(counts)):
        below, cell = 0.0, 0
        while cell < _CELLS - 1 and below + counts[b, cell] < quantile * total:
            below += counts[b, cell]
            cell += 1
        share = (quantile * total - below) / max(counts[b, cell], 1)
        out[b] = edges[cell] + share * (edges[cell + 1] - edges[cell])


@dataclass
class PresenceTracker:
    """Noise followed through the probability that speech is present in a bin (MMSE-SPP).

    Gerkmann and Hendriks, "Unbiased MMSE-based noise power estimation with low complexity and low tracking delay", IEEE
    TASLP 20(4), 2012: fixed priors (presence 0.5, signal 15 dB above the noise); time constants of the paper, for hops
    of 16 ms, converted to ``hop_seconds``.
    """

    start: Power
    hop_seconds: float
    _noise: Power = field(init=False)
    _presence: Power = field(init=False)

    def __post_init__(self) -> None:
        self._noise = self.start.copy()
        self._presence = np.full_like(self.start, 0.5)

    def follow(self, power: Power) -> Power:
        """Noise power of each bin in each of the next frames."""
        hops = self.hop_seconds / 0.016
        out = np.empty_like(power)
        constants = (np.float32(0.8**hops), np.float32(0.9**hops))
        compiled(_presence)(power, self._noise, self._presence, *constants, out)
        return out


def _presence(
    power: Power, noise: Power, presence: Power, keep: np.float32, keep_presence: np.float32, out: Power
) -> None:
    one, high = np.float32(1), np.float32(0.99)
    prior = np.float32(10**1.5)
    slope, odds = prior / (one + prior), one + prior
    tiny = np.float32(1e-30)
    for t in range(len(power)):
        for b in range(power.shape[1]):
            now, before = power[t, b], noise[b]
            ratio = min(now / (before + tiny), np.float32(1e4))
            p = one / (one + odds * np.float32(math.exp(-ratio * slope)))
            smooth = keep_presence * presence[b] + (one - keep_presence) * p
            presence[b] = smooth
            if smooth > high:
                p = min(p, high)
            noise[b] = keep * before + (one - keep) * (p * before + (one - p) * now)
            out[t, b] = noise[b]


_PARTS = 8
"""Parts of the window in which minima are sought."""


@dataclass
class MinimumTracker:
    """Noise followed through the minima of the smoothed power (minimum statistics).

    Martin, "Noise power spectral density estimation based on optimal smoothing and minimum statistics", IEEE TSAP 9(5),
    2001: optimal smoothing (eq. 11 to 13), bias of the minimum from the variance of the smoothed power (eq. 15 to 18),
    minima over 1.5 s in eight parts.
    """

    start: Power
    hop_seconds: float
    _state: npt.NDArray[np.float32] = field(init=False)
    _minima: npt.NDArray[np.float32] = field(init=False)
    _clock: npt.NDArray[np.int64] = field(init=False)
    _level: npt.NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        # smoothed power, its mean, its mean square, noise, least of this part
        self._state = np.stack([self.start, self.start, self.start**2, self.start, np.full_like(self.start, np.inf)])
        self._minima = np.repeat(self.start[None], _PARTS, axis=0)
        self._clock = np.zeros(1, dtype=np.int64)
        self._level = np.ones(1, dtype=np.float32)

    def follow(self, power: Power) -> Power:
        """Noise power of each bin in each of the next frames."""
        part = max(1, round(1.5 / _PARTS / self.hop_seconds))
        out = np.empty_like(power)
        length = part * _PARTS
        shape = _minimum_mean(length)
        compiled(_minimum)(power, self._state, self._minima, self._clock, self._level, part, length, shape, out)
        return out


def _minimum_mean(length: int) -> float:
    """M(D) of Martin's table III, interpolated: what the mean of the least of ``length`` values depends on."""
    lengths = (1, 2, 5, 8, 10, 15, 20, 30, 40, 60, 80, 120, 140, 160)
    means = (0, 0.26, 0.48, 0.58, 0.61, 0.668, 0.705, 0.762, 0.8, 0.841, 0.865, 0.89, 0.9, 0.91)
    return float(np.interp(length, lengths, means))


def _minimum(
    power: Power,
    state: npt.NDArray[np.float32],
    minima: npt.NDArray[np.float32],
    clock: npt.NDArray[np.int64],
    level: npt.NDArray[np.float32],
    part: int,
    length: int,
    shape: float,
    out: Power,
) -> None:
    bins = power.shape[1]
    tiny = 1e-30
    for t in range(len(power)):
        now_sum, smooth_sum = 0.0, 0.0
        for b in range(bins):
            now_sum += power[t, b]
            smooth_sum += state[0, b]
        drift = smooth_sum / (now_sum + tiny) - 1.0
        level[0] = 0.7 * level[0] + 0.3 * max(1.0 / (1.0 + drift * drift), 0.7)
        spread = 0.0
        for b in range(bins):
            over = state[0, b] / (state[3, b] + tiny) - 1.0
            keep = max(0.96 * level[0] / (1.0 + min(over * over, 1e12)), 0.3)
            smooth = keep * state[0, b] + (1.0 - keep) * power[t, b]
            weight = min(keep * keep, 0.8)
            state[0, b] = smooth
            state[1, b] = weight * state[1, b] + (1.0 - weight) * smooth
            state[2, b] = weight * state[2, b] + (1.0 - weight) * smooth * smooth
            variance = max(state[2, b] - state[1, b] * state[1, b], 0.0)
            inverse = min(variance / (2.0 * state[3, b] * state[3, b] + tiny), 0.5)
            spread += inverse
            freedom = (1.0 / max(inverse, 1e-4) - 2.0 * shape) / (1.0 - shape)
            bias = 1.0 + (length - 1) * 2.0 / max(freedom, 1.0)
            state[4, b] = min(state[4, b], smooth * bias)
        correction = 1.0 + 2.12 * math.sqrt(spread / bins)
        for b in range(bins):
            least = state[4, b]
            for k in range(len(minima)):
                least = min(least, minima[k, b])
            state[3, b] = least * correction
            out[t, b] = state[3, b]
        clock[0] += 1
        if clock[0] % part == 0:
            slot = clock[0] // part % len(minima)
            for b in range(bins):
                minima[slot, b] = state[4, b]
                state[4, b] = np.inf
