"""Laws of pooling, and agreement with a brute-force oracle in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.align.pool import POLICIES, Policy, align, pool
from features.align.timeline import extent, grid
from features.time import ALWAYS, Span
from features.types import FeatureSequence

SETTINGS = settings(deadline=None, max_examples=150)
BRIDGING = ("nearest", "linear")

times = st.integers(-60, 60)
numbers = st.floats(-1e6, 1e6, width=32)


@st.composite
def sequences(draw: st.DrawFn, *, always: bool = True, gaps: bool = True) -> FeatureSequence:
    """Rows that overlap, repeat, leave gaps, are points, hold always, or are masked."""
    timed = st.tuples(times, st.integers(0, 40)).map(lambda pair: (pair[0], pair[0] + pair[1]))
    row = st.one_of(timed, st.just((ALWAYS.start_ns, ALWAYS.end_ns))) if always else timed
    spans = sorted(draw(st.lists(row, max_size=8)), key=lambda span: span[0])
    dim = draw(st.integers(1, 2))
    count = len(spans)
    values = draw(st.lists(st.lists(numbers, min_size=dim, max_size=dim), min_size=count, max_size=count))
    valid = draw(st.lists(st.booleans() if gaps else st.just(True), min_size=count, max_size=count))
    return FeatureSequence(
        values=np.array(values, dtype=np.float32).reshape(count, dim),
        start_ns=np.array([span[0] for span in spans], dtype=np.int64),
        end_ns=np.array([span[1] for span in spans], dtype=np.int64),
        valid=np.array(valid, dtype=np.bool_),
    )


@st.composite
def timelines(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Intervals whose starts and ends ascend: touching, overlapping or apart; sometimes the one that is always."""
    if draw(st.integers(0, 9)) == 0:
        return np.array([ALWAYS.start_ns]), np.array([ALWAYS.end_ns])
    count = draw(st.integers(0, 6))
    starts = sorted(draw(st.lists(times, min_size=count, max_size=count)))
    ends: list[int] = []
    for start in starts:
        ends.append(max([start + draw(st.integers(0, 30)), *ends[-1:]]))
    return np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64)


def solid(start: int, end: int) -> tuple[int, int]:
    return start, max(end, start + 1)


def oracle(sequence: FeatureSequence, start: int, end: int, policy: Policy) -> tuple[list[Fraction] | None, Fraction]:
    """One interval, row by row, in exact arithmetic: its values (``None`` where there are none) and its coverage."""
    start, end = solid(start, end)
    rows = []
    for k in range(len(sequence)):
        if sequence.valid[k]:
            row_start, row_end = solid(int(sequence.start_ns[k]), int(sequence.end_ns[k]))
            rows.append((row_start, row_end, [Fraction(float(value)) for value in sequence.values[k]]))
    shared = [min(row_end, end) - max(row_start, start) for row_start, row_end, _ in rows]
    hit = [(row, length) for row, length in zip(rows, shared, strict=True) if length > 0]

    edges = sorted({start, end, *(min(max(edge, start), end) for row in rows for edge in row[:2])})
    covered = sum(b - a for a, b in pairwise(edges) if any(r[0] <= a and b <= r[1] for r in rows))
    coverage = Fraction(covered, end - start)

    def combine(weighted: list[tuple[Fraction, list[Fraction]]]) -> list[Fraction]:
        return [sum((w * v[d] for w, v in weighted), Fraction(0)) for d in range(sequence.dim)]

    if policy in BRIDGING:
        if not rows or end <= min(row[0] for row in rows) or start >= max(row[1] for row in rows):
            return None, coverage
        at = (start + end) // 2
        centred = sorted((((row[0] + row[1]) // 2, k) for k, row in enumerate(rows)))
        if policy == "nearest":
            return rows[min(centred, key=lambda pair: (abs(pair[0] - at), pair))[1]][2], coverage
        before = [pair for pair in centred if pair[0] <= at]
        after = [pair for pair in centred if pair[0] > at]
        if not before or not after:
            return rows[before[-1][1] if before else after[0][1]][2], coverage
        (left, i), (right, j) = before[-1], after[0]
        ratio = Fraction(at - left, right - left)
        return combine([(1 - ratio, rows[i][2]), (ratio, rows[j][2])]), coverage
    if not hit:
        return None, coverage
    if policy == "mean":
        total = sum(length for _, length in hit)
        return combine([(Fraction(length, total), row[2]) for row, length in hit]), coverage
    if policy == "sum":
        whole = (ALWAYS.start_ns, ALWAYS.end_ns)
        return combine(
            [(Fraction(1) if row[:2] == whole else Fraction(length, row[1] - row[0]), row[2]) for row, length in hit]
        ), coverage
    if policy == "max":
        return [max(row[2][d] for row, _ in hit) for d in range(sequence.dim)], coverage
    return hit[0 if policy == "first" else -1][0][2], coverage


@pytest.mark.parametrize("policy", POLICIES)
@SETTINGS
@given(sequence=sequences(), timeline=timelines())
def test_every_policy_agrees_with_the_brute_force_oracle(
    policy: Policy, sequence: FeatureSequence, timeline: tuple[np.ndarray, np.ndarray]
) -> None:
    pooled = pool(sequence, *timeline, policy)
    assert pooled.values.dtype == np.float32
    assert pooled.values.shape == (len(timeline[0]), sequence.dim)
    for j, (start, end) in enumerate(zip(*timeline, strict=True)):
        values, coverage = oracle(sequence, int(start), int(end), policy)
        assert pooled.valid[j] == (values is not None)
        assert pooled.coverage[j] == np.float32(float(coverage))
        expected = [0.0] * sequence.dim if values is None else [float(value) for value in values]
        # Float64 sums: the only error above float32 rounding is cancellation between rows of up to 1e6.
        np.testing.assert_allclose(pooled.values[j], np.float32(expected), rtol=2e-7, atol=1e-8)


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "sum"])
@SETTINGS
@given(sequence=sequences(), timeline=timelines(), number=st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_constant_stays_constant(
    policy: Policy, sequence: FeatureSequence, timeline: tuple[np.ndarray, np.ndarray], number: float
) -> None:
    constant = FeatureSequence(
        values=np.full_like(sequence.values, number),
        start_ns=sequence.start_ns,
        end_ns=sequence.end_ns,
        valid=sequence.valid,
    )
    pooled = pool(constant, *timeline, policy)
    assert np.all(pooled.values[pooled.valid] == np.float32(number))
    assert not pooled.values[~pooled.valid].any()


@SETTINGS
@given(sequence=sequences(always=False), shift=st.integers(-(2**60), 2**60), step=st.integers(1, 50), pick=st.data())
def test_shifting_the_clock_shifts_only_times(
    sequence: FeatureSequence, shift: int, step: int, pick: st.DataObject
) -> None:
    policy = pick.draw(st.sampled_from(POLICIES))
    moved = FeatureSequence(
        values=sequence.values,
        start_ns=sequence.start_ns + shift,
        end_ns=sequence.end_ns + shift,
        valid=sequence.valid,
    )
    options = {"step_ns": step, "policies": {}, "default": policy}
    dims = {"a": sequence.dim}
    here = align({"a": sequence}, dims, **options)["a"]
    there = align({"a": moved}, dims, **options)["a"]
    offset = shift if len(sequence) else 0
    assert np.array_equal(there.sequence.start_ns, here.sequence.start_ns + offset)
    assert np.array_equal(there.sequence.end_ns, here.sequence.end_ns + offset)
    assert there.sequence.values.tobytes() == here.sequence.values.tobytes()
    assert there.sequence.valid.tobytes() == here.sequence.valid.tobytes()
    assert there.coverage.tobytes() == here.coverage.tobytes()


@SETTINGS
@given(sequence=sequences(always=False), edges=st.tuples(times, times, times).map(sorted))
def test_splitting_an_interval_conserves_sums(sequence: FeatureSequence, edges: list[int]) -> None:
    start, middle, end = edges[0], edges[1] + 1, edges[2] + 2
    whole = pool(sequence, np.array([start]), np.array([end]), "sum")
    parts = pool(sequence, np.array([start, middle]), np.array([middle, end]), "sum")
    added = parts.values.astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(added, whole.values[0], rtol=0, atol=3e-7 * np.abs(sequence.values).sum())
    assert parts.valid.any() == whole.valid[0]


@pytest.mark.parametrize("policy", POLICIES)
@SETTINGS
@given(sequence=sequences(always=False), lengths=st.lists(st.integers(1, 9), min_size=8, max_size=8))
def test_a_sequence_of_disjoint_rows_is_itself_on_its_own_timeline(
    policy: Policy, sequence: FeatureSequence, lengths: list[int]
) -> None:
    edges = np.cumsum([0, *lengths])[: len(sequence) + 1].astype(np.int64)
    own = FeatureSequence(
        values=sequence.values,
        start_ns=edges[:-1][: len(sequence)],
        end_ns=edges[1:][: len(sequence)],
        valid=np.ones(len(sequence), dtype=np.bool_),
    )
    pooled = pool(own, own.start_ns, own.end_ns, policy)
    assert np.array_equal(pooled.values, own.values)
    assert pooled.valid.all()
    assert np.all(pooled.coverage == 1)


@SETTINGS
@given(parts=st.lists(st.none() | sequences(), min_size=1, max_size=4), step=st.integers(1, 60))
def test_every_modality_gets_the_same_rows_and_the_grid_tiles_the_extent(
    parts: list[FeatureSequence | None], step: int
) -> None:
    named = {f"m{k}": part for k, part in enumerate(parts)}
    dims = {name: part.dim if part is not None else 3 for name, part in named.items()}
    aligned = align(named, dims, step_ns=step, policies={}, default="mean")
    span = extent(parts)
    start_ns, end_ns = grid(span, step)
    assert start_ns[0] == span.start_ns
    assert end_ns[-1] == span.end_ns
    assert np.array_equal(start_ns[1:], end_ns[:-1])
    for name, one in aligned.items():
        assert one.sequence.start_ns.tobytes() == start_ns.tobytes()
        assert one.sequence.end_ns.tobytes() == end_ns.tobytes()
        assert one.sequence.dim == dims[name]
        assert np.all((one.coverage >= 0) & (one.coverage <= 1))
        assert np.array_equal(one.coverage > 0, one.sequence.valid)
        if named[name] is None:
            assert not one.sequence.valid.any()


@SETTINGS
@given(span=st.tuples(times, st.integers(0, 100)), step=st.integers(1, 120))
def test_a_grid_has_whole_steps_and_a_shorter_last_one(span: tuple[int, int], step: int) -> None:
    start_ns, end_ns = grid(Span(span[0], span[0] + span[1]), step)
    lengths = (end_ns - start_ns).tolist()
    assert sum(lengths) == span[1]
    assert lengths[:-1] == [step] * (len(lengths) - 1)
    assert all(0 < length <= step for length in lengths)
