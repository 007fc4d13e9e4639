"""Manifests: CSV, JSON Lines and Parquet tables whose rows are samples, read into plain rows that know their line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from features.errors import CatalogError
from pipeline.catalog.models import CsvSource, JsonlSource, ParquetSource, TableSource
from pipeline.catalog.problems import did_you_mean, listed


@dataclass(frozen=True, slots=True)
class ManifestRow:
    """One row: its line (for Parquet: its number, from 1) and its cells, or what is wrong with it.

    ``cells`` are in the order of ``Columns``' fields that are named.
    """

    line: int
    cells: tuple[Any, ...]
    fault: str | None = None


def read_manifest(raw: bytes, source: TableSource) -> list[ManifestRow]:
    """Read the rows of a manifest from its bytes.

    Raises ``CatalogError`` when the table as a whole cannot be read: not UTF-8, broken quotes, a column that is not
    there, no rows.
    """
    wanted = list(source.columns.model_dump(exclude_none=True).values())
    if isinstance(source, ParquetSource):
        rows = _parquet(raw, source, wanted)
    elif isinstance(source, JsonlSource):
        rows = _jsonl(_text(raw, source), source, wanted)
    else:
        rows = list(_csv(_text(raw, source), source, wanted))
    if not rows:
        raise CatalogError([f"{source.path}: no rows; cure: add one row a sample, or name another manifest"])
    return rows


def _text(raw: bytes, source: TableSource) -> str:
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"{source.path}:{line}: byte {error.start} of the file is not UTF-8; cure: save it as UTF-8"
        raise CatalogError([message]) from None


def _check_columns(wanted: list[str], found: list[str], source: TableSource, *, hint: str = "") -> None:
    fields = {column: key for key, column in source.columns.model_dump(exclude_none=True).items()}
    problems = [
        f"{source.path}: no column {column!r} (columns.{fields[column]}); columns found: {listed(found)}"
        f"{did_you_mean(column, found)}{hint}"
        for column in wanted
        if column not in found
    ]
    problems += [
        f"{source.path}: {found.count(column)} columns are called {column!r}; cure: rename one"
        for column in dict.fromkeys(wanted)
        if found.count(column) > 1
    ]
    if problems:
        raise CatalogError(list(dict.fromkeys(problems)))


def _csv(text: str, source: CsvSource, wanted: list[str]) -> Iterator[ManifestRow]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=source.delimiter, strict=True)
    line = 0
    try:
        header = next(reader, [])
        hint = "; cure: is `delimiter` right?" if len(header) == 1 and len(wanted) > 1 else ""
        _check_columns(wanted, header, source, hint=hint)
        places = [header.index(column) for column in wanted]
        line = reader.line_num
        for cells in reader:
            begun, line = line + 1, reader.line_num
            if len(cells) == len(header):
                yield ManifestRow(begun, tuple([cells[place] for place in places]))
            elif cells:
                fault = f"got {len(cells)} cells, allowed: {len(header)}, as in the header"
                yield ManifestRow(begun, (), fault)
    except csv.Error as error:
        message = f"{source.path}:{line + 1}: not CSV: {error}; cure: check the quotes of this row"
        raise CatalogError([message]) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a key stands twice in the object")
    return result


def _jsonl(text: str, source: JsonlSource, wanted: list[str]) -> list[ManifestRow]:
    decoder = json.JSONDecoder(object_pairs_hook=_unique)
    rows: list[ManifestRow] = []
    found: dict[str, None] = {}
    for line, ended in enumerate(text.split("\n"), start=1):
        written = ended.strip()
        if not written:
            continue
        try:
            record = decoder.decode(written)
        except json.JSONDecodeError as error:
            rows.append(ManifestRow(line, (), f"not JSON: {error.msg} (column {error.colno})"))
            continue
        except (ValueError, RecursionError) as error:
            rows.append(ManifestRow(line, (), f"not JSON: {error}"))
            continue
        if isinstance(record, dict):
            found |= dict.fromkeys(record)
            rows.append(ManifestRow(line, tuple([record.get(column) for column in wanted])))
        else:
            rows.append(ManifestRow(line, (), f"got a {type(record).__name__}, allowed: a JSON object"))
    if found:
        _check_columns(wanted, list(found), source)
    return rows


def _parquet(raw: bytes, source: ParquetSource, wanted: list[str]) -> list[ManifestRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(raw))
        _check_columns(wanted, file.schema_arrow.names, source)
        table = file.read(columns=list(dict.fromkeys(wanted)))
        columns = [table.column(column).to_pylist() for column in wanted]
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:
        message = f"{source.path}: not a Parquet file that can be read: {error}; cure: write it anew"
        raise CatalogError([message]) from error
    return [ManifestRow(number, cells) for number, cells in enumerate(zip(*columns, strict=True), start=1)]
