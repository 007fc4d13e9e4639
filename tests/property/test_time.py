"""Laws of time: exact, one rounding rule, no drift."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.time import (
    ALWAYS,
    NS_PER_SECOND,
    Span,
    round_ns,
    sample_edges_ns,
    samples_to_ns,
    seconds_to_ns,
    ticks_to_ns,
)

RATES = st.one_of(st.sampled_from([8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000]), st.integers(1, 768_000))
INDICES = st.integers(0, 2**32)
INSTANTS = st.integers(-(10**15), 10**15)
SPANS = st.tuples(INSTANTS, INSTANTS).map(sorted).map(lambda edges: Span(*edges))


@given(st.integers(), st.integers(1, 10**12))
def test_rounding_is_half_up_of_the_exact_ratio(numerator: int, denominator: int) -> None:
    assert round_ns(numerator, denominator) == math.floor(Fraction(numerator, denominator) + Fraction(1, 2))


@given(INSTANTS)
def test_whole_seconds_and_whole_nanoseconds_survive(ns: int) -> None:
    assert seconds_to_ns(Fraction(ns, NS_PER_SECOND)) == ns
    assert seconds_to_ns(ns) == ns * NS_PER_SECOND


@given(INDICES, RATES)
def test_the_edges_of_samples_are_those_of_exact_arithmetic(index: int, rate: int) -> None:
    exact = math.floor(Fraction(index * NS_PER_SECOND, rate) + Fraction(1, 2))
    assert samples_to_ns(index, rate) == exact
    assert sample_edges_ns(np.array([index]), rate).tolist() == [exact]


@given(INDICES, st.integers(1, 1000), RATES)
def test_edges_never_go_back_and_parts_sum_to_the_whole(first: int, count: int, rate: int) -> None:
    edges = sample_edges_ns(np.arange(first, first + count + 1), rate)
    parts = np.diff(edges)
    assert np.all(parts >= 0)
    assert parts.sum() == samples_to_ns(first + count, rate) - samples_to_ns(first, rate)
    assert np.all(np.abs(parts - NS_PER_SECOND / rate) <= 1)


@given(INSTANTS, st.fractions(min_value=Fraction(1, 10**6), max_value=10))
def test_ticks_are_rounded_once(ticks: int, time_base: Fraction) -> None:
    assert ticks_to_ns(ticks, time_base) == math.floor(ticks * time_base * NS_PER_SECOND + Fraction(1, 2))


@given(SPANS, SPANS, INSTANTS)
def test_overlap_is_symmetric_bounded_and_moves_with_the_clock(one: Span, other: Span, shift: int) -> None:
    shared = one.overlap_ns(other)
    assert shared == other.overlap_ns(one)
    assert 0 <= shared <= min(one.duration_ns, other.duration_ns)
    moved = [Span(span.start_ns + shift, span.end_ns + shift) for span in (one, other)]
    assert moved[0].overlap_ns(moved[1]) == shared
    assert one.overlap_ns(one) == one.overlap_ns(ALWAYS) == one.duration_ns


@given(SPANS, INSTANTS)
def test_the_two_halves_of_a_span_share_nothing_and_cover_it(span: Span, cut: int) -> None:
    cut = min(max(cut, span.start_ns), span.end_ns)
    left, right = Span(span.start_ns, cut), Span(cut, span.end_ns)
    assert left.overlap_ns(right) == 0
    assert left.duration_ns + right.duration_ns == span.duration_ns


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -math.inf])
def test_seconds_must_be_finite(seconds: float) -> None:
    with pytest.raises(ValueError, match=f"seconds: got {seconds}, allowed: a finite number"):
        seconds_to_ns(seconds)


def test_other_errors_and_repr() -> None:
    with pytest.raises(ValueError, match="denominator: got 0, allowed: > 0"):
        round_ns(1, 0)
    with pytest.raises(ValueError, match="span: got end 1 before start 2, allowed: end >= start"):
        Span(2, 1)
    assert repr(Span(0, 1_500_000_000)) == "Span(0.000000 s .. 1.500000 s)"
    assert repr(ALWAYS) == "Span(always)"
    assert sorted([Span(2, 3), Span(1, 9), Span(1, 2)]) == [Span(1, 2), Span(1, 9), Span(2, 3)]
