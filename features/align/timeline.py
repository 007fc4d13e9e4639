"""The intervals that the modalities of one sample are brought to.

A timeline is two int64 arrays ``start_ns, end_ns [n]``: half-open intervals, ascending by start. They may touch,
overlap (analysis windows), lie inside one another (captions of two speakers), repeat or leave gaps.

An instant ``[t, t)`` stands for the one nanosecond ``[t, t + 1)``, in rows and in timelines alike, so that a point
lies in exactly one interval of a grid and needs no law of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from features.errors import Reason, SampleError
from features.time import ALWAYS, NS_PER_SECOND, Span
from features.types import FeatureSequence, Text, TextSegment

Int64: TypeAlias = npt.NDArray[np.int64]
Edges: TypeAlias = tuple[Int64, Int64]
"""``start_ns`` and ``end_ns`` of a timeline."""

Pieces: TypeAlias = Literal["words", "segments", "sentences"]

MAX_INTERVALS = 2**24
"""The longest grid: more than this comes from a broken clock or a wrong step, not from a recording."""

_LONGEST = 2**62

_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")
_CLOSING = "\"'”’»)]"


def occupied_end_ns(start_ns: Int64, end_ns: Int64) -> Int64:
    """Return the ends ``[T]`` with every instant made one nanosecond long."""
    return np.maximum(end_ns, start_ns + 1)


def is_timed(start_ns: Int64, end_ns: Int64) -> npt.NDArray[np.bool_]:
    """Return bool ``[T]``: which rows have a time of their own, i.e. are not at ``ALWAYS``."""
    timed: npt.NDArray[np.bool_] = (start_ns != ALWAYS.start_ns) | (end_ns != ALWAYS.end_ns)
    return timed


def extent(sequences: Iterable[FeatureSequence | None], span: Span | None = None) -> Span:
    """Return the time that a timeline of these sequences covers.

    It is ``span``, the sample's window, where it has one; else the smallest span that holds every timed row of every
    sequence, valid or not. ``None`` (a modality that is missing) and rows at ``ALWAYS`` say nothing about time. When
    nothing is timed the answer is ``ALWAYS``; a window of ``ALWAYS`` counts as no window.
    """
    return extent_of_rows(((found.start_ns, found.end_ns) for found in sequences if found is not None), span)


def extent_of_rows(rows: Iterable[Edges], span: Span | None = None) -> Span:
    """The same for sequences of which only the times ``(start_ns, end_ns)`` are at hand."""
    if span is not None and span != ALWAYS:
        return span
    starts: list[int] = []
    ends: list[int] = []
    for start_ns, end_ns in rows:
        timed = is_timed(start_ns, end_ns)
        if timed.any():
            starts.append(int(start_ns[timed].min()))
            ends.append(int(occupied_end_ns(start_ns, end_ns)[timed].max()))
    return Span(min(starts), max(ends)) if starts else ALWAYS


def extents(start_ns: Int64, end_ns: Int64, splits: Int64) -> Edges:
    """Return for each of ``S`` sequences that lie side by side where its timed rows begin and end, int64 ``[S]``.

    Sequence ``s`` has the rows ``splits[s]:splits[s + 1]``; int64 ``[S + 1]``. One without timed rows begins at the
    largest number and ends at the smallest, so that minima and maxima over several features need no exception.
    """
    none = np.iinfo(np.int64)
    timed = is_timed(start_ns, end_ns)
    first = np.full(len(splits) - 1, none.max, dtype=np.int64)
    last = np.full(len(splits) - 1, none.min, dtype=np.int64)
    some = np.flatnonzero(splits[1:] > splits[:-1])
    if len(some):
        at = splits[some]
        first[some] = np.minimum.reduceat(np.where(timed, start_ns, none.max), at)
        last[some] = np.maximum.reduceat(np.where(timed, occupied_end_ns(start_ns, end_ns), none.min), at)
    return first, last


def grid(extent: Span, length_ns: int, *, hop_ns: int | None = None, phase_ns: int = 0) -> Edges:
    """Lay windows of ``length_ns`` over ``extent`` and return ``(start_ns, end_ns)``, int64 ``[n]``.

    The first begins ``phase_ns`` after ``extent.start_ns``, each of the others ``hop_ns`` (by default the length: they
    tile) after the one before it. A shorter hop makes them overlap, a longer one leaves gaps. The first that reaches
    the end of the extent is the last. All are cut at both ends of the extent, so that coverage is a share of time that
    the sample has. ``ALWAYS`` is one interval; an extent of zero length, or one that ends before the phase, has none.

    Raises ``ValueError`` for a length or hop below 1 and a phase that is not above ``-length_ns``, and
    ``SampleError(TOO_LARGE)`` for more than ``MAX_INTERVALS`` intervals.
    """
    hop_ns = length_ns if hop_ns is None else hop_ns
    if length_ns < 1:
        raise ValueError(f"grid: length_ns: got {length_ns}, allowed: >= 1")
    if hop_ns < 1:
        raise ValueError(f"grid: hop_ns: got {hop_ns}, allowed: >= 1")
    if phase_ns <= -length_ns:
        raise ValueError(f"grid: phase_ns: got {phase_ns}, allowed: > {-length_ns}, minus the length")
    if extent == ALWAYS:
        return np.array([extent.start_ns], dtype=np.int64), np.array([extent.end_ns], dtype=np.int64)
    rest = extent.duration_ns - phase_ns
    count = 0
    if extent.duration_ns > 0 and rest > 0:
        # up to the first window that reaches the end, and none that begins there
        count = min(max(0, -(-(rest - length_ns) // hop_ns)) + 1, -(-rest // hop_ns))
    if count > MAX_INTERVALS:
        raise SampleError(
            Reason.TOO_LARGE,
            f"timeline: got {count} intervals of {length_ns / NS_PER_SECOND:g} s, one every "
            f"{hop_ns / NS_PER_SECOND:g} s, over {extent}, "
            f"allowed: at most {MAX_INTERVALS}; cure: a longer step, or correct the sample's timestamps",
        )
    if not count:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    starts = extent.start_ns + phase_ns + min(hop_ns, _LONGEST) * np.arange(count, dtype=np.int64)
    ends = starts + np.minimum(min(length_ns, _LONGEST), extent.end_ns - starts)
    return np.maximum(starts, extent.start_ns), ends


def ordered(start_ns: Int64, end_ns: Int64) -> Edges:
    """Return intervals in order of (start, end). Raises ``ValueError`` where one ends before it starts."""
    if np.any(end_ns < start_ns):
        raise ValueError("timeline: an interval ends before it starts, allowed: start_ns <= end_ns")
    order = np.lexsort((end_ns, start_ns))
    return np.ascontiguousarray(start_ns[order]), np.ascontiguousarray(end_ns[order])


def rows_of(what: str, start_ns: Int64, end_ns: Int64) -> Edges:
    """Take the rows of a sequence called ``what`` as the timeline: as many intervals, in the same order, valid or not.

    Raises ``SampleError(BAD_TIMESTAMPS)`` where a row has no time of its own.
    """
    untimed = np.flatnonzero(~is_timed(start_ns, end_ns))
    if len(untimed):
        raise SampleError(
            Reason.BAD_TIMESTAMPS,
            f"timeline: {what}: got {len(untimed)} of {len(start_ns)} rows without a time of their own (row "
            f"{untimed[0]} holds always), allowed: timed rows; cure: media with times, or another timeline",
        )
    return start_ns, end_ns


def pieces_of(text: Text, pieces: Pieces) -> Edges:
    """Take the times of a text as the timeline.

    ``segments``: the pieces as the file times them (captions, lines, words). ``words``: the same, and each must be one
    word. ``sentences``: successive pieces are joined up to the one that ends with ``. ! ? …`` (closing quotes and
    brackets may follow); the rest at the end is one, too. A sentence lasts from the first start to the last end.

    Raises ``SampleError(BAD_TIMESTAMPS)`` for text without times, or with several words in one piece for ``words``.
    """
    starts = np.array([segment.span.start_ns for segment in text.segments], dtype=np.int64)
    ends = np.array([segment.span.end_ns for segment in text.segments], dtype=np.int64)
    rows_of("text", starts, ends)
    if pieces == "words":
        _check_words(text.segments)
    if pieces == "sentences" and len(starts):
        closes = [segment.text.rstrip().rstrip(_CLOSING).endswith(_SENTENCE_ENDS) for segment in text.segments]
        first = np.flatnonzero(np.append(True, closes[:-1]))
        return ordered(np.minimum.reduceat(starts, first), np.maximum.reduceat(ends, first))
    return ordered(starts, ends)


def _check_words(segments: tuple[TextSegment, ...]) -> None:
    for segment in segments:
        count = len(segment.text.split())
        if count > 1:
            raise SampleError(
                Reason.BAD_TIMESTAMPS,
                f"timeline: words: got {count} words with one time ({segment.text[:40]!r}, {segment.span}), "
                "allowed: text whose words are timed; cure: text: segments, or captions with word time stamps",
            )
