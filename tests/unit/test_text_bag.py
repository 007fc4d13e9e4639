"""Bags of words and class probabilities: rows, times, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from features.base import Example, NeedsFit
from features.errors import StateError
from features.text.bag import Bow, Tfidf
from features.text.classify import ClassProbabilities
from features.time import ALWAYS, Span
from features.types import Device, Text, TextSegment

CPU: Device = "cpu"
TIMED = Text((TextSegment("a b", Span(1, 4)), TextSegment("zz", Span(2, 3)), TextSegment("b b", Span(5, 6))))
CORPUS = [
    Example(Text((TextSegment("a b"), TextSegment("c"))), "x"),
    Example(Text((TextSegment("b"),)), "y"),
    Example(Text((TextSegment("b d"),)), None),
]
STEPS = pytest.mark.parametrize("step", [Bow(size=4), Tfidf(size=4), ClassProbabilities(classes=("x", "y"))])


def bound(step: Any) -> Any:
    return step.with_state(step.fit(CORPUS))


def test_a_row_a_segment_or_one_for_the_text() -> None:
    (each,) = bound(Bow(size=4))([TIMED], CPU)
    assert each.values.tolist() == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 2, 0, 0]]
    assert each.valid.tolist() == [True, False, True]
    assert (each.start_ns.tolist(), each.end_ns.tolist()) == ([1, 2, 5], [4, 3, 6])
    whole, plain, none = bound(Bow(size=4, rows="text"))([TIMED, CORPUS[1].medium, Text(())], CPU)
    assert whole.values.tolist() == [[1, 3, 0, 0]]
    assert (whole.start_ns.tolist(), whole.end_ns.tolist()) == ([1], [6])
    assert Span(int(plain.start_ns[0]), int(plain.end_ns[0])) == ALWAYS
    assert len(none) == 0


def test_runs_of_words_cross_segments_when_the_vocabulary_is_learnt() -> None:
    state = Bow(size=9, ngrams=2).fit(CORPUS)
    assert state["vocabulary"].tobytes().decode().split("\n") == ["a", "a b", "b", "b c", "b d", "c", "d"]


def test_texts_without_a_label_teach_no_classifier() -> None:
    state = ClassProbabilities(classes=("x", "y")).fit(iter(CORPUS))
    assert state["vocabulary"].tobytes().decode().split("\n") == ["a", "b", "c"]
    assert state["coefficients"].shape == (2, 3)


@STEPS
def test_the_state_is_plain_arrays_and_the_same_every_time(step: Any) -> None:
    assert isinstance(step, NeedsFit)
    content = save(step.fit(CORPUS))
    assert save(step.fit(iter(CORPUS))) == content
    again = step.with_state(load(content))
    assert again([TIMED], CPU)[0].values.tobytes() == bound(step)([TIMED], CPU)[0].values.tobytes()


@STEPS
def test_a_corpus_without_terms_is_refused(step: Any) -> None:
    for corpus in ([], [Example(Text(()), "x")], [Example(Text((TextSegment(" "),)), "x")]):
        with pytest.raises(
            StateError, match=rf"{step.name}: no term of \d texts \(0 different terms\) .*; cure: lower"
        ):
            step.fit(corpus)


def test_labels_and_classes_must_agree() -> None:
    with pytest.raises(StateError, match="classes: got labels 'y', allowed: x, z; cure: name every label"):
        ClassProbabilities(classes=("x", "z")).fit(CORPUS)
    with pytest.raises(StateError, match=r"too few texts with label 'z' \(0\), allowed: at least 1 .* take it out of"):
        ClassProbabilities(classes=("x", "y", "z")).fit(CORPUS)
    with pytest.raises(
        StateError, match=r"label 'x' \(1\), 'y' \(1\), allowed: at least 5 .* lower folds, or take mod"
    ):
        ClassProbabilities(classes=("x", "y"), model="linear_svm").fit(CORPUS)


@STEPS
def test_state_that_does_not_fit_is_refused(step: Any) -> None:
    state = step.fit(CORPUS)
    with pytest.raises(StateError, match=rf"{step.name}: state has no .*vocabulary.*; cure: fit it"):
        step.with_state({})
    for name in sorted(state.keys() - {"vocabulary"}):
        with pytest.raises(StateError, match=rf"{name}: got \[\d"):
            step.with_state({**state, name: np.zeros(7)})
    wrong = {**state, "vocabulary": np.frombuffer(b"a\na", np.uint8)}
    with pytest.raises(StateError, match=r"vocabulary: got 2 terms, 1 of them different, allowed: 1 to \d+ \(size\)"):
        step.with_state(wrong)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Bow(size=0), r"text\.bow: size: got 0, allowed: >= 1"),
        (lambda: Bow(ngrams=0), "ngrams: got 0, allowed: >= 1"),
        (lambda: Tfidf(max_df=0.0), r"text\.tfidf: max_df: got 0\.0, allowed: > 0 and <= 1"),
        (lambda: Tfidf(norm="l1"), "norm: got 'l1', allowed: l2, none"),
        (lambda: Bow(rows="all"), "rows: got 'all', allowed: segment, text"),
        (lambda: Bow(tokenizer="x"), "tokenizer: got 'x', allowed: treebank, tweet, regexp, whitespace"),
        (lambda: ClassProbabilities(classes=("a",)), r"classes: got \['a'\], allowed: two or more different labels"),
        (lambda: ClassProbabilities(classes=("a", "b"), model="x"), "model: got 'x', allowed: naive_bayes, linear_svm"),
        (lambda: ClassProbabilities(classes=("a", "b"), alpha=0.0), r"alpha: got 0\.0, allowed: > 0"),
        (lambda: ClassProbabilities(classes=("a", "b"), folds=1), "folds: got 1, allowed: >= 2"),
        (lambda: ClassProbabilities(classes=("a", "b"), seed=-1), "seed: got -1, allowed: 0 to"),
    ],
)
def test_options_that_do_not_fit_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
