"""Only what changed is computed, and the run says why. Each test edits one thing and counts what was computed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from features.errors import RunFailedError
from pipeline.catalog import load_catalog
from pipeline.report import RunReport
from pipeline.run import Run, plan_dataset, published, run_dataset

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


@pytest.fixture()
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    name = str(abs(hash(request.node.name)))
    made = World(tmp_path, name)
    before = list(sys.path)
    yield made
    sys.path[:] = before
    for module in (made.module, made.helper):
        sys.modules.pop(module, None)


def rows(world: World, feature: str) -> list[object]:
    table = published(load_catalog(world.catalog), "grain").read(feature)
    return list(table.drop_columns(["shard", "recipe"]).sort_by("sample_id").to_pylist())


def test_the_first_run_computes_all_and_the_second_nothing(world: World) -> None:
    first = world.run()
    assert {name: counts.done for name, counts in first.features.items()} == {"brightness": 12, "words": 12}
    assert first.published
    assert first.aligned_rows_written == 24
    second = world.run()
    assert second.computed == 0
    assert not second.published
    assert second.snapshot == first.snapshot
    assert second.samples is not None
    assert second.samples.unchanged == 12


def test_aligned_modalities_have_equal_rows_and_honest_masks(world: World) -> None:
    world.run()
    snapshot = published(load_catalog(world.catalog), "grain")
    assert snapshot.aligned == ("brightness", "words")
    image, words = snapshot.read("aligned.brightness"), snapshot.read("aligned.words")
    assert image["length"].to_pylist() == words["length"].to_pylist() == [3] * 12
    assert image["sample_id"].equals(words["sample_id"])
    assert set(np.concatenate(words["coverage"].to_pylist())) == {1.0}


@pytest.mark.parametrize(
    ("what", "brightness", "words", "reason"),
    [
        ("an option", 12, 0, "brightness gain 1.0 -> 2.0"),
        ("a helper", 12, 12, "brightness code changed"),
        ("a comment", 0, 0, None),
        ("a byte of one image", 1, 0, "bytes or window changed"),
        ("a byte of one caption", 0, 1, None),
        ("a touch", 0, 0, None),
        ("one more sample", 1, 1, "new"),
        ("one sample less", 0, 0, "removed"),
        ("another grid", 0, 0, None),
        ("another feature name", 0, 12, None),
    ],
)
def test_edits(world: World, what: str, brightness: int, words: int, reason: str | None) -> None:
    world.run()
    image = world.media / "day" / "s01.png"
    helper = world.folder / f"{world.helper}.py"
    if what == "an option":
        world.edit(world.catalog, "Brightness}", "Brightness}".replace("}", ", options: {gain: 2.0}}"))
    elif what == "an option":
        raise AssertionError
    elif what == "a helper":
        world.edit(helper, "np.float32(x)", "np.float32(x) + np.float32(1)")
    elif what == "a comment":
        world.edit(helper, "    return", "    # the same\n    return")
    elif what == "a byte of one image":
        cv2.imwrite(str(image), np.zeros((8, 12, 3), dtype=np.uint8))
    elif what == "a byte of one caption":
        world.edit(image.with_suffix(".srt"), "word", "another word")
    elif what == "a touch":
        os.utime(image, ns=(1, 10**18))
    elif what == "one more sample":
        world.add(40)
    elif what == "one sample less":
        image.unlink()
        image.with_suffix(".srt").unlink()
    elif what == "another grid":
        world.edit(world.catalog, "grid: 0.5", "grid: 0.25")
    else:
        world.edit(world.catalog, "      words:", "      count:")
    report = world.run()
    done = {name: counts.done for name, counts in report.features.items()}
    assert done == {"brightness": brightness, "count" if "name" in what else "words": words}
    if reason is not None:
        assert reason in dict(report.reasons["brightness"])
    fresh = plan_dataset(load_catalog(world.catalog), "grain").planned
    assert fresh.to_compute == 0
    assert rows_equal_a_rebuild(world)


def rows_equal_a_rebuild(world: World) -> bool:
    """The published rows are those that a run from nothing makes."""
    names = ("brightness", "aligned.brightness")
    before = {name: rows(world, name) for name in names}
    world.run(from_nothing=True)
    return all(before[name] == rows(world, name) for name in names)


def test_a_new_label_is_stored_without_computing(world: World) -> None:
    world.run()
    for suffix in (".png", ".srt"):
        file = world.media / "day" / f"s01{suffix}"
        (world.media / "dusk").mkdir(exist_ok=True)
        file.rename(world.media / "dusk" / f"s01{suffix}")
    report = world.run()
    assert report.features["brightness"].done == 1, "in a folder source the path is the id: a new sample"
    labels = {row["sample_id"]: row["label"] for row in rows(world, "brightness")}  # type: ignore[index, call-overload]
    assert labels["dusk/s01"] == "dusk"
    assert "day/s01" not in labels


def test_another_split_restamps_rows_without_computing(world: World) -> None:
    world.run()
    world.edit(world.catalog, "seed: 0", "seed: 5")
    report = world.run()
    assert report.computed == 0
    assert report.published
    assert "only split or label changed" in dict(report.reasons["brightness"])
    catalog = load_catalog(world.catalog)
    now = dict(zip(*(published(catalog, "grain").samples[c].to_pylist() for c in ("sample_id", "split")), strict=True))
    for feature in ("brightness", "aligned.words"):
        assert {row["sample_id"]: row["split"] for row in rows(world, feature)} == now  # type: ignore[index, call-overload]


def test_a_broken_file_is_quarantined_counted_and_tried_again_only_when_it_changes(world: World) -> None:
    broken = world.media / "day" / "s01.png"
    good = broken.read_bytes()
    broken.write_bytes(good[: len(good) // 2])
    first = world.run()
    assert first.features["brightness"].quarantined == 1
    assert first.features["words"].done == 12
    assert first.samples is not None
    assert (first.samples.done, first.samples.quarantined) == (11, 1)
    second = world.run()
    assert second.computed == 0
    assert second.features["brightness"].quarantined == 1
    assert not second.published
    aligned = published(load_catalog(world.catalog), "grain").read("aligned.brightness")
    masked = dict(zip(aligned["sample_id"].to_pylist(), aligned["valid"].to_pylist(), strict=True))
    assert masked["day/s01"] == [False] * 3
    broken.write_bytes(good)
    third = world.run()
    assert third.features["brightness"].done == 1
    assert third.features["words"].done == 0
    assert third.features["brightness"].quarantined == 0


def test_too_many_failures_turn_the_run_red_and_publish_nothing(world: World) -> None:
    world.run()
    for i in range(1, 11, 2):
        (world.media / "day" / f"s{i:02d}.png").write_bytes(b"not an image")
    with pytest.raises(RunFailedError, match=r"5 of 12 samples failed \(42%.*allowed: max_failed 30%; nothing was pub"):
        world.run()
    snapshot = published(load_catalog(world.catalog), "grain")
    assert snapshot.version == 1
    assert len(snapshot.read("brightness")) == 12


def test_the_report_is_stored(world: World) -> None:
    report = world.run()
    stored = json.loads((world.folder / f"store/grain/_runs/{report.run_id}/report.json").read_text())
    assert stored["features"]["words"]["samples_in"] == 12
    assert stored["computed"] == 24


def test_two_runs_at_once_publish_one(world: World) -> None:
    from features.errors import StoreError

    first, second = (Run(load_catalog(world.catalog), "grain") for _ in range(2))
    for run in (first, second):
        run.scan()
        run.plan()
        run.fit()
        run.extract()
        run.align()
    first.publish()
    with pytest.raises(StoreError, match="another run published snapshot"):
        second.publish()
    assert len(rows(world, "brightness")) == 12
