"""Training on a published snapshot: read aligned features, train, store the models beside what they learned from."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from features.errors import StoreError
from pipeline.catalog import Catalog
from pipeline.events import SILENT, Events
from pipeline.fusion.data import FusionData
from pipeline.fusion.fit import train
from pipeline.fusion.keep import Keeper
from pipeline.fusion.result import BASELINES, RESULT_FILE
from pipeline.keys import code_digest, digest_json
from pipeline.run import published
from pipeline.store import ALIGNED_PREFIX, DatasetStore

_MODULES = ("pipeline.fusion.fit", "pipeline.fusion.trial")
"""Their code, and that of all that they import, decides what comes out of training."""


@dataclass(frozen=True)
class Trained:
    """Models of one snapshot. ``document`` is what ``result.json`` holds; ``fresh`` whether they were trained now."""

    dataset: str
    path: str
    document: dict[str, Any]
    fresh: bool

    @property
    def title(self) -> str:
        """What the table of results is called."""
        counts = ", ".join(f"{number} {split}" for split, number in self.document["samples"].items())
        folds = self.document["options"]["folds"]
        where = f"{folds} folds, the first of {counts}" if folds else counts
        return f"{self.dataset}, snapshot {self.document['snapshot']}: on the test split ({where})"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row a model, baselines first, fusions last: ``model``, ``runs``, and for each metric mean and spread."""
        order = [*BASELINES, *(name for name, _ in self.document["dims"]), *self.document["options"]["methods"]]
        models = self.document["models"]
        return [
            {
                "model": name,
                "runs": len(models[name]["runs"]),
                **models[name]["mean"],
                **{f"{metric}_std": value for metric, value in models[name]["std"].items()},
            }
            for name in order
            if name in models
        ]

    @property
    def lines(self) -> list[str]:
        """What to say below the table."""
        said = [f"note: {note}" for note in self.document["notes"]]
        for method, gain in self.document["gain"].items():
            said.append(f"{method} fusion against the best single modality: {100 * gain:+.1f} points")
        said += self._asked
        if not self.fresh:
            said.append("Nothing computed: these very models were trained before (--retrain trains them again).")
        said.append(f"Models and metrics: {self.path}")
        return said

    @property
    def _asked(self) -> list[str]:
        """What was found out about modalities: what each adds, what its absence costs, how close they lie."""
        models, score = self.document["models"], self.document["score"]
        said = []
        for method, missing in self.document["missing"].items():
            whole = models[method]["mean"][score]
            each = ", ".join(f"{name} {100 * (found - whole):+.1f}" for name, found in missing.items())
            said.append(f"{method} when a modality is missing in testing: {each} points")
        if without := self.document["without"]:
            whole = models["early"]["mean"][score] if "early" in models else None
            each = ", ".join(
                f"{name} {100 * found:.1f}" if whole is None else f"{name} {100 * (whole - found):+.1f}"
                for name, found in without.items()
            )
            said.append(
                f"early fusion trained without a modality: {each}"
                if whole is None
                else f"what each modality adds to early fusion: {each} points"
            )
        for method, pairs in self.document["retrieval"].items():
            first, ten, chance = (
                100 * mean(pair[key] for pair in pairs) for key in ("recall@1", "recall@10", "chance@1")
            )
            said.append(
                f"{method}: a modality finds its partner first in {first:.1f} %, among 10 in {ten:.1f} % (first by "
                f"chance {chance:.1f} %); the mean of {len(pairs)} pairings, each of which is in the report"
            )
        return said


def train_dataset(
    catalog: Catalog,
    dataset: str,
    *,
    which: str | int | None = None,
    retrain: bool = False,
    events: Events = SILENT,
    keep_seconds: float = 20.0,
) -> Trained:
    """Train what the catalog asks for on a snapshot, unless these very models exist.

    A training that was killed goes on where it was: what it has is kept every ``keep_seconds`` and after each model.
    ``which``: a version or the name of a release, by default the last snapshot. Raises ``StoreError`` when
    nothing is published or aligned, ``RunFailedError`` when the data cannot be trained on.
    """
    from pipeline.report.finish import settings

    snapshot = published(catalog, dataset, which)
    if not snapshot.aligned:
        raise StoreError(
            f"{snapshot.store.url}: snapshot {snapshot.version} has no aligned features to train on; "
            f"cure: give datasets.{dataset} an `align` entry and run again"
        )
    entry = catalog.dataset(dataset)
    options = entry.train.options(device=catalog.engine.device)
    recipe = {"options": asdict(options), "code": [code_digest(module).hex() for module in _MODULES]}
    name = f"_models/{snapshot.version}-{digest_json(recipe).hex()[:12]}"
    store = snapshot.store
    result_path = store.path(name, RESULT_FILE)
    fresh = retrain or not store.fs.exists(result_path)
    if fresh:
        tables = {feature: snapshot.read(ALIGNED_PREFIX + feature) for feature in snapshot.aligned}
        kept = _Kept(store, f"{name}.partial")
        if retrain:
            kept.clear()
        result = train(FusionData.from_tables(tables), options, events, Keeper(kept, keep_seconds))
        with tempfile.TemporaryDirectory() as folder:
            result.save(folder, str(snapshot.version), {"dataset": dataset, "catalog": settings(catalog, entry)})
            _upload(store, Path(folder), name)
        kept.clear()
    document = json.loads(store.fs.cat_file(result_path))
    return Trained(dataset, f"{store.url}/{name}", document, fresh)


class _Kept:
    """A folder of the store, for what a training that is going on keeps."""

    def __init__(self, store: DatasetStore, folder: str) -> None:
        self._store = store
        self._folder = folder

    def read(self, name: str) -> bytes | None:
        """The content of a file; ``None`` where there is none."""
        found = self._store.read(f"{self._folder}/{name}")
        return None if found is None else found.content

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole, or replace it."""
        self._store.write_bytes(f"{self._folder}/{name}", content)

    def clear(self) -> None:
        """Remove all of it."""
        path = self._store.path(self._folder)
        if self._store.fs.exists(path):
            self._store.fs.rm(path, recursive=True)


def _upload(store: DatasetStore, folder: Path, name: str) -> None:
    """Copy a finished model folder into the store, the result file last: where it is, the rest is complete."""
    files = sorted(folder.iterdir(), key=lambda file: file.name == RESULT_FILE)
    for file in files:
        store.write_bytes(f"{name}/{file.name}", file.read_bytes())
