"""What every registered augmentation must keep."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import AUGMENTING, arrays, assert_alike, content, make, same, span, takes_torch_away
from made_media import CPU, SHIFT

from features.base import Augment
from features.registry import AUGMENT
from features.types import Device, Text

augmenters = pytest.mark.parametrize("name", sorted(AUGMENT))


def augmented(name: str, batch: list[Any], seeds: list[int], device: Device = CPU) -> list[Any]:
    step = make(name, AUGMENT, AUGMENTING)
    assert isinstance(step, Augment)
    if AUGMENTING[name].state is not None:
        step = step.with_state(AUGMENTING[name].state(step))
    found: list[Any] = step.augment(batch, seeds, device)
    return found


@augmenters
def test_a_seed_decides_how_a_medium_is_altered_whatever_else_is_in_the_batch(name: str) -> None:
    case = AUGMENTING[name]
    seeds = [7, 2**62 + 1, 9]
    together = augmented(name, [case.sample(k) for k in range(3)], seeds)
    for k in (2, 0, 1):
        (alone,) = augmented(name, [case.sample(k)], [seeds[k]])
        assert type(alone) is type(case.sample(k))
        assert_alike(alone, together[k], case.batch_atol)
    assert augmented(name, [], []) == []


@augmenters
def test_seeds_alter_differently_and_leave_the_input_as_it_was(name: str) -> None:
    case = AUGMENTING[name]
    sample = case.sample(1)
    views = [augmented(name, [sample], [seed])[0] for seed in range(8)]
    assert len({repr([np.asarray(part).tobytes() for part in arrays(view)]) for view in views}) > 1
    assert same(sample, case.sample(1))


@augmenters
def test_the_least_sample_can_be_altered(name: str) -> None:
    sample, _ = AUGMENTING[name].least
    (found,) = augmented(name, [sample], [3])
    assert type(found) is type(sample)


@augmenters
def test_altered_media_move_with_the_clock(name: str) -> None:
    case = AUGMENTING[name]
    ((here,), (there,)) = (augmented(name, [case.sample(1, start)], [5]) for start in (0, SHIFT))
    if isinstance(here, Text):
        assert [part.text for part in here.segments] == [part.text for part in there.segments]
    else:
        assert content(here).tobytes() == content(there).tobytes()
    assert span(here).start_ns + SHIFT == span(there).start_ns


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@augmenters
def test_augmenting_on_cuda_agrees(name: str) -> None:
    samples, seeds = [AUGMENTING[name].sample(seed) for seed in range(3)], [1, 2, 3]
    ours, theirs = (augmented(name, samples, seeds, device) for device in (CPU, "cuda"))
    for one, other in zip(ours, theirs, strict=True):
        assert_alike(one, other, AUGMENTING[name].device_atol)


@augmenters
def test_augmenting_computes_with_torch_only_where_it_names_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = AUGMENTING[name].sample(0)
    takes_torch_away(make(name, AUGMENT, AUGMENTING), monkeypatch)
    assert len(augmented(name, [sample], [1])) == 1
