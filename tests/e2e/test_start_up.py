"""What a process imports before it works: torch takes 3 s and 200 MiB, and most features do without it."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image as Pillow

from pipeline.catalog import load_catalog
from pipeline.execute.engine import may_have_gpu
from pipeline.run import published, run_dataset

CATALOG = """\
version: 1
store: ./store
engine: {workers: 1}
datasets:
  sounds:
    root: ./media
    source: {kind: folder}
    splits: {train: 1.0}
    features:
      audio.mfcc: {}
      loudest: {extractor: "loudest:Loudest"}
"""
STEPS = '''
"""A step that says what its process has imported."""
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from features.types import FeatureSequence


@dataclass(frozen=True, kw_only=True)
class Loudest:
    """The highest sample, and whether torch is here."""

    name: ClassVar[str] = "loudest"
    stream: ClassVar[str] = "audio"
    numerics: ClassVar[tuple[str, ...]] = ()
    dim: ClassVar[int] = 2

    def __call__(self, batch, device):
        assert device == "cpu"
        there = float("torch" in sys.modules)
        return [
            FeatureSequence.from_rows(np.array([[clip.samples.max(), there]], np.float32), [clip.span])
            for clip in batch
        ]
'''


def said(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_there_may_be_a_gpu_where_a_driver_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(Path, "exists", lambda path: False)
    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert not may_have_gpu()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: None)
    assert may_have_gpu()
    monkeypatch.setattr(ctypes, "CDLL", missing)
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/kfd")
    assert may_have_gpu()


@pytest.mark.parametrize("may", [False, True])
def test_torch_is_asked_for_a_gpu_only_where_one_may_be(may: bool) -> None:
    code = (
        "import sys\n"
        "from pipeline.execute import engine\n"
        f"engine.may_have_gpu = lambda: {may}\n"
        "print(engine.resolve_device('auto') in ('cpu', 'cuda'), 'torch' in sys.modules)"
    )
    assert said(code) == f"True {may}"


@pytest.mark.parametrize("engine", ["serial", "dask"])
def test_a_run_without_tensors_does_without_torch(tmp_path: Path, engine: str) -> None:
    (tmp_path / "media").mkdir()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 16_000)
    soundfile.write(tmp_path / "media" / "a.wav", noise, 16_000)
    (tmp_path / "loudest.py").write_text(STEPS)
    (tmp_path / "data_catalog.yaml").write_text(CATALOG)
    code = (
        "import sys\n"
        "from pipeline.catalog import load_catalog\n"
        "from pipeline.execute import engine\n"
        "from pipeline.run import published, run_dataset\n"
        "engine.may_have_gpu = lambda: False\n"
        f"catalog = load_catalog({str(tmp_path / 'data_catalog.yaml')!r})\n"
        f"report = run_dataset(catalog, 'sounds', engine={engine!r})\n"
        "(row,) = published(catalog, 'sounds').read('loudest')['values'].combine_chunks().flatten().to_pylist()[1:]\n"
        "print(report.computed, 'torch' in sys.modules, row)"
    )
    assert said(code) == "2 False 0.0"


COUNTS = '''
"""A step that says what it finds in the process that computes it."""
import sys
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from features.types import FeatureSequence


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Whether torch was here before the first sample, threads of torch and OpenCV, and the memory that is allowed."""

    name: ClassVar[str] = "counts"
    stream: ClassVar[str] = "audio"
    numerics: ClassVar[tuple[str, ...]] = ("torch",)
    dim: ClassVar[int] = 4

    def __call__(self, batch, device):
        there = "torch" in sys.modules
        import resource
        import cv2
        import torch
        limit = resource.getrlimit(resource.RLIMIT_DATA)[0] / 2**20
        row = np.array([[there, torch.get_num_threads(), cv2.getNumThreads(), limit]], np.float32)
        return [FeatureSequence.from_rows(row, [clip.span]) for clip in batch]
'''


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory inside the process are set on Linux")
def test_a_child_has_torch_before_its_first_sample_one_thread_a_library_and_its_limit(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    soundfile.write(tmp_path / "media" / "a.wav", np.full(16_000, 0.5), 16_000)
    (tmp_path / "counts.py").write_text(COUNTS)
    text = CATALOG.partition("      audio.mfcc")[0] + '      counts: {extractor: "counts:Counts"}\n'
    (tmp_path / "data_catalog.yaml").write_text(text.replace("workers: 1", "workers: 1, memory: 1536 MiB"))
    catalog = load_catalog(tmp_path / "data_catalog.yaml")
    assert run_dataset(catalog, "sounds", engine="dask").computed == 1
    (row,) = published(catalog, "sounds").read("counts")["values"].to_pylist()
    assert np.ravel(row).tolist() == [1.0, 1.0, 1.0, 1536.0]


LATE = '''
"""A step that says whether memory was limited when the process that computes it imported this module, and now."""
import resource
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from features.types import FeatureSequence


def limited():
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    return soft != hard


AT_IMPORT = limited()


@dataclass(frozen=True, kw_only=True)
class Late:
    """Two flags."""

    name: ClassVar[str] = "late"
    stream: ClassVar[str] = "image"
    numerics: ClassVar[tuple[str, ...]] = ()
    dim: ClassVar[int] = 2

    def __call__(self, batch, device):
        row = np.array([[AT_IMPORT, limited()]], np.float32)
        return [FeatureSequence.from_rows(row, [image.span]) for image in batch]
'''


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory inside the process are set on Linux")
def test_what_a_later_shard_imports_is_under_no_limit_and_its_samples_are(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    soundfile.write(tmp_path / "media" / "a.wav", np.full(16_000, 0.5), 16_000)
    Pillow.new("L", (8, 6)).save(tmp_path / "media" / "b.png")
    (tmp_path / "late.py").write_text(LATE)
    features = '      audio.mfcc: {}\n      late: {extractor: "late:Late"}\n    shard_samples: 1\n'
    (tmp_path / "data_catalog.yaml").write_text(CATALOG.partition("      audio.mfcc")[0] + features)
    catalog = load_catalog(tmp_path / "data_catalog.yaml")
    assert run_dataset(catalog, "sounds", engine="dask").computed == 2
    (row,) = published(catalog, "sounds").read("late")["values"].to_pylist()
    assert np.ravel(row).tolist() == [0.0, 1.0]
