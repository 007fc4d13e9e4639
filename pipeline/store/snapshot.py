"""A published, immutable state of a data set, and what is read of it."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import StoreError
from pipeline.store.shard import ALIGNED_PREFIX, ROW_SCHEMA
from pipeline.store.shard_file import ShardFile

if TYPE_CHECKING:
    from pipeline.store.dataset import DatasetStore

KEYS_SCHEMA = pa.schema(
    [
        pa.field("file", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        *(ROW_SCHEMA.field(name) for name in ("shard", "sample_id", "split", "label", "content", "recipe")),
    ]
)
"""Columns of ``Snapshot.keys``: what a plan compares, and the file that each row is of."""


@dataclass(frozen=True)
class Snapshot:
    """A published, immutable state of a data set."""

    store: DatasetStore
    version: int
    files: tuple[ShardFile, ...]
    info: Mapping[str, Any]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features that have rows, aligned ones left out."""
        return tuple(sorted(name for name in self._by_feature if not name.startswith(ALIGNED_PREFIX)))

    @property
    def aligned(self) -> tuple[str, ...]:
        """Names of the features that are aligned on the common timeline."""
        names = (name for name in self._by_feature if name.startswith(ALIGNED_PREFIX))
        return tuple(sorted(name[len(ALIGNED_PREFIX) :] for name in names))

    def dim(self, feature: str) -> int | None:
        """Width of the rows of a feature, or of ``aligned.<feature>``, which may differ; ``None``: unknown."""
        dims: Mapping[str, int] = self.info["dims"]
        return dims.get(feature, dims.get(feature.removeprefix(ALIGNED_PREFIX)))

    @cached_property
    def _by_feature(self) -> dict[str, tuple[ShardFile, ...]]:
        found: dict[str, list[ShardFile]] = {}
        for file in self.files:
            found.setdefault(file.feature, []).append(file)
        return {name: tuple(sorted(files, key=lambda file: file.shard)) for name, files in found.items()}

    def files_of(self, feature: str) -> tuple[ShardFile, ...]:
        """The files of one feature, by shard."""
        return self._by_feature.get(feature, ())

    def read(self, feature: str, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of a feature in order of (shard, sample_id), perhaps only some columns.

        Aligned rows are read as ``aligned.<feature>``. Raises ``StoreError`` for a feature without rows.
        """
        tables = self.store.read_files([file.path for file in self._files_with_rows(feature)], columns)
        return pa.concat_tables(table.replace_schema_metadata(tables[0].schema.metadata) for table in tables)

    def _files_with_rows(self, feature: str) -> tuple[ShardFile, ...]:
        files = self.files_of(feature)
        if not files:
            known = ", ".join(sorted(self._by_feature)) or "none"
            raise StoreError(f"{self.store.url}: no rows of {feature!r} in snapshot {self.version}; it has: {known}")
        return files

    def keys(self, feature: str) -> pa.Table:
        """Shard, sample, split, label, content and recipe of each sample of a feature, in no particular order.

        Files never change, so what is read of one is remembered (``_cache/keys-<feature>.parquet``): files that were
        there the last time are not opened again. Raises ``StoreError`` for a feature without rows.
        """
        paths = [file.path for file in self._files_with_rows(feature)]
        cache = f"keys-{feature}"
        known = self.store.read_cache(cache, KEYS_SCHEMA).unify_dictionaries()
        remembered = frozenset(pc.unique(known["file"]).to_pylist())
        fresh = [path for path in paths if path not in remembered]
        if not fresh and len(remembered) == len(paths):
            return known
        known = known.filter(pc.is_in(known["file"], value_set=pa.array(paths, pa.string())))
        read = self.store.read_files(fresh, KEYS_SCHEMA.names[1:])
        tables = [_with_file(path, _one_a_sample(table)) for path, table in zip(fresh, read, strict=True)]
        known = pa.concat_tables([known, *tables])
        files = pc.cast(known["file"], pa.string()).combine_chunks().dictionary_encode()
        known = known.set_column(0, KEYS_SCHEMA.field("file"), files).combine_chunks()
        self.store.write_cache(cache, known)
        return known

    def summary(self) -> dict[str, Any]:
        """What the snapshot holds, as a JSON document: features with rows, bytes and files, samples, quarantine."""
        features = {}
        for name in sorted({file.feature for file in self.files}):
            files = self.files_of(name)
            features[name] = {
                "rows": sum(file.rows for file in files),
                "dim": self.dim(name),
                "bytes": sum(file.size for file in files),
                "files": [posixpath.join(self.store.url, file.path) for file in files],
            }
        return {
            "dataset": posixpath.basename(self.store.url),
            "snapshot": self.version,
            "created": self.info["created"],
            "run_id": self.info["run_id"],
            "samples": len(self.samples),
            "quarantined": len(set(self.quarantine["sample_id"].to_pylist())),
            "features": features,
        }

    @cached_property
    def sample_shards(self) -> pa.Table:
        """``sample_id`` and ``shard`` of every sample, where the rest of ``samples`` is not needed."""
        return self.store.read_file(self.info["samples"], ["sample_id", "shard"])

    @cached_property
    def samples(self) -> pa.Table:
        """The samples of this snapshot: what was scanned, and each sample's shard."""
        return self.store.read_file(self.info["samples"])

    @cached_property
    def quarantine(self) -> pa.Table:
        """The samples that failed in this snapshot, one row for each feature they failed in."""
        return self.store.read_file(self.info["quarantine"])


def _one_a_sample(table: pa.Table) -> pa.Table:
    """The first row of each sample: its views have the same keys, and are sorted behind one another."""
    ids = table["sample_id"].combine_chunks()
    if len(ids) < 2 or pc.count_distinct(ids).as_py() == len(ids):
        return table
    first = pc.not_equal(ids[1:], ids[:-1]).to_numpy(zero_copy_only=False)
    return table.filter(pa.array(np.concatenate([[True], first])))


def _with_file(path: str, table: pa.Table) -> pa.Table:
    file = pa.DictionaryArray.from_arrays(pa.array([0] * len(table), pa.int32()), pa.array([path]))
    return pa.table([file, *table.columns], schema=KEYS_SCHEMA)
