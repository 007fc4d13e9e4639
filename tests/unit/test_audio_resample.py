"""Sample rate and channels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.audio.resample import mono, require_finite, resample
from features.errors import SampleError
from features.types import AudioClip


def tone(hz: float, rate: int, seconds: float = 1.0, channels: int = 1) -> AudioClip:
    t = np.arange(round(seconds * rate)) / rate
    wave = 0.5 * np.sin(2 * np.pi * hz * t).astype(np.float32)
    return AudioClip(samples=np.stack([wave] * channels), sample_rate=rate, start_ns=11)


def test_the_same_rate_is_the_very_same_clip() -> None:
    clip = tone(440, 16_000)
    assert resample(clip, 16_000) is clip


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050, 48_000])
def test_a_tone_stays_the_tone(rate: int) -> None:
    found = resample(tone(440, 44_100, channels=2), rate)
    expected = tone(440, rate, channels=2)
    assert (found.sample_rate, found.start_ns, found.samples.shape) == (rate, 11, expected.samples.shape)
    np.testing.assert_allclose(found.samples[:, 500:-500], expected.samples[:, 500:-500], atol=1e-4)


def test_what_the_new_rate_cannot_hold_is_gone() -> None:
    assert np.abs(resample(tone(6000, 16_000), 8000).samples[:, 200:-200]).max() < 1e-4


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 3000), st.integers(4000, 50_000), st.integers(4000, 50_000))
def test_the_duration_stays_to_the_sample(n: int, before: int, after: int) -> None:
    clip = AudioClip(samples=np.zeros((2, n), np.float32), sample_rate=before, start_ns=3)
    found = resample(clip, after)
    assert found.samples.shape[0] == 2
    assert abs(found.samples.shape[1] - n * after / before) <= 1
    assert found.span.start_ns == 3


def test_mono_is_the_mean_or_the_first_channel() -> None:
    clip = AudioClip(samples=np.array([[1, 0], [0, -1]], np.float32), sample_rate=8000)
    assert mono(clip).tolist() == [0.5, -0.5]
    assert mono(clip, "first").tolist() == [1, 0]
    assert mono(clip).dtype == mono(clip, "first").dtype == np.float32


def test_errors() -> None:
    clip = AudioClip(samples=np.array([[0, np.nan]], np.float32), sample_rate=8000)
    with pytest.raises(SampleError, match=r"first at sample 1 of 2"):
        require_finite(clip)
    with pytest.raises(SampleError, match="non_finite"):
        resample(clip, 16_000)
    with pytest.raises(ValueError, match="sample_rate: got 0, allowed: >= 1"):
        resample(clip, 0)
    with pytest.raises(ValueError, match="channels: got 'both', allowed: mean or first"):
        mono(clip, "both")  # type: ignore[arg-type]  # what the test is about
