"""What a network must be better than: the most frequent answer, and a linear model of all modalities at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.fusion.metrics import majority
from pipeline.fusion.setup import Setup
from pipeline.fusion.targets import Target, Truth

_ITERATIONS = 300


def most_frequent(setup: Setup) -> list[Truth]:
    """The same answer for every test sample, see ``metrics.majority``."""
    count = len(setup.rows["test"])
    pairs = zip(setup.targets.targets, setup.truth["train"], strict=True)
    return [majority(target, truth, count) for target, truth in pairs]


def linear(setup: Setup, notes: list[str]) -> list[Truth]:
    """Logistic regression (of numbers: ridge regression) by scikit-learn on what the encoders take, side by side.

    Classes are weighed as in the networks' loss. What a person should know is added to ``notes``.
    """
    train, test = setup.flat("train"), setup.flat("test")
    pairs = zip(setup.targets.targets, setup.truth["train"], strict=True)
    return [_fit(target, train, truth, test, notes) for target, truth in pairs]


def _fit(target: Target, train: Truth, truth: Truth, test: Truth, notes: list[str]) -> Truth:
    from sklearn.linear_model import Ridge

    if target.kind == "number":
        scaled = (truth - target.mean) / target.scale
        model = Ridge(alpha=float(train.shape[1])).fit(train, scaled)
        return np.asarray(model.predict(test) * target.scale + target.mean, dtype=np.float32)
    if target.kind == "classes":
        return _logistic(target, train, truth, test, notes).astype(np.int64)
    columns: Sequence[Truth] = [
        _logistic(target, train, flags, test, notes) if len(np.unique(flags)) > 1 else np.full(len(test), flags[0])
        for flags in truth.T.astype(np.int64)
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _logistic(target: Target, train: Truth, truth: Truth, test: Truth, notes: list[str]) -> Truth:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # C shrinks with the width: of many standardised columns each may say less.
    strength = min(1.0, 20 / train.shape[1])
    balanced = "balanced" if target.weights is not None else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model = LogisticRegression(C=strength, class_weight=balanced, max_iter=_ITERATIONS).fit(train, truth)
    if caught:
        note = f"the linear model of {target.name} was stopped after {_ITERATIONS} iterations"
        if note not in notes:
            notes.append(note)
    return np.asarray(model.predict(test))
