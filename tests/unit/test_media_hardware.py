"""A GPU's decoder is used where it gives what software gives, and nowhere else.

There need not be a GPU: a stand-in opens files in software and gives frames as NVDEC does, colour interleaved, with the
faults of a test. The last test needs a real one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from features.base import FrameRequest
from features.errors import GristmillError, Reason, SampleError
from features.time import Span
from pipeline.media import hardware, video
from pipeline.media.container import open_container, pyav
from pipeline.media.source import Source
from pipeline.media.video import AudioChunk, FrameChunk, Notice, decode

LAID = {"yuv420p": "nv12", "yuvj420p": "nv12", "yuv420p10le": "p010le"}
REQUESTS = {
    "whole": FrameRequest(),
    "small": FrameRequest(short_side=24),
    "luma": FrameRequest(pixel_format="gray", rate=5.0),
    "keys": FrameRequest(keyframes_only=True),
}
Fault = Callable[[int, Any], Any]
"""From the number of a frame, and the frame as NVDEC lays it, what comes out instead."""


class Stand:
    """Passes on what it does not have itself."""

    def __init__(self, real: Any, **own: Any) -> None:
        self.real = real
        self.__dict__.update(own)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.real)


def no_fault(number: int, frame: Any) -> Any:
    return frame


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Put the stand-in where the GPU's decoder would be; gives the list of files that it has opened."""

    def put(fault: Fault = no_fault, *, decodes: bool = True) -> list[str]:
        opened: list[str] = []

        @contextmanager
        def stand_in(source: Source, hwaccel: Any = None) -> Iterator[Any]:
            with open_container(source) as container:
                if hwaccel is None:
                    yield container
                    return
                opened.append(source.uri)
                track = container.streams.video[0]
                stream = Stand(track, codec_context=Stand(track.codec_context, is_hwaccel=decodes))
                yield Stand(
                    container,
                    streams=Stand(container.streams, video=(stream,)),
                    demux=lambda *streams: _packets(container, streams, fault),
                    seek=lambda ticks, stream: container.seek(ticks, stream=stream.real),
                )

        monkeypatch.setattr(hardware, "accelerator", object)
        monkeypatch.setattr(video, "accelerator", object)
        monkeypatch.setattr(hardware, "open_container", stand_in)
        monkeypatch.setattr(video, "open_container", stand_in)
        return opened

    return put


def _packets(container: Any, streams: tuple[Any, ...], fault: Fault) -> Iterator[Any]:
    number = 0

    def decoded(packet: Any) -> list[Any]:
        nonlocal number
        frames = []
        for frame in packet.decode():
            laid = frame
            if isinstance(frame, av.VideoFrame):
                both = {"src_color_range": frame.color_range, "dst_color_range": frame.color_range}
                laid = fault(number, frame.reformat(format=LAID[frame.format.name], **both))
                number += 1
            frames.append(laid)
        return frames

    for packet in container.demux(*(getattr(stream, "real", stream) for stream in streams)):
        yield Stand(packet, decode=lambda packet=packet: decoded(packet))


def film(path: Path, *, pix_fmt: str = "yuv420p", size: tuple[int, int] = (64, 48), sound: bool = False) -> Source:
    """Moving noise with pauses, B-frames and a key frame every 6."""
    times = [0, 40, 80, 580, 600, 640, 1640, 1680, 1713, 1746, 1946, 2000, 2040, 2400, 2433, 2466, 3000, 3040]
    random = np.random.default_rng(0).integers(0, 256, (size[1], size[0] + 40, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"bf": "2", "g": "6", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        audio: Any = container.add_stream("aac", rate=16_000, layout="mono") if sound else None
        for i, ms in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(random[:, 2 * i : 2 * i + size[0]]), "rgb24")
            frame.pts, frame.time_base = ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        for i in range(0, 48_000 if sound else 0, 1024):
            block = av.AudioFrame.from_ndarray(np.full((1, 1024), 0.1, np.float32), format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = 16_000, i, Fraction(1, 16_000)
            container.mux(audio.encode(block))
        if sound:
            container.mux(audio.encode(None))
    return Source(str(path))


def told(source: Source, **options: Any) -> tuple[list[Any], list[str]]:
    """Everything that a pass gives, and its notices."""
    found: list[Any] = []
    notices = []
    for event in decode(source, frames=REQUESTS, **options):
        if isinstance(event, FrameChunk):
            clip = event.clip
            found.append((event.key, clip.pixels.tobytes(), clip.start_ns.tolist(), clip.end_ns.tolist()))
        elif isinstance(event, AudioChunk):
            found.append(event.clip.samples.tobytes())
        elif isinstance(event, Notice):
            notices.append(event.message)
    return found, notices


@pytest.mark.parametrize("span", [None, Span(600_000_000, 2_100_000_000)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("a.mkv", {"pix_fmt": "yuv420p10le"}),
        ("a.ts", {"pix_fmt": "yuvj420p"}),
        ("a.mov", {"size": (66, 50), "sound": True}),
    ],
)
def test_what_the_gpu_decodes_is_what_software_decodes(
    tmp_path: Path, gpu: Any, name: str, options: dict[str, Any], span: Span | None
) -> None:
    source = film(tmp_path / name, **options)
    audio = "sound" in options
    wanted = told(source, span=span, audio=audio)
    opened = gpu()
    assert told(source, span=span, audio=audio, hardware=True) == wanted
    # frames to compare, of three places or one, and the pass (a window of a transport stream is sought twice)
    assert len(opened) == 4 if span is None else len(opened) >= 2


def _darker(number: int, frame: Any) -> Any:
    luma = np.frombuffer(memoryview(frame.planes[0]), np.uint8).copy()
    luma[5] ^= 1
    frame.planes[0].update(luma.tobytes())
    return frame


def _later(number: int, frame: Any) -> Any:
    frame.pts += 1
    return frame


FAULTS: dict[str, tuple[Fault, str]] = {
    "one bit of a pixel": (lambda n, frame: _darker(n, frame) if n == 3 else frame, "its frame at tick .* is another"),
    "a time": (lambda n, frame: _later(n, frame) if n == 2 else frame, "it gives a frame at tick"),
}


@pytest.mark.parametrize("fault", list(FAULTS))
@pytest.mark.parametrize("span", [None, Span(600_000_000, 2_100_000_000)])
def test_what_the_gpu_gives_otherwise_is_decoded_in_software(
    tmp_path: Path, gpu: Any, fault: str, span: Span | None
) -> None:
    source = film(tmp_path / "a.mp4")
    wanted, nothing = told(source, span=span)
    assert nothing == []
    broken, message = FAULTS[fault]
    gpu(broken)
    found, notices = told(source, span=span, hardware=True)
    assert found == wanted
    assert len(notices) == 1
    assert notices[0].startswith(f"{source.uri}: decoded in software, not by the GPU: ")
    assert re.search(message, notices[0])


def test_a_codec_that_the_gpu_does_not_have_is_decoded_in_software(tmp_path: Path, gpu: Any) -> None:
    source = film(tmp_path / "a.mp4")
    wanted, _ = told(source)
    gpu(decodes=False)
    found, notices = told(source, hardware=True)
    assert found == wanted
    assert "the GPU does not decode h264" in notices[0]


def test_a_fault_after_the_frames_compared_quarantines_the_sample(tmp_path: Path, gpu: Any) -> None:
    source = film(tmp_path / "a.mp4")

    def fails(number: int, frame: Any) -> Any:
        if number == 15:
            raise pyav().InvalidDataError(1, "the device is lost")
        return frame

    gpu(fails)
    with pytest.raises(SampleError, match=r"cure: engine\.video_decoder: software") as caught:
        told(source, hardware=True)
    assert caught.value.reason is Reason.UNREADABLE


@pytest.mark.parametrize("share", [0.95, 0.7, 0.4])
@pytest.mark.parametrize("name", ["a.mkv", "a.ts"])
def test_of_a_file_that_is_cut_short_as_much_is_used_as_in_software(
    tmp_path: Path, gpu: Any, name: str, share: float
) -> None:
    source = film(tmp_path / name)
    content = Path(source.uri).read_bytes()
    Path(source.uri).write_bytes(content[: int(share * len(content))])
    wanted, told_in_software = told(source)
    gpu()
    found, notices = told(source, hardware=True)
    assert found == wanted
    assert [notice for notice in notices if "not by the GPU" not in notice] == told_in_software


def test_what_nobody_can_decode_says_so_as_in_software(tmp_path: Path, gpu: Any) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no film at all, whatever its name says" * 20)
    with pytest.raises(SampleError) as wanted:
        told(Source(str(path)))
    gpu()
    with pytest.raises(SampleError) as got:
        told(Source(str(path)), hardware=True)
    assert (got.value.reason, str(got.value)) == (wanted.value.reason, str(wanted.value))


@pytest.mark.skipif(hardware.missing() is None, reason="this machine has such a decoder")
def test_without_a_gpu_a_file_is_decoded_in_software_and_a_run_is_refused(tmp_path: Path) -> None:
    from pipeline.catalog.models import Engine
    from pipeline.execute.engine import open_engine

    source = film(tmp_path / "a.mp4")
    wanted, _ = told(source)
    found, notices = told(source, hardware=True)
    assert found == wanted
    assert "the GPU's decoder cannot be opened for it" in notices[0]
    settings = Engine.model_validate({"kind": "serial", "device": "cpu", "video_decoder": "nvdec"})
    with pytest.raises(GristmillError, match="video_decoder: got 'nvdec', but no GPU decodes video here"):
        open_engine(settings, "cpu", tmp_path)


@pytest.mark.skipif(hardware.missing() is not None, reason="needs a GPU that decodes video")
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuvj420p"])
def test_a_real_gpu_gives_what_software_gives(tmp_path: Path, pix_fmt: str) -> None:
    source = film(tmp_path / "a.mp4", pix_fmt=pix_fmt, size=(320, 240))
    wanted, _ = told(source)
    found, notices = told(source, hardware=True)
    assert found == wanted
    assert notices == []
