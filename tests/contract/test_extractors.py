"""What every registered extractor must keep."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from cases import CUTS, EXTRACTOR, assert_close, chunks, extractors, make, raw, ready, same, span, takes_torch_away
from made_media import CPU, SHIFT

from features.base import Extractor, NeedsFit, NeedsReference, NeedsWeights, VideoExtractor
from features.errors import StateError
from features.registry import EXTRACTORS
from features.types import VideoClip


@extractors
def test_an_extractor_is_one_and_says_what_it_needs(name: str) -> None:
    step = make(name, EXTRACTORS, EXTRACTOR)
    assert isinstance(step, Extractor)
    needs = isinstance(step, NeedsFit) or (isinstance(step, NeedsWeights) and step.weights_ref is not None)
    assert needs == (EXTRACTOR[name].state is not None)
    assert isinstance(step, NeedsReference) == (EXTRACTOR[name].reference is not None)
    bound = ready(name)
    assert isinstance(bound, Extractor)
    assert (bound.name, bound.stream, bound.dim) == (name, step.stream, step.dim)


@extractors
def test_rows_are_finite_as_wide_as_declared_and_inside_the_sample(name: str) -> None:
    sample = EXTRACTOR[name].sample(1, SHIFT)
    (found,) = ready(name)([sample], CPU)
    assert len(found) > 0
    assert found.dim == ready(name).dim
    assert np.isfinite(found.values).all()
    assert found.values[found.valid].any()
    assert not found.values[~found.valid].any()
    assert span(sample).start_ns <= found.start_ns.min()
    assert found.end_ns.max() <= span(sample).end_ns


def elsewhere(medium: Any, offset: int) -> Any:
    """The same medium with its arrays copied to addresses ``offset`` bytes past a multiple of 64."""
    moved = {}
    for part in dataclasses.fields(medium):
        value = getattr(medium, part.name)
        if isinstance(value, np.ndarray):
            room = np.empty(value.nbytes + 128, np.uint8)
            first = -room.ctypes.data % 64 + offset
            moved[part.name] = room[first : first + value.nbytes].view(value.dtype).reshape(value.shape)
            moved[part.name][...] = value
    return dataclasses.replace(medium, **moved)


@extractors
def test_the_same_sample_gives_the_same_bytes_wherever_it_lies_in_memory(name: str) -> None:
    # the length of what is held moves the addresses that a step's own arrays get: SIMD code may round by address
    step = ready(name)
    for seed in range(3):
        sample, held, found = EXTRACTOR[name].sample(seed), [], set()
        for turn in range(12):
            held.append(bytearray(1000 + 16 * turn))
            found.add(raw(step([elsewhere(sample, 16 * (turn % 4))], CPU)[0]))
        assert len(found) == 1


@extractors
def test_the_input_is_left_as_it_was(name: str) -> None:
    sample = EXTRACTOR[name].sample(1)
    ready(name)([sample], CPU)
    assert same(sample, EXTRACTOR[name].sample(1))


@extractors
def test_shifting_the_clock_shifts_the_times_and_nothing_else(name: str) -> None:
    case = EXTRACTOR[name]
    ((here,), (there,)) = (ready(name)([case.sample(1, start)], CPU) for start in (0, SHIFT))
    assert (here.values.tobytes(), here.valid.tobytes()) == (there.values.tobytes(), there.valid.tobytes())
    np.testing.assert_array_equal(here.start_ns + SHIFT, there.start_ns)
    np.testing.assert_array_equal(here.end_ns + SHIFT, there.end_ns)


@extractors
def test_rows_do_not_depend_on_what_else_is_in_the_batch(name: str) -> None:
    case = EXTRACTOR[name]
    samples = [case.sample(seed) for seed in range(3)]
    alone = [ready(name)([sample], CPU)[0] for sample in samples]
    for order in ((0, 1, 2), (2, 0, 1), (1, 1)):
        together = ready(name)([samples[k] for k in order], CPU)
        assert len(together) == len(order)
        for found, k in zip(together, order, strict=True):
            assert_close(found, alone[k], case.batch_atol)


@extractors
def test_the_least_sample_gives_the_rows_that_it_should(name: str) -> None:
    sample, rows = EXTRACTOR[name].least
    step = ready(name)
    assert step([], CPU) == []
    least, full = step([sample, EXTRACTOR[name].sample(0)], CPU)
    assert (len(least), least.dim) == (rows, step.dim)
    assert len(full) > 0


@extractors
def test_a_step_with_its_state_travels_to_another_process(name: str) -> None:
    sample = EXTRACTOR[name].sample(1)
    again = pickle.loads(pickle.dumps(ready(name)))
    assert raw(again([sample], CPU)[0]) == raw(ready(name)([sample], CPU)[0])


@pytest.mark.parametrize("name", [name for name in sorted(EXTRACTORS) if name in EXTRACTOR and EXTRACTOR[name].state])
def test_without_the_right_state_nothing_is_extracted(name: str) -> None:
    step = make(name, EXTRACTORS, EXTRACTOR)
    with pytest.raises(StateError, match=rf"{name}: .*cure: "):
        step([EXTRACTOR[name].sample(0)], CPU)
    with pytest.raises(StateError, match=name):
        step.with_state({})


@pytest.mark.parametrize("name", [name for name in sorted(EXTRACTORS) if EXTRACTOR[name].reference])
def test_without_what_it_compares_with_nothing_is_extracted(name: str) -> None:
    with pytest.raises(StateError, match=rf"{name}: .*cure: with_reference"):
        make(name, EXTRACTORS, EXTRACTOR)([EXTRACTOR[name].sample(0)], CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@extractors
def test_cpu_and_cuda_agree(name: str) -> None:
    samples = [EXTRACTOR[name].sample(seed) for seed in range(3)]
    ours, theirs = ready(name)(samples, CPU), ready(name)(samples, "cuda")
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other, EXTRACTOR[name].device_atol)


@CUTS
@pytest.mark.parametrize("name", [name for name in sorted(EXTRACTORS) if name.startswith(("video.", "align."))])
def test_how_a_video_is_cut_into_chunks_does_not_matter_to_an_extractor(name: str, size: int) -> None:
    step, clip = ready(name), EXTRACTOR[name].sample(1)
    assert isinstance(step, VideoExtractor)
    assert isinstance(clip, VideoClip)
    sink = step.open(CPU)
    for chunk in chunks(clip, size):
        sink.push(chunk)
    assert raw(sink.finish()) == raw(step([clip], CPU)[0])


@extractors
def test_an_extractor_computes_with_torch_only_where_it_names_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step, sample = ready(name), EXTRACTOR[name].sample(0)
    takes_torch_away(step, monkeypatch)
    assert len(step([sample], CPU)) == 1
