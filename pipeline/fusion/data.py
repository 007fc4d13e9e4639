"""What the fusion trainer learns from: aligned modalities of labelled samples, padded to one length."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import StoreError
from pipeline.store.shard import table_metadata

Split: TypeAlias = Literal["train", "validation", "test"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Modality:
    """One modality of ``N`` samples: ``values`` float32 ``[N, n, D]`` and ``mask`` bool ``[N, n]``.

    The mask is true where a row exists and is valid; elsewhere the values are zeros that mean nothing.
    """

    values: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.values.dtype != np.float32 or self.values.ndim != 3:
            raise ValueError(f"values: got {self.values.dtype} {list(self.values.shape)}, allowed: float32 [N, n, D]")
        if self.mask.dtype != np.bool_ or self.mask.shape != self.values.shape[:2]:
            raise ValueError(
                f"mask: got {self.mask.dtype} {list(self.mask.shape)}, allowed: bool {list(self.values.shape[:2])}"
            )

    @property
    def dim(self) -> int:
        """Width D of a row."""
        return int(self.values.shape[2])


@dataclass(frozen=True, eq=False, kw_only=True)
class FusionData:
    """``N`` labelled samples and their modalities by name. A sample's views are samples of their own here.

    ``unlabelled`` and ``extra_views`` count the rows that were left out: samples without a label, and augmented views
    of samples that are not for training (only the sample itself is judged).
    """

    sample_ids: tuple[str, ...]
    splits: tuple[str, ...]
    labels: tuple[str, ...]
    modalities: Mapping[str, Modality]
    unlabelled: int = 0
    extra_views: int = 0

    def __post_init__(self) -> None:
        if not self.modalities:
            raise ValueError("FusionData.modalities: got none, allowed: at least one")
        total = len(self.sample_ids)
        counts = {"splits": len(self.splits), "labels": len(self.labels)}
        counts |= {f"modality {name}": len(modality.values) for name, modality in self.modalities.items()}
        for name, count in counts.items():
            if count != total:
                raise ValueError(f"FusionData: {name}: got {count} entries, allowed: one for each of {total} samples")

    @property
    def dims(self) -> dict[str, int]:
        """Width of each modality."""
        return {name: modality.dim for name, modality in self.modalities.items()}

    def rows(self, split: Split) -> npt.NDArray[np.int64]:
        """Indices of the samples of ``split``."""
        return np.flatnonzero(np.array([found == split for found in self.splits], dtype=np.bool_)).astype(np.int64)

    @classmethod
    def from_tables(cls, tables: Mapping[str, pa.Table]) -> FusionData:
        """Build the data from aligned shard tables, one a modality (``pipeline.store.shard.ALIGNED_SCHEMA``).

        Samples come in order of (sample id, view), whatever the order of the tables' rows. Raises ``StoreError`` when
        the modalities do not hold the same samples with the same times, splits and labels, or hold numbers that are
        not finite.
        """
        if not tables:
            raise StoreError("fusion: got no modality, allowed: at least one aligned feature")
        columns = {name: _Columns(name, table) for name, table in tables.items()}
        names = list(columns)
        base = columns[names[0]]
        for name in names[1:]:
            _check_same(base, columns[name])
        kept = [
            row
            for row in base.order
            if base.label[row] is not None and (base.view[row] == 0 or base.split[row] == "train")
        ]
        unlabelled = sum(label is None for label in base.label)
        keys = [base.keys[row] for row in kept]
        return cls(
            sample_ids=tuple(base.sample_id[row] for row in kept),
            splits=tuple(base.split[row] for row in kept),
            labels=tuple(base.label[row] for row in kept),
            modalities={name: found.padded(keys) for name, found in columns.items()},
            unlabelled=unlabelled,
            extra_views=len(base.keys) - unlabelled - len(kept),
        )


class _Columns:
    """The columns of one aligned table that training needs."""

    def __init__(self, name: str, table: pa.Table) -> None:
        self.name = name
        self.dim = int(table_metadata(table)["dim"])
        self.sample_id: list[str] = table["sample_id"].to_pylist()
        self.view: list[int] = table["view"].to_pylist()
        self.split: list[str] = table["split"].to_pylist()
        self.label: list[Any] = table["label"].to_pylist()
        self.keys = list(zip(self.sample_id, self.view, strict=True))
        self.order = sorted(range(len(self.keys)), key=self.keys.__getitem__)
        self.at = {key: row for row, key in enumerate(self.keys)}
        if len(self.at) < len(self.keys):
            twice = next(key for row, key in enumerate(self.keys) if self.at[key] != row)
            raise StoreError(f"fusion: {name}: {_sample(twice)} is there twice, allowed: once; cure: align again")
        self.length = table["length"].to_numpy().astype(np.int64)
        self.first = np.cumsum(self.length) - self.length
        rows = int(self.length.sum())
        self.start_ns = _flat(table, "start_ns")
        self.valid = _flat(table, "valid")
        self.flat = _flat(table, "values")
        if len(self.flat) != rows * self.dim or len(self.valid) != rows or len(self.start_ns) != rows:
            raise StoreError(
                f"fusion: {name}: got {len(self.flat)} values, {len(self.valid)} flags and {len(self.start_ns)} times, "
                f"allowed: {rows} rows of width {self.dim}; cure: align again"
            )

    def times(self, key: tuple[str, int]) -> npt.NDArray[Any]:
        """Starts of the rows of one sample."""
        row = self.at[key]
        return self.start_ns[self.first[row] : self.first[row] + self.length[row]]

    def padded(self, keys: list[tuple[str, int]]) -> Modality:
        """Lay the rows of ``keys`` out side by side."""
        target = np.full(len(self.keys), -1, dtype=np.int64)
        for place, key in enumerate(keys):
            target[self.at[key]] = place
        sample = np.repeat(target, self.length)
        position = np.arange(len(sample)) - np.repeat(self.first, self.length)
        wanted = np.flatnonzero(self.valid & (sample >= 0))
        rows = self.flat.reshape(-1, self.dim)[wanted]
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            bad = keys[sample[wanted[np.argmin(finite)]]]
            raise StoreError(
                f"fusion: {self.name}: {_sample(bad)} holds numbers that are not finite, allowed: finite numbers; "
                "cure: mask the row, or quarantine the sample"
            )
        longest = int(self.length[target >= 0].max(initial=0))
        values = np.zeros((len(keys), longest, self.dim), dtype=np.float32)
        mask = np.zeros((len(keys), longest), dtype=np.bool_)
        values[sample[wanted], position[wanted]] = rows
        mask[sample[wanted], position[wanted]] = True
        return Modality(values=values, mask=mask)


def _flat(table: pa.Table, column: str) -> npt.NDArray[Any]:
    return np.asarray(pc.list_flatten(table[column]).to_numpy())


def _sample(key: tuple[str, int]) -> str:
    return f"sample {key[0]!r}" if key[1] == 0 else f"sample {key[0]!r} view {key[1]}"


def _check_same(base: _Columns, other: _Columns) -> None:
    """Raise ``StoreError`` for the first sample, in order of id, in which two modalities differ."""
    if odd := sorted(base.at.keys() ^ other.at.keys()):
        has, lacks = (base, other) if odd[0] in base.at else (other, base)
        raise StoreError(f"fusion: {_sample(odd[0])} is in {has.name} but not in {lacks.name}; cure: align again")
    for row in base.order:
        key = base.keys[row]
        twin = other.at[key]
        got: tuple[object, object] | None = None
        if base.length[row] != other.length[twin]:
            got = (f"{base.length[row]} rows", f"{other.length[twin]}")
        elif base.split[row] != other.split[twin]:
            got = (f"split {base.split[row]!r}", repr(other.split[twin]))
        elif base.label[row] != other.label[twin]:
            got = (f"label {base.label[row]!r}", repr(other.label[twin]))
        elif not np.array_equal(base.times(key), other.times(key)):
            mine, theirs = base.times(key), other.times(key)
            odd_row = int(np.argmax(mine != theirs))
            got = (f"row {odd_row} at {mine[odd_row]} ns", f"{theirs[odd_row]} ns")
        if got is not None:
            raise StoreError(
                f"fusion: {_sample(key)} has {got[0]} in {base.name} but {got[1]} in {other.name}; "
                "allowed: the same in every modality; cure: align again"
            )
