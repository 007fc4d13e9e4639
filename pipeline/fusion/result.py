"""What training comes to: metrics and trained models, saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from features.errors import StoreError
from pipeline.fusion.metrics import Metrics, main_metric
from pipeline.fusion.options import EncoderOptions, TrainOptions
from pipeline.fusion.targets import Target, TargetOptions, Targets, Truth

if TYPE_CHECKING:
    from pipeline.fusion.models import FusionModel

MAJORITY = "majority"
LINEAR = "linear"
BASELINES = (MAJORITY, LINEAR)
RESULT_FILE = "result.json"


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Mean loss over the training split (with dropout); loss and main metric of the validation split, where it is."""

    train_loss: float
    validation_loss: float | None
    validation_score: float | None = None


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """How one model does on the test split.

    ``mean`` and ``std`` (population) are over ``runs``, one for each seed and fold; ``confusion`` counts the test
    samples of all runs by the first target that has classes (else it is empty), rows are true labels. ``epochs`` and
    ``history`` (of the first run) are empty for models that are not trained themselves.
    """

    mean: Metrics
    std: Metrics
    runs: tuple[Metrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    epochs: tuple[int, ...] = ()
    history: tuple[Epoch, ...] = ()


@dataclass(eq=False, kw_only=True)
class Judged:
    """One model of one seed and fold: what it says of the test split, and what was found out about it."""

    said: list[Truth] = field(repr=False)
    metrics: Metrics
    model: Any = None
    history: tuple[Epoch, ...] = ()
    missing: dict[str, float] = field(default_factory=dict)
    retrieval: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainResult:
    """What training came to. ``models``: each modality by name, each method, and the baselines "majority" and "linear".

    ``trained`` holds the models of the first run, on the CPU, in evaluation mode. ``samples`` counts rows by split.
    ``missing``: method -> modality -> mean score when that modality is taken away in testing; ``without``: modality ->
    mean score of early fusion that was trained without it; ``retrieval``: method -> mean recall of finding the partner
    of one modality among all of another.
    """

    options: TrainOptions
    targets: Targets
    dims: dict[str, int]
    samples: dict[str, int]
    models: dict[str, ModelResult]
    notes: tuple[str, ...]
    missing: dict[str, dict[str, float]] = field(default_factory=dict)
    without: dict[str, float] = field(default_factory=dict)
    retrieval: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    trained: dict[str, FusionModel] = field(repr=False)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes of the first target that has some; without one, none."""
        return next((target.labels for target in self.targets.targets if target.kind == "classes"), ())

    @property
    def score(self) -> str:
        """The metric that models are compared by."""
        return main_metric(self.targets)

    @property
    def gain(self) -> dict[str, float]:
        """For each method, its mean score minus that of the best single modality."""
        best = max(self.models[name].mean[self.score] for name in self.dims)
        return {method: self.models[method].mean[self.score] - best for method in self.options.methods}

    def save(self, folder: Path | str, snapshot_id: str, about: Mapping[str, Any] | None = None) -> None:
        """Write each trained model as safetensors, then ``result.json`` (last: where it is, the rest is complete).

        ``about``: what else to say, such as the data set and its catalog entry. It, the snapshot and how the model is
        made stand in every file's metadata too.
        """
        from safetensors.torch import save_file

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        (target / RESULT_FILE).unlink(missing_ok=True)
        document = {
            "snapshot": snapshot_id,
            **(about or {}),
            "options": asdict(self.options),
            "targets": [asdict(one) for one in self.targets.targets],
            "labels": self.labels,
            "dims": list(self.dims.items()),
            "samples": self.samples,
            "notes": self.notes,
            "trained": sorted(self.trained),
            "score": self.score,
            "gain": self.gain,
            "missing": self.missing,
            "without": self.without,
            "retrieval": self.retrieval,
            "models": {name: asdict(result) for name, result in self.models.items()},
        }
        head = {key: document[key] for key in ("snapshot", *(about or {}), "options", "targets", "dims")}
        for name, model in self.trained.items():
            save_file(
                {key: value.contiguous() for key, value in model.state_dict().items()},
                _weights_file(target, name),
                {"gristmill": json.dumps({"model": name, **head})},
            )
        (target / RESULT_FILE).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def load_model(folder: Path | str, name: str) -> FusionModel:
        """Return the saved model ``name`` on the CPU, in evaluation mode: it gives the logits that it gave.

        Raises ``StoreError`` when there is no such model, or its weights do not fit what ``result.json`` says.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from pipeline.fusion.build import build

        source = Path(folder)
        try:
            document = json.loads((source / RESULT_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise StoreError(
                f"{source}: no {RESULT_FILE}, so no complete training result; cure: train again"
            ) from error
        if name not in document["trained"]:
            raise StoreError(f"{source}: model: got {name!r}, allowed: {', '.join(document['trained'])}")
        if "targets" not in document:
            raise StoreError(
                f"{source}: trained by an older version, whose models are made otherwise; cure: train again"
            )
        dims = dict(document["dims"])
        method, names = ("early", [name]) if name in dims else (name, list(dims))
        model = build(method, names, dims, read_targets_of(document), read_options(document))
        path = _weights_file(source, name)
        try:
            model.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise StoreError(f"{path}: not the weights of {name!r}: {error}; cure: train again") from error
        return model.eval()


def read_options(document: Mapping[str, Any]) -> TrainOptions:
    """The options that a result was trained with."""
    found = dict(document["options"])
    found["methods"] = tuple(found["methods"])
    found["encoders"] = {name: EncoderOptions(**one) for name, one in found["encoders"].items()}
    found["targets"] = {name: TargetOptions(**one) for name, one in found["targets"].items()}
    return TrainOptions(**found)


def read_targets_of(document: Mapping[str, Any]) -> Targets:
    """The targets of a result: what the columns of its models' logits mean."""
    return Targets(
        targets=tuple(
            Target(
                **{
                    **one,
                    "labels": tuple(one["labels"]),
                    "prior": tuple(one["prior"]),
                    "weights": None if one["weights"] is None else tuple(one["weights"]),
                }
            )
            for one in document["targets"]
        )
    )


def _weights_file(folder: Path, name: str) -> Path:
    return folder / f"{quote(name, safe='')}.safetensors"
