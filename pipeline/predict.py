"""Prediction: a trained model on samples of a snapshot, its own data set's or another's.

A model is only good for features made as those were that it was trained on. So the recipes of the rows that it is given
are compared with those of the snapshot that it was trained on, and others are refused.
"""

from __future__ import annotations

import json
import posixpath
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from features.errors import StoreError
from pipeline.catalog import Catalog
from pipeline.events import SILENT, Events
from pipeline.execute.engine import resolve_device
from pipeline.fusion.result import RESULT_FILE, TrainResult
from pipeline.keys import explain
from pipeline.predictions import Output, Predictions, Used, columns_of, outputs_of
from pipeline.run import published
from pipeline.store import ALIGNED_PREFIX, DatasetStore, Snapshot

if TYPE_CHECKING:
    from pipeline.fusion.models import FusionModel

_MODELS = "_models"
_BATCH = 256
_STAGE = "predict"


@dataclass(frozen=True, eq=False, kw_only=True)
class Model:
    """A trained model: where it lies, what it was trained on, and the network on the CPU, in evaluation mode."""

    path: str
    name: str
    dataset: str
    document: Mapping[str, Any] = field(repr=False)
    network: FusionModel = field(repr=False)
    trained_on: Snapshot = field(repr=False)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What it says, in the order of its columns."""
        return outputs_of(self.document)


def open_model(catalog: Catalog, dataset: str, name: str | None = None, which: str | None = None) -> Model:
    """Open a model that was trained on a data set.

    ``which``: the name of its folder (``3-1f2e...``), by default the one of the newest snapshot that was trained last.
    ``name``: a fusion method, or a feature whose own model it is; by default the method that did best in testing.
    Raises ``StoreError`` where there is no such model.
    """
    store = DatasetStore(catalog.store, catalog.dataset(dataset).name)
    folder = _folder(store, dataset, which)
    document = json.loads(store.fs.cat_file(store.path(_MODELS, folder, RESULT_FILE)))
    methods = [method for method in document["options"]["methods"] if method in document["trained"]]
    score = document.get("score", "accuracy")
    best = max(methods, key=lambda method: float(document["models"][method]["mean"][score]), default="")
    chosen: str = name or best
    path = posixpath.join(store.url, _MODELS, folder)
    if chosen not in document["trained"]:
        raise StoreError(f"{path}: model: got {chosen!r}, allowed: {', '.join(document['trained'])}")
    with tempfile.TemporaryDirectory() as place:
        for found in store.fs.ls(store.path(_MODELS, folder), detail=False):
            content = store.fs.cat_file(found)
            (Path(place) / posixpath.basename(str(found))).write_bytes(content)
        network = TrainResult.load_model(place, chosen)
    trained_on = store.at(int(document["snapshot"]))
    if trained_on is None or trained_on.version != int(document["snapshot"]):
        raise StoreError(f"{path}: snapshot {document['snapshot']}, which it was trained on, is not in the log")
    return Model(path=path, name=chosen, dataset=dataset, document=document, network=network, trained_on=trained_on)


def _folder(store: DatasetStore, dataset: str, which: str | None) -> str:
    root = store.path(_MODELS)
    found: dict[str, tuple[int, float]] = {}
    for folder in store.fs.ls(root, detail=False) if store.fs.exists(root) else ():
        name = posixpath.basename(str(folder).rstrip("/"))
        result = posixpath.join(str(folder), RESULT_FILE)
        if store.fs.exists(result):
            found[name] = (int(name.partition("-")[0]), store.fs.modified(result).timestamp())
    if not found:
        raise StoreError(f"{store.url}: no model was trained; cure: gristmill train {dataset}")
    if which is not None and which not in found:
        raise StoreError(f"{store.url}: model: got {which!r}, allowed: {', '.join(sorted(found))}")
    return which or max(found, key=lambda name: found[name])


def check_recipes(model: Model, snapshot: Snapshot) -> None:
    """Raise ``StoreError`` where rows of a snapshot were made otherwise than those that a model was trained on.

    The text names every feature that differs, and in what.
    """
    before, now = model.trained_on, snapshot
    if (before.store.url, before.version) == (now.store.url, now.version):
        return
    faults = []
    for name in model.network.names:
        for stored in (name, ALIGNED_PREFIX + name):
            trained: Mapping[str, Any] = before.info["recipes"].get(stored, {})
            if not now.files_of(stored):
                if stored != name:
                    faults.append(f"{stored}: no rows")
                continue
            rows = sorted({value.hex() for value in pc.unique(now.keys(stored)["recipe"]).to_pylist()})
            documents = now.info["recipes"].get(stored, {})
            odd = [digest for digest in rows if digest not in trained]
            if odd:
                faults.append(f"{stored}: {_difference(trained, documents.get(odd[0]))}")
    if faults:
        raise StoreError(
            f"{now.store.url}, snapshot {now.version}: its features are not made as those of snapshot {before.version} "
            f"of {before.store.url}, which {model.name} was trained on: {'; '.join(faults)}; "
            "cure: the same steps and options in the catalog and run again, or train again"
        )


def _difference(trained: Mapping[str, Any], now: Mapping[str, Any] | None) -> str:
    if not trained or now is None:
        return "it is not known how its rows were made"
    return min((explain(before, now) for before in trained.values()), key=len)


def predict(
    model: Model,
    snapshot: Snapshot,
    *,
    splits: Sequence[str] | None = None,
    device: str = "cpu",
    events: Events = SILENT,
) -> Predictions:
    """Ask a model about the samples of a snapshot; ``splits``: only these.

    The table has one row a sample, in order of (shard, sample id): ``sample_id``, ``split``, ``label`` (null where it
    has none), ``missing`` (features without a valid row, joined with blanks; a sample that lacks all of them is
    answered with the frequencies of the training split), ``predicted`` and ``p_<label>`` float32 for each label, its
    probability (see ``Output``: of a number there is none, and of several labels at once, those above one half are
    predicted, joined with ``|``).

    Raises ``StoreError`` when features are made otherwise than the model's, or no sample has any of them.
    """
    import numpy as np
    import torch

    from pipeline.loader import StoreReader

    check_recipes(model, snapshot)
    names = list(model.network.names)
    reader = StoreReader(snapshot)
    samples = reader.samples(names, aligned=True, split=None if splits is None else list(splits))
    wanted = reader.table
    if splits is not None:
        wanted = wanted.filter(pc.is_in(wanted["split"], value_set=pa.array(list(splits), pa.string())))
    network = model.network.to(device).eval()
    logits, present = [], []
    events.started(_STAGE, len(samples), "samples")
    with torch.inference_mode():
        for batch in samples.batches(_BATCH, shuffle="none", rank=0, world_size=1):
            values = {name: value.to(device) for name, value in batch["values"].items()}
            masks = {name: mask.to(device) for name, mask in batch["mask"].items()}
            logits.append(network(values, masks).float().cpu())
            present.append(np.stack([batch["mask"][name].any(dim=1).numpy() for name in names], axis=1))
            events.advanced(_STAGE, len(batch["sample_id"]))
    found, there = torch.cat(logits), np.concatenate(present)
    events.finished(_STAGE, f"{len(found):,} samples")
    table = wanted.take(pc.index_in(pa.array(samples.sample_ids), value_set=wanted["sample_id"].combine_chunks()))
    outputs = model.outputs
    classes = len(outputs) == 1 and outputs[0].kind == "classes"
    columns: dict[str, Any] = {
        "sample_id": table["sample_id"],
        "split": table["split"],
        "label": table["label"],
        "missing": pa.array([" ".join(np.array(names)[~row]) for row in there], pa.string()),
    }
    columns |= columns_of(outputs, found)
    return Predictions(
        model=Used(path=model.path, name=model.name, dataset=model.dataset, snapshot=int(model.document["snapshot"])),
        dataset=posixpath.basename(snapshot.store.url),
        snapshot=snapshot.version,
        table=pa.table(columns),
        left_out={"without a row of any of the model's features": len(wanted) - len(samples)}
        if len(wanted) > len(samples)
        else {},
        notes=_notes(there, names, table, outputs[0].labels if classes else None),
        classes=classes,
    )


def _notes(there: Any, names: Sequence[str], table: pa.Table, labels: Sequence[str] | None) -> tuple[str, ...]:
    notes = [f"{count:,} samples lack {name}" for name, count in zip(names, (~there).sum(axis=0), strict=True) if count]
    if nothing := int((~there.any(axis=1)).sum()):
        notes.append(f"{nothing:,} samples lack everything: they are answered with the frequencies of training")
    known = [label for label in pc.unique(table["label"]).to_pylist() if label is not None]
    if labels is not None and (unseen := sorted(set(known) - set(labels))):
        notes.append(f"labels that the model has never seen, and so cannot give: {', '.join(unseen)}")
    return tuple(notes)


def predict_dataset(
    catalog: Catalog,
    dataset: str,
    *,
    model_of: str | None = None,
    name: str | None = None,
    which_model: str | None = None,
    snapshot: str | int | None = None,
    splits: Sequence[str] | None = None,
    events: Events = SILENT,
) -> Predictions:
    """Ask a model of a data set (``model_of``, by default the same one) about a published snapshot of ``dataset``.

    ``name`` and ``which_model``: see ``open_model``. ``snapshot``: by default the last one. Raises as ``open_model``
    and ``predict`` do.
    """
    model = open_model(catalog, model_of or dataset, name, which_model)
    found = published(catalog, dataset, snapshot)
    return predict(model, found, splits=splits, device=resolve_device(catalog.engine.device), events=events)
