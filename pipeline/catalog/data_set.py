"""A catalog that has been read: data sets that are ready to be worked on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from features.errors import CatalogError
from pipeline.catalog.align_models import Align
from pipeline.catalog.models import (
    Engine,
    Fit,
    Report,
    Schedule,
    Source,
    Splits,
)
from pipeline.catalog.problems import did_you_mean, listed
from pipeline.catalog.train_models import Train
from pipeline.chain import Chain


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """One data set, ready to be worked on: paths resolved, features built.

    ``root`` is an absolute path (symbolic links resolved) or a URL; ``excluded`` names folders below it that hold no
    samples (the store, where it lies inside).
    """

    name: str
    root: str
    source: Source
    splits: Splits
    features: dict[str, Chain]
    """By name; a feature with views has another one beside it, ``views.<name>``."""
    align: Align | None
    train: Train
    max_failed: float
    shard_samples: int | None
    fit: Fit = field(default_factory=Fit)
    report: Report = field(default_factory=Report)
    schedule: Schedule | None = None
    excluded: tuple[str, ...] = ()
    view_splits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """``views.<name>`` -> the splits whose samples get views."""


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """A whole catalog. ``store`` is an absolute path or a URL, ``metrics`` an absolute path.

    A user's own steps (``module:Class``) are importable from ``folder``; a process that unpickles them needs it on its
    path too (``importable``).
    """

    path: Path
    store: str
    engine: Engine
    datasets: dict[str, DataSet] = field(default_factory=dict)
    metrics: Path | None = None
    on_failure: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder that the catalog lies in."""
        return self.path.parent

    def dataset(self, name: str) -> DataSet:
        """Return the data set called ``name``. Raises ``CatalogError``."""
        found = self.datasets.get(name)
        if found is None:
            near = did_you_mean(name, self.datasets)
            message = f"{self.path.name}: no data set {name!r}; allowed: {listed(self.datasets)}{near}"
            raise CatalogError([message])
        return found
