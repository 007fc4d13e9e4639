"""The order of an epoch depends on (seed, epoch) alone: not on workers, ranks, or where the run was stopped."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from loader_store import Feature, Grain
from torch.utils.data import DataLoader

from pipeline.loader import Batch, Batches, Samples, open_store
from pipeline.loader.prefetch import Prefetch

# More processes than cores: meant.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
WORKERS, RANKS = (0, 1, 2, 4), (1, 2, 3)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    folder = tmp_path_factory.mktemp("batches")
    features = {"sound": Feature(dim=3, lengths=(0, 5), absent=5, views=2), "picture": Feature(dim=4)}
    Grain(folder, features, count=50).publish()
    return open_store(folder, "grain").samples()


def told(batch: Batch) -> Any:
    """A batch as plain data."""
    return (
        batch["sample_id"],
        batch["view"].tolist(),
        batch["repeated"].tolist(),
        batch["epoch"],
        batch["position"],
        {name: values.tolist() for name, values in batch["values"].items()},
    )


def worked(batches: Batches, workers: int, **options: Any) -> Iterable[Batch]:
    """What a user's loop is over.

    Workers come from a clean process: a copy of one in which Prefect has run a flow fails when it ends (exit code 1),
    in hooks for the threads of Prefect, which the copy does not have.
    """
    if not workers:
        return batches
    torch.multiprocessing.set_forkserver_preload(["torch", "pipeline.loader"])
    return DataLoader(batches, batch_size=None, num_workers=workers, multiprocessing_context="forkserver", **options)


def epoch_of(batches: Batches, workers: int, epoch: int) -> list[Any]:
    batches.set_epoch(epoch)
    return [told(batch) for batch in worked(batches, workers)]


@pytest.mark.parametrize("world", RANKS)
@pytest.mark.parametrize("workers", WORKERS)
def test_processes_and_ranks_change_nothing(samples: Samples, workers: int, world: int) -> None:
    options: dict[str, Any] = {"seed": 5, "views": True, "window_bytes": 400}
    order = samples.batches(4, rank=0, world_size=1, **options).order(3)
    ranks = [epoch_of(samples.batches(4, rank=rank, world_size=world, **options), workers, 3) for rank in range(world)]
    taken: list[str] = []
    for step in range(len(ranks[0])):
        for rank in range(world):
            ids, _, repeated, *_ = ranks[rank][step]
            taken += [name for name, again in zip(ids, repeated, strict=True) if not again]
    assert taken == [samples.sample_ids[i] for i in order]  # each once, in the order
    alone = [epoch_of(samples.batches(4, rank=r, world_size=world, prefetch=0, **options), 0, 3) for r in range(world)]
    assert ranks == alone


@settings(max_examples=25, deadline=None)
@given(
    batch_size=st.integers(1, 9),
    world=st.integers(1, 4),
    workers=st.integers(1, 5),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 9),
    shuffle=st.sampled_from(["window", "full", "none"]),
    remainder=st.sampled_from(["pad", "uneven", "drop"]),
    data=st.data(),
)
def test_workers_take_turns_and_a_run_may_stop_anywhere(
    samples: Samples,
    batch_size: int,
    world: int,
    workers: int,
    seed: int,
    epoch: int,
    shuffle: Any,
    remainder: Any,
    data: st.DataObject,
) -> None:
    rank = data.draw(st.integers(0, world - 1))
    options: dict[str, Any] = {"seed": seed, "shuffle": shuffle, "remainder": remainder, "views": True, "prefetch": 0}

    def made() -> Batches:
        found = samples.batches(batch_size, rank=rank, world_size=world, **options)
        found.set_epoch(epoch)
        return found

    whole = [told(batch) for batch in made()]
    shares = [[told(batch) for batch in made()._worked(worker, workers)] for worker in range(workers)]
    turns = [shares[i % workers][i // workers] for i in range(len(whole))]
    assert turns == whole
    assert sum(map(len, shares)) == len(whole)
    if not whole:
        return
    stop = data.draw(st.integers(0, len(whole) - 1))
    run, taken = made(), []
    for batch in run:
        taken.append(told(batch))
        if len(taken) == stop + 1:
            break
    other = samples.batches(batch_size, rank=rank, world_size=world, **options)
    other.load_state_dict(run.state_dict())
    assert taken + [told(batch) for batch in other] == whole


@pytest.mark.parametrize(("before", "after"), [(2, 0), (0, 2), (2, 3)])
def test_a_run_with_workers_goes_on_exactly_with_other_numbers_of_them(
    samples: Samples, before: int, after: int
) -> None:
    options: dict[str, Any] = {"seed": 1, "views": True}
    whole = epoch_of(samples.batches(4, **options), 0, 2)
    run = samples.batches(4, **options)
    run.set_epoch(2)
    taken, state = [], {}
    for batch in worked(run, before):
        taken.append(told(batch))
        state = run.state_dict(after=batch)
        if len(taken) == 5:
            break
    resumed = samples.batches(4, **options)
    resumed.load_state_dict(state)
    assert taken + [told(batch) for batch in worked(resumed, after)] == whole


def test_a_run_goes_on_with_another_number_of_ranks(samples: Samples) -> None:
    one = samples.batches(6, seed=4)
    ids = []
    for batch in one:
        ids += batch["sample_id"]
        if batch["position"] == 24:
            break
    rest = []
    for rank in range(3):
        other = samples.batches(2, seed=4, rank=rank, world_size=3)
        other.load_state_dict(one.state_dict())
        rest.append([(batch["sample_id"], batch["repeated"].tolist()) for batch in other])
    for step in zip(*rest, strict=True):
        ids += [name for names, repeated in step for name, again in zip(names, repeated, strict=True) if not again]
    assert ids == [samples.sample_ids[i] for i in one.order(0)]


def test_persistent_workers_go_on_to_the_next_epoch(samples: Samples) -> None:
    run = samples.batches(8, seed=2)
    loader = worked(run, 2, persistent_workers=True)
    epochs = [[told(batch) for batch in loader] for _ in range(2)]
    assert epochs == [epoch_of(samples.batches(8, seed=2), 0, epoch) for epoch in range(2)]


def test_epochs_follow_one_another(samples: Samples) -> None:
    run = samples.batches(8, seed=2)
    assert (run.epoch, run.position, len(run)) == (0, 0, 7)
    first = [told(batch) for batch in run]
    assert (run.epoch, run.position) == (1, 0)
    second = [told(batch) for batch in run]
    assert [name for ids, *_ in first for name in ids] != [name for ids, *_ in second for name in ids]
    run.seek(0)
    assert [told(batch) for batch in run] == first


def test_a_sample_comes_as_one_of_its_views_drawn_anew_each_epoch(tmp_path: Path) -> None:
    grain = Grain(tmp_path, {"sound": Feature(dim=3, lengths=(1, 5), views=2)}, count=30)
    grain.publish()
    samples = open_store(tmp_path, "grain").samples()
    assert samples.views == 2
    drawn: dict[str, set[int]] = {}
    for epoch in range(12):
        run = samples.batches(7, seed=9, views=True)
        run.set_epoch(epoch)
        for batch in run:
            for k, name in enumerate(batch["sample_id"]):
                view, length = int(batch["view"][k]), int(batch["lengths"]["sound"][k])
                drawn.setdefault(name, set()).add(view)
                sequence = grain.sequences["sound", name, view]
                np.testing.assert_array_equal(batch["values"]["sound"][k, :length].numpy(), sequence.values)
    with_views = {name for i, name in enumerate(grain.ids) if i % 3 == 0}
    assert all(views == {0} for name, views in drawn.items() if name not in with_views)
    assert all(len(views) > 1 for name, views in drawn.items() if name in with_views)


def test_a_feature_without_that_view_gives_the_sample_itself(samples: Samples) -> None:
    at = [i for i, name in enumerate(samples.sample_ids) if name in ("s0003", "s0006")]
    viewed, plain = samples.batch(at, views=np.array([1, 2], np.int16)), samples.batch(at)
    torch.testing.assert_close(viewed["values"]["picture"], plain["values"]["picture"], rtol=0, atol=0)
    assert viewed["lengths"]["sound"].tolist() != plain["lengths"]["sound"].tolist()


@pytest.mark.parametrize("change", [{"seed": 1}, {"shuffle": "full"}, {"views": True}, {"window_bytes": 7}])
def test_the_state_of_another_run_is_refused(samples: Samples, change: dict[str, Any]) -> None:
    state = samples.batches(4).state_dict()
    (name,) = change
    with pytest.raises(ValueError, match=f"state: got {name} .*, allowed: .*, that of these batches"):
        samples.batches(4, **change).load_state_dict(state)


def test_the_state_of_other_samples_is_refused(samples: Samples, tmp_path: Path) -> None:
    Grain(tmp_path, {"picture": Feature(dim=4)}, count=50).publish()
    state = open_store(tmp_path, "grain").samples().batches(4).state_dict()
    with pytest.raises(ValueError, match="state: got samples"):
        samples.batches(4).load_state_dict(state)


def test_two_iterations_at_once_are_refused(samples: Samples) -> None:
    run = samples.batches(4)
    first = iter(run)
    next(first)
    next(iter(run))
    with pytest.raises(RuntimeError, match="another iteration was begun meanwhile"):
        next(first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shuffle": "some"}, "shuffle: got 'some', allowed: window, full, none"),
        ({"layout": "flat"}, "layout: got 'flat', allowed: pad, pack"),
        ({"prefetch": -1}, "prefetch -1, allowed: at least 1, at least 0"),
        ({"rank": 1}, "got rank 1, world_size None, allowed: both or neither"),
    ],
)
def test_wrong_options_are_refused(samples: Samples, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        samples.batches(4, **options)


# The thread that makes batches ahead


class Item:
    """Something that can be counted while it lives."""


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_no_more_than_it_should_is_made_ahead(ahead: int) -> None:
    alive: weakref.WeakSet[Item] = weakref.WeakSet()
    most = 0

    def make() -> Iterator[Item]:
        nonlocal most
        for _ in range(60):
            item = Item()
            alive.add(item)
            most = max(most, len(alive))
            yield item
            del item

    count = 0
    for item in Prefetch(make, ahead):
        count += 1
        del item
    assert count == 60
    assert most <= ahead + 2  # one that is being made, one that was just taken


def test_a_fault_is_raised_at_its_place_and_the_thread_ends() -> None:
    def make() -> Iterator[int]:
        yield from range(3)
        raise OSError("the disk is gone")

    ahead, got = Prefetch(make, 2), []
    with pytest.raises(OSError, match="the disk is gone"):
        got.extend(ahead)
    assert got == [0, 1, 2]
    assert not ahead._thread.is_alive()


def test_leaving_early_leaves_no_thread(samples: Samples) -> None:
    for batch in samples.batches(2, prefetch=4):
        del batch
        break
    iterator = iter(samples.batches(2, prefetch=4))
    next(iterator)
    assert [thread for thread in threading.enumerate() if thread.name == "gristmill-prefetch"]
    iterator.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "gristmill-prefetch"]
