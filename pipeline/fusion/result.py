"""What training comes to: metrics and trained models, saved and loaded."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from features.errors import StoreError
from pipeline.fusion.metrics import Metrics
from pipeline.fusion.options import METHODS, TrainOptions

if TYPE_CHECKING:
    from pipeline.fusion.models import FusionModel

MAJORITY = "majority"
RESULT_FILE = "result.json"


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """Mean loss over the training split (with dropout) and over the validation split, where there is one."""

    train_loss: float
    validation_loss: float | None


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """How one model does on the test split.

    ``mean`` and ``std`` (population) are over ``runs``, one a seed; ``confusion`` counts the test samples of all seeds,
    rows are true labels. ``epochs`` and ``history`` (of the first seed) are empty for models that are not trained
    themselves: late fusion and the majority label.
    """

    mean: Metrics
    std: Metrics
    runs: tuple[Metrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    epochs: tuple[int, ...] = ()
    history: tuple[Epoch, ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainResult:
    """What training came to. ``models``: each modality by name, each method, and "majority", the baseline.

    ``trained`` holds the models of the first seed, on the CPU, in evaluation mode. ``samples`` counts rows by split.
    """

    options: TrainOptions
    labels: tuple[str, ...]
    dims: dict[str, int]
    samples: dict[str, int]
    models: dict[str, ModelResult]
    notes: tuple[str, ...]
    trained: dict[str, FusionModel] = field(repr=False)

    @property
    def gain(self) -> dict[str, float]:
        """For each method, its mean accuracy minus that of the best single modality."""
        best = max(self.models[name].mean.accuracy for name in self.dims)
        return {method: self.models[method].mean.accuracy - best for method in self.options.methods}

    def save(self, folder: Path | str, snapshot_id: str) -> None:
        """Write each trained model as safetensors, then ``result.json`` (last: where it is, the rest is complete)."""
        from safetensors.torch import save_file

        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        (target / RESULT_FILE).unlink(missing_ok=True)
        for name, model in self.trained.items():
            save_file(
                {key: value.contiguous() for key, value in model.state_dict().items()}, _weights_file(target, name)
            )
        document = {
            "snapshot": snapshot_id,
            "options": asdict(self.options),
            "labels": self.labels,
            "dims": list(self.dims.items()),
            "samples": self.samples,
            "notes": self.notes,
            "trained": sorted(self.trained),
            "gain": self.gain,
            "models": {name: asdict(result) for name, result in self.models.items()},
        }
        (target / RESULT_FILE).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @staticmethod
    def load_model(folder: Path | str, name: str) -> FusionModel:
        """Return the saved model ``name`` on the CPU, in evaluation mode: it gives the logits that it gave.

        Raises ``StoreError`` when there is no such model, or its weights do not fit what ``result.json`` says.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from pipeline.fusion.models import build

        source = Path(folder)
        try:
            document = json.loads((source / RESULT_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise StoreError(
                f"{source}: no {RESULT_FILE}, so no complete training result; cure: train again"
            ) from error
        if name not in document["trained"]:
            raise StoreError(f"{source}: model: got {name!r}, allowed: {', '.join(document['trained'])}")
        dims = dict(document["dims"])
        model = build(
            list(dims) if name in METHODS else [name],
            dims,
            late=name == "late",
            n_labels=len(document["labels"]),
            hidden=document["options"]["hidden"],
            dropout=document["options"]["dropout"],
        )
        path = _weights_file(source, name)
        try:
            model.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise StoreError(f"{path}: not the weights of {name!r}: {error}; cure: train again") from error
        return model.eval()


def _weights_file(folder: Path, name: str) -> Path:
    return folder / f"{quote(name, safe='')}.safetensors"
