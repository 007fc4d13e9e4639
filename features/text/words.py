"""A table of words and their vectors that is searched where it lies, in memory or in a mapped file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from features.base import State
from features.errors import StateError


def encode_vocabulary(words: Iterable[str]) -> npt.NDArray[np.uint8]:
    r"""Words as one array: UTF-8 bytes joined with ``\n``."""
    return np.frombuffer("\n".join(words).encode("utf-8", "surrogatepass"), dtype=np.uint8).copy()


def decode_vocabulary(encoded: npt.NDArray[np.uint8]) -> list[str]:
    """Inverse of ``encode_vocabulary``."""
    return encoded.tobytes().decode("utf-8", "surrogatepass").split("\n")


def word_hash(word: bytes) -> int:
    """A hash in [0, 2**64) that is the same in every process."""
    return int.from_bytes(hashlib.blake2b(word, digest_size=8).digest(), "little")


@dataclass(frozen=True, eq=False, repr=False)
class WordTable:
    r"""Vectors of words.

    ``vectors`` float32 ``[V, D]``; ``vocabulary`` uint8: the words in the order of their vectors, UTF-8, joined by
    ``\n``; ``ends`` int64 ``[V]``: where each word ends in it; ``hashes`` uint64 ``[V]``, ascending, and ``order``
    int64 ``[V]``: the hash of each word and its row. Any of them may be a memory map: what is not looked up is not
    read, and processes share what is.
    """

    vectors: npt.NDArray[np.float32]
    vocabulary: npt.NDArray[np.uint8]
    ends: npt.NDArray[np.int64]
    hashes: npt.NDArray[np.uint64]
    order: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    @classmethod
    def make(cls, words: Sequence[bytes], vectors: npt.NDArray[np.float32]) -> WordTable:
        """Index ``words``, one for each of ``vectors``. Raises ``StateError`` where a word stands twice."""
        ends = np.cumsum([len(word) for word in words]) + np.arange(len(words))
        joined = np.frombuffer(b"\n".join(words), dtype=np.uint8)
        return cls(vectors, joined, ends.astype(np.int64), *index_words(words))

    @classmethod
    def of_state(cls, step: str, state: State, width: int) -> WordTable:
        """Return the table that ``state`` holds, after checking it. Raises ``StateError`` when it does not fit.

        ``state`` has ``vectors`` and ``vocabulary``, and may have the index of the words.
        """
        missing = {"vectors", "vocabulary"} - set(state)
        if missing:
            raise StateError(f"{step}: state has no {', '.join(sorted(missing))}; cure: fit it, or load a vectors file")
        vectors, encoded = np.asarray(state["vectors"]), np.asarray(state["vocabulary"])
        if vectors.dtype != np.float32 or vectors.ndim != 2 or vectors.shape[1] != width or not len(vectors):
            raise StateError(
                f"{step}: vectors: got {vectors.dtype} {list(vectors.shape)}, allowed: float32 [V >= 1, {width}]; "
                f"cure: set vector_size to the width of the vectors"
            )
        if encoded.dtype != np.uint8 or encoded.ndim != 1:
            raise StateError(f"{step}: vocabulary: got {encoded.dtype} {list(encoded.shape)}, allowed: uint8 [bytes]")
        if {"ends", "hashes", "order"} <= set(state):
            index = [np.asarray(state[name]) for name in ("ends", "hashes", "order")]
            if any(len(array) != len(vectors) for array in index):
                raise StateError(f"{step}: the index of the words is not one of {len(vectors)} words")
            return cls(vectors, encoded, *index)
        words = encoded.tobytes().split(b"\n")
        different = len(set(words))
        if len(words) != len(vectors) or different != len(words):
            raise StateError(
                f"{step}: vocabulary: got {len(words)} words, {different} of them different, "
                f"allowed: {len(vectors)} different words, one a vector"
            )
        return cls.make(words, vectors)

    def state(self) -> dict[str, Any]:
        """The arrays by name."""
        return {name: getattr(self, name) for name in ("vectors", "vocabulary", "ends", "hashes", "order")}

    def word(self, row: int) -> str:
        """The word of a row; bytes that are not UTF-8 come as escapes."""
        return self._bytes(row).decode("utf-8", "backslashreplace")

    def find(self, words: Sequence[str]) -> npt.NDArray[np.int64]:
        """Return the row of each of ``words``, -1 for one that is not in the table."""
        wanted = [word.encode("utf-8", "surrogatepass") for word in words]
        hashes = np.array([word_hash(word) for word in wanted], dtype=np.uint64)
        places = np.searchsorted(self.hashes, hashes)
        found = np.full(len(words), -1, dtype=np.int64)
        for number, (place, code) in enumerate(zip(places.tolist(), hashes.tolist(), strict=True)):
            while place < len(self.hashes) and int(self.hashes[place]) == code:
                row = int(self.order[place])
                if self._bytes(row) == wanted[number]:
                    found[number] = row
                    break
                place += 1
        return found

    def _bytes(self, row: int) -> bytes:
        begin = int(self.ends[row - 1]) + 1 if row else 0
        return self.vocabulary[begin : int(self.ends[row])].tobytes()


def index_words(words: Sequence[bytes]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return the hashes of ``words``, ascending, and the row of each. Raises ``StateError`` on a word that is twice."""
    hashes = np.array([word_hash(word) for word in words], dtype=np.uint64)
    order = np.argsort(hashes, kind="stable").astype(np.int64)
    hashes = hashes[order]
    for place in np.flatnonzero(hashes[1:] == hashes[:-1]).tolist():
        one, other = int(order[place]), int(order[place + 1])
        if words[one] == words[other]:
            raise StateError(
                f"word vectors: {words[one].decode('utf-8', 'backslashreplace')!r} is word {one + 1} and word "
                f"{other + 1}; cure: keep one"
            )
    return hashes, order
