"""Engines: the same function over many pieces of work, serially or on Dask, results streamed as they complete."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

from features.errors import GristmillError
from features.types import Device
from pipeline.execute.work import Guard
from pipeline.importing import importable
from pipeline.media.hardware import missing

if TYPE_CHECKING:  # the workers need nothing of catalogs
    from pipeline.catalog.models import Engine as Settings


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
    """Runs work. ``map`` yields results in order of completion; at most a small window is in flight.

    ``guard``: the limits under which samples are computed; ``None``: in the same process, without any.
    ``decode_threads``: how many threads of a worker decode ahead of its device. ``workers``: how many pieces are at
    work at once.
    """

    workers: int
    guard: Guard | None
    decode_threads: int

    def map(self, function: Callable[[Work], Result], work: Iterable[Work]) -> Iterator[Result]:
        """Apply ``function`` to each piece of ``work``."""
        ...


class Serial:
    """Everything in this process, one after the other."""

    workers = 1
    guard: Guard | None = None

    def __init__(self, decode_threads: int = 0) -> None:
        self.decode_threads = decode_threads

    def map(self, function: Callable[[Work], Result], work: Iterable[Work]) -> Iterator[Result]:
        """Apply ``function`` to each piece of ``work``, in order."""
        yield from map(function, work)


def resolve_device(device: Literal["auto", "cpu", "cuda"]) -> Device:
    """Decide the device once for a run. Raises ``GristmillError`` when CUDA is asked for and missing."""
    if device == "cpu" or (device == "auto" and not may_have_gpu()):
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


def may_have_gpu() -> bool:
    """Whether a driver of GPUs is there. Without one torch finds none, and to ask it takes the 4 s of importing it."""
    if Path("/dev/kfd").exists():  # AMD's, which torch calls CUDA as well
        return True
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def check_decoder(told: str | None) -> None:
    """Raise ``GristmillError`` where a GPU is to decode video and, as ``told``, cannot."""
    if told is not None:
        raise GristmillError(
            f"engine.video_decoder: got 'nvdec', but no GPU decodes video here ({told}); allowed here: software; "
            "cure: install NVIDIA's driver with its video libraries (libnvcuvid), or set video_decoder: software"
        )


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_engine(
    settings: Settings, device: Device, folder: Path, pieces: int = sys.maxsize
) -> AbstractContextManager[Engine]:
    """Open an engine; closing it stops its workers. ``folder`` holds the user's own steps, where there are any.

    ``pieces``: how many there will be at most; no more workers are started.
    """
    if settings.video_decoder == "nvdec" and settings.scheduler is None:
        check_decoder(missing())
    threads = settings.decode_threads
    if settings.kind == "serial":
        return _serial(folder, 0 if threads == "auto" else threads)
    from pipeline.execute.cluster import local_cluster, remote_cluster

    if settings.scheduler is not None:
        return remote_cluster(settings, device, folder)
    return local_cluster(settings, device, folder, pieces)


@contextmanager
def _serial(folder: Path, decode_threads: int) -> Iterator[Engine]:
    with importable(folder):
        yield Serial(decode_threads)
