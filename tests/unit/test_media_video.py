import struct
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.base import FrameRequest
from features.errors import Reason, SampleError
from features.time import Span
from pipeline.media.source import Limits, Source
from pipeline.media.video import AudioChunk, Failure, FrameChunk, Notice, decode

MS = 1_000_000
VFR_MS = (0, 40, 80, 580, 600, 640, 1640, 1680, 1713, 1746, 1946, 2000, 2040, 2400, 2433, 2466, 3000, 3040)


def picture(i, width=64, height=48):
    """Frame ``i``: a flat grey that tells ``i``, so that a frame can be recognised after lossy coding."""
    return np.full((height, width, 3), 20 + 10 * (i % 22), np.uint8)


def number(frame):
    return round((float(frame.mean()) - 20) / 10)


def encode(
    path,
    times_ms,
    *,
    codec="libx264",
    size=(64, 48),
    pictures=None,
    sound=False,
    options=None,
    pix_fmt="yuv420p",
    colour=None,
):
    """Write one frame at each of ``times_ms``; x264 with B-frames and a key frame every 6."""
    options = {"bf": "2", "g": "6", "crf": "10", "preset": "fast"} if options is None else options
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = Fraction(1, 25 if codec == "mpeg1video" else 1000)
        stream.time_base = Fraction(1, 16_000)
        if colour is not None:
            stream.codec_context.colorspace = colour
        if sound:
            audio = container.add_stream("aac", rate=16_000)
            audio.layout = "mono"
        for i, ms in enumerate(times_ms):
            pixels = picture(i, *size) if pictures is None else pictures[i]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if colour is not None:
                frame = frame.reformat(format=pix_fmt, dst_colorspace=colour)
            frame.pts, frame.time_base = ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound:
            for i in range(0, 16_000 * (times_ms[-1] + 100) // 1000, 1024):
                block = av.AudioFrame.from_ndarray(np.full((1, 1024), 0.1, np.float32), format="fltp", layout="mono")
                block.sample_rate, block.pts, block.time_base = 16_000, i, Fraction(1, 16_000)
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return Source(str(path))


def collect(source, request=None, **options):
    """All frames of one request: pixels, starts, ends; the notices beside."""
    clips, notices = [], []
    for event in decode(source, frames={"k": request or FrameRequest()}, **options):
        if isinstance(event, FrameChunk):
            assert event.key == "k"
            clips.append(event.clip)
        elif isinstance(event, Notice):
            notices.append(event.message)
    return (
        *(np.concatenate([getattr(clip, name) for clip in clips]) for name in ("pixels", "start_ns", "end_ns")),
        notices,
    )


def refused(reason, text, source, **options):
    with pytest.raises(SampleError, match=text) as caught:
        list(decode(source, **{"frames": {"k": FrameRequest()}, **options}))
    assert caught.value.reason is reason


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov"])
def test_times_come_from_the_container_not_from_the_index(tmp_path, name):
    pixels, starts, ends, notices = collect(encode(tmp_path / name, VFR_MS))
    assert (starts // MS).tolist() == list(VFR_MS)
    assert (ends[:-1] == starts[1:]).all()
    assert ends[-1] > starts[-1]
    assert [number(p) for p in pixels] == list(range(len(VFR_MS)))
    assert notices == []


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_track_that_starts_late_keeps_its_offset(tmp_path, name):
    source = encode(tmp_path / name, [700 + 40 * i for i in range(12)], sound=True)
    _, starts, _, _ = collect(source)
    assert (starts // MS).tolist() == [700 + 40 * i for i in range(12)]


@pytest.mark.parametrize(("name", "codec"), [("a.ts", "libx264"), ("a.mpg", "mpeg1video")])
def test_a_stream_whose_clock_begins_anywhere_counts_from_its_start(tmp_path, name, codec):
    source = encode(tmp_path / name, [40 * i for i in range(12)], codec=codec)
    _, starts, _, _ = collect(source)
    assert np.abs(starts // MS - np.arange(12) * 40).max() <= 1


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_the_last_frame_lasts_as_long_as_it_says(tmp_path, name):
    _, starts, ends, _ = collect(encode(tmp_path / name, [0, 40, 80, 120]))
    assert ends[-1] - starts[-1] == 40 * MS


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_windows_are_the_full_pass_restricted(tmp_path, name):
    source = encode(tmp_path / name, VFR_MS)
    pixels, starts, ends, _ = collect(source)
    for begin, end in (
        (0, 10),
        (0, 9000),
        (90, 100),
        (595, 1640),
        (1640, 1641),
        (1700, 2050),
        (2999, 3001),
        (3000, 99_000),
    ):
        inside = (starts < end * MS) & (ends > begin * MS)
        got = collect(source, span=Span(begin * MS, end * MS))
        assert np.array_equal(got[1], starts[inside]), (begin, end)
        assert np.array_equal(got[2], ends[inside])
        assert np.array_equal(got[0], pixels[inside])


def test_a_window_outside_is_refused(tmp_path):
    source = encode(tmp_path / "a.mp4", [0, 40, 80])
    refused(Reason.EMPTY, "got no frame inside Span", source, span=Span(10**10, 2 * 10**10))


@pytest.fixture(scope="module")
def vfr(tmp_path_factory):
    return encode(tmp_path_factory.mktemp("video") / "vfr.mp4", VFR_MS)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 120), st.integers(1, 20))
def test_rate_takes_the_first_frame_at_or_after_each_tick(vfr, rate_tenths, chunk):
    rate = rate_tenths / 10
    _, starts, ends, _ = collect(vfr, FrameRequest(pixel_format="gray", rate=rate), chunk=chunk)
    period = Fraction(1_000_000_000) / Fraction(rate)
    chosen = set()
    for k in range(int(VFR_MS[-1] * MS / period) + 1):
        chosen.add(next(ms for ms in VFR_MS if ms * MS >= k * period))
    assert (starts // MS).tolist() == sorted(chosen)
    following = dict(pairwise(VFR_MS))
    assert all(end // MS == following[start // MS] for start, end in zip(starts[:-1], ends[:-1], strict=True))


def test_many_requests_in_one_pass_equal_single_passes(vfr):
    requests = {
        "a": FrameRequest(),
        "b": FrameRequest(pixel_format="gray", short_side=24),
        "c": FrameRequest(short_side=30, rate=2.0),
    }
    together = {key: [] for key in requests}
    for event in decode(vfr, frames=requests, chunk=5):
        assert len(event.clip) <= 5
        together[event.key].append(event.clip)
    for key, request in requests.items():
        pixels, starts, ends, _ = collect(vfr, request)
        assert np.array_equal(np.concatenate([clip.pixels for clip in together[key]]), pixels)
        assert np.array_equal(np.concatenate([clip.start_ns for clip in together[key]]), starts)
        assert np.array_equal(np.concatenate([clip.end_ns for clip in together[key]]), ends)


@pytest.mark.parametrize(
    ("short_side", "shape"),
    [(None, (90, 161)), (200, (90, 161)), (90, (90, 161)), (45, (45, 80)), (30, (30, 54)), (1, (1, 2))],
)
def test_scaling_keeps_the_aspect_and_never_enlarges(tmp_path, short_side, shape):
    source = encode(tmp_path / "a.mkv", [0, 40], size=(161, 90), codec="ffv1", pix_fmt="bgr0")
    assert collect(source, FrameRequest(short_side=short_side))[0].shape == (2, *shape, 3)
    assert collect(source, FrameRequest(short_side=short_side, pixel_format="gray"))[0].shape == (2, *shape)


def quadrants():
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24, :32], pixels[:24, 32:], pixels[24:, :32], pixels[24:, 32:] = 40, 100, 160, 220
    return pixels


def with_matrix(path, a, b, c, d):
    """Write a display matrix into the track header of an MP4 (ISO 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("matrix", "turned"),
    [
        ((1, 0, 0, 1), lambda p: p),
        ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),  # a phone held upright: a quarter turn clockwise
        ((-1, 0, 0, -1), lambda p: np.rot90(p, 2)),
        ((0, -1, 1, 0), lambda p: np.rot90(p, 1)),
        ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
        ((1, 0, 0, -1), lambda p: p[::-1]),
        ((0, 1, 1, 0), lambda p: p.swapaxes(0, 1)),
    ],
)
@pytest.mark.parametrize("pixel_format", ["rgb24", "gray"])
def test_the_display_matrix_is_applied(tmp_path, matrix, turned, pixel_format):
    source = encode(tmp_path / "a.mp4", [0, 40], pictures=[quadrants()] * 2)
    with_matrix(tmp_path / "a.mp4", *matrix)
    pixels, _, _, notices = collect(source, FrameRequest(pixel_format=pixel_format))
    expected = turned(quadrants() if pixel_format == "rgb24" else quadrants()[:, :, 0])
    assert pixels[0].shape == expected.shape
    assert np.abs(pixels[0].astype(int) - expected).mean() < 4
    assert notices == []


def test_a_skewed_display_matrix_is_told_of(tmp_path):
    source = encode(tmp_path / "a.mp4", [0, 40])
    with_matrix(tmp_path / "a.mp4", 1, 1, -1, 1)
    assert any("no quarter turn or mirror image" in notice for notice in collect(source)[3])


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [("ffv1", "yuv420p10le"), ("ffv1", "yuv444p"), ("ffv1", "gray"), ("ffv1", "bgr0"), ("mjpeg", "yuvj420p")],
)
def test_black_and_white_are_0_and_255_in_every_format(tmp_path, codec, pix_fmt):
    pictures = [np.full((48, 64, 3), value, np.uint8) for value in (0, 255)]
    source = encode(tmp_path / "a.mkv", [0, 40], codec=codec, pix_fmt=pix_fmt, pictures=pictures)
    for pixel_format in ("rgb24", "gray"):
        pixels = collect(source, FrameRequest(pixel_format=pixel_format))[0]
        assert pixels[0].max() <= 2
        assert pixels[1].min() >= 253


def test_the_declared_colour_matrix_is_used(tmp_path):
    red = np.zeros((48, 64, 3), np.uint8)
    red[:] = (200, 30, 30)
    source = encode(tmp_path / "a.mkv", [0, 40], codec="ffv1", pix_fmt="yuv444p", pictures=[red] * 2, colour=1)
    assert np.abs(collect(source)[0].astype(int) - red).max() <= 3


def test_sound_of_the_same_pass(tmp_path):
    source = encode(tmp_path / "a.mp4", [40 * i for i in range(60)], sound=True)
    chunks = [
        event.clip
        for event in decode(source, frames={"k": FrameRequest()}, audio=True)
        if isinstance(event, AudioChunk)
    ]
    assert len(chunks) > 1
    for before, after in pairwise(chunks):
        assert abs(after.start_ns - before.span.end_ns) <= 1
    only = [event.clip for event in decode(source, frames={}, audio=True)]
    assert np.array_equal(
        np.concatenate([c.samples for c in chunks], axis=1), np.concatenate([c.samples for c in only], axis=1)
    )
    window = [
        e.clip
        for e in decode(source, frames={}, audio=True, span=Span(10**9, 10**9 + 10**8))
        if isinstance(e, AudioChunk)
    ]
    assert [clip.samples.shape for clip in window] == [(1, 1600)]


@pytest.mark.parametrize("span", [None, Span(0, 50 * MS)])
def test_a_missing_stream_is_told_and_the_other_goes_on(tmp_path, span):
    source = encode(tmp_path / "a.mp4", [0, 40, 80])
    events = list(decode(source, frames={"k": FrameRequest()}, audio=True, span=span))
    assert [event.error.reason for event in events if isinstance(event, Failure)] == [Reason.NO_AUDIO_TRACK]
    assert any(isinstance(event, FrameChunk) for event in events)
    refused(
        Reason.NO_AUDIO_TRACK, "has no audio track, allowed: at least one", source, frames={}, audio=True, span=span
    )


def test_a_cover_picture_is_no_video(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=16_000)
        audio.layout = "mono"
        cover = container.add_stream("mjpeg", rate=1)
        cover.width = cover.height = 16
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame(16, 16, "yuvj420p")))
        block = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        block.sample_rate, block.pts = 16_000, 0
        container.mux(audio.encode(block))
        container.mux(audio.encode(None))
    refused(Reason.NO_VIDEO_TRACK, "has no video track", Source(str(path)))


def test_a_cut_file_gives_what_is_readable_and_says_where_it_ends(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
    path = tmp_path / "a.mkv"
    encode(path, [40 * i for i in range(30)], pictures=noise)
    faststart = tmp_path / "a.mp4"
    with av.open(str(path)) as given, av.open(str(faststart), "w", options={"movflags": "faststart"}) as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    faststart.write_bytes(faststart.read_bytes()[: faststart.stat().st_size // 2])
    _, starts, ends, notices = collect(Source(str(faststart)))
    assert 5 < len(starts) < 25
    assert (ends[:-1] == starts[1:]).all()
    assert any("the video ends at" in notice and "of 1.2" in notice for notice in notices)


def test_what_is_no_video_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"<html></html>")
    refused(Reason.UNSUPPORTED_FORMAT, "got an HTML page", Source(str(path)))
    path.write_bytes(b"\0\0\0\x18ftypisom" + bytes(100))
    refused(Reason.CORRUPT, "looks like MP4 or QuickTime media, but its header cannot be read", Source(str(path)))
    path.write_bytes(b"")
    refused(Reason.EMPTY, "got 0 bytes", Source(str(path)))
    refused(Reason.MISSING_FILE, "no such file", Source(str(tmp_path / "b.mp4")))


def test_large_frames_are_refused(vfr):
    refused(Reason.TOO_LARGE, "got frames of 64x48, allowed: 100 pixels", vfr, limits=Limits(max_image_pixels=100))


def test_a_stream_without_times_is_refused(tmp_path):
    source = encode(tmp_path / "a.h264", [40 * i for i in range(12)])
    refused(Reason.BAD_TIMESTAMPS, "12 frames have no time .* cure: put it into a container with times", source)


def test_impossible_arguments_are_refused_at_once(vfr):
    with pytest.raises(ValueError, match="got no request"):
        decode(vfr, frames={})
    with pytest.raises(ValueError, match="k: got rate 0, allowed: above 0"):
        decode(vfr, frames={"k": FrameRequest(rate=0)})
    with pytest.raises(ValueError, match="k: got short_side 0, allowed: at least 1"):
        decode(vfr, frames={"k": FrameRequest(short_side=0)})
    with pytest.raises(ValueError, match="got chunk 0 and threads 1"):
        decode(vfr, frames={"k": FrameRequest()}, chunk=0)


def test_a_reader_that_stops_early_leaves_no_file_open(vfr):
    events = decode(vfr, frames={"k": FrameRequest()}, chunk=2)
    assert len(next(events).clip) == 2
    events.close()
