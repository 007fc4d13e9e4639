"""Timelines: extents and grids."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from features.align.timeline import (
    MAX_INTERVALS,
    Pieces,
    extent,
    extent_of_rows,
    extents,
    grid,
    ordered,
    pieces_of,
    rows_of,
)
from features.errors import Reason, SampleError
from features.time import ALWAYS, NS_PER_SECOND, Span
from features.types import FeatureSequence, Text, TextSegment


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
    with pytest.raises(ValueError, match=r"grid: length_ns: got 0, allowed: >= 1"):
        grid(Span(0, 10), 0)


def pairs(edges: tuple[np.ndarray, np.ndarray]) -> list[tuple[int, int]]:
    return list(zip(edges[0].tolist(), edges[1].tolist(), strict=True))


def test_windows_overlap_leave_gaps_and_are_cut_at_both_ends() -> None:
    span = Span(100, 200)
    assert pairs(grid(span, 40, hop_ns=20)) == [(100, 140), (120, 160), (140, 180), (160, 200)]
    assert pairs(grid(span, 30, hop_ns=20)) == [(100, 130), (120, 150), (140, 170), (160, 190), (180, 200)]
    assert pairs(grid(span, 10, hop_ns=40)) == [(100, 110), (140, 150), (180, 190)]
    assert pairs(grid(span, 40, phase_ns=-20)) == [(100, 120), (120, 160), (160, 200)]
    assert pairs(grid(span, 40, phase_ns=30)) == [(130, 170), (170, 200)]
    assert pairs(grid(span, 40, phase_ns=100)) == []
    assert pairs(grid(span, 2**70, hop_ns=2**70)) == [(100, 200)]
    assert pairs(grid(span, 5, phase_ns=2**70)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [({"hop_ns": 0}, "hop_ns: got 0, allowed: >= 1"), ({"phase_ns": -40}, "phase_ns: got -40, allowed: > -40")],
)
def test_a_grid_refuses_other_options(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid(Span(0, 100), 40, **options)


def test_intervals_are_put_in_order() -> None:
    assert pairs(ordered(np.array([5, 0, 5, 0]), np.array([9, 2, 6, 2]))) == [(0, 2), (0, 2), (5, 6), (5, 9)]
    with pytest.raises(ValueError, match="an interval ends before it starts"):
        ordered(np.array([5]), np.array([4]))


def test_rows_of_a_feature_are_a_timeline_where_all_are_timed() -> None:
    own = rows(Span(0, 90), Span(4, 4), Span(4, 6))
    assert pairs(rows_of("own", own.start_ns, own.end_ns)) == [(0, 90), (4, 4), (4, 6)]
    still = rows(ALWAYS)
    with pytest.raises(SampleError, match="timeline: still: got 1 of 1 rows without a time of their own") as caught:
        rows_of("still", still.start_ns, still.end_ns)
    assert caught.value.reason is Reason.BAD_TIMESTAMPS


def text(*pieces: tuple[str, int, int]) -> Text:
    return Text(tuple(TextSegment(words, Span(start, end)) for words, start, end in pieces))


WORDS = text(("He", 0, 2), ("said:", 3, 5), ('"Go!"', 6, 9), ("And", 8, 12), ("now", 13, 14))


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ("segments", [(0, 2), (3, 5), (6, 9), (8, 12), (13, 14)]),
        ("words", [(0, 2), (3, 5), (6, 9), (8, 12), (13, 14)]),
        ("sentences", [(0, 9), (8, 14)]),
    ],
)
def test_the_times_of_a_text_are_a_timeline(pieces: Pieces, expected: list[tuple[int, int]]) -> None:
    assert pairs(pieces_of(WORDS, pieces)) == expected
    assert pairs(pieces_of(Text(()), pieces)) == []


def test_a_caption_is_no_word_and_untimed_text_no_timeline() -> None:
    caption = text(("one", 0, 2), ("two more", 3, 5))
    assert pairs(pieces_of(caption, "sentences")) == [(0, 5)]
    with pytest.raises(SampleError, match=r"words: got 2 words with one time .'two more'"):
        pieces_of(caption, "words")
    with pytest.raises(SampleError, match="text: got 1 of 1 rows without a time") as caught:
        pieces_of(Text((TextSegment("plain"),)), "segments")
    assert caught.value.reason is Reason.BAD_TIMESTAMPS


def test_a_broken_clock_is_a_sample_error_and_not_an_hour_of_allocation() -> None:
    with pytest.raises(
        SampleError, match=rf"got 9223372037 intervals of 1 s, one every 1 s, over .* at most {MAX_INTERVALS}"
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


def test_the_extents_of_a_batch_are_those_of_its_sequences_one_by_one() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 4, 200)
    splits = np.append(0, np.cumsum(lengths))
    start = rng.integers(-50, 50, splits[-1])
    end = start + rng.integers(0, 30, splits[-1])
    always = rng.random(splits[-1]) < 0.3
    start[always], end[always] = ALWAYS.start_ns, ALWAYS.end_ns
    first, last = extents(start, end, splits)
    for k, (begin, stop) in enumerate(pairwise(splits.tolist())):
        expected = extent_of_rows([(start[begin:stop], end[begin:stop])])
        assert (Span(int(first[k]), int(last[k])) if first[k] <= last[k] else ALWAYS) == expected
    assert [edge.tolist() for edge in extents(start[:0], end[:0], np.zeros(1, dtype=np.int64))] == [[], []]
