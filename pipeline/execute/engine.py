"""Engines: the same function over many pieces of work, serially or on Dask, results streamed as they complete."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from features.errors import GristmillError
from pipeline.catalog.steps import importable


class Piece(Protocol):
    """A piece of work: one shard, with its samples."""

    @property
    def shard(self) -> int:
        """The shard's number."""
        ...

    @property
    def roster(self) -> Mapping[str, Any]:
        """The samples of the shard, by id."""
        ...


Work = TypeVar("Work", bound=Piece)
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs work. ``map`` yields results in order of completion; at most a small window is in flight."""

    def map(self, function: Callable[[Work], Result], work: Iterable[Work]) -> Iterator[Result]:
        """Apply ``function`` to each piece of ``work``."""
        ...


class Serial:
    """Everything in this process, one after the other."""

    def map(self, function: Callable[[Work], Result], work: Iterable[Work]) -> Iterator[Result]:
        """Apply ``function`` to each piece of ``work``, in order."""
        yield from map(function, work)


def resolve_device(device: Literal["auto", "cpu", "cuda"]) -> str:
    """Decide the device once for a run. Raises ``GristmillError`` when CUDA is asked for and missing."""
    if device == "cpu":
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise GristmillError(
            "engine.device: got 'cuda', but torch finds no CUDA device; allowed here: auto, cpu; "
            "cure: install a driver and a CUDA build of torch, or set device: auto"
        )
    return "cpu"


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_engine(
    kind: Literal["serial", "dask"], workers: int | Literal["auto"], folder: Path
) -> AbstractContextManager[Engine]:
    """Open an engine; closing it stops its workers. ``folder`` holds the user's own steps, where there are any."""
    if kind == "serial":
        return _serial(folder)
    from pipeline.execute.cluster import local_cluster

    return local_cluster(cores() if workers == "auto" else workers, folder)


@contextmanager
def _serial(folder: Path) -> Iterator[Engine]:
    with importable(folder):
        yield Serial()
