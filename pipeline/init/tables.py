"""A manifest as columns, whatever kind of table it is."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.types import Stream
from pipeline.init.files import MANIFESTS


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A table and what its columns of paths name: stream -> (column, a path below the folder or None for each row)."""

    path: str
    columns: dict[str, list[Any]]
    paths: dict[Stream, tuple[str, list[str | None]]]
    delimiter: str

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(next(iter(self.columns.values())))

    @property
    def named(self) -> int:
        """How many cells name a file that was found."""
        return sum(path is not None for _, paths in self.paths.values() for path in paths)


class UnusableError(Exception):
    """A table that cannot be read; the text says why."""


def read_table(path: Path) -> tuple[str, dict[str, list[Any]]]:
    """Return the delimiter and column -> cells."""
    try:
        if MANIFESTS[path.suffix.lower()] == "csv":
            return _read_csv(path)
        if MANIFESTS[path.suffix.lower()] == "jsonl":
            return ",", _read_jsonl(path)
        return ",", _read_parquet(path)
    except UnicodeDecodeError as error:
        raise UnusableError(f"not UTF-8 (byte {error.start})") from error
    except (OSError, ValueError, csv.Error) as error:
        raise UnusableError(str(error).splitlines()[0]) from error


def _read_csv(path: Path) -> tuple[str, dict[str, list[Any]]]:
    """Rows that do not fit the header are left out here; a run puts them in quarantine."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        delimiter = max(",;\t|", key=first.count)
        file.seek(0)
        rows = list(csv.reader(file, delimiter=delimiter, strict=True))
    header = rows[0] if rows else []
    cells = [row for row in rows[1:] if row and len(row) == len(header)]
    if len(set(header)) < len(header) or not cells:
        raise UnusableError("a column name is there twice" if cells else "it has no rows below a header")
    return delimiter, {name: [row[at] for row in cells] for at, name in enumerate(header)}


def _read_jsonl(path: Path) -> dict[str, list[Any]]:
    with path.open(encoding="utf-8-sig") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise UnusableError("not a JSON object on every line" if rows else "it has no rows")
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(key for row in rows for key in row)}


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_dictionary,
    )
    schema = pq.read_schema(path)
    names = [field.name for field in schema if any(kind(field.type) for kind in kinds)]
    columns: dict[str, list[Any]] = pq.read_table(path, columns=names, use_threads=False).to_pydict()
    if not columns or not next(iter(columns.values())):
        raise UnusableError("it has no rows of text or numbers")
    return columns
