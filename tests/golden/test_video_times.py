"""Times of frames and rows against files whose irregular timestamps are known, to the tick of the container.

The oracle is the list of ticks that each file was written with; what ``index / fps`` would say is shown beside.
"""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from features.base import FrameRequest
from features.time import ticks_to_ns
from features.types import Device
from features.video.flow import Flow
from features.video.keyframes import Keyframes, KeyframeScores
from pipeline.media.source import Source
from pipeline.media.video import FrameChunk, decode

CPU: Device = "cpu"
TICK = Fraction(1, 90_000)
TIMESCALES = {key: {"video_track_timescale": "90000", "movie_timescale": "90000"} for key in (".mp4", ".mov")}
RNG = np.random.default_rng(5)
JITTERED = np.cumsum(RNG.integers(1_501, 9_007, 40)).tolist()
PAUSES = np.cumsum([3_600] * 10 + [270_000] + [3_600] * 10 + [1_501] * 10 + [450_001] + [3_003] * 8).tolist()
SHAPES = {
    "jittered": [tick - JITTERED[0] for tick in JITTERED],
    "pauses": [tick - PAUSES[0] for tick in PAUSES],
    "late start": [63_063 + 3_003 * k for k in range(40)],
    "late and jittered": JITTERED,
}


def write(path: Path, ticks: list[int], *, options: dict[str, str] | None = None, codec: str = "libx264") -> Source:
    """Frames at ``ticks`` of 1/90000 s, with B-frames and a key frame every 7, of blocks that move."""
    picture = RNG.integers(0, 256, (12, 30), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(path), "w", options=TIMESCALES.get(path.suffix, {})) as made:
        stream = made.add_stream(codec, rate=30, options=options or {"bf": "3", "g": "7", "preset": "fast"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.codec_context.time_base = stream.time_base = TICK
        for k, tick in enumerate(ticks):
            frame = av.VideoFrame.from_ndarray(picture[:, k : k + 128].copy(), format="gray")
            frame.pts, frame.time_base = tick, TICK
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
    return Source(str(path))


def frames(source: Source, request: FrameRequest) -> tuple[np.ndarray, np.ndarray]:
    clips = [event.clip for event in decode(source, frames={"k": request}) if isinstance(event, FrameChunk)]
    return np.concatenate([clip.start_ns for clip in clips]), np.concatenate([clip.end_ns for clip in clips])


def exact(ticks: list[int]) -> list[int]:
    return [ticks_to_ns(tick, TICK) for tick in ticks]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".ts"])
def test_every_frame_begins_at_its_tick(tmp_path: Path, shape: str, suffix: str) -> None:
    ticks = SHAPES[shape]
    options = {"bf": "0", "g": "7"} if suffix == ".mov" else None
    source = write(tmp_path / f"a{suffix}", ticks, options=options)
    starts, ends = frames(source, FrameRequest(pixel_format="gray"))
    if suffix == ".ts":  # the clock of a transport stream begins anywhere: it counts from the first frame
        ticks = [tick - ticks[0] for tick in ticks]
    assert np.abs(starts - exact(ticks)).max() <= (suffix == ".ts")  # ns: a difference of two rounded times there
    assert ends[:-1].tolist() == starts[1:].tolist()
    by_index = np.arange(len(ticks)) / 30  # the fault: what a reader that counts frames would say
    if ticks != [3_003 * k for k in range(40)]:
        assert np.abs(by_index - starts / 1e9).max() > 0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_matroska_rounds_to_its_millisecond_and_no_further(tmp_path: Path, shape: str) -> None:
    starts, _ = frames(write(tmp_path / "a.mkv", SHAPES[shape]), FrameRequest(pixel_format="gray"))
    assert (starts % 1_000_000 == 0).all()
    assert np.abs(starts - exact(SHAPES[shape])).max() <= 500_000 + 1


def _edited(path: Path, cut: int) -> None:
    """Let the edit list begin ``cut`` ticks of the track later (ISO 14496-12, 8.6.6)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4
    version, count = data[at], struct.unpack_from(">I", data, at + 4)[0]
    assert (version, count) == (0, 1)
    (begin,) = struct.unpack_from(">i", data, at + 12)
    struct.pack_into(">i", data, at + 12, begin + cut)
    path.write_bytes(data)


@pytest.mark.parametrize("cut", [9, 14, 20])
def test_an_edit_list_cuts_and_shifts(tmp_path: Path, cut: int) -> None:
    ticks = SHAPES["jittered"]
    source = write(tmp_path / "a.mp4", ticks)
    _edited(tmp_path / "a.mp4", ticks[cut])
    starts, _ = frames(source, FrameRequest(pixel_format="gray"))
    assert starts.tolist() == exact([tick - ticks[cut] for tick in ticks[cut:]])
    keys, ends = frames(source, FrameRequest(pixel_format="gray", keyframes_only=True))
    assert set(keys.tolist()) <= set(starts.tolist())
    assert ends.tolist() == [*keys[1:].tolist(), frames(source, FrameRequest())[1][-1]]


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_of_features_begin_and_end_at_ticks(tmp_path: Path, shape: str) -> None:
    ticks = SHAPES[shape]
    source = write(tmp_path / "a.mp4", ticks)
    flow, scores, uniform = Flow(rate=90_000.0), KeyframeScores(), Keyframes(method="uniform", interval=0.25)
    sinks = {"flow": flow.open(CPU), "scores": scores.open(CPU), "uniform": uniform.select()}
    requests = {"flow": flow.request, "scores": scores.request, "uniform": uniform.request}
    end_ns = frames(source, FrameRequest())[1][-1]
    for event in decode(source, frames=requests):
        if isinstance(event, FrameChunk):
            sinks[event.key].push(event.clip)
    edges = exact(ticks)
    rows = sinks["flow"].finish()
    assert (rows.start_ns.tolist(), rows.end_ns.tolist()) == (edges[:-1], edges[1:])
    for found in (sinks["scores"].finish(),):
        assert set(found.start_ns.tolist()) <= set(edges)
        assert found.end_ns.tolist() == [*found.start_ns[1:].tolist(), end_ns]
    images = sinks["uniform"].finish()
    quarters = range(edges[0], edges[-1] + 1, 250_000_000)
    wanted = sorted({min(edge for edge in edges if edge >= quarter) for quarter in quarters})
    assert [image.span.start_ns for image in images] == wanted
    assert [image.span.end_ns for image in images] == [*wanted[1:], end_ns]
