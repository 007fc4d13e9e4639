"""When the streams of samples begin and end, and where they disagree, for the section of alignment."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.drift import STREAMS, disagreeing, drift
from pipeline.store import Snapshot

WORST = 8
"""Samples that disagree and are named."""


@dataclass(frozen=True, kw_only=True)
class StreamClock:
    """One stream of some samples; seconds. ``offset``: the median and the largest correction, ``None``: not corrected.

    ``confidence``: the median of estimated offsets, ``None``: none was estimated.
    """

    name: str
    samples: int
    start: tuple[float, float]
    duration: tuple[float, float]
    gaps: tuple[int, float]
    offset: tuple[float, float] | None
    confidence: float | None


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """Streams, and what becomes of sound beside picture. ``differences``, ``offsets``: median and largest, seconds.

    ``worst``: the samples that disagree most (of ``disagreeing``), each with its seconds of sound and of picture.
    """

    samples: int
    tolerance: float
    streams: list[StreamClock]
    both: int
    offsets: tuple[float, float]
    differences: tuple[float, float]
    disagreeing: int
    beyond: tuple[int, float]
    worst: list[dict[str, Any]]


def clocks(snapshot: Snapshot, tolerance: float, shards: Collection[int]) -> Clocks | None:
    """Sum up the drift of the samples of ``shards``; ``None`` where no stream has times."""
    table = drift(snapshot, tolerance=tolerance, shards=shards)
    streams = [_stream(name, table) for name in STREAMS if table[f"{name}_start"].null_count < len(table)]
    if not streams:
        return None
    wrong = disagreeing(table)
    named = wrong.slice(0, WORST).select(["sample_id", "audio_duration", "video_duration", "duration_difference"])
    beyond = _numbers(table, "text_beyond")
    return Clocks(
        samples=len(table),
        tolerance=tolerance,
        streams=streams,
        both=len(table) - table["overlap"].null_count,
        offsets=_spread(_numbers(table, "start_offset")),
        differences=_spread(_numbers(table, "duration_difference")),
        disagreeing=len(wrong),
        beyond=(int(np.count_nonzero(beyond)), float(beyond.max(initial=0))),
        worst=named.to_pylist(),
    )


def _stream(name: str, table: pa.Table) -> StreamClock:
    gaps, offset, sure = (_numbers(table, f"{name}_{column}") for column in ("gaps", "offset", "confidence"))
    moved = bool(offset.any() or _numbers(table, f"{name}_drift_ppm").any())
    return StreamClock(
        name=name,
        samples=len(gaps),
        start=_spread(_numbers(table, f"{name}_start")),
        duration=_spread(_numbers(table, f"{name}_duration")),
        gaps=(int(np.count_nonzero(gaps)), float(gaps.max(initial=0))),
        offset=_spread(offset) if moved or len(sure) else None,
        confidence=float(np.median(sure)) if len(sure) else None,
    )


def _numbers(table: pa.Table, column: str) -> npt.NDArray[np.float64]:
    return np.asarray(table[column].drop_null().to_numpy(), dtype=np.float64)


def _spread(numbers: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The median, and the number that is farthest from 0."""
    if not len(numbers):
        return 0.0, 0.0
    return float(np.median(numbers)), float(numbers[np.argmax(np.abs(numbers))])
