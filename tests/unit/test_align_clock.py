"""Clocks: corrections by hand, what a stream holds, and offsets that are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from features.align.clock import (
    STEP_NS,
    UNKNOWN,
    Held,
    _correlation,
    corrected,
    corrected_rows,
    estimate_offset,
    held,
    rise,
)
from features.time import ALWAYS, NS_PER_SECOND, Span
from features.types import FeatureSequence

SECOND = NS_PER_SECOND


def ns(*times: int) -> np.ndarray:
    return np.array(times, dtype=np.int64)


def signal(values: np.ndarray, step_ns: int, start_ns: int = 0, valid: np.ndarray | None = None) -> FeatureSequence:
    start = start_ns + step_ns * np.arange(len(values), dtype=np.int64)
    rows = np.asarray(values, dtype=np.float32).reshape(-1, 1)
    valid = np.ones(len(rows), dtype=np.bool_) if valid is None else valid
    return FeatureSequence(values=rows, start_ns=start, end_ns=start + step_ns, valid=valid)


def events(seed: int, seconds: int, step_ns: int, late_ns: int = 0) -> FeatureSequence:
    """Pulses of 80 ms at irregular times, the same for one seed whatever the rows are."""
    rng = np.random.default_rng(seed)
    at = np.cumsum(rng.uniform(0.4, 1.2, 2 * seconds))
    at = at[at < seconds - 1]
    centres = (np.arange(seconds * SECOND // step_ns) + 0.5) * step_ns / SECOND
    pulses = np.exp(-(((centres[:, None] - at[None]) / 0.04) ** 2)).sum(axis=1)
    return signal(pulses, step_ns, late_ns)


def test_a_correction_adds_the_offset_and_the_drift_rounded_half_up() -> None:
    assert corrected(ns(0, SECOND, -SECOND), 7).tolist() == [7, SECOND + 7, 7 - SECOND]
    assert corrected(ns(0, 3_600 * SECOND), 0, 30.0).tolist() == [0, 3_600 * SECOND + 108_000_000]
    assert corrected(ns(1, 2, -1), 0, 100_000.0).tolist() == [1, 2, -1]
    assert corrected(ns(5, 15), 0, 100_000.0).tolist() == [6, 17]
    assert corrected(ns(0, 10), ns(3, 5)).tolist() == [3, 15]
    with pytest.raises(ValueError, match="drift_ppm: got 100001"):
        corrected(ns(0), 0, 100_001)


def test_a_correction_keeps_order_and_what_holds_always() -> None:
    times = np.sort(np.random.default_rng(0).integers(-(10**13), 10**13, 1000))
    for ppm in (-100_000.0, -33.3, 250.0):
        assert np.all(np.diff(corrected(times, 5, ppm)) >= 0)
    start, end = corrected_rows(ns(ALWAYS.start_ns, 10), ns(ALWAYS.end_ns, 20), 5, 100.0)
    assert (start.tolist(), end.tolist()) == ([ALWAYS.start_ns, 15], [ALWAYS.end_ns, 25])


def test_what_a_stream_holds_is_the_union_of_its_features() -> None:
    frames = (ns(0, 10, 50), ns(20, 30, 60))
    assert held([frames]) == Held(Span(0, 60), 20)
    assert held([frames, (ns(25, 70), ns(45, 70))]) == Held(Span(0, 71), 5 + 10)
    assert held([(ns(ALWAYS.start_ns), ns(ALWAYS.end_ns))]) is None
    assert held([]) is None


def test_a_rise_is_what_a_row_is_above_the_last_valid_one() -> None:
    level = signal(np.array([1, 3, 2, 9, 10, 12]), 10, valid=np.array([True, True, True, False, True, True]))
    up = rise(level)
    assert up.values[:, 0].tolist() == [0, 2, 0, 0, 0, 2]
    assert up.valid.tolist() == [False, True, True, False, False, True]


@pytest.mark.parametrize("late_ms", [0, 13, -250, 700])
@pytest.mark.parametrize("step_ms", [10, 40])
def test_a_known_offset_is_found_between_steps(late_ms: int, step_ms: int) -> None:
    sound = events(3, 20, 10_000_000, late_ms * 1_000_000)
    motion = events(3, 20, step_ms * 1_000_000)
    found = estimate_offset(sound, motion, max_offset_ns=SECOND)
    assert found.offset_ns == pytest.approx(-late_ms * 1_000_000, abs=STEP_NS // 2)
    assert found.correlation > 0.9
    assert found.confidence > 0.4


def test_moving_both_changes_nothing_and_moving_one_moves_the_offset() -> None:
    sound, motion = events(4, 12, 10_000_000, 120_000_000), events(4, 12, 40_000_000)
    here = estimate_offset(sound, motion, max_offset_ns=SECOND)
    far = 10**15
    there = estimate_offset(
        events(4, 12, 10_000_000, 120_000_000 + far), events(4, 12, 40_000_000, far), max_offset_ns=SECOND
    )
    assert there == here
    back = estimate_offset(motion, sound, max_offset_ns=SECOND)
    assert back.offset_ns == pytest.approx(-here.offset_ns, abs=1)


def test_signals_that_have_nothing_to_do_with_each_other_are_not_trusted() -> None:
    found = [
        estimate_offset(events(seed, 20, 10_000_000), events(seed + 50, 20, 40_000_000), max_offset_ns=SECOND)
        for seed in range(20)
    ]
    assert max(one.confidence for one in found) < 0.3


def test_a_regular_beat_fits_everywhere_and_is_not_trusted() -> None:
    beat = signal(np.tile([1.0] + [0.0] * 24, 40), 10_000_000)
    assert estimate_offset(beat, beat, max_offset_ns=SECOND).confidence < 0.1


@pytest.mark.parametrize(
    ("moving", "fixed"),
    [
        (events(1, 1, 10_000_000), events(1, 1, 10_000_000)),
        (signal(np.ones(1000), 10_000_000), events(1, 10, 10_000_000)),
        (events(1, 10, 10_000_000), signal(np.zeros(0), 10_000_000)),
        (events(1, 10, 10_000_000, 2 * SECOND), events(1, 10, 10_000_000)),
        (events(1, 10, 10_000_000, 20 * SECOND), events(1, 10, 10_000_000)),
    ],
    ids=["too short", "constant", "no rows", "beyond what is searched", "apart"],
)
def test_where_nothing_can_be_said_nothing_is(moving: FeatureSequence, fixed: FeatureSequence) -> None:
    found = estimate_offset(moving, fixed, max_offset_ns=SECOND)
    assert found.confidence < 0.2
    assert found is UNKNOWN or moving.start_ns[0] == 2 * SECOND


def test_options_and_rows_that_make_no_sense_are_refused() -> None:
    one = events(1, 5, 10_000_000)
    wide = FeatureSequence.empty(2)
    with pytest.raises(ValueError, match="got rows of width 2 and 1, allowed: 1; cure: choose a column"):
        estimate_offset(wide, one, max_offset_ns=SECOND)
    with pytest.raises(ValueError, match="max_offset_ns: got 5, allowed: >= 10000000"):
        estimate_offset(one, one, max_offset_ns=5)


@pytest.mark.parametrize(("count", "reach"), [(201, 100), (400, 37), (10, 5)])
def test_the_correlation_at_every_offset_is_that_of_what_is_shared_there(count: int, reach: int) -> None:
    rng = np.random.default_rng(count)
    moving, fixed = rng.standard_normal(count), rng.standard_normal(count)
    moving[: count // 3] = 0
    expected = []
    for lag in range(-reach, reach + 1):
        pairs = [(moving[i], fixed[i + lag]) for i in range(count) if 0 <= i + lag < count]
        norm = math.sqrt(sum(a * a for a, _ in pairs) * sum(b * b for _, b in pairs))
        expected.append(sum(a * b for a, b in pairs) / norm if norm else 0.0)
    np.testing.assert_allclose(_correlation(moving, fixed, reach), expected, atol=1e-12)
