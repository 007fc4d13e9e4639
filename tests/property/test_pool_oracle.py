"""Laws of pooling, and agreement with a brute-force oracle in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.align.pool import POLICIES, Batch, Policy, Pooling, Timelines, pool, pool_batch
from features.align.timeline import extent, grid, ordered, rows_of
from features.time import ALWAYS, Span
from features.types import FeatureSequence

SETTINGS = settings(deadline=None, max_examples=100)
BRIDGING = ("nearest", "linear")

times = st.integers(-60, 60)
numbers = st.floats(-1e6, 1e6, width=32) | st.sampled_from([-1.0, 0.0, 1.0, 2.5])


@st.composite
def sequences(draw: st.DrawFn, *, always: bool = True, dim: int | None = None) -> FeatureSequence:
    """Rows that overlap, repeat, leave gaps, are points, hold always, or are masked."""
    timed = st.tuples(times, st.integers(0, 40)).map(lambda pair: (pair[0], pair[0] + pair[1]))
    row = st.one_of(timed, st.just((ALWAYS.start_ns, ALWAYS.end_ns))) if always else timed
    spans = sorted(draw(st.lists(row, max_size=8)), key=lambda span: span[0])
    dim = dim or draw(st.integers(1, 2))
    count = len(spans)
    values = draw(st.lists(st.lists(numbers, min_size=dim, max_size=dim), min_size=count, max_size=count))
    valid = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    return FeatureSequence(
        values=np.array(values, dtype=np.float32).reshape(count, dim),
        start_ns=np.array([span[0] for span in spans], dtype=np.int64),
        end_ns=np.array([span[1] for span in spans], dtype=np.int64),
        valid=np.array(valid, dtype=np.bool_),
    )


@st.composite
def timelines(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Intervals in any order: touching, overlapping, nested, apart, instants, twice the same; sometimes one always."""
    count = draw(st.integers(0, 7))
    spans = draw(st.lists(st.tuples(times, st.integers(0, 40)), min_size=count, max_size=count))
    pairs = [(start, start + length) for start, length in spans]
    if pairs and draw(st.booleans()):
        pairs.insert(draw(st.integers(0, count)), draw(st.sampled_from(pairs)))
    if draw(st.integers(0, 9)) == 0:
        pairs.append((ALWAYS.start_ns, ALWAYS.end_ns))
    return np.array([pair[0] for pair in pairs], dtype=np.int64), np.array([pair[1] for pair in pairs], dtype=np.int64)


POOLINGS = (
    *(Pooling(policy) for policy in POLICIES),
    Pooling("nearest", 5),
    Pooling("histogram", None, (-1.0, 0.0, 2.5)),
)


def solid(start: int, end: int) -> tuple[int, int]:
    return start, max(end, start + 1)


def bin_of(number: Fraction, edges: tuple[float, ...]) -> int | None:
    for k in range(len(edges) - 1):
        if edges[k] <= number < edges[k + 1] or (k == len(edges) - 2 and number == edges[-1]):
            return k
    return None


def oracle(sequence: FeatureSequence, start: int, end: int, pooling: Pooling) -> tuple[list[Fraction] | None, Fraction]:
    """One interval, row by row, in exact arithmetic: its values (``None`` where there are none) and its coverage."""
    start, end = solid(start, end)
    policy = pooling.policy
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
        at = (start + end) // 2
        centred = sorted((((row[0] + row[1]) // 2, k) for k, row in enumerate(rows)))
        beyond = not rows or end <= min(row[0] for row in rows) or start >= max(row[1] for row in rows)
        if not rows or (beyond and pooling.tolerance_ns is None):
            return None, coverage
        if policy == "nearest":
            found = rows[min(centred, key=lambda pair: (abs(pair[0] - at), pair))[1]]
            away = max(found[0] - at, at - (found[1] - 1), 0)
            near = pooling.tolerance_ns is None or away <= pooling.tolerance_ns
            return (found[2] if near else None), coverage
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
    if policy == "histogram":
        width = sequence.dim
        counts = [Fraction(0)] * pooling.width(width)
        for row, _ in hit:
            if pooling.bins is None:
                counts[row[2].index(max(row[2]))] += 1
                continue
            for d in range(width):
                if (k := bin_of(row[2][d], pooling.bins)) is not None:
                    counts[d * (len(pooling.bins) - 1) + k] += 1
        return counts, coverage
    if policy == "max":
        return [max(row[2][d] for row, _ in hit) for d in range(sequence.dim)], coverage
    return hit[0 if policy == "first" else -1][0][2], coverage


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
@SETTINGS
@given(sequence=sequences(), timeline=timelines())
def test_every_policy_agrees_with_the_brute_force_oracle(
    pooling: Pooling, sequence: FeatureSequence, timeline: tuple[np.ndarray, np.ndarray]
) -> None:
    pooled = pool(sequence, *timeline, pooling)
    assert pooled.values.dtype == np.float32
    assert pooled.values.shape == (len(timeline[0]), pooling.width(sequence.dim))
    for j, (start, end) in enumerate(zip(*timeline, strict=True)):
        values, coverage = oracle(sequence, int(start), int(end), pooling)
        assert pooled.valid[j] == (values is not None)
        assert pooled.coverage[j] == np.float32(float(coverage))
        expected = [0.0] * pooling.width(sequence.dim) if values is None else [float(value) for value in values]
        # Float64 sums: the only error above float32 rounding is cancellation between rows of up to 1e6.
        np.testing.assert_allclose(pooled.values[j], np.float32(expected), rtol=2e-7, atol=1e-8)


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
@SETTINGS
@given(data=st.data(), dim=st.integers(1, 2), count=st.integers(1, 4))
def test_a_batch_gives_each_sample_what_it_gets_alone(
    pooling: Pooling, data: st.DataObject, dim: int, count: int
) -> None:
    parts = [data.draw(sequences(dim=dim)) for _ in range(count)]
    lines = [ordered(*data.draw(timelines())) for _ in range(count)]
    together = pool_batch(Batch.of(parts), Timelines.of(lines), pooling)
    alone = [pool(part, *line, pooling) for part, line in zip(parts, lines, strict=True)]
    for name in ("values", "valid", "coverage"):
        joined = np.concatenate([getattr(one, name) for one in alone])
        assert getattr(together, name).tobytes() == joined.tobytes()


@SETTINGS
@given(sequence=sequences(), timeline=timelines(), pick=st.data())
def test_the_order_of_the_intervals_is_that_of_the_result(
    sequence: FeatureSequence, timeline: tuple[np.ndarray, np.ndarray], pick: st.DataObject
) -> None:
    pooling = pick.draw(st.sampled_from(POOLINGS))
    order = np.array(pick.draw(st.permutations(range(len(timeline[0])))), dtype=np.int64)
    here = pool(sequence, *timeline, pooling)
    there = pool(sequence, timeline[0][order], timeline[1][order], pooling)
    assert there.values.tobytes() == here.values[order].tobytes()
    assert there.valid.tolist() == here.valid[order].tolist()
    assert there.coverage.tolist() == here.coverage[order].tolist()


AVERAGES: tuple[Policy, ...] = ("mean", "max", "first", "last", "nearest", "linear")


@pytest.mark.parametrize("policy", AVERAGES)
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
@given(
    sequence=sequences(always=False),
    shift=st.integers(-(2**60), 2**60),
    length=st.integers(1, 50),
    hop=st.integers(1, 50),
    pick=st.data(),
)
def test_shifting_the_clock_shifts_only_times(
    sequence: FeatureSequence, shift: int, length: int, hop: int, pick: st.DataObject
) -> None:
    pooling = pick.draw(st.sampled_from(POOLINGS))
    moved = FeatureSequence(
        values=sequence.values,
        start_ns=sequence.start_ns + shift,
        end_ns=sequence.end_ns + shift,
        valid=sequence.valid,
    )
    phase = pick.draw(st.integers(1 - length, 70))
    here = grid(extent([sequence]), length, hop_ns=hop, phase_ns=phase)
    there = grid(extent([moved]), length, hop_ns=hop, phase_ns=phase)
    offset = shift if len(sequence) else 0
    assert np.array_equal(there[0], here[0] + offset)
    assert np.array_equal(there[1], here[1] + offset)
    before, after = pool(sequence, *here, pooling), pool(moved, *there, pooling)
    assert after.values.tobytes() == before.values.tobytes()
    assert after.valid.tobytes() == before.valid.tobytes()
    assert after.coverage.tobytes() == before.coverage.tobytes()


@SETTINGS
@given(sequence=sequences(always=False), edges=st.tuples(times, times, times).map(sorted))
def test_splitting_an_interval_conserves_sums(sequence: FeatureSequence, edges: list[int]) -> None:
    start, middle, end = edges[0], edges[1] + 1, edges[2] + 2
    whole = pool(sequence, np.array([start]), np.array([end]), "sum")
    parts = pool(sequence, np.array([start, middle]), np.array([middle, end]), "sum")
    added = parts.values.astype(np.float64).sum(axis=0)
    np.testing.assert_allclose(added, whole.values[0], rtol=0, atol=3e-7 * np.abs(sequence.values).sum())
    assert parts.valid.any() == whole.valid[0]


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "histogram"])
@SETTINGS
@given(sequence=sequences(always=False), lengths=st.lists(st.integers(1, 9), min_size=8, max_size=8))
def test_pooling_to_its_own_timeline_is_the_identity(
    policy: Policy, sequence: FeatureSequence, lengths: list[int]
) -> None:
    edges = np.cumsum([0, *lengths])[: len(sequence) + 1].astype(np.int64)
    values = sequence.values * sequence.valid[:, None]  # what a masked row holds means nothing
    own = FeatureSequence(
        values=values,
        start_ns=edges[:-1][: len(sequence)],
        end_ns=edges[1:][: len(sequence)],
        valid=sequence.valid,
    )
    pooled = pool(own, *rows_of("own", own.start_ns, own.end_ns), policy)
    bridged = policy in BRIDGING and not sequence.valid.all()
    assert np.array_equal(pooled.values[own.valid], own.values[own.valid])
    assert np.array_equal(pooled.coverage, own.valid.astype(np.float32))
    if not bridged:
        assert np.array_equal(pooled.values, own.values)
        assert np.array_equal(pooled.valid, own.valid)


@SETTINGS
@given(
    span=st.tuples(times, st.integers(0, 100)),
    length=st.integers(1, 120),
    hop=st.integers(1, 120),
    pick=st.data(),
)
def test_a_grid_is_what_its_words_say(span: tuple[int, int], length: int, hop: int, pick: st.DataObject) -> None:
    phase = pick.draw(st.integers(1 - length, 130))
    begin, stop = span[0], span[0] + span[1]
    expected: list[tuple[int, int]] = []
    at = begin + phase
    while at < stop and span[1]:
        expected.append((max(at, begin), min(at + length, stop)))
        if at + length >= stop:
            break
        at += hop
    start_ns, end_ns = grid(Span(begin, stop), length, hop_ns=hop, phase_ns=phase)
    assert list(zip(start_ns.tolist(), end_ns.tolist(), strict=True)) == expected
    if hop <= length and phase <= 0 and span[1]:
        assert (start_ns[0], end_ns[-1]) == (begin, stop)
        assert np.all(start_ns[1:] <= end_ns[:-1]), "without gaps"
