"""``audio.denoise``: no gain changes nothing, noise goes, the signal stays."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.audio.denoise import METHODS, NOISES, Denoise, noise_profile
from features.audio.gains import exponential_integral
from features.audio.noise import MinimumTracker, PresenceTracker, Quantile
from features.base import WeightsRef
from features.errors import SampleError, StateError
from features.types import AudioClip, Device

CPU: Device = "cpu"
FOLLOWED = ("quantile", "mmse_spp", "minimum")
Wave = np.ndarray[Any, np.dtype[np.float64]]


def si_sdr(reference: Wave, estimate: Wave) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al., 2019)."""
    target = (estimate @ reference) / (reference @ reference) * reference
    return float(10 * np.log10((target @ target) / ((estimate - target) @ (estimate - target))))


def speech_like(rate: int, seconds: float, seed: int) -> Wave:
    """Voiced syllables: harmonics of a gliding pitch under a resonance, with pauses between."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(rate * seconds)) / rate
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * t)) / rate
    voice = sum(np.sin(k * phase) / (1 + ((k * 120 - 700) / 500) ** 2) for k in range(1, 20))
    syllables = np.clip(np.sin(2 * np.pi * 2.3 * t + rng.uniform(0, 6)), 0, 1)
    return np.asarray(voice * syllables)


def noise(kind: str, n: int, rate: int, seed: int) -> Wave:
    white = np.random.default_rng(seed).standard_normal(n)
    hz = np.fft.rfftfreq(n, 1 / rate)
    shape = {
        "white": np.ones_like(hz),
        "pink": 1 / np.sqrt(np.maximum(hz, 20)),
        "hum": np.exp(-(((hz - 300) / 200) ** 2)),
    }
    return np.fft.irfft(np.fft.rfft(white) * shape[kind], n)


def mixed(clean: Wave, disturbance: Wave, snr_db: float) -> Wave:
    scale = np.sqrt((clean**2).mean() / (disturbance**2).mean()) * 10 ** (-snr_db / 20)
    return clean + scale * disturbance


def denoised(step: Denoise, wave: Wave, rate: int) -> Wave:
    (found,) = step.prepare([AudioClip(samples=wave[None].astype(np.float32), sample_rate=rate)], CPU)
    return found.samples[0].astype(np.float64)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["white", "pink", "hum"])
@pytest.mark.parametrize("rate", [8000, 16_000, 44_100])
def test_noise_on_a_speech_like_signal_goes_down_by_more_than_three_decibels(method: str, kind: str, rate: int) -> None:
    clean = speech_like(rate, 3.0, seed=1)
    noisy = mixed(clean, noise(kind, len(clean), rate, seed=2), 5.0)
    found = denoised(Denoise(method=method), noisy, rate)
    assert si_sdr(clean, found) - si_sdr(clean, noisy) > 3.0


@pytest.mark.parametrize("method", METHODS)
def test_bursts_of_a_tone_stand_out_of_the_noise(method: str) -> None:
    t = np.arange(32_000) / 16_000
    clean = 0.3 * np.sin(2 * np.pi * 1000 * t) * (np.sin(2 * np.pi * 2 * t) > 0)
    noisy = mixed(clean, noise("white", len(clean), 16_000, seed=3), 0.0)
    assert si_sdr(clean, denoised(Denoise(method=method), noisy, 16_000)) - si_sdr(clean, noisy) > 8.0


@pytest.mark.parametrize("method", METHODS)
def test_noise_alone_goes_down_towards_the_floor_and_never_below(method: str) -> None:
    wave = 0.1 * noise("white", 32_000, 16_000, seed=4)
    found = denoised(Denoise(method=method, gain_floor_db=-20), wave, 16_000)
    change = 10 * np.log10((found**2).mean() / (wave**2).mean())
    assert -20.5 < change < -8


@pytest.mark.parametrize(
    ("options", "most"),
    [
        ({}, 22.0),
        ({"overlap": 2}, 16.0),
        ({"method": "mmse_lsa"}, 13.0),
        ({"method": "spectral_subtraction"}, 11.0),
        ({"method": "spectral_gate"}, 13.0),
        ({"smoothing": 0.97, "gain_floor_db": -15.0}, 4.0),
    ],
)
def test_musical_noise_stays_within_the_stated_figure(options: dict[str, Any], most: float) -> None:
    # single tones left of white noise raise the kurtosis of its powers: 2 before, and after as docs/audio.md says
    wave = 0.05 * noise("white", 160_000, 16_000, seed=8)
    found = denoised(Denoise(**options), wave, 16_000)

    def kurtosis(signal: Wave) -> float:
        frames = np.lib.stride_tricks.sliding_window_view(signal[16_000:-16_000], 512)[::512]
        power = np.abs(np.fft.rfft(frames * np.hanning(512))[:, 4:-4]) ** 2
        return float((power**4).mean() / (power**2).mean() ** 2)

    assert kurtosis(found) / kurtosis(wave) < most


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 9000), st.sampled_from([8000, 11_025, 16_000, 48_000]), st.floats(1, 100), st.integers(1, 3),
    st.sampled_from(METHODS), st.sampled_from([2, 4]), st.sampled_from(["quantile", "mmse_spp"]),
)  # fmt: skip
def test_a_gain_of_one_gives_the_signal_back(
    n: int, rate: int, frame_ms: float, channels: int, method: str, overlap: int, noise: str
) -> None:
    # a floor of almost 0 dB leaves only gains of almost one: analysis and synthesis by themselves
    samples = np.random.default_rng(n).uniform(-3, 3, (channels, n)).astype(np.float32)
    step = Denoise(method=method, noise=noise, frame_ms=frame_ms, overlap=overlap, gain_floor_db=-1e-6)
    (found,) = step.prepare([AudioClip(samples=samples, sample_rate=rate, start_ns=5)], CPU)
    assert (found.sample_rate, found.start_ns) == (rate, 5)
    np.testing.assert_allclose(found.samples, samples, atol=4e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 2, 100, 767, 769])
def test_clips_shorter_than_a_frame_take_the_same_way(method: str, n: int) -> None:
    samples = np.random.default_rng(n).standard_normal((2, n)).astype(np.float32)
    (found,) = Denoise(method=method).prepare([AudioClip(samples=samples, sample_rate=16_000)], CPU)
    assert found.samples.shape == (2, n)
    assert np.isfinite(found.samples).all()


@pytest.mark.parametrize("method", METHODS)
def test_silence_stays_silence(method: str) -> None:
    assert not denoised(Denoise(method=method), np.zeros(5000), 16_000).any()


def test_no_samples_come_back_as_they_are() -> None:
    clip = AudioClip(samples=np.zeros((2, 0), np.float32), sample_rate=16_000, start_ns=9)
    assert Denoise().prepare([clip], CPU) == [clip]
    assert Denoise().prepare([], CPU) == []


def test_values_beyond_full_scale_are_not_clipped() -> None:
    wave = 4.0 * speech_like(16_000, 2.0, seed=5)
    assert np.abs(wave).max() > 4
    assert np.abs(denoised(Denoise(), wave, 16_000)).max() > 0.9 * np.abs(wave).max()


@pytest.mark.parametrize("method", METHODS)
def test_a_clip_with_digital_silence_has_no_noise_to_take_away(method: str) -> None:
    # the noise estimate is zero there: nothing may be divided by it, and nothing is lost
    t = np.arange(16_000) / 16_000
    wave = 0.5 * np.sin(2 * np.pi * 440 * t) * (t > 0.5)
    found = denoised(Denoise(method=method), wave, 16_000)
    np.testing.assert_allclose(found[9000:-1000], wave[9000:-1000], atol=1e-3)
    assert np.abs(found[:7000]).max() < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_each_channel_and_each_clip_by_itself(method: str) -> None:
    step = Denoise(method=method)
    waves = [noise("pink", n, 16_000, seed=n).astype(np.float32) for n in (9000, 16_000, 300, 12_000)]
    clips = [AudioClip(samples=wave[None], sample_rate=rate) for wave in waves for rate in (8000, 16_000)]
    alone = [step.prepare([clip], CPU)[0] for clip in clips]
    for one, other in zip(step.prepare(clips, CPU), alone, strict=True):
        np.testing.assert_allclose(one.samples, other.samples, atol=1e-6)
    stereo = AudioClip(samples=np.stack([waves[0], waves[1][:9000]]), sample_rate=16_000)
    (both,) = step.prepare([stereo], CPU)
    for channel in range(2):
        single = AudioClip(samples=stereo.samples[channel : channel + 1], sample_rate=16_000)
        np.testing.assert_allclose(both.samples[channel], step.prepare([single], CPU)[0].samples[0], atol=1e-6)


def test_the_noise_estimate_is_the_mean_power_of_gaussian_noise() -> None:
    power = np.random.default_rng(0).exponential(2.5, (20_000, 4)).astype(np.float32)
    for quantile in (0.1, 0.3, 0.5):
        estimate = Quantile(4, quantile)
        for part in np.array_split(power, 7):
            estimate.observe(part)
        np.testing.assert_allclose(estimate.mean(), 2.5, rtol=0.05)
        exact = np.quantile(power, quantile, axis=0) / -np.log1p(-quantile)
        np.testing.assert_allclose(estimate.mean(), exact, rtol=0.01)


@pytest.mark.parametrize("kind", [PresenceTracker, MinimumTracker])
def test_trackers_follow_noise_that_grows_and_not_speech_like_bursts(kind: Any) -> None:
    rng = np.random.default_rng(1)
    quiet, loud = (rng.exponential(level, (500, 32)).astype(np.float32) for level in (1.0, 8.0))
    tracker = kind(np.ones(32, np.float32), 0.012)
    steady, grown = tracker.follow(quiet), tracker.follow(loud)
    assert 0.7 < steady[250:].mean() < 1.4
    assert 5.0 < grown[250:].mean() < 12.0
    bursts = quiet * np.where(np.arange(500) % 50 < 12, 1000, 1)[:, None].astype(np.float32)
    assert kind(np.ones(32, np.float32), 0.012).follow(bursts)[250:].mean() < 12.0


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from(METHODS), st.sampled_from([n for n in NOISES if n != "profile"]), st.integers(1, 60_000), st.data()
)
def test_pieces_of_any_size_give_the_bytes_of_the_whole(method: str, noise: str, n: int, data: st.DataObject) -> None:
    wave = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    step = Denoise(method=method, noise=noise)
    (whole,) = step.prepare([AudioClip(samples=wave[None], sample_rate=16_000)], CPU)
    cuts = sorted(data.draw(st.lists(st.integers(0, n), max_size=6)))
    pieces = np.split(wave, cuts)
    denoiser = step.open(16_000, CPU)
    if noise == "quantile":
        for piece in pieces:
            denoiser.learn(piece)
    found = np.concatenate([*(denoiser.push(piece) for piece in pieces), denoiser.finish()])
    assert found.tobytes() == whole.samples[0].tobytes()


def test_a_stream_keeps_no_more_than_it_needs() -> None:
    denoiser = Denoise(noise="mmse_spp").open(16_000, CPU)
    block = np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    total = sum(len(denoiser.push(block)) for _ in range(60))
    assert 59 * 16_000 - 20_000 < total < 60 * 16_000
    assert len(denoiser._cutter._kept) < 20_000
    assert len(denoiser._adder._open) < 1000


def test_a_quantile_must_be_learned_first() -> None:
    denoiser = Denoise().open(16_000, CPU)
    with pytest.raises(ValueError, match=r"audio.denoise: 48000 samples were pushed but 0 learned; allowed: learn"):
        denoiser.push(np.zeros(48_000, np.float32))
    with pytest.raises(ValueError, match=r"noise is 'mmse_spp', which learns nothing beforehand"):
        Denoise(noise="mmse_spp").open(16_000, CPU).learn(np.zeros(10, np.float32))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("estimate", FOLLOWED)
def test_every_method_with_every_estimate_takes_noise_away(method: Any, estimate: Any) -> None:
    clean = speech_like(16_000, 4.0, seed=1)
    noisy = mixed(clean, noise("white", len(clean), 16_000, seed=2), 5.0)
    found = denoised(Denoise(method=method, noise=estimate), noisy, 16_000)
    assert si_sdr(clean, found) - si_sdr(clean, noisy) > 2.5


@pytest.mark.parametrize("method", METHODS)
def test_noise_known_from_its_beginning_or_from_a_recording_of_it(method: Any) -> None:
    clean = np.concatenate([np.zeros(8000), speech_like(16_000, 3.0, seed=1)])
    hiss = noise("pink", len(clean) + 40_000, 16_000, seed=2)
    noisy = mixed(clean, hiss[: len(clean)], 5.0)
    found = denoised(Denoise(method=method, noise="leading", noise_seconds=0.5), noisy, 16_000)
    assert si_sdr(clean, found) - si_sdr(clean, noisy) > 3.0
    level = np.sqrt(((noisy - clean) ** 2).mean() / (hiss**2).mean())
    recording = (level * hiss[len(clean) :]).astype(np.float32)
    state = noise_profile(AudioClip(samples=np.stack([recording, recording]), sample_rate=16_000))
    step = Denoise(method=method, noise="profile", profile="hiss.safetensors")
    bound = pickle.loads(pickle.dumps(step.with_state(state)))
    (given_noise,) = bound.prepare([AudioClip(samples=noisy[None].astype(np.float32), sample_rate=16_000)], CPU)
    assert si_sdr(clean, given_noise.samples[0].astype(float)) - si_sdr(clean, noisy) > 3.0


def test_a_profile_that_is_none_is_refused() -> None:
    step = Denoise(noise="profile", profile="hiss.safetensors")
    assert step.weights_ref == WeightsRef(kind="file", locator="hiss.safetensors")
    assert Denoise().weights_ref is None
    clip = AudioClip(samples=np.ones((1, 5000), np.float32), sample_rate=16_000)
    with pytest.raises(StateError, match=r"got no noise profile; cure: with_state\(state of file hiss"):
        step.prepare([clip], CPU)
    with pytest.raises(StateError, match=r"'hiss.safetensors' is no noise profile .*; allowed: 'samples' float32"):
        step.with_state({"samples": np.zeros(3)})
    short = noise_profile(AudioClip(samples=np.ones((1, 100), np.float32), sample_rate=16_000))
    with pytest.raises(StateError, match=r"the noise profile is shorter than a frame; allowed: 0.048 s or more"):
        step.with_state(short).prepare([clip], CPU)


def test_the_exponential_integral() -> None:
    scipy_special = pytest.importorskip("scipy.special")
    for v in np.geomspace(1e-6, 60, 200):
        assert exponential_integral(float(v)) == pytest.approx(float(scipy_special.exp1(v)), rel=1e-9)


def test_the_log_spectral_gain_is_the_formula() -> None:
    scipy_special = pytest.importorskip("scipy.special")
    from features.audio.gains import log_spectral

    ratio = np.geomspace(1e-3, 1e4, 300).astype(np.float32)
    gain = log_spectral(
        ratio[None], np.ones((1, 300), np.float32), np.ones(300, np.float32), smoothing=0.9, floor=0.1, absence=0.2
    )[0]
    prior = np.maximum(0.9 + 0.1 * np.maximum(ratio.astype(float) - 1, 0), 1e-3)
    v = ratio * prior / (1 + prior)
    heard = np.minimum(prior / (1 + prior) * np.exp(0.5 * scipy_special.exp1(v)), 1)
    presence = 1 / (1 + 0.25 * (1 + prior) * np.exp(-v))
    np.testing.assert_allclose(gain, np.maximum(heard**presence * 0.1 ** (1 - presence), 0.1), rtol=3e-3)


def test_frame_lengths_are_whole_quarters_and_at_least_as_long_as_asked() -> None:
    assert Denoise().frame_length(16_000) == 768
    for rate in (4000, 8000, 11_025, 22_050, 44_100, 48_000, 96_000):
        length = Denoise(frame_ms=32).frame_length(rate)
        assert length % 4 == 0
        assert 0.032 * rate <= length <= 1.4 * 0.032 * rate


def test_real_speech_in_unseen_noise(real_media: Path) -> None:
    import soundfile

    gains = []
    for path in sorted((real_media / "speech/pocketsphinx/librivox").glob("*.wav")):
        clean, rate = soundfile.read(path)
        for kind in ("white", "pink", "hum"):
            noisy = mixed(clean, noise(kind, len(clean), rate, seed=7), 5.0)
            gains.append(si_sdr(clean, denoised(Denoise(), noisy, rate)) - si_sdr(clean, noisy))
    assert len(gains) > 5
    assert np.mean(gains) > 3.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "magic"},
            "audio.denoise: method: got 'magic', allowed: wiener or mmse_lsa or spectral_subtraction or spectral_gate",
        ),
        ({"noise": "guess"}, "noise: got 'guess', allowed: quantile or leading or mmse_spp or minimum or profile"),
        ({"noise": "profile"}, "profile: got '', allowed: a path when noise is 'profile', empty otherwise"),
        ({"profile": "a"}, "profile: got 'a', allowed: a path when noise is 'profile', empty otherwise"),
        ({"overlap": 3}, "overlap: got 3, allowed: 2 or 4"),
        ({"noise_seconds": 0.0}, "noise_seconds: got 0.0, allowed: above 0 to 60 s"),
        ({"absence": 1.0}, "absence: got 1.0, allowed: between 0 and 1, both excluded"),
        ({"over_subtraction": 0.0}, "over_subtraction: got 0.0, allowed: above 0 to 100"),
        ({"frame_ms": 0.5}, "frame_ms: got 0.5, allowed: 1 to 1000 ms"),
        ({"quantile": 0.0}, "quantile: got 0.0, allowed: between 0 and 1, both excluded"),
        ({"quantile": float("nan")}, "quantile: got nan, allowed"),
        ({"gain_floor_db": 0.0}, "gain_floor_db: got 0.0, allowed: from -120 to below 0 dB"),
        ({"smoothing": 1.0}, "smoothing: got 1.0, allowed: from 0 to below 1"),
        ({"threshold_db": float("inf")}, "threshold_db: got inf, allowed: a finite number of dB"),
        ({"gate_frames": 4}, "gate_frames: got 4, allowed: odd, >= 1"),
        ({"gate_bins": -1}, "gate_bins: got -1, allowed: odd, >= 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Denoise(**options)


def test_non_finite_samples_are_refused() -> None:
    clip = AudioClip(samples=np.array([[0, np.inf]], np.float32), sample_rate=8000)
    with pytest.raises(SampleError, match="non_finite: audio: got NaN or infinity"):
        Denoise().prepare([clip], CPU)
