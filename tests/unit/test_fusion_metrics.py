"""Metrics against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.fusion.metrics import (
    confusion,
    main_metric,
    majority,
    measure,
    measure_all,
    measure_labels,
    measure_numbers,
    score,
    summary,
)
from pipeline.fusion.targets import Target, Targets

TRUTH = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 0, 1])


def test_metrics_are_macro_averages() -> None:
    # Label 0: precision 2/3, recall 2/3. Label 1: precision 1/3, recall 1/2. Label 2: never predicted.
    found = measure(TRUTH, PREDICTED)
    assert found["accuracy"] == pytest.approx(3 / 6)
    assert found["precision"] == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert found["recall"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found["f1"] == pytest.approx((2 / 3 + 2 / 5 + 0) / 3)


def test_confusion_has_true_labels_in_rows_and_a_row_for_labels_that_do_not_occur() -> None:
    assert confusion(TRUTH, PREDICTED, 4).tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def target(kind: str, name: str = "label", width: int = 3) -> Target:
    labels = () if kind == "number" else tuple("abcd"[:width])
    prior = (0.0,) * (1 if kind == "number" else width)
    return Target(name=name, kind=kind, weight=1.0, labels=labels, prior=prior, weights=None)  # type: ignore[arg-type]


def test_the_majority_is_the_first_of_the_most_frequent_labels() -> None:
    assert majority(target("classes"), np.array([2, 1, 1, 2, 0]), 2).tolist() == [1, 1]


def test_the_majority_of_sets_and_numbers() -> None:
    flags = np.array([[1, 0], [1, 1], [1, 0]], dtype=np.float32)
    assert majority(target("labels", width=2), flags, 2).tolist() == [[1, 0], [1, 0]]
    assert majority(target("number"), np.array([1, 2, 6], dtype=np.float32), 1).tolist() == [3]


def test_sets_of_labels_are_judged_label_by_label() -> None:
    truth = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], dtype=np.float32)
    said = np.array([[1, 0], [1, 0], [0, 1], [1, 0]], dtype=np.float32)
    found = measure_labels(truth, said)
    # First label: 2 of 3 told are true, 2 of 2 found; second: 1 of 1 and 1 of 2. Two of four sets are exactly right.
    assert found["precision"] == pytest.approx((2 / 3 + 1) / 2)
    assert found["recall"] == pytest.approx((1 + 1 / 2) / 2)
    assert found["f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert found["accuracy"] == 0.5


def test_numbers_are_judged_by_the_variance_that_is_explained() -> None:
    truth, said = np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 4.0])
    assert measure_numbers(truth, said) == pytest.approx({"r2": 1 - (1 / 3) / (2 / 3), "mae": 1 / 3, "mse": 1 / 3})


def test_several_targets_are_named_and_their_score_is_the_mean_of_their_main_metrics() -> None:
    targets = Targets(targets=(target("classes", "kind"), target("number", "size")))
    truth = [TRUTH, np.array([1.0, 2.0, 3.0, 1.0, 2.0, 3.0])]
    said = [PREDICTED, np.array([1.0, 2.0, 3.0, 1.0, 2.0, 3.0])]
    found = measure_all(targets, truth, said)
    assert main_metric(targets) == "score"
    assert found["kind.accuracy"] == 0.5
    assert found["size.r2"] == 1
    assert found["score"] == score(targets, truth, said) == 0.75


@pytest.mark.parametrize("kind", ["classes", "labels", "number"])
def test_the_quick_score_is_the_main_metric(kind: str) -> None:
    random = np.random.default_rng(3)
    shape = (40, 3) if kind == "labels" else (40,)
    top = {"classes": 3, "labels": 2, "number": 9}[kind]
    truth, said = (random.integers(0, top, shape).astype(np.int64 if kind == "classes" else np.float32) for _ in "ab")
    targets = Targets(targets=(target(kind),))
    assert score(targets, [truth], [said]) == pytest.approx(
        measure_all(targets, [truth], [said])[main_metric(targets)], rel=1e-6
    )


def test_summary_is_mean_and_deviation_over_runs() -> None:
    runs = [{"accuracy": a, "f1": 1.0} for a in (0.5, 0.7)]
    mean, std = summary(runs)
    assert mean["accuracy"] == pytest.approx(0.6)
    assert std["accuracy"] == pytest.approx(0.1)
    assert std["f1"] == 0
