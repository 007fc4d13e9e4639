"""What was trained on a snapshot, as the trainer left it (``_models/<snapshot>-<digest>/result.json``)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pipeline.fusion.result import RESULT_FILE
from pipeline.store import DatasetStore

_METRICS = ("accuracy", "precision", "recall", "f1")
_SHOWN_LABELS = 20


@dataclass(frozen=True)
class Confusion:
    """Which labels the best fusion takes for which: ``cells`` are shares of a row, with their counts."""

    model: str
    labels: list[str]
    cells: list[list[tuple[float, int]]]


def models(store: DatasetStore, snapshot: int) -> dict[str, Any] | None:
    """The newest result of training on a snapshot, else on the newest before it; ``None`` where there is none."""
    folder = store.path("_models")
    if not store.fs.exists(folder):
        return None
    versions: dict[int, list[str]] = {}
    for path in store.fs.ls(folder, detail=False):
        version = str(path).rstrip("/").rpartition("/")[2].partition("-")[0]
        if version.isdigit() and int(version) <= snapshot and store.fs.exists(f"{path}/{RESULT_FILE}"):
            versions.setdefault(int(version), []).append(f"{path}/{RESULT_FILE}")
    if not versions:
        return None
    newest = max(versions)
    path = max(versions[newest], key=lambda path: store.fs.modified(path))
    return _told(json.loads(store.fs.cat_file(path)), newest, current=newest == snapshot)


def _told(document: dict[str, Any], version: int, *, current: bool) -> dict[str, Any]:
    found = document["models"]
    rows = [
        {
            "name": name,
            "accuracy": result["mean"]["accuracy"],
            "spread": result["std"]["accuracy"] if len(result["runs"]) > 1 else None,
            "metrics": [result["mean"][metric] for metric in _METRICS if metric in result["mean"]],
            "fusion": name in document["gain"],
        }
        for name, result in sorted(found.items(), key=lambda item: item[1]["mean"]["accuracy"])
    ]
    fusions = [name for name in document["gain"] if name in found]
    best = max(fusions, key=lambda name: found[name]["mean"]["accuracy"]) if fusions else None
    return {
        "snapshot": version,
        "current": current,
        "samples": document["samples"],
        "metrics": [metric for metric in _METRICS if metric in next(iter(found.values()))["mean"]],
        "rows": rows,
        "gain": document["gain"],
        "notes": document["notes"],
        "confusion": None if best is None else _confusion(best, document["labels"], found[best]["confusion"]),
    }


def _confusion(model: str, labels: list[str], counts: list[list[int]]) -> Confusion | None:
    if not 2 <= len(labels) <= _SHOWN_LABELS:
        return None
    return Confusion(model, labels, [[(n / max(1, sum(row)), n) for n in row] for row in counts])
