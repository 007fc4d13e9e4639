"""Rows of one feature as arrays: gathered from mapped files, or from row groups that pyarrow has decoded.

Memory: open row groups are forgotten when their decoded bytes exceed ``cache_bytes``, or when more than ``_MAX_OPEN``
are open, the longest unused first; those that one call needs are all open at once. Mapped values cost nothing but the
system's page cache, and a byte for each row's validity.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.errors import StoreError
from pipeline.loader.index import COLUMNS, FeatureIndex, local_path, parquet_file
from pipeline.store import DatasetStore
from pipeline.store.mapped import map_file

TIMES = ("start_ns", "end_ns")
CACHE_BYTES = 256 << 20
"""How many bytes of decoded row groups a feature keeps by default."""
_MAX_OPEN = 2048
_NS_BYTES = 8


@dataclass(frozen=True, eq=False, kw_only=True)
class Ragged:
    """Sequences of ``B`` samples, one after another; a missing one has no rows.

    ``values`` float32 ``[S, D]``; ``valid`` bool ``[S]``; ``lengths`` int64 ``[B]``; ``present`` bool ``[B]``;
    ``times`` int64 ``[S]`` by name, where asked for.
    """

    values: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]
    lengths: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]
    times: dict[str, npt.NDArray[np.int64]]


@dataclass(frozen=True, eq=False, kw_only=True)
class Padded:
    """Sequences of ``B`` samples side by side, padded to the longest one, ``L``.

    ``values`` float32 ``[B, L, D]``; ``mask`` bool ``[B, L]``: true where a row exists and is valid; ``lengths``,
    ``present`` as in ``Ragged``; ``times`` int64 ``[B, L]``. What the mask leaves out is zeros that mean nothing.
    """

    values: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    lengths: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]
    times: dict[str, npt.NDArray[np.int64]]


class _Map:
    """A mapped file, as long as one of its row groups is open."""

    def __init__(self, path: str, size: int) -> None:
        self.buffer = memoryview(map_file(path, size))


class _Group:
    """An open row group: the bytes of its columns, and which rows are valid. ``owned``: bytes that it takes itself."""

    def __init__(self, columns: dict[str, memoryview], valid: npt.NDArray[np.bool_], owned: int, keeper: Any) -> None:
        self.columns = columns
        self.address = {name: _address(column) for name, column in columns.items()}
        self.valid = valid
        self.owned = owned + valid.nbytes
        self._keeper = keeper


class FeatureRows:
    """Reads rows of a ``FeatureIndex``; may be pickled (what is open stays here) and be used by several threads."""

    def __init__(self, store: str, dataset: str, index: FeatureIndex, cache_bytes: int = CACHE_BYTES) -> None:
        self._place = (store, dataset)
        self.index = index
        self.cache_bytes = cache_bytes
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._store: DatasetStore | None = None
        self._open: OrderedDict[int, _Group] = OrderedDict()
        self._owned = 0
        self._maps: WeakValueDictionary[int, _Map] = WeakValueDictionary()
        index = self.index
        # the address of each row's values, 0 where its group is not open; row -1, a missing one, is never open
        self._values_at = np.zeros(len(index.group) + 1, dtype=np.int64)
        self._begins = np.searchsorted(index.group, np.arange(len(index.rows) + 1))  # rows of each group
        self._is_open = np.zeros(len(index.rows), dtype=np.bool_)
        self._all_valid = True  # in every group that was opened so far
        equal = len(index.length) > 0 and bool((index.length == index.length[0]).all())
        self._one_length = int(index.length[0]) if equal else 0  # of all sequences; 0 where they differ

    def __getstate__(self) -> dict[str, Any]:
        return {"_place": self._place, "index": self.index, "cache_bytes": self.cache_bytes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def ragged(self, rows: npt.NDArray[np.int64], *, times: bool = False) -> Ragged:
        """The sequences of ``rows`` (places in the index; -1: missing), one after another."""
        with self._lock:
            values = None if times else self._equal(rows)
            if values is not None:
                return Ragged(values=values, valid=np.ones(len(values), dtype=np.bool_), **self._plain(rows))
            batch = _Batch(self, rows)
            return Ragged(
                values=batch.values().reshape(-1, self.index.dim),
                valid=np.ones(batch.lengths.sum(), dtype=np.bool_) if self._all_valid else batch.valid(),
                lengths=batch.lengths,
                present=batch.present,
                times={name: batch.times(name) for name in TIMES} if times else {},
            )

    def padded(self, rows: npt.NDArray[np.int64], *, times: bool = False) -> Padded:
        """The sequences of ``rows`` (places in the index; -1: missing), padded to the longest of them."""
        with self._lock:
            values = None if times else self._equal(rows)
            if values is not None:
                values = values.reshape(len(rows), self._one_length, -1)
                return Padded(values=values, mask=np.ones(values.shape[:2], dtype=np.bool_), **self._plain(rows))
            batch = _Batch(self, rows)
            longest = int(batch.lengths.max(initial=0))
            shape = (len(rows), longest)
            mask: npt.NDArray[np.bool_] = np.arange(longest) < batch.lengths[:, None]
            if not self._all_valid:
                mask[mask] = batch.valid()
            return Padded(
                values=batch.values(longest).reshape(*shape, self.index.dim),
                mask=mask,
                lengths=batch.lengths,
                present=batch.present,
                times={name: batch.times(name, longest).reshape(shape) for name in TIMES} if times else {},
            )

    def _equal(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | None:
        """The short way for what is common: sequences of one length, all there, open and valid. ``None``: not so."""
        if not (self._one_length and self._all_valid and len(rows) > 1):
            return None
        at = self._values_at[rows]
        low, size = int(at.min()), 4 * self.index.dim * self._one_length
        if not low:  # one is not open
            return None
        return gather(at, size, low).view(np.float32).reshape(-1, self.index.dim)

    def _plain(self, rows: npt.NDArray[np.int64]) -> dict[str, Any]:
        lengths = np.full(len(rows), self._one_length, dtype=np.int64)
        return {"lengths": lengths, "present": np.ones(len(rows), dtype=np.bool_), "times": {}}

    def addresses(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where in memory the values of rows begin.

        Their groups are opened for that; others may be forgotten, first those that were opened or missed longest ago.
        """
        groups = self.index.group[rows]
        if not self._is_open[groups].all():
            self._open_all(np.unique(groups).tolist())
        at: npt.NDArray[np.int64] = self._values_at[rows]
        return at

    def _open_all(self, needed: list[int]) -> None:
        for number in needed:
            if self._is_open[number]:
                self._open.move_to_end(number)
                continue
            group = self._open[number] = self._opened(number)
            mine = slice(*self._begins[number : number + 2])
            self._values_at[:-1][mine] = group.address["values"] + self.index.first[mine] * (4 * self.index.dim)
            self._is_open[number] = True
            self._all_valid = self._all_valid and bool(group.valid.all())
            self._owned += group.owned
        while len(self._open) > len(needed) and (self._owned > self.cache_bytes or len(self._open) > _MAX_OPEN):
            number, group = self._open.popitem(last=False)
            self._values_at[:-1][slice(*self._begins[number : number + 2])] = 0
            self._is_open[number] = False
            self._owned -= group.owned

    def group(self, number: int) -> _Group:
        """A row group that is open."""
        return self._open[number]

    @property
    def open_bytes(self) -> int:
        """Bytes that open row groups take now, mapped ones apart."""
        return self._owned

    def _opened(self, number: int) -> _Group:
        index, total = self.index, int(self.index.rows[number])
        file = int(index.file[number])
        path, size = index.files[file]
        if self._store is None:
            self._store = DatasetStore(*self._place)
        local = local_path(self._store, path)
        if index.places[number, 0] < 0 or local is None:
            return self._decoded(path, number, total)
        mapped = self._maps.get(file)
        if mapped is None:
            mapped = self._maps[file] = _Map(local, size)
        widths = (4 * index.dim, _NS_BYTES, _NS_BYTES)
        at = index.places[number].tolist()
        columns = {
            name: mapped.buffer[begin : begin + total * width]
            for name, begin, width in zip(COLUMNS, at, widths, strict=False)
        }
        if at[-1] + (total + 7) // 8 > size or any(
            len(columns[n]) != total * w for n, w in zip(columns, widths, strict=True)
        ):
            raise StoreError(f"{path}: its rows lie beyond its end; cure: delete the store's _cache folder")
        bits = np.frombuffer(mapped.buffer, np.uint8, count=(total + 7) // 8, offset=at[-1])
        valid = np.unpackbits(bits, count=total, bitorder="little").view(np.bool_)
        return _Group(columns, valid, 0, mapped)

    def _decoded(self, path: str, number: int, total: int) -> _Group:
        """A row group as pyarrow reads it."""
        if self._store is None:
            self._store = DatasetStore(*self._place)
        with parquet_file(self._store, path, None) as parquet:
            table = parquet.read_row_group(int(self.index.number[number]), columns=list(COLUMNS), use_threads=False)
        arrays = {name: _flat(path, table[name]) for name in COLUMNS}
        valid = arrays.pop("valid").astype(np.bool_)
        wanted = {"values": total * self.index.dim, "start_ns": total, "end_ns": total}
        got = {name: len(array) for name, array in arrays.items()}
        if got != wanted or len(valid) != total:
            raise StoreError(f"{path}: got lists of {got}, allowed: {wanted}; cure: gristmill verify")
        columns = {name: array.view(np.uint8).data for name, array in arrays.items()}
        return _Group(columns, valid, sum(column.nbytes for column in columns.values()), arrays)


def _flat(path: str, column: pa.ChunkedArray) -> npt.NDArray[Any]:
    """All numbers of a list column. Raises ``StoreError`` where there are nulls."""
    flat = column.combine_chunks().flatten()
    if column.null_count or flat.null_count:
        raise StoreError(f"{path}: got nulls, allowed: none; cure: gristmill verify")
    return np.ascontiguousarray(flat.to_numpy(zero_copy_only=False))


class _Batch:
    """Some rows, whose groups it opens; used while the lock is held."""

    def __init__(self, feature: FeatureRows, rows: npt.NDArray[np.int64]) -> None:
        index = feature.index
        self._feature, self.present = feature, rows >= 0
        self._rows = rows[self.present]
        self._group = index.group[self._rows]
        self._at = feature.addresses(self._rows)
        self._length = index.length[self._rows]
        self.lengths = np.zeros(len(rows), dtype=np.int64)
        self.lengths[self.present] = self._length

    def valid(self) -> npt.NDArray[np.bool_]:
        """Validity of all rows, one sample after another."""
        begins = self._feature.index.first[self._rows]
        ends = begins + self._length
        places = zip(self._group.tolist(), begins.tolist(), ends.tolist(), strict=True)
        flags = [self._feature.group(number).valid[begin:end] for number, begin, end in places]
        return np.concatenate(flags) if flags else np.zeros(0, dtype=np.bool_)

    def values(self, pad_to: int | None = None) -> npt.NDArray[np.float32]:
        """All values, one sample after another, each padded with zeros to ``pad_to`` rows where that is given."""
        width = 4 * self._feature.index.dim
        if pad_to and len(self._at) < len(self.present) and (self._length == pad_to).all():  # only whole ones miss
            nothing = np.zeros(pad_to * width, dtype=np.uint8)
            everyone = np.full(len(self.present), nothing.ctypes.data, dtype=np.int64)
            everyone[self.present] = self._at
            return gather(everyone, pad_to * width, int(everyone.min())).view(np.float32)
        return np.frombuffer(self._join("values", self._at, width, pad_to), np.float32)

    def times(self, name: str, pad_to: int | None = None) -> npt.NDArray[np.int64]:
        """Times of all rows, laid out as ``values``."""
        base = np.array([self._feature.group(number).address[name] for number in self._group.tolist()], dtype=np.int64)
        at = base + self._feature.index.first[self._rows] * _NS_BYTES
        return np.frombuffer(self._join(name, at, _NS_BYTES, pad_to), np.int64)

    def _join(self, name: str, at: npt.NDArray[np.int64], width: int, pad_to: int | None) -> bytearray:
        ends = at + self._length * width
        if pad_to is None or (self.lengths == pad_to).all():
            begins = np.ones(len(at), dtype=np.bool_)  # neighbours are one piece
            begins[1:] = (at[1:] != ends[:-1]) | (self._group[1:] != self._group[:-1])
            return bytearray().join(self._pieces(name, at[begins], ends[np.roll(begins, -1)], self._group[begins]))
        nothing = memoryview(bytes(pad_to * width))
        found = iter(self._pieces(name, at, ends, self._group))
        pieces = []
        for used, present in zip((self.lengths * width).tolist(), self.present.tolist(), strict=True):
            pieces += [next(found), nothing[used:]] if present else [nothing]
        return bytearray().join(pieces)

    def _pieces(
        self, name: str, at: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], group: npt.NDArray[np.int32]
    ) -> list[memoryview]:
        """The bytes of a column between addresses, each pair within a group."""
        pieces = []
        for begin, end, number in zip(at.tolist(), ends.tolist(), group.tolist(), strict=True):
            held = self._feature.group(number)
            base = held.address[name]
            pieces.append(held.columns[name][begin - base : end - base])
        return pieces


class _Memory:
    """``count`` overlapping items of ``size`` bytes, one at every byte from ``address`` on, as numpy sees them."""

    def __init__(self, address: int, count: int, size: int) -> None:
        self.__array_interface__ = {
            "data": (address, True),
            "shape": (count,),
            "strides": (1,),
            "typestr": f"|V{size}",
            "version": 3,
        }


def gather(addresses: npt.NDArray[np.int64], size: int, low: int) -> npt.NDArray[np.void]:
    """Copy ``size`` bytes from each address, in one go however many files they are of; ``low`` is the lowest address.

    Numbers in mapped pages are not aligned, and gathering unaligned floats is thirty times slower than gathering
    bytes. Every address must be readable for ``size`` bytes; what lies between them is not touched.
    """
    items = np.asarray(_Memory(low, int(addresses.max()) - low + 1, size))
    found: npt.NDArray[np.void] = items[addresses - low]
    return found


def _address(column: memoryview) -> int:
    return int(np.frombuffer(column, np.uint8).ctypes.data) if len(column) else 0
