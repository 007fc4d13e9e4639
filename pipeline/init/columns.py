"""Which column of a manifest holds the id, the split, the label and the window of a sample."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.init.source import SPLIT_NAMES, counted_labels
from pipeline.init.tables import Manifest

COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "id": ("id", "sampleid", "clipid", "segmentid", "utteranceid", "uttid", "uid", "key"),
    "split": ("split", "subset", "partition"),
    "label": ("label", "class", "classname", "category", "target", "emotion", "sentiment", "genre"),
    "start": ("start", "starts", "starttime", "startseconds", "begin", "begintime", "onset"),
    "end": ("end", "ends", "endtime", "endseconds", "stop", "stoptime"),
}
"""Field of a sample -> what its column is often called, letters and digits only; the first one found is taken."""


def grid_of(manifest: Manifest, fields: Mapping[str, str]) -> float:
    """Half a second; a tenth where half of the windows are shorter than a second."""
    if "start" not in fields:
        return 0.5
    starts, ends = (manifest.columns[fields[field]] for field in ("start", "end"))
    lengths = sorted(float(end) - float(start) for start, end in zip(starts, ends, strict=True))
    return 0.1 if lengths[len(lengths) // 2] < 1 else 0.5


def fields_of(manifest: Manifest) -> tuple[dict[str, str], list[str]]:
    """Return field -> column for id, split, label, start and end, by name and by what is in them."""
    by_name = {re.sub(r"[^a-z0-9]", "", column.lower()): column for column in reversed(manifest.columns)}
    fields: dict[str, str] = {}
    notes: list[str] = []
    for field, names in COLUMN_NAMES.items():
        column = next((by_name[name] for name in names if name in by_name), None)
        if column is None or column in {named for named, _ in manifest.paths.values()}:
            continue
        cells = [cell for cell in manifest.columns[column] if cell not in (None, "")]
        objection = _objection(field, cells, manifest.rows)
        if objection:
            notes.append(f"{manifest.path}: column {column!r} is not taken for the {field}: {objection}")
        else:
            fields[field] = column
    if ("start" in fields) != ("end" in fields):
        alone = fields.pop("start", None) or fields.pop("end")
        notes.append(f"{manifest.path}: column {alone!r} is not used: a window needs a start and an end")
    notes.append(
        "labels: "
        + counted_labels(Counter(str(cell) for cell in manifest.columns[fields["label"]] if cell not in (None, "")))
        if "label" in fields
        else "no labels: no column is named like one; without labels nothing can be trained"
    )
    if "start" in fields:
        notes.append(f"windows: {fields['start']!r} to {fields['end']!r}, taken for seconds")
    return fields, notes


def _objection(field: str, cells: Sequence[Any], rows: int) -> str:
    """Why ``cells`` cannot be this field of a sample; empty when they can."""
    values = {str(cell) for cell in cells}
    if field == "id" and (len(values) < rows or len(cells) < rows):
        return "it is not another one in every row"
    if field == "split" and not (values and all(value.lower() in SPLIT_NAMES for value in values)):
        return f"allowed: {', '.join(SPLIT_NAMES)}"
    if field == "label" and not 2 <= len(values) <= max(2, rows // 2):
        return f"it has {len(values)} values in {rows} rows"
    if field in ("start", "end") and not (len(cells) == rows and all(_is_seconds(cell) for cell in cells)):
        return "not a number of 0 or more in every row"
    return ""


def _is_seconds(cell: Any) -> bool:
    try:
        return 0 <= float(cell) < float("inf")
    except (TypeError, ValueError):
        return False
