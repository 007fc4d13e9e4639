"""Training: every modality alone beside every fusion method, with the same budget, so that the gain is a figure.

All randomness of a model (weights, order of batches, dropout) follows from its seed and its modalities: leaving a
modality or a method out does not change the others. On the CPU two runs give the same bits.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from features.errors import RunFailedError
from pipeline.events import SILENT, Events
from pipeline.execute.engine import resolve_device
from pipeline.fusion.data import FusionData, Modality, Split
from pipeline.fusion.metrics import Classes, confusion, majority, measure, summary
from pipeline.fusion.options import METHODS, TrainOptions
from pipeline.fusion.result import MAJORITY, Epoch, ModelResult, TrainResult

if TYPE_CHECKING:
    import torch

    from pipeline.fusion.models import FusionModel, Summaries

_CHUNK = 256
"""Samples that are summarised at a time."""


def train(data: FusionData, options: TrainOptions, events: Events = SILENT) -> TrainResult:
    """Train on the split "train", stop by "validation", measure on "test".

    Raises ``RunFailedError`` when the data cannot be trained on: a split without rows, fewer than two labels, a label
    outside training that training has not, a modality without a valid row in training, a loss that is not finite;
    ``GristmillError`` when CUDA is asked for and missing.
    """
    labels, notes = _check(data)
    device = resolve_device(options.device)
    for note in notes:
        events.note(note)
    setup = _Setup(data, options, labels, device)
    names = list(data.modalities)
    runs: dict[str, list[_Run]] = {name: [] for name in [*names, *options.methods]}
    events.started("train", options.seeds * (len(names) + ("early" in options.methods)), "models")
    for seed in range(options.seed, options.seed + options.seeds):
        for name in names:
            runs[name].append(setup.fit([name], seed))
            events.advanced("train")
        if "early" in options.methods:
            runs["early"].append(setup.fit(names, seed))
            events.advanced("train")
        if "late" in options.methods:
            runs["late"].append(setup.late([runs[name][-1] for name in names]))
    truth = setup.truth["test"]
    models = {name: _result(truth, found, len(labels)) for name, found in runs.items()}
    guess = np.full_like(truth, majority(setup.truth["train"]))
    models[MAJORITY] = _result(truth, [_Run(None, guess, ())] * options.seeds, len(labels))
    result = TrainResult(
        options=options,
        labels=labels,
        dims=data.dims,
        samples={split: len(rows) for split, rows in setup.truth.items()},
        models=models,
        notes=notes,
        trained={name: found[0].model.cpu() for name, found in runs.items() if found[0].model is not None},
    )
    events.finished("train", f"{len(truth)} test samples, {len(labels)} labels")
    return result


def _check(data: FusionData) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the labels, sorted, and what a person should know; raise where training makes no sense."""
    if clash := sorted({*METHODS, MAJORITY} & data.modalities.keys()):
        raise RunFailedError(f"train: modality: got the name {clash[0]!r}, allowed: a name that is no fusion method")
    found = {split: Counter(data.labels[row] for row in data.rows(split)) for split in get_args(Split)}
    for split in ("train", "test"):
        if not found[split]:
            raise RunFailedError(
                f"train: split {split!r}: got no labelled sample, allowed: at least one; "
                f"splits in the data: {_counts(Counter(data.splits))}; cure: declare splits in the catalog"
            )
    if len(found["train"]) < 2:
        raise RunFailedError(
            f"train: labels: got only {next(iter(found['train']))!r} in split 'train', allowed: at least 2 labels"
        )
    for split in ("validation", "test"):
        if unseen := sorted(found[split].keys() - found["train"].keys()):
            raise RunFailedError(
                f"train: labels: got {', '.join(map(repr, unseen))} in split {split!r} but not in 'train', "
                "allowed: labels that training has seen; cure: split the data set by label"
            )
    train_rows = data.rows("train")
    for name, modality in data.modalities.items():
        if not modality.mask[train_rows].any():
            raise RunFailedError(
                f"train: {name}: got no valid row in split 'train', allowed: at least one; cure: leave the feature out"
            )
    return tuple(sorted(found["train"])), tuple(_notes(data, found))


def _notes(data: FusionData, found: dict[str, Counter[str]]) -> list[str]:
    notes = []
    if data.unlabelled:
        notes.append(f"{data.unlabelled} samples have no label and are left out")
    if data.extra_views:
        notes.append(f"{data.extra_views} augmented views outside split 'train' are left out")
    if other := Counter(split for split in data.splits if split not in found):
        notes.append(f"samples in other splits are not used: {_counts(other)}")
    if not found["validation"]:
        notes.append("there is no validation split: no early stopping, the weights of the last epoch are kept")
    if once := sorted(label for label, count in found["train"].items() if count == 1):
        notes.append(f"labels with a single training sample: {', '.join(map(repr, once))}")
    return notes


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} in {split!r}" for split, count in sorted(counter.items())) or "none"


@dataclass(frozen=True, eq=False)
class _Run:
    """One model of one seed (early or late fusion; ``None`` for the baseline), and what it says of the test split."""

    model: Any
    predicted: Classes
    history: tuple[Epoch, ...]


def _result(truth: Classes, runs: Sequence[_Run], n_labels: int) -> ModelResult:
    measured = tuple(measure(truth, run.predicted) for run in runs)
    mean, std = summary(measured)
    counts = sum(confusion(truth, run.predicted, n_labels) for run in runs)
    return ModelResult(
        mean=mean,
        std=std,
        runs=measured,
        confusion=tuple(tuple(row) for row in np.asarray(counts).tolist()),
        epochs=tuple(len(run.history) for run in runs if run.history),
        history=runs[0].history,
    )


def _seed(seed: int, names: Sequence[str]) -> int:
    """Derive the seed of a model: the same whatever else is trained beside it."""
    text = json.dumps([seed, *names]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "little")


class _Setup:
    """The data on the device, with time taken out of it once, and what all models share."""

    def __init__(self, data: FusionData, options: TrainOptions, labels: tuple[str, ...], device: str) -> None:
        import torch

        self.options = options
        self.device = device
        self.dims = data.dims
        number = {label: k for k, label in enumerate(labels)}
        rows = {split: data.rows(split) for split in get_args(Split)}
        self.truth: dict[str, Classes] = {
            split: np.array([number[data.labels[row]] for row in index], dtype=np.int64)
            for split, index in rows.items()
        }
        self.target = {split: torch.from_numpy(truth).to(device) for split, truth in self.truth.items()}
        counts = torch.bincount(self.target["train"], minlength=len(labels)).float()
        self.prior = (counts / counts.sum()).log()
        self.class_weight = counts.sum() / (len(labels) * counts) if options.balanced else None
        self.standard = {
            name: _standard(modality.values[rows["train"]], modality.mask[rows["train"]])
            for name, modality in data.modalities.items()
        }
        self.summaries = {
            split: {name: self._summarise(name, data.modalities[name], index) for name in data.modalities}
            for split, index in rows.items()
        }

    def _summarise(self, name: str, modality: Modality, rows: Classes) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        from pipeline.fusion.models import statistics

        mean, scale = (torch.from_numpy(one).to(self.device) for one in self.standard[name])
        parts = []
        for begin in range(0, len(rows), _CHUNK):
            chunk = rows[begin : begin + _CHUNK]
            values = torch.from_numpy(modality.values[chunk]).to(self.device)
            parts.append(statistics((values - mean) / scale, torch.from_numpy(modality.mask[chunk]).to(self.device)))
        pooled = torch.cat(parts) if parts else torch.zeros((0, 2 * modality.dim), device=self.device)
        return pooled, torch.from_numpy(modality.mask[rows].any(axis=1)).to(self.device)

    def _standardise(self, encoder: Any, name: str) -> None:
        import torch

        mean, scale = self.standard[name]
        encoder.mean.copy_(torch.from_numpy(mean))
        encoder.scale.copy_(torch.from_numpy(scale))

    def _inputs(self, names: Sequence[str], split: str) -> Summaries:
        import torch

        from pipeline.fusion.models import Summaries

        chosen = [self.summaries[split][name] for name in names]
        return Summaries([pooled for pooled, _ in chosen], torch.stack([present for _, present in chosen], dim=1))

    def late(self, singles: Sequence[_Run]) -> _Run:
        """Put the classifiers of the single modalities together; there is nothing to train."""
        from pipeline.fusion.models import LateFusion

        return self._judged(LateFusion([single.model for single in singles]), ())

    def fit(self, names: Sequence[str], seed: int) -> _Run:
        """Train early fusion of ``names`` (of one modality: its classifier)."""
        import torch

        from pipeline.fusion.models import EarlyFusion

        options = self.options
        cuda = list(range(torch.cuda.device_count())) if self.device == "cuda" else []
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(_seed(seed, names))
            dims = {name: self.dims[name] for name in names}
            model = EarlyFusion(dims, len(self.prior), options.hidden, options.dropout).to(self.device)
            model.prior.copy_(self.prior)
            for name, encoder in zip(names, model.encoders(), strict=True):
                self._standardise(encoder, name)
            history = self._descend(model, f"{'early' if len(names) > 1 else names[0]}, seed {seed}")
        return self._judged(model, history)

    def _descend(self, model: FusionModel, what: str) -> tuple[Epoch, ...]:
        import torch

        from pipeline.fusion.models import parameter_groups

        options = self.options
        inputs, target = self._inputs(model.names, "train"), self.target["train"]
        held_out, held_out_target = self._inputs(model.names, "validation"), self.target["validation"]
        loss_of = torch.nn.CrossEntropyLoss(weight=self.class_weight)
        optimizer = torch.optim.AdamW(parameter_groups(model, options.learning_rate, options.weight_decay))
        history: list[Epoch] = []
        best_loss, best_epoch, best = math.inf, 0, model.state_dict()
        for epoch in range(options.epochs):
            model.train()
            losses = torch.zeros((), device=self.device)
            order = torch.randperm(len(target)).to(self.device)
            for begin in range(0, len(order), options.batch_size):
                index = order[begin : begin + options.batch_size]
                loss = loss_of(model.classify(inputs.rows(index)), target[index])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses += loss.detach() * len(index)
            total, judged = float(losses), None
            if len(held_out_target):
                model.eval()
                with torch.no_grad():
                    judged = float(loss_of(model.classify(held_out), held_out_target))
            history.append(Epoch(train_loss=total / len(target), validation_loss=judged))
            if not math.isfinite(total) or (judged is not None and not math.isfinite(judged)):
                raise RunFailedError(
                    f"train: {what}, epoch {epoch + 1}: the loss is not finite; "
                    "cure: a lower learning_rate, or look for extreme values in the features"
                )
            if judged is not None and judged < best_loss:
                best_loss, best_epoch = judged, epoch
                best = {key: value.clone() for key, value in model.state_dict().items()}
            elif judged is not None and epoch - best_epoch >= options.patience:
                break
        model.load_state_dict(best)
        return tuple(history)

    def _judged(self, model: FusionModel, history: tuple[Epoch, ...]) -> _Run:
        import torch

        model.eval()
        with torch.no_grad():
            predicted = model.classify(self._inputs(model.names, "test")).argmax(dim=1)
        return _Run(model, predicted.cpu().numpy(), history)


def _standard(
    values: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Mean and standard deviation of each dimension over the valid rows; 1 for a dimension that is constant."""
    rows = values[mask]
    mean = rows.mean(axis=0, dtype=np.float64)
    std = rows.std(axis=0, dtype=np.float64).astype(np.float32)
    constant = std <= 1e-6 * np.abs(mean)  # below what float32 tells apart: rounding, not variation
    return mean.astype(np.float32), np.where(constant, 1.0, std).astype(np.float32)
