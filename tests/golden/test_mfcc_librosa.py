"""``audio.mfcc`` against librosa, over random signals, rates, hops and lengths."""

from __future__ import annotations

import warnings
from typing import Any

import librosa
import numpy as np
import pytest
import soxr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.audio.mel import mel_bank, nepers
from features.audio.mfcc import Mfcc, cosine_basis, slopes
from features.types import AudioClip, Device

CPU: Device = "cpu"


def signal(kind: str, n: int, rate: int, seed: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    t = np.arange(n) / rate
    noise = rng.standard_normal(n)
    made = {
        "noise": 0.1 * noise,
        "faint": 1e-6 * noise,
        "tone": 0.5 * np.sin(2 * np.pi * rng.uniform(20, rate / 2) * t),
        "chirp": np.sin(2 * np.pi * (rate / 8) * t**2) + 1e-3 * noise,
        "constant": np.full(n, 0.7),
        "silence": np.zeros(n),
        "click": np.where(np.arange(n) == n // 2, 1.0, 0.0),
        "beyond": 30.0 * noise,
        "bursts": noise * (np.sin(2 * np.pi * 3 * t) > 0.8),
    }
    return made[kind].astype(np.float32)


KINDS = ("noise", "faint", "tone", "chirp", "constant", "silence", "click", "beyond", "bursts")


def reference(y: np.ndarray[Any, Any], options: Mfcc) -> np.ndarray[Any, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of short clips and empty filters
        found = librosa.feature.mfcc(
            y=y,
            sr=options.sample_rate,
            n_mfcc=options.n_mfcc,
            n_fft=options.n_fft,
            win_length=options.win_length,
            hop_length=options.hop_length,
            n_mels=options.n_mels,
            window=options.window,
            fmin=options.fmin,
            fmax=options.fmax,
            htk=options.htk,
            mel_norm=None if options.mel_norm == "none" else "slaney",
            lifter=options.lifter,
        )
    return found.T  # type: ignore[no-any-return]  # librosa is not typed


@st.composite
def cases(draw: st.DrawFn) -> tuple[Mfcc, str, int, int]:
    rate = draw(st.sampled_from([8000, 11025, 16000, 22050, 44100]))
    n_fft = 2 * draw(st.integers(8, 600))
    n_mels = draw(st.integers(1, 140))
    fmin = draw(st.sampled_from([0.0, 20.0, 133.3, 1200.0]))
    options = Mfcc(
        sample_rate=rate,
        n_mfcc=draw(st.integers(1, n_mels)),
        n_mels=n_mels,
        n_fft=n_fft,
        win_length=draw(st.one_of(st.none(), st.integers(2, n_fft))),
        hop_length=draw(st.integers(1, 700)),
        fmin=fmin,
        fmax=draw(st.sampled_from([None, rate / 2, 3000.0])),
        window=draw(st.sampled_from(["hann", "hamming", "blackman"])),
        htk=draw(st.booleans()),
        mel_norm=draw(st.sampled_from(["slaney", "none"])),
        lifter=draw(st.sampled_from([0.0, 22.0])),
    )
    length = draw(st.integers(1, min(6000, 400 * options.hop_length)))
    return options, draw(st.sampled_from(KINDS)), length, draw(st.integers(0, 2**32 - 1))


@settings(deadline=None, max_examples=120)
@given(cases())
@example((Mfcc(), "noise", 1, 0))
@example((Mfcc(), "noise", 159, 0))
@example((Mfcc(), "noise", 160, 0))
@example((Mfcc(n_mfcc=13, n_mels=40, n_fft=400), "chirp", 16000, 1))
def test_equals_librosa(case: tuple[Mfcc, str, int, int]) -> None:
    options, kind, length, seed = case
    y = signal(kind, length, options.sample_rate, seed)
    (found,) = options([AudioClip(samples=y[None], sample_rate=options.sample_rate)], CPU)
    expected = reference(y, options)
    assert found.values.shape == expected.shape
    order = np.arange(1, options.n_mfcc + 1)
    weights = 1 + options.lifter / 2 * np.sin(np.pi * order / max(options.lifter, 1))
    assert np.abs((found.values - expected) / np.maximum(1, np.abs(weights))).max() <= 1e-3
    exact = reference(y.astype(np.float64), options)  # librosa in double: only our rounding to float32 is left
    np.testing.assert_allclose(found.values, exact, atol=1e-5, rtol=6e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_ten_seconds_equal_librosa(kind: str) -> None:
    y = signal(kind, 160_000, 16_000, 3)
    (found,) = Mfcc()([AudioClip(samples=y[None], sample_rate=16_000)], CPU)
    np.testing.assert_allclose(found.values, reference(y, Mfcc()), atol=1e-3, rtol=0)


def test_stereo_at_another_rate_is_mixed_then_resampled_as_librosa_loads_it() -> None:
    stereo = np.stack([signal("chirp", 44_100, 44_100, 1), signal("noise", 44_100, 44_100, 2)])
    (found,) = Mfcc()([AudioClip(samples=stereo, sample_rate=44_100)], CPU)
    y = soxr.resample(stereo.mean(axis=0), 44_100, 16_000, quality="HQ")
    np.testing.assert_allclose(found.values, reference(y, Mfcc()), atol=1e-3, rtol=0)


@settings(deadline=None, max_examples=60)
@given(cases())
def test_filters_and_cosines_equal_librosa_and_scipy(case: tuple[Mfcc, str, int, int]) -> None:
    import scipy.fft

    options = case[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty filters
        bank = librosa.filters.mel(
            sr=options.sample_rate,
            n_fft=options.n_fft,
            n_mels=options.n_mels,
            fmin=options.fmin,
            fmax=options.fmax,
            htk=options.htk,
            norm=None if options.mel_norm == "none" else "slaney",
        )
    ours = mel_bank(
        options.sample_rate,
        options.n_fft,
        options.n_mels,
        options.fmin,
        options.highest,
        htk=options.htk,
        unit_area=options.mel_norm == "slaney",
    )
    np.testing.assert_allclose(ours, bank, atol=1e-7 * max(bank.max(), 1e-9), rtol=1e-4)
    transform = scipy.fft.dct(np.eye(options.n_mels), axis=0, type=2, norm="ortho")[: options.n_mfcc]
    np.testing.assert_allclose(cosine_basis(options.n_mfcc, options.n_mels), transform, atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 700), st.integers(0, 2**32 - 1), st.sampled_from([None, 1e-3, 80.0, 400.0]))
def test_logarithms_equal_numpys_to_the_last_bits(n: int, seed: int, top_db: float | None) -> None:
    power = np.exp(np.random.default_rng(seed).uniform(-200, 200, (n, 3)))
    power[::7] = 0
    peak = float(power.max(initial=0))
    least = max(1e-10, 0 if top_db is None else 10 ** (-top_db / 10) * peak)
    expected = np.log(np.maximum(power, least))
    np.testing.assert_allclose(nepers(power.copy(), peak, top_db), expected, rtol=4e-16, atol=4e-15)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 10), st.sampled_from([1, 2]), st.integers(0, 99))
def test_slopes_equal_librosa_at_the_ends_too(rows: int, half: int, order: int, seed: int) -> None:
    values = np.random.default_rng(seed).standard_normal((rows, 3)).astype(np.float32)
    width = 2 * half + 1
    expected = librosa.feature.delta(values, width=max(3, width), order=order, axis=0, mode="nearest")
    np.testing.assert_allclose(slopes(values, max(3, width), order), expected, atol=1e-5)


def test_deltas_stand_beside_the_coefficients() -> None:
    y = signal("chirp", 8000, 16_000, 5)
    (found,) = Mfcc(n_mfcc=13, deltas=2)([AudioClip(samples=y[None], sample_rate=16_000)], CPU)
    plain = reference(y.astype(np.float64), Mfcc(n_mfcc=13)).T
    expected = [plain, *(librosa.feature.delta(plain, order=order, mode="nearest") for order in (1, 2))]
    np.testing.assert_allclose(found.values, np.concatenate(expected).T, atol=2e-4)
    assert Mfcc(n_mfcc=13, deltas=2).columns[12:15] == ("mfcc_12", "delta_0", "delta_1")
