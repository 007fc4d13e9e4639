"""``audio.augment``: each alteration does what it says, and only that."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import scipy.signal

from features.audio.augment import Augment, augment_file
from features.base import WeightsRef
from features.errors import SampleError, StateError
from features.types import AudioClip, Device

CPU: Device = "cpu"
RATE = 16_000
OFF: dict[str, Any] = {"reverberation": "none", "noise": "none", "gain_db": 0.0, "chance": 1.0}


def clip(*channels: Any, start_ns: int = 9) -> AudioClip:
    return AudioClip(samples=np.stack(channels).astype(np.float32), sample_rate=RATE, start_ns=start_ns)


def tone(hz: float, seconds: float = 1.0) -> Any:
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(round(RATE * seconds)) / RATE)


def altered(step: Any, one: AudioClip, seed: int = 1) -> AudioClip:
    (found,) = step.augment([one], [seed], CPU)
    assert (found.sample_rate, found.start_ns, len(found.samples)) == (one.sample_rate, one.start_ns, len(one.samples))
    assert isinstance(found, AudioClip)
    return found


def pitch_of(wave: Any) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 1 << 18))
    return float(np.argmax(spectrum) * RATE / (1 << 18))


def test_gain_scales_within_its_range_and_keeps_what_is_beyond_full_scale() -> None:
    source = clip(4 * tone(440), tone(200))
    factors = []
    for seed in range(40):
        found = altered(Augment(**{**OFF, "gain_db": 6.0}), source, seed).samples
        factors.append(float(found[0, 10] / source.samples[0, 10]))
        np.testing.assert_allclose(found, source.samples * factors[-1], rtol=1e-5)
    assert 10 ** (-6 / 20) <= min(factors) < 0.65
    assert 1.5 < max(factors) <= 10 ** (6 / 20)


@pytest.mark.parametrize("kind", ["white", "pink", "given"])
def test_noise_has_the_asked_level_and_colour(kind: Any) -> None:
    source = clip(tone(440, 4), tone(300, 4))
    given = clip(np.random.default_rng(3).standard_normal(20_000))
    file = "n.safetensors" if kind == "given" else ""
    step: Any = Augment(**{**OFF, "noise": kind, "snr_low": 10.0, "snr_high": 10.0, "file": file})
    if kind == "given":
        step = step.with_state(augment_file(noise=given))
    added = altered(step, source).samples.astype(float) - source.samples
    power, level = (source.samples.astype(float) ** 2).mean(), (added**2).mean()
    assert 10 * np.log10(power / level) == pytest.approx(10, abs=0.01)
    assert np.allclose(added[0], added[1], atol=1e-6) == (kind == "given")
    if kind != "given":
        hz, density = scipy.signal.welch(added[0], RATE, nperseg=2048)
        slope = np.polyfit(np.log2(hz[4:900]), 10 * np.log10(density[4:900]), 1)[0]
        assert slope == pytest.approx({"white": 0, "pink": -3}[kind], abs=0.4)
        assert abs(np.corrcoef(added)[0, 1]) < 0.1


def test_silence_gets_no_noise() -> None:
    assert not altered(Augment(**{**OFF, "noise": "white"}), clip(np.zeros(1000))).samples.any()


@pytest.mark.parametrize("n", [1, 1000, 300_000])
def test_a_given_room_is_the_convolution_with_its_impulse_response(n: int) -> None:
    rng = np.random.default_rng(n)
    impulse = rng.standard_normal(4000) * 0.5 ** (np.arange(4000) / 300)
    impulse[40] = 8.0
    wave = rng.standard_normal(n)
    step = Augment(**{**OFF, "reverberation": "given", "file": "room.safetensors"})
    bound = pickle.loads(pickle.dumps(step.with_state(augment_file(impulse=clip(impulse)))))
    found = altered(bound, clip(wave)).samples[0]
    expected = scipy.signal.fftconvolve(wave.astype(np.float32), impulse.astype(np.float32) / 8.0)[40 : 40 + n]
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_synthetic_room_decays_as_asked_behind_the_direct_sound() -> None:
    click = np.zeros(RATE)
    click[100] = 1.0
    step = Augment(**{**OFF, "reverberation": "synthetic", "decay_low": 0.4, "decay_high": 0.4, "direct_db": 3.0})
    heard = altered(step, clip(click)).samples[0].astype(float)
    assert np.abs(heard[:100]).max() < 1e-6
    assert heard[100] == pytest.approx(1, abs=1e-6)
    tail = heard[101:]
    assert 10 * np.log10((tail**2).sum()) == pytest.approx(-3, abs=0.05)
    energy = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1][: round(0.25 * RATE)])
    slope = np.polyfit(np.arange(len(energy)) / RATE, energy, 1)[0]
    assert slope == pytest.approx(-60 / 0.4, rel=0.1)


def test_speed_changes_length_and_pitch_together() -> None:
    source = clip(tone(440, 2))
    lengths = set()
    for seed in range(6):
        found = altered(Augment(**OFF, speed=0.2), source, seed)
        factor = source.samples.shape[1] / found.samples.shape[1]
        assert 1 / 1.2 <= factor <= 1.2 + 1e-4
        assert pitch_of(found.samples[0]) == pytest.approx(440 * factor, rel=2e-3)
        lengths.add(found.samples.shape[1])
    assert len(lengths) > 3


def test_pitch_changes_at_the_same_length() -> None:
    source = clip(tone(440, 2))
    pitches = []
    for seed in range(4):
        found = altered(Augment(**OFF, pitch=3.0), source, seed)
        assert found.samples.shape == source.samples.shape
        pitches.append(pitch_of(found.samples[0]))
    semitones = 12 * np.log2(np.array(pitches) / 440)
    assert np.abs(semitones).max() <= 3.1
    assert np.ptp(semitones) > 1


def test_each_alteration_has_its_chance() -> None:
    source = clip(tone(440, 0.1))
    step = Augment(**{**OFF, "gain_db": 6.0, "chance": 0.3})
    changed = [not np.array_equal(altered(step, source, seed).samples, source.samples) for seed in range(200)]
    assert 0.2 < np.mean(changed) < 0.4


@pytest.mark.parametrize("n", [1, 2, 40, 700])
def test_short_clips_go_through_everything(n: int) -> None:
    step = Augment(speed=0.3, pitch=2.0, chance=1.0)
    for seed in range(4):
        assert np.isfinite(altered(step, clip(np.ones(n)), seed).samples).all()


def test_errors() -> None:
    with pytest.raises(SampleError, match="non_finite: audio: got NaN or infinity"):
        altered(Augment(), clip([0, np.inf]))
    step = Augment(noise="given", file="n.safetensors")
    assert step.weights_ref == WeightsRef(kind="file", locator="n.safetensors")
    assert Augment().weights_ref is None
    with pytest.raises(StateError, match=r"audio.augment: got no noise or impulse; cure: with_state"):
        altered(step, clip(tone(100)))
    with pytest.raises(StateError, match=r"'n.safetensors' does not hold what is given .*; allowed: 'noise' or 'im"):
        step.with_state(augment_file(impulse=clip([1.0])))
    with pytest.raises(StateError, match="it is silent"):
        step.with_state(augment_file(noise=clip([0.0, 0.0])))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed": 2.0}, "audio.augment: speed: got 2.0, allowed: 0 to 1"),
        ({"pitch": 13.0}, "pitch: got 13.0, allowed: 0 to 12 semitones"),
        ({"reverberation": "hall"}, "reverberation: got 'hall', allowed: none, synthetic or given"),
        ({"decay_low": 1.0}, "decay_low: got 1.0, allowed: above 0, at most decay_high"),
        ({"direct_db": 90.0}, "direct_db: got 90.0, allowed: -20 to 60 dB"),
        ({"noise": "brown"}, "noise: got 'brown', allowed: none, white, pink or given"),
        ({"snr_low": 40.0}, "snr_low: got 40.0, allowed: from -20, at most snr_high"),
        ({"gain_db": -1.0}, "gain_db: got -1.0, allowed: 0 to 60 dB"),
        ({"chance": 0.0}, "chance: got 0.0, allowed: above 0, to 1"),
        ({"file": "x"}, "file: got 'x', allowed: a path when something is 'given', empty otherwise"),
        ({"noise": "given"}, "file: got '', allowed: a path when something is 'given'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augment(**options)
