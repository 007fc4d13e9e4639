"""Loops over rows and intervals, written plainly and compiled on first use (``features.compiled``).

Every kernel takes the concatenated rows and intervals of many samples; ``row_splits`` and ``splits``, int64 [S + 1],
say where those of each sample begin. Rows and intervals ascend by start within a sample; no end equals its start.
Differences of times are up to 2**63: int64 wraps them, and uint64 reads them right.

The candidates ``[begin, stop)`` of an interval are found by walking along both. Where the ends of rows ascend, as those
of frames do, all valid candidates overlap the interval; behind a row that outlasts the next ones, some may not and are
passed by. Time is O(rows + intervals + candidates).
"""

from __future__ import annotations

from typing import Any

import numpy as np


def overlaps(
    row_start: Any,
    row_end: Any,
    valid: Any,
    row_splits: Any,
    start: Any,
    end: Any,
    splits: Any,
    begin: Any,
    stop: Any,
    first: Any,
    last: Any,
    coverage: Any,
) -> None:
    """Find for each interval its candidates, its first and last valid row (-1: none), and the share that they cover."""
    for s in range(len(splits) - 1):
        low, rows = row_splits[s], row_splits[s + 1]
        for j in range(splits[s], splits[s + 1]):
            since, until = start[j], end[j]
            while low < rows and (not valid[low] or row_end[low] <= since):
                low += 1
            begin[j] = low
            earliest, latest = -1, -1
            covered = np.int64(0)
            seen = since
            i = low
            while i < rows and row_start[i] < until:
                if valid[i] and row_end[i] > since:
                    if earliest < 0:
                        earliest = i
                    latest = i
                    reach = min(row_end[i], until)
                    if reach > seen:
                        covered += reach - max(row_start[i], seen)
                        seen = reach
                i += 1
            stop[j], first[j], last[j] = i, earliest, latest
            coverage[j] = np.float64(np.uint64(covered)) / np.float64(np.uint64(until - since))


def mean(
    values: Any,
    row_start: Any,
    row_end: Any,
    valid: Any,
    begin: Any,
    stop: Any,
    start: Any,
    end: Any,
    out: Any,
) -> None:
    """Average the rows of each interval, weighted by the time that they share with it, in float64."""
    width = values.shape[1]
    total = np.empty(width, np.float64)
    for j in range(len(start)):
        since, until = start[j], end[j]
        weight = 0.0
        total[:] = 0.0
        for i in range(begin[j], stop[j]):
            if valid[i] and row_end[i] > since:
                shared = min(row_end[i], until) - max(row_start[i], since)
                share = np.float64(shared) if shared > 0 else np.float64(shared) + 2.0**64  # int64 has wrapped
                for d in range(width):
                    total[d] += share * values[i, d]
                weight += share
        if weight > 0.0:
            for d in range(width):
                out[j, d] = total[d] / weight


def add(
    values: Any,
    row_start: Any,
    row_end: Any,
    valid: Any,
    begin: Any,
    stop: Any,
    start: Any,
    end: Any,
    always: Any,
    out: Any,
) -> None:
    """Sum the rows of each interval, each by the share of its time that it spends there.

    A row of ``always`` (start, end) counts whole.
    """
    width = values.shape[1]
    total = np.empty(width, np.float64)
    for j in range(len(start)):
        since, until = start[j], end[j]
        total[:] = 0.0
        for i in range(begin[j], stop[j]):
            if valid[i] and row_end[i] > since:
                share = 1.0
                inside = row_start[i] >= since and row_end[i] <= until
                if not inside and not (row_start[i] == always[0] and row_end[i] == always[1]):
                    shared = np.float64(np.uint64(min(row_end[i], until) - max(row_start[i], since)))
                    share = shared / np.float64(np.uint64(row_end[i] - row_start[i]))
                for d in range(width):
                    total[d] += share * values[i, d]
        for d in range(width):
            out[j, d] = total[d]


def largest(values: Any, row_end: Any, valid: Any, begin: Any, stop: Any, start: Any, out: Any) -> None:
    """Take the largest number of each column of each interval's rows; NaN stays."""
    width = values.shape[1]
    for j in range(len(start)):
        fresh = True
        for i in range(begin[j], stop[j]):
            if valid[i] and row_end[i] > start[j]:
                for d in range(width):
                    number, so_far = values[i, d], out[j, d]
                    out[j, d] = number if fresh or number > so_far or number != number else so_far
                fresh = False


def count_columns(values: Any, row_end: Any, valid: Any, begin: Any, stop: Any, start: Any, out: Any) -> None:
    """Count for each interval the rows whose largest number is in each column (the first of equals; NaN is none)."""
    width = values.shape[1]
    for j in range(len(start)):
        for i in range(begin[j], stop[j]):
            if valid[i] and row_end[i] > start[j]:
                best, most = -1, np.float32(-np.inf)
                for d in range(width):
                    number = values[i, d]
                    if number > most or (best < 0 and number == most):
                        best, most = d, number
                if best >= 0:
                    out[j, best] += 1


def count_bins(values: Any, row_end: Any, valid: Any, begin: Any, stop: Any, start: Any, edges: Any, out: Any) -> None:
    """Count for each interval and column the rows in each bin ``[edge, next edge)``; the last bin is closed."""
    width, bins = values.shape[1], len(edges) - 1
    for j in range(len(start)):
        for i in range(begin[j], stop[j]):
            if valid[i] and row_end[i] > start[j]:
                for d in range(width):
                    number = values[i, d]
                    if edges[0] <= number <= edges[bins]:
                        bin_ = min(np.searchsorted(edges, number, side="right") - 1, bins - 1)
                        out[j, d * bins + bin_] += 1


def neighbours(
    centre: Any,
    row_start: Any,
    row_end: Any,
    row_splits: Any,
    start: Any,
    end: Any,
    splits: Any,
    at: Any,
    before: Any,
    after: Any,
    within: Any,
) -> None:
    """Find for each interval the last row (they ascend by centre) at or before its centre ``at``, and the next one.

    Beyond the first and the last row both are that row, and without any row both stay as they are. ``within`` says
    whether the interval overlaps the time from the first start to the last end.
    """
    for s in range(len(splits) - 1):
        low, stop = row_splits[s], row_splits[s + 1]
        if low == stop:
            continue
        opens, closes = row_start[low], row_end[low]
        for i in range(low, stop):
            opens, closes = min(opens, row_start[i]), max(closes, row_end[i])
        for j in range(splits[s], splits[s + 1]):
            following = low + np.searchsorted(centre[low:stop], at[j], side="right")
            before[j] = max(following - 1, low)
            after[j] = min(following, stop - 1)
            within[j] = end[j] > opens and start[j] < closes


def nearer(centre: Any, row_splits: Any, splits: Any, at: Any, before: Any, after: Any) -> None:
    """Set ``before`` to the nearer of the two, the earlier where they are equally near, the first of equal centres."""
    for s in range(len(splits) - 1):
        low = row_splits[s]
        for j in range(splits[s], splits[s + 1]):
            left, right = before[j], after[j]
            if left < 0:
                continue
            to_left = np.uint64(at[j] - centre[left]) if centre[left] <= at[j] else np.uint64(centre[left] - at[j])
            to_right = np.uint64(centre[right] - at[j]) if centre[right] >= at[j] else np.uint64(at[j] - centre[right])
            if to_right < to_left:
                left = right
            else:
                while left > low and centre[left - 1] == centre[left]:
                    left -= 1
            before[j] = left


def blend(values: Any, before: Any, after: Any, ratio: Any, out: Any) -> None:
    """Set each interval with rows to the point ``ratio`` of the way from its row before to its row after."""
    width = values.shape[1]
    for j in range(len(before)):
        if before[j] >= 0:
            left, right, part = before[j], after[j], ratio[j]
            for d in range(width):
                out[j, d] = values[left, d] * (1.0 - part) + values[right, d] * part


def take(values: Any, rows: Any, out: Any) -> None:
    """Copy to each interval its row, where that is not -1."""
    width = values.shape[1]
    for j in range(len(rows)):
        if rows[j] >= 0:
            row = rows[j]
            for d in range(width):
                out[j, d] = values[row, d]
