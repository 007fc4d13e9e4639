"""Mel, STFT, chroma and prosody against librosa, over random signals, rates, hops, windows and lengths."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import librosa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.audio.frames import Framed
from features.audio.mel import Mel
from features.audio.prosody import Prosody
from features.audio.spectrogram import Chroma, Stft
from features.types import AudioClip, Device, FeatureSequence

CPU: Device = "cpu"
Wave = np.ndarray[Any, np.dtype[np.float32]]


def wave(kind: str, n: int, rate: int, seed: int) -> Wave:
    rng = np.random.default_rng(seed)
    t = np.arange(n) / rate
    phase = 2 * np.pi * np.cumsum(rng.uniform(80, 250) * (1 + 0.1 * np.sin(2 * np.pi * 3 * t))) / rate
    made = {
        "noise": 0.1 * rng.standard_normal(n),
        "faint": 1e-4 * rng.standard_normal(n),
        "voice": sum(np.sin(k * phase) / k for k in range(1, 9)) / 3 + 0.003 * rng.standard_normal(n),
        "constant": np.full(n, 0.7),
        "silence": np.zeros(n),
        "bursts": rng.standard_normal(n) * (np.sin(2 * np.pi * 5 * t) > 0.5),
    }
    return made[kind].astype(np.float32)


KINDS = ("noise", "faint", "voice", "constant", "silence", "bursts")


@st.composite
def cases(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS) -> tuple[dict[str, Any], Wave]:
    rate = draw(st.sampled_from([8000, 11_025, 16_000, 22_050, 44_100]))
    n_fft = 2 * draw(st.integers(64, 600))
    options = {
        "sample_rate": rate,
        "n_fft": n_fft,
        "win_length": draw(st.one_of(st.none(), st.integers(16, n_fft))),
        "hop_length": draw(st.integers(20, 700)),
        "window": draw(st.sampled_from(["hann", "hamming"])),
    }
    length = draw(st.integers(1, min(6000, 100 * options["hop_length"])))
    return options, wave(draw(st.sampled_from(kinds)), length, rate, draw(st.integers(0, 2**32 - 1)))


def compute(step: Framed, y: Wave) -> FeatureSequence:
    (found,) = step([AudioClip(samples=y[None], sample_rate=step.sample_rate)], CPU)
    assert (len(found), found.dim) == (1 + len(y) // step.hop_length, len(step.columns))
    return found


def theirs(call: Callable[..., Any], **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of short clips and empty filters
        return call(**options)


def common(options: dict[str, Any], *names: str) -> dict[str, Any]:
    kept = {name: options[name] for name in ("n_fft", "win_length", "hop_length", "window")}
    return kept | ({"sr": options["sample_rate"]} if "sr" in names else {})


@settings(deadline=None, max_examples=40)
@given(cases(), st.integers(1, 128), st.booleans(), st.sampled_from([None, 40.0, 80.0]))
def test_mel(case: tuple[dict[str, Any], Wave], n_mels: int, htk: bool, top_db: float | None) -> None:
    options, y = case
    expected = theirs(
        librosa.feature.melspectrogram, y=y.astype(np.float64), **common(options, "sr"), n_mels=n_mels, htk=htk
    )
    power = compute(Mel(**options, n_mels=n_mels, htk=htk, scale="power"), y).values
    np.testing.assert_allclose(power, expected.T, rtol=2e-6, atol=1e-12)
    found = compute(Mel(**options, n_mels=n_mels, htk=htk, top_db=top_db), y).values
    np.testing.assert_allclose(found, librosa.power_to_db(expected, top_db=top_db).T, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(cases())
def test_stft(case: tuple[dict[str, Any], Wave]) -> None:
    options, y = case
    expected = np.abs(theirs(librosa.stft, y=y.astype(np.float64), **common(options)))
    tolerance = 1e-7 * max(1.0, expected.max())
    magnitude = compute(Stft(**options, scale="magnitude"), y).values
    np.testing.assert_allclose(magnitude, expected.T, rtol=2e-6, atol=tolerance)
    np.testing.assert_allclose(compute(Stft(**options, scale="power"), y).values, magnitude**2, rtol=1e-6, atol=1e-12)
    decibels = librosa.power_to_db(expected**2, top_db=80.0)
    np.testing.assert_allclose(compute(Stft(**options), y).values, decibels.T, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(cases(), st.sampled_from([0.0, -0.3, 0.25]))
def test_chroma(case: tuple[dict[str, Any], Wave], tuning: float) -> None:
    options, y = case
    found = compute(Chroma(**options, tuning=tuning), y)
    expected = theirs(librosa.feature.chroma_stft, y=y.astype(np.float64), **common(options, "sr"), tuning=tuning).T
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    np.testing.assert_array_equal(found.valid, expected.any(axis=1))


@settings(deadline=None, max_examples=60)
@given(cases(), st.sampled_from([0.5, 0.85, 0.99]))
def test_levels_and_shape_of_the_spectrum(case: tuple[dict[str, Any], Wave], rolloff: float) -> None:
    options, y = case
    fmin = max(65.0, options["sample_rate"] / (options["n_fft"] - 1))
    step = Prosody(**options, rolloff=rolloff, fmin=fmin, fmax=options["sample_rate"] / 2)
    found = dict(zip(step.columns, compute(step, y).values.T, strict=True))
    exact, with_spectrum = y.astype(np.float64), common(options, "sr")
    frames = {"frame_length": options["n_fft"], "hop_length": options["hop_length"]}
    (rms,) = librosa.feature.rms(y=exact, dtype=np.float64, **frames)
    np.testing.assert_allclose(found["rms"], rms, rtol=1e-6, atol=1e-12)
    (crossings,) = librosa.feature.zero_crossing_rate(exact, **frames)
    np.testing.assert_allclose(found["zero_crossings"], crossings, atol=1e-7)
    (centroid,) = theirs(librosa.feature.spectral_centroid, y=exact, **with_spectrum)
    np.testing.assert_allclose(found["centroid_hz"], centroid, rtol=1e-6, atol=1e-3)
    (flatness,) = theirs(librosa.feature.spectral_flatness, y=exact, **common(options))
    np.testing.assert_allclose(found["flatness"], flatness, rtol=1e-5, atol=1e-7)
    (edge,) = theirs(librosa.feature.spectral_rolloff, y=exact, **with_spectrum, roll_percent=rolloff)
    bin_hz = options["sample_rate"] / options["n_fft"]
    # a sum within rounding of the threshold may fall on the bin beside it
    assert np.abs(found["rolloff_hz"] - edge).max() <= 1.01 * bin_hz
    assert np.mean(np.abs(found["rolloff_hz"] - edge) > 1e-2) <= 0.2


@settings(deadline=None, max_examples=40)
@given(cases(kinds=("noise", "voice", "bursts", "silence")), st.sampled_from([0.1, 0.3]))
def test_yin(case: tuple[dict[str, Any], Wave], threshold: float) -> None:
    options, y = case
    rate, n_fft, hop = options["sample_rate"], options["n_fft"], options["hop_length"]
    fmin = 1.1 * rate / (n_fft - 1)
    step = Prosody(**options, fmin=fmin, fmax=rate / 4, yin_threshold=threshold)
    found = compute(step, y).values[:, step.columns.index("f0_hz")]
    expected = theirs(
        librosa.yin,
        y=y.astype(np.float64), fmin=fmin, fmax=rate / 4, sr=rate, frame_length=n_fft, hop_length=hop,
        trough_threshold=threshold,
    )  # fmt: skip
    # two dips within rounding of each other may swap; everywhere else the very same number
    assert np.mean(np.abs(found - expected) > 1e-4 * expected) <= 0.1 + 1.5 / len(expected) * (len(expected) < 10)


@pytest.mark.parametrize("pitch", ["yin", "pyin"])
def test_a_voice_is_voiced_at_its_pitch_and_noise_is_not(pitch: str) -> None:
    rate = 16_000
    t = np.arange(rate) / rate
    voice = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 9)) / 4
    noise = 0.1 * np.random.default_rng(0).standard_normal(rate)
    y = np.concatenate([voice, noise, np.zeros(rate)]).astype(np.float32)
    step = Prosody(pitch=pitch)
    found = dict(zip(step.columns, compute(step, y).values.T, strict=True))
    np.testing.assert_allclose(found["f0_hz"][5:95], 140, rtol=5e-3)
    assert found["voiced"][5:95].all()
    assert found["voiced"][110:195].mean() < 0.1
    assert not found["voiced"][210:].any()


def test_pyin_is_librosas() -> None:
    y = wave("voice", 8000, 16_000, 2)
    step = Prosody(pitch="pyin")
    found = dict(zip(step.columns, compute(step, y).values.T, strict=True))
    f0, voiced, probability = librosa.pyin(
        y.astype(np.float64), fmin=65, fmax=500, sr=16_000, frame_length=1024, hop_length=160
    )
    np.testing.assert_array_equal(found["voiced"], voiced)
    np.testing.assert_allclose(found["f0_hz"][voiced], f0[voiced], rtol=1e-6)
    np.testing.assert_allclose(found["periodicity"], probability, atol=1e-6)
