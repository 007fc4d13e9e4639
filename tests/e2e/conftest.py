"""A small data set of images and captions, with a user's own steps, that a test may edit."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
import pytest

from pipeline.catalog import load_catalog
from pipeline.record import RunReport
from pipeline.run import run_dataset

STEPS = '''
"""Steps of a user."""
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from {helper} import scale
from features.types import FeatureSequence


@dataclass(frozen=True, kw_only=True)
class Brightness:
    """Mean of each channel."""

    name: ClassVar[str] = "brightness"
    stream: ClassVar[str] = "image"
    numerics: ClassVar[tuple[str, ...]] = ()
    gain: float = 1.0
    dim: ClassVar[int] = 3

    def __call__(self, batch, device):
        return [
            FeatureSequence.from_rows(scale(image.pixels.mean((0, 1))[None]) * np.float32(self.gain), [image.span])
            for image in batch
        ]


@dataclass(frozen=True, kw_only=True)
class Words:
    """Number of words of each segment."""

    name: ClassVar[str] = "words"
    stream: ClassVar[str] = "text"
    numerics: ClassVar[tuple[str, ...]] = ()
    dim: ClassVar[int] = 1

    def __call__(self, batch, device):
        return [
            FeatureSequence.from_rows(
                np.array([[len(s.text.split())] for s in text.segments], np.float32).reshape(-1, 1),
                [s.span for s in text.segments],
            )
            for text in batch
        ]
'''
HELPER = "import numpy as np\n\n\ndef scale(x):\n    return np.float32(x)\n"
CATALOG = """\
version: 1
store: ./store
engine: {{kind: serial, workers: 1, device: cpu}}
datasets:
  grain:
    root: ./media
    source: {{kind: folder, label_from: folder}}
    splits: {{train: 0.6, validation: 0.2, test: 0.2, seed: 0}}
    features:
      brightness: {{extractor: "{module}:Brightness"}}
      words: {{extractor: "{module}:Words"}}
    align: {{grid: 0.5}}
    max_failed: 0.3
    shard_samples: 4
"""
SAMPLES = 12


class World:
    """A small data set of images and captions, with a user's own steps, that a test may edit."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.module, self.helper = folder, f"steps_{name}", f"helper_{name}"
        self.catalog = folder / "data_catalog.yaml"
        self.media = folder / "media"
        self.catalog.write_text(CATALOG.format(module=self.module))
        self.steps.write_text(STEPS.format(helper=self.helper))
        (folder / f"{self.helper}.py").write_text(HELPER)
        for i in range(SAMPLES):
            self.add(i)

    @property
    def steps(self) -> Path:
        return self.folder / f"{self.module}.py"

    def add(self, i: int, label: str | None = None) -> None:
        folder = self.media / (label or ("day" if i % 2 else "night"))
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 255, (8, 12, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"s{i:02d}.png"), pixels)
        (folder / f"s{i:02d}.srt").write_text(f"1\n00:00:00,000 --> 00:00:01,500\nword number {i}\n")

    def edit(self, path: Path, before: str, after: str) -> None:
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000))
        for module in (self.module, self.helper):
            sys.modules.pop(module, None)

    def run(self, **options: bool) -> RunReport:
        return run_dataset(load_catalog(self.catalog), "grain", **options)  # type: ignore[arg-type]

    def computed(self, **options: bool) -> dict[str, int]:
        report = self.run(**options)
        return {name: counts.done for name, counts in report.features.items()}


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    name = f"{crc32(request.node.name.encode()):08x}"
    made = World(tmp_path, name)
    before = list(sys.path)
    yield made
    sys.path[:] = before
    for module in (made.module, made.helper):
        sys.modules.pop(module, None)
