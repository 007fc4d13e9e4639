"""Strips: what is drawn where, and what cannot be drawn."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from features.types import AudioClip, FeatureSequence
from pipeline.pictures.alignment import alignment_strip, spectrogram

SECOND = 1_000_000_000


def edges(*pairs: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    times = np.array(pairs).reshape(-1, 2) * SECOND
    return times[:, 0].astype(np.int64), times[:, 1].astype(np.int64)


def rows(values: np.ndarray) -> FeatureSequence:
    start = np.arange(len(values), dtype=np.int64) * SECOND // 10
    return FeatureSequence(values=values.astype(np.float32), start_ns=start, end_ns=start + SECOND // 10)


def drawn(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_every_part_has_its_place_and_the_same_arrays_give_the_same_bytes() -> None:
    sound, motion = rows(np.random.default_rng(0).normal(size=(30, 8))), rows(np.arange(30)[:, None])
    timeline = edges((0.2, 1.0), (0.8, 1.9), (1.9, 2.5))
    parts = {"labels": ["one", "two", "three"], "coverage": {"audio": np.array([1, 0.5, 0], np.float32)}}
    small = alignment_strip(timeline)
    whole = alignment_strip(timeline, sound=sound, motion=motion, title="all", **parts)
    assert whole == alignment_strip(timeline, sound=sound, motion=motion, title="all", **parts)
    assert drawn(whole).shape[0] > drawn(small).shape[0] + 300
    moved = alignment_strip(edges((0.2, 1.0), (0.8, 1.9), (1.9, 2.9)), sound=sound, motion=motion, title="all", **parts)
    assert drawn(moved).shape == drawn(whole).shape
    assert not np.array_equal(drawn(whole), drawn(moved))


def test_masked_rows_empty_sequences_and_no_interval_are_drawn() -> None:
    values = rows(np.zeros((4, 2)))
    masked = FeatureSequence(
        values=values.values, start_ns=values.start_ns, end_ns=values.end_ns, valid=np.zeros(4, np.bool_)
    )
    assert drawn(alignment_strip(edges(), sound=masked, motion=masked)).size
    assert drawn(alignment_strip(edges((0, 1)), sound=FeatureSequence.empty(3))).size


def test_lengths_must_match_and_there_must_be_something_to_draw() -> None:
    with pytest.raises(ValueError, match="labels: got 1, allowed: 2, one for each interval"):
        alignment_strip(edges((0, 1), (1, 2)), labels=["one"])
    with pytest.raises(ValueError, match="audio: got 0, allowed: 1"):
        alignment_strip(edges((0, 1)), coverage={"audio": np.zeros(0, np.float32)})
    with pytest.raises(ValueError, match="got no interval, no sound and no motion"):
        alignment_strip(edges())


def test_a_spectrogram_shows_a_tone_in_its_band() -> None:
    time = np.arange(16_000) / 16_000
    tone = AudioClip(samples=np.sin(2 * np.pi * 2_000 * time)[None].astype(np.float32), sample_rate=16_000, start_ns=5)
    found = spectrogram(tone, bands=80)
    assert found.dim == 80
    assert found.start_ns[:2].tolist() == [5, 10_000_005]
    assert set(found.values.argmax(axis=1).tolist()) <= {19, 20}
    assert len(spectrogram(AudioClip(samples=np.zeros((1, 5), np.float32), sample_rate=16_000))) == 0
