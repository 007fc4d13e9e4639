"""A published data set of eight samples with steps of a user, to be edited."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from safetensors.numpy import save_file

from pipeline.catalog import load_catalog
from pipeline.plan import COMPUTED
from pipeline.record import RunReport
from pipeline.run import plan_dataset, published, run_dataset

SAMPLES = tuple(f"s{i}" for i in range(8))


FILES = {
    "edit_steps.py": '''\
"""Steps of a user."""
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from edit_near import scaled
from features.types import FeatureSequence


@dataclass(frozen=True, kw_only=True)
class Brightness:
    """Mean of each channel."""

    name: ClassVar[str] = "brightness"
    stream: ClassVar[str] = "image"
    numerics: ClassVar[tuple[str, ...]] = ("numpy",)
    gain: float = 1.0
    offset: float = 0.0
    dim: ClassVar[int] = 3

    def __call__(self, batch, device):
        # one row an image
        return [FeatureSequence.from_rows(self.mean(image), [image.span]) for image in batch]

    def mean(self, image):
        return scaled(image.pixels.mean((0, 1))[None]) * np.float32(self.gain) + np.float32(self.offset)
''',
    "edit_near.py": "from edit_far import factor\n\n\ndef scaled(x):\n    return x.astype('f4') * factor()\n",
    "edit_far.py": "def factor():\n    return 2\n",
    "edit_tint.py": """\
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from features.base import WeightsRef
from features.types import FeatureSequence


@dataclass(frozen=True, kw_only=True)
class Tint:
    name: ClassVar[str] = "tint"
    stream: ClassVar[str] = "image"
    numerics: ClassVar[tuple[str, ...]] = ()
    weights: str = "tint.safetensors"
    dim: ClassVar[int] = 2

    @property
    def weights_ref(self):
        return WeightsRef(kind="file", locator=self.weights)

    def with_state(self, state):
        return Loaded(state["mix"].numpy())

    def __call__(self, batch, device):
        raise TypeError("tint: has no weights yet")


class Loaded:
    dim = 2

    def __init__(self, mix):
        self.mix = mix

    def __call__(self, batch, device):
        means = [image.pixels.mean((0, 1), "f4")[None] for image in batch]
        return [FeatureSequence.from_rows(x @ self.mix, [image.span]) for x, image in zip(means, batch, strict=True)]
""",
    "edit_words.py": """\
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from features.types import FeatureSequence


@dataclass(frozen=True, kw_only=True)
class Words:
    name: ClassVar[str] = "words"
    stream: ClassVar[str] = "text"
    numerics: ClassVar[tuple[str, ...]] = ()
    dim: ClassVar[int] = 1

    def __call__(self, batch, device):
        from edit_lazy import count

        return [
            FeatureSequence.from_rows(
                np.array([[count(s.text)] for s in text.segments], np.float32).reshape(-1, 1),
                [s.span for s in text.segments],
            )
            for text in batch
        ]
""",
    "edit_lazy.py": "def count(text):\n    return len(text.split())\n",
    "edit_level.py": '''\
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from features.types import FeatureSequence


@dataclass(frozen=True, kw_only=True)
class Level:
    """Length of each caption, less the mean length in training."""

    name: ClassVar[str] = "level"
    stream: ClassVar[str] = "text"
    numerics: ClassVar[tuple[str, ...]] = ()
    dim: ClassVar[int] = 1

    def fit(self, corpus):
        return {"mean": np.array([np.mean([len(s.text) for e in corpus for s in e.medium.segments])], np.float32)}

    def with_state(self, state):
        return Fitted(state["mean"])

    def __call__(self, batch, device):
        raise TypeError("level: must be fitted first")


class Fitted:
    dim = 1

    def __init__(self, mean):
        self.mean = mean

    def __call__(self, batch, device):
        return [
            FeatureSequence.from_rows(
                np.array([[len(s.text)] for s in text.segments], np.float32).reshape(-1, 1) - self.mean,
                [s.span for s in text.segments],
            )
            for text in batch
        ]
''',
    "edit_invert.py": """\
from dataclasses import dataclass, replace
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class Invert:
    name: ClassVar[str] = "invert"
    stream: ClassVar[str] = "image"
    numerics: ClassVar[tuple[str, ...]] = ()

    def prepare(self, batch, device):
        return [replace(image, pixels=255 - image.pixels) for image in batch]
""",
    "edit_other.py": "UNRELATED = 1\n",
    "data_catalog.yaml": """\
version: 1
store: ./store
engine: {kind: serial, workers: 1, device: cpu}
datasets:
  grain:
    root: ./media
    source:
      kind: jsonl
      path: samples.jsonl
      columns: {id: id, label: label, start: start, end: end, image: image, text: text}
    splits: {train: 0.6, validation: 0.2, test: 0.2, seed: 0}
    features:
      brightness: {extractor: "edit_steps:Brightness", options: {gain: 1.0}}
      tint: {extractor: "edit_tint:Tint"}
      words: {extractor: "edit_words:Words"}
      level: {extractor: "edit_level:Level"}
    align: {grid: 0.5}
    max_failed: 0.3
    shard_samples: 3
""",
}


class Bench:
    """A published data set in a folder of its own, for one edit."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.media = folder, folder / "media"
        self.catalog, self.manifest = folder / "data_catalog.yaml", folder / "media/samples.jsonl"

    def make(self) -> None:
        self.media.mkdir(parents=True)
        for name, text in FILES.items():
            (self.folder / name).write_text(text)
        save_file({"mix": np.arange(6, dtype=np.float32).reshape(3, 2)}, self.folder / "tint.safetensors")
        for i, sample_id in enumerate(SAMPLES):
            self.add(sample_id, i)
        self.run()

    def add(self, sample_id: str, i: int) -> None:
        pixels = np.random.default_rng(i).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(self.media / f"{sample_id}.png"), pixels)
        words = " ".join(["word"] * (i + 1))
        (self.media / f"{sample_id}.srt").write_text(f"1\n00:00:00,000 --> 00:00:01,500\n{words}\n")
        row = {"id": sample_id, "label": "ab"[i % 2], "image": f"{sample_id}.png", "text": f"{sample_id}.srt"}
        with self.manifest.open("a") as lines:
            lines.write(json.dumps(row | {"start": "", "end": ""}) + "\n")

    def row(self, sample_id: str, **cells: str) -> None:
        """Change cells of a manifest row."""
        rows = [json.loads(line) for line in self.manifest.read_text().splitlines()]
        rows = [row | cells if row["id"] == sample_id else row for row in rows]
        self.manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def replace(self, name: str, before: str, after: str) -> None:
        """Edit a text file, as an editor does: its time of change moves on."""
        path = self.folder / name
        text = path.read_text()
        assert before in text, f"{name} has no {before!r}"
        path.write_text(text.replace(before, after))
        os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + 1_000_000))

    def to_compute(self, **options: Any) -> dict[str, set[str]]:
        """Feature -> samples that a run would compute; features without any are left out."""
        forget_modules()
        planned = plan_dataset(load_catalog(self.catalog), "grain", **options).planned
        ids = np.array(planned.samples["sample_id"].to_pylist(), dtype=object)
        found = {name: set(ids[np.isin(feature.status, COMPUTED)]) for name, feature in planned.features.items()}
        return {name: samples for name, samples in found.items() if samples}

    def run(self, **options: Any) -> RunReport:
        forget_modules()
        return run_dataset(load_catalog(self.catalog), "grain", **options)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Every published row, by feature, without what says where and by which recipe it was made."""
        snapshot = published(load_catalog(self.catalog), "grain")
        found = {}
        for name in (*snapshot.features, *(f"aligned.{name}" for name in snapshot.aligned)):
            table = snapshot.read(name).drop_columns(["shard", "recipe"])
            if name.startswith("aligned."):  # its content names the recipes of all inputs
                table = table.drop_columns(["content"])
            found[name] = table.sort_by("sample_id").to_pylist()
        return found


def forget_modules() -> None:
    """Forget the user's modules, as a new process does."""
    for name in [name for name in sys.modules if name.startswith("edit_")]:
        del sys.modules[name]
