"""``audio.channels``, ``audio.trim`` and ``audio.normalize``."""

from __future__ import annotations

from typing import Any

import librosa
import numpy as np
import pyloudnorm
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.audio.channels import Channels
from features.audio.normalize import Normalize
from features.audio.trim import Trim, sounding_spans
from features.errors import Reason, SampleError
from features.time import Span, samples_to_ns
from features.types import AudioClip, Device

CPU: Device = "cpu"


def clip(*channels: Any, rate: int = 16_000, start_ns: int = 0) -> AudioClip:
    return AudioClip(samples=np.stack(channels).astype(np.float32), sample_rate=rate, start_ns=start_ns)


def noise(n: int, level: float = 0.1, seed: int = 0) -> Any:
    return level * np.random.default_rng(seed).standard_normal(n)


def run(step: Any, one: AudioClip) -> AudioClip:
    (found,) = step.prepare([one], CPU)
    assert isinstance(found, AudioClip)
    return found


def refused(reason: Reason, text: str, step: Any, one: AudioClip) -> None:
    with pytest.raises(SampleError, match=text) as caught:
        step.prepare([one], CPU)
    assert caught.value.reason is reason


# Channels


def test_channels_are_mixed_chosen_or_counted() -> None:
    stereo = clip([1, 0], [0, -1], start_ns=7)
    assert run(Channels(), stereo).samples.tolist() == [[0.5, -0.5]]
    assert run(Channels(policy="first"), stereo).samples.tolist() == [[1, 0]]
    assert run(Channels(policy="each", count=2), stereo) is stereo
    assert run(Channels(), stereo).start_ns == 7
    message = "audio.channels: got 2 channels, allowed: 3, since channels is 'each'; cure: "
    refused(Reason.UNSUPPORTED_FORMAT, message, Channels(policy="each", count=3), stereo)


# Trim


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 6000), st.integers(1, 6000), st.integers(0, 6000), st.sampled_from([8000, 16_000, 44_100]),
    st.sampled_from([30.0, 60.0]), st.integers(1, 2),
)  # fmt: skip
def test_the_cut_is_librosas_and_the_rest_keeps_its_time(
    before: int, sound: int, after: int, rate: int, top_db: float, channels: int
) -> None:
    levels = np.concatenate([np.full(before, 1e-5), np.full(sound, 0.3), np.full(after, 1e-5)])
    rows = [noise(len(levels), 1.0, seed) * levels for seed in range(channels)]
    source = clip(*rows, rate=rate, start_ns=123)
    found = run(Trim(top_db=top_db, floor_db=-300.0), source)
    frame, hop = 2 * round(64 * rate / 2000), 2 * round(16 * rate / 2000)
    _, (first, stop) = librosa.effects.trim(
        source.samples.astype(np.float64), top_db=top_db, frame_length=frame, hop_length=hop
    )
    np.testing.assert_array_equal(found.samples, source.samples[:, first:stop])
    assert found.start_ns == 123 + samples_to_ns(int(first), rate)


def test_a_margin_is_kept_and_silence_inside_stays() -> None:
    wave = np.concatenate([np.zeros(8000), noise(4000), np.zeros(8000), noise(4000), np.zeros(8000)])
    tight, wide = run(Trim(), clip(wave)), run(Trim(margin_ms=100), clip(wave))
    assert tight.samples.shape[1] > 16_000
    assert tight.start_ns - wide.start_ns == 100_000_000
    assert wide.samples.shape[1] == tight.samples.shape[1] + 3200


def test_silence_is_found_with_its_times() -> None:
    wave = np.concatenate([np.zeros(16_000), noise(16_000), np.zeros(16_000), noise(16_000)])
    first, second = sounding_spans(clip(wave, start_ns=5))
    assert abs(first.start_ns - 10**9 - 5) <= 48_000_000
    assert abs(first.end_ns - 2 * 10**9 - 5) <= 48_000_000
    assert abs(second.start_ns - 3 * 10**9 - 5) <= 48_000_000
    assert second.end_ns == 4 * 10**9 + 5
    assert sounding_spans(clip(np.zeros(100))) == sounding_spans(clip([])) == []
    assert sounding_spans(clip(noise(500))) == [Span(0, samples_to_ns(500, 16_000))]


def test_a_silent_clip_is_refused_or_kept() -> None:
    for wave in (np.zeros(5000), noise(5000, 1e-6)):
        refused(Reason.SILENT, "audio.trim: got 0.312 s that never rise above -80 dB, allowed: ", Trim(), clip(wave))
        assert run(Trim(silent="keep"), clip(wave)).samples.shape == (1, 5000)
    assert run(Trim(floor_db=-130), clip(noise(5000, 1e-6))).samples.shape == (1, 5000)


# Normalize


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_loudness_is_that_of_ebu_r128(rate: int, channels: int) -> None:
    quiet = clip(*(noise(3 * rate, 0.01, seed) for seed in range(channels)), rate=rate, start_ns=3)
    found = run(Normalize(), quiet)
    meter = pyloudnorm.Meter(rate)
    assert meter.integrated_loudness(found.samples.T.astype(np.float64)) == pytest.approx(-23, abs=0.01)
    assert (found.start_ns, found.samples.shape) == (3, quiet.samples.shape)


def test_a_reference_tone_has_its_known_loudness() -> None:
    # EBU Tech 3341, case 1: a stereo 1 kHz sine at -23 dBFS has -23 LUFS
    tone = 10 ** (-23 / 20) * np.sin(2 * np.pi * 1000 * np.arange(20 * 48_000) / 48_000)
    assert Normalize().level(clip(tone, tone, rate=48_000)) == pytest.approx(-23, abs=0.1)


@settings(deadline=None, max_examples=30)
@given(st.floats(1e-4, 10), st.floats(-40, 0), st.sampled_from(["peak", "rms"]))
def test_peak_and_rms_reach_their_target(level: float, target: float, method: Any) -> None:
    found = run(Normalize(method=method, target=target), clip(noise(4000, level), noise(4000, level, 1)))
    amount = np.abs(found.samples).max() if method == "peak" else np.sqrt((found.samples.astype(float) ** 2).mean())
    assert 20 * np.log10(amount) == pytest.approx(target, abs=1e-3)


def test_nothing_is_clipped_and_peaks_above_full_scale_are_as_asked() -> None:
    wave = noise(8000)
    wave[100] = 5.0
    kept = run(Normalize(method="rms", target=-10.0), clip(wave))
    assert np.abs(kept.samples).max() > 4
    np.testing.assert_allclose(kept.samples / kept.samples[0, 100], wave[None] / 5.0, atol=1e-6)
    reduced = run(Normalize(method="rms", target=-10.0, over="reduce"), clip(wave))
    assert np.abs(reduced.samples).max() == pytest.approx(1, abs=1e-6)
    message = r"audio.normalize: the peak would be \+\d+.\d dB of full scale, allowed: 0; cure: a lower target"
    refused(Reason.TOO_LARGE, message, Normalize(method="rms", target=-10.0, over="refuse"), clip(wave))


@pytest.mark.parametrize("method", ["peak", "rms", "loudness"])
def test_what_has_no_level_is_refused_or_kept(method: Any) -> None:
    message = f"audio.normalize: got a clip without a {method} level, allowed: sound"
    refused(Reason.SILENT, message, Normalize(method=method), clip(np.zeros(16_000)))
    assert not run(Normalize(method=method, silent="keep"), clip(np.zeros(16_000))).samples.any()


def test_loudness_needs_time_and_few_channels() -> None:
    refused(Reason.EMPTY, r"got 0.312 s, allowed: 0.4 s or more for loudness; cure: method rms", Normalize(),
            clip(noise(5000)))  # fmt: skip
    refused(Reason.UNSUPPORTED_FORMAT, "got 6 channels, allowed: 5 for loudness", Normalize(),
            clip(*[noise(16_000)] * 6))  # fmt: skip


@pytest.mark.parametrize("step", [Channels(), Trim(), Normalize()])
def test_non_finite_samples_are_refused(step: Any) -> None:
    refused(Reason.NON_FINITE, "audio: got NaN or infinity", step, clip([0, np.nan]))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Channels, {"policy": "left"}, "audio.channels: policy: got 'left', allowed: mean or first or each"),
        (Channels, {"count": 2}, "count: got 2, allowed: >= 1, and 1 unless policy is 'each'"),
        (Trim, {"top_db": 0.0}, "audio.trim: top_db: got 0.0, allowed: above 0 dB"),
        (Trim, {"floor_db": 3.0}, "floor_db: got 3.0, allowed: 0 dB or below"),
        (Trim, {"frame_ms": 0.0}, "frame_ms: got 0.0, allowed: 1 to 1000 ms"),
        (Trim, {"hop_ms": 100.0}, "hop_ms: got 100.0, allowed: above 0, at most frame_ms"),
        (Trim, {"margin_ms": -1.0}, "margin_ms: got -1.0, allowed: 0 ms or more"),
        (Trim, {"silent": "zero"}, "silent: got 'zero', allowed: refuse or keep"),
        (Normalize, {"method": "max"}, "audio.normalize: method: got 'max', allowed: peak or rms or loudness"),
        (Normalize, {"target": float("nan")}, "target: got nan, allowed: -100 to 20"),
        (Normalize, {"over": "clip"}, "over: got 'clip', allowed: keep or reduce or refuse"),
        (Normalize, {"silent": "zero"}, "silent: got 'zero', allowed: refuse or keep"),
    ],
)
def test_options_that_do_not_fit_are_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**options)
