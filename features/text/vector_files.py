"""The formats that word vectors are published in, read from bytes: GloVe, word2vec and fastText text, word2vec binary.

What is read comes in blocks of some thousand words, so that a file larger than memory can be read through a map.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from features.base import State
from features.compiled import compiled
from features.errors import StateError
from features.text.words import WordTable

Buffer: TypeAlias = bytes | mmap.mmap
Block: TypeAlias = tuple[list[bytes], npt.NDArray[np.float32]]
"""Words, and their vectors float32 ``[words, D]``."""

BLOCK_WORDS = 8192
_SMALL = 4_000_000  # bytes: below this, compiling the fast reader takes longer than reading
_FASTTEXT_MODEL = 793712314
_MOST_WIDTH = 100_000


def read_text(data: Buffer) -> Iterator[Block]:
    """Blocks of a file in GloVe text format, or in word2vec and fastText text format (a first line ``count width``).

    A line is a word and its numbers, separated by single spaces; the word may hold spaces itself. UTF-8. Numbers are
    rounded as Python's ``float``, then to float32. Raises ``StateError`` with the number of the line that is damaged.
    """
    if not len(data):
        raise StateError("word vectors: the file is empty; allowed: GloVe or word2vec text format")
    first = _line(data, 0)
    declared = _header(first)
    start = len(first) + 1 if declared else 0
    width = declared[1] if declared else len(first.rstrip(b" \r").split(b" ")) - 1
    number, total = 2 if declared else 1, 0
    if width < 1 and not declared:
        _parse_line(first, 1, 1)
    if width > _MOST_WIDTH or (declared and width < 1):
        raise StateError(f"word vectors, line 1: got width {width}, allowed: 1 to {_MOST_WIDTH}")
    blocks = _blocks_fast(data, start, width, number) if len(data) > _SMALL else _blocks(data, start, width, number)
    for words, vectors in blocks:
        total += len(words)
        yield words, vectors
    if not total:
        raise StateError("word vectors: the file has no vectors; allowed: GloVe or word2vec text format")
    if declared and declared[0] != total:
        raise StateError(f"word vectors: line 1 declares {declared[0]} words, got {total}; cure: fetch the file anew")


def read_binary(data: Buffer) -> Iterator[Block]:
    """Blocks of a file in word2vec's binary format: a line ``count width``, then words, a space, little-endian float32.

    Raises ``StateError`` with the number of the word where the file is damaged or ends too soon.
    """
    head = data[:4]
    if len(head) == 4 and int.from_bytes(head, "little") == _FASTTEXT_MODEL:
        raise StateError("word vectors: this is a model of fastText, not vectors; cure: use its .vec file")
    first = _line(data, 0, 100)
    declared = _header(first)
    if declared is None or not 1 <= declared[1] <= _MOST_WIDTH:
        raise StateError(f"word vectors: got a first line {first[:40]!r}, allowed: count and width (word2vec binary)")
    count, width = declared
    at = len(first) + 1
    for begin in range(0, count, BLOCK_WORDS):
        words, rows = [], []
        for number in range(begin + 1, min(begin + BLOCK_WORDS, count) + 1):
            end = data.find(b" ", at, at + 2000)
            if end < 0 or end + 1 + 4 * width > len(data):
                raise StateError(
                    f"word vectors: word {number} of {count} is damaged, or the file ends in it (byte {at} of "
                    f"{len(data)}); cure: fetch the file anew"
                )
            words.append(data[at:end].lstrip(b"\n"))
            rows.append(data[end + 1 : end + 1 + 4 * width])
            at = end + 1 + 4 * width
        vectors = np.frombuffer(b"".join(rows), dtype="<f4").reshape(len(rows), width).astype(np.float32)
        faulty = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
        if len(faulty):
            raise StateError(
                f"word vectors: word {begin + 1 + int(faulty[0])} of {count} ({words[faulty[0]]!r}) has NaN or "
                "infinity, allowed: finite numbers; cure: fetch the file anew"
            )
        yield words, vectors
    if not count:
        raise StateError("word vectors: the file has no vectors; allowed: at least one")
    if data[at : at + 2].strip(b"\n"):
        raise StateError(f"word vectors: got {len(data) - at} bytes after word {count}, the last; cure: fetch it anew")


def parse_vectors(data: Buffer) -> State:
    """Read a whole small file in a text format (see ``read_text``) into the state that the extractors take."""
    blocks = list(read_text(data))
    words = [word for block, _ in blocks for word in block]
    return WordTable.make(words, np.concatenate([vectors for _, vectors in blocks])).state()


def _line(data: Buffer, start: int, most: int = 10_000_000) -> bytes:
    end = data.find(b"\n", start, start + most)
    return data[start : end if end >= 0 else min(start + most, len(data))]


def _header(line: bytes) -> tuple[int, int] | None:
    fields = line.rstrip(b" \r").split(b" ")
    if len(fields) == 2 and all(part.isdigit() and len(part) < 16 for part in fields):
        return int(fields[0]), int(fields[1])
    return None


def _parse_line(line: bytes, number: int, width: int) -> tuple[bytes, npt.NDArray[np.float32]]:
    fields = line.rstrip(b" \r").split(b" ")
    if len(fields) <= width:
        raise StateError(f"word vectors, line {number}: got {len(fields)} fields, allowed: a word and {width} numbers")
    word = b" ".join(fields[:-width])
    try:
        word.decode("utf-8")
    except UnicodeDecodeError as error:
        raise StateError(f"word vectors, line {number}: {word!r} is not UTF-8 ({error}); cure: convert it") from error
    try:
        row = np.array([float(part) for part in fields[-width:]], dtype=np.float64).astype(np.float32)
    except ValueError as error:
        raise StateError(f"word vectors, line {number}: {error}; allowed: a word, then {width} numbers") from error
    if not np.isfinite(row).all():
        raise StateError(f"word vectors, line {number}: {word.decode()!r} has NaN or infinity, allowed: finite numbers")
    return word, row


def _blocks(data: Buffer, start: int, width: int, number: int) -> Iterator[Block]:
    while start < len(data):
        words: list[bytes] = []
        rows = []
        while start < len(data) and len(words) < BLOCK_WORDS:
            line = _line(data, start)
            word, row = _parse_line(line, number, width)
            words.append(word)
            rows.append(row)
            start, number = start + len(line) + 1, number + 1
        yield words, np.stack(rows)


def _blocks_fast(data: Buffer, start: int, width: int, number: int) -> Iterator[Block]:
    """The same blocks by compiled code; a line that it does not take is left to ``_parse_line``."""
    scan, view, powers = compiled(_scan), np.frombuffer(data, dtype=np.uint8), 10.0 ** np.arange(23)
    while start < len(data):
        vectors = np.empty((BLOCK_WORDS, width), dtype=np.float32)
        lines = np.empty((BLOCK_WORDS, 3), dtype=np.int64)  # begin, end of the word (-1: not taken), end of the line
        count = scan(view, start, vectors, lines, powers)
        words: list[bytes] = []
        for row, (begin, word_end, end) in enumerate(lines[:count].tolist()):
            if word_end >= 0:
                words.append(data[begin:word_end])
                continue
            word, vectors[row] = _parse_line(data[begin:end], number + row, width)
            words.append(word)
        _require_utf8(words, number)
        yield words, vectors[:count]
        start, number = int(lines[count - 1, 2]) + 1, number + count


def _require_utf8(words: list[bytes], number: int) -> None:
    try:
        b"\n".join(words).decode("utf-8")
    except UnicodeDecodeError:
        for row, word in enumerate(words):
            _parse_line(word + b" 0", number + row, 1)


def _scan(data: Any, start: int, vectors: Any, lines: Any, powers: Any) -> int:
    """Fill ``vectors`` and ``lines`` from the line at ``start`` on; return how many lines were read."""
    count, at, width = 0, start, vectors.shape[1]
    while count < vectors.shape[0] and at < data.size:
        end = at
        while end < data.size and data[end] != 10:
            end += 1
        last = end
        while last > at and (data[last - 1] == 32 or data[last - 1] == 13):
            last -= 1
        column, taken = width - 1, True
        while taken and column >= 0:  # from the right: a word may hold spaces
            begin = last
            while begin > at and data[begin - 1] != 32:
                begin -= 1
            p, mantissa, digits, scale, seen, point = begin, 0, 0, 0, 0, False
            minus = p < last and data[p] == 45
            if minus or (p < last and data[p] == 43):
                p += 1
            while p < last and (48 <= data[p] <= 57 or (data[p] == 46 and not point)):
                if data[p] == 46:
                    point = True
                else:
                    seen += 1
                    scale -= 1 if point else 0
                    digits += 1 if mantissa > 0 or data[p] != 48 else 0
                    if digits <= 15:
                        mantissa = mantissa * 10 + (data[p] - 48)
                p += 1
            if p < last and (data[p] == 101 or data[p] == 69):
                p += 1
                below = p < last and data[p] == 45
                if below or (p < last and data[p] == 43):
                    p += 1
                exponent, first = 0, p
                while p < last and 48 <= data[p] <= 57 and exponent < 1000:
                    exponent = exponent * 10 + (data[p] - 48)
                    p += 1
                taken = p > first
                scale += -exponent if below else exponent
            # 15 digits and a power of ten up to 22 are exact in float64, so that one operation rounds correctly
            if not taken or p != last or seen == 0 or digits > 15 or scale > 22 or scale < -22 or begin <= at:
                taken = False
            else:
                value = mantissa / powers[-scale] if scale < 0 else mantissa * powers[scale]
                vectors[count, column] = -value if minus else value
                column -= 1
                last = begin - 1
        lines[count, 0], lines[count, 1], lines[count, 2] = at, last if taken else -1, end
        count += 1
        at = end + 1
    return count
