"""A timeline as a page shows it: in words, in lines and boxes, and on the clocks that aligning corrected."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from features.align.clock import corrected
from features.time import ALWAYS, NS_PER_SECOND, Span
from pipeline.report.intervals import MAX_MARKS, Correction, corrections, in_words, inside, lane, marks, shown_span

Edges = tuple[np.ndarray, np.ndarray]


def edges(*pairs: tuple[float, float]) -> Edges:
    start, end = (np.array([round(pair[k] * NS_PER_SECOND) for pair in pairs], dtype=np.int64) for k in (0, 1))
    return start, end


def span(start: float, end: float) -> Span:
    return Span(round(start * NS_PER_SECOND), round(end * NS_PER_SECOND))


@pytest.mark.parametrize(
    ("timeline", "words"),
    [
        ({"grid": {"length": 0.5, "hop": None, "phase": 0.0}}, "windows of 0.5 s"),
        ({"grid": {"length": 0.5, "hop": 0.5, "phase": 0.0}}, "windows of 0.5 s"),
        ({"grid": {"length": 1.0, "hop": 0.25, "phase": 0.0}}, "windows of 1 s, one every 0.25 s"),
        (
            {"grid": {"length": 1.0, "hop": None, "phase": -0.5}},
            "windows of 1 s, the first -0.5 s from where the sample begins",
        ),
        ({"text": "words"}, "the words of the sample's text"),
        ({"rows_of": "shots"}, "the rows of shots"),
        ({"intervals": {"path": "marks.csv", "id": "sample_id"}}, "the intervals of marks.csv"),
    ],
)
def test_every_kind_of_timeline_has_words(timeline: dict[str, Any], words: str) -> None:
    assert in_words(timeline) == words


def test_a_correction_is_undone_for_what_is_drawn_in_the_time_of_the_file() -> None:
    moved = Correction(offset_ns=120_000_000, drift_ppm=500.0)
    shown = span(0.0, 20.0)
    back = moved.before(shown)
    there = corrected(np.array([back.start_ns, back.end_ns]), 120_000_000, 500.0)
    assert there.tolist() == pytest.approx([shown.start_ns, shown.end_ns], abs=1)
    assert moved.note == ", moved by +0.120 s and +500 ppm"
    assert (Correction().before(shown), Correction().note) == (shown, "")


def test_corrections_are_the_given_ones_and_what_was_estimated_of_the_sample() -> None:
    said = {
        "clocks": {"audio": {"offset": 0.0, "drift_ppm": 30.0}, "text": {"offset": 0.5, "drift_ppm": 0.0}},
        "estimated": {"a": {"audio": {"offset_ns": -40_000_000, "confidence": 0.7}}},
    }
    assert corrections(said, "a") == {"audio": Correction(-40_000_000, 30.0), "text": Correction(500_000_000, 0.0)}
    assert corrections(said, "b")["audio"] == Correction(0, 30.0)
    assert corrections({}, "a") == {}


def test_what_is_shown_begins_a_second_before_the_first_interval_at_most() -> None:
    media = [edges((0, 2), (2, 40)), (np.array([ALWAYS.start_ns]), np.array([ALWAYS.end_ns]))]
    assert shown_span(edges((0.3, 0.5), (3, 4)), media, 20) == (span(0, 20), True)
    assert shown_span(edges((30, 31), (32, 33)), media, 20) == (span(29, 40), True)
    assert shown_span(edges((0.3, 9.0), (3, 4)), [edges((0, 8))], 20) == (span(0, 9), False)


@pytest.mark.parametrize(
    ("timeline", "message"),
    [
        (edges(), "the sample's timeline has no interval"),
        ((np.array([ALWAYS.start_ns]), np.array([ALWAYS.end_ns])), "nothing of the sample has a time"),
    ],
)
def test_without_times_there_is_nothing_to_show(timeline: Edges, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shown_span(timeline, [], 20)


def test_lines_stand_at_the_edges_of_intervals_once_each() -> None:
    timeline = inside(edges((0, 2), (1, 3), (3, 5), (11, 12)), span(0, 10))
    assert len(timeline[0]) == 3
    drawn = marks(timeline, span(0, 10))
    assert drawn is not None
    assert [float(x) for x in re.findall(r"M([\d.]+) 0V1", drawn)] == [200, 400, 600, 1000]
    many = edges(*((k / 10, (k + 1) / 10) for k in range(MAX_MARKS + 1)))
    assert marks(many, span(0, 10)) is None


def test_boxes_that_overlap_lie_beneath_one_another() -> None:
    drawn = lane(edges((0, 2), (1, 3), (1.5, 1.5), (3, 5)), span(0, 10))
    boxes = re.findall(r'<rect x="(\d+)" width="(\d+)" y="(\d+)', drawn)
    assert sorted(tuple(int(n) for n in box) for box in boxes) == [
        (0, 400, 0),
        (200, 400, 1),
        (300, 1, 2),
        (600, 400, 0),
    ]
    assert 'viewBox="0 0 2000 3"' in drawn
