"""``audio.mfcc``: times, batches, edges and errors (the numbers: tests/golden/test_mfcc_librosa.py)."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.audio.frames import frame_spans
from features.audio.mel import mel_analysis
from features.audio.mfcc import Mfcc
from features.errors import SampleError
from features.time import Span
from features.types import AudioClip, Device

CPU: Device = "cpu"


def clip(n: int, *, rate: int = 16_000, seed: int = 0, channels: int = 1, start_ns: int = 0) -> AudioClip:
    noise = 0.1 * np.random.default_rng(seed).standard_normal((channels, n)).astype(np.float32)
    return AudioClip(samples=noise.astype(np.float32), sample_rate=rate, start_ns=start_ns)


@settings(deadline=None)
@given(
    st.integers(1, 5_000_000), st.integers(1, 5000), st.sampled_from([8000, 11025, 22050, 44100, 48000]),
    st.integers(-(10**15), 10**15),
)  # fmt: skip
def test_rows_tile_the_clip_with_neither_gap_nor_overlap(n: int, hop: int, rate: int, start_ns: int) -> None:
    rows = min(1 + n // hop, 100_000)
    span = Span(start_ns, start_ns + round(n * 10**9 / rate))
    start, end = frame_spans(rows, hop, rate, span)
    assert len(start) == len(end) == rows
    assert (start[0], end[-1]) == (span.start_ns, span.end_ns)
    np.testing.assert_array_equal(start[1:], end[:-1])
    assert np.all(start <= end)


def test_an_inner_row_is_one_hop_around_its_centre() -> None:
    start, end = frame_spans(11, 160, 16_000, Span(5, 5 + 100_000_000))
    assert (start[0], end[0]) == (5, 5 + 5_000_000)
    assert (start[3], end[3]) == (5 + 25_000_000, 5 + 35_000_000)
    assert (start[10], end[10]) == (5 + 95_000_000, 5 + 100_000_000)


def test_the_last_row_reaches_the_end_of_the_clip() -> None:
    (found,) = Mfcc()([clip(319)], CPU)
    assert len(found) == 2
    assert found.end_ns.tolist() == [5_000_000, 19_937_500]


def test_times_are_those_of_the_clip_when_it_is_resampled() -> None:
    source = clip(44_101, rate=44_100, start_ns=7)
    (found,) = Mfcc()([source], CPU)
    assert Span(int(found.start_ns[0]), int(found.end_ns[-1])) == source.span
    np.testing.assert_array_equal(found.start_ns[1:], found.end_ns[:-1])


def test_no_samples_no_rows() -> None:
    empty, full, again = Mfcc(n_mfcc=13)([clip(0), clip(500), clip(0, rate=8000)], CPU)
    assert (len(empty), empty.dim, len(full), len(again)) == (0, 13, 4, 0)
    assert Mfcc()([], CPU) == []


@pytest.mark.parametrize("hop", [1, 100, 512, 1000])
def test_clips_packed_into_one_transform_do_not_touch_each_other(hop: int) -> None:
    # what a GPU does, here with the same arithmetic on the CPU
    analysis = mel_analysis(Mfcc(hop_length=hop))
    signals = [clip(n, seed=n).samples[0] for n in (1, 700, 16_000, 512, 3000)]
    packed, parts = analysis._packed(signals)
    together = analysis._on_gpu(packed, 0, parts[-1].stop, CPU)
    for part, signal in zip(parts, signals, strict=True):
        alone = analysis._on_cpu(signal, 0, 1 + len(signal) // hop)
        np.testing.assert_allclose(together[part], alone, rtol=1e-9, atol=1e-15)


def test_a_clip_too_long_for_one_chunk_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    source = clip(40_000, seed=3)
    (whole,) = Mfcc()([source], CPU)
    monkeypatch.setattr("features.audio.spectrum._CHUNK", 128 * 128)
    (parts,) = Mfcc()([source], CPU)
    assert whole.values.tobytes() == parts.values.tobytes()


def test_long_clips_are_cut_into_blocks_without_a_seam() -> None:
    source = clip(200_000)
    (whole,) = Mfcc()([source], CPU)
    part = AudioClip(samples=source.samples[:, 40_000:60_000], sample_rate=16_000)
    (piece,) = Mfcc()([part], CPU)
    # frame 252 of the whole is frame 2 of the piece, and the loudest band of both is far within 80 dB
    np.testing.assert_allclose(whole.values[252:370], piece.values[2:120], atol=2e-4, rtol=0)


def test_first_channel_or_mean() -> None:
    both = clip(4000, channels=2)
    first = AudioClip(samples=both.samples[:1], sample_rate=16_000)
    mean = AudioClip(samples=both.samples.mean(axis=0, keepdims=True), sample_rate=16_000)
    for option, expected in (("first", first), ("mean", mean)):
        np.testing.assert_allclose(
            Mfcc(channels=option)([both], CPU)[0].values, Mfcc()([expected], CPU)[0].values, atol=1e-3
        )


def test_each_channel_has_columns_of_its_own() -> None:
    both = clip(4000, channels=2)
    (found,) = Mfcc(channels="each", channel_count=2)([both], CPU)
    singles = [Mfcc()([AudioClip(samples=both.samples[k : k + 1], sample_rate=16_000)], CPU)[0] for k in range(2)]
    np.testing.assert_array_equal(found.values, np.concatenate([one.values for one in singles], axis=1))
    message = r"unsupported_format: audio.mfcc: got 1 channels, allowed: 2, since channels is 'each'; cure: "
    with pytest.raises(SampleError, match=message):
        Mfcc(channels="each", channel_count=2)([clip(100)], CPU)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_samples_are_refused(bad: float) -> None:
    samples = np.zeros((2, 100), np.float32)
    samples[1, 37] = bad
    message = r"non_finite: audio: got NaN or infinity \(first at sample 37 of 100\), allowed: finite samples"
    with pytest.raises(SampleError, match=message):
        Mfcc(channels="first")([AudioClip(samples=samples, sample_rate=16_000)], CPU)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sample_rate": 0}, r"audio.mfcc: sample_rate: got 0, allowed: >= 1 Hz"),
        ({"n_mfcc": 129}, r"n_mfcc: got 129, allowed: 1 to n_mels \(128\)"),
        ({"n_mels": 0}, r"n_mels: got 0, allowed: >= 1"),
        ({"n_fft": 511}, r"n_fft: got 511, allowed: an even number >= 2"),
        ({"win_length": 513}, r"win_length: got 513, allowed: 1 to n_fft \(512\), or null"),
        ({"win_length": 0}, r"win_length: got 0, allowed: 1 to n_fft"),
        ({"hop_length": 0}, r"hop_length: got 0, allowed: >= 1"),
        ({"fmin": 8000.0}, r"fmin: got 8000.0, allowed: from 0 to below fmax"),
        ({"fmax": 9000.0}, r"fmax: got 9000.0, allowed: at most half the sample rate \(8000 Hz\), or null"),
        ({"fmax": float("nan")}, r"fmin: got 0.0, allowed: from 0 to below fmax"),
        ({"window": "kaiser"}, r"window: got 'kaiser', allowed: hann or hamming or blackman"),
        ({"channel_count": 2}, r"channel_count: got 2, allowed: 1 unless channels is 'each'"),
        ({"channels": "each", "channel_count": 0}, r"channel_count: got 0, allowed: >= 1"),
        ({"mel_norm": "area"}, r"mel_norm: got 'area', allowed: slaney or none"),
        ({"lifter": -1.0}, r"lifter: got -1.0, allowed: 0 or above"),
        ({"deltas": 3}, r"deltas: got 3, allowed: 0, 1 or 2"),
        ({"delta_width": 4}, r"delta_width: got 4, allowed: odd, >= 3"),
        ({"channels": "left"}, r"channels: got 'left', allowed: mean or first or each"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mfcc(**options)


def test_describing_needs_no_torch() -> None:
    code = (
        "import sys; from features.audio.mfcc import Mfcc; from features.audio.denoise import Denoise; "
        "Mfcc().dim, repr(Denoise()); sys.exit(bool({'torch', 'librosa', 'soxr', 'numba'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
