"""The documents say what is so: the example is run, the tables agree with pyproject.toml."""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from features.types import AudioClip
from pipeline.catalog import load_catalog

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"


def block(document: str, title: str) -> str:
    (found,) = re.findall(rf"^```\w+ title={re.escape(title)}\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    document = (DOCS / "adding-an-extractor.md").read_text()
    for title in ("loudness.py", "data_catalog.yaml"):
        (tmp_path / title).write_text(block(document, title))
    (tmp_path / "media").mkdir()
    importlib.invalidate_caches()
    yield tmp_path
    sys.modules.pop("loudness", None)


@pytest.fixture
def loudness(example: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(example))
    return importlib.import_module("loudness")


def test_the_extractor_is_short(example: Path) -> None:
    code = [line for line in (example / "loudness.py").read_text().splitlines() if line.strip()]
    assert len(code) <= 25


def test_the_example_catalog_loads_with_the_users_extractor(example: Path) -> None:
    (chain,) = load_catalog(example / "data_catalog.yaml").dataset("clips").features.values()
    assert (chain.name, chain.stream, chain.extractor.dim) == ("loudness", "audio", 1)
    assert repr(chain.extractor) == "Loudness(window=0.05)"


def test_the_example_computes_what_it_says(loudness: ModuleType) -> None:

    loud = np.full(1_000, 0.5, np.float32)
    clip = AudioClip(samples=np.concatenate([loud, loud / 10, loud[:500]])[None], sample_rate=10_000, start_ns=7)
    empty = AudioClip(samples=np.zeros((2, 0), np.float32), sample_rate=10_000)
    sequence, nothing = loudness.Loudness()([clip, empty], "cpu")
    np.testing.assert_allclose(sequence.values[:, 0], 20 * np.log10([0.5, 0.05, 0.5]), atol=1e-4)
    assert sequence.start_ns.tolist() == [7, 100_000_007, 200_000_007]
    assert sequence.end_ns.tolist() == [100_000_007, 200_000_007, 250_000_007]
    assert (len(nothing), nothing.dim) == (0, 1)


def names(requirements: list[str]) -> list[str]:
    return [re.split(r"[^A-Za-z0-9_-]", requirement)[0] for requirement in requirements]


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    document = (DOCS / "dependencies.md").read_text()
    plain, extras, dev, peers = re.split(r"^## .*$", document, flags=re.MULTILINE)
    assert re.findall(r"^\| `(\S+)` \| \S", plain, re.MULTILINE) == names(project["project"]["dependencies"])
    assert re.findall(r"^\| `(\S+)` \| `(\S+)` \| \S", extras, re.MULTILINE) == [
        (extra, name) for extra, wanted in project["project"]["optional-dependencies"].items() for name in names(wanted)
    ]
    assert re.findall(r"^\| `(\S+)` \| \S", dev, re.MULTILINE) == names(project["dependency-groups"]["dev"])
    assert re.findall(r"^\| `(\S+)` \| \S", peers, re.MULTILINE) == names(project["dependency-groups"]["peers"])


def test_every_file_that_a_document_names_exists() -> None:
    for name in ("adding-an-extractor.md", "architecture.md"):
        named = re.findall(
            r"`((?:features|pipeline|flows|tests|docs)/[\w/.-]+?\.(?:py|md))`", (DOCS / name).read_text()
        )
        assert named
        assert [path for path in named if not (ROOT / path).is_file()] == []


def test_the_architecture_lists_every_module_of_the_pipeline() -> None:
    listing = (DOCS / "architecture.md").read_text().partition("    pipeline/ ")[2].partition("    flows/ ")[0]
    listed = [name for line in listing.splitlines()[1:] for name in re.split(r" {2,}", line.strip())[0].split()]
    there = [
        path.name + "/" if path.is_dir() else path.stem
        for path in (ROOT / "pipeline").iterdir()
        if (path.is_dir() and (path / "__init__.py").is_file()) or (path.suffix == ".py" and path.stem != "__init__")
    ]
    assert sorted(listed) == sorted(there)


def test_the_licence_is_the_one_that_the_project_declares() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License\n                           Version 2.0, January 2004" in text
    assert "APPENDIX: How to apply the Apache License to your work." in text
