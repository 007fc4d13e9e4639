"""Requests of the decoder that save work: key frames alone, frames that last until the next, shared conversions."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from features.base import FrameRequest
from features.errors import SampleError
from features.time import Span
from pipeline.media.source import Source
from pipeline.media.video import FrameChunk, Notice, decode
from pipeline.media.video_track import VideoTrack

MS = 1_000_000
TIMES = [int(tick) for tick in np.cumsum(np.random.default_rng(1).integers(20, 90, 60))]


def encode(path: Path, times: list[int] = TIMES, codec: str = "libx264", **more: str) -> Source:
    """Noise that drifts, at ``times`` in ms; x264 with B-frames and a key frame every 9."""
    rng = np.random.default_rng(0)
    canvas = rng.integers(0, 256, (30, 60, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    options = {"bf": "2", "g": "9", "preset": "ultrafast", **more} if codec == "libx264" else more
    with av.open(str(path), "w") as made:
        stream = made.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25 if codec == "mpeg4" else 1000)
        for k, ms in enumerate(times):
            frame = av.VideoFrame.from_ndarray(canvas[:, 2 * k : 2 * k + 320].copy(), format="rgb24")
            frame.pts, frame.time_base = ms, Fraction(1, 1000)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    return Source(str(path))


def collect(source: Source, *requests: FrameRequest, **options: object) -> list[tuple[np.ndarray, ...]]:
    found: dict[str, list] = {str(k): [] for k in range(len(requests))}
    for event in decode(source, frames={str(k): request for k, request in enumerate(requests)}, **options):
        if isinstance(event, FrameChunk):
            found[event.key].append(event.clip)
    return [
        tuple(np.concatenate([getattr(clip, name) for clip in clips]) for name in ("pixels", "start_ns", "end_ns"))
        for clips in found.values()
    ]


def equal(one: tuple[np.ndarray, ...], other: tuple[np.ndarray, ...]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def key_times(source: Source) -> list[int]:
    with av.open(source.uri) as container:
        stream = container.streams.video[0]
        keys = [packet.pts for packet in container.demux(stream) if packet.is_keyframe and packet.size]
        return sorted(round(pts * stream.time_base * 1_000_000_000) for pts in keys)


KEYS, ALL = FrameRequest(keyframes_only=True), FrameRequest()


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.avi"])
@pytest.mark.parametrize("chunk", [1, 3, 16])
def test_key_frames_alone_are_those_of_a_full_pass_at_the_same_times(tmp_path: Path, name: str, chunk: int) -> None:
    avi = {"codec": "mpeg4", "times": [40 * k for k in range(60)]} if name == "a.avi" else {}
    source = encode(tmp_path / name, **avi, g="9")
    (alone,) = collect(source, KEYS, chunk=chunk)
    together, everything = collect(source, KEYS, ALL, chunk=chunk)
    assert equal(alone, together)
    assert len(alone[1]) > 4
    if not name.endswith(("ts", "avi")):
        assert alone[1].tolist() == key_times(source)
    chosen = np.isin(everything[1], alone[1])
    assert np.array_equal(everything[0][chosen], alone[0])
    assert alone[2].tolist() == [*alone[1][1:].tolist(), everything[2][-1]]


@pytest.mark.parametrize("window", [(0, 400), (400, 460), (130, 1900), (1000, 99_000)])
@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_key_frames_of_a_window(tmp_path: Path, name: str, window: tuple[int, int]) -> None:
    source = encode(tmp_path / name)
    span = Span(window[0] * MS, window[1] * MS)
    (alone,) = collect(source, KEYS, span=span)
    together, inside = collect(source, KEYS, ALL, span=span)
    assert equal(alone, together)
    keys = set(collect(source, KEYS)[0][1].tolist())
    assert alone[1].tolist() == [t for k, t in enumerate(inside[1].tolist()) if k == 0 or t in keys]
    assert alone[2][-1] == inside[2][-1]


def test_only_key_frames_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = encode(tmp_path / "a.mp4")
    taken = []
    take = VideoTrack._take
    monkeypatch.setattr(VideoTrack, "_take", lambda self, frame: (taken.append(frame.pts), take(self, frame))[1])
    collect(source, KEYS)
    assert len(taken) < 20
    taken.clear()
    collect(source, KEYS, FrameRequest(short_side=20))
    assert len(taken) == len(TIMES)


@pytest.mark.parametrize("rate", [None, 3.0, Fraction(10, 7)])
@pytest.mark.parametrize("chunk", [1, 4])
def test_until_next_tiles_the_video(tmp_path: Path, rate: float | None, chunk: int) -> None:
    source = encode(tmp_path / "a.mp4")
    plain, tiled = FrameRequest(rate=rate), FrameRequest(rate=rate, until_next=True)
    one, other = collect(source, plain, tiled, chunk=chunk)
    (everything,) = collect(source, ALL)
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])
    assert other[2].tolist() == [*other[1][1:].tolist(), everything[2][-1]]


def test_equal_requests_share_one_conversion(tmp_path: Path) -> None:
    source = encode(tmp_path / "a.mp4")
    chunks: dict[str, list] = {"a": [], "b": [], "c": []}
    requests = {"a": FrameRequest(short_side=30), "b": FrameRequest(short_side=30), "c": FrameRequest(short_side=31)}
    for event in decode(source, frames=requests):
        chunks[event.key].append(event.clip)
    assert [a is b for a, b in zip(chunks["a"], chunks["b"], strict=True)] == [True] * len(chunks["a"])
    assert chunks["a"][0].pixels.shape[1:3] == (30, 40)
    assert chunks["c"][0].pixels.shape[1] == 31


@pytest.mark.parametrize(("codec", "pix_fmt"), [("ffv1", "yuv420p"), ("ffv1", "yuv420p10le"), ("ffv1", "bgr0")])
def test_scaled_colours_are_right(tmp_path: Path, codec: str, pix_fmt: str) -> None:
    pixels = np.zeros((240, 320, 3), np.uint8)
    pixels[:120, :160], pixels[:120, 160:], pixels[120:, :160], pixels[120:, 160:] = (
        (250, 20, 20),
        (10, 200, 40),
        (30, 40, 220),
        (255, 255, 255),
    )
    with av.open(str(tmp_path / "a.mkv"), "w") as made:
        stream = made.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, pix_fmt
        if pix_fmt != "bgr0":
            stream.codec_context.colorspace = 1  # BT.709
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        frame = frame.reformat(format=pix_fmt, dst_colorspace=None if pix_fmt == "bgr0" else 1)
        frame.pts = 0
        made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    for side in (240, 120, 60, 24):
        ((small, _, _),) = collect(Source(str(tmp_path / "a.mkv")), FrameRequest(short_side=side))
        corners = small[0][:: side - 1, :: small.shape[2] - 1].reshape(4, 3)
        np.testing.assert_allclose(corners, pixels[::239, ::319].reshape(4, 3), atol=5)


def test_interlaced_video_is_told_of(tmp_path: Path) -> None:
    source = encode(tmp_path / "a.mp4", **{"x264-params": "tff=1", "flags": "+ilme+ildct"})
    notices = [event.message for event in decode(source, frames={"k": ALL}) if isinstance(event, Notice)]
    assert any("the video is interlaced" in notice for notice in notices)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
@pytest.mark.parametrize("request_", [ALL, KEYS])
def test_a_file_cut_short_is_read_as_far_as_it_goes_and_said_so(
    tmp_path: Path, name: str, request_: FrameRequest
) -> None:
    source = encode(tmp_path / "whole.mkv")
    path = tmp_path / name
    if name == "a.mp4":
        with av.open(source.uri) as given, av.open(str(path), "w", options={"movflags": "faststart"}) as made:
            stream = made.add_stream_from_template(given.streams.video[0])
            for packet in given.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    made.mux(packet)
    else:
        path.write_bytes(Path(source.uri).read_bytes())
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    events = list(decode(Source(str(path)), frames={"k": request_}))
    clips = [event.clip for event in events if isinstance(event, FrameChunk)]
    assert TIMES[20] * MS < clips[-1].end_ns[-1] < TIMES[55] * MS
    assert any("the video ends at" in event.message for event in events if isinstance(event, Notice))


def test_a_window_without_frames_is_refused_for_key_frames_too(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match="got no frame inside"):
        collect(encode(tmp_path / "a.mp4"), KEYS, span=Span(10**10, 2 * 10**10))
