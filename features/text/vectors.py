"""Word vectors, trained on the corpus (Word2Vec) or read from a file, and pooled into one row a segment."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from features.base import Example, State, WeightsRef, WordCounts
from features.errors import StateError
from features.text.rows import ROWS, Rows, documents
from features.text.tokenizers import TOKENIZERS, Tokenizer, check_choice, tokenize_with
from features.text.words import WordTable, encode_vocabulary
from features.types import Device, FeatureSequence, Stream, Text

if TYPE_CHECKING:
    import torch

_GENSIM_SENTENCE = 10_000
"""Gensim trains on no more words of a sentence than this, so longer ones are handed over in pieces."""


_REMEMBERED = 1_000_000
"""Words whose rows a process remembers at most; then it begins anew."""


def stable_hash(word: str) -> int:
    """Hash that is the same in every process (Python's own ``hash`` of text is salted)."""
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def pool(vectors: torch.Tensor, rows: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the mean of ``counts[i]`` rows of ``vectors`` float32 ``[V, D]`` for each i, in order: float32 ``[N, D]``.

    Only rows that are asked for are read. Where a count is 0 the mean is 0.
    """
    import torch

    offsets = np.cumsum(counts) - counts
    with torch.inference_mode():
        means: npt.NDArray[np.float32] = torch.nn.functional.embedding_bag(
            torch.from_numpy(rows.astype(np.int64, copy=False)),
            vectors,
            torch.from_numpy(offsets.astype(np.int64, copy=False)),
            mode="mean",
        ).numpy()
    return means


class _Lookup(dict[str, int]):
    """Word -> its row in a table, -1 where it has none. A word is looked up in the table when it is first met."""

    def __init__(self, table: WordTable) -> None:
        import torch

        super().__init__()
        self._table = table
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the map is read-only: nothing is written
            self.vectors = torch.from_numpy(np.require(table.vectors, requirements=["C", "A"]))

    def rows(self, words: list[str]) -> npt.NDArray[np.int64]:
        """Return the row of each of ``words``."""
        if len(self) >= _REMEMBERED:
            self.clear()
        new = list(set(words).difference(self))
        if new:
            self.update(zip(new, self._table.find(new).tolist(), strict=True))
        return np.fromiter(map(self.__getitem__, words), dtype=np.int64, count=len(words))


@lru_cache(maxsize=8)
def _lookup(table: WordTable) -> _Lookup:
    return _Lookup(table)


@dataclass(frozen=True, eq=False)
class _Bound:
    """A table of vectors at work: each document becomes the mean of the vectors of its tokens."""

    numerics: ClassVar[tuple[str, ...]] = ("nltk", "torch")
    stream: ClassVar[Stream] = "text"

    table: WordTable
    tokenizer: Tokenizer
    rows: Rows

    @property
    def dim(self) -> int:
        """Width of a row: the width of the vectors."""
        return int(self.table.vectors.shape[1])

    def __call__(self, batch: Sequence[Text], device: Device) -> list[FeatureSequence]:
        """Return one row a segment (or text) with its span: the mean of the vectors of its tokens.

        Tokens outside the vocabulary do not count; a segment without any other is not valid. The look-up runs on the
        CPU whatever ``device`` is: it is bound by memory, and moving the table costs more than it.
        """
        return self.counted(batch, device)[0]

    def counted(self, batch: Sequence[Text], device: Device) -> tuple[list[FeatureSequence], WordCounts]:
        """Return what ``__call__`` does, and how many of the tokens are not in the vocabulary."""
        del device
        found = documents(batch, self.rows)
        tokens = list(map(tokenize_with(self.tokenizer), found.texts))
        flat = list(chain.from_iterable(tokens))
        lookup = _lookup(self.table)
        rows = lookup.rows(flat)
        known = rows >= 0
        words = WordCounts.of(len(flat), [flat[place] for place in np.flatnonzero(~known).tolist()])
        ends = np.cumsum([0, *map(len, tokens)])
        counts = np.diff(np.concatenate([[0], np.cumsum(known)])[ends])
        if words.unknown == words.words:
            return found.sequences(np.zeros((len(tokens), self.dim), dtype=np.float32), counts > 0), words
        return found.sequences(pool(lookup.vectors, rows[known], counts), counts > 0), words


class _BoundWord2Vec(_Bound):
    """Vectors that ``Word2Vec`` learnt."""

    name: ClassVar[str] = "text.word2vec"


class _BoundPretrained(_Bound):
    """Vectors that were read from a file."""

    name: ClassVar[str] = "text.pretrained_vectors"


@dataclass(frozen=True, kw_only=True)
class Word2Vec:
    """Word2Vec vectors trained on the corpus: one row a segment, the mean of the vectors of its tokens.

    Mikolov et al., "Efficient estimation of word representations in vector space" (2013), by gensim. A row has its
    segment's span: where the source times its words, that is a row a word; for untimed text it is one row that always
    holds. ``rows`` "text" gives one row for the whole text instead. What has no word of the vocabulary gives a row that
    is not valid (such words are counted, and the report of the run tells how many); a text without segments gives 0
    rows. ``fit`` first, then extract with ``with_state``.

    Options: ``vector_size`` (the width), ``window``, ``min_count`` (rarer words are left out), ``epochs``,
    ``architecture`` ("skip-gram" or "cbow"), ``negative`` samples, ``seed``, ``tokenizer`` (see ``tokenize_with``) and
    ``rows``.
    """

    name: ClassVar[str] = "text.word2vec"
    stream: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = ("gensim", "nltk", "torch")

    vector_size: int = 64
    window: int = 5
    min_count: int = 1
    epochs: int = 20
    architecture: Literal["skip-gram", "cbow"] = "skip-gram"
    negative: int = 5
    seed: int = 0
    tokenizer: Tokenizer = "treebank"
    rows: Rows = "segment"

    def __post_init__(self) -> None:
        for option in ("vector_size", "window", "min_count", "epochs", "negative"):
            if getattr(self, option) < 1:
                raise ValueError(f"{self.name}: {option}: got {getattr(self, option)!r}, allowed: >= 1")
        check_choice(self.name, "architecture", self.architecture, ("skip-gram", "cbow"))
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"{self.name}: seed: got {self.seed!r}, allowed: 0 to 2**32 - 1")
        check_choice(self.name, "tokenizer", self.tokenizer, TOKENIZERS)
        check_choice(self.name, "rows", self.rows, ROWS)

    @property
    def dim(self) -> int:
        """Width of a row: ``vector_size``."""
        return self.vector_size

    def fit(self, corpus: Iterable[Example]) -> dict[str, npt.NDArray[Any]]:
        """Learn ``vectors`` float32 ``[V, vector_size]`` and ``vocabulary``, most frequent word first.

        Each text is one sentence: its segments' tokens in order. The same corpus in the same order gives the same
        bytes, in every process. Raises ``StateError`` when no word is left to learn.
        """
        from gensim.models import Word2Vec as Gensim

        tokenize = tokenize_with(self.tokenizer)
        sentences = [[token for part in found.medium.segments for token in tokenize(part.text)] for found in corpus]
        pieces = [
            sentence[begin : begin + _GENSIM_SENTENCE]
            for sentence in sentences
            for begin in range(0, len(sentence), _GENSIM_SENTENCE)
        ]
        model = Gensim(
            vector_size=self.vector_size,
            window=self.window,
            min_count=self.min_count,
            epochs=self.epochs,
            sg=int(self.architecture == "skip-gram"),
            negative=self.negative,
            seed=self.seed,
            workers=1,
            hashfxn=stable_hash,
        )
        model.build_vocab(pieces)
        if not len(model.wv):
            raise StateError(
                f"{self.name}: no word of {len(sentences)} texts ({sum(map(len, sentences))} tokens) occurs min_count "
                f"({self.min_count}) times; cure: lower min_count, or fit on texts that are not empty"
            )
        model.train(pieces, total_examples=model.corpus_count, epochs=model.epochs)
        return {
            "vectors": np.ascontiguousarray(model.wv.vectors, dtype=np.float32),
            "vocabulary": encode_vocabulary(model.wv.index_to_key),
        }

    def with_state(self, state: State) -> _BoundWord2Vec:
        """Return an extractor that uses what ``fit`` learnt. Raises ``StateError`` when it does not fit."""
        return _BoundWord2Vec(WordTable.of_state(self.name, state, self.vector_size), self.tokenizer, self.rows)

    def __call__(self, batch: Sequence[Text], device: Device) -> list[FeatureSequence]:
        """Raise ``StateError``: only what ``with_state`` returns can extract."""
        raise StateError(
            f"{self.name}: got a batch of {len(batch)} for {device} but is not fitted; cure: with_state(fit(texts))"
        )


@dataclass(frozen=True, kw_only=True)
class PretrainedVectors:
    """Word vectors from a file: one row a segment, the mean of the vectors of its tokens (rows as in ``Word2Vec``).

    Options: ``path`` of a file, relative to the catalog: GloVe text (``.txt``, ``.glove``), fastText or word2vec text
    (``.vec``), word2vec binary (``.bin``); ``vector_size``, its width; ``tokenizer`` (see ``tokenize_with``) and
    ``rows``. The vectors are mapped, not read: only rows that are looked up take memory. Published vocabularies are
    mostly lower-case: clean first.
    """

    name: ClassVar[str] = "text.pretrained_vectors"
    stream: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = ("nltk", "torch")

    path: str
    vector_size: int
    tokenizer: Tokenizer = "treebank"
    rows: Rows = "segment"

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError(f"{self.name}: path: got {self.path!r}, allowed: the path of a vectors file")
        if self.vector_size < 1:
            raise ValueError(f"{self.name}: vector_size: got {self.vector_size!r}, allowed: >= 1")
        check_choice(self.name, "tokenizer", self.tokenizer, TOKENIZERS)
        check_choice(self.name, "rows", self.rows, ROWS)

    @property
    def dim(self) -> int:
        """Width of a row: ``vector_size``."""
        return self.vector_size

    @property
    def weights_ref(self) -> WeightsRef:
        """The file; its state is a ``WordTable``."""
        return WeightsRef(kind="file", locator=self.path)

    def with_state(self, state: State) -> _BoundPretrained:
        """Return an extractor that uses these vectors. Raises ``StateError`` when they do not fit."""
        return _BoundPretrained(WordTable.of_state(self.name, state, self.vector_size), self.tokenizer, self.rows)

    def __call__(self, batch: Sequence[Text], device: Device) -> list[FeatureSequence]:
        """Raise ``StateError``: only what ``with_state`` returns can extract."""
        raise StateError(
            f"{self.name}: got a batch of {len(batch)} for {device} but no vectors; "
            f"cure: with_state(state of {self.path})"
        )
