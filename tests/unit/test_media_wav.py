"""Plain WAV, read as it lies: the very numbers of libsndfile, and whatever is not plain left to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.errors import Reason, SampleError
from features.time import Span, samples_to_ns
from pipeline.media.audio import read_audio
from pipeline.media.source import Source
from pipeline.media.wav import Wav, parse

SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")


def header(path: Path) -> Wav | None:
    content = path.read_bytes()
    return parse(Source(str(path)), len(content), lambda at, count: content[at : at + count])


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(SUBTYPES), st.sampled_from(["WAV", "WAVEX"]), st.integers(1, 2000), st.integers(1, 5),
    st.integers(0, 2000), st.integers(1, 2000), st.integers(0, 99),
)  # fmt: skip
def test_every_sample_and_window_is_what_libsndfile_gives(
    tmp_path: Path, subtype: str, kind: str, n: int, channels: int, first: int, count: int, seed: int
) -> None:
    path = tmp_path / "a.wav"
    samples = np.random.default_rng(seed).uniform(-1, 1, (n, channels))
    samples[0] = -1.0
    soundfile.write(path, samples, 8000, subtype=subtype, format=kind)
    found = header(path)
    assert found is not None
    assert found.plain
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0].T
    np.testing.assert_array_equal(read_audio(Source(str(path))).samples, expected)
    first %= n
    window = Span(samples_to_ns(first, 8000), samples_to_ns(first + count, 8000))
    part = read_audio(Source(str(path)), span=window)
    np.testing.assert_array_equal(part.samples, expected[:, first : first + count])
    assert part.start_ns == window.start_ns


def test_blocks_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (5000, 3))
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="PCM_24")
    whole = read_audio(Source(str(tmp_path / "a.wav")))
    monkeypatch.setattr("pipeline.media.wav._BLOCK_BYTES", 1000)
    np.testing.assert_array_equal(read_audio(Source(str(tmp_path / "a.wav"))).samples, whole.samples)


def test_what_is_not_plain_is_left_to_libsndfile(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (5000, 1))
    for subtype in ("ULAW", "ALAW", "IMA_ADPCM"):
        soundfile.write(tmp_path / "a.wav", samples, 8000, subtype=subtype)
        found = header(tmp_path / "a.wav")
        assert found is not None
        assert not found.plain
        expected = soundfile.read(tmp_path / "a.wav", dtype="float32")[0]
        np.testing.assert_array_equal(read_audio(Source(str(tmp_path / "a.wav"))).samples[0], expected)
    soundfile.write(tmp_path / "a.flac", samples, 8000)
    assert header(tmp_path / "a.flac") is None


def test_chunks_before_and_after_the_samples_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.linspace(-0.5, 0.5, 400), 8000, subtype="PCM_16")
    content = path.read_bytes()
    odd = b"JUNK" + (4501).to_bytes(4, "little") + bytes(4502)  # of odd length, with its padding; beyond the head
    changed = content[:36] + odd + content[36:] + b"LIST\x04\0\0\0abcd"
    path.write_bytes(changed[:4] + (len(changed) - 8).to_bytes(4, "little") + changed[8:])
    found = header(path)
    assert found is not None
    assert (found.plain, found.at, found.frames) == (True, 44 + len(odd), 400)
    expected = soundfile.read(path, dtype="float32")[0]
    np.testing.assert_array_equal(read_audio(Source(str(path))).samples[0], expected)


def test_a_double_beyond_float32_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.array([0.0, 1e300]), 8000, subtype="DOUBLE")
    with pytest.raises(SampleError, match="got 1 NaN or infinite samples") as caught:
        read_audio(Source(str(path)))
    assert caught.value.reason is Reason.NON_FINITE
