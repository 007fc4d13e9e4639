"""Bag of words and TF-IDF: a column a term of a vocabulary that is learnt on the training split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from features.base import Example, State, WordCounts
from features.errors import StateError
from features.text.counting import Terms, Vocabulary, smooth_idf, weigh
from features.text.rows import ROWS, Rows, documents
from features.text.tokenizers import Tokenizer, check_choice
from features.types import Device, FeatureSequence, Stream, Text


@dataclass(frozen=True, kw_only=True)
class Bow:
    """How often each term stands in a segment (or text): one row each, float32, with its span.

    The vocabulary is learnt on the training split. A segment with no term of it gives a row that is not valid; columns
    beyond the vocabulary, where the corpus has fewer than ``size`` terms, stay 0.

    Options: ``size``, the width; ``ngrams``: terms are runs of 1 to this many words; ``min_df``: a term stands in at
    least this many texts; ``max_df``: in at most this share of them; ``binary``: 1 for any count; ``tokenizer`` (see
    ``tokenize_with``; "whitespace" after ``text.tokens``); ``rows``: one row a "segment" or one for the whole "text".
    """

    name: ClassVar[str] = "text.bow"
    stream: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = ("nltk",)

    size: int = 1000
    ngrams: int = 1
    min_df: int = 1
    max_df: float = 1.0
    binary: bool = False
    tokenizer: Tokenizer = "regexp"
    rows: Rows = "segment"

    def __post_init__(self) -> None:
        self._terms.check(self.name)
        check_choice(self.name, "rows", self.rows, ROWS)

    @property
    def _terms(self) -> Terms:
        return Terms(
            tokenizer=self.tokenizer, ngrams=self.ngrams, min_df=self.min_df, max_df=self.max_df, size=self.size
        )

    @property
    def dim(self) -> int:
        """Width of a row: ``size``."""
        return self.size

    def fit(self, corpus: Iterable[Example]) -> dict[str, npt.NDArray[Any]]:
        """Learn the ``vocabulary``, in alphabetical order. Raises ``StateError`` where no term is left."""
        return self._terms.learn(self.name, corpus).vocabulary.state()

    def with_state(self, state: State) -> BoundBag:
        """Return an extractor that uses what ``fit`` learnt. Raises ``StateError`` when it does not fit."""
        return BoundBag(self, Vocabulary.of_state(self.name, self._terms, state), None)

    def __call__(self, batch: Sequence[Text], device: Device) -> list[FeatureSequence]:
        """Raise ``StateError``: only what ``with_state`` returns can extract."""
        raise _unfitted(self.name, batch, device)


@dataclass(frozen=True, kw_only=True)
class Tfidf:
    """Term frequency times inverse document frequency of each term: a float32 row a segment (or text), with its span.

    Spärck Jones (1972), weighted as scikit-learn's ``TfidfVectorizer``: idf = ln((1 + N) / (1 + texts with the term))
    + 1 on the training split, and rows of length 1 with ``norm`` "l2". ``sublinear``: tf is 1 + ln(count). All else is
    as in ``Bow``.
    """

    name: ClassVar[str] = "text.tfidf"
    stream: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = ("nltk",)

    size: int = 1000
    ngrams: int = 1
    min_df: int = 1
    max_df: float = 1.0
    sublinear: bool = False
    norm: Literal["l2", "none"] = "l2"
    tokenizer: Tokenizer = "regexp"
    rows: Rows = "segment"

    def __post_init__(self) -> None:
        self._terms.check(self.name)
        check_choice(self.name, "norm", self.norm, ("l2", "none"))
        check_choice(self.name, "rows", self.rows, ROWS)

    @property
    def _terms(self) -> Terms:
        return Terms(
            tokenizer=self.tokenizer, ngrams=self.ngrams, min_df=self.min_df, max_df=self.max_df, size=self.size
        )

    @property
    def dim(self) -> int:
        """Width of a row: ``size``."""
        return self.size

    def fit(self, corpus: Iterable[Example]) -> dict[str, npt.NDArray[Any]]:
        """Learn the ``vocabulary`` and its ``idf`` float64. Raises ``StateError`` where no term is left."""
        found = self._terms.learn(self.name, corpus)
        return found.vocabulary.state() | {"idf": smooth_idf(found.texts, len(found.labels))}

    def with_state(self, state: State) -> BoundBag:
        """Return an extractor that uses what ``fit`` learnt. Raises ``StateError`` when it does not fit."""
        vocabulary = Vocabulary.of_state(self.name, self._terms, state, "idf")
        idf = np.asarray(state["idf"])
        if idf.shape != (len(vocabulary.words),):
            raise StateError(f"{self.name}: idf: got {list(idf.shape)}, allowed: [{len(vocabulary.words)}], one a term")
        return BoundBag(self, vocabulary, idf)

    def __call__(self, batch: Sequence[Text], device: Device) -> list[FeatureSequence]:
        """Raise ``StateError``: only what ``with_state`` returns can extract."""
        raise _unfitted(self.name, batch, device)


def _unfitted(name: str, batch: Sequence[Text], device: Device) -> StateError:
    return StateError(
        f"{name}: got a batch of {len(batch)} for {device} but is not fitted; cure: with_state(fit(texts))"
    )


@dataclass(frozen=True, eq=False)
class BoundBag:
    """A vocabulary at work."""

    numerics: ClassVar[tuple[str, ...]] = ("nltk",)
    stream: ClassVar[Stream] = "text"

    step: Bow | Tfidf
    vocabulary: Vocabulary
    idf: npt.NDArray[np.float64] | None

    @property
    def name(self) -> str:
        """The step's name."""
        return self.step.name

    @property
    def dim(self) -> int:
        """Width of a row: ``size``."""
        return self.step.size

    def __call__(self, batch: Sequence[Text], device: Device) -> list[FeatureSequence]:
        """Return one row a segment (or text); not valid where it has no term of the vocabulary. Runs on the CPU."""
        return self.counted(batch, device)[0]

    def counted(self, batch: Sequence[Text], device: Device) -> tuple[list[FeatureSequence], WordCounts]:
        """Return what ``__call__`` does, and how many of the terms are not in the vocabulary."""
        del device
        found = documents(batch, self.step.rows)
        counts, words = self.vocabulary.count(found.texts)
        valid = np.diff(counts.indptr) > 0
        if isinstance(self.step, Bow):
            if self.step.binary:
                counts.data[:] = 1
        elif self.idf is not None:
            counts = weigh(counts, self.idf, sublinear=self.step.sublinear, norm=self.step.norm == "l2")
        values = np.zeros((len(found.texts), self.dim), dtype=np.float32)
        values[:, : counts.shape[1]] = counts.toarray()
        return found.sequences(values, valid), words
