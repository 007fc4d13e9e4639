"""Gains that attenuate noise: for every bin of every frame a number between a floor and one.

``power`` is float32 ``[T, bins]`` of the next frames of one signal; ``noise`` is its noise power, float32 ``[T, bins]``
or ``[1, bins]`` where it is the same in all of them. ``before`` float32 ``[bins]`` carries the power of the signal that
was found in the frame before, over the noise. The loops are compiled on their first use in a process.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from features.compiled import compiled

Power = npt.NDArray[np.float32]

CLEAN = 1e10
"""Ratio of a bin's power to the noise's beyond which nothing is gained; where there is no noise at all, it is this."""

_TINY = float(np.finfo(np.float32).tiny)
_EULER = 0.57721566490153286


def wiener(power: Power, noise: Power, before: Power, *, smoothing: float, floor: float) -> Power:
    """Wiener gain ``xi / (1 + xi)`` with the decision-directed a-priori ratio ``xi``.

    Ephraim and Malah, "Speech enhancement using a minimum mean-square error short-time spectral amplitude estimator",
    IEEE TASSP 32, 1984; ``smoothing`` is the weight of the frame before.
    """
    gain = np.empty_like(power)
    constants = (np.float32(smoothing), np.float32(floor / (1 - floor)))
    compiled(_wiener)(power, noise, before, *constants, gain)
    return gain


def _wiener(power: Power, noise: Power, before: Power, smoothing: np.float32, least: np.float32, gain: Power) -> None:
    one, zero, fresh = np.float32(1), np.float32(0), np.float32(1) - smoothing
    tiny, most = np.float32(_TINY), np.float32(CLEAN)
    for t in range(len(power)):
        now, level, out = power[t], noise[t % len(noise)], gain[t]
        for b in range(len(now)):
            ratio = min(now[b] / max(level[b], tiny), most)
            prior = max(smoothing * before[b] + fresh * max(ratio - one, zero), least)
            out[b] = prior / (prior + one)
            before[b] = out[b] * out[b] * ratio


def log_spectral(power: Power, noise: Power, before: Power, *, smoothing: float, floor: float, absence: float) -> Power:
    """MMSE gain of the log-spectral amplitude, weighed by the probability that the bin holds speech (OM-LSA).

    ``G = G1 ** p * floor ** (1 - p)`` with ``G1 = xi / (1 + xi) * exp(E1(v) / 2)``, ``v = ratio * xi / (1 + xi)``
    (Ephraim and Malah 1985) and ``p = 1 / (1 + absence / (1 - absence) * (1 + xi) * exp(-v))`` (Cohen and Berdugo,
    "Speech enhancement for non-stationary noise environments", Signal Processing 81, 2001, with a fixed prior).
    """
    gain = np.empty_like(power)
    constants = (np.float32(smoothing), np.float32(floor), np.float32(absence / (1 - absence)))
    compiled(_log_spectral)(power, noise, before, *constants, *_tables(), gain)
    return gain


_FIRST, _LAST, _SHIFT = -20, 6, 19
"""The tables run from ``2 ** -20`` to ``2 ** 6``, in 16 steps an octave: the upper bits of a float32 are the index."""


def _log_spectral(
    power: Power,
    noise: Power,
    before: Power,
    smoothing: np.float32,
    floor: np.float32,
    odds: np.float32,
    half_e1: Power,
    decay: Power,
    gain: Power,
) -> None:
    one, zero, fresh = np.float32(1), np.float32(0), np.float32(1) - smoothing
    tiny, most, least = np.float32(_TINY), np.float32(CLEAN), np.float32(1e-3)
    bins = power.shape[1]
    exponents, priors = np.empty(bins, np.float32), np.empty(bins, np.float32)
    bits = exponents.view(np.int32)
    lowest, highest = np.float32(2.0**_FIRST), np.float32(2.0**_LAST * 0.999)
    origin = np.int32((127 + _FIRST) << (23 - _SHIFT))
    mask, unit = np.int32((1 << _SHIFT) - 1), np.float32(1.0 / (1 << _SHIFT))
    log_floor = np.float32(math.log(floor))
    for t in range(len(power)):
        now, level, out = power[t], noise[t % len(noise)], gain[t]
        for b in range(bins):
            ratio = min(now[b] / max(level[b], tiny), most)
            prior = max(smoothing * before[b] + fresh * max(ratio - one, zero), least)
            priors[b] = prior
            out[b] = ratio
            exponents[b] = min(max(ratio * prior / (one + prior), lowest), highest)
        for b in range(bins):
            cell = (bits[b] >> _SHIFT) - origin
            share = np.float32(bits[b] & mask) * unit
            log_more = half_e1[cell] + share * (half_e1[cell + 1] - half_e1[cell])
            faded = decay[cell] + share * (decay[cell + 1] - decay[cell])
            prior = priors[b]
            log_gain = min(np.float32(math.log(prior / (one + prior))) + log_more, zero)
            presence = one / (one + odds * (one + prior) * faded)
            heard = np.float32(math.exp(log_gain))
            before[b] = heard * heard * out[b]
            out[b] = max(np.float32(math.exp(log_floor + presence * (log_gain - log_floor))), floor)


@lru_cache(maxsize=1)
def _tables() -> tuple[Power, Power]:
    """``E1(v) / 2`` and ``exp(-v)`` at the steps of the tables."""
    octaves = np.repeat(2.0 ** np.arange(_FIRST, _LAST + 1), 16)
    nodes = octaves * np.tile(1 + np.arange(16) / 16, _LAST + 1 - _FIRST)
    half = np.array([exponential_integral(float(v)) / 2 for v in nodes], dtype=np.float32)
    return half, np.exp(-nodes).astype(np.float32)


def exponential_integral(v: float) -> float:
    """``E1(v)`` for ``v > 0``: its series below 1, a continued fraction above (Abramowitz and Stegun 5.1)."""
    if v <= 1:
        total, term = -_EULER - math.log(v), 1.0
        for k in range(1, 25):
            term *= -v / k
            total -= term / k
        return total
    fraction = 0.0
    for k in range(60, 0, -1):
        fraction = k / (1 + k / (v + fraction))
    return math.exp(-v) / (v + fraction)


def subtraction(power: Power, noise: Power, *, factor: float, floor: float) -> Power:
    """Power subtraction: ``sqrt(1 - factor * noise / power)``.

    Berouti, Schwartz and Makhoul, "Enhancement of speech corrupted by acoustic noise", ICASSP 1979.
    """
    with np.errstate(over="ignore"):  # far below the noise: the floor
        share = np.float32(factor) * noise / np.maximum(power, np.float32(_TINY))
    return np.sqrt(np.maximum(np.float32(1) - share, np.float32(floor**2)))


def gate(power: Power, noise: Power, *, threshold_db: float, frames: int, bins: int, floor: float) -> Power:
    """A mask that is open where a bin lies ``threshold_db`` above the noise, averaged over ``frames`` and ``bins``.

    As in Sainburg's ``noisereduce``. ``frames // 2`` rows more at both ends are wanted than there are rows in the
    result: a row that stands for nothing has zero power, and is closed.
    """
    is_open = (power > np.float32(10 ** (threshold_db / 10)) * noise).astype(np.float32)
    sums = np.cumsum(np.pad(is_open, ((1, 0), (0, 0))), axis=0)
    mask = sums[frames:] - sums[:-frames]
    half = bins // 2
    sums = np.cumsum(np.pad(mask, ((0, 0), (half + 1, half))), axis=1)
    mask = (sums[:, bins:] - sums[:, :-bins]) / np.float32(frames * bins)
    found: Power = (mask * np.float32(1 - floor) + np.float32(floor)).astype(np.float32)
    return found
