"""Where every row of a feature lies: which file and row group, at which place, and whether it can be mapped there.

Files never change, so what was found out about one is remembered beside the store (``_cache/loader1-<feature>``):
opening a snapshot again reads no shard. A store that cannot be written is indexed anew every time.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from features.errors import StoreError
from pipeline.store import DatasetStore, ShardFile, Snapshot
from pipeline.store.mapped import NotMapped, locate, map_file

VIEWS_PREFIX = "views."
"""Augmented views of a feature are stored as a feature of their own: ``views.<name>``."""
COLUMNS = ("values", "start_ns", "end_ns", "valid")
"""The list columns that are mapped, in order of ``FeatureIndex.places``."""

_LOG = logging.getLogger(__name__)
_READERS = 8
_DECODED = -1  # the place of a column that pyarrow must decode
_WORDS = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    [
        pa.field("file", _WORDS, nullable=False),
        pa.field("group", pa.int32(), nullable=False),
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("view", pa.int16(), nullable=False),
        pa.field("length", pa.int32(), nullable=False),
        *(pa.field(f"{name}_at", pa.int64(), nullable=False) for name in COLUMNS),
        pa.field("reason", _WORDS, nullable=False),
    ]
)


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureIndex:
    """The rows and row groups of one feature. ``R`` rows in order of (file, row), ``G`` row groups.

    ``files``: path and size. ``file``, ``number``, ``rows`` int ``[G]``: of a group its file, its number in it and how
    many rows of sequences it holds. ``places`` int64 ``[G, 4]``: the byte where the numbers of each of ``COLUMNS``
    begin, -1 where pyarrow must decode it. ``group`` int32 ``[R]``, ``first`` and ``length`` int64 ``[R]``: of a
    sample's row its group, and where its sequence begins in the group and how long it is.
    """

    name: str
    dim: int
    files: tuple[tuple[str, int], ...]
    file: npt.NDArray[np.int32]
    number: npt.NDArray[np.int32]
    rows: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    group: npt.NDArray[np.int32]
    first: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    notices: tuple[str, ...]

    @property
    def mapped(self) -> float:
        """The share of row groups whose values are mapped as they lie; the others are decoded by pyarrow."""
        return float((self.places[:, 0] != _DECODED).mean()) if len(self.places) else 1.0


@dataclass(frozen=True, eq=False)
class Keys:
    """Whose rows those of a ``FeatureIndex`` are: ``sample_id`` and ``view``, one a row."""

    sample_id: pa.ChunkedArray
    view: npt.NDArray[np.int16]


def index_feature(snapshot: Snapshot, name: str) -> tuple[FeatureIndex, Keys]:
    """Index a feature of a snapshot with its views. Raises ``StoreError`` for one without rows, or a missing file."""
    if not snapshot.files_of(name):
        stored = sorted({file.feature for file in snapshot.files if not file.feature.startswith(VIEWS_PREFIX)})
        raise StoreError(
            f"{snapshot.store.url}: no rows of {name!r} in snapshot {snapshot.version}; it has: {', '.join(stored)}"
        )
    dim = snapshot.dim(name)
    if dim is None:
        raise StoreError(f"{snapshot.store.url}: snapshot {snapshot.version} does not say how wide {name!r} is")
    files = [*snapshot.files_of(name), *snapshot.files_of(VIEWS_PREFIX + name)]
    table = _remembered(snapshot.store, name, files, dim)
    file, number = _codes(table, files), table["group"].to_numpy()
    change = np.ones(len(table), dtype=np.bool_)
    change[1:] = (file[1:] != file[:-1]) | (number[1:] != number[:-1])
    begins = np.flatnonzero(change)
    group = (np.cumsum(change) - 1).astype(np.int32)
    length = table["length"].to_numpy().astype(np.int64)
    before = np.cumsum(length) - length
    index = FeatureIndex(
        name=name,
        dim=dim,
        files=tuple((file.path, file.size) for file in files),
        file=file[begins].astype(np.int32),
        number=number[begins].astype(np.int32),
        rows=np.add.reduceat(length, begins) if len(begins) else length,
        places=np.stack([table[f"{column}_at"].to_numpy()[begins] for column in COLUMNS], axis=1),
        group=group,
        first=before - before[begins][group],
        length=length,
        notices=_notices(name, pc.take(pc.cast(table["reason"], pa.string()), pa.array(begins)).to_pylist()),
    )
    for notice in index.notices:
        _LOG.warning(notice)
    return index, Keys(table["sample_id"], table["view"].to_numpy())


def _notices(name: str, reasons: Iterable[str]) -> tuple[str, ...]:
    counts = Counter(reasons)
    total = counts.total()
    return tuple(
        f"{name}: {count} of {total} row groups are decoded by pyarrow, not mapped: {reason}"
        for reason, count in counts.most_common()
        if reason
    )


def _codes(table: pa.Table, files: Sequence[ShardFile]) -> npt.NDArray[np.int64]:
    """The number of each row's file in ``files``."""
    paths = pa.array([file.path for file in files], pa.string())
    column = table["file"].combine_chunks()
    codes = pc.index_in(column.dictionary, value_set=paths).to_numpy(zero_copy_only=False)
    return np.asarray(codes[column.indices.to_numpy()], dtype=np.int64)


def _remembered(store: DatasetStore, name: str, files: Sequence[ShardFile], dim: int) -> pa.Table:
    """The index of ``files`` in their order, from memory where it has them."""
    cache = f"loader1-{name}"
    known = store.read_cache(cache, _SCHEMA).unify_dictionaries()
    remembered = frozenset(pc.unique(known["file"]).to_pylist())
    fresh = [file for file in files if file.path not in remembered]
    if not fresh and len(remembered) == len(files):
        return known.combine_chunks()
    known = known.filter(pc.is_in(known["file"], value_set=pa.array([file.path for file in files], pa.string())))
    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        tables = list(pool.map(lambda file: index_file(store, file, dim), fresh))
    table = pa.concat_tables([known, *tables]).unify_dictionaries().combine_chunks()
    order = np.argsort(_codes(table, files), kind="stable")  # rows of a file stay in their order
    table = table.take(pa.array(order)).combine_chunks()
    if fresh:
        try:
            store.write_cache(cache, table)
        except (StoreError, OSError) as error:
            _LOG.info("%s: the index of %s is not remembered: %s", store.url, name, error)
    return table


def index_file(store: DatasetStore, file: ShardFile, dim: int) -> pa.Table:
    """Index one file of a feature whose rows have ``dim`` numbers: a table with one row for each row of the file."""
    path = local_path(store, file.path)
    buffer = None if path is None else memoryview(map_file(path, file.size))
    with parquet_file(store, file.path, buffer) as parquet:
        table = parquet.read(columns=["sample_id", "view", "length"], use_threads=False)
        metadata = parquet.metadata
    lengths = table["length"].to_numpy().astype(np.int64)
    columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in ("group", *COLUMNS)}
    reasons: list[str] = []
    begun = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        counts = lengths[begun : begun + group.num_rows]
        begun += group.num_rows
        places, reason = _locate(buffer, metadata, group, counts, dim)
        columns["group"].append(np.full(len(counts), number, dtype=np.int32))
        for name, place in zip(COLUMNS, places, strict=True):
            columns[name].append(np.full(len(counts), place))
        reasons += [reason] * len(counts)
    made = {name: np.concatenate(parts) if parts else np.zeros(0, np.int64) for name, parts in columns.items()}
    arrays = [
        pa.array([file.path] * len(table), pa.string()).dictionary_encode(),
        pa.array(made["group"].astype(np.int32)),
        table["sample_id"],
        table["view"],
        table["length"],
        *(pa.array(made[name].astype(np.int64)) for name in COLUMNS),
        pa.array(reasons, pa.string()).dictionary_encode(),
    ]
    return pa.table(arrays, schema=_SCHEMA)


def local_path(store: DatasetStore, path: str) -> str | None:
    """Where a file of the store lies on this machine's disks; ``None`` where it does not."""
    return store.path(path) if isinstance(store.fs, LocalFileSystem) else None


@contextmanager
def parquet_file(store: DatasetStore, path: str, buffer: memoryview | None) -> Iterator[pq.ParquetFile]:
    """Open a file of the store as Parquet, from its mapped bytes where there are. Faults are told as ``StoreError``."""
    try:
        source = store.fs.open(store.path(path), "rb") if buffer is None else pa.BufferReader(pa.py_buffer(buffer))
        with source, pq.ParquetFile(source, pre_buffer=False) as found:
            yield found
    except FileNotFoundError as error:
        raise StoreError(
            f"{store.url}: {path} is not there; cure: open the store again (gc may have removed its snapshot)"
        ) from error
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"{store.url}: {path} cannot be read: {error}; cure: gristmill verify") from error


def _locate(
    buffer: memoryview | None, metadata: Any, group: Any, counts: npt.NDArray[np.int64], dim: int
) -> tuple[list[int], str]:
    """The places of ``COLUMNS`` in a row group, all or none, and why none."""
    nothing = [_DECODED] * len(COLUMNS)
    if buffer is None:
        return nothing, "object storage"
    found = {metadata.schema.column(i).path.partition(".")[0]: i for i in range(metadata.num_columns)}
    try:
        places = []
        for name in COLUMNS:
            i = found.get(name)
            if i is None:
                return nothing, f"{name}: no such column"
            wanted = counts * dim if name == "values" else counts
            places.append(locate(buffer, group.column(i), metadata.schema.column(i), wanted))
    except NotMapped as reason:
        return nothing, f"{name}: {reason}"
    return places, ""
