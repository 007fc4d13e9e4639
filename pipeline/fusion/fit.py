"""Training: every modality alone beside every fusion method, with the same budget, so that the gain is a figure.

All randomness of a model (weights, order of batches, dropout) follows from its seed, its method and its modalities:
leaving a modality or a method out does not change the others. On the CPU two runs give the same bits, also when one of
them was killed and went on from what it kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from pipeline.events import SILENT, Events
from pipeline.execute.engine import resolve_device
from pipeline.fusion import checks
from pipeline.fusion.data import FusionData, Split
from pipeline.fusion.folds import folds
from pipeline.fusion.metrics import confusion, main_metric, summary
from pipeline.fusion.options import TrainOptions
from pipeline.fusion.result import Judged, ModelResult, TrainResult
from pipeline.fusion.targets import Targets, Truth, read_targets

if TYPE_CHECKING:
    from pipeline.fusion.keep import Keeper

_LATE = ("late", "vote", "stacking")


def train(
    data: FusionData, options: TrainOptions, events: Events = SILENT, keeper: Keeper | None = None
) -> TrainResult:
    """Train on the split "train", stop by "validation", measure on "test"; or on every fold.

    ``keeper``: keeps what is trained, so that a training that was killed goes on. Raises ``RunFailedError`` when the
    data cannot be trained on: a split without rows, fewer than two labels, a label outside training that training has
    not, a modality without a valid row in training, a loss that is not finite; ``GristmillError`` when CUDA is asked
    for and missing.
    """
    device = resolve_device(options.device)
    found = [_fold(number, part, options, device, events, keeper) for number, part in enumerate(folds(data, options))]
    return _together(found, options, data)


@dataclass(eq=False, kw_only=True)
class Fold:
    """The runs of all models in one fold. ``without``: modality -> score of early fusion without it, one a seed."""

    targets: Targets
    truth: list[Truth]
    samples: dict[str, int]
    runs: dict[str, list[Judged]]
    without: dict[str, list[float]]
    notes: list[str]


def _fold(
    number: int, data: FusionData, options: TrainOptions, device: str, events: Events, keeper: Keeper | None
) -> Fold:
    from pipeline.fusion.keep import Keeper
    from pipeline.fusion.trial import Trial

    checks.check(data, options)
    targets, truth = read_targets(
        data.labels,
        data.rows("train"),
        np.concatenate([data.rows(split) for split in get_args(Split)]),
        options.targets,
        separator=options.separator,
        between=options.between,
        balanced=options.balanced,
    )
    notes = checks.notes(data, options)
    if not number:
        for note in notes:
            events.note(note)
    names = list(data.modalities)
    trial = Trial(data, targets, truth, options, device, events, keeper or Keeper(), number)
    runs: dict[str, list[Judged]] = {name: [] for name in [*names, *options.methods]}
    without: dict[str, list[float]] = {name: [] for name in names} if options.ablation and len(names) > 1 else {}
    events.started("train", options.seeds * trial.models, "models")
    for seed in range(options.seed, options.seed + options.seeds):
        for name in names:
            runs[name].append(trial.fit("early", [name], seed))
        for method in options.methods:
            singles = [runs[name][-1].model for name in names]
            runs[method].append(
                trial.late(method, singles, seed) if method in _LATE else trial.fit(method, names, seed)
            )
        for name, scores in without.items():
            others = [other for other in names if other != name]
            scores.append(trial.fit("early", others, seed, as_method=False).metrics[main_metric(targets)])
    runs |= trial.baselines(notes)
    events.finished("train", f"{len(data.rows('test'))} test samples, {targets.width} outputs")
    return Fold(
        targets=targets,
        truth=trial.setup.truth["test"],
        samples={split: len(rows) for split, rows in trial.setup.rows.items()},
        runs=runs,
        without=without,
        notes=notes,
    )


def _together(found: Sequence[Fold], options: TrainOptions, data: FusionData) -> TrainResult:
    first = found[0]
    fused = [method for method in options.methods if first.runs[method][0].missing]
    shared = [method for method in options.methods if first.runs[method][0].retrieval]
    return TrainResult(
        options=options,
        targets=first.targets,
        dims=data.dims,
        samples=first.samples,
        models={name: _result(name, found) for name in first.runs},
        notes=tuple(first.notes),
        missing={method: _mean([run.missing for fold in found for run in fold.runs[method]]) for method in fused},
        without={
            name: float(np.mean([score for fold in found for score in fold.without[name]])) for name in first.without
        },
        retrieval={method: _recalls([run for fold in found for run in fold.runs[method]]) for method in shared},
        trained={name: runs[0].model.cpu() for name, runs in first.runs.items() if runs[0].model is not None},
    )


def _mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def _recalls(runs: Sequence[Judged]) -> list[dict[str, Any]]:
    """The mean over runs of each pair of modalities."""
    pairs = zip(*(run.retrieval for run in runs), strict=True)
    return [
        {key: value if isinstance(value, str) else float(np.mean([row[key] for row in rows]))
         for key, value in rows[0].items()}
        for rows in pairs
    ]  # fmt: skip


def _result(name: str, found: Sequence[Fold]) -> ModelResult:
    runs = [(fold, run) for fold in found for run in fold.runs[name]]
    measured = tuple(run.metrics for _, run in runs)
    mean, std = summary(measured)
    return ModelResult(
        mean=mean,
        std=std,
        runs=measured,
        confusion=_confusions(runs),
        epochs=tuple(len(run.history) for _, run in runs if run.history),
        history=runs[0][1].history,
    )


def _confusions(runs: Sequence[tuple[Fold, Judged]]) -> tuple[tuple[int, ...], ...]:
    """Counts of all runs, of the first target with classes. Folds whose training had other classes are left out."""
    targets = runs[0][0].targets.targets
    place = next((k for k, target in enumerate(targets) if target.kind == "classes"), None)
    if place is None:
        return ()
    labels = targets[place].labels
    counts = sum(
        confusion(fold.truth[place], run.said[place], len(labels))
        for fold, run in runs
        if fold.targets.targets[place].labels == labels
    )
    return tuple(tuple(row) for row in np.asarray(counts).tolist())
