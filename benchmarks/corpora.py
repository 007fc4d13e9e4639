"""Media for benchmarks, written by code: photographs, sounds and films where the real ones are beside the checkout."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from harness import ROOT

REAL = ROOT.parent / "shared/data"

Pixels = npt.NDArray[np.uint8]


def photographs() -> list[Pixels]:
    """Some pictures of at least 640x480, BGR."""
    import cv2

    files = sorted((REAL / "image").glob("*.jpg")) + sorted((REAL / "image").glob("*.png"))
    found = [cv2.imread(str(file), cv2.IMREAD_COLOR) for file in files]
    if not found:
        rng = np.random.default_rng(0)
        found = [cv2.resize(rng.integers(0, 255, (48, 64, 3), np.uint8), (640, 480)) for _ in range(4)]
    scale = [max(1.0, 640 / pixels.shape[1], 480 / pixels.shape[0]) for pixels in found]
    return [np.asarray(cv2.resize(p, None, fx=by, fy=by)) for p, by in zip(found, scale, strict=True)]


def jpegs(folder: Path, count: int) -> list[str]:
    """``count`` JPEG files of 500x375: cuts from photographs, quality 90."""
    import cv2

    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    if not folder.exists():
        folder.mkdir(parents=True)
        rng, from_ = np.random.default_rng(0), photographs()
        for number, path in enumerate(paths):
            pixels = from_[number % len(from_)]
            top, left = (
                int(rng.integers(0, side - least + 1)) for side, least in zip(pixels.shape, (375, 500), strict=False)
            )
            cv2.imwrite(str(path), pixels[top : top + 375, left : left + 500], [cv2.IMWRITE_JPEG_QUALITY, 90])
    return [str(path) for path in paths]


def wavs(folder: Path, count: int, seconds: int, rate: int = 16_000) -> list[str]:
    """``count`` sounds of ``seconds``: tones and noise, 16 bits."""
    paths = [folder / f"{number:05d}.wav" for number in range(count)]
    if not folder.exists():
        folder.mkdir(parents=True)
        rng, clock = np.random.default_rng(0), np.arange(rate * seconds) / rate
        for path in paths:
            tone = np.sin(2 * np.pi * rng.uniform(80, 400) * clock) + rng.standard_normal(len(clock)) / 4
            with wave.open(str(path), "wb") as out:
                out.setnchannels(1)
                out.setsampwidth(2)
                out.setframerate(rate)
                out.writeframes((tone * 8_000).astype("<i2").tobytes())
    return [str(path) for path in paths]


def _frames(seconds: int, rate: int, width: int, height: int) -> Iterator[Pixels]:
    """A camera that moves over photographs, with a cut every five seconds."""
    import cv2

    scenes = [cv2.resize(pixels, (width * 2, height * 2)) for pixels in photographs()]
    for number in range(seconds * rate):
        scene, step = scenes[number // (5 * rate) % len(scenes)], number % (5 * rate)
        left, top = step * width // (5 * rate), step * height // (5 * rate)
        yield np.ascontiguousarray(scene[top : top + height, left : left + width])


def film(path: Path, seconds: int, *, size: tuple[int, int] = (640, 360), rate: int = 25, sound: bool = True) -> int:
    """Write a film in H.264 and AAC (16 kHz, mono); return its number of frames."""
    import av

    rng = np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=rate)
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        video.options = {"preset": "veryfast", "g": str(rate * 2)}
        audio: Any = out.add_stream("aac", rate=16_000) if sound else None
        for number, pixels in enumerate(_frames(seconds, rate, *size)):
            out.mux(video.encode(av.VideoFrame.from_ndarray(pixels, "bgr24")))
            if audio is not None and number % rate == 0:
                noise = (rng.standard_normal((1, 16_000)) / 8).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(noise, "fltp", "mono")
                frame.sample_rate, frame.pts, frame.time_base = 16_000, number // rate * 16_000, Fraction(1, 16_000)
                out.mux(audio.encode(frame))
        out.mux(video.encode(None))
        if audio is not None:
            out.mux(audio.encode(None))
    return seconds * rate


def videos(folder: Path, count: int, seconds: int = 30) -> tuple[list[str], int]:
    """``count`` films of 640x360 at 25 frames a second, and how many frames they have together."""
    paths = [folder / f"{number:03d}.mp4" for number in range(count)]
    if not folder.exists():
        film(paths[0], seconds)
        for path in paths[1:]:
            path.write_bytes(paths[0].read_bytes())
    return [str(path) for path in paths], count * seconds * 25


def repeated(film_path: Path, path: Path, times: int) -> None:
    """Write ``film_path`` ``times`` over, one after the other, without coding it again."""
    import av

    with av.open(str(film_path)) as one:
        packets = sum(packet.dts is not None for packet in one.demux(audio=0))
        length = packets * Fraction(1024, 16_000)  # AAC: the next turn begins when the last packet's samples end
    with av.open(str(path), "w") as out:
        with av.open(str(film_path)) as first:
            streams = {stream.index: out.add_stream_from_template(stream) for stream in first.streams}
        for turn in range(times):
            with av.open(str(film_path)) as one:
                for packet in one.demux():
                    if packet.dts is None:
                        continue
                    later = round(turn * length / Fraction(packet.time_base))
                    packet.pts, packet.dts = packet.pts + later, packet.dts + later
                    packet.stream = streams[packet.stream.index]
                    out.mux(packet)
