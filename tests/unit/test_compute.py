"""One shard in memory: batches, their halving, views, and one decode for everything that reads a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import av
import cv2
import numpy as np
import pytest
import torch

from features.audio.mfcc import Mfcc
from features.base import FrameRequest, run_video
from features.image.cnn import Cnn
from features.time import ALWAYS
from features.types import Device, FeatureSequence, Stream, Text, TextSegment, VideoClip
from features.video.flow import Flow
from features.video.keyframes import Keyframes, KeyframeScores
from pipeline.chain import Chain, ChainError
from pipeline.execute.compute import compute
from pipeline.execute.guard import Outcome
from pipeline.execute.work import FeatureWork, SampleWork, ShardWork
from pipeline.state import StateRef


@dataclass(frozen=True, kw_only=True)
class Small:
    """Length of a text, on a device that holds four at a time."""

    name: ClassVar[str] = "small"
    stream: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = ()
    dim: ClassVar[int] = 1
    holds: int = 4
    calls: ClassVar[list[int]] = []

    def __call__(self, batch: Sequence[Text], device: Device) -> list[FeatureSequence]:
        self.calls.append(len(batch))
        if len(batch) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [FeatureSequence.from_rows(np.array([[len(t.plain)]], np.float32), [ALWAYS]) for t in batch]


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """As many copies of a text as its seed's last digit."""

    name: ClassVar[str] = "repeat"
    stream: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = ()

    def augment(self, batch: Sequence[Text], seeds: Sequence[int], device: Device) -> list[Text]:
        return [Text((TextSegment(t.plain * (1 + s % 97)),)) for t, s in zip(batch, seeds, strict=True)]


def work(folder: Path, chains: Sequence[Chain], uris: Sequence[dict[Stream, str]], **options: Any) -> ShardWork:
    ids = [f"s{number}" for number in range(len(uris))]
    return ShardWork(
        store=str(folder / "store"),
        dataset="d",
        run_id="r",
        shard=0,
        roster=dict.fromkeys(ids, ("train", None)),
        samples=tuple(SampleWork(sample_id=key, uris=each, span=None) for key, each in zip(ids, uris, strict=True)),
        features=tuple(
            FeatureWork(
                chain=chain,
                recipe=bytes(16),
                state=None,
                compute=dict.fromkeys(ids, bytes(16)),
                keep=frozenset(),
                base=None,
            )
            for chain in chains
        ),
        device="cpu",
        **options,
    )


def texts(folder: Path, count: int) -> list[dict[Stream, str]]:
    found: list[dict[Stream, str]] = []
    for number in range(count):
        path = folder / f"{number}.txt"
        path.write_text("x" * (number + 1))
        found.append({"text": str(path)})
    return found


def done(piece: ShardWork) -> Outcome:
    outcome = Outcome()
    outcome.tally = compute(piece, outcome)
    return outcome


def test_a_batch_that_is_too_large_for_the_device_is_halved_and_stays_so(tmp_path: Path) -> None:
    Small.calls.clear()
    outcome = done(work(tmp_path, [Chain("n", (), Small())], texts(tmp_path, 64)))
    assert not outcome.failures
    assert [outcome.rows["n"][f"s{k}", 0].values[0, 0] for k in range(64)] == [k + 1 for k in range(64)]
    assert sum(size > 4 for size in Small.calls) == 3, "16, then its two halves of 8; never again"


def test_a_sample_that_does_not_fit_alone_is_quarantined(tmp_path: Path) -> None:
    outcome = done(work(tmp_path, [Chain("n", (), Small(holds=0))], texts(tmp_path, 3)))
    assert [failure.reason for failure in outcome.failures] == ["out_of_memory"] * 3


def test_views_are_seeded_by_sample_and_view_whatever_the_shard(tmp_path: Path) -> None:
    chain = Chain("v", (), Small(holds=99), augment=(Repeat(),), count=3, seed=5)
    uris = texts(tmp_path, 20)
    whole = done(work(tmp_path, [chain], uris)).rows["v"]
    assert set(whole) == {(f"s{k}", view) for k in range(20) for view in (1, 2, 3)}
    part = work(tmp_path, [chain], uris)
    part = replace(part, samples=part.samples[7:9][::-1])
    some = replace(part.features[0], compute={key: bytes(16) for key in ("s7", "s8")})
    found = done(replace(part, features=(some,))).rows["v"]
    assert set(found) == {(key, view) for key in ("s7", "s8") for view in (1, 2, 3)}
    assert all(found[key].values == whole[key].values for key in found)
    assert len({float(whole["s0", view].values[0, 0]) for view in (1, 2, 3)}) == 3
    other = done(work(tmp_path, [replace(chain, seed=6)], uris)).rows["v"]
    assert any(other[key].values != whole[key].values for key in whole)


def test_views_and_augmentations_come_together() -> None:
    with pytest.raises(ChainError, match="allowed: both or neither"):
        Chain("v", (), Small(), augment=(Repeat(),))
    with pytest.raises(ChainError, match="augmentations of whole video"):
        Chain("v", (), Flow(), augment=(replace_stream(Repeat(), "video"),), count=1)
    with pytest.raises(ChainError, match="repeat takes text, but"):
        Chain("v", (Keyframes(),), Small(), augment=(Repeat(),), count=1)


def replace_stream(step: Any, stream: str) -> Any:
    return type("Other", (type(step),), {"stream": stream})()


def clip(path: Path, seconds: int = 2) -> Path:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as out:
        video, sound = out.add_stream("mpeg4", rate=25), out.add_stream("aac", rate=16_000)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        sound.layout = "mono"
        for number in range(25 * seconds):
            picture = cv2.resize(rng.integers(0, 255, (8, 12, 3), dtype=np.uint8), (96, 64))
            for packet in video.encode(av.VideoFrame.from_ndarray(np.roll(picture, number, 1), "rgb24")):
                out.mux(packet)
        noise = rng.standard_normal((1, 16_000 * seconds)).astype(np.float32) / 5
        frame = av.AudioFrame.from_ndarray(noise, "fltp", "mono")
        frame.sample_rate = 16_000
        for stream, rest in ((sound, frame), (sound, None), (video, None)):
            for packet in stream.encode(rest):
                out.mux(packet)
    return path


@pytest.mark.parametrize("threads", [0, 2])
def test_one_decode_pass_feeds_every_feature_that_reads_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    opened: Counter[str] = Counter()
    real = av.open

    def counting(file: Any, *args: Any, **options: Any) -> Any:
        opened["file"] += 1
        return real(file, *args, **options)

    monkeypatch.setattr(av, "open", counting)
    uris: list[dict[Stream, str]] = []
    for number in range(3):
        path = str(clip(tmp_path / f"{number}.mp4"))
        uris.append({"video": path, "audio": path})
    opened.clear()
    chains = [
        Chain("flow", (), Flow()),
        Chain("scores", (), KeyframeScores()),
        Chain("mfcc", (), Mfcc()),
        Chain("more", (), Mfcc(n_mfcc=13)),
    ]
    outcome = done(work(tmp_path, chains, uris, decode_threads=threads))
    assert not outcome.failures
    assert opened == {"file": 3}
    alone = {}
    for chain in chains:
        alone |= {chain.name: done(work(tmp_path, [chain], uris)).rows[chain.name]}
    for name, rows in alone.items():
        assert rows.keys() == outcome.rows[name].keys()
        for key, row in rows.items():
            assert row.values.tobytes() == outcome.rows[name][key].values.tobytes()
            assert row.start_ns.tobytes() == outcome.rows[name][key].start_ns.tobytes()


def test_vectors_of_pictures_are_the_same_bytes_in_any_shard_and_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    uris: list[dict[Stream, str]] = []
    for number in range(21):
        path = str(tmp_path / f"{number}.png")
        cv2.imwrite(path, rng.integers(0, 255, (40, 50, 3), dtype=np.uint8))
        uris.append({"image": path})
    piece = work(tmp_path, [Chain("cnn", (), Cnn(image_size=64))], uris)
    state = StateRef(str(tmp_path / "store"), "d", str(tmp_path))
    feature = replace(piece.features[0], state=state)
    whole = done(replace(piece, features=(feature,))).rows["cnn"]
    assert len(whole) == 21
    for samples in (piece.samples[:1], piece.samples[5:18][::-1]):
        some = replace(feature, compute={sample.sample_id: bytes(16) for sample in samples})
        for key, row in done(replace(piece, samples=samples, features=(some,))).rows["cnn"].items():
            assert row.values.tobytes() == whole[key].values.tobytes(), key


class Beside:
    """How long a text is, beside how many frames a film has: frames compared with a text."""

    name: ClassVar[str] = "beside"
    stream: ClassVar[Stream] = "video"
    reference: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = ()
    dim: ClassVar[int] = 2
    request: ClassVar[FrameRequest] = FrameRequest(pixel_format="gray", short_side=32)

    def __init__(self, text: Text | None = None) -> None:
        self.text, self.count = text, 0

    def with_reference(self, medium: Text) -> Any:
        return Beside(medium)

    def open(self, device: Device) -> Any:
        return self

    def push(self, frames: VideoClip) -> None:
        self.count += len(frames.pixels)

    def finish(self) -> FeatureSequence:
        assert self.text is not None
        return FeatureSequence.from_rows(np.array([[len(self.text.plain), self.count]], np.float32), [ALWAYS])

    def __call__(self, batch: Sequence[VideoClip], device: Device) -> list[FeatureSequence]:
        return run_video(self, batch, device)


@pytest.mark.parametrize("threads", [0, 2])
def test_frames_can_be_compared_with_a_text_too(tmp_path: Path, threads: int) -> None:
    (tmp_path / "said.txt").write_text("grain")
    (tmp_path / "broken.txt").write_bytes(b"")
    film = str(clip(tmp_path / "film.mp4"))
    uris: list[dict[Stream, str]] = [
        {"video": film, "audio": film, "text": str(tmp_path / name)} for name in ("said.txt", "broken.txt")
    ]
    chains = [Chain("beside", (), Beside()), Chain("mfcc", (), Mfcc()), Chain("small", (), Small())]
    outcome = done(work(tmp_path, chains, uris, decode_threads=threads))
    assert outcome.rows["beside"]["s0", 0].values.tolist() == [[5.0, 50.0]]
    assert len(outcome.rows["mfcc"]) == 2, "the sound of a film whose text is broken is still used"
    failed = sorted((failure.feature, failure.sample_id, failure.reason) for failure in outcome.failures)
    assert failed == [("beside", "s1", "empty"), ("small", "s1", "empty")]


@pytest.mark.parametrize("stream", ["audio", "video"])
def test_what_is_read_with_the_frames_is_no_reference(stream: str) -> None:
    odd: Any = type("Odd", (Beside,), {"reference": stream})()
    with pytest.raises(ChainError, match=f"beside: reference: got '{stream}', allowed: image, text"):
        Chain("odd", (), odd)
