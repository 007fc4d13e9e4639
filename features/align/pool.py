"""Bring the rows of sequences to the intervals of timelines.

What each policy makes of one interval, of valid rows only:

- ``mean``: the mean of the rows that overlap it, weighted by how long they do;
- ``max``: the largest of them, number by number;
- ``sum``: what of them falls into it, each row spread evenly over its own time: neighbouring intervals add up to what
  one long interval gets. A row at ``ALWAYS`` has no time to be spread over and counts whole in every interval;
- ``first``, ``last``: of the rows that overlap it, the first or last in the order of the sequence (by start);
- ``histogram``: how many of the rows that overlap it have their largest number in each column (the first of equal
  ones): D columns of counts. With ``bins``, edges ``e0 < e1 < .. < eB``: how many have a number in ``[e0, e1)``, ..,
  ``[eB-1, eB]`` (the last one closed), of each column after the other: D * B columns; a number outside counts nowhere.
  A row counts whole in every interval that it overlaps;
- ``nearest``: the row whose centre is nearest to the interval's centre, the earlier of two that are equally near;
- ``linear``: the interval's centre on the line between the centres of the rows before and after it; before the first
  centre and after the last one, that row.

The first six give nothing where no valid row overlaps. ``nearest`` and ``linear`` sample a signal, so they bridge the
gaps between the first and the last valid row; there coverage is 0 and says that the values were read off neighbours.
With a ``tolerance_ns``, ``nearest`` goes as far from the interval's centre as that, to the next edge of the row (0 away
where the row holds at the centre), within the rows and beyond them, and no farther.

An instant, row or interval, is one nanosecond long (``features.align.timeline``); a centre is rounded down to a whole
nanosecond. Sums are taken in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from features.align import kernels
from features.align.timeline import Edges, occupied_end_ns
from features.compiled import compiled
from features.time import ALWAYS
from features.types import FeatureSequence

Policy: TypeAlias = Literal["mean", "max", "sum", "first", "last", "nearest", "linear", "histogram"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]
Bool: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pooling:
    """A policy and its options: ``tolerance_ns`` of ``nearest``, ``bins`` (edges, ascending) of ``histogram``."""

    policy: Policy
    tolerance_ns: int | None = None
    bins: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"pool: policy: got {self.policy!r}, allowed: {', '.join(POLICIES)}")
        if self.tolerance_ns is not None and (self.policy != "nearest" or self.tolerance_ns < 0):
            raise ValueError(f"pool: tolerance_ns: got {self.tolerance_ns}, allowed: >= 0, for nearest only")
        if self.bins is not None:
            ascend = all(left < right for left, right in zip(self.bins[:-1], self.bins[1:], strict=True))
            if self.policy != "histogram" or len(self.bins) < 2 or not ascend or not all(map(math.isfinite, self.bins)):
                raise ValueError(
                    f"pool: bins: got {list(self.bins)}, allowed: two or more ascending edges, for histogram only"
                )

    def width(self, dim: int) -> int:
        """Width of the result for rows of width ``dim``."""
        return dim if self.bins is None else dim * (len(self.bins) - 1)


@dataclass(frozen=True, eq=False, kw_only=True)
class Batch:
    """The rows of ``S`` samples, one sequence after the other; sample ``s`` has ``splits[s]:splits[s + 1]``.

    ``values`` float32 ``[R, D]``; ``start_ns``, ``end_ns`` int64 ``[R]``, ascending by start within a sample; ``valid``
    bool ``[R]``; ``splits`` int64 ``[S + 1]``.
    """

    values: Float32
    start_ns: Int64
    end_ns: Int64
    valid: Bool
    splits: Int64

    @classmethod
    def of(cls, sequences: Sequence[FeatureSequence]) -> Batch:
        """Lay sequences of one width (at least one) side by side; a single one is not copied."""
        if len(sequences) == 1:
            one = sequences[0]
            splits = splits_of([len(one)])
            return cls(values=one.values, start_ns=one.start_ns, end_ns=one.end_ns, valid=one.valid, splits=splits)
        return cls(
            values=np.concatenate([sequence.values for sequence in sequences]),
            start_ns=np.concatenate([sequence.start_ns for sequence in sequences]),
            end_ns=np.concatenate([sequence.end_ns for sequence in sequences]),
            valid=np.concatenate([sequence.valid for sequence in sequences]),
            splits=splits_of([len(sequence) for sequence in sequences]),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Timelines:
    """The intervals of ``S`` samples, one timeline after the other, each ascending by start; as in ``Batch``."""

    start_ns: Int64
    end_ns: Int64
    splits: Int64

    @classmethod
    def of(cls, timelines: Sequence[Edges]) -> Timelines:
        """Lay timelines side by side."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(
            start_ns=np.concatenate([nothing, *(start for start, _ in timelines)]),
            end_ns=np.concatenate([nothing, *(end for _, end in timelines)]),
            splits=splits_of([len(start) for start, _ in timelines]),
        )


def splits_of(lengths: Sequence[int] | Int64) -> Int64:
    """Return where parts of these lengths begin when they lie one after the other, and where the last one ends."""
    splits = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=splits[1:])
    return splits


@dataclass(frozen=True, eq=False, kw_only=True)
class Pooled:
    """What ``n`` intervals get.

    ``values`` float32 ``[n, D]``, zeros where not ``valid``; ``valid`` bool ``[n]``; ``coverage`` float32 ``[n]`` in
    [0, 1]: the share of the interval in which there is a valid row.
    """

    values: Float32
    valid: Bool
    coverage: Float32


def pool_batch(batch: Batch, timelines: Timelines, policy: Policy | Pooling) -> Pooled:
    """Bring each sample of ``batch`` to its own timeline, all of them in one pass.

    Rows and intervals may overlap, repeat, leave gaps and end in any order. Memory is that of the result and of a few
    numbers for each row. Raises ``ValueError`` for an unknown policy, for what is not in order of start, and where an
    interval ends before it starts.
    """
    pooling = policy if isinstance(policy, Pooling) else Pooling(policy)
    if len(batch.splits) != len(timelines.splits):
        got = f"got {len(batch.splits) - 1} sequences and {len(timelines.splits) - 1} timelines"
        raise ValueError(f"pool: {got}, allowed: one timeline for each sequence")
    _check_timelines(timelines)
    if not _ascend(batch.start_ns, batch.splits):
        raise ValueError("pool: rows are not in order of start_ns")
    task = _Task(batch, timelines, pooling)
    values, valid = _POOLERS[pooling.policy](task)
    return Pooled(values=values, valid=valid, coverage=task.overlaps.coverage)


def pool(sequence: FeatureSequence, start_ns: Int64, end_ns: Int64, policy: Policy | Pooling) -> Pooled:
    """Bring one sequence to the intervals ``start_ns, end_ns`` (int64 ``[n]``), which may be in any order.

    The result has their order. Raises ``ValueError`` for an unknown policy and for arrays that are no intervals.
    """
    for name, array in (("start_ns", start_ns), ("end_ns", end_ns)):
        if array.dtype != np.int64 or array.ndim != 1 or len(array) != len(start_ns):
            raise ValueError(
                f"timeline: {name}: got {array.dtype} {list(array.shape)}, allowed: int64 [n], as many each"
            )
    order = None if np.all(start_ns[1:] >= start_ns[:-1]) else np.argsort(start_ns, kind="stable")
    edges = (start_ns, end_ns) if order is None else (start_ns[order], end_ns[order])
    pooled = pool_batch(Batch.of([sequence]), Timelines.of([edges]), policy)
    if order is None:
        return pooled
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Pooled(values=pooled.values[place], valid=pooled.valid[place], coverage=pooled.coverage[place])


def _ascend(array: Int64, splits: Int64) -> bool:
    """Whether each part ascends."""
    goes_back = np.flatnonzero(array[1:] < array[:-1]) + 1
    if not len(goes_back):
        return True
    return bool((splits[np.minimum(np.searchsorted(splits, goes_back), len(splits) - 1)] == goes_back).all())


def _check_timelines(timelines: Timelines) -> None:
    if not _ascend(timelines.start_ns, timelines.splits):
        raise ValueError("timeline: start_ns goes back, allowed: intervals in order of start")
    if np.any(timelines.end_ns < timelines.start_ns):
        raise ValueError("timeline: an interval ends before it starts, allowed: start_ns <= end_ns")


@dataclass(frozen=True, eq=False)
class _Overlaps:
    """Of each interval: its candidates, its first and last valid row (-1: none), its coverage."""

    begin: Int64
    stop: Int64
    first: Int64
    last: Int64
    coverage: Float32


class _Task:
    """Rows, intervals, and what they have to do with one another."""

    def __init__(self, batch: Batch, timelines: Timelines, pooling: Pooling) -> None:
        self.pooling = pooling
        self.values: Float32 = np.require(batch.values, requirements=["C", "A"])
        self.row_start = np.ascontiguousarray(batch.start_ns)
        self.row_end = occupied_end_ns(batch.start_ns, batch.end_ns)
        self.valid = np.ascontiguousarray(batch.valid)
        self.row_splits, self.splits = batch.splits, timelines.splits
        self.start = np.ascontiguousarray(timelines.start_ns)
        self.end = occupied_end_ns(timelines.start_ns, timelines.end_ns)

    @cached_property
    def overlaps(self) -> _Overlaps:
        begin, stop, first, last = (np.empty(len(self.start), dtype=np.int64) for _ in range(4))
        coverage = np.empty(len(self.start), dtype=np.float32)
        rows = (self.row_start, self.row_end, self.valid, self.row_splits)
        found = (begin, stop, first, last, coverage)
        compiled(kernels.overlaps)(*rows, self.start, self.end, self.splits, *found)
        return _Overlaps(*found)

    def zeros(self) -> Float32:
        """The result, to be filled in."""
        width = self.pooling.width(self.values.shape[1])
        return np.zeros((len(self.start), width), dtype=np.float32)

    @property
    def candidates(self) -> tuple[Int64, Bool, Int64, Int64, Int64]:
        return self.row_end, self.valid, self.overlaps.begin, self.overlaps.stop, self.start

    @property
    def valid_intervals(self) -> Bool:
        """Which intervals a valid row overlaps."""
        return np.asarray(self.overlaps.first >= 0)


def _mean(task: _Task) -> tuple[Float32, Bool]:
    out, found = task.zeros(), task.overlaps
    rows = (task.values, task.row_start, task.row_end, task.valid)
    compiled(kernels.mean)(*rows, found.begin, found.stop, task.start, task.end, out)
    return out, task.valid_intervals


def _sum(task: _Task) -> tuple[Float32, Bool]:
    out, found = task.zeros(), task.overlaps
    rows = (task.values, task.row_start, task.row_end, task.valid)
    always = (ALWAYS.start_ns, ALWAYS.end_ns)
    compiled(kernels.add)(*rows, found.begin, found.stop, task.start, task.end, always, out)
    return out, task.valid_intervals


def _max(task: _Task) -> tuple[Float32, Bool]:
    out = task.zeros()
    compiled(kernels.largest)(task.values, *task.candidates, out)
    return out, task.valid_intervals


def _histogram(task: _Task) -> tuple[Float32, Bool]:
    out = task.zeros()
    if task.pooling.bins is None:
        compiled(kernels.count_columns)(task.values, *task.candidates, out)
    else:
        edges = np.array(task.pooling.bins, dtype=np.float64)
        compiled(kernels.count_bins)(task.values, *task.candidates, edges, out)
    return out, task.valid_intervals


def _take(task: _Task, rows: Int64) -> tuple[Float32, Bool]:
    out = task.zeros()
    compiled(kernels.take)(task.values, rows, out)
    return out, np.asarray(rows >= 0)


def _first(task: _Task) -> tuple[Float32, Bool]:
    return _take(task, task.overlaps.first)


def _last(task: _Task) -> tuple[Float32, Bool]:
    return _take(task, task.overlaps.last)


@dataclass(frozen=True, eq=False)
class _Neighbours:
    """The valid rows by centre, and of each interval its own centre and the places of the rows before and after it.

    ``row``: which row of the batch each place is; ``None`` where it is the same.
    """

    row: Int64 | None
    centre: Int64
    splits: Int64
    at: Int64
    before: Int64
    after: Int64
    within: Bool

    def rows(self, places: Int64) -> Int64:
        """Which rows of the batch stand at ``places``."""
        return places if self.row is None else self.row[places]


def _neighbours(task: _Task) -> _Neighbours:
    row, splits, row_start, row_end = None, task.row_splits, task.row_start, task.row_end
    if not task.valid.all():
        row = np.flatnonzero(task.valid).astype(np.int64)
        splits = np.append(0, np.cumsum(task.valid, dtype=np.int64))[splits]
        row_start, row_end = row_start[row], row_end[row]
    centre = _centre(row_start, row_end)
    if not _ascend(centre, splits):
        order = np.lexsort((centre, np.repeat(np.arange(len(splits) - 1), np.diff(splits))))
        row = order.astype(np.int64) if row is None else row[order]
        centre, row_start, row_end = centre[order], row_start[order], row_end[order]
    at = _centre(task.start, task.end)
    before, after = np.full(len(at), -1, dtype=np.int64), np.full(len(at), -1, dtype=np.int64)
    within = np.zeros(len(at), dtype=np.bool_)
    rows = (centre, row_start, row_end, splits)
    compiled(kernels.neighbours)(*rows, task.start, task.end, task.splits, at, before, after, within)
    return _Neighbours(row, centre, splits, at, before, after, within)


def _nearest(task: _Task) -> tuple[Float32, Bool]:
    found = _neighbours(task)
    compiled(kernels.nearer)(found.centre, found.splits, task.splits, found.at, found.before, found.after)
    place = np.flatnonzero(found.before >= 0)
    rows = np.full(len(task.start), -1, dtype=np.int64)
    rows[place] = found.rows(found.before[place])
    tolerance = task.pooling.tolerance_ns
    if tolerance is None:
        rows[~found.within] = -1
    else:
        at, near = found.at[place], rows[place]
        away = np.maximum(_distance(task.row_start[near], at), _distance(at, task.row_end[near] - 1))
        rows[place[away > np.uint64(tolerance)]] = -1
    return _take(task, rows)


def _linear(task: _Task) -> tuple[Float32, Bool]:
    found, out = _neighbours(task), task.zeros()
    place = np.flatnonzero(found.within)
    left, right = found.centre[found.before[place]], found.centre[found.after[place]]
    gap = (right - left).view(np.uint64).astype(np.float64)
    between = (left <= found.at[place]) & (gap > 0)
    ratio = np.zeros(len(found.at), dtype=np.float64)
    passed = (found.at[place] - left).view(np.uint64).astype(np.float64)
    ratio[place[between]] = passed[between] / gap[between]
    before, after = np.full(len(found.at), -1, dtype=np.int64), np.full(len(found.at), -1, dtype=np.int64)
    before[place], after[place] = found.rows(found.before[place]), found.rows(found.after[place])
    compiled(kernels.blend)(task.values, before, after, ratio, out)
    return out, found.within


def _centre(start_ns: Int64, end_ns: Int64) -> Int64:
    """Return ``(start + end) // 2`` without overflow."""
    centre: Int64 = start_ns & end_ns & 1
    centre += start_ns >> 1
    centre += end_ns >> 1
    return centre


def _distance(later: Int64, earlier: Int64) -> npt.NDArray[np.uint64]:
    """How much ``later`` is later than ``earlier``; 0 where it is not."""
    return np.where(later > earlier, (later - earlier).view(np.uint64), np.uint64(0))


_POOLERS: dict[str, Callable[[_Task], tuple[Float32, Bool]]] = {
    "mean": _mean,
    "max": _max,
    "sum": _sum,
    "first": _first,
    "last": _last,
    "nearest": _nearest,
    "linear": _linear,
    "histogram": _histogram,
}
