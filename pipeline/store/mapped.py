"""Finding the numbers of a list column in a Parquet file, so that they are mapped as they lie instead of decoded.

A column chunk can be mapped when it is one data page (version 1) of PLAIN numbers without compression and dictionary,
in lists that are never null and hold no nulls. In the file that is

    page header | u32, repetition levels | u32, definition levels | the numbers, little-endian, row after row

The header (Thrift's compact protocol) is parsed and compared with the footer, and the levels are decoded: they say
where each list begins and which lists are empty, and must agree with the ``length`` column. Whatever is otherwise
raises ``NotMapped`` with the reason, and is left to pyarrow, which gives the same numbers.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.errors import StoreError

BITS = {"FLOAT": 32, "INT64": 64, "BOOLEAN": 1}
"""Bits that one number of a physical type takes in a PLAIN page."""
_PLAIN, _RLE, _DATA_PAGE = 0, 3, 0  # numbers of Encoding and PageType in parquet.thrift
_STOP, _BINARY, _STRUCT = 0, 8, 12  # types of Thrift's compact protocol
_BOOLEANS, _INTEGERS = (1, 2), (4, 5, 6)


class NotMapped(Exception):  # noqa: N818 (not an error: the column is read in another way)
    """The column chunk cannot be mapped; the text says why."""


def map_file(path: str, size: int) -> mmap.mmap:
    """Map a whole file for reading. Raises ``StoreError`` where it is not there or does not have ``size`` bytes."""
    try:
        with Path(path).open("rb") as file:
            found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise StoreError(
            f"{path} is not there; cure: open the store again (gc may have removed its snapshot)"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: an empty file
        raise StoreError(f"{path}: cannot be mapped: {error}; cure: gristmill verify") from error
    if len(found) != size:
        raise StoreError(f"{path}: got {len(found)} bytes, allowed: {size}; cure: gristmill verify")
    return found


def locate(buffer: memoryview, chunk: Any, column: Any, counts: npt.NDArray[np.int64]) -> int:
    """Where the numbers of a column chunk begin in the file: the byte of the first one.

    ``buffer``: the file. ``chunk``, ``column``: pyarrow's ``ColumnChunkMetaData`` and ``ColumnSchema``. ``counts``: how
    many numbers each row's list must have. Raises ``NotMapped`` for a layout that is not as described above, or lists
    of other lengths.
    """
    if chunk.physical_type not in BITS:
        raise NotMapped(f"numbers of type {chunk.physical_type}")
    if chunk.compression != "UNCOMPRESSED":
        raise NotMapped(f"compression {chunk.compression}")
    if chunk.has_dictionary_page or not set(chunk.encodings) <= {"PLAIN", "RLE"}:
        raise NotMapped(f"encodings {', '.join(sorted(chunk.encodings))}")
    if (column.max_repetition_level, column.max_definition_level) != (1, 1):
        raise NotMapped("nulls are allowed, or lists are nested")
    begin, end = chunk.data_page_offset, chunk.data_page_offset + chunk.total_compressed_size
    if not 0 < begin < end <= len(buffer):
        raise NotMapped("the column chunk does not lie in the file")
    header, at = _struct(buffer, begin, end)
    entries = _check_header(header, chunk, end - at)
    starts = np.maximum(counts, 1)
    if entries != int(starts.sum()):
        raise NotMapped(f"{entries} entries instead of {int(starts.sum())}")
    lists, at = _levels(buffer, at, end, entries)
    if not np.array_equal(lists, np.cumsum(starts) - starts):
        raise NotMapped("lists begin elsewhere than the lengths say")
    empty, at = _levels(buffer, at, end, entries)
    if not np.array_equal(empty, lists[counts == 0]):
        raise NotMapped("other lists are empty than the lengths say")
    total = int(counts.sum())
    if end - at != (total * BITS[chunk.physical_type] + 7) // 8:
        raise NotMapped(f"{end - at} bytes for {total} numbers")
    return at


def _check_header(header: dict[int, Any], chunk: Any, size: int) -> int:
    """Compare a page header (fields of ``PageHeader`` by number) with the footer; return its number of entries."""
    page = header.get(5)
    if header.get(1) != _DATA_PAGE or not isinstance(page, dict):
        raise NotMapped(f"a page of type {header.get(1)}")
    if (header.get(2), header.get(3)) != (size, size):
        raise NotMapped(f"a page of {header.get(3)} bytes where {size} are left: more than one page, or damaged")
    if (page.get(2), page.get(3), page.get(4)) != (_PLAIN, _RLE, _RLE):
        raise NotMapped(f"a page with encodings {page.get(2)}, {page.get(3)}, {page.get(4)}")
    if page.get(1) != chunk.num_values:
        raise NotMapped(f"a page of {page.get(1)} entries where the footer says {chunk.num_values}")
    return int(chunk.num_values)


def _struct(buffer: memoryview, at: int, end: int) -> tuple[dict[int, Any], int]:
    """Parse a struct of Thrift's compact protocol: its fields by number, and the byte after it."""
    fields: dict[int, Any] = {}
    number = 0
    while True:
        head, at = _byte(buffer, at, end)
        kind, step = head & 15, head >> 4
        if kind == _STOP:
            return fields, at
        if not step:
            raise NotMapped("a page header with field numbers out of order")
        number += step
        if kind in _BOOLEANS:
            fields[number] = kind == _BOOLEANS[0]
        elif kind in _INTEGERS:
            value, at = _varint(buffer, at, end)
            fields[number] = (value >> 1) ^ -(value & 1)
        elif kind == _BINARY:
            length, at = _varint(buffer, at, end)
            at += length
        elif kind == _STRUCT:
            fields[number], at = _struct(buffer, at, end)
        else:
            raise NotMapped(f"a page header with a field of type {kind}")


def _byte(buffer: memoryview, at: int, end: int) -> tuple[int, int]:
    if at >= end:
        raise NotMapped("a page that ends too early")
    return buffer[at], at + 1


def _varint(buffer: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte, at = _byte(buffer, at, end)
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise NotMapped("a number that is too long")


def _levels(buffer: memoryview, at: int, end: int, entries: int) -> tuple[npt.NDArray[np.int64], int]:
    """Decode levels of one bit (runs of equal ones, or packed by eight): where they are zero, and the byte after."""
    stop = at + 4 + int.from_bytes(buffer[at : at + 4], "little")
    if at + 4 > end or stop > end:
        raise NotMapped("levels that are longer than the page")
    levels = memoryview(bytes(buffer[at + 4 : stop]))
    at, size, done = 0, len(levels), 0
    packed: list[tuple[int, int, int]] = []  # first byte, bytes, first level
    zeros = [np.zeros(0, dtype=np.int64)]
    while at < size:
        head, at = _varint(levels, at, size)
        count = head >> 1
        if head & 1:  # the last levels of the last byte may be padding
            if at + count > size or done >= entries:
                raise NotMapped("levels that end too early, or go on too long")
            packed.append((at, count, done))
            at, done = at + count, min(done + 8 * count, entries)
        else:
            level, at = _byte(levels, at, size)
            if level > 1 or count > entries - done:
                raise NotMapped("levels that are no levels, or go on too long")
            if level == 0:
                zeros.append(np.arange(done, done + count))
            done += count
    if done != entries:
        raise NotMapped(f"{done} levels for {entries} entries")
    if packed:
        first, counts, begun = np.array(packed, dtype=np.int64).T
        step = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        bits = np.unpackbits(np.frombuffer(levels, np.uint8)[np.repeat(first, counts) + step], bitorder="little")
        found = np.flatnonzero(bits == 0)
        place = np.repeat(begun, counts)[found >> 3] + 8 * step[found >> 3] + (found & 7)
        zeros.append(place[place < entries])
    return np.sort(np.concatenate(zeros)), stop
