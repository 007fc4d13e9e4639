"""How the numbers of a feature are distributed, from a bounded number of its shards; now and in the snapshot before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.random import generator
from pipeline.store import ALIGNED_PREFIX, ShardFile, Snapshot

SHARDS = 6
"""Shards of a feature that are looked at, drawn at random but always the same ones."""
FEATURE_BYTES = 24 << 20
"""What is read of one feature in one snapshot, at most (a row group more at the end)."""
BINS = 24
MOVED = 0.5
"""A mean that moves by more than so many standard deviations is pointed out."""
_NORMS = 20_000
_COLUMNS = ("length", "valid", "values")

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class Distribution:
    """The rows of one feature, as far as they were looked at.

    ``samples`` of ``samples_in_all`` were read, with ``steps`` time steps of width D, ``valid`` of them valid.
    ``lengths`` int64 ``[samples]``. ``norms``: Euclidean norms of (at most 20,000) valid steps. ``mean``, ``spread``
    float64 ``[D]`` over valid steps; ``constant``: columns that hold one and the same number in at least two of them.
    """

    samples: int
    samples_in_all: int
    steps: int
    valid: int
    lengths: npt.NDArray[np.int64]
    norms: Float64
    mean: Float64
    spread: Float64
    constant: npt.NDArray[np.int64]
    coverage: float | None
    """Mean share of an aligned interval that the data cover; ``None`` for rows that are not aligned."""

    @property
    def norm(self) -> tuple[float, float]:
        """Mean and standard deviation of the norms."""
        return (float(self.norms.mean()), float(self.norms.std())) if len(self.norms) else (0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Drift:
    """How far a feature moved since the snapshot before, in standard deviations of then.

    ``norm``: shift of the mean norm. ``column`` is the column whose mean moved most, by ``shift``; columns that were
    constant then are left out. ``None`` where there was no deviation to measure by.
    """

    norm: float | None
    column: int | None
    shift: float | None

    @property
    def moved(self) -> bool:
        """Whether it is worth a look."""
        return any(abs(found or 0.0) > MOVED for found in (self.norm, self.shift))


def chosen_shards(snapshot: Snapshot, feature: str) -> frozenset[int]:
    """The shards of a feature that are looked at: the same ones for features that have the same shards."""
    shards = np.array(sorted(file.shard for file in snapshot.files_of(feature)), dtype=np.int64)
    if len(shards) > SHARDS:
        shards = generator(0, "report").choice(shards, SHARDS, replace=False)
    return frozenset(shards.tolist())


class Reader:
    """Reads parts of shard files once, for as many snapshots as name them: files never change."""

    def __init__(self) -> None:
        self._parts: dict[str, _Part | None] = {}

    def distribution(self, snapshot: Snapshot, feature: str, shards: frozenset[int]) -> Distribution | None:
        """The distribution of a feature over these shards of a snapshot; ``None`` where they hold no row."""
        files = snapshot.files_of(feature)
        width = snapshot.dim(feature)
        if width is None:
            return None
        parts, left = [], FEATURE_BYTES
        for file in (file for file in files if file.shard in shards):
            if left <= 0:
                break
            if file.path not in self._parts:
                self._parts[file.path] = _read(snapshot, file, width, left)
            part = self._parts[file.path]
            if part is not None:
                parts.append(part)
                left -= part.bytes
        return _joined(parts, sum(file.rows for file in files)) if parts else None


@dataclass(frozen=True, eq=False)
class _Part:
    lengths: npt.NDArray[np.int64]
    steps: int
    valid: int
    total: Float64
    squares: Float64
    low: Float64
    high: Float64
    norms: Float64
    coverage: tuple[float, int]
    bytes: int


def _read(snapshot: Snapshot, file: ShardFile, width: int, left: int) -> _Part | None:
    aligned = file.feature.startswith(ALIGNED_PREFIX)
    with snapshot.store.fs.open(snapshot.store.path(file.path), "rb") as stream, pq.ParquetFile(stream) as opened:
        parts = []
        for group in range(opened.num_row_groups):
            if left <= 0:
                break
            columns = [*_COLUMNS, "coverage"] if aligned else list(_COLUMNS)
            table = opened.read_row_group(group, columns=columns, use_threads=False)
            parts.append(_measured(table, width))
            left -= table.nbytes
    return _added(parts) if parts else None


def _measured(table: Any, width: int) -> _Part:
    def flat(name: str) -> npt.NDArray[Any]:
        return np.asarray(pc.list_flatten(table[name]).to_numpy())

    values = flat("values").reshape(-1, width)
    valid = flat("valid").astype(bool)
    rows = values[valid].astype(np.float64)
    covered = flat("coverage") if "coverage" in table.column_names else np.zeros(0, dtype=np.float32)
    return _Part(
        lengths=table["length"].to_numpy().astype(np.int64),
        steps=len(values),
        valid=len(rows),
        total=rows.sum(axis=0),
        squares=np.square(rows).sum(axis=0),
        low=rows.min(axis=0, initial=np.inf),
        high=rows.max(axis=0, initial=-np.inf),
        norms=np.linalg.norm(rows, axis=1)[:_NORMS],
        coverage=(float(covered.sum()), len(covered)),
        bytes=table.nbytes,
    )


def _added(parts: Iterable[_Part]) -> _Part:
    found = list(parts)
    return _Part(
        lengths=np.concatenate([part.lengths for part in found]),
        steps=sum(part.steps for part in found),
        valid=sum(part.valid for part in found),
        total=np.sum([part.total for part in found], axis=0),
        squares=np.sum([part.squares for part in found], axis=0),
        low=np.min([part.low for part in found], axis=0),
        high=np.max([part.high for part in found], axis=0),
        norms=np.concatenate([part.norms for part in found])[:_NORMS],
        coverage=(sum(part.coverage[0] for part in found), sum(part.coverage[1] for part in found)),
        bytes=sum(part.bytes for part in found),
    )


def _joined(parts: list[_Part], rows: int) -> Distribution:
    part = _added(parts)
    mean = part.total / max(1, part.valid)
    spread = np.sqrt(np.maximum(part.squares / max(1, part.valid) - mean**2, 0))
    constant = np.flatnonzero(part.low == part.high) if part.valid > 1 else np.zeros(0, dtype=np.int64)
    spread[constant] = 0
    total, steps = part.coverage
    return Distribution(
        samples=len(part.lengths),
        samples_in_all=rows,
        steps=part.steps,
        valid=part.valid,
        lengths=part.lengths,
        norms=part.norms,
        mean=mean,
        spread=spread,
        constant=constant,
        coverage=total / steps if steps else None,
    )


def drift(now: Distribution, before: Distribution) -> Drift | None:
    """How far the numbers moved; ``None`` where the widths differ or nothing was valid."""
    if len(now.mean) != len(before.mean) or not now.valid or not before.valid:
        return None
    (mean, _), (mean_before, spread_before) = now.norm, before.norm
    measurable = np.flatnonzero(before.spread > 0)
    shifts = (now.mean[measurable] - before.mean[measurable]) / before.spread[measurable]
    most = int(np.argmax(np.abs(shifts))) if len(shifts) else None
    return Drift(
        norm=(mean - mean_before) / spread_before if spread_before > 0 else None,
        column=None if most is None else int(measurable[most]),
        shift=None if most is None else float(shifts[most]),
    )


def binned(now: Float64, before: Float64 | None) -> tuple[Float64, Float64 | None, float, float]:
    """Shares of both in the same ``BINS`` equal bins, and where the first begins and the last ends."""
    both = now if before is None else np.concatenate([now, before])
    if not len(both):
        return np.zeros(BINS), None, 0.0, 0.0
    low, high = (float(edge) for edge in np.percentile(both, [0.5, 99.5]))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    found = [_shares(np.clip(values, low, high), low, high) for values in (now, before) if values is not None]
    return found[0], found[1] if before is not None else None, low, high


def _shares(values: Float64, low: float, high: float) -> Float64:
    counts, _ = np.histogram(values, bins=BINS, range=(low, high))
    return counts / max(1, len(values))


def features_of(snapshot: Snapshot, *, aligned: bool) -> Iterator[str]:
    """Stored names of features, aligned ones or the others."""
    for name in snapshot.aligned if aligned else snapshot.features:
        yield ALIGNED_PREFIX + name if aligned else name
