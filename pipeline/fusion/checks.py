"""What training refuses, and what a person should know about the data before it begins."""

from __future__ import annotations

from collections import Counter
from typing import get_args

from features.errors import RunFailedError
from pipeline.fusion.data import FusionData, Split
from pipeline.fusion.options import METHODS, TrainOptions
from pipeline.fusion.result import BASELINES


def check(data: FusionData, options: TrainOptions) -> None:
    """Raise ``RunFailedError`` where training makes no sense."""
    if clash := sorted({*METHODS, *BASELINES} & data.modalities.keys()):
        raise RunFailedError(f"train: modality: got the name {clash[0]!r}, allowed: a name that is no fusion method")
    if unknown := sorted(options.encoders.keys() - data.modalities.keys()):
        raise RunFailedError(
            f"train: encoders: got {unknown[0]!r}, allowed: the aligned features {', '.join(data.modalities)}"
        )
    for split in ("train", "test"):
        if split not in data.splits:
            raise RunFailedError(
                f"train: split {split!r}: got no labelled sample, allowed: at least one; "
                f"splits in the data: {counts(Counter(data.splits))}; cure: declare splits in the catalog"
            )
    train_rows = data.rows("train")
    for name, modality in data.modalities.items():
        if not modality.mask[train_rows].any():
            raise RunFailedError(
                f"train: {name}: got no valid row in split 'train', allowed: at least one; cure: leave the feature out"
            )


def notes(data: FusionData, options: TrainOptions) -> list[str]:
    """What a person should know."""
    found = []
    if data.unlabelled:
        found.append(f"{data.unlabelled} samples have no label and are left out")
    if data.extra_views:
        found.append(f"{data.extra_views} augmented views outside split 'train' are left out")
    if other := Counter(split for split in data.splits if split not in get_args(Split)):
        found.append(f"samples in other splits are not used: {counts(other)}")
    if options.folds:
        found.append(f"{options.folds}-fold cross-validation: every labelled sample is tested on once a seed")
    elif "validation" not in data.splits:
        found.append("there is no validation split: no early stopping, the weights of the last epoch are kept")
    trained = Counter(label for label, split in zip(data.labels, data.splits, strict=True) if split == "train")
    if any(target.kind == "classes" and target.part is None for target in options.targets.values()) and (
        once := sorted(label for label, count in trained.items() if count == 1)
    ):
        found.append(f"labels with a single training sample: {', '.join(map(repr, once))}")
    return found


def counts(counter: Counter[str]) -> str:
    """``120 in 'train', 40 in 'test'``."""
    return ", ".join(f"{count} in {split!r}" for split, count in sorted(counter.items())) or "none"
