"""What every registered prepare step must keep, and every one that selects frames."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from cases import CUTS, PREPARING, assert_alike, chunks, clock, content, make, same, span, takes_torch_away
from made_media import CPU, SHIFT, no_frames

from features.base import FrameSelector, Prepare
from features.registry import PREPARE
from features.types import Device, Image, Text, VideoClip


def selected(step: FrameSelector, pieces: list[VideoClip]) -> list[Image]:
    sink = step.select()
    for piece in pieces:
        sink.push(piece)
    return sink.finish()


SELECTORS = [name for name in sorted(PREPARE) if isinstance(make(name, PREPARE, PREPARING), FrameSelector)]


@CUTS
@pytest.mark.parametrize("name", SELECTORS)
def test_how_a_video_is_cut_into_chunks_does_not_matter_to_a_selector(name: str, size: int) -> None:
    step, clip = make(name, PREPARE, PREPARING), PREPARING[name].sample(1)
    assert isinstance(clip, VideoClip)
    whole, parts = selected(step, [clip]), selected(step, chunks(clip, size))
    assert len(whole) > 1
    assert len(parts) == len(whole)
    assert all(same(one, other) for one, other in zip(whole, parts, strict=True))
    assert same(clip, PREPARING[name].sample(1))


@pytest.mark.parametrize("name", SELECTORS)
def test_selected_frames_are_frames_of_the_video_and_move_with_its_clock(name: str) -> None:
    step, (here, there) = make(name, PREPARE, PREPARING), (PREPARING[name].sample(1, start) for start in (0, SHIFT))
    assert isinstance(here, VideoClip)
    assert isinstance(there, VideoClip)
    for one, other in zip(selected(step, [here]), selected(step, [there]), strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert (one.span.start_ns + SHIFT, one.span.end_ns + SHIFT) == (other.span.start_ns, other.span.end_ns)
        assert any(np.array_equal(one.pixels, frame) for frame in here.pixels)
        assert span(here).start_ns <= one.span.start_ns < one.span.end_ns <= span(here).end_ns
    assert selected(step, []) == selected(step, [no_frames(3)]) == []


PREPARERS = [name for name in sorted(PREPARE) if name not in SELECTORS]
preparers = pytest.mark.parametrize("name", PREPARERS)


def prepared(name: str, batch: list[Any], device: Device = CPU) -> list[Any]:
    step = make(name, PREPARE, PREPARING)
    assert isinstance(step, Prepare)
    if PREPARING[name].state is not None:
        step = step.with_state(PREPARING[name].state(step))
    return step.prepare(batch, device)


@preparers
def test_prepared_media_keep_kind_count_order_length_and_clock(name: str) -> None:
    samples = [PREPARING[name].sample(seed, SHIFT * seed) for seed in range(3)] + [PREPARING[name].least[0]]
    found = prepared(name, samples)
    kept = PREPARING[name].keeps or clock
    assert [(type(medium), kept(medium)) for medium in found] == [(type(medium), kept(medium)) for medium in samples]
    if PREPARING[name].keeps:
        for one, other in zip(found, samples, strict=True):
            assert span(other).start_ns <= span(one).start_ns <= span(one).end_ns <= span(other).end_ns
    assert prepared(name, []) == []


@preparers
def test_preparing_does_something_and_leaves_the_input_as_it_was(name: str) -> None:
    sample = PREPARING[name].sample(1)
    (found,) = prepared(name, [sample])
    assert np.array_equal(content(found), content(sample)) == PREPARING[name].passes
    assert same(sample, PREPARING[name].sample(1))


@preparers
def test_preparing_depends_neither_on_the_batch_nor_on_the_clock_nor_on_the_time_of_day(name: str) -> None:
    case = PREPARING[name]
    together = prepared(name, [case.sample(seed) for seed in (2, 0, 1)])
    for found, seed in zip(together, (2, 0, 1), strict=True):
        assert_alike(found, prepared(name, [case.sample(seed)])[0], case.batch_atol)
    ((one,), (other,), (moved,)) = (prepared(name, [case.sample(1, start)]) for start in (0, 0, SHIFT))
    assert same(one, other)
    if isinstance(one, Text):
        assert [segment.text for segment in one.segments] == [segment.text for segment in moved.segments]
    else:
        assert content(one).tobytes() == content(moved).tobytes()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@preparers
def test_preparing_on_cuda_agrees(name: str) -> None:
    samples = [PREPARING[name].sample(seed) for seed in range(3)]
    for one, other in zip(prepared(name, samples), prepared(name, samples, "cuda"), strict=True):
        assert_alike(one, other, PREPARING[name].device_atol)


@preparers
def test_preparing_computes_with_torch_only_where_it_names_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = PREPARING[name].sample(0)
    takes_torch_away(make(name, PREPARE, PREPARING), monkeypatch)
    assert len(prepared(name, [sample])) == 1
