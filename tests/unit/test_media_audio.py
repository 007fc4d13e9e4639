from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import Reason, SampleError
from features.time import NS_PER_SECOND, Span, samples_to_ns
from pipeline.media.audio import read_audio, sample_range
from pipeline.media.source import Limits, Source

RATE = 16_000
RNG = np.random.default_rng(7)


def tone(seconds=2.0, rate=RATE, clicks=(0.1, 1.5)):
    n = round(seconds * rate)
    x = 0.1 * np.sin(2 * np.pi * 440 * np.arange(n) / rate)
    for click in clicks:
        x[round(click * rate)] = 0.9
    return x.astype(np.float32)


def encode(path, codec, samples, rate, *, start=0, gap_at=None, gap=0, with_video=False):
    """Write ``samples`` with PyAV; ``start`` and ``gap`` in samples."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.layout = "mono"
        if with_video:
            video = container.add_stream("mpeg4", rate=25)
            video.width = video.height = 32
            for i in range(5):
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        size = 960
        for i in range(0, len(samples), size):
            frame = av.AudioFrame.from_ndarray(samples[None, i : i + size], format="fltp", layout="mono")
            frame.sample_rate = rate
            frame.pts = start + i + (gap if gap_at is not None and i >= gap_at else 0)
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def refused(reason, text, call, *args, **options):
    with pytest.raises(SampleError, match=text) as caught:
        call(*args, **options)
    assert caught.value.reason is reason


def read(path, **options):
    def complain(message):
        raise AssertionError(f"unexpected note: {message}")

    return read_audio(Source(str(path)), **{"note": complain, **options})


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_U8", 2**-7),
        ("a.wav", "PCM_16", 2**-15),
        ("a.wav", "PCM_24", 2**-23),
        ("a.wav", "PCM_32", 1e-7),
        ("a.wav", "FLOAT", 0),
        ("a.wav", "DOUBLE", 0),
        ("a.rf64", "PCM_16", 2**-15),
        ("a.w64", "PCM_16", 2**-15),
        ("a.aiff", "PCM_16", 2**-15),
        ("a.au", "PCM_16", 2**-15),
        ("a.flac", "PCM_24", 2**-23),
        ("a.wav", "ULAW", 0.03),
    ],
)
def test_every_channel_and_sample_of_uncompressed_sound(tmp_path, name, subtype, tolerance):
    samples = RNG.uniform(-0.99, 0.99, (1000, 3)).astype(np.float32)
    soundfile.write(tmp_path / name, samples, 11_025, subtype=subtype)
    clip = read(tmp_path / name)
    assert (clip.sample_rate, clip.start_ns, clip.samples.shape) == (11_025, 0, (3, 1000))
    assert np.abs(clip.samples - samples.T).max() <= tolerance


def test_float_above_full_scale_is_kept(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([4.0, -3.0, 0.5]), RATE, subtype="FLOAT")
    assert read(tmp_path / "a.wav").samples.tolist() == [[4.0, -3.0, 0.5]]


def test_huge_but_finite_samples_are_kept(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([3e38, -3e38]), RATE, subtype="FLOAT")
    assert read(tmp_path / "a.wav").samples.tolist() == [[np.float32(3e38), np.float32(-3e38)]]


def test_64_bit_pcm_that_libsndfile_does_not_know(tmp_path):
    values = np.array([[-(2**63), 0], [2**62, 2**61]], dtype="<i8")
    with (tmp_path / "a.wav").open("wb") as file:
        body = values.tobytes()
        header = np.array([1, 2], "<u2").tobytes() + np.array([8000, 8000 * 16], "<u4").tobytes()
        fmt = header + np.array([16, 64], "<u2").tobytes()
        chunks = b"fmt \x10\0\0\0" + fmt + b"data" + np.array([len(body)], "<u4").tobytes() + body
        file.write(b"RIFF" + np.array([4 + len(chunks)], "<u4").tobytes() + b"WAVE" + chunks)
    assert read(tmp_path / "a.wav").samples.tolist() == [[-1.0, 0.5], [0.0, 0.25]]


CODED = [
    ("a.mp4", "aac", RATE),
    ("a.mkv", "aac", RATE),
    ("a.ogg", "libopus", 48_000),
    ("a.webm", "libopus", 48_000),
    ("a.mkv", "flac", 44_100),
    ("a.mov", "pcm_s16le", 44_100),
]


@pytest.mark.parametrize(("name", "codec", "rate"), CODED)
def test_a_click_is_where_it_was_put(tmp_path, name, codec, rate):
    encode(tmp_path / name, codec, tone(rate=rate), rate)
    clip = read(tmp_path / name)
    assert clip.sample_rate == rate
    for click in (0.1, 1.5):
        begin = round((click - 0.05) * rate)
        found = begin + np.abs(clip.samples[0, begin : begin + rate // 10]).argmax()
        assert abs(found - click * rate) <= (2 if codec != "libopus" else 100)


def test_mp4_padding_is_cut_where_the_container_says_so(tmp_path):
    encode(tmp_path / "a.mp4", "aac", tone(1.2345, clicks=()), RATE)
    assert read(tmp_path / "a.mp4").samples.shape == (1, round(1.2345 * RATE))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_track_that_starts_late_keeps_its_offset(tmp_path, name):
    encode(tmp_path / name, "aac", tone(), RATE, start=11_200, with_video=True)
    clip = read(tmp_path / name)
    begin = clip.start_ns + samples_to_ns(int(np.abs(clip.samples[0]).argmax()), RATE)
    assert abs(begin - 800_000_000) < 2_000_000 or abs(begin - 2_200_000_000) < 2_000_000


@pytest.mark.parametrize("name", ["a.mp3", "a.wav", "a.flac", "a.ogg"])
def test_native_windows_equal_the_whole_bit_by_bit(tmp_path, name):
    soundfile.write(tmp_path / name, np.stack([tone(), tone(clicks=(0.7,))], axis=1), RATE)
    check_windows(tmp_path / name, 0)


@pytest.mark.parametrize(("name", "codec", "rate"), CODED)
def test_coded_windows_equal_the_whole(tmp_path, name, codec, rate):
    encode(tmp_path / name, codec, tone(4.0, rate), rate)
    check_windows(tmp_path / name, 1e-3)


def check_windows(path, tolerance):
    whole = read(path)
    rate, count = whole.sample_rate, whole.samples.shape[1]
    times = whole.start_ns + np.array([samples_to_ns(i, rate) for i in range(count)])
    end_ns = whole.span.end_ns
    for start_ns, stop_ns in (
        (0, end_ns),
        (700_000_001, 900_000_000),
        (1_250_000_000, 1_250_100_000),
        (end_ns // 2, 2**61),
    ):
        inside = np.flatnonzero((times >= start_ns) & (times < stop_ns))
        window = read(path, span=Span(start_ns, stop_ns))
        assert window.samples.shape[1] == len(inside)
        assert abs(window.start_ns - times[inside[0]]) <= 1
        assert np.abs(window.samples - whole.samples[:, inside]).max() <= tolerance


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 400_000), st.integers(-(10**10), 10**10), st.integers(0, 500), st.data())
def test_sample_range_is_what_counting_gives(rate, start_ns, count, data):
    span_ns = samples_to_ns(count, rate) + 10
    first = data.draw(st.integers(start_ns - 10, start_ns + span_ns))
    last = data.draw(st.integers(first, start_ns + span_ns))
    inside = [i for i in range(count) if first <= start_ns + samples_to_ns(i, rate) < last]
    got = sample_range(start_ns, rate, count, Span(first, last))
    assert list(range(*got)) == inside


def test_a_gap_between_packets_is_refused(tmp_path):
    encode(tmp_path / "a.mkv", "pcm_s16le", tone(), RATE, gap_at=9600, gap=4000)
    refused(Reason.BAD_TIMESTAMPS, r"at 0\.910 s: sound packets are \+250\.0 ms off", read, tmp_path / "a.mkv")


def test_a_gap_before_the_last_packet_is_refused(tmp_path):
    encode(tmp_path / "a.mkv", "pcm_s16le", tone(), RATE, gap_at=2 * RATE - 900, gap=4000)
    refused(Reason.BAD_TIMESTAMPS, r"sound packets are \+250\.0 ms off", read, tmp_path / "a.mkv")


def test_a_cut_wav_is_read_as_far_as_it_goes_and_says_so(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(), RATE)
    path.write_bytes(path.read_bytes()[:10_044])
    notes = []
    assert read(path, note=notes.append).samples.shape == (1, 5000)
    assert notes == [f"{path}: the file is cut: 54000 bytes of sound that its header declares are missing"]


def test_a_cut_mp4_says_where_it_ends(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("aac", rate=RATE)
        stream.layout = "mono"
        noise = RNG.uniform(-0.5, 0.5, 4 * RATE).astype(np.float32)
        for i in range(0, len(noise), 1024):
            frame = av.AudioFrame.from_ndarray(noise[None, i : i + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = RATE, i
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    notes = []
    clip = read(path, note=notes.append)
    assert 1.0 < clip.span.end_ns / NS_PER_SECOND < 3.0
    assert any("the sound ends at" in note and "of 4.000 s declared" in note for note in notes)


def test_refusals(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.array([0.0, np.nan, np.inf]), RATE, subtype="FLOAT")
    refused(Reason.NON_FINITE, "got 2 NaN or infinite samples", read, path)
    soundfile.write(path, np.zeros(0), RATE)
    refused(Reason.EMPTY, "got 0 samples of sound", read, path)
    soundfile.write(path, np.zeros((100, 5)), 10)
    refused(Reason.TOO_LARGE, "got 5 channels, allowed: 4", read, path, limits=Limits(max_audio_channels=4))
    refused(
        Reason.TOO_LARGE, "got 10 s of sound or more, allowed: 9.5 s", read, path, limits=Limits(max_audio_seconds=9.5)
    )
    refused(
        Reason.EMPTY, r"no sample inside Span\(11.* overlaps Span\(0", read, path, span=Span(11 * 10**9, 12 * 10**9)
    )
    path.write_bytes(b"<html>gone</html>")
    refused(Reason.UNSUPPORTED_FORMAT, "got an HTML page, allowed: a sound or video file", read, path)
    path.write_bytes(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n")
    refused(Reason.UNSUPPORTED_FORMAT, "got an HLS playlist", read, path)


def test_a_long_coded_track_is_stopped_at_the_limit(tmp_path):
    encode(tmp_path / "a.mp4", "aac", tone(3.0), RATE)
    limits = Limits(max_audio_seconds=1)
    refused(Reason.TOO_LARGE, "1 s of sound or more, allowed: 1 s", read, tmp_path / "a.mp4", limits=limits)
    assert read(tmp_path / "a.mp4", limits=limits, span=Span(10**9, 10**9 + 10**8)).samples.shape == (1, RATE // 10)


def test_video_without_sound(tmp_path):
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    refused(Reason.NO_AUDIO_TRACK, "has no audio track", read, tmp_path / "a.mp4")
