"""Bags of words: terms counted, a vocabulary chosen from them, and both kept as plain arrays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from features.base import Example, State, WordCounts
from features.errors import StateError
from features.text.tokenizers import TOKENIZERS, Tokenizer, check_choice, tokenize_with
from features.text.words import decode_vocabulary, encode_vocabulary

Sparse: TypeAlias = Any
"""A ``scipy.sparse.csr_matrix`` of float64."""


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How texts become terms, and which terms are kept: words and, up to ``ngrams``, runs of that many of them.

    A term is kept that stands in at least ``min_df`` texts, and in at most the share ``max_df`` of them. Of these the
    ``size`` most frequent ones (equally frequent ones in order of the alphabet) are the vocabulary, in alphabetical
    order.
    """

    tokenizer: Tokenizer
    ngrams: int
    min_df: int
    max_df: float
    size: int

    def check(self, step: str) -> None:
        """Raise ``ValueError`` where an option of ``step`` is out of range."""
        check_choice(step, "tokenizer", self.tokenizer, TOKENIZERS)
        for option in ("ngrams", "min_df", "size"):
            if getattr(self, option) < 1:
                raise ValueError(f"{step}: {option}: got {getattr(self, option)!r}, allowed: >= 1")
        if not 0 < self.max_df <= 1:
            raise ValueError(f"{step}: max_df: got {self.max_df!r}, allowed: > 0 and <= 1")

    def of(self, text: str) -> list[str]:
        """Return the terms of a text, each as often as it stands there."""
        words = tokenize_with(self.tokenizer)(text)
        if self.ngrams == 1:
            return words
        runs = (zip(*(words[k:] for k in range(n)), strict=False) for n in range(2, self.ngrams + 1))
        return words + [" ".join(run) for run in chain.from_iterable(runs)]

    def learn(self, step: str, corpus: Iterable[Example]) -> Corpus:
        """Choose the vocabulary and count it in each text. Raises ``StateError`` where no term is left."""
        ids: dict[str, int] = {}
        documents: list[npt.NDArray[np.int64]] = []
        counts: list[npt.NDArray[np.int64]] = []
        labels: list[str | None] = []
        for example in corpus:
            terms = Counter(self.of(example.medium.plain))
            documents.append(np.fromiter((ids.setdefault(term, len(ids)) for term in terms), dtype=np.int64))
            counts.append(np.fromiter(terms.values(), dtype=np.int64))
            labels.append(example.label)
        columns = np.concatenate([*documents, np.zeros(0, dtype=np.int64)])
        texts = np.bincount(columns, minlength=len(ids))
        totals = np.bincount(columns, np.concatenate([*counts, np.zeros(0)]), minlength=len(ids))
        allowed = (texts >= self.min_df) & (texts <= self.max_df * len(documents))
        words = list(ids)
        chosen = sorted((k for k in np.flatnonzero(allowed).tolist()), key=lambda k: (-totals[k], words[k]))
        chosen = sorted(chosen[: self.size], key=lambda k: words[k])
        if not chosen:
            raise StateError(
                f"{step}: no term of {len(documents)} texts ({len(ids)} different terms) stands in at least "
                f"{self.min_df} and at most {self.max_df:g} of them; cure: lower min_df or raise max_df, or "
                "fit on texts with words"
            )
        place = np.full(len(ids), -1, dtype=np.int64)
        place[chosen] = np.arange(len(chosen))
        vocabulary = Vocabulary(self, [words[k] for k in chosen])
        return Corpus(vocabulary, texts[chosen], labels, [place[found] for found in documents], counts)


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Terms and their columns."""

    terms: Terms
    words: list[str]
    index: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", {word: column for column, word in enumerate(self.words)})

    @classmethod
    def of_state(cls, step: str, terms: Terms, state: State, *arrays: str) -> Vocabulary:
        """Return the vocabulary of a state that has these ``arrays`` beside it. Raises ``StateError``."""
        missing = {"vocabulary", *arrays} - set(state)
        if missing:
            raise StateError(f"{step}: state has no {', '.join(sorted(missing))}; cure: fit it")
        words = decode_vocabulary(np.asarray(state["vocabulary"]))
        if not 1 <= len(words) <= terms.size or len(set(words)) != len(words):
            raise StateError(
                f"{step}: vocabulary: got {len(words)} terms, {len(set(words))} of them different, allowed: 1 to "
                f"{terms.size} (size) different ones; cure: fit it again"
            )
        return cls(terms, words)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """The terms as an array."""
        return {"vocabulary": encode_vocabulary(self.words)}

    def count(self, texts: Sequence[str]) -> tuple[Sparse, WordCounts]:
        """Return how often each term stands in each text, float64 ``[texts, terms]``; other terms do not count.

        And how many terms were looked up, and which of them are no terms of the vocabulary.
        """
        found = [Counter(self.terms.of(text)) for text in texts]
        missing = Counter[str]()
        for terms in found:
            missing.update({term: n for term, n in terms.items() if term not in self.index})
        rows = [{self.index[term]: n for term, n in terms.items() if term in self.index} for terms in found]
        total = sum(terms.total() for terms in found)
        return _matrix(rows, len(self.words)), WordCounts.of(total, missing)


@dataclass(frozen=True, eq=False)
class Corpus:
    """What was learnt: the vocabulary, in how many texts each term stands (int64), and the counts of each text."""

    vocabulary: Vocabulary
    texts: npt.NDArray[np.int64]
    labels: list[str | None]
    columns: list[npt.NDArray[np.int64]]
    counts: list[npt.NDArray[np.int64]]

    def matrix(self) -> Sparse:
        """The counts of all texts, float64 ``[texts, terms]``."""
        pairs = zip(self.columns, self.counts, strict=True)
        rows = [
            {c: n for c, n in zip(columns.tolist(), counts.tolist(), strict=True) if c >= 0}
            for columns, counts in pairs
        ]
        return _matrix(rows, len(self.vocabulary.words))


def _matrix(rows: Sequence[dict[int, int]], width: int) -> Sparse:
    ends = np.cumsum([0, *map(len, rows)])
    columns = np.fromiter(chain.from_iterable(sorted(row) for row in rows), dtype=np.int64, count=int(ends[-1]))
    counts = np.fromiter(
        chain.from_iterable((row[column] for column in sorted(row)) for row in rows),
        dtype=np.float64,
        count=int(ends[-1]),
    )
    return _csr(counts, columns, ends, (len(rows), width))


def _csr(values: Any, columns: Any, ends: Any, shape: tuple[int, int]) -> Sparse:
    from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

    return csr_matrix((values, columns, ends), shape=shape)


def weigh(counts: Sparse, idf: npt.NDArray[np.float64], *, sublinear: bool, norm: bool) -> Sparse:
    """Counts to tf-idf: tf is the count, or 1 + ln(count) (``sublinear``); rows are put to length 1 with ``norm``."""
    values = (1 + np.log(counts.data) if sublinear else counts.data) * idf[counts.indices]
    if norm:
        rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        lengths = np.sqrt(np.bincount(rows, values**2, minlength=counts.shape[0]))
        values = values / lengths[rows]
    return _csr(values, counts.indices, counts.indptr, counts.shape)


def smooth_idf(texts: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.float64]:
    """Inverse document frequency ln((1 + N) / (1 + texts)) + 1, as scikit-learn's default: never below 1."""
    found: npt.NDArray[np.float64] = np.log((1 + count) / (1 + texts)) + 1
    return found
