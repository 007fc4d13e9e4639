"""What an export has written: counts that add up, and a digest of every file."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from features.errors import RunFailedError
from pipeline.export.selection import Selection, stored_name

MANIFEST = "manifest.json"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class WrittenFile:
    """A file of an export: its path in the folder, and how many samples it holds (0: it belongs to others)."""

    path: str
    samples: int


@dataclass(frozen=True, kw_only=True)
class WrittenPart:
    """What was written of a split. ``left_out``: why samples were left out while it was written."""

    split: str
    files: Sequence[WrittenFile]
    samples: int
    left_out: Mapping[str, int] = field(default_factory=dict)


def document(
    folder: Path, selection: Selection, format_: str, written: Sequence[WrittenPart], extra: Mapping[str, Any]
) -> dict[str, Any]:
    """The manifest. Raises ``RunFailedError`` when a sample was lost or invented."""
    snapshot, choice = selection.reader.snapshot, selection.choice
    splits = {}
    left_out: Counter[str] = Counter()
    for part, done in zip(selection.parts, written, strict=True):
        reasons = part.left_out + Counter(done.left_out)
        _check(f"split {part.split}", len(part) + part.left_out.total(), done.samples, reasons)
        left_out += reasons
        splits[part.split] = {"samples": done.samples, "left_out": dict(reasons)}
    total = sum(done.samples for done in written)
    _check("the export", selection.total, total, left_out + selection.not_asked)
    for done in written:
        held = sum(file.samples for file in done.files)
        if held != done.samples:
            raise RunFailedError(
                f"split {done.split}: {done.samples} samples written, but files hold {held}; {_DEFECT}"
            )
    recipes = snapshot.info.get("recipes", {})
    return {
        "gristmill": version("gristmill"),
        "dataset": snapshot.store.url.rpartition("/")[2],
        "snapshot": snapshot.version,
        "published": snapshot.info["created"],
        "format": format_,
        "aligned": choice.aligned,
        "features": {
            name: {
                "dim": dim,
                "recipes": sorted(recipes.get(name, {})),
                "stored": stored_name(name, aligned=choice.aligned),
            }
            for name, dim in selection.features.items()
        },
        "classes": list(selection.reader.classes),
        "samples": {
            "in_snapshot": selection.total,
            "written": total,
            "left_out": dict(left_out),
            "not_asked": dict(selection.not_asked),
        },
        "splits": splits,
        "notes": list(selection.notes),
        **extra,
        "files": [
            {"path": file.path, "split": done.split, "samples": file.samples, **_digest(folder / file.path)}
            for done in written
            for file in done.files
        ],
    }


_DEFECT = "nothing was exported. A defect of Gristmill: please report it"


def _check(what: str, total: int, written: int, others: Counter[str]) -> None:
    if total != written + others.total():
        raise RunFailedError(
            f"{what}: {total} samples in, but {written} written + {others.total()} left out or not asked for; {_DEFECT}"
        )


def _digest(path: Path) -> dict[str, Any]:
    state = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            state.update(block)
    return {"bytes": path.stat().st_size, "sha256": state.hexdigest()}


def write(folder: Path, found: Mapping[str, Any]) -> None:
    """Write the manifest into the folder."""
    (folder / MANIFEST).write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
