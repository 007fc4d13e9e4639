"""Clocks: streams of one sample that were recorded by different ones, brought to one; and what they disagree on.

A stream's clock is corrected by ``t' = t + offset + t * drift_ppm / 1e6``. What holds always has no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.align.pool import pool
from features.align.timeline import Edges, Int64, grid, is_timed, occupied_end_ns
from features.time import NS_PER_SECOND, Span
from features.types import FeatureSequence

Float64 = npt.NDArray[np.float64]

STEP_NS = NS_PER_SECOND // 100
"""The step at which two signals are compared: a quarter of a video frame."""

MOST_PPM = 100_000.0
"""No clock is off by more than a tenth; other factors are a matter of resampling."""


def corrected(times: Int64, offset_ns: int | Int64, drift_ppm: float = 0.0) -> Int64:
    """Return ``times`` (int64 ``[T]``, ns) on the corrected clock; ``offset_ns`` is one number, or one for each.

    Order is kept: a drift below ``MOST_PPM`` turns no two instants round. Raises ``ValueError`` for more.
    """
    if not abs(drift_ppm) <= MOST_PPM:
        raise ValueError(f"clock: drift_ppm: got {drift_ppm}, allowed: -{MOST_PPM:g} to {MOST_PPM:g}")
    moved = times + offset_ns
    if drift_ppm:
        moved = moved + np.floor(times * (drift_ppm / 1e6) + 0.5).astype(np.int64)
    return np.asarray(moved, dtype=np.int64)


def corrected_rows(start_ns: Int64, end_ns: Int64, offset_ns: int | Int64, drift_ppm: float = 0.0) -> Edges:
    """Return the times of rows on the corrected clock; rows at ``ALWAYS`` stay there."""
    timed = is_timed(start_ns, end_ns)
    start, end = (corrected(times, offset_ns, drift_ppm) for times in (start_ns, end_ns))
    return np.where(timed, start, start_ns), np.where(timed, end, end_ns)


@dataclass(frozen=True)
class Held:
    """The time that a stream of a sample holds, from its first row to the end of the last, and how much is empty."""

    span: Span
    gaps_ns: int


def held(rows: Iterable[Edges]) -> Held | None:
    """Return the time that rows (those of all features of a stream) hold; ``None`` where none has a time of its own."""
    starts, ends = [], []
    for start_ns, end_ns in rows:
        timed = is_timed(start_ns, end_ns)
        starts.append(start_ns[timed])
        ends.append(occupied_end_ns(start_ns, end_ns)[timed])
    start = np.concatenate(starts) if starts else np.zeros(0, dtype=np.int64)
    if not len(start):
        return None
    order = np.argsort(start, kind="stable")
    start, reach = start[order], np.maximum.accumulate(np.concatenate(ends)[order])
    gaps = np.maximum(start[1:] - reach[:-1], 0)
    return Held(Span(int(start[0]), int(reach[-1])), int(gaps.sum()))


@dataclass(frozen=True, kw_only=True)
class OffsetEstimate:
    """How far a stream must be moved to fit another one.

    ``offset_ns`` is added to its times. ``correlation`` is what the two then have in common (1: all, 0: nothing).
    ``confidence``, 0 to 1, is how much more that is than at the best rival: another offset with a peak of its own.
    """

    offset_ns: int
    correlation: float
    confidence: float


UNKNOWN = OffsetEstimate(offset_ns=0, correlation=0.0, confidence=0.0)
"""Nothing can be said: too short, constant, or best at the edge of what was searched."""


def rise(signal: FeatureSequence) -> FeatureSequence:
    """Return the onset envelope of a level ``[T, 1]``, such as log energy: how much each row is above the last.

    Falls count as 0, as in the half-wave rectified spectral flux (Dixon 2006); the first row, and one after a row that
    is not valid, are not valid.
    """
    up = np.zeros_like(signal.values)
    up[1:] = np.maximum(np.diff(signal.values, axis=0), 0)
    valid = signal.valid.copy()
    valid[1:] &= signal.valid[:-1]
    valid[:1] = False
    up[~valid] = 0
    return FeatureSequence(values=up, start_ns=signal.start_ns, end_ns=signal.end_ns, valid=valid)


def estimate_offset(moving: FeatureSequence, fixed: FeatureSequence, *, max_offset_ns: int) -> OffsetEstimate:
    """Estimate by how much the times of ``moving`` must change so that it rises and falls with ``fixed``.

    Both are one number a row, ``[T, 1]``: an onset envelope of sound and the motion energy of a picture, say, whose
    events coincide. They are laid on one grid of ``STEP_NS`` (means by overlap; time without a valid row counts as the
    mean), and the offset within ``max_offset_ns`` whose normalised cross-correlation is highest is refined between
    steps by a parabola. The two must share at least twice ``max_offset_ns``, else the answer is ``UNKNOWN``; so it is
    when one of them does not change, or when the best offset lies at the edge of what was searched. Rows cannot be
    told apart more finely than they are long: the estimate is as good as a fraction of the longer ones.

    The confidence is the highest correlation less the highest beside its own hill, which ends where it stops falling on
    either side. Chance decides between equal hills: then it is 0.

    Raises ``ValueError`` for rows that are not one number wide, and for an offset below one step.
    """
    if moving.dim != 1 or fixed.dim != 1:
        raise ValueError(f"clock: got rows of width {moving.dim} and {fixed.dim}, allowed: 1; cure: choose a column")
    reach = max_offset_ns // STEP_NS
    if reach < 1:
        raise ValueError(f"clock: max_offset_ns: got {max_offset_ns}, allowed: >= {STEP_NS}")
    spans = [held([(one.start_ns[one.valid], one.end_ns[one.valid])]) for one in (moving, fixed)]
    if spans[0] is None or spans[1] is None or spans[0].span.overlap_ns(spans[1].span) < 2 * max_offset_ns:
        return UNKNOWN
    first = min(found.span.start_ns for found in spans if found is not None)
    last = max(found.span.end_ns for found in spans if found is not None)
    edges = grid(Span(first, last), STEP_NS)
    a, b = _standardised(moving, edges), _standardised(fixed, edges)
    if a is None or b is None:
        return UNKNOWN
    correlation = _correlation(a, b, reach)
    best = int(np.argmax(correlation))
    if best in (0, len(correlation) - 1) or correlation[best] <= 0:
        return UNKNOWN
    rival = _beside_the_hill(correlation, best)
    shift = (best - reach) * STEP_NS + _vertex(correlation[best - 1 : best + 2]) * STEP_NS
    return OffsetEstimate(
        offset_ns=round(shift),
        correlation=float(min(1.0, correlation[best])),
        confidence=float(np.clip(correlation[best] - max(0.0, rival), 0.0, 1.0)),
    )


def _standardised(signal: FeatureSequence, edges: Edges) -> Float64 | None:
    """The signal on the grid with mean 0 and deviation 1; 0 where it is not known; ``None`` where it is constant."""
    pooled = pool(signal, *edges, "mean")
    values = pooled.values[:, 0].astype(np.float64)
    known = values[pooled.valid]
    spread = known.std() if len(known) else 0.0
    if not spread > 1e-9 * np.abs(known).max(initial=0.0):
        return None
    values = (values - known.mean()) / spread
    return np.where(pooled.valid, values, 0.0)


def _correlation(moving: Float64, fixed: Float64, reach: int) -> Float64:
    """Normalised correlation of ``fixed`` and ``moving``, the latter moved by -reach .. reach steps."""
    total = len(fixed)
    lags = np.arange(-reach, reach + 1)
    products = np.correlate(np.pad(moving, reach), fixed, mode="valid")[::-1]
    energy = [np.append(0.0, np.cumsum(signal**2)) for signal in (moving, fixed)]
    first, length = np.maximum(0, -lags), total - np.abs(lags)  # where what is shared begins in moving, in fixed + lags
    shared = [energy[k][at + length] - energy[k][at] for k, at in ((0, first), (1, first + lags))]
    scale = np.sqrt(np.maximum(shared[0], 0.0) * np.maximum(shared[1], 0.0))
    found = np.zeros(len(lags), dtype=np.float64)
    np.divide(products, scale, out=found, where=scale > 0)
    return found


def _beside_the_hill(correlation: Float64, best: int) -> float:
    """The highest correlation outside of the hill that ``best`` is the top of; 0 where there is none."""
    left = best
    while left > 0 and correlation[left - 1] <= correlation[left]:
        left -= 1
    right = best
    while right < len(correlation) - 1 and correlation[right + 1] <= correlation[right]:
        right += 1
    return float(np.concatenate([correlation[:left], correlation[right + 1 :]]).max(initial=0.0))


def _vertex(three: Float64) -> float:
    """Where the parabola through three points, the middle one highest, has its top: -0.5 to 0.5 of a step."""
    left, middle, right = (float(value) for value in three)
    bend = left - 2 * middle + right
    return 0.0 if bend == 0 else 0.5 * (left - right) / bend
