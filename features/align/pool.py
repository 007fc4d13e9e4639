"""Bring the rows of a sequence to the intervals of a timeline.

What each policy makes of one interval, of valid rows only:

- ``mean``: the mean of the rows that overlap it, weighted by how long they do;
- ``max``: the largest of them, number by number;
- ``sum``: what of them falls into it, each row spread evenly over its own time: neighbouring intervals add up to what
  one long interval gets. A row at ``ALWAYS`` has no time to be spread over and counts whole in every interval;
- ``first``, ``last``: of the rows that overlap it, the first or last in the order of the sequence (by start);
- ``nearest``: the row whose centre is nearest to the interval's centre, the earlier of two that are equally near;
- ``linear``: the interval's centre on the line between the centres of the rows before and after it; before the first
  centre and after the last one, that row.

The first five give nothing where no valid row overlaps. ``nearest`` and ``linear`` sample a signal, so they bridge the
gaps between the first and the last valid row; there coverage is 0 and says that the values were read off neighbours.
An instant, row or interval, is one nanosecond long (``features.align.timeline``); a centre is rounded down to a whole
nanosecond.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from features.align.timeline import extent, grid, occupied_end_ns
from features.errors import Reason, SampleError
from features.time import ALWAYS, Span
from features.types import FeatureSequence

Policy: TypeAlias = Literal["mean", "max", "sum", "first", "last", "nearest", "linear"]
POLICIES: tuple[Policy, ...] = get_args(Policy)

Float32: TypeAlias = npt.NDArray[np.float32]
Float64: TypeAlias = npt.NDArray[np.float64]
Int64: TypeAlias = npt.NDArray[np.int64]
Bool: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False, kw_only=True)
class Pooled:
    """What the ``n`` intervals of a timeline get.

    ``values`` float32 ``[n, D]``, zeros where not ``valid``; ``valid`` bool ``[n]``; ``coverage`` float32 ``[n]`` in
    [0, 1]: the share of the interval in which there is a valid row.
    """

    values: Float32
    valid: Bool
    coverage: Float32


@dataclass(frozen=True, eq=False, kw_only=True)
class Aligned:
    """One modality on the common timeline: ``sequence`` carries its times, ``coverage`` is float32 ``[n]``."""

    sequence: FeatureSequence
    coverage: Float32


def pool(sequence: FeatureSequence, start_ns: Int64, end_ns: Int64, policy: Policy) -> Pooled:
    """Bring ``sequence`` to the timeline ``start_ns, end_ns`` (int64 ``[n]``, both ascending).

    Rows may overlap, repeat, leave gaps and end in any order. Sums are taken in float64. Raises ``ValueError`` for an
    unknown policy and for arrays that are not a timeline.
    """
    if policy not in _POOLERS:
        raise ValueError(f"pool: policy: got {policy!r}, allowed: {', '.join(POLICIES)}")
    _check_timeline(start_ns, end_ns)
    task = _Task(sequence, start_ns, occupied_end_ns(start_ns, end_ns))
    values, valid = _POOLERS[policy](task)
    return Pooled(values=values, valid=valid, coverage=task.coverage())


def align(
    sequences: Mapping[str, FeatureSequence | None],
    dims: Mapping[str, int],
    *,
    step_ns: int,
    policies: Mapping[str, Policy],
    default: Policy = "mean",
    span: Span | None = None,
) -> dict[str, Aligned]:
    """Bring the modalities of one sample to one grid of ``step_ns``: the same number of rows for each of them.

    ``sequences`` holds every modality by name, ``None`` where the sample has none: its rows are all masked. ``dims`` is
    the width of each; ``policies`` names those that are not pooled by ``default``; ``span`` is the sample's window,
    see ``features.align.timeline.extent``. Raises ``ValueError`` for names that do not match and
    ``SampleError(WRONG_WIDTH)`` for a sequence that is not as wide as ``dims`` says.
    """
    if sequences.keys() != dims.keys():
        raise ValueError(f"align: dims: got {sorted(dims)}, allowed: the names of sequences, {sorted(sequences)}")
    if unknown := sorted(policies.keys() - sequences.keys()):
        raise ValueError(f"align: policies: got {', '.join(unknown)}, allowed: {', '.join(sorted(sequences))}")
    start_ns, end_ns = grid(extent(sequences.values(), span), step_ns)
    aligned = {}
    for name, sequence in sequences.items():
        if sequence is None:
            sequence = FeatureSequence.empty(dims[name])  # no rows: every interval is masked
        elif sequence.dim != dims[name]:
            raise SampleError(Reason.WRONG_WIDTH, f"{name}: got width {sequence.dim}, allowed: {dims[name]}")
        pooled = pool(sequence, start_ns, end_ns, policies.get(name, default))
        aligned[name] = Aligned(
            sequence=FeatureSequence(values=pooled.values, start_ns=start_ns, end_ns=end_ns, valid=pooled.valid),
            coverage=pooled.coverage,
        )
    return aligned


def _check_timeline(start_ns: Int64, end_ns: Int64) -> None:
    for name, array in (("start_ns", start_ns), ("end_ns", end_ns)):
        if array.dtype != np.int64 or array.ndim != 1 or len(array) != len(start_ns):
            raise ValueError(
                f"timeline: {name}: got {array.dtype} {list(array.shape)}, allowed: int64 [n], as many each"
            )
        if np.any(array[1:] < array[:-1]):
            raise ValueError(f"timeline: {name} goes back, allowed: starts ascend and ends ascend")
    if np.any(end_ns < start_ns):
        raise ValueError("timeline: an interval ends before it starts, allowed: start_ns <= end_ns")


class _Task:
    """The valid rows of one sequence and the intervals they are brought to; ``row`` maps back to all rows."""

    def __init__(self, sequence: FeatureSequence, start_ns: Int64, end_ns: Int64) -> None:
        self.values: Float32 = np.require(sequence.values, requirements=["C", "A"])
        self.row: Int64 = np.flatnonzero(sequence.valid).astype(np.int64)
        self.row_start: Int64 = sequence.start_ns[self.row]
        self.row_end = occupied_end_ns(self.row_start, sequence.end_ns[self.row])
        self.start_ns = np.ascontiguousarray(start_ns)
        self.end_ns = end_ns

    def nothing(self) -> tuple[Float32, Bool]:
        """Zeros and the mask of no valid interval, to be filled in."""
        n = len(self.start_ns)
        return np.zeros((n, self.values.shape[1]), dtype=np.float32), np.zeros(n, dtype=np.bool_)

    @cached_property
    def reach(self) -> tuple[Int64, Int64]:
        """Return for each row the intervals ``[begin, stop)`` that it shares time with: neighbours, as edges ascend."""
        begin = np.searchsorted(self.end_ns, self.row_start, side="right")
        stop = np.searchsorted(self.start_ns, self.row_end, side="left")
        return begin, stop

    def coverage(self) -> Float32:
        """Share of each interval in which there is a valid row, whatever the rows have in common."""
        if not len(self.row):
            return np.zeros(len(self.start_ns), dtype=np.float32)
        reach = np.maximum.accumulate(self.row_end)
        opens = np.flatnonzero(np.append(True, self.row_start[1:] > reach[:-1]))
        segment_start = self.row_start[opens]
        segment_end = reach[np.append(opens[1:] - 1, len(reach) - 1)]
        before = np.append(0, np.cumsum(segment_end - segment_start))

        def covered_before(time: Int64) -> Int64:
            k = np.searchsorted(segment_start, time, side="right")
            end = segment_end[np.maximum(k - 1, 0)]
            covered: Int64 = before[k] - np.where(k > 0, end - np.minimum(end, time), 0)
            return covered

        covered = _length(covered_before(self.end_ns) - covered_before(self.start_ns))
        return (covered / _length(self.end_ns - self.start_ns)).astype(np.float32)

    @cached_property
    def centres(self) -> tuple[Int64, Int64]:
        """Return the centres of the rows, ascending, and the row that each belongs to."""
        centre = _centre(self.row_start, self.row_end)
        order = np.argsort(centre, kind="stable")
        return centre[order], self.row[order]

    def within(self) -> Int64:
        """Return the intervals that overlap the time from the first to the last valid row."""
        if not len(self.row):
            return np.zeros(0, dtype=np.int64)
        inside = (self.end_ns > self.row_start[0]) & (self.start_ns < self.row_end.max())
        return np.flatnonzero(inside).astype(np.int64)


def _length(difference: Int64) -> Float64:
    """Read a difference of two instants as a length: up to 2**63, which int64 wraps and uint64 holds."""
    return difference.view(np.uint64).astype(np.float64)


def _centre(start_ns: Int64, end_ns: Int64) -> Int64:
    """Return ``(start + end) // 2`` without overflow."""
    centre: Int64 = (start_ns >> 1) + (end_ns >> 1) + (start_ns & end_ns & 1)
    return centre


def _add_rows(
    values: Float32,
    row: Int64,
    begin: Int64,
    stop: Int64,
    row_start: Int64,
    row_end: Int64,
    start_ns: Int64,
    end_ns: Int64,
    length: Float64,
    total: Float64,
    weight: Float64,
) -> None:
    """Add each row to its intervals, weighted by the share of ``length`` that it spends there (whole if that is 0)."""
    for k in range(len(row)):
        source = values[row[k]]
        for j in range(begin[k], stop[k]):
            share = 1.0
            if length[k] > 0:
                share = np.float64(np.uint64(min(row_end[k], end_ns[j]) - max(row_start[k], start_ns[j]))) / length[k]
            weight[j] += share
            into = total[j]
            for d in range(len(source)):
                into[d] += share * source[d]


def _raise_to_rows(values: Float32, row: Int64, begin: Int64, stop: Int64, largest: Float32) -> None:
    """Raise ``largest`` to each row of its intervals; NaN stays."""
    for k in range(len(row)):
        source = values[row[k]]
        for j in range(begin[k], stop[k]):
            into = largest[j]
            for d in range(len(source)):
                into[d] = source[d] if source[d] > into[d] or source[d] != source[d] else into[d]


def _mark_rows(begin: Int64, stop: Int64, first: Int64, last: Int64) -> None:
    """Note for each interval the first and the last of its rows."""
    for k in range(len(begin)):
        for j in range(begin[k], stop[k]):
            if first[j] < 0:
                first[j] = k
            last[j] = k


@cache
def _compiled(kernel: Callable[..., None]) -> Callable[..., None]:
    """Compile a kernel on its first use in this process (numba takes a second to import and to compile)."""
    import numba

    machine_code: Callable[..., None] = numba.njit(nogil=True)(kernel)
    return machine_code


def _added(task: _Task, length: Float64) -> tuple[Float64, Float64]:
    begin, stop = task.reach
    total = np.zeros((len(task.start_ns), task.values.shape[1]), dtype=np.float64)
    weight = np.zeros(len(task.start_ns), dtype=np.float64)
    edges = (task.row_start, task.row_end, task.start_ns, task.end_ns)
    _compiled(_add_rows)(task.values, task.row, begin, stop, *edges, length, total, weight)
    return total, weight


def _mean(task: _Task) -> tuple[Float32, Bool]:
    total, weight = _added(task, np.ones(len(task.row), dtype=np.float64))
    valid = weight > 0
    return (total / np.where(valid, weight, 1)[:, None]).astype(np.float32), valid


def _sum(task: _Task) -> tuple[Float32, Bool]:
    always = (task.row_start == ALWAYS.start_ns) & (task.row_end == ALWAYS.end_ns)
    total, weight = _added(task, np.where(always, 0.0, _length(task.row_end - task.row_start)))
    return total.astype(np.float32), weight > 0


def _max(task: _Task) -> tuple[Float32, Bool]:
    first, _ = _marked(task)
    valid = first >= 0
    largest = np.full((len(valid), task.values.shape[1]), -np.inf, dtype=np.float32)
    _compiled(_raise_to_rows)(task.values, task.row, *task.reach, largest)
    largest[~valid] = 0
    return largest, valid


def _marked(task: _Task) -> tuple[Int64, Int64]:
    first = np.full(len(task.start_ns), -1, dtype=np.int64)
    last = first.copy()
    _compiled(_mark_rows)(*task.reach, first, last)
    return first, last


def _first(task: _Task) -> tuple[Float32, Bool]:
    first, _ = _marked(task)
    intervals = np.flatnonzero(first >= 0)
    return _pick(task, intervals, task.row[first[intervals]])


def _last(task: _Task) -> tuple[Float32, Bool]:
    _, last = _marked(task)
    intervals = np.flatnonzero(last >= 0)
    return _pick(task, intervals, task.row[last[intervals]])


def _nearest(task: _Task) -> tuple[Float32, Bool]:
    intervals = task.within()
    if not len(intervals):
        return task.nothing()
    centre, row = task.centres
    at, before, after = _neighbours(task, intervals)
    # Of rows with the same centre the first in the sequence is meant; `before` points at the last of them.
    before = np.searchsorted(centre, centre[before], side="left")
    to_before = np.where(centre[before] <= at, at - centre[before], centre[before] - at).view(np.uint64)
    to_after = np.where(centre[after] <= at, at - centre[after], centre[after] - at).view(np.uint64)
    return _pick(task, intervals, row[np.where(to_after < to_before, after, before)])


def _linear(task: _Task) -> tuple[Float32, Bool]:
    values, valid = task.nothing()
    intervals = task.within()
    if not len(intervals):
        return values, valid
    centre, row = task.centres
    at, before, after = _neighbours(task, intervals)
    gap = _length(centre[after] - centre[before])
    inside = (centre[before] <= at) & (gap > 0)
    ratio = np.zeros(len(at), dtype=np.float64)
    ratio[inside] = _length(at - centre[before])[inside] / gap[inside]
    values[intervals] = task.values[row[before]] * (1 - ratio)[:, None] + task.values[row[after]] * ratio[:, None]
    valid[intervals] = True
    return values, valid


def _neighbours(task: _Task, intervals: Int64) -> tuple[Int64, Any, Any]:
    """Return the centre of each interval and the places in ``task.centres`` of the rows before and after it.

    Before is the last centre that is not later, after the first one that is; where there is none, both are the other.
    """
    centre, _ = task.centres
    at = _centre(task.start_ns[intervals], task.end_ns[intervals])
    after = np.searchsorted(centre, at, side="right")
    last = len(centre) - 1
    return at, np.where(after == 0, 0, after - 1), np.minimum(after, last)


def _pick(task: _Task, intervals: Int64, rows: Int64) -> tuple[Float32, Bool]:
    values, valid = task.nothing()
    values[intervals] = task.values[rows]
    valid[intervals] = True
    return values, valid


_POOLERS: dict[str, Callable[[_Task], tuple[Float32, Bool]]] = {
    "mean": _mean,
    "max": _max,
    "sum": _sum,
    "first": _first,
    "last": _last,
    "nearest": _nearest,
    "linear": _linear,
}
