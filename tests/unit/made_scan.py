"""Scans of what tests have written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from features.errors import Reason
from pipeline.catalog import DataSet, Source, Splits, Train
from pipeline.scan import Scan, scan


def data_set(root: str | Path, source: Mapping[str, Any], **others: Any) -> DataSet:
    parsed: Source = TypeAdapter(Source).validate_json(json.dumps(source))
    settings: dict[str, Any] = {
        "splits": Splits(train=0.8, validation=0.1, test=0.1),
        "features": {},
        "align": None,
        "train": Train(),
        "max_failed": 0.1,
        "shard_samples": 64,
    }
    return DataSet(name="clips", root=str(root), source=parsed, **(settings | others))


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def folder(root: str | Path, **source: Any) -> Scan:
    return scan(data_set(root, {"kind": "folder", **source}))


def table(root: str | Path, columns: dict[str, str], *, kind: str = "csv", path: str = "m.csv", **source: Any) -> Scan:
    return scan(data_set(root, {"kind": kind, "path": path, "columns": columns, **source}))


def from_csv(root: Path, text: str, columns: dict[str, str], **source: Any) -> Scan:
    (root / "m.csv").write_text(text, encoding="utf-8")
    return table(root, columns, **source)


def ids(found: Scan) -> list[str]:
    result: list[str] = found.samples["sample_id"].to_pylist()
    return result


def reasons(found: Scan) -> dict[str, tuple[Reason, str]]:
    return {rejected.sample_id: (rejected.reason, rejected.message) for rejected in found.rejected}
