"""Media and feature types: what they check, and that what is inside cannot be changed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from features.errors import CatalogError, GristmillError, Reason, SampleError
from features.time import ALWAYS, Span
from features.types import AudioClip, FeatureSequence, Image, Text, TextSegment, VideoClip

RGB = np.zeros((2, 4, 6, 3), np.uint8)
TIMES = np.array([0, 10], np.int64)


def video(**change: Any) -> VideoClip:
    return VideoClip(**{"pixels": RGB, "start_ns": TIMES, "end_ns": TIMES + 10} | change)


def sequence(**change: Any) -> FeatureSequence:
    return FeatureSequence(**{"values": np.ones((2, 3), np.float32), "start_ns": TIMES, "end_ns": TIMES + 5} | change)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Image(pixels=RGB), r"Image.pixels: got uint8 \[2, 4, 6, 3\], allowed: uint8 with 3 dimensions"),
        (lambda: Image(pixels=RGB[0].astype(np.float32)), r"Image.pixels: got float32 \[4, 6, 3\], allowed: uint8"),
        (
            lambda: Image(pixels=RGB[0, :, :, :1]),
            r"Image.pixels: got shape \[4, 6, 1\], allowed: \[H >= 1, W >= 1, 3\]",
        ),
        (lambda: Image(pixels=RGB[0, :0]), r"Image.pixels: got shape \[0, 6, 3\]"),
        (lambda: AudioClip(samples=[[0.0]], sample_rate=1), "AudioClip.samples: got list, allowed: float32 with 2 dim"),
        (lambda: AudioClip(samples=np.zeros((1, 5)), sample_rate=1), r"AudioClip.samples: got float64 \[1, 5\]"),
        (lambda: AudioClip(samples=np.zeros((0, 5), np.float32), sample_rate=1), "got 0 channels, allowed: at least 1"),
        (lambda: AudioClip(samples=np.zeros((1, 5), np.float32), sample_rate=0), "sample_rate: got 0, allowed: >= 1"),
        (lambda: video(pixels=RGB[0, 0]), r"VideoClip.pixels: got uint8 \[6, 3\], allowed: uint8 with 3 or 4 dim"),
        (lambda: video(start_ns=TIMES[:1]), "VideoClip.start_ns: got 1 entries, allowed: one for each of 2 rows"),
        (lambda: video(start_ns=TIMES.astype(float)), r"VideoClip.start_ns: got float64 \[2\], allowed: int64"),
        (lambda: video(end_ns=TIMES - 1), "VideoClip: a row ends before it starts, allowed: start_ns <= end_ns"),
        (
            lambda: video(end_ns=TIMES + 11),
            "VideoClip: frames overlap or go back in time, allowed: start < end <= next",
        ),
        (lambda: video(start_ns=np.zeros(2, np.int64)), "VideoClip: frames overlap or go back in time"),
        (lambda: sequence(values=np.ones((2, 3))), r"FeatureSequence.values: got float64 \[2, 3\], allowed: float32"),
        (lambda: sequence(end_ns=TIMES[:1]), "FeatureSequence.end_ns: got 1 entries, allowed: one for each of 2 rows"),
        (lambda: sequence(valid=np.ones(3, np.bool_)), "FeatureSequence.valid: got 3 entries, allowed: 2, one a row"),
        (lambda: sequence(valid=np.ones(2)), r"FeatureSequence.valid: got float64 \[2\], allowed: bool"),
        (lambda: sequence(start_ns=-TIMES), "FeatureSequence: rows are not in order of start_ns"),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_arrays_inside_are_read_only_views_and_the_caller_s_stay_writable() -> None:
    pixels, samples, values = RGB[0].copy(), np.zeros((1, 4), np.float32), np.ones((2, 3), np.float32)
    media = (
        Image(pixels=pixels).pixels,
        AudioClip(samples=samples, sample_rate=8).samples,
        sequence(values=values).values,
    )
    for inside, given in zip(media, (pixels, samples, values), strict=True):
        assert np.shares_memory(inside, given)
        assert given.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            inside[...] = 1


def test_spans() -> None:
    assert Image(pixels=RGB[0]).span == ALWAYS
    assert AudioClip(samples=np.zeros((2, 3), np.float32), sample_rate=3, start_ns=7).span == Span(7, 1_000_000_007)
    assert AudioClip(samples=np.zeros((2, 0), np.float32), sample_rate=3, start_ns=7).span == Span(7, 7)


def test_rows_and_validity() -> None:
    made = FeatureSequence.from_rows(np.ones((2, 3), np.float32), [Span(0, 5), Span(10, 15)])
    assert (len(made), made.dim, made.valid.tolist()) == (2, 3, [True, True])
    assert (made.start_ns.tolist(), made.end_ns.tolist()) == ([0, 10], [5, 15])
    empty = FeatureSequence.empty(7)
    assert (len(empty), empty.dim, len(empty.valid)) == (0, 7, 0)
    assert not sequence(valid=np.array([True, False])).valid[1]


def test_reprs_tell_shapes_and_times() -> None:
    assert repr(Image(pixels=RGB[0])) == "Image(6x4, Span(always))"
    clip = AudioClip(samples=np.zeros((2, 8), np.float32), sample_rate=8)
    assert repr(clip) == "AudioClip(2 x 8 at 8 Hz, Span(0.000000 s .. 1.000000 s))"
    assert repr(video()) == "VideoClip(2 frames [4, 6, 3])"
    assert repr(sequence(valid=np.array([True, False]))) == "FeatureSequence(2 x 3, 0.000 s .. 0.000 s, 1 masked)"
    assert repr(FeatureSequence.empty(2)) == "FeatureSequence(0 x 2, 0 masked)"


def test_text() -> None:
    text = Text((TextSegment("two", Span(0, 1)), TextSegment("words", Span(1, 2))))
    assert text.plain == "two words"
    assert text == Text((TextSegment("two", Span(0, 1)), TextSegment("words", Span(1, 2))))
    assert Text(()).plain == ""


def test_values_travel_by_pickle() -> None:
    again = pickle.loads(pickle.dumps(sequence()))
    np.testing.assert_array_equal(again.values, sequence().values)
    assert len(pickle.loads(pickle.dumps(video()))) == 2


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_sequence_comes_back_from_pickles_and_copies_to_the_bit_and_read_only(rows: int) -> None:
    times = np.arange(rows, dtype=np.int64)
    values = np.asfortranarray(np.linspace(-1, 1, rows * 2, dtype=np.float32).reshape(rows, 2))  # not as it travels
    sequence = FeatureSequence(values=values, start_ns=times, end_ns=times + 5, valid=times != 1)
    pickles = [pickle.loads(pickle.dumps(sequence, protocol)) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    buffers: list[pickle.PickleBuffer] = []
    outside = pickle.dumps(sequence, 5, buffer_callback=buffers.append)
    pickles.append(pickle.loads(outside, buffers=[bytearray(buffer) for buffer in buffers]))
    for again in (*pickles, copy.copy(sequence), copy.deepcopy(sequence)):
        assert again.dim == 2
        for name in ("values", "start_ns", "end_ns", "valid"):
            array, before = getattr(again, name), getattr(sequence, name)
            assert array.dtype == before.dtype
            np.testing.assert_array_equal(array, before)
            assert not array.flags.writeable


def test_sample_errors_keep_their_reason() -> None:
    error = pickle.loads(pickle.dumps(SampleError(Reason.SILENT, "nothing heard")))
    assert (error.reason, error.message, str(error)) == (Reason.SILENT, "nothing heard", "silent: nothing heard")
    assert isinstance(error, GristmillError)
    assert CatalogError(["a:1: x", "a:2: y"]).problems == ["a:1: x", "a:2: y"]
    assert str(CatalogError(["a:1: x", "a:2: y"])) == "a:1: x\na:2: y"
