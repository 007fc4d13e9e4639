"""Odd films: sizes that chroma does not divide, ten bits as cameras write them, sound that outlasts the picture."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from features.base import FrameRequest
from pipeline.media.source import Source
from pipeline.media.video import AudioChunk, FrameChunk, Notice, decode

RATE = 16_000


def write(path: Path, size: tuple[int, int], pix_fmt: str, codec: str, sound: float = 0.0) -> Source:
    """A second of 10 frames that get brighter; ``sound``: seconds of it."""
    with av.open(str(path), "w") as made:
        stream = made.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        tone = made.add_stream("pcm_s16le", rate=RATE, layout="mono") if sound else None
        for k in range(10):
            pixels = np.full((size[1], size[0], 3), 20 * k + 20, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = k, Fraction(1, 10)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))
        if tone is not None:
            samples = np.full((1, round(sound * RATE)), 1000, np.int16)
            clip = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            clip.rate, clip.pts = RATE, 0
            made.mux(tone.encode(clip))
            made.mux(tone.encode(None))
    return Source(str(path))


@pytest.mark.parametrize(
    ("size", "pix_fmt", "codec"),
    [
        ((161, 91), "yuv420p", "ffv1"),
        ((33, 47), "yuv422p", "ffv1"),
        ((160, 90), "yuv420p10le", "libx264"),
        ((162, 90), "yuv422p10le", "libx264"),
    ],
)
@pytest.mark.parametrize("short_side", [None, 32])
def test_every_frame_of_odd_sizes_and_of_ten_bits(
    tmp_path: Path, size: tuple[int, int], pix_fmt: str, codec: str, short_side: int | None
) -> None:
    source = write(tmp_path / "a.mkv", size, pix_fmt, codec)
    for pixel_format in ("rgb24", "gray"):
        request = FrameRequest(pixel_format=pixel_format, short_side=short_side)
        clips = [event.clip for event in decode(source, frames={"": request}) if isinstance(event, FrameChunk)]
        pixels = np.concatenate([clip.pixels for clip in clips])
        assert len(pixels) == 10
        if short_side is None:
            assert pixels.shape[1:3] == size[::-1]
        else:
            assert min(pixels.shape[1:3]) == min(short_side, *size)
        means = pixels.reshape(10, -1).mean(axis=1)
        assert np.abs(means - (20 * np.arange(10) + 20)).max() < 3
        assert np.concatenate([clip.start_ns for clip in clips]).tolist() == [k * 100_000_000 for k in range(10)]


def test_sound_that_outlasts_the_picture_is_all_there_and_frames_end_where_they_do(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mkv", (64, 48), "yuv420p", "libx264", sound=2.5)
    events = list(decode(source, frames={"": FrameRequest()}, audio=True))
    frames = [event.clip for event in events if isinstance(event, FrameChunk)]
    sound = [event.clip for event in events if isinstance(event, AudioChunk)]
    assert frames[-1].end_ns[-1] == 1_000_000_000
    assert sum(clip.samples.shape[1] for clip in sound) == round(2.5 * RATE)
    assert not [event for event in events if isinstance(event, Notice)]
