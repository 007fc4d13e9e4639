"""How good a model is on the test split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from pipeline.fusion.targets import Target, Targets, Truth

Classes: TypeAlias = npt.NDArray[np.int64]
Metrics: TypeAlias = dict[str, float]

MAIN = {"classes": "accuracy", "labels": "f1", "number": "r2"}
"""Kind of target -> the metric that models are compared by."""
SCORE = "score"
"""Of several targets: the mean of their main metrics."""


def main_metric(targets: Targets) -> str:
    """The name of the metric that models are compared by; the higher, the better."""
    return MAIN[targets.targets[0].kind] if len(targets.targets) == 1 else SCORE


def score(targets: Targets, truth: Sequence[Truth], said: Sequence[Truth]) -> float:
    """The metric that models are compared by, on its own: much faster than ``measure_all``."""
    parts = zip(targets.targets, truth, said, strict=True)
    return float(np.mean([_QUICK[target.kind](true, told) for target, true, told in parts]))


def measure_all(targets: Targets, truth: Sequence[Truth], said: Sequence[Truth]) -> Metrics:
    """All metrics. Of several targets: each as ``target.metric``, and ``score`` first."""
    found = [_MEASURES[one.kind](true, told) for one, true, told in zip(targets.targets, truth, said, strict=True)]
    if len(found) == 1:
        (only,) = found
        return dict(only)
    named = {f"{one.name}.{key}": value for one, each in zip(targets.targets, found, strict=True)
             for key, value in each.items()}  # fmt: skip
    return {SCORE: score(targets, truth, said), **named}


def measure(truth: Classes, predicted: Classes) -> Metrics:
    """Compare class numbers, int64 ``[N]`` each, N >= 1 (scikit-learn's definitions).

    Shares in [0, 1]. Precision, recall and F1 are macro averages: every class that occurs weighs the same. A class
    occurs when it is among the true or the predicted ones; one that was never predicted has precision 0.
    """
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    precision, recall, f1, _ = precision_recall_fscore_support(truth, predicted, average="macro", zero_division=0.0)
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
    }


def measure_labels(truth: Truth, predicted: Truth) -> Metrics:
    """Compare sets of labels, flags ``[N, K]``: macro averages over labels.

    Accuracy is the share of sets that are exactly right.
    """
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    true, told = truth.astype(np.int64), predicted.astype(np.int64)
    precision, recall, f1, _ = precision_recall_fscore_support(true, told, average="macro", zero_division=0.0)
    return {
        "f1": float(f1),
        "precision": float(precision),
        "recall": float(recall),
        "accuracy": float(accuracy_score(true, told)),
    }


def measure_numbers(truth: Truth, predicted: Truth) -> Metrics:
    """Compare numbers ``[N]``: share of variance that is explained (r2), mean absolute and mean squared error."""
    from sklearn.metrics import mean_absolute_error, mean_squared_error

    return {
        "r2": _explained(truth, predicted),
        "mae": float(mean_absolute_error(truth, predicted)),
        "mse": float(mean_squared_error(truth, predicted)),
    }


def _explained(truth: Truth, predicted: Truth) -> float:
    """1 - mean squared error / variance; of numbers that are all the same, 1 when they are met and 0 otherwise."""
    true, told = truth.astype(np.float64), predicted.astype(np.float64)
    error, variance = float(np.square(true - told).mean()), float(true.var())
    if variance > 0:
        return 1 - error / variance
    return 1.0 if error == 0 else 0.0


def _macro_f1(truth: Truth, predicted: Truth) -> float:
    both = (truth * predicted).sum(axis=0)
    either = truth.sum(axis=0) + predicted.sum(axis=0)
    return float(np.divide(2 * both, either, out=np.zeros(len(both)), where=either > 0).mean())


_QUICK = {
    "classes": lambda truth, said: float(np.mean(truth == said)),
    "labels": _macro_f1,
    "number": _explained,
}
_MEASURES: dict[str, Any] = {"classes": measure, "labels": measure_labels, "number": measure_numbers}


def confusion(truth: Classes, predicted: Classes, n_classes: int) -> npt.NDArray[np.int64]:
    """Return the confusion matrix ``[n_classes, n_classes]``: rows are true classes, columns predicted ones."""
    from sklearn.metrics import confusion_matrix

    return np.asarray(confusion_matrix(truth, predicted, labels=np.arange(n_classes)), dtype=np.int64)


def majority(target: Target, train: Truth, count: int) -> Truth:
    """What a model says that knows nothing of a sample, ``count`` times.

    The most frequent class of the training split (the first where several are), the labels that more than half of its
    samples have, or the mean number (scikit-learn's ``DummyClassifier`` and ``DummyRegressor``).
    """
    from sklearn.dummy import DummyClassifier, DummyRegressor

    dummy = DummyRegressor() if target.kind == "number" else DummyClassifier(strategy="most_frequent")
    blank = np.zeros((len(train), 1))
    return np.asarray(dummy.fit(blank, train).predict(np.zeros((count, 1)))).astype(train.dtype)


def summary(runs: Sequence[Metrics]) -> tuple[Metrics, Metrics]:
    """Return mean and population standard deviation of each metric over runs (one run: deviation 0)."""
    numbers = {name: [run[name] for run in runs] for name in runs[0]}
    return (
        {name: float(np.mean(values)) for name, values in numbers.items()},
        {name: float(np.std(values)) for name, values in numbers.items()},
    )
