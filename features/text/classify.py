"""Class probabilities of texts: naive Bayes, or a linear SVM whose scores are calibrated; fitted on labelled texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from features.base import Example, State, WordCounts
from features.errors import StateError
from features.text.counting import Corpus, Sparse, Terms, Vocabulary, smooth_idf, weigh
from features.text.rows import ROWS, Rows, documents
from features.text.tokenizers import Tokenizer, check_choice
from features.types import Device, FeatureSequence, Stream, Text

_ARRAYS = ("idf", "coefficients", "intercepts")
_SIGMOID = ("slopes", "offsets")


@dataclass(frozen=True, kw_only=True)
class ClassProbabilities:
    """The probability of each class for a text (or segment): one row each, float32, that sums to 1, with its span.

    ``model`` "naive_bayes": multinomial naive Bayes with additive smoothing ``alpha``; "linear_svm": one linear SVM a
    class (``regularization`` C, squared hinge), its scores made probabilities by a sigmoid (Platt 1999) that is fitted
    to scores of a cross-validation in ``folds`` parts, then put to sum 1. Both by scikit-learn, on tf-idf rows of
    length 1 ("tfidf") or plain counts ("counts", as ``weighting`` says). What is stored are arrays; probabilities are
    computed from them here.

    Fitted on the training split: each text with a label is one document, texts without one are left out. ``classes``
    are the labels, in the order of the columns; other labels, and classes without an example, are a ``StateError``. A
    text with no term of the vocabulary gives a row that is not valid.

    The probabilities of a training sample come from a model that has seen its label: they are surer than those of new
    samples, so judge what is built on them on the validation and test splits.

    Other options are as in ``text.bow``; ``rows`` "text" gives one row a text, "segment" one a segment.
    """

    name: ClassVar[str] = "text.class_probabilities"
    stream: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = ("nltk", "scikit-learn")

    classes: tuple[str, ...]
    model: Literal["naive_bayes", "linear_svm"] = "naive_bayes"
    weighting: Literal["tfidf", "counts"] = "tfidf"
    alpha: float = 1.0
    regularization: float = 1.0
    folds: int = 5
    size: int = 20_000
    ngrams: int = 1
    min_df: int = 1
    max_df: float = 1.0
    tokenizer: Tokenizer = "regexp"
    rows: Rows = "text"
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"{self.name}: classes: got {list(self.classes)!r}, allowed: two or more different labels")
        check_choice(self.name, "model", self.model, ("naive_bayes", "linear_svm"))
        check_choice(self.name, "weighting", self.weighting, ("tfidf", "counts"))
        check_choice(self.name, "rows", self.rows, ROWS)
        for option in ("alpha", "regularization"):
            if not 0 < getattr(self, option) < float("inf"):
                raise ValueError(f"{self.name}: {option}: got {getattr(self, option)!r}, allowed: > 0")
        if self.folds < 2:
            raise ValueError(f"{self.name}: folds: got {self.folds!r}, allowed: >= 2")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"{self.name}: seed: got {self.seed!r}, allowed: 0 to 2**32 - 1")
        self._terms.check(self.name)

    @property
    def _terms(self) -> Terms:
        return Terms(
            tokenizer=self.tokenizer, ngrams=self.ngrams, min_df=self.min_df, max_df=self.max_df, size=self.size
        )

    @property
    def dim(self) -> int:
        """Width of a row: the number of ``classes``."""
        return len(self.classes)

    def fit(self, corpus: Iterable[Example]) -> dict[str, npt.NDArray[Any]]:
        """Learn from texts with labels: ``vocabulary``, ``idf`` and the model's ``coefficients`` and ``intercepts``.

        With K classes and V terms: float64 ``[K, V]`` and ``[K]``; a linear SVM of two classes has one row, and
        ``slopes`` and ``offsets`` of its sigmoids. The same corpus in the same order gives the same bytes. Raises
        ``StateError`` where labels and ``classes`` do not agree, or a class has fewer texts than ``folds``.
        """
        labelled = (example for example in corpus if example.label is not None)
        found = self._terms.learn(self.name, labelled)
        self._check_labels(found)
        idf = smooth_idf(found.texts, len(found.labels))
        rows = self.weighed(found.matrix(), idf)
        codes = np.array([self.classes.index(str(label)) for label in found.labels], dtype=np.int64)
        fit = _fit_naive_bayes if self.model == "naive_bayes" else _fit_linear_svm
        return found.vocabulary.state() | {"idf": idf} | fit(self, rows, codes)

    def _check_labels(self, corpus: Corpus) -> None:
        counts = Counter(str(label) for label in corpus.labels)
        unknown = sorted(set(counts) - set(self.classes))
        least = self.folds if self.model == "linear_svm" else 1
        few = [f"{label!r} ({counts[label]})" for label in self.classes if counts[label] < least]
        if unknown:
            raise StateError(
                f"{self.name}: classes: got labels {', '.join(map(repr, unknown))}, allowed: "
                f"{', '.join(self.classes)}; cure: name every label of the training split"
            )
        if few:
            raise StateError(
                f"{self.name}: got too few texts with label {', '.join(few)}, allowed: at least {least} of each class"
                + ("; cure: lower folds, or take model naive_bayes" if least > 1 else "; cure: take it out of classes")
            )

    def weighed(self, counts: Sparse, idf: npt.NDArray[np.float64]) -> Sparse:
        """Counts as the model takes them."""
        return counts if self.weighting == "counts" else weigh(counts, idf, sublinear=False, norm=True)

    def with_state(self, state: State) -> BoundClassifier:
        """Return an extractor that uses what ``fit`` learnt. Raises ``StateError`` when it does not fit."""
        arrays = _ARRAYS + (_SIGMOID if self.model == "linear_svm" else ())
        vocabulary = Vocabulary.of_state(self.name, self._terms, state, *arrays)
        scores = 1 if self.model == "linear_svm" and self.dim == 2 else self.dim
        found = {name: np.asarray(state[name], dtype=np.float64) for name in arrays}
        wanted: dict[str, tuple[int, ...]] = dict.fromkeys(arrays, (scores,))
        wanted |= {"idf": (len(vocabulary.words),), "coefficients": (scores, len(vocabulary.words))}
        for name, shape in wanted.items():
            if found[name].shape != shape:
                raise StateError(
                    f"{self.name}: {name}: got {list(found[name].shape)}, allowed: {list(shape)}; cure: fit it again"
                )
        return BoundClassifier(self, vocabulary, found)

    def __call__(self, batch: Sequence[Text], device: Device) -> list[FeatureSequence]:
        """Raise ``StateError``: only what ``with_state`` returns can extract."""
        raise StateError(
            f"{self.name}: got a batch of {len(batch)} for {device} but is not fitted; cure: with_state(fit(texts))"
        )


def _fit_naive_bayes(step: ClassProbabilities, rows: Sparse, codes: npt.NDArray[np.int64]) -> dict[str, Any]:
    from sklearn.naive_bayes import MultinomialNB

    model = MultinomialNB(alpha=step.alpha).fit(rows, codes)
    return {"coefficients": model.feature_log_prob_, "intercepts": model.class_log_prior_}


def _fit_linear_svm(step: ClassProbabilities, rows: Sparse, codes: npt.NDArray[np.int64]) -> dict[str, Any]:
    (calibrated,) = linear_svm(step).fit(rows, codes).calibrated_classifiers_
    return {
        "coefficients": calibrated.estimator.coef_,
        "intercepts": np.broadcast_to(calibrated.estimator.intercept_, len(calibrated.estimator.coef_)).copy(),
        "slopes": np.array([sigmoid.a_ for sigmoid in calibrated.calibrators], dtype=np.float64),
        "offsets": np.array([sigmoid.b_ for sigmoid in calibrated.calibrators], dtype=np.float64),
    }


def linear_svm(step: ClassProbabilities) -> Any:
    """The scikit-learn model that a linear SVM is fitted by."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.model_selection import StratifiedKFold
    from sklearn.svm import LinearSVC

    folds = StratifiedKFold(step.folds, shuffle=True, random_state=step.seed)
    one = LinearSVC(C=step.regularization, random_state=step.seed, dual="auto")
    return CalibratedClassifierCV(one, method="sigmoid", cv=folds, ensemble=False)


@dataclass(frozen=True, eq=False)
class BoundClassifier:
    """A fitted classifier at work."""

    name: ClassVar[str] = ClassProbabilities.name
    numerics: ClassVar[tuple[str, ...]] = ClassProbabilities.numerics
    stream: ClassVar[Stream] = "text"

    step: ClassProbabilities
    vocabulary: Vocabulary
    arrays: dict[str, npt.NDArray[np.float64]]

    @property
    def dim(self) -> int:
        """Width of a row: the number of classes."""
        return self.step.dim

    def __call__(self, batch: Sequence[Text], device: Device) -> list[FeatureSequence]:
        """Return one row a text (or segment); not valid where it has no term of the vocabulary. Runs on the CPU."""
        return self.counted(batch, device)[0]

    def counted(self, batch: Sequence[Text], device: Device) -> tuple[list[FeatureSequence], WordCounts]:
        """Return what ``__call__`` does, and how many of the terms are not in the vocabulary."""
        del device
        found = documents(batch, self.step.rows)
        counts, words = self.vocabulary.count(found.texts)
        rows = self.step.weighed(counts, self.arrays["idf"])
        return found.sequences(self.probabilities(rows).astype(np.float32), np.diff(counts.indptr) > 0), words

    def probabilities(self, rows: Sparse) -> npt.NDArray[np.float64]:
        """Return the probabilities of weighed ``rows`` ``[N, V]``: float64 ``[N, K]``."""
        scores = np.asarray(rows @ self.arrays["coefficients"].T) + self.arrays["intercepts"]
        if self.step.model == "naive_bayes":
            exponents = np.exp(scores - scores.max(axis=1, keepdims=True))
            found: npt.NDArray[np.float64] = exponents / exponents.sum(axis=1, keepdims=True)
            return found
        from scipy.special import expit  # type: ignore[import-untyped]

        each = expit(-(self.arrays["slopes"] * scores + self.arrays["offsets"]))
        if self.dim == 2:
            return np.hstack([1 - each, each])
        total = each.sum(axis=1, keepdims=True)
        even = np.full_like(each, 1 / self.dim)  # where no class has any probability, as scikit-learn has it
        return np.asarray(np.divide(each, total, out=even, where=total != 0))
