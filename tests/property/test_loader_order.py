"""The laws of the order: a permutation that (seed, epoch) decides, dealt out to ranks without loss or repetition."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.loader.order import PIECE_BYTES, REMAINDERS, SHUFFLES, Deal, Remainder, Shuffle, draw_views, epoch_order

totals, batch_sizes, ranks = st.integers(0, 200), st.integers(1, 17), st.integers(1, 5)


@st.composite
def stores(draw: st.DrawFn) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The shard (ascending) and the size of some samples; sizes from nothing to more than a piece."""
    count = draw(st.integers(0, 120))
    shard = np.sort(np.array(draw(st.lists(st.integers(0, 9), min_size=count, max_size=count)), np.int64))
    size = st.sampled_from([0, 4, 1 << 20, PIECE_BYTES + 1])
    return shard, np.array(draw(st.lists(size, min_size=count, max_size=count)), np.int64)


@settings(max_examples=50, deadline=None)
@given(
    store=stores(),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 100),
    shuffle=st.sampled_from(SHUFFLES),
    window=st.sampled_from([1, PIECE_BYTES, 8 * PIECE_BYTES]),
)
def test_an_order_is_a_permutation_that_seed_and_epoch_decide(
    store: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]], seed: int, epoch: int, shuffle: Shuffle, window: int
) -> None:
    made = [
        epoch_order(*store, seed=seed, epoch=epoch, shuffle=shuffle, window_bytes=window).tolist() for _ in range(2)
    ]
    assert made[0] == made[1]
    assert sorted(made[0]) == list(range(len(store[0])))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    shard, size = np.arange(50) // 5, np.full(50, 1_000)
    orders = {
        tuple(epoch_order(shard, size, seed=seed, epoch=epoch).tolist()) for seed in range(3) for epoch in range(3)
    }
    assert len(orders) == 9


def test_a_window_reads_from_few_pieces_at_a_time() -> None:
    pieces, each = 40, 6
    shard, size = np.repeat(np.arange(pieces), each), np.full(pieces * each, PIECE_BYTES // each)
    order = epoch_order(shard, size, seed=1, epoch=2, window_bytes=4 * PIECE_BYTES)
    windows = shard[order].reshape(pieces // 4, 4 * each)
    assert [len(set(window)) for window in windows.tolist()] == [4] * 10
    assert sorted({piece for window in windows.tolist() for piece in set(window)}) == list(range(pieces))


@settings(max_examples=80, deadline=None)
@given(total=totals, batch_size=batch_sizes, world=ranks, remainder=st.sampled_from(REMAINDERS), data=st.data())
def test_ranks_share_an_order_without_loss(
    total: int, batch_size: int, world: int, remainder: Remainder, data: st.DataObject
) -> None:
    whole = batch_size * world
    start = data.draw(st.sampled_from(range(0, total + 1, whole)), label="start")
    deals = [Deal(batch_size=batch_size, rank=rank, world_size=world, remainder=remainder) for rank in range(world)]
    dealt = [list(deal.steps(total, start)) for deal in deals]
    assert [len(steps) for steps in dealt] == [deal.count(total, start) for deal in deals]
    first = Counter(place for steps in dealt for step in steps for place in step.places[~step.repeated].tolist())
    left = (total - start) % whole
    wanted = range(start, total - left if remainder == "drop" else total)
    assert first == Counter(wanted)  # each once, over all ranks
    repeated = [place for steps in dealt for step in steps for place in step.places[step.repeated].tolist()]
    assert all(0 <= place < total for place in repeated)
    sizes = [[len(step.places) for step in steps] for steps in dealt]
    if remainder != "uneven":
        assert all(size == sizes[0] for size in sizes)  # every rank makes the same steps
    else:
        assert not repeated
        assert max(map(sum, sizes)) - min(map(sum, sizes)) <= 1
    if remainder == "drop":
        assert not repeated
    assert len(repeated) < world


@settings(max_examples=60, deadline=None)
@given(total=totals, batch_size=batch_sizes, world=ranks, remainder=st.sampled_from(REMAINDERS))
def test_ranks_together_take_the_order_front_to_back(
    total: int, batch_size: int, world: int, remainder: Remainder
) -> None:
    deals = [Deal(batch_size=batch_size, rank=rank, world_size=world, remainder=remainder) for rank in range(world)]
    dealt = [list(deal.steps(total)) for deal in deals]
    taken = 0
    for number in range(max(map(len, dealt), default=0)):
        steps = [steps[number] for steps in dealt if number < len(steps)]
        places = sorted(place for step in steps for place in step.places[~step.repeated].tolist())
        assert places == list(range(taken, taken + len(places)))
        taken += len(places)
        assert {step.end for step in steps} == {taken}


@settings(max_examples=60, deadline=None)
@given(total=totals, batch_size=batch_sizes, world=ranks, remainder=st.sampled_from(REMAINDERS), data=st.data())
def test_a_run_goes_on_where_it_stood(
    total: int, batch_size: int, world: int, remainder: Remainder, data: st.DataObject
) -> None:
    deal = Deal(batch_size=batch_size, rank=data.draw(st.integers(0, world - 1)), world_size=world, remainder=remainder)
    steps = [(step.places.tolist(), step.repeated.tolist(), step.end) for step in deal.steps(total)]
    for number, (_, _, end) in enumerate(steps):
        rest = [(step.places.tolist(), step.repeated.tolist(), step.end) for step in deal.steps(total, end)]
        assert rest == steps[number + 1 :]


@settings(max_examples=40, deadline=None)
@given(
    available=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=30),
    seed=st.integers(0, 2**32),
    epoch=st.integers(0, 50),
)
def test_only_views_that_are_there_are_drawn(available: list[list[bool]], seed: int, epoch: int) -> None:
    have = np.array(available, np.bool_)
    samples = np.arange(len(have), dtype=np.uint64) * np.uint64(7919)
    drawn = draw_views(have, samples, seed=seed, epoch=epoch)
    assert all(view == 0 or have[i, view - 1] for i, view in enumerate(drawn.tolist()))
    alone = [draw_views(have[i : i + 1], samples[i : i + 1], seed=seed, epoch=epoch)[0] for i in range(len(have))]
    assert drawn.tolist() == alone  # of each sample by itself: no order, no neighbours


def test_samples_without_views_come_as_themselves() -> None:
    drawn = draw_views(np.zeros((3, 0), np.bool_), np.arange(3, dtype=np.uint64), seed=1, epoch=0)
    assert drawn.tolist() == [0, 0, 0]


def test_every_view_is_as_likely_as_the_others() -> None:
    have = np.tile([True, False, True], (3_000, 1))
    samples = np.random.default_rng(0).integers(0, 2**63, 3_000).astype(np.uint64)
    counts = np.bincount(draw_views(have, samples, seed=3, epoch=1), minlength=4)
    assert counts[2] == 0
    assert (np.abs(counts[[0, 1, 3]] - 1_000) < 130).all()  # five standard deviations
    other = draw_views(have, samples, seed=3, epoch=2)
    assert 0.6 < (other != draw_views(have, samples, seed=3, epoch=1)).mean() < 0.73


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size: got 0, allowed: at least 1"),
        ({"batch_size": 1, "rank": 2, "world_size": 2}, r"rank: got 2, allowed: 0 to 1 \(world_size - 1\)"),
        ({"batch_size": 1, "remainder": "keep"}, "remainder: got 'keep', allowed: pad, uneven, drop"),
    ],
)
def test_what_cannot_be_dealt_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Deal(**options)  # type: ignore[arg-type]
