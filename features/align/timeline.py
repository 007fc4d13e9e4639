"""The intervals that the modalities of one sample are brought to.

A timeline is two int64 arrays ``start_ns, end_ns [n]``: half-open intervals whose starts and whose ends both ascend.
They may touch, overlap (analysis frames) or leave gaps. A feature's own rows are a timeline when its ends ascend.

An instant ``[t, t)`` stands for the one nanosecond ``[t, t + 1)``, in rows and in timelines alike, so that a point
lies in exactly one interval of a grid and needs no law of its own.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from features.errors import Reason, SampleError
from features.time import ALWAYS, NS_PER_SECOND, Span
from features.types import FeatureSequence

MAX_INTERVALS = 2**24
"""The longest grid: more than this comes from a broken clock or a wrong step, not from a recording."""


def occupied_end_ns(start_ns: npt.NDArray[np.int64], end_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the ends ``[T]`` with every instant made one nanosecond long."""
    return np.maximum(end_ns, start_ns + 1)


def timed_rows(sequence: FeatureSequence) -> npt.NDArray[np.bool_]:
    """Return bool ``[T]``: which rows have a time of their own, i.e. are not at ``ALWAYS``."""
    timed: npt.NDArray[np.bool_] = (sequence.start_ns != ALWAYS.start_ns) | (sequence.end_ns != ALWAYS.end_ns)
    return timed


def extent(sequences: Iterable[FeatureSequence | None], span: Span | None = None) -> Span:
    """Return the time that a timeline of these sequences covers.

    It is ``span``, the sample's window, where it has one; else the smallest span that holds every timed row of every
    sequence, valid or not. ``None`` (a modality that is missing) and rows at ``ALWAYS`` say nothing about time. When
    nothing is timed the answer is ``ALWAYS``; a window of ``ALWAYS`` counts as no window.
    """
    if span is not None and span != ALWAYS:
        return span
    starts: list[int] = []
    ends: list[int] = []
    for sequence in sequences:
        timed = timed_rows(sequence) if sequence is not None else np.zeros(0, dtype=np.bool_)
        if sequence is not None and timed.any():
            starts.append(int(sequence.start_ns[timed].min()))
            ends.append(int(occupied_end_ns(sequence.start_ns, sequence.end_ns)[timed].max()))
    return Span(min(starts), max(ends)) if starts else ALWAYS


def grid(extent: Span, step_ns: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut ``extent`` into intervals of ``step_ns`` and return ``(start_ns, end_ns)``, int64 ``[n]``.

    The first begins at ``extent.start_ns``; each begins where the one before it ends; the last is cut at
    ``extent.end_ns``, so that coverage is a share of time that the sample has. ``ALWAYS`` is one interval; an extent of
    zero length has none. Raises ``ValueError`` for a step below 1 and ``SampleError(TOO_LARGE)`` for more than
    ``MAX_INTERVALS`` intervals.
    """
    if step_ns < 1:
        raise ValueError(f"grid: step_ns: got {step_ns}, allowed: >= 1")
    if extent == ALWAYS:
        return np.array([extent.start_ns], dtype=np.int64), np.array([extent.end_ns], dtype=np.int64)
    intervals = -(-extent.duration_ns // step_ns)
    if intervals > MAX_INTERVALS:
        raise SampleError(
            Reason.TOO_LARGE,
            f"timeline: got {intervals} intervals of {step_ns / NS_PER_SECOND:g} s over {extent}, "
            f"allowed: at most {MAX_INTERVALS}; cure: a longer step, or correct the sample's timestamps",
        )
    edges = extent.start_ns + step_ns * np.arange(intervals, dtype=np.int64)
    return edges, np.append(edges[1:], np.full(min(1, intervals), extent.end_ns, dtype=np.int64))
