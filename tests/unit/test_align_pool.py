"""Pooling and alignment by example; the laws are in tests/property/test_pool_oracle.py."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from features.align.pool import POLICIES, Policy, align, pool
from features.errors import Reason, SampleError
from features.time import ALWAYS, Span
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
    assert pooled.values.tolist() == [[3.0]] * 3
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
    ("start", "end", "message"),
    [
        ([5, 0], [6, 7], "start_ns goes back"),
        ([0, 1], [9, 5], "end_ns goes back"),
        ([5], [4], "an interval ends before it starts"),
        ([5], [6, 7], r"end_ns: got int64 \[2\]"),
        ([0.5], [0.7], r"start_ns: got float64 \[1\], allowed: int64"),
    ],
)
def test_what_is_not_a_timeline_is_refused(start: list[int], end: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=f"timeline: {message}"):
        pool(sequence((0, 1, 1.0)), np.array(start), np.array(end), "mean")


def test_align_gives_every_modality_the_same_rows() -> None:
    aligned = align(
        {"a": sequence((0, 10, 1.0), (10, 20, 3.0)), "still": sequence((*_always(), 5.0)), "none": None},
        {"a": 1, "still": 1, "none": 4},
        step_ns=8,
        policies={"a": "last"},
        default="mean",
    )
    for one in aligned.values():
        assert one.sequence.start_ns.tolist() == [0, 8, 16]
        assert one.sequence.end_ns.tolist() == [8, 16, 20]
    assert aligned["a"].sequence.values[:, 0].tolist() == [1.0, 3.0, 3.0]
    assert aligned["still"].sequence.values[:, 0].tolist() == [5.0] * 3
    assert aligned["none"].sequence.values.shape == (3, 4)
    assert not aligned["none"].sequence.valid.any()
    assert aligned["none"].coverage.tolist() == [0.0] * 3


def test_align_keeps_to_the_window_of_the_sample() -> None:
    aligned = align({"a": sequence((0, 10, 1.0))}, {"a": 1}, step_ns=10, policies={}, default="mean", span=Span(5, 25))
    assert aligned["a"].sequence.start_ns.tolist() == [5, 15]
    assert aligned["a"].coverage.tolist() == [0.5, 0.0]


def test_align_refuses_names_and_widths_that_do_not_match() -> None:
    one = {"a": sequence((0, 10, 1.0))}
    with pytest.raises(ValueError, match=r"align: dims: got \['b'\], allowed: the names of sequences, \['a'\]"):
        align(one, {"b": 1}, step_ns=1, policies={}, default="mean")
    with pytest.raises(ValueError, match=r"align: policies: got b, allowed: a"):
        align(one, {"a": 1}, step_ns=1, policies={"b": "max"}, default="mean")
    with pytest.raises(SampleError, match=r"a: got width 1, allowed: 2") as caught:
        align(one, {"a": 2}, step_ns=1, policies={}, default="mean")
    assert caught.value.reason is Reason.WRONG_WIDTH


def test_importing_alignment_does_not_import_the_compiler() -> None:
    code = "import sys, features.align.pool; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _always() -> tuple[int, int]:
    return ALWAYS.start_ns, ALWAYS.end_ns
