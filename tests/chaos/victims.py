"""The data set that is brought up to date, and what is killed: runs and ``gc``, each in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, Literal

SAMPLES, CHANGED, ADDED = 40, 10, 4
OPERATIONS = frozenset({"open", "os.mkdir", "os.rename", "os.remove", "os.link"})


STEPS = """
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from features.types import FeatureSequence

CALLS = Path(__file__).with_name("calls.log")


@dataclass(frozen=True, kw_only=True)
class Slow:
    name: ClassVar[str] = "slow"
    stream: ClassVar[str] = "image"
    numerics: ClassVar[tuple[str, ...]] = ()
    batch_size: ClassVar[int] = 1
    dim: ClassVar[int] = 1024

    def __call__(self, batch, device):
        log = os.open(CALLS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for image in batch:
            time.sleep(0.004)
            os.write(log, b"%d\\n" % image.pixels[0, 0, 0])
        os.close(log)
        rows = [np.resize(image.pixels, (1, 1024)).astype("f4") for image in batch]
        return [FeatureSequence.from_rows(row, [image.span]) for row, image in zip(rows, batch, strict=True)]
"""
CATALOG = """\
version: 1
store: ./store
engine: {kind: serial, workers: 2, device: cpu}
datasets:
  grain:
    root: ./media
    source: {kind: folder}
    features:
      slow: {extractor: "chaos_steps:Slow"}
    align: {grid: 0.5}
    shard_samples: 8
"""


def make(folder: Path) -> None:
    """Write the catalog, the step and the images of a new data set."""
    (folder / "media").mkdir(parents=True)
    (folder / "data_catalog.yaml").write_text(CATALOG)
    (folder / "chaos_steps.py").write_text(STEPS)
    for i in range(SAMPLES):
        draw(folder, i, i)


def edit(folder: Path) -> None:
    """Change some images and add others."""
    for i in range(CHANGED):
        draw(folder, i * 3, 100 + i)
    for i in range(SAMPLES, SAMPLES + ADDED):
        draw(folder, i, i)


def draw(folder: Path, i: int, mark: int) -> None:
    """Write an image whose first pixel says what it is."""
    import cv2
    import numpy as np

    pixels = np.random.default_rng(mark).integers(0, 255, (16, 24, 3), dtype=np.uint8)
    pixels[0, 0] = mark
    cv2.imwrite(str(folder / f"media/s{i:02d}.png"), pixels)


class Counting:
    """Counts the file operations below a folder, and kills the process group before one of them."""

    def __init__(self, folder: Path, fatal: int | None) -> None:
        self._below, self._fatal, self.count = str(folder), fatal, 0
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPERATIONS or not str(arguments[0]).startswith(self._below):
            return
        if self.count == self._fatal:
            os.killpg(os.getpgrp(), signal.SIGKILL)
        self.count += 1


def run(
    folder: Path, engine: Literal["serial", "dask"] = "serial", fatal: int | None = None, largest: int | None = None
) -> dict[str, Any]:
    """A whole run; tells the file operations that each stage began with."""
    from pipeline.catalog import load_catalog
    from pipeline.run import STAGES, Run

    if largest is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
    counting = Counting(folder / "store", fatal)
    begun = time.monotonic()
    marks = []
    with Run(load_catalog(folder / "data_catalog.yaml"), "grain", engine=engine) as run:
        for stage in STAGES:
            marks.append(counting.count)
            getattr(run, stage)()
    report = run.report.as_json()
    return {"report": report, "marks": [*marks, counting.count], "seconds": time.monotonic() - begun}


def collect_garbage(folder: Path, fatal: int | None = None) -> dict[str, Any]:
    """``gc`` that keeps the last snapshot only; tells how many file operations there were."""
    from pipeline.store import DatasetStore
    from pipeline.store.gc import collect

    counting = Counting(folder / "store", fatal)
    collect(DatasetStore(str(folder / "store"), "grain"), keep=1)
    return {"marks": [0, counting.count]}


def inspect(folder: Path) -> dict[str, Any]:
    """What readers see, whether it is whole, and what lies on the disk."""
    from pipeline.store import DatasetStore
    from pipeline.store.verify import verify

    store = DatasetStore(str(folder / "store"), "grain")
    snapshot = store.snapshot()
    root = folder / "store/grain"
    finished = [json.loads(path.read_bytes()) for path in (root / "_ledger").glob("*.json")]
    seen: dict[str, Any] = {"finished": sum(report["computed"].get("slow", 0) for report in finished)}
    if snapshot is None:
        return seen | {"version": None, "files": [], "faults": [], "needless": []}
    names = {file.path for file in snapshot.files}
    there = {str(path.relative_to(root)) for path in root.glob("feature=*/*")}
    return seen | {
        "version": snapshot.version,
        "files": sorted([file.feature, file.shard, file.digest] for file in snapshot.files),
        "faults": [str(fault) for fault in verify(snapshot).faults],
        "needless": sorted(there - names),
    }
