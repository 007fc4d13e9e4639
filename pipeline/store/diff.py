"""What differs between two snapshots: for every feature, rows added, removed, changed, and how far values moved.

Files never change, so what both snapshots name is equal and is not read. Of the others the key columns are joined by
sample; values are read for changed rows only, a bounded number of rows at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.content import fixed_binary
from pipeline.keys import digest, explain
from pipeline.store.shard import sequence_at
from pipeline.store.shard_file import ShardFile
from pipeline.store.snapshot import Snapshot

_KEYS = ("sample_id", "view", "split", "label", "content", "recipe")
_SEQUENCE = ("start_ns", "end_ns", "valid", "values")
_BLOCK_BYTES = 64 << 20
"""Means of so many bytes are held at once, whatever the number of changed rows."""

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Shift:
    """How far the values of changed rows moved: 1 - cosine of their time-means over valid rows, 0 (none) to 2.

    ``rows`` could be compared: rows without a valid value, or with a mean of zero, have no direction. ``sample_id`` is
    the sample that moved most.
    """

    mean: float
    max: float
    sample_id: str
    rows: int


@dataclass(frozen=True, kw_only=True)
class FeatureDiff:
    """The rows of one feature in two snapshots: each is added, removed, changed, relabelled or unchanged.

    Changed: its content or recipe differs (``content`` and ``recipe`` count these, a row may count in both);
    ``same_bytes`` of them hold the same times, validity and values all the same. Relabelled: only split or label
    differ. ``recipes``: what differs between the recipes, in words, with the number of rows. ``shift`` is ``None``
    where nothing could be compared, as when the width changed. ``samples``: the ids of all but unchanged rows.
    """

    added: int
    removed: int
    changed: int
    relabelled: int
    unchanged: int
    content: int
    recipe: int
    same_bytes: int
    widths: tuple[int | None, int | None]
    recipes: Mapping[str, int]
    shift: Shift | None
    samples: Mapping[str, list[str]]


@dataclass(frozen=True, kw_only=True)
class Diff:
    """What differs between the snapshots ``before`` and ``after``.

    ``samples``: how many samples were added, removed, relabelled (split or label) or are unchanged. ``entered`` and
    ``left``: (sample, feature, reason) that are in quarantine in one of them only.
    """

    before: int
    after: int
    samples: Mapping[str, int]
    features: Mapping[str, FeatureDiff]
    entered: tuple[tuple[str, str, str], ...]
    left: tuple[tuple[str, str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """The comparison as a JSON document."""
        return asdict(self)


def diff(before: Snapshot, after: Snapshot) -> Diff:
    """Compare two snapshots of one data set, feature by feature."""
    names = sorted({file.feature for snapshot in (before, after) for file in snapshot.files})
    entered, left = _quarantine(before, after)
    return Diff(
        before=before.version,
        after=after.version,
        samples=_samples(before.samples, after.samples),
        features={name: _feature(before, after, name) for name in names},
        entered=entered,
        left=left,
    )


def _samples(before: pa.Table, after: pa.Table) -> dict[str, int]:
    at = _positions(after["sample_id"], before["sample_id"])
    both = np.flatnonzero(at >= 0)
    moved = int(_relabelled(before, after, at[both], both).sum())
    return {
        "added": len(after) - len(both),
        "removed": len(before) - len(both),
        "relabelled": moved,
        "unchanged": len(both) - moved,
    }


def _quarantine(before: Snapshot, after: Snapshot) -> tuple[tuple[tuple[str, str, str], ...], ...]:
    found: list[dict[tuple[str, str], str]] = []
    for snapshot in (before, after):
        rows = snapshot.quarantine.select(["sample_id", "feature", "reason"]).to_pylist()
        found.append({(row["sample_id"], row["feature"]): row["reason"] for row in rows})
    old, new = found
    return tuple(
        tuple((*key, reason) for key, reason in sorted(here.items()) if key not in there)
        for here, there in ((new, old), (old, new))
    )


def _feature(before: Snapshot, after: Snapshot, name: str) -> FeatureDiff:
    same = set(before.files_of(name)) & set(after.files_of(name))
    old, new = (_Rows(snapshot, name, same) for snapshot in (before, after))
    at = _positions(new.key, old.key)
    both = np.flatnonzero(at >= 0)
    at = at[both]
    content = (fixed_binary(new.table["content"])[both] != fixed_binary(old.table["content"])[at]).any(axis=1)
    recipe = (fixed_binary(new.table["recipe"])[both] != fixed_binary(old.table["recipe"])[at]).any(axis=1)
    changed = content | recipe
    moved = ~changed & _relabelled(old.table, new.table, at, both)
    pairs = _Pairs(old, at[changed], new, both[changed])
    shift, same_bytes = pairs.compare()
    gone = np.setdiff1d(np.arange(len(old.table)), at)
    fresh = np.setdiff1d(np.arange(len(new.table)), both)
    return FeatureDiff(
        added=len(fresh),
        removed=len(gone),
        changed=int(changed.sum()),
        relabelled=int(moved.sum()),
        unchanged=sum(file.rows for file in same) + int((~changed & ~moved).sum()),
        content=int(content.sum()),
        recipe=int(recipe.sum()),
        same_bytes=same_bytes,
        widths=(old.width, new.width),
        recipes=_recipes(old, at[recipe], new, both[recipe]),
        shift=shift,
        samples={
            "added": new.ids(fresh),
            "removed": old.ids(gone),
            "changed": new.ids(both[changed]),
            "relabelled": new.ids(both[moved]),
        },
    )


class _Rows:
    """The key columns of one feature in one snapshot, but for the files that the other one has too."""

    def __init__(self, snapshot: Snapshot, name: str, skip: set[ShardFile]) -> None:
        self.store, self.feature = snapshot.store, name
        self.recipes: Mapping[str, Any] = snapshot.info["recipes"].get(name, {})
        self.files = [file for file in snapshot.files_of(name) if file not in skip]
        tables = self.store.read_files([file.path for file in self.files], _KEYS)
        empty = pa.table({column: pa.array([], kind) for column, kind in _EMPTY.items()})
        self.table: pa.Table = pa.concat_tables([table.replace_schema_metadata() for table in tables] or [empty])
        counts = [len(table) for table in tables]
        self.file: Indices = np.repeat(np.arange(len(tables)), counts)
        self.row: Indices = np.concatenate([np.arange(count) for count in counts] or [np.arange(0)])
        self.width = snapshot.dim(name) if snapshot.files_of(name) else None

    @property
    def key(self) -> pa.ChunkedArray:
        """What a row is told apart by: sample and view."""
        return pc.binary_join_element_wise(self.table["sample_id"], pc.cast(self.table["view"], pa.string()), "\0")

    def ids(self, rows: Indices) -> list[str]:
        """The samples of these rows."""
        found: list[str] = self.table["sample_id"].take(pa.array(rows)).to_pylist()
        return found

    def means(self, rows: Indices) -> tuple[npt.NDArray[np.float64], list[bytes]]:
        """Time-mean over valid rows (NaN where there is none) and a digest of all numbers, for each of ``rows``."""
        width = self.width or 0
        means = np.full((len(rows), width), np.nan)
        digests = [b""] * len(rows)
        for number in np.unique(self.file[rows]):
            table = self.store.read_file(self.files[number].path, _SEQUENCE)
            for index in np.flatnonzero(self.file[rows] == number):
                sequence = sequence_at(table, int(self.row[rows[index]]), width)
                if sequence.valid.any():
                    means[index] = sequence.values[sequence.valid].mean(axis=0, dtype=np.float64)
                arrays = (sequence.start_ns, sequence.end_ns, sequence.valid, sequence.values)
                digests[index] = digest(*(array.tobytes() for array in arrays))
        return means, digests


_EMPTY: Mapping[str, pa.DataType] = {
    "sample_id": pa.string(),
    "view": pa.int16(),
    "split": pa.string(),
    "label": pa.string(),
    "content": pa.binary(16),
    "recipe": pa.binary(16),
}


class _Pairs:
    """Rows that are in both snapshots with another content or recipe."""

    def __init__(self, old: _Rows, at_old: Indices, new: _Rows, at_new: Indices) -> None:
        self._old, self._at_old, self._new, self._at_new = old, at_old, new, at_new

    def compare(self) -> tuple[Shift | None, int]:
        """How far the values moved, and how many did not move by a bit."""
        width = self._new.width
        if width is None or self._old.width != width or not len(self._at_new):
            return None, 0
        step = max(1, _BLOCK_BYTES // (8 * max(1, width)))
        shifts = np.full(len(self._at_new), np.nan)
        same = 0
        for begin in range(0, len(shifts), step):
            part = slice(begin, begin + step)
            old, old_digests = self._old.means(self._at_old[part])
            new, new_digests = self._new.means(self._at_new[part])
            equal = np.array([before == after for before, after in zip(old_digests, new_digests, strict=True)])
            moved = cosine_shift(old, new)
            moved[equal & np.isfinite(moved)] = 0
            shifts[part] = moved
            same += int(equal.sum())
        found = np.flatnonzero(np.isfinite(shifts))
        if not len(found):
            return None, same
        most = found[np.argmax(shifts[found])]
        (sample_id,) = self._new.ids(self._at_new[[most]])
        return Shift(
            mean=float(shifts[found].mean()), max=float(shifts[most]), sample_id=sample_id, rows=len(found)
        ), same


def cosine_shift(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 - cosine of each pair of rows ``[N, D]``, in [0, 2]; NaN where a row is zero or NaN."""
    dots = np.einsum("nd,nd->n", before, after)
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosine = np.divide(dots, norms, out=np.full(len(dots), np.nan), where=norms > 0)
    shifts: npt.NDArray[np.float64] = np.clip(1 - cosine, 0, 2)
    return shifts


def _recipes(old: _Rows, at_old: Indices, new: _Rows, at_new: Indices) -> dict[str, int]:
    """What differs between the recipes of these pairs of rows, in words, with the number of rows."""
    both = np.concatenate(
        [fixed_binary(old.table["recipe"])[at_old], fixed_binary(new.table["recipe"])[at_new]], axis=1
    )
    kinds, numbers = np.unique(both, axis=0, return_counts=True)
    counts: Counter[str] = Counter()
    for kind, number in zip(kinds, numbers.tolist(), strict=True):
        before, after = (old.recipes.get(kind[:16].tobytes().hex()), new.recipes.get(kind[16:].tobytes().hex()))
        reason = "made by an unknown recipe" if before is None or after is None else explain(before, after)
        counts[reason] += number
    return dict(counts.most_common())


def _positions(values: pa.ChunkedArray, among: pa.ChunkedArray) -> Indices:
    """Index of each value in ``among``; -1 where it is not there."""
    found = pc.index_in(values.combine_chunks(), value_set=among.combine_chunks())
    positions: Indices = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return positions


def _relabelled(before: pa.Table, after: pa.Table, at: Indices, rows: Indices) -> npt.NDArray[np.bool_]:
    """Which of the pairs (``before[at]``, ``after[rows]``) differ in split or label."""
    different = np.zeros(len(rows), dtype=bool)
    for column in ("split", "label"):
        old, new = before[column].take(pa.array(at)), after[column].take(pa.array(rows))
        equal = pc.fill_null(pc.equal(old, new), False).to_numpy()
        neither = pc.and_(pc.is_null(old), pc.is_null(new)).to_numpy()
        different |= ~(equal | neither)
    return different
