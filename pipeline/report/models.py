"""What was trained on a snapshot, as the trainer left it (``_models/<snapshot>-<digest>/result.json``)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pipeline.fusion.result import RESULT_FILE
from pipeline.report.charts import losses
from pipeline.store import DatasetStore

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
    found, score = document["models"], document.get("score", "accuracy")  # results of older versions have none
    metrics = list(next(iter(found.values()))["mean"])
    rows = [
        {
            "name": name,
            "score": result["mean"][score],
            "spread": result["std"][score] if len(result["runs"]) > 1 else None,
            "metrics": [
                (result["mean"][metric], result["std"][metric] if len(result["runs"]) > 1 else None)
                for metric in metrics
            ],
            "fusion": name in document["gain"],
            "losses": _losses(name, result["history"]),
            "epochs": len(result["history"]),
        }
        for name, result in sorted(found.items(), key=lambda item: item[1]["mean"][score])
    ]
    fusions = [name for name in document["gain"] if name in found]
    best = max(fusions, key=lambda name: found[name]["mean"][score]) if fusions else None
    return {
        "snapshot": version,
        "current": current,
        "samples": document["samples"],
        "score": score,
        "metrics": ["macro F1" if metric == "f1" else metric for metric in metrics],
        "rows": rows,
        "gain": document["gain"],
        "missing": _missing(document),
        "without": document.get("without", {}),
        "retrieval": document.get("retrieval", {}),
        "notes": document["notes"],
        "confusion": None if best is None else _confusion(best, document["labels"], found[best]["confusion"]),
    }


def _losses(name: str, history: list[dict[str, Any]]) -> Any:
    """The losses of training and validation, epoch by epoch; ``None`` for what is not trained itself."""
    if len(history) < 2:
        return None
    train, validation = ([epoch[which] for epoch in history] for which in ("train_loss", "validation_loss"))
    return losses(train, validation, f"{name}: loss of training and validation over {len(history)} epochs")


def _missing(document: dict[str, Any]) -> dict[str, Any] | None:
    """Fusion methods and modalities, and what a method's score is without one in testing."""
    table = document.get("missing")
    if not table:
        return None
    score = document["score"]
    return {
        "modalities": [name for name, _ in document["dims"]],
        "rows": [
            (method, document["models"][method]["mean"][score], list(row.values())) for method, row in table.items()
        ],
    }


def _confusion(model: str, labels: list[str], counts: list[list[int]]) -> Confusion | None:
    if not 2 <= len(labels) <= _SHOWN_LABELS:
        return None
    return Confusion(model, labels, [[(n / max(1, sum(row)), n) for n in row] for row in counts])
