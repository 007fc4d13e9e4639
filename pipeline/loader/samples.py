"""The samples of a snapshot as a map-style data set: ``data[i]``, ``data.batch([...])``, ``data.batches(...)``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from features.errors import StoreError
from pipeline.loader.order import draw_views
from pipeline.loader.rows import TIMES, FeatureRows

if TYPE_CHECKING:
    from pipeline.loader.batches import Batches

Layout: TypeAlias = Literal["pad", "pack"]
LAYOUTS: tuple[Layout, ...] = get_args(Layout)
UNLABELLED = -100
"""The label of a sample that has none: what ``torch.nn.functional.cross_entropy`` ignores."""


class Sample(TypedDict, total=False):
    """One sample. By feature: ``values`` float32 ``[T, D]``, ``valid`` bool ``[T]``, ``present`` bool ``[]``.

    A feature that the sample does not have is ``[0, D]`` and not present. ``label`` int64 ``[]``: place in ``classes``,
    ``UNLABELLED`` where there is none (or what ``target`` makes of it). ``view`` int64 ``[]``. ``start_ns`` and
    ``end_ns`` int64 ``[T]`` by feature, where times were asked for.
    """

    sample_id: str
    label: torch.Tensor
    view: torch.Tensor
    values: dict[str, torch.Tensor]
    valid: dict[str, torch.Tensor]
    present: dict[str, torch.Tensor]
    start_ns: dict[str, torch.Tensor]
    end_ns: dict[str, torch.Tensor]


class Batch(TypedDict, total=False):
    """``B`` samples. By feature, whatever the layout: ``present`` bool ``[B]``, ``lengths`` int64 ``[B]``.

    Padded, by feature: ``values`` float32 ``[B, L, D]``, L the longest in the batch; ``mask`` bool ``[B, L]``: true
    where a row exists and is valid. What the mask leaves out is zeros that mean nothing.
    Packed, by feature: ``values`` float32 ``[S, D]``, one sample after another; ``offsets`` int64 ``[B + 1]``;
    ``valid`` bool ``[S]``.

    ``label`` int64 ``[B]``, ``view`` int64 ``[B]``, ``sample_id`` a list. ``start_ns`` and ``end_ns`` int64, laid out
    as the values, where times were asked for. From ``Batches`` also ``repeated`` bool ``[B]`` (samples that another
    batch of this epoch has too, see ``order``), and ``epoch`` and ``position``, where the run stands after this batch.
    """

    sample_id: list[str]
    label: torch.Tensor
    view: torch.Tensor
    values: dict[str, torch.Tensor]
    mask: dict[str, torch.Tensor]
    valid: dict[str, torch.Tensor]
    offsets: dict[str, torch.Tensor]
    lengths: dict[str, torch.Tensor]
    present: dict[str, torch.Tensor]
    start_ns: dict[str, torch.Tensor]
    end_ns: dict[str, torch.Tensor]
    repeated: torch.Tensor
    epoch: int
    position: int


class Samples(Dataset[Sample]):
    """Chosen samples of a snapshot with chosen features, in order of (shard, sample id). Made by ``StoreReader``.

    May be pickled, and read by several threads or by worker processes, forked or spawned.
    """

    def __init__(
        self,
        *,
        snapshot: int,
        ids: Sequence[str],
        shard: npt.NDArray[np.int64],
        label: npt.NDArray[Any],
        classes: tuple[str, ...],
        features: Mapping[str, FeatureRows],
        rows: Mapping[str, npt.NDArray[np.int64]],
        times: bool,
    ) -> None:
        self.snapshot = snapshot
        self.classes = classes
        self.shard = shard
        self.times = times
        self._ids = np.empty(len(ids), dtype=object)
        self._ids[:] = ids
        self._label = label
        self._features = dict(features)
        self._rows = dict(rows)

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        widths = ", ".join(f"{name} x {dim}" for name, dim in self.dims.items())
        return f"Samples({len(self):,} of snapshot {self.snapshot}: {widths})"

    @property
    def dims(self) -> dict[str, int]:
        """Width D of each feature."""
        return {name: feature.index.dim for name, feature in self._features.items()}

    @property
    def sample_ids(self) -> list[str]:
        """The id of every sample, in order."""
        return list(self._ids)

    @property
    def labels(self) -> torch.Tensor:
        """The label of every sample, in order."""
        return torch.from_numpy(self._label.copy())

    @property
    def views(self) -> int:
        """The highest view that is stored of any sample; 0 where there are no augmentations."""
        return max((len(rows) - 1 for rows in self._rows.values()), default=0)

    def lengths(self, feature: str) -> npt.NDArray[np.int64]:
        """Rows T of each sample's sequence (view 0) of a feature; -1 where the sample does not have the feature."""
        rows = self._rows[feature][0]
        found: npt.NDArray[np.int64] = np.where(rows >= 0, self._features[feature].index.length[rows], -1)
        return found

    def places(self, feature: str) -> tuple[tuple[str, ...], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where the row (view 0) of each sample is stored: the feature's files, which of them, and the row in it.

        Files are paths in the data set's folder; -1 where the sample does not have the feature.
        """
        index, rows = self._features[feature].index, self._rows[feature][0]
        file = index.file[index.group].astype(np.int64)  # of each row of the index, in order of (file, row)
        begins = np.searchsorted(file, np.arange(len(index.files)))
        there = rows >= 0
        return (
            tuple(path for path, _ in index.files),
            np.where(there, file[rows], -1),
            np.where(there, rows - begins[file[rows]], -1),
        )

    @property
    def mapped(self) -> dict[str, float]:
        """For each feature the share of row groups that are mapped as they lie."""
        return {name: feature.index.mapped for name, feature in self._features.items()}

    @property
    def notices(self) -> tuple[str, ...]:
        """What is not mapped, and why: ``audio.mfcc: 3 of 120 row groups are decoded by pyarrow, not mapped: ...``."""
        return tuple(notice for feature in self._features.values() for notice in feature.index.notices)

    def __getitem__(self, index: int) -> Sample:
        place = range(len(self))[index]  # IndexError where there is none
        return self.__getitems__([place])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Sample]:
        """Several samples at once, as torch's ``DataLoader`` asks for them."""
        packed = self.batch(indices, layout="pack")
        times: list[Literal["start_ns", "end_ns"]] = ["start_ns", "end_ns"] if self.times else []
        made = []
        for i, sample_id in enumerate(packed["sample_id"]):
            rows = {name: slice(*offsets[i : i + 2].tolist()) for name, offsets in packed["offsets"].items()}
            item = Sample(
                sample_id=sample_id,
                label=packed["label"][i],
                view=packed["view"][i],
                values={name: packed["values"][name][at] for name, at in rows.items()},
                valid={name: packed["valid"][name][at] for name, at in rows.items()},
                present={name: present[i] for name, present in packed["present"].items()},
            )
            for column in times:
                item[column] = {name: packed[column][name][at] for name, at in rows.items()}
            made.append(item)
        return made

    def batch(
        self,
        indices: Sequence[int] | npt.NDArray[np.int64],
        *,
        layout: Layout = "pad",
        views: npt.NDArray[np.int16] | None = None,
    ) -> Batch:
        """Read samples together: many times as fast as one by one.

        ``views``: which view of each sample; a feature that does not have that view gives the sample itself (view 0).
        """
        if layout not in LAYOUTS:
            raise ValueError(f"layout: got {layout!r}, allowed: {', '.join(LAYOUTS)}")
        at = np.asarray(indices, dtype=np.int64)
        if len(at) and not (-len(self) <= at.min() and at.max() < len(self)):
            raise IndexError(f"samples: got indices {at.min()} to {at.max()}, allowed: 0 to {len(self) - 1}")
        return self.read(at, layout, None if views is None or not np.any(views) else np.asarray(views, dtype=np.int64))

    def read(self, at: npt.NDArray[np.int64], layout: Layout, views: npt.NDArray[np.int64] | None) -> Batch:
        """What ``batch`` does, once its arguments are checked."""
        batch = Batch(
            sample_id=self._ids[at].tolist(),
            label=torch.from_numpy(self._label[at]),
            view=torch.zeros(len(at), dtype=torch.int64) if views is None else torch.from_numpy(views),
            values={},
            lengths={},
            present={},
        )
        batch |= {"mask": {}} if layout == "pad" else {"valid": {}, "offsets": {}}
        if self.times:
            batch |= {"start_ns": {}, "end_ns": {}}
        for name, feature in self._features.items():
            self._read(batch, name, feature, self._rows_of(name, at, views), layout)
        return batch

    def _rows_of(
        self, name: str, at: npt.NDArray[np.int64], views: npt.NDArray[np.int64] | None
    ) -> npt.NDArray[np.int64]:
        rows = self._rows[name]
        found: npt.NDArray[np.int64] = rows[0, at]
        if views is not None:
            of_view = rows[np.where(views < len(rows), views, 0), at]
            found = np.where(of_view >= 0, of_view, found)
        return found

    def _read(self, batch: Batch, name: str, feature: FeatureRows, rows: npt.NDArray[np.int64], layout: Layout) -> None:
        if layout == "pad":
            padded = feature.padded(rows, times=self.times)
            values, times = padded.values, padded.times
            lengths, present = padded.lengths, padded.present
            batch["mask"][name] = torch.from_numpy(padded.mask)
        else:
            ragged = feature.ragged(rows, times=self.times)
            values, times = ragged.values, ragged.times
            lengths, present = ragged.lengths, ragged.present
            batch["valid"][name] = torch.from_numpy(ragged.valid)
            offsets = np.zeros(len(rows) + 1, dtype=np.int64)
            np.cumsum(lengths, out=offsets[1:])
            batch["offsets"][name] = torch.from_numpy(offsets)
        batch["values"][name] = torch.from_numpy(values)
        batch["lengths"][name] = torch.from_numpy(lengths)
        batch["present"][name] = torch.from_numpy(present)
        if times:
            batch["start_ns"][name] = torch.from_numpy(times["start_ns"])
            batch["end_ns"][name] = torch.from_numpy(times["end_ns"])

    def batches(self, batch_size: int, **options: Any) -> Batches:
        """Batches in an order that (seed, epoch) decides; for ``options`` see ``Batches``."""
        from pipeline.loader.batches import Batches

        return Batches(self, batch_size, **options)

    def drawn_views(self, seed: int, epoch: int) -> npt.NDArray[np.int16]:
        """The view of each sample in an epoch: 0 or one that any of its features has, each as likely."""
        return draw_views(self._available, self._id_digests, seed=seed, epoch=epoch)

    @cached_property
    def _available(self) -> npt.NDArray[np.bool_]:
        found = np.zeros((len(self), self.views), dtype=np.bool_)
        for rows in self._rows.values():
            found[:, : len(rows) - 1] |= (rows[1:] >= 0).T
        return found

    @cached_property
    def _id_digests(self) -> npt.NDArray[np.uint64]:
        raw = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in self._ids)
        return np.frombuffer(raw, dtype="<u8").astype(np.uint64)

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of values of each sample (view 0)."""
        total = np.zeros(len(self), dtype=np.int64)
        for name, feature in self._features.items():
            rows = self._rows[name][0]
            total += np.where(rows >= 0, feature.index.length[rows] * (4 * feature.index.dim), 0)
        return total

    @cached_property
    def digest(self) -> str:
        """What tells these samples, features and snapshot from others: a run is only resumed on the same."""
        state = hashlib.blake2b(digest_size=16)
        state.update(f"{self.snapshot}\n{sorted(self.dims.items())}\n".encode())
        for sample_id in self._ids:
            state.update(sample_id.encode() + b"\n")
        return state.hexdigest()


def collate(samples: Sequence[Sample], *, layout: Layout = "pad") -> Batch:
    """Put samples together as ``Samples.batch`` does, for a ``DataLoader`` over a map-style data set."""
    if not samples:
        raise StoreError("collate: got no samples, allowed: at least one")
    first = samples[0]
    batch = Batch(
        sample_id=[sample["sample_id"] for sample in samples],
        label=torch.stack([sample["label"] for sample in samples]),
        view=torch.stack([sample["view"] for sample in samples]),
        values={},
        lengths={},
        present={},
    )
    batch |= {"mask": {}} if layout == "pad" else {"valid": {}, "offsets": {}}
    times = [name for name in TIMES if name in first]
    batch |= {name: {} for name in times}  # type: ignore[typeddict-item]
    for name in first["values"]:
        lengths = torch.tensor([len(sample["valid"][name]) for sample in samples])
        batch["lengths"][name] = lengths
        batch["present"][name] = torch.stack([sample["present"][name] for sample in samples])
        columns: dict[str, list[torch.Tensor]] = {
            column: [sample[column][name] for sample in samples]  # type: ignore[literal-required]
            for column in ("values", "valid", *times)
        }
        if layout == "pad":
            joined = {key: torch.nn.utils.rnn.pad_sequence(parts, batch_first=True) for key, parts in columns.items()}
            batch["mask"][name] = joined.pop("valid")
        else:
            joined = {key: torch.cat(parts) for key, parts in columns.items()}
            batch["valid"][name] = joined.pop("valid")
            batch["offsets"][name] = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        for column, values in joined.items():
            batch[column][name] = values  # type: ignore[literal-required]
    return batch
