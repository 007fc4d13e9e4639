"""The physical row: one Parquet file holds the rows of one feature for one shard of samples.

Values are PLAIN, uncompressed, without dictionary or statistics, so that a reader may map them as they lie; every
other column is small. Files are immutable and named by the digest of their bytes; only the store's log makes them
visible.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.types import FeatureSequence

METADATA_KEY = b"gristmill"
DIGEST_BYTES = 16
ALIGNED_PREFIX = "aligned."
"""Before a feature's name: its rows on the common timeline."""
VIEWS_PREFIX = "views."
"""Before a feature's name: its augmented views, planned and stored like a feature of their own."""


def _list(item: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", item, nullable=False))


def _field(name: str, kind: pa.DataType, note: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"description": note})


ROW_SCHEMA = pa.schema(
    [
        _field("shard", pa.int32(), "shard number; a sample is in the same shard for every feature"),
        _field("split", pa.string(), "train, validation or test, or as declared by the source"),
        _field("label", pa.string(), "the sample's label; null where it has none", nullable=True),
        _field("sample_id", pa.string(), "unique in the data set; rows are sorted by it"),
        _field("view", pa.int16(), "0: the sample itself; 1..K: seeded augmentations of it"),
        _field("content", pa.binary(DIGEST_BYTES), "digest of every byte that was read for this row"),
        _field("recipe", pa.binary(DIGEST_BYTES), "digest of steps, options, code, weights and fitted state"),
        _field("length", pa.int32(), "T: rows of the sequence"),
        _field("start_ns", _list(pa.int64()), "per row: start, ns on the medium's own clock"),
        _field("end_ns", _list(pa.int64()), "per row: end (exclusive), ns"),
        _field("valid", _list(pa.bool_()), "per row: false where the values mean nothing"),
        _field("values", _list(pa.float32()), "T x D numbers, row by row; D is `dim` in the file's metadata"),
    ]
)

ALIGNED_SCHEMA = ROW_SCHEMA.append(
    _field("coverage", _list(pa.float32()), "per row: share of the interval that the data cover, 0 to 1", nullable=True)
)

_OF_ALIGNED = {
    "recipe": "digest of timeline, policy, clocks and code; the timeline and the policy stand in the file's metadata",
    "content": "digest of the keys of every row that was aligned, and of what the timeline was made of",
    "length": "n: intervals of the sample's timeline, the same for every aligned feature",
    "start_ns": "per interval: start, ns on the corrected clock, the same for every aligned feature",
    "end_ns": "per interval: end (exclusive), ns",
    "valid": "per interval: false where no valid row of the feature was found; its values mean nothing then",
    "values": "n x D numbers, interval by interval, pooled by `policy`; D is `dim`: see the file's metadata",
    "coverage": "per interval: share of it, 0 to 1, in which the feature has a valid row",
}
"""What columns hold in files of aligned rows, where it is not what it is in the others."""


def _notes_of_aligned(schema: pa.Schema) -> pa.Schema:
    for place, field in enumerate(schema):
        if field.name in _OF_ALIGNED:
            schema = schema.set(place, field.with_metadata({"description": _OF_ALIGNED[field.name]}))
    return schema


def descriptions(schema: pa.Schema) -> dict[str, str]:
    """Column -> what it holds, as the schema of a shard file says itself (``pyarrow.parquet.read_schema``)."""
    notes = {field.name: (field.metadata or {}).get(b"description", b"") for field in schema}
    return {name: note.decode() for name, note in notes.items()}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One sample of one feature, ready to be stored. ``coverage`` float32 ``[T]`` for aligned rows only."""

    sample_id: str
    split: str
    label: str | None
    content: bytes
    recipe: bytes
    sequence: FeatureSequence
    view: int = 0
    coverage: np.ndarray[Any, np.dtype[np.float32]] | None = None


def _ragged(arrays: Sequence[np.ndarray[Any, Any]], item: pa.DataType) -> pa.Array:
    offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
    np.cumsum([array.size for array in arrays], out=offsets[1:])
    flat = np.concatenate([array.reshape(-1) for array in arrays]) if arrays else np.zeros(0, dtype=np.float32)
    if offsets[-1] >= 2**31:
        raise ValueError(f"shard: got {offsets[-1]} values, allowed: < 2**31; cure: smaller shards")
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(flat, type=item), type=_list(item))


def rows_to_table(shard: int, rows: Iterable[Row], metadata: Mapping[str, Any]) -> pa.Table:
    """Build the table of one shard, sorted by (sample_id, view). ``metadata`` must hold ``feature`` and ``dim``."""
    ordered = sorted(rows, key=lambda row: (row.sample_id, row.view))
    sequences = [row.sequence for row in ordered]
    for row in ordered:
        if row.sequence.dim != metadata["dim"]:
            raise ValueError(f"{row.sample_id}: got width {row.sequence.dim}, allowed: {metadata['dim']}")
    columns: dict[str, pa.Array] = {
        "shard": pa.array([shard] * len(ordered), pa.int32()),
        "split": pa.array([row.split for row in ordered], pa.string()),
        "label": pa.array([row.label for row in ordered], pa.string()),
        "sample_id": pa.array([row.sample_id for row in ordered], pa.string()),
        "view": pa.array([row.view for row in ordered], pa.int16()),
        "content": pa.array([row.content for row in ordered], pa.binary(DIGEST_BYTES)),
        "recipe": pa.array([row.recipe for row in ordered], pa.binary(DIGEST_BYTES)),
        "length": pa.array([len(sequence) for sequence in sequences], pa.int32()),
        "start_ns": _ragged([sequence.start_ns for sequence in sequences], pa.int64()),
        "end_ns": _ragged([sequence.end_ns for sequence in sequences], pa.int64()),
        "valid": _ragged([sequence.valid for sequence in sequences], pa.bool_()),
        "values": _ragged([sequence.values for sequence in sequences], pa.float32()),
    }
    schema = ROW_SCHEMA
    if metadata.get("aligned"):
        schema = _notes_of_aligned(ALIGNED_SCHEMA)
        columns["coverage"] = _ragged([_coverage(row) for row in ordered], pa.float32())
    encoded = {METADATA_KEY: json.dumps(dict(metadata), sort_keys=True).encode()}
    return pa.table(columns, schema=schema.with_metadata(encoded))


def _coverage(row: Row) -> np.ndarray[Any, np.dtype[np.float32]]:
    if row.coverage is None:
        raise ValueError(f"{row.sample_id}: an aligned row needs coverage")
    return row.coverage


def table_metadata(table: pa.Table) -> dict[str, Any]:
    """Return what the file says of itself: feature, dim, recipe, library versions, schema notes."""
    found: dict[str, Any] = json.loads(table.schema.metadata[METADATA_KEY])
    return found


def sequence_at(table: pa.Table, row: int, dim: int) -> FeatureSequence:
    """Return row ``row`` of a shard table as a ``FeatureSequence`` of width ``dim`` (no copy where possible)."""

    def flat(name: str) -> np.ndarray[Any, Any]:
        return np.asarray(table.column(name)[row].values.to_numpy(zero_copy_only=False))

    return FeatureSequence(
        values=flat("values").reshape(-1, dim), start_ns=flat("start_ns"), end_ns=flat("end_ns"), valid=flat("valid")
    )


def write_shard(table: pa.Table, sink: Any) -> None:
    """Write a shard table to ``sink`` (a path or binary file) in the layout that readers may map."""
    small = [name for name in table.column_names if name != "values"]
    pq.write_table(
        table,
        sink,
        compression="none",
        use_dictionary=["split", "label", "shard", "recipe"],
        write_statistics=small,
        data_page_size=1 << 30,
        row_group_size=_rows_per_group(table),
        column_encoding=None,
        store_schema=True,
    )


def _rows_per_group(table: pa.Table) -> int:
    if not len(table):
        return 1
    average = max(1, table.column("values").nbytes // len(table))
    return int(max(1, min(len(table), (6 << 20) // average)))
