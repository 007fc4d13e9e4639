"""A data set of six samples with sound, pictures and captions, and steps of a user."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image as Pillow

from pipeline.catalog import load_catalog
from pipeline.record import RunReport
from pipeline.run import published, run_dataset
from pipeline.store import Snapshot

SAMPLES = tuple("abcdef")
STEPS = '''\
"""Steps of a user."""
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from features.types import FeatureSequence


@dataclass(frozen=True, kw_only=True)
class Level:
    """Mean absolute amplitude, and twice that."""

    name: ClassVar[str] = "level"
    stream: ClassVar[str] = "audio"
    numerics: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[tuple[str, ...]] = ("amplitude", "double")
    dim: ClassVar[int] = 2
    milliseconds: int = 100

    def __call__(self, batch, device):
        found = []
        for clip in batch:
            step = clip.sample_rate * self.milliseconds // 1000
            count = clip.samples.shape[1] // step
            level = np.abs(clip.samples[0, : count * step]).reshape(count, step).mean(1).astype("f4")
            start = clip.start_ns + np.arange(count) * self.milliseconds * 1_000_000
            values = np.stack([level, 2 * level], 1)
            end = start + self.milliseconds * 1_000_000
            found.append(FeatureSequence(values=values, start_ns=start, end_ns=end))
        return found


@dataclass(frozen=True, kw_only=True)
class Length:
    """Letters of each caption."""

    name: ClassVar[str] = "length"
    stream: ClassVar[str] = "text"
    numerics: ClassVar[tuple[str, ...]] = ()
    dim: ClassVar[int] = 1

    def __call__(self, batch, device):
        return [
            FeatureSequence.from_rows(
                np.array([[len(s.text)] for s in text.segments], "f4").reshape(-1, 1), [s.span for s in text.segments]
            )
            for text in batch
        ]


@dataclass(frozen=True, kw_only=True)
class Shade:
    """Mean of a picture."""

    name: ClassVar[str] = "shade"
    stream: ClassVar[str] = "image"
    numerics: ClassVar[tuple[str, ...]] = ()
    dim: ClassVar[int] = 1

    def __call__(self, batch, device):
        return [FeatureSequence.from_rows(x.pixels.mean()[None, None].astype("f4"), [x.span]) for x in batch]
'''
CATALOG = """\
version: 1
store: ./store
engine: {kind: serial, workers: 2, device: cpu}
datasets:
  talk:
    root: ./media
    source: {kind: folder}
    features:
      level: {extractor: "talk_steps:Level"}
      length: {extractor: "talk_steps:Length"}
      shade: {extractor: "talk_steps:Shade"}
    align: {text: segments}
    max_failed: 0.5
    shard_samples: 4
"""


def cues(*lines: tuple[float, float, str]) -> str:
    def clock(seconds: float) -> str:
        return f"00:00:{seconds:06.3f}".replace(".", ",")

    return "".join(f"{n}\n{clock(b)} --> {clock(e)}\n{text}\n\n" for n, (b, e, text) in enumerate(lines, 1))


class Talk:
    """Two seconds of sound that grows louder, two captions and a picture for each sample; ``f`` has no picture."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.media, self.catalog = folder, folder / "media", folder / "data_catalog.yaml"
        self.media.mkdir(parents=True)
        self.catalog.write_text(CATALOG)
        (folder / "talk_steps.py").write_text(STEPS)
        for i, name in enumerate(SAMPLES):
            soundfile.write(self.media / f"{name}.wav", np.linspace(0, 0.5, 16_000), 8_000)
            self.caption(name, (0.25, 0.75, "one."), (1.0, 1.5 + i / 100, "two"))
            if name != "f":
                Pillow.new("L", (8, 6), 10 * i).save(self.media / f"{name}.png")
        self.table("a,0,1\na,0.5,0.7\n" + "".join(f"{name},0.5,{1 + i / 10}\n" for i, name in enumerate("bcde")))

    def caption(self, name: str, *lines: tuple[float, float, str]) -> None:
        self.write(self.media / f"{name}.srt", cues(*lines))

    def table(self, rows: str) -> None:
        self.write(self.media / "marks.csv", "sample_id,start,end\n" + rows)

    def align(self, entry: str) -> None:
        text = self.catalog.read_text()
        self.catalog.write_text(re.sub(r"align: .*", f"align: {{{entry}}}", text))

    def write(self, path: Path, text: str) -> None:
        before = path.stat().st_mtime_ns if path.exists() else None
        path.write_text(text)
        if before is not None:
            os.utime(path, ns=(before, before + 1_000_000))

    def run(self, **options: Any) -> RunReport:
        sys.modules.pop("talk_steps", None)
        return run_dataset(load_catalog(self.catalog), "talk", **options)

    @property
    def snapshot(self) -> Snapshot:
        return published(load_catalog(self.catalog), "talk")

    def aligned(self, feature: str) -> dict[str, dict[str, Any]]:
        return {row["sample_id"]: row for row in self.snapshot.read(f"aligned.{feature}").to_pylist()}

    def times(self, sample: str, feature: str = "level") -> list[tuple[float, float]]:
        row = self.aligned(feature)[sample]
        return [(b / 1e9, e / 1e9) for b, e in zip(row["start_ns"], row["end_ns"], strict=True)]


@contextmanager
def talking(folder: Path) -> Iterator[Talk]:
    before = list(sys.path)
    yield Talk(folder / "talk")
    sys.path[:] = before
    sys.modules.pop("talk_steps", None)
