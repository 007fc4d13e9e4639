"""Pooling and alignment by example; the laws are in tests/property/test_pool_oracle.py."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from features.align.pool import POLICIES, Batch, Policy, Pooling, Timelines, pool, pool_batch
from features.time import ALWAYS
from features.types import FeatureSequence


def sequence(*rows: tuple[int, int, float], valid: list[bool] | None = None) -> FeatureSequence:
    return FeatureSequence(
        values=np.array([[row[2]] for row in rows], dtype=np.float32).reshape(len(rows), 1),
        start_ns=np.array([row[0] for row in rows], dtype=np.int64),
        end_ns=np.array([row[1] for row in rows], dtype=np.int64),
        valid=np.array([True] * len(rows) if valid is None else valid, dtype=np.bool_),
    )


def edges(*pairs: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([p[0] for p in pairs], dtype=np.int64), np.array([p[1] for p in pairs], dtype=np.int64)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("mean", [(10 * 1 + 5 * 4) / 15, 4.0, 0.0]),
        ("max", [4.0, 4.0, 0.0]),
        ("sum", [1 + 4 / 2, 4 / 2, 0.0]),
        ("first", [1.0, 4.0, 0.0]),
        ("last", [4.0, 4.0, 0.0]),
        ("nearest", [1.0, 4.0, 0.0]),
        ("linear", [1.0, 4.0, 0.0]),
        ("histogram", [2.0, 1.0, 0.0]),
    ],
)
def test_each_policy_on_two_rows_and_a_gap(policy: Policy, expected: list[float]) -> None:
    pooled = pool(sequence((0, 10, 1.0), (5, 15, 4.0)), *edges((0, 10), (10, 20), (20, 30)), policy)
    assert pooled.values[:, 0].tolist() == pytest.approx(expected)
    assert pooled.valid.tolist() == [True, True, False]
    assert pooled.coverage.tolist() == [1.0, 0.5, 0.0]


def test_coverage_is_the_union_of_overlapping_frames_not_their_sum() -> None:
    frames = sequence(*((start, start + 25, 1.0) for start in range(0, 50, 10)))
    assert pool(frames, *edges((0, 100)), "mean").coverage.tolist() == pytest.approx([0.65])


def test_masked_rows_neither_count_nor_cover() -> None:
    pooled = pool(sequence((0, 10, 7.0), (0, 10, 1.0), valid=[False, True]), *edges((0, 20)), "max")
    assert pooled.values.tolist() == [[1.0]]
    assert pooled.coverage.tolist() == [0.5]


def test_points_alone_are_averaged_and_beside_a_long_row_weigh_one_nanosecond() -> None:
    points = pool(sequence((1, 1, 2.0), (5, 5, 4.0), (10, 10, 100.0)), *edges((0, 10)), "mean")
    assert points.values.tolist() == [[3.0]]
    beside = pool(sequence((0, 9, 1.0), (9, 9, 11.0)), *edges((0, 10)), "mean")
    assert beside.values.tolist() == [[2.0]]


def test_nearest_and_linear_bridge_gaps_but_do_not_go_beyond_the_rows() -> None:
    points = sequence((0, 0, 0.0), (100, 100, 10.0))
    timeline = edges((-20, -10), (-10, 10), (20, 40), (60, 80), (90, 110), (110, 120))
    nearest, linear = (pool(points, *timeline, policy) for policy in ("nearest", "linear"))
    assert nearest.values[:, 0].tolist() == [0.0, 0.0, 0.0, 10.0, 10.0, 0.0]
    assert linear.values[:, 0].tolist() == [0.0, 0.0, 3.0, 7.0, 10.0, 0.0]
    for pooled in (nearest, linear):
        assert pooled.valid.tolist() == [False, True, True, True, True, False]
        assert pooled.coverage[2:4].tolist() == [0.0, 0.0]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_row_that_is_always_holds_in_every_interval(policy: Policy) -> None:
    still = FeatureSequence.from_rows(np.array([[3.0]], dtype=np.float32), [ALWAYS])
    pooled = pool(still, *edges((0, 10), (10, 13), (2**61, 2**62)), policy)
    assert pooled.values.tolist() == [[1.0 if policy == "histogram" else 3.0]] * 3
    assert pooled.valid.all()
    assert pooled.coverage.tolist() == [1.0] * 3


@pytest.mark.parametrize("policy", POLICIES)
def test_no_rows_and_no_intervals_are_fine(policy: Policy) -> None:
    nothing = pool(FeatureSequence.empty(2), *edges((0, 1), (1, 2)), policy)
    assert nothing.values.tolist() == [[0.0, 0.0]] * 2
    assert not nothing.valid.any()
    assert not nothing.coverage.any()
    assert pool(sequence((0, 1, 1.0)), *edges(), policy).values.shape == (0, 1)


def test_nan_in_a_row_is_not_swallowed_by_max() -> None:
    pooled = pool(sequence((0, 5, np.nan), (5, 10, 1.0)), *edges((0, 10)), "max")
    assert np.isnan(pooled.values[0, 0])


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pool: policy: got 'median', allowed: mean, max, sum, first, last, nearest"):
        pool(sequence((0, 1, 1.0)), *edges((0, 1)), "median")  # type: ignore[arg-type]  # the error is the point


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ({"policy": "mean", "tolerance_ns": 5}, "tolerance_ns: got 5, allowed: >= 0, for nearest only"),
        ({"policy": "nearest", "tolerance_ns": -1}, "tolerance_ns: got -1"),
        ({"policy": "mean", "bins": (0.0, 1.0)}, r"bins: got \[0.0, 1.0\], allowed: two or more .* for histogram only"),
        ({"policy": "histogram", "bins": (0.0,)}, "bins: got"),
        ({"policy": "histogram", "bins": (0.0, 1.0, 1.0)}, "bins: got"),
        ({"policy": "histogram", "bins": (0.0, float("inf"))}, "bins: got"),
    ],
)
def test_options_that_make_no_sense_are_refused(pooling: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"pool: {message}"):
        Pooling(**pooling)


def test_a_histogram_counts_the_largest_column_of_each_row_or_bins_of_each_column() -> None:
    rows = FeatureSequence(
        values=np.array([[1, 2, 2], [5, 0, 0], [0, 9, 1], [7, 7, 7]], dtype=np.float32),
        start_ns=np.array([0, 10, 20, 30]),
        end_ns=np.array([10, 20, 30, 40]),
        valid=np.array([True, True, True, False]),
    )
    timeline = edges((0, 25), (25, 40), (30, 40))
    columns = pool(rows, *timeline, "histogram")
    assert columns.values.tolist() == [[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    assert columns.valid.tolist() == [True, True, False]
    bins = pool(rows, *timeline, Pooling("histogram", bins=(0.0, 1.0, 2.0)))
    assert bins.values.tolist()[:2] == [[1, 1, 1, 1, 1, 2], [1, 0, 0, 0, 0, 1]], "0 | 1, closed at 2; 5 and 9 nowhere"


def test_nearest_goes_as_far_as_its_tolerance_within_the_rows_and_beyond_them() -> None:
    rows = sequence((100, 110, 1.0), (200, 300, 2.0))
    timeline = edges((80, 84), (90, 94), (119, 121), (120, 122), (290, 292), (308, 310), (309, 313))
    pooled = pool(rows, *timeline, Pooling("nearest", tolerance_ns=11))
    assert pooled.valid.tolist() == [False, True, True, False, True, True, False]
    assert pooled.values[:, 0].tolist() == [0.0, 1.0, 1.0, 0.0, 2.0, 2.0, 0.0]
    assert pooled.coverage.tolist() == [0.0] * 4 + [1.0] + [0.0] * 2


def test_a_row_that_outlasts_the_next_ones_is_seen_behind_them() -> None:
    rows = sequence((0, 100, 1.0), (10, 20, 3.0), (30, 40, 5.0))
    pooled = pool(rows, *edges((10, 20), (50, 60), (90, 120)), "mean")
    assert pooled.values[:, 0].tolist() == [2.0, 1.0, 1.0]
    assert pooled.coverage.tolist() == pytest.approx([1.0, 1.0, 1 / 3])


def test_intervals_may_be_nested_and_in_any_order() -> None:
    pooled = pool(sequence((0, 10, 1.0), (10, 20, 3.0)), *edges((12, 18), (0, 20), (5, 15), (5, 5)), "mean")
    assert pooled.values[:, 0].tolist() == [3.0, 2.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ([5], [4], "an interval ends before it starts"),
        ([5], [6, 7], r"end_ns: got int64 \[2\]"),
        ([0.5], [0.7], r"start_ns: got float64 \[1\], allowed: int64"),
    ],
)
def test_what_is_not_a_timeline_is_refused(start: list[int], end: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=f"timeline: {message}"):
        pool(sequence((0, 1, 1.0)), np.array(start), np.array(end), "mean")


def test_a_batch_must_be_in_order_and_have_a_timeline_for_each_sequence() -> None:
    one, (start, end) = Batch.of([sequence((0, 1, 1.0))]), edges((5, 6), (1, 2))
    with pytest.raises(ValueError, match="timeline: start_ns goes back"):
        pool_batch(one, Timelines.of([(start, end)]), "mean")
    with pytest.raises(ValueError, match="pool: got 1 sequences and 2 timelines"):
        pool_batch(one, Timelines.of([(start[:1], end[:1]), (start[1:], end[1:])]), "mean")
    pool_batch(Batch.of([sequence((9, 9, 1.0)), sequence((0, 1, 1.0))]), Timelines.of([edges((5, 6)), edges()]), "max")
    back = Batch(
        values=one.values.repeat(2, 0), start_ns=start, end_ns=end, valid=np.ones(2, bool), splits=np.array([0, 2])
    )
    with pytest.raises(ValueError, match="pool: rows are not in order"):
        pool_batch(back, Timelines.of([edges()]), "mean")


def test_importing_alignment_does_not_import_the_compiler() -> None:
    code = "import sys, features.align.pool; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
