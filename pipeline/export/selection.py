"""Which samples and features are exported: a pinned snapshot, cut by split, and an account of what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import StoreError
from features.types import FeatureSequence
from pipeline.loader import UNLABELLED, NoSamplesError, Samples, StoreReader
from pipeline.store import ALIGNED_PREFIX, VIEWS_PREFIX

READ_BYTES = 32 << 20
"""How much is read at a time: what an export holds in memory, about twice over."""
_READ_SAMPLES = 1_024
_ORDER = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What of a snapshot is exported; ``None``: all.

    ``features``: names of features, or of their rows on the common timeline where ``aligned``. ``splits``, ``labels``:
    only samples with one of these. ``complete``: only samples that have every one of the features.
    """

    features: tuple[str, ...] | None = None
    aligned: bool = False
    splits: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    complete: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Record:
    """One sample. ``label``: its place in the classes, ``None`` where it has none. A feature it lacks is ``None``."""

    sample_id: str
    label: int | None
    features: dict[str, FeatureSequence | None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Part:
    """The samples of one split, in order of (shard, sample id). ``table``: their rows of the table of samples.

    ``samples`` reads their features; ``None`` where no feature was asked for. ``left_out``: reason -> samples.
    """

    split: str
    table: pa.Table
    samples: Samples | None
    left_out: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def read(self) -> Samples:
        """``samples``, which must be there."""
        if self.samples is None:
            raise ValueError(f"{self.split}: no feature was asked for")
        return self.samples

    def cuts(self, most: int) -> list[tuple[int, int]]:
        """Cut the samples into pieces of about ``most`` bytes of values: where each begins and ends."""
        size = np.maximum(self.read.sizes, 1)
        piece = (np.cumsum(size) - size) // most
        begins = np.flatnonzero(np.diff(piece, prepend=-1))
        return list(zip(begins.tolist(), [*begins[1:].tolist(), len(size)], strict=True))

    def chunks(self, begin: int = 0, end: int | None = None) -> Iterator[list[Record]]:
        """Read samples ``begin`` to ``end``, some at a time."""
        end = len(self) if end is None else end
        size = self.read.sizes
        while begin < end:
            upto = np.searchsorted(np.cumsum(size[begin : begin + _READ_SAMPLES]), READ_BYTES)
            stop = min(end, begin + max(1, int(upto)), begin + _READ_SAMPLES)
            yield self._records(np.arange(begin, stop))
            begin = stop

    def _records(self, at: Any) -> list[Record]:
        made = []
        for sample in self.read.__getitems__(at):
            label = int(sample["label"])
            made.append(
                Record(
                    sample_id=sample["sample_id"],
                    label=None if label == UNLABELLED else label,
                    features={
                        name: FeatureSequence(
                            values=values.numpy(),
                            start_ns=sample["start_ns"][name].numpy(),
                            end_ns=sample["end_ns"][name].numpy(),
                            valid=sample["valid"][name].numpy(),
                        )
                        if sample["present"][name]
                        else None
                        for name, values in sample["values"].items()
                    },
                )
            )
        return made


@dataclass(frozen=True, eq=False, kw_only=True)
class Selection:
    """What is exported. ``features`` name -> width D; ``not_asked``: why other samples of the snapshot are not."""

    reader: StoreReader
    choice: Choice
    features: dict[str, int]
    parts: tuple[Part, ...]
    not_asked: Counter[str]

    @property
    def total(self) -> int:
        """Samples of the snapshot."""
        return len(self.reader.table)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of what is not exported."""
        snapshot = self.reader.snapshot
        counts = {name: sum(file.rows for file in snapshot.files_of(VIEWS_PREFIX + name)) for name in self.features}
        return tuple(f"{name}: {count:,} augmented views are not exported" for name, count in counts.items() if count)

    def lengths_are_one(self, name: str) -> bool:
        """Whether a feature is one row for every sample that has it: a vector."""
        found = [part.read.lengths(name) for part in self.parts if len(part)]
        return all(bool((lengths[lengths >= 0] == 1).all()) for lengths in found)


def select(reader: StoreReader, choice: Choice, *, features: bool = True) -> Selection:
    """Choose what is exported. ``features`` false: the samples alone, whatever rows they have.

    Raises ``StoreError`` for features, splits or labels that are not there, or when nothing is left to export.
    """
    known = {value for value in pc.unique(reader.table["split"]).to_pylist() if value is not None}
    splits = choice.splits or (*(name for name in _ORDER if name in known), *sorted(known - set(_ORDER)))
    reader.check_values("split", splits)
    if choice.labels is not None:
        reader.check_values("label", choice.labels)
    names = reader.names(choice.features, aligned=choice.aligned) if features else []
    not_asked: Counter[str] = Counter()
    parts = []
    for split in splits:
        of_split = reader.table.filter(pc.equal(reader.table["split"], split))
        chosen = of_split
        if choice.labels is not None:
            chosen = of_split.filter(pc.is_in(of_split["label"], value_set=pa.array(choice.labels, pa.string())))
            not_asked["another label"] += len(of_split) - len(chosen)
        parts.append(_part(reader, choice, split, chosen, names))
    not_asked["another split"] += len(reader.table) - sum(
        len(reader.table.filter(pc.equal(reader.table["split"], split))) for split in splits
    )
    if not any(len(part) for part in parts):
        reasons = sum((part.left_out for part in parts), Counter[str]()) + not_asked
        raise StoreError(f"{reader!r}: nothing to export: {in_words(reasons)}")
    snapshot = reader.snapshot
    dims = {name: snapshot.dim(stored_name(name, aligned=choice.aligned)) or 0 for name in names}
    return Selection(reader=reader, choice=choice, features=dims, parts=tuple(parts), not_asked=+not_asked)


def _part(reader: StoreReader, choice: Choice, split: str, table: pa.Table, names: Sequence[str]) -> Part:
    if not names:
        return Part(split=split, table=table, samples=None)
    try:
        found = reader.samples(
            names, aligned=choice.aligned, split=split, labels=choice.labels, times=True, complete=False
        )
    except NoSamplesError:
        left_out = Counter({f"no row of {_any(names)}": len(table)} if len(table) else {})
        return Part(split=split, table=table.slice(0, 0), samples=None, left_out=left_out)
    left_out = Counter[str]()
    if len(table) > len(found):
        left_out[f"no row of {_any(names)}"] = len(table) - len(found)
    if choice.complete:
        present = {name: found.lengths(name) >= 0 for name in names}
        lacking = Counter(
            ", ".join(name for name in names if not present[name][i])
            for i in np.flatnonzero(~np.logical_and.reduce(list(present.values())))
        )
        left_out.update({f"no row of {what}": count for what, count in lacking.items()})
        try:
            found = reader.samples(
                names, aligned=choice.aligned, split=split, labels=choice.labels, times=True, complete=True
            )
        except NoSamplesError:
            return Part(split=split, table=table.slice(0, 0), samples=None, left_out=left_out)
    ids = pa.array(found.sample_ids, pa.string())
    at = pc.index_in(ids, value_set=table["sample_id"].combine_chunks())
    return Part(split=split, table=table.take(at), samples=found, left_out=left_out)


def _any(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"any of {', '.join(names)}"


def in_words(reasons: Mapping[str, int]) -> str:
    """``12 no label, 3 another split``."""
    return ", ".join(f"{count:,} {reason}" for reason, count in reasons.items() if count) or "no samples"


def stored_name(name: str, *, aligned: bool) -> str:
    """What the rows of a feature are called in the store."""
    return ALIGNED_PREFIX + name if aligned else name
