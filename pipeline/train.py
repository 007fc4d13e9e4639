"""Training on a published snapshot: read aligned features, train, store the models beside what they learned from."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features.errors import StoreError
from pipeline.catalog import Catalog
from pipeline.events import SILENT, Events
from pipeline.fusion.data import FusionData
from pipeline.fusion.fit import train
from pipeline.fusion.options import TrainOptions
from pipeline.fusion.result import RESULT_FILE
from pipeline.keys import code_digest, digest_json
from pipeline.run import published
from pipeline.store import ALIGNED_PREFIX, DatasetStore


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
        return f"{self.dataset}, snapshot {self.document['snapshot']}: accuracy on the test split ({counts})"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row a model, the majority baseline first, fusions last."""
        order = ["majority", *(name for name, _ in self.document["dims"]), *self.document["options"]["methods"]]
        models = self.document["models"]
        return [
            {
                "model": name,
                "runs": len(models[name]["runs"]),
                **models[name]["mean"],
                "accuracy_std": models[name]["std"]["accuracy"],
            }
            for name in order
        ]

    @property
    def lines(self) -> list[str]:
        """What to say below the table."""
        said = [f"note: {note}" for note in self.document["notes"]]
        for method, gain in self.document["gain"].items():
            said.append(f"{method} fusion against the best single modality: {100 * gain:+.1f} points")
        if not self.fresh:
            said.append("Nothing computed: these very models were trained before (--retrain trains them again).")
        said.append(f"Models and metrics: {self.path}")
        return said


def train_dataset(
    catalog: Catalog, dataset: str, *, which: str | int | None = None, retrain: bool = False, events: Events = SILENT
) -> Trained:
    """Train what the catalog asks for on a snapshot, unless these very models exist.

    ``which``: a version or the name of a release, by default the last snapshot. Raises ``StoreError`` when
    nothing is published or aligned, ``RunFailedError`` when the data cannot be trained on.
    """
    snapshot = published(catalog, dataset, which)
    if not snapshot.aligned:
        raise StoreError(
            f"{snapshot.store.url}: snapshot {snapshot.version} has no aligned features to train on; "
            f"cure: give datasets.{dataset} an `align` entry and run again"
        )
    options = TrainOptions(**catalog.dataset(dataset).train.model_dump(), device=catalog.engine.device)
    recipe = {"options": asdict(options), "code": code_digest("pipeline.fusion.fit").hex()}
    name = f"_models/{snapshot.version}-{digest_json(recipe).hex()[:12]}"
    store = snapshot.store
    result_path = store.path(name, RESULT_FILE)
    fresh = retrain or not store.fs.exists(result_path)
    if fresh:
        tables = {feature: snapshot.read(ALIGNED_PREFIX + feature) for feature in snapshot.aligned}
        result = train(FusionData.from_tables(tables), options, events)
        with tempfile.TemporaryDirectory() as folder:
            result.save(folder, str(snapshot.version))
            _upload(store, Path(folder), name)
    document = json.loads(store.fs.cat_file(result_path))
    return Trained(dataset, f"{store.url}/{name}", document, fresh)


def _upload(store: DatasetStore, folder: Path, name: str) -> None:
    """Copy a finished model folder into the store, the result file last: where it is, the rest is complete."""
    files = sorted(folder.iterdir(), key=lambda file: file.name == RESULT_FILE)
    for file in files:
        store.write_bytes(f"{name}/{file.name}", file.read_bytes())
