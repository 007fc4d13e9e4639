"""Timelines: extents and grids."""

from __future__ import annotations

import numpy as np
import pytest

from features.align.timeline import MAX_INTERVALS, extent, grid
from features.errors import Reason, SampleError
from features.time import ALWAYS, NS_PER_SECOND, Span
from features.types import FeatureSequence


def rows(*spans: Span) -> FeatureSequence:
    return FeatureSequence.from_rows(np.zeros((len(spans), 1), dtype=np.float32), spans)


def test_a_grid_starts_with_the_extent_and_cuts_the_last_interval_at_its_end() -> None:
    start_ns, end_ns = grid(Span(30, 130), 40)
    assert start_ns.tolist() == [30, 70, 110]
    assert end_ns.tolist() == [70, 110, 130]
    assert start_ns.dtype == end_ns.dtype == np.int64


def test_what_is_always_is_one_interval_and_no_time_is_none() -> None:
    assert [edge.tolist() for edge in grid(ALWAYS, 5)] == [[ALWAYS.start_ns], [ALWAYS.end_ns]]
    assert [edge.tolist() for edge in grid(Span(7, 7), 5)] == [[], []]


def test_a_grid_refuses_a_step_below_one() -> None:
    with pytest.raises(ValueError, match=r"grid: step_ns: got 0, allowed: >= 1"):
        grid(Span(0, 10), 0)


def test_a_broken_clock_is_a_sample_error_and_not_an_hour_of_allocation() -> None:
    with pytest.raises(
        SampleError, match=rf"got 9223372037 intervals of 1 s over .* at most {MAX_INTERVALS}"
    ) as caught:
        grid(Span(-(2**62), 2**62 - 1), NS_PER_SECOND)
    assert caught.value.reason is Reason.TOO_LARGE


def test_the_extent_is_the_window_where_there_is_one() -> None:
    assert extent([rows(Span(5, 10))], Span(0, 7)) == Span(0, 7)
    assert extent([rows(Span(5, 10))], ALWAYS) == Span(5, 10)


def test_the_extent_holds_all_timed_rows_masked_or_not_whatever_the_order_of_their_ends() -> None:
    masked = FeatureSequence(
        values=np.zeros((1, 1), dtype=np.float32),
        start_ns=np.array([-3], dtype=np.int64),
        end_ns=np.array([1], dtype=np.int64),
        valid=np.array([False]),
    )
    assert extent([rows(Span(2, 90), Span(4, 6)), None, masked, rows(ALWAYS)]) == Span(-3, 90)


def test_an_instant_at_the_end_lies_inside_the_extent() -> None:
    assert extent([rows(Span(0, 10), Span(10, 10))]) == Span(0, 11)


def test_without_timed_rows_the_extent_is_always() -> None:
    assert extent([None, rows(ALWAYS), FeatureSequence.empty(2)]) == ALWAYS
