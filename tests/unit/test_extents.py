"""Shards are cut by what work costs: bytes, seconds and pixels, as headers say, without decoding."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pytest
import soundfile

from features.types import STREAMS
from pipeline.extents import SCHEMA, SHARD_BYTES, SHARD_PIXELS, shard_shares, stream_extents
from pipeline.media.extent import NOTHING_KNOWN, Extent, read_extent
from pipeline.media.source import Source

SECOND = 1_000_000_000


def picture(path: Path) -> Extent:
    cv2.imwrite(str(path), np.zeros((30, 40, 3), np.uint8))
    return Extent(pixels=1200)


def sound(path: Path) -> Extent:
    soundfile.write(path, np.zeros((12_000, 2), np.float32), 8_000)
    return Extent(ns=3 * SECOND // 2)


def unfinished(path: Path) -> Extent:
    """A recorder was cut off before it wrote how long the sound is."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8_000)
        out.writeframes(bytes(16_000))
    path.write_bytes(path.read_bytes()[:40] + b"\xff\xff\xff\xff" + bytes(16_000))
    return Extent(ns=SECOND)


def film(path: Path, **options: str) -> Extent:
    with av.open(str(path), "w", options=options) as out:
        video = out.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        for _ in range(25):
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")))
        out.mux(video.encode(None))
    return Extent(ns=5 * SECOND // 2)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("a.jpg", picture),
        ("a.png", picture),
        ("a.wav", sound),
        ("a.flac", sound),
        ("cut.wav", unfinished),
        ("a.mp4", film),
        ("fast.mp4", lambda path: film(path, movflags="faststart")),
        ("a.mkv", lambda path: film(path) and NOTHING_KNOWN),
    ],
)
def test_headers_say_what_decoding_finds(tmp_path: Path, name: str, make: Any) -> None:
    expected = make(tmp_path / name)
    assert read_extent(Source(str(tmp_path / name))) == expected


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.wav", "a.flac", "a.mp4"])
def test_a_broken_header_is_no_error_and_claims_nothing_absurd(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    {"jpg": picture, "png": picture, "wav": sound, "flac": sound, "mp4": film}[path.suffix[1:]](path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        broken = np.frombuffer(whole, np.uint8).copy()
        broken[rng.integers(0, min(len(broken), 200), 8)] = rng.integers(0, 256, 8)
        path.write_bytes(broken[: rng.integers(1, len(broken) + 1)].tobytes())
        found = read_extent(Source(str(path)))
        assert 0 <= found.ns <= 1_000_000 * SECOND
        assert found.pixels >= 0
    assert read_extent(Source(str(tmp_path / "not-there.mp4"))) == NOTHING_KNOWN


def samples(count: int, *, window: tuple[int, int] | None = None, **uris: tuple[str, int]) -> pa.Table:
    columns: dict[str, Any] = {"sample_id": [str(number) for number in range(count)]}
    for index, name in enumerate(("start_ns", "end_ns")):
        columns[name] = pa.array([None if window is None else window[index]] * count, pa.int64())
    for stream in STREAMS:
        uri, size = uris.get(stream, (None, None))
        columns[f"{stream}_uri"] = pa.array([uri] * count, pa.string())
        columns[f"{stream}_size"] = pa.array([size] * count, pa.int64())
        columns[f"{stream}_version"] = pa.array([None if uri is None else "1"] * count, pa.string())
    return pa.table(columns)


def known(uri: str, ns: int = 0, pixels: int = 0) -> pa.Table:
    return pa.table({"uri": [uri], "size": [1], "version": ["1"], "ns": [ns], "pixels": [pixels]}, schema=SCHEMA)


def test_a_sample_takes_the_share_of_what_it_has_most_of() -> None:
    film = ("/f.mp4", SHARD_BYTES // 4)
    assert shard_shares(samples(1, video=film), {}) == [0.25]
    assert shard_shares(samples(1, video=film), {"video": known("/f.mp4", ns=900 * SECOND)}) == [0.5]
    assert shard_shares(samples(1, video=film, audio=film), {"video": known("/f.mp4", ns=900 * SECOND)}) == [0.5]
    large = {"image": known("/p.png", pixels=SHARD_PIXELS // 2)}
    assert shard_shares(samples(1, image=("/p.png", 9)), large) == pytest.approx([0.5])
    assert shard_shares(samples(1, video=film, image=("/p.png", 9)), large) == pytest.approx([0.75])


def test_a_window_of_a_long_film_costs_its_own_time() -> None:
    window, film = (60 * SECOND, 78 * SECOND), ("/f.mp4", 10 * SHARD_BYTES)
    cut = samples(3, window=window, video=film)
    assert shard_shares(cut, {}) == pytest.approx([0.01] * 3), "18 s of 1800"
    assert shard_shares(cut, {"video": known("/f.mp4", ns=1800 * SECOND)}) == pytest.approx([0.1] * 3), "its bytes"


def test_headers_are_read_once_for_each_version_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    picture(path)
    table = samples(5, image=(str(path), 7))
    found = stream_extents(table, "image", SCHEMA.empty_table())
    assert found.to_pylist() == [{"uri": str(path), "size": 7, "version": "1", "ns": 0, "pixels": 1200}]
    monkeypatch.setattr("pipeline.extents.read_extent", None)
    assert stream_extents(table, "image", found).equals(found)
    assert len(stream_extents(table, "audio", SCHEMA.empty_table())) == 0
