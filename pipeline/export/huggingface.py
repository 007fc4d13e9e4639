"""Hugging Face ``datasets``: a folder of Parquet files that ``load_dataset(folder)`` opens with the right features.

Columns: ``sample_id``; ``label``, a ``ClassLabel``, null where there is none; and of each feature ``<name>``, and
``<name>.valid``, ``<name>.start_ns``, ``<name>.end_ns``. A feature of which every sample has one row is a list of D
numbers and one number each; any other is a list of T lists of D numbers, and lists of T. All four are null where a
sample does not have the feature. The features stand in each file's schema, where ``datasets`` looks for them; other
readers see plain Parquet.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import StoreError
from features.types import FeatureSequence
from pipeline.export.manifest import WrittenFile, WrittenPart
from pipeline.export.selection import Part, Record, Selection

_SPLIT = re.compile(r"\w+(\.\w+)*")
_TIMES = ("start_ns", "end_ns")


def write(
    selection: Selection, part: Part, folder: Path, advanced: Callable[[int], None], *, file_bytes: int
) -> WrittenPart:
    """Write a split as ``data/<split>-00000-of-00003.parquet``, files of about ``file_bytes``.

    Raises ``StoreError`` for a split whose name ``datasets`` does not take.
    """
    if not _SPLIT.fullmatch(part.split):
        raise StoreError(f"split: got {part.split!r}, allowed by datasets: letters, digits, _ and dots between them")
    if not len(part):
        return WrittenPart(split=part.split, files=(), samples=0)
    (folder / "data").mkdir(exist_ok=True)
    schema = _schema(selection)
    cuts, files = part.cuts(file_bytes), []
    for number, (begin, end) in enumerate(cuts):
        name = f"data/{part.split}-{number:05d}-of-{len(cuts):05d}.parquet"
        small = [field.name for field in schema if field.name not in selection.features]
        with pq.ParquetWriter(folder / name, schema, compression="none", use_dictionary=small) as writer:
            for records in part.chunks(begin, end):
                writer.write_table(_table(records, schema, selection.features))
                advanced(len(records))
        files.append(WrittenFile(name, end - begin))
    return WrittenPart(split=part.split, files=files, samples=len(part))


def write_card(selection: Selection, folder: Path, written: Sequence[WrittenPart]) -> None:
    """Write ``README.md``, whose head tells ``datasets`` (and the hub) which files are of which split."""
    splits = [part.split for part in written if part.samples]
    snapshot = selection.reader.snapshot
    lines = ["---", "configs:", "- config_name: default", "  data_files:"]
    for split in splits:
        lines += [f"  - split: {split}", f"    path: data/{split}-*"]
    lines += [
        "---",
        "",
        f"Features of `{snapshot.store.url.rpartition('/')[2]}`, snapshot {snapshot.version}, exported by Gristmill.",
    ]
    (folder / "README.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _schema(selection: Selection) -> pa.Schema:
    fields = [pa.field("sample_id", pa.string()), pa.field("label", pa.int64())]
    classes = list(selection.reader.classes)
    features: dict[str, Any] = {
        "sample_id": _value("string"),
        "label": {"names": classes, "_type": "ClassLabel"} if classes else _value("int64"),
    }
    for name, dim in selection.features.items():
        row, of_row = pa.list_(pa.float32(), dim), {"feature": _value("float32"), "length": dim, "_type": "Sequence"}
        vector = selection.lengths_are_one(name)
        fields.append(pa.field(name, row if vector else pa.list_(row)))
        features[name] = of_row if vector else _list(of_row)
        for column, kind, dtype in (("valid", pa.bool_(), "bool"), *((time, pa.int64(), "int64") for time in _TIMES)):
            fields.append(pa.field(f"{name}.{column}", kind if vector else pa.list_(kind)))
            features[f"{name}.{column}"] = _value(dtype) if vector else _list(_value(dtype))
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(fields, metadata=metadata)


def _value(dtype: str) -> dict[str, Any]:
    return {"dtype": dtype, "_type": "Value"}


def _list(item: dict[str, Any]) -> dict[str, Any]:
    return {"feature": item, "_type": "Sequence"}


def _table(records: Sequence[Record], schema: pa.Schema, features: dict[str, int]) -> pa.Table:
    columns = [
        pa.array([record.sample_id for record in records], pa.string()),
        pa.array([record.label for record in records], pa.int64()),
    ]
    for name, dim in features.items():
        found = [record.features[name] for record in records]
        columns += _columns(found, dim, vector=not pa.types.is_list(schema.field(f"{name}.valid").type))
    return pa.table(columns, schema=schema)


def _columns(found: Sequence[FeatureSequence | None], dim: int, *, vector: bool) -> list[pa.Array]:
    """Values, validity, starts and ends as Arrow arrays, null where there is no sequence."""
    there = [sequence for sequence in found if sequence is not None]
    parts = [(name, [getattr(sequence, name) for sequence in there]) for name in ("values", "valid", *_TIMES)]
    flat = {name: np.concatenate(arrays) if arrays else np.zeros(0) for name, arrays in parts}
    kinds = {"values": pa.float32(), "valid": pa.bool_(), "start_ns": pa.int64(), "end_ns": pa.int64()}
    plain = {name: pa.array(flat[name].reshape(-1), kind) for name, kind in kinds.items()}
    plain["values"] = pa.FixedSizeListArray.from_arrays(plain["values"], dim)
    if vector:
        rank = np.cumsum([sequence is not None for sequence in found]) - 1
        at = pa.array(
            [None if sequence is None else int(i) for sequence, i in zip(found, rank, strict=True)], pa.int64()
        )
        return [array.take(at) for array in plain.values()]
    offsets = np.concatenate([[0], np.cumsum([0 if sequence is None else len(sequence) for sequence in found])])
    marked = pa.array(offsets.astype(np.int32), mask=np.array([*(sequence is None for sequence in found), False]))
    return [pa.ListArray.from_arrays(marked, array) for array in plain.values()]
