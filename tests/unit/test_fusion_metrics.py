"""Metrics against figures worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.fusion.metrics import Metrics, confusion, majority, measure, summary

TRUTH = np.array([0, 0, 0, 1, 1, 2])
PREDICTED = np.array([0, 0, 1, 1, 0, 1])


def test_metrics_are_macro_averages() -> None:
    # Label 0: precision 2/3, recall 2/3. Label 1: precision 1/3, recall 1/2. Label 2: never predicted.
    found = measure(TRUTH, PREDICTED)
    assert found.accuracy == pytest.approx(3 / 6)
    assert found.precision == pytest.approx((2 / 3 + 1 / 3 + 0) / 3)
    assert found.recall == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    assert found.f1 == pytest.approx((2 / 3 + 2 / 5 + 0) / 3)


def test_confusion_has_true_labels_in_rows_and_a_row_for_labels_that_do_not_occur() -> None:
    assert confusion(TRUTH, PREDICTED, 4).tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_the_majority_is_the_first_of_the_most_frequent_labels() -> None:
    assert majority(np.array([2, 1, 1, 2, 0])) == 1


def test_summary_is_mean_and_deviation_over_runs() -> None:
    runs = [Metrics(accuracy=a, precision=1, recall=1, f1=1) for a in (0.5, 0.7)]
    mean, std = summary(runs)
    assert mean.accuracy == pytest.approx(0.6)
    assert std.accuracy == pytest.approx(0.1)
    assert std.f1 == 0
