"""Catalogs that tests write, and the steps of their own that these name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from features.errors import CatalogError
from pipeline.catalog import load_catalog


@dataclass(frozen=True, kw_only=True)
class Loudness:
    """An extractor for these tests."""

    name: ClassVar[str] = "loudness"
    stream: ClassVar[str] = "audio"
    numerics: ClassVar[tuple[str, ...]] = ("numpy",)
    frame: float = 0.1
    bands: tuple[int, ...] = (1, 2)
    mode: Literal["rms", "peak"] = "rms"
    limit: int | None = None
    copy: bool = False
    _state: object = None

    def __post_init__(self) -> None:
        if self.frame <= 0:
            raise ValueError(f"frame: got {self.frame}, allowed: > 0")
        if self.limit == 13:
            raise ValueError("unlucky")

    @property
    def dim(self) -> int:
        return 1

    def __call__(self, batch: Any, device: Any) -> list[Any]:
        return []


@dataclass(frozen=True, kw_only=True)
class Blur:
    """A prepare step with an option that has no default."""

    name: ClassVar[str] = "blur"
    stream: ClassVar[str] = "image"
    numerics: ClassVar[tuple[str, ...]] = ()
    radius: int

    def prepare(self, batch: Any, device: Any) -> list[Any]:
        return list(batch)


@dataclass(frozen=True)
class NoStep:
    """A frozen dataclass that is no step."""


@dataclass(frozen=True)
class Smell:
    """A step of a stream that there is not."""

    name: ClassVar[str] = "smell"
    stream: ClassVar[str] = "smell"
    numerics: ClassVar[tuple[str, ...]] = ()
    dim: ClassVar[int] = 1

    def __call__(self, batch: Any, device: Any) -> list[Any]:
        return []


class Thawed:
    """Not a dataclass."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """An image extractor for these tests."""

    name: ClassVar[str] = "shape"
    stream: ClassVar[str] = "image"
    numerics: ClassVar[tuple[str, ...]] = ()

    @property
    def dim(self) -> int:
        return 2

    def __call__(self, batch: Any, device: Any) -> list[Any]:
        return []


Write = Callable[[str], Path]
TEXT = Path(__file__).read_text(encoding="utf-8")
"""This module, to be written beside a catalog."""

FEATURES = "    features: {voice: {extractor: 'made_catalog:Loudness'}}\n"
HEAD = "version: 1\nstore: ./store\n"
FOLDER = "    root: ./media\n    source: {kind: folder}\n"
MINIMAL = HEAD + "datasets:\n  clips:\n" + FOLDER + FEATURES


def problems(path: Path) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        load_catalog(path)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def with_feature(feature: str) -> str:
    """A catalog whose only feature ``voice`` is this flow mapping; it stands on line 7."""
    return HEAD + "datasets:\n  clips:\n" + FOLDER + "    features:\n      voice: " + feature + "\n"


def with_data_set(text: str) -> str:
    """A catalog whose data set ``clips`` has these lines more; the first of them is line 8."""
    return MINIMAL + "".join(f"    {line}\n" for line in text.splitlines())


VOICE = "data_catalog.yaml:8: datasets.clips.features.voice"
