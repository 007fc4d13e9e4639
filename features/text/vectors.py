"""Word vectors, trained on the corpus (Word2Vec) or read from a file, and pooled into one row a segment."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from features.base import Example, State, WeightsRef
from features.errors import Reason, SampleError, StateError
from features.types import FeatureSequence, Stream, Text

if TYPE_CHECKING:
    import torch

Tokenizer: TypeAlias = Literal["treebank", "tweet", "regexp"]
TOKENIZERS: tuple[Tokenizer, ...] = ("treebank", "tweet", "regexp")

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORDS = f"[{_HAN}]|[^\\W_{_HAN}]+(?:['\u2019][^\\W_{_HAN}]+)*"

_GENSIM_SENTENCE = 10_000
"""Gensim trains on no more words of a sentence than this, so longer ones are handed over in pieces."""


@lru_cache(maxsize=len(TOKENIZERS))
def tokenize_with(tokenizer: Tokenizer) -> Callable[[str], list[str]]:
    """Return the function from text to tokens. All are NLTK's and need no data files.

    "treebank": Penn Treebank words and punctuation, as ``nltk.word_tokenize`` within a sentence; "tweet": keeps
    emoticons, hashtags and handles whole; "regexp": words without punctuation, and each Han character by itself (the
    other two split Chinese only at spaces).
    """
    from nltk.tokenize import NLTKWordTokenizer, RegexpTokenizer, TweetTokenizer

    if tokenizer == "treebank":
        found: Callable[[str], list[str]] = NLTKWordTokenizer().tokenize
    elif tokenizer == "tweet":
        found = TweetTokenizer().tokenize
    elif tokenizer == "regexp":
        found = RegexpTokenizer(_WORDS).tokenize
    else:
        raise ValueError(f"tokenizer: got {tokenizer!r}, allowed: {', '.join(TOKENIZERS)}")
    return found


def stable_hash(word: str) -> int:
    """Hash that is the same in every process (Python's own ``hash`` of text is salted)."""
    return zlib.crc32(word.encode("utf-8", "surrogatepass"))


def encode_vocabulary(words: Iterable[str]) -> npt.NDArray[np.uint8]:
    r"""Words as one array: UTF-8 bytes joined with ``\n``."""
    return np.frombuffer("\n".join(words).encode("utf-8", "surrogatepass"), dtype=np.uint8).copy()


def decode_vocabulary(encoded: npt.NDArray[np.uint8]) -> list[str]:
    """Inverse of ``encode_vocabulary``."""
    return encoded.tobytes().decode("utf-8", "surrogatepass").split("\n")


def parse_vectors(lines: Iterable[str]) -> dict[str, npt.NDArray[Any]]:
    r"""Read word vectors in GloVe text format, or word2vec and fastText text format (a first line ``count width``).

    ``lines``: the file's lines (an open text file, UTF-8). A line is a word and its numbers, separated by single
    spaces; the word may hold spaces itself. Returns ``vectors`` float32 ``[V, D]`` and ``vocabulary`` (see
    ``encode_vocabulary``), in the order of the file. Raises ``StateError`` with the line number.
    """
    words: dict[str, int] = {}
    rows: list[npt.NDArray[np.float32]] = []
    declared: tuple[int, int] | None = None
    for number, line in enumerate(lines, start=1):
        fields = line.rstrip(" \r\n").split(" ")
        if number == 1 and len(fields) == 2 and all(part.isdecimal() for part in fields):
            declared = int(fields[0]), int(fields[1])
            continue
        width = len(rows[0]) if rows else declared[1] if declared else len(fields) - 1
        if width < 1 or len(fields) <= width:
            raise StateError(
                f"word vectors, line {number}: got {len(fields)} fields, allowed: a word and {max(width, 1)} numbers"
            )
        word = " ".join(fields[:-width])
        try:
            row = np.array(fields[-width:], dtype=np.float32)
        except ValueError as error:
            raise StateError(f"word vectors, line {number}: {error}; allowed: a word, then {width} numbers") from error
        if not np.isfinite(row).all():
            raise StateError(f"word vectors, line {number}: {word!r} has NaN or infinity, allowed: finite numbers")
        if words.setdefault(word, number) != number:
            raise StateError(f"word vectors, line {number}: {word!r} is already on line {words[word]}; cure: keep one")
        rows.append(row)
    if not rows:
        raise StateError("word vectors: the file has no vectors; allowed: GloVe or word2vec text format")
    if declared and declared[0] != len(rows):
        raise StateError(
            f"word vectors: line 1 declares {declared[0]} words, got {len(rows)}; cure: fetch the file anew"
        )
    return {"vectors": np.stack(rows), "vocabulary": encode_vocabulary(words)}


@dataclass(frozen=True, eq=False)
class _Table:
    """Vectors in memory. ``vectors`` float32 ``[V, D]``; ``index``: word -> row."""

    vectors: npt.NDArray[np.float32]
    index: dict[str, int] = field(repr=False)


def _table(name: str, state: State, width: int) -> _Table:
    missing = {"vectors", "vocabulary"} - set(state)
    if missing:
        raise StateError(f"{name}: state has no {', '.join(sorted(missing))}; cure: fit it, or load a vectors file")
    vectors, encoded = np.asarray(state["vectors"]), np.asarray(state["vocabulary"])
    if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] != width or not len(vectors):
        raise StateError(
            f"{name}: vectors: got {vectors.dtype} {list(vectors.shape)}, allowed: float32 [V >= 1, {width}]; "
            f"cure: set vector_size to the width of the vectors"
        )
    if encoded.dtype != np.uint8 or encoded.ndim != 1:
        raise StateError(f"{name}: vocabulary: got {encoded.dtype} {list(encoded.shape)}, allowed: uint8 [bytes]")
    words = decode_vocabulary(encoded)
    index = {word: row for row, word in enumerate(words)}
    if len(words) != len(vectors) or len(index) != len(words):
        raise StateError(
            f"{name}: vocabulary: got {len(words)} words, {len(index)} of them different, "
            f"allowed: {len(vectors)} different words, one a vector"
        )
    return _Table(vectors=vectors.copy(), index=index)


@dataclass(frozen=True, eq=False)
class _Bound:
    """A table of vectors at work: each segment becomes the mean of the vectors of its tokens."""

    numerics: ClassVar[tuple[str, ...]] = ("nltk",)
    stream: ClassVar[Stream] = "text"

    table: _Table
    tokenizer: Tokenizer

    @property
    def dim(self) -> int:
        """Width of a row: the width of the vectors."""
        return int(self.table.vectors.shape[1])

    def __call__(self, batch: Sequence[Text], device: torch.device) -> list[FeatureSequence]:
        """Return one row a segment with the segment's span: the mean of the vectors of its tokens.

        Tokens outside the vocabulary do not count; a segment without any other is not valid. The look-up runs on the
        CPU whatever ``device`` is: it is bound by memory, and moving the table costs more than it.
        """
        del device
        import torch

        tokenize, index = tokenize_with(self.tokenizer), self.table.index
        segments = [segment for text in batch for segment in text.segments]
        found = [[index[token] for token in tokenize(segment.text) if token in index] for segment in segments]
        counts = np.array([len(rows) for rows in found], dtype=np.int64)
        offsets = np.concatenate(([0], np.cumsum(counts)))[:-1].astype(np.int64)
        with torch.inference_mode():
            pooled = torch.nn.functional.embedding_bag(
                torch.tensor(list(chain.from_iterable(found)), dtype=torch.int64),
                torch.from_numpy(self.table.vectors),
                torch.from_numpy(offsets),
                mode="mean",
            ).numpy()
        starts = np.array([segment.span.start_ns for segment in segments], dtype=np.int64)
        ends = np.array([segment.span.end_ns for segment in segments], dtype=np.int64)
        results, first = [], 0
        for text in batch:
            rows = slice(first, first + len(text.segments))
            _require_order(starts[rows])
            results.append(
                FeatureSequence(
                    values=pooled[rows].copy(), start_ns=starts[rows], end_ns=ends[rows], valid=counts[rows] > 0
                )
            )
            first = rows.stop
        return results


def _require_order(starts: npt.NDArray[np.int64]) -> None:
    back = np.flatnonzero(np.diff(starts) < 0)
    if len(back):
        raise SampleError(
            Reason.BAD_TIMESTAMPS,
            f"text: segment {int(back[0]) + 2} of {len(starts)} starts before the one ahead of it, "
            f"allowed: segments in order of time",
        )


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
    holds. A segment without any word of the vocabulary gives a row that is not valid; a text without segments gives 0
    rows. ``fit`` first, then extract with ``with_state``.

    Options: ``vector_size`` (the width), ``window``, ``min_count`` (rarer words are left out), ``epochs``,
    ``architecture`` ("skip-gram" or "cbow"), ``negative`` samples, ``seed``, and ``tokenizer`` (see ``tokenize_with``).
    """

    name: ClassVar[str] = "text.word2vec"
    stream: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = ("gensim", "nltk")

    vector_size: int = 64
    window: int = 5
    min_count: int = 1
    epochs: int = 20
    architecture: Literal["skip-gram", "cbow"] = "skip-gram"
    negative: int = 5
    seed: int = 0
    tokenizer: Tokenizer = "treebank"

    def __post_init__(self) -> None:
        for option in ("vector_size", "window", "min_count", "epochs", "negative"):
            if getattr(self, option) < 1:
                raise ValueError(f"{self.name}: {option}: got {getattr(self, option)!r}, allowed: >= 1")
        if self.architecture not in ("skip-gram", "cbow"):
            raise ValueError(f"{self.name}: architecture: got {self.architecture!r}, allowed: skip-gram, cbow")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"{self.name}: seed: got {self.seed!r}, allowed: 0 to 2**32 - 1")
        _check_tokenizer(self.name, self.tokenizer)

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
        return _BoundWord2Vec(_table(self.name, state, self.vector_size), self.tokenizer)

    def __call__(self, batch: Sequence[Text], device: torch.device) -> list[FeatureSequence]:
        """Raise ``StateError``: only what ``with_state`` returns can extract."""
        raise StateError(
            f"{self.name}: got a batch of {len(batch)} for {device} but is not fitted; cure: with_state(fit(texts))"
        )


@dataclass(frozen=True, kw_only=True)
class PretrainedVectors:
    """Word vectors from a file: one row a segment, the mean of the vectors of its tokens (rows as in ``Word2Vec``).

    Options: ``path`` of a file in GloVe, word2vec or fastText text format, relative to the catalog; ``vector_size``,
    its width; ``tokenizer`` (see ``tokenize_with``). Published vocabularies are mostly lower-case: clean first.
    """

    name: ClassVar[str] = "text.pretrained_vectors"
    stream: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = ("nltk",)

    path: str
    vector_size: int
    tokenizer: Tokenizer = "treebank"

    def __post_init__(self) -> None:
        if not self.path:
            raise ValueError(f"{self.name}: path: got {self.path!r}, allowed: the path of a vectors file")
        if self.vector_size < 1:
            raise ValueError(f"{self.name}: vector_size: got {self.vector_size!r}, allowed: >= 1")
        _check_tokenizer(self.name, self.tokenizer)

    @property
    def dim(self) -> int:
        """Width of a row: ``vector_size``."""
        return self.vector_size

    @property
    def weights_ref(self) -> WeightsRef:
        """The file; ``parse_vectors`` makes its state."""
        return WeightsRef(kind="file", locator=self.path)

    def with_state(self, state: State) -> _BoundPretrained:
        """Return an extractor that uses these vectors. Raises ``StateError`` when they do not fit."""
        return _BoundPretrained(_table(self.name, state, self.vector_size), self.tokenizer)

    def __call__(self, batch: Sequence[Text], device: torch.device) -> list[FeatureSequence]:
        """Raise ``StateError``: only what ``with_state`` returns can extract."""
        raise StateError(
            f"{self.name}: got a batch of {len(batch)} for {device} but no vectors; "
            f"cure: with_state(state of {self.path})"
        )


def _check_tokenizer(name: str, tokenizer: str) -> None:
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"{name}: tokenizer: got {tokenizer!r}, allowed: {', '.join(TOKENIZERS)}")
