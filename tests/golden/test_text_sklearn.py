"""Bags of words and class probabilities against scikit-learn, on texts drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.naive_bayes import MultinomialNB

from features.base import Example
from features.text.bag import Bow, Tfidf
from features.text.classify import ClassProbabilities, linear_svm
from features.text.tokenizers import tokenize_with
from features.types import Device, Text, TextSegment

CPU: Device = "cpu"
LABELS = ("rye", "wheat", "barley")


def drawn(seed: int, count: int) -> tuple[list[str], list[str]]:
    """Texts whose words depend on their label."""
    rng = np.random.default_rng(seed)
    vocabulary = np.array([f"w{k}" for k in range(60)] + ["don't", "你", "好", "é"])
    texts, labels = [], []
    for _ in range(count):
        code = int(rng.integers(3))
        weights = np.ones(len(vocabulary))
        weights[code * 12 : code * 12 + 12] = 4
        texts.append(" ".join(rng.choice(vocabulary, rng.integers(2, 15), p=weights / weights.sum())))
        labels.append(LABELS[code])
    return texts, labels


TRAIN, TRAIN_LABELS = drawn(0, 240)
NEW = [*drawn(1, 50)[0], "unheard of", ""]


def media(texts: list[str]) -> list[Text]:
    return [Text((TextSegment(text),)) for text in texts]


def examples(texts: list[str], labels: list[str]) -> list[Example]:
    return [Example(text, label) for text, label in zip(media(texts), labels, strict=True)]


def rows(step: Any, texts: list[str]) -> tuple[Any, Any]:
    bound = step.with_state(step.fit(examples(TRAIN, TRAIN_LABELS)))
    found = bound(media(texts), CPU)
    return np.vstack([one.values for one in found]), np.concatenate([one.valid for one in found])


@pytest.mark.parametrize(
    ("step", "reference", "options"),
    [
        (Bow(), CountVectorizer, {}),
        (Bow(binary=True, ngrams=3), CountVectorizer, {"binary": True, "ngram_range": (1, 3)}),
        (Tfidf(), TfidfVectorizer, {}),
        (Tfidf(ngrams=2, min_df=3, max_df=0.4), TfidfVectorizer, {"ngram_range": (1, 2), "min_df": 3, "max_df": 0.4}),
        (Tfidf(sublinear=True, norm="none"), TfidfVectorizer, {"sublinear_tf": True, "norm": None}),
    ],
)
def test_bags_are_scikit_learn_s(step: Any, reference: Any, options: dict[str, Any]) -> None:
    theirs = reference(tokenizer=tokenize_with("regexp"), token_pattern=None, lowercase=False, **options).fit(TRAIN)
    names = theirs.get_feature_names_out().tolist()
    step = type(step)(**{**vars(step), "size": len(names) + 3})
    state = step.fit(examples(TRAIN, TRAIN_LABELS))
    assert state["vocabulary"].tobytes().decode().split("\n") == names
    values, valid = rows(step, NEW)
    np.testing.assert_allclose(values[:, : len(names)], theirs.transform(NEW).toarray(), atol=1e-6)
    assert not values[:, len(names) :].any(), "columns beyond the vocabulary"
    assert valid.tolist() == [True] * 50 + [False] * 2


def test_the_most_frequent_terms_are_kept() -> None:
    counts = CountVectorizer(tokenizer=str.split, token_pattern=None, lowercase=False).fit(TRAIN)
    totals = counts.transform(TRAIN).toarray().sum(axis=0)
    names = counts.get_feature_names_out()
    kept = sorted(sorted(range(len(names)), key=lambda k: (-totals[k], names[k]))[:10])
    state = Bow(size=10, tokenizer="whitespace").fit(examples(TRAIN, TRAIN_LABELS))
    assert state["vocabulary"].tobytes().decode().split("\n") == names[kept].tolist()


@pytest.mark.parametrize("weighting", ["tfidf", "counts"])
@pytest.mark.parametrize("classes", [LABELS, ("wheat", "rye")])
@pytest.mark.parametrize("model", ["naive_bayes", "linear_svm"])
def test_probabilities_are_predict_proba_s(model: Any, classes: Any, weighting: Any) -> None:
    step = ClassProbabilities(classes=classes, model=model, weighting=weighting, alpha=0.5, regularization=0.3)
    chosen = [k for k, label in enumerate(TRAIN_LABELS) if label in classes]
    texts, labels = [TRAIN[k] for k in chosen], [TRAIN_LABELS[k] for k in chosen]
    state = step.fit(examples(texts, labels))
    bound = step.with_state(state)
    # theirs is fitted on the very same rows: the solver stops at a tolerance, wherever rounding has led it
    idf = state["idf"]
    train = step.weighed(bound.vocabulary.count(texts)[0], idf)
    theirs = MultinomialNB(alpha=0.5) if model == "naive_bayes" else linear_svm(step)
    theirs.fit(train, [classes.index(label) for label in labels])
    expected = theirs.predict_proba(step.weighed(bound.vocabulary.count(NEW[:50])[0], idf))
    found = bound(media(NEW), CPU)
    values = np.vstack([one.values for one in found])
    np.testing.assert_allclose(values[:50], expected, atol=1e-6)
    np.testing.assert_allclose(values[:50].sum(axis=1), 1, atol=1e-6)
    assert [bool(one.valid[0]) for one in found] == [True] * 50 + [False] * 2
    reference = TfidfVectorizer if weighting == "tfidf" else CountVectorizer
    plain = reference(tokenizer=tokenize_with("regexp"), token_pattern=None, lowercase=False).fit_transform(texts)
    np.testing.assert_allclose(train.toarray(), plain.toarray(), atol=1e-12)


@pytest.mark.parametrize("model", ["naive_bayes", "linear_svm"])
def test_new_texts_are_told_apart(model: Any) -> None:
    step = ClassProbabilities(classes=LABELS, model=model)
    bound = step.with_state(step.fit(examples(TRAIN, TRAIN_LABELS)))
    texts, labels = drawn(2, 200)
    chosen = [LABELS[int(one.values[0].argmax())] for one in bound(media(texts), CPU)]
    right = np.mean([a == b for a, b in zip(chosen, labels, strict=True)])
    assert right > 0.6, "chance is 1/3"
