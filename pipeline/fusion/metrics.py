"""How good a classifier is on the test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

Classes = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """Shares in [0, 1]. Precision, recall and F1 are macro averages: every label that occurs weighs the same.

    A label occurs when it is among the true or the predicted ones; a label that was never predicted has precision 0.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float


def measure(truth: Classes, predicted: Classes) -> Metrics:
    """Compare class numbers, int64 ``[N]`` each, N >= 1 (scikit-learn's definitions)."""
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    precision, recall, f1, _ = precision_recall_fscore_support(truth, predicted, average="macro", zero_division=0.0)
    return Metrics(
        accuracy=float(accuracy_score(truth, predicted)), precision=float(precision), recall=float(recall), f1=float(f1)
    )


def confusion(truth: Classes, predicted: Classes, n_classes: int) -> npt.NDArray[np.int64]:
    """Return the confusion matrix ``[n_classes, n_classes]``: rows are true classes, columns predicted ones."""
    from sklearn.metrics import confusion_matrix

    return np.asarray(confusion_matrix(truth, predicted, labels=np.arange(n_classes)), dtype=np.int64)


def majority(train: Classes) -> int:
    """Return the most frequent class of the training split, the smallest number where several are."""
    return int(np.bincount(train).argmax())


def summary(runs: Sequence[Metrics]) -> tuple[Metrics, Metrics]:
    """Return mean and population standard deviation of each metric over runs (one run: deviation 0)."""
    numbers = {name: [asdict(run)[name] for run in runs] for name in asdict(runs[0])}
    return (
        Metrics(**{name: float(np.mean(values)) for name, values in numbers.items()}),
        Metrics(**{name: float(np.std(values)) for name, values in numbers.items()}),
    )
