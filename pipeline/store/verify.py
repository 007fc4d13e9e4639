"""Checking a snapshot against itself: every byte of every shard, every row, and that the counts add up."""

from __future__ import annotations

import os
import posixpath
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.errors import StoreError
from pipeline.content import fixed_binary
from pipeline.events import SILENT, Events
from pipeline.store.shard import ALIGNED_PREFIX, ALIGNED_SCHEMA, METADATA_KEY, ROW_SCHEMA, table_metadata
from pipeline.store.shard_file import ShardFile, file_digest
from pipeline.store.snapshot import Snapshot

_WORKERS = min(8, os.cpu_count() or 1)
_KEPT = ("shard", "sample_id", "view", "split", "label", "length", "recipe")


@dataclass(frozen=True)
class Fault:
    """Something that is not as it must be. ``where``: a file of the store, or a feature."""

    where: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was checked of a snapshot, and what is wrong with it (nothing, as a rule)."""

    dataset: str
    snapshot: int
    files: int
    bytes: int
    rows: int
    seconds: float
    faults: tuple[Fault, ...]

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON document."""
        return asdict(self)


def verify(snapshot: Snapshot, events: Events = SILENT) -> Verified:
    """Read every file of a snapshot and check it.

    Bytes against the digest in the name; schema, width, number of rows; in every row the lengths of its lists, start <=
    end, finite valid values, coverage within 0 and 1; across files that no sample is there twice, that splits, labels
    and shards are those of the table of samples, that aligned features have equal lengths for every sample, and that
    every sample has a row or a place in quarantine.
    """
    begun = time.perf_counter()
    events.started("verify", len(snapshot.files), "files")
    files, size = [], 0
    with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
        for checked in pool.map(partial(_check_file, snapshot), snapshot.files):
            files.append(checked)
            size += checked.size
            events.advanced("verify")
    seconds = time.perf_counter() - begun
    events.finished(
        "verify", f"{len(files):,} files, {size / 1e6:,.1f} MB, {size / 1e6 / max(seconds, 1e-9):,.0f} MB/s"
    )
    faults = [fault for checked in files for fault in checked.faults]
    faults += _check_tables(snapshot, files)
    return Verified(
        dataset=posixpath.basename(snapshot.store.url),
        snapshot=snapshot.version,
        files=len(files),
        bytes=size,
        rows=sum(len(checked.keys) for checked in files if checked.keys is not None),
        seconds=time.perf_counter() - begun,
        faults=tuple(faults),
    )


@dataclass(frozen=True)
class _Checked:
    """One file: its faults, its size, and the keys of its rows where they can be relied on."""

    file: ShardFile
    size: int
    faults: tuple[Fault, ...]
    keys: pa.Table | None


def _check_file(snapshot: Snapshot, file: ShardFile) -> _Checked:
    """Check one file by itself. The first fault of its bytes hides those of its rows, which follow from it."""
    store = snapshot.store
    try:
        content: bytes = store.fs.cat_file(store.path(file.path))
    except FileNotFoundError:
        return _Checked(file, 0, (Fault(file.path, "is not there"),), None)
    except OSError as error:
        return _Checked(file, 0, (Fault(file.path, f"cannot be read: {error}"),), None)
    if len(content) != file.size:
        fault = f"got {len(content)} bytes, allowed: {file.size}"
    elif (found := file_digest(content)) != file.digest:
        fault = f"its bytes have changed: got digest {found}, allowed: {file.digest}"
    else:
        try:
            table = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            fault = f"is no Parquet file: {error}"
        else:
            faults = tuple(Fault(file.path, message) for message in _check_rows(snapshot, file, table))
            return _Checked(file, len(content), faults, None if faults else table.select(_KEPT))
    return _Checked(file, len(content), (Fault(file.path, fault),), None)


def _check_rows(snapshot: Snapshot, file: ShardFile, table: pa.Table) -> Iterator[str]:
    """What is wrong inside one file."""
    aligned = file.feature.startswith(ALIGNED_PREFIX)
    schema = ALIGNED_SCHEMA if aligned else ROW_SCHEMA
    if len(table) != file.rows:
        yield f"got {len(table)} rows, allowed: {file.rows}"
    if not table.schema.equals(schema):
        yield f"got columns {table.schema.names} ({_types(table.schema)}), allowed: {schema.names} ({_types(schema)})"
        return
    metadata = table_metadata(table) if METADATA_KEY in (table.schema.metadata or {}) else {}
    width = snapshot.dim(file.feature)
    if (metadata.get("feature"), metadata.get("dim")) != (file.feature, width):
        yield (
            f"its metadata say feature {metadata.get('feature')!r} of width {metadata.get('dim')}, "
            f"allowed: {file.feature!r} of width {width}"
        )
        return
    if not pc.all(pc.equal(table["shard"], file.shard)).as_py():
        yield f"holds rows of other shards than {file.shard}"
    yield from _check_sequences(table, int(metadata["dim"]), aligned=aligned)


def _types(schema: pa.Schema) -> str:
    return ", ".join(str(field.type) for field in schema)


def _check_sequences(table: pa.Table, width: int, *, aligned: bool) -> Iterator[str]:
    """What is wrong with the sequences of a file; the first row of each kind of fault is named."""
    ids = table["sample_id"]
    length = table["length"].to_numpy().astype(np.int64)
    wanted = {"start_ns": 1, "end_ns": 1, "valid": 1, "values": width} | ({"coverage": 1} if aligned else {})
    for name, times in wanted.items():
        found = pc.list_value_length(table[name]).to_numpy()
        if (unequal := np.flatnonzero(found != length * times)).size:
            row = int(unequal[0])
            yield (
                f"{unequal.size} rows have lists of another length than they say; the first: {ids[row]}, {name}: got "
                f"{found[row]}, allowed: {length[row] * times}"
            )
            return
    flat = {name: pc.list_flatten(table[name]).to_numpy(zero_copy_only=False) for name in wanted}
    rows = np.repeat(np.arange(len(table)), length)
    finite = np.isfinite(flat["values"].reshape(-1, width)).all(axis=1)
    checks: dict[str, npt.NDArray[np.bool_]] = {
        "end before they start": flat["start_ns"] > flat["end_ns"],
        "are valid but hold NaN or infinity": flat["valid"] & ~finite,
    }
    if aligned:
        checks["have a coverage outside 0 to 1"] = ~((flat["coverage"] >= 0) & (flat["coverage"] <= 1))
    for message, wrong in checks.items():
        if wrong.any():
            yield f"{int(wrong.sum())} steps {message}; the first is of {ids[int(rows[np.argmax(wrong)])]}"


def _check_tables(snapshot: Snapshot, files: list[_Checked]) -> Iterator[Fault]:
    """What is wrong across files: with the tables of samples and quarantine, and between features."""
    readers: dict[str, Callable[[], pa.Table]] = {
        "samples": lambda: snapshot.samples,
        "quarantine": lambda: snapshot.quarantine,
    }
    tables: dict[str, pa.Table] = {}
    for name, read in readers.items():
        try:
            tables[name] = read()
        except (StoreError, OSError, pa.ArrowInvalid) as error:
            yield Fault(snapshot.info[name], f"the table of {name} cannot be read: {error}")
    if len(tables) == len(readers):
        books = _Books(snapshot.info, tables["samples"], tables["quarantine"])
        for name in sorted({*snapshot.info["rows"], *snapshot.info["streams"]}):
            yield from books.enter(name, [checked for checked in files if checked.file.feature == name])
        yield from books.check_accounts()
        yield from books.check_alignment()


_NO_ROW, _UNKNOWN = -1, -2


class _Books:
    """For every feature, the length that each sample's row says it has: the accounts of a snapshot."""

    def __init__(self, info: Mapping[str, Any], samples: pa.Table, quarantine: pa.Table) -> None:
        self._info, self._samples, self._quarantine = info, samples, quarantine
        self._ids: pa.Array = samples["sample_id"].combine_chunks()
        self._lengths: dict[str, npt.NDArray[np.int64]] = {}

    def enter(self, feature: str, files: list[_Checked]) -> Iterator[Fault]:
        """Take in the rows of a feature; say which of them do not belong there."""
        lengths = self._lengths[feature] = np.full(len(self._ids), _NO_ROW, dtype=np.int64)
        unread = [checked.file.shard for checked in files if checked.keys is None]
        lengths[np.isin(self._samples["shard"].to_numpy(), unread)] = _UNKNOWN
        tables = [checked.keys.replace_schema_metadata() for checked in files if checked.keys is not None]
        if not tables:
            return
        rows = pa.concat_tables(tables)
        at = pc.fill_null(pc.index_in(rows["sample_id"], value_set=self._ids), -1).to_numpy().astype(np.int64)
        known = np.flatnonzero(at >= 0)
        at = at[known]
        lengths[at] = rows["length"].to_numpy()[known]
        keys = pc.binary_join_element_wise(rows["sample_id"], pc.cast(rows["view"], pa.string()), "\0")
        if (twice := len(rows) - pc.count_distinct(keys).as_py()) > 0:
            yield Fault(feature, f"{twice} rows are there more than once")
        if len(known) < len(rows):
            yield Fault(
                feature, f"{len(rows) - len(known)} rows are of samples that the table of samples does not have"
            )
        for column in ("shard", "split", "label"):
            here, there = rows[column].take(pa.array(known)), self._samples[column].take(pa.array(at))
            wrong = ~(pc.fill_null(pc.equal(here, there), False).to_numpy() | _both_null(here, there))
            if wrong.any():
                yield self._fault(feature, at[wrong], f"have another {column} than the table of samples says")
        recipes = {row.tobytes().hex() for row in np.unique(fixed_binary(rows["recipe"]), axis=0)}
        if unknown := recipes - self._info["recipes"].get(feature, {}).keys():
            yield Fault(feature, f"rows were made by {len(unknown)} recipes that the snapshot does not know")

    def check_accounts(self) -> Iterator[Fault]:
        """Samples in = rows + quarantine + deferred, for every feature."""
        plain = {name: self._lengths[name] for name in self._info["streams"]}
        anything = np.any([lengths >= 0 for lengths in plain.values()], axis=0)
        unknown = np.any([lengths == _UNKNOWN for lengths in plain.values()], axis=0)
        for name, stream in self._info["streams"].items():
            expected = pc.is_valid(self._samples[f"{stream}_uri"]).to_numpy(zero_copy_only=False)
            splits = self._info["views"].get(name, {}).get("splits")
            if splits is not None:
                expected &= pc.is_in(self._samples["split"], value_set=pa.array(splits)).to_numpy()
            deferred = self._info["counts"]["deferred"].get(name, 0)
            yield from self._account(name, expected, f"the sample has no {stream}", deferred)
            stored = ALIGNED_PREFIX + name
            if stored in self._lengths:
                yield from self._account(stored, anything, "the sample has no row to be aligned", 0, unknown)

    def _account(
        self,
        feature: str,
        expected: npt.NDArray[np.bool_],
        otherwise: str,
        deferred: int,
        unknown: npt.NDArray[np.bool_] | None = None,
    ) -> Iterator[Fault]:
        lengths = self._lengths[feature]
        told = lengths != _UNKNOWN
        if unknown is not None:
            told &= ~unknown
        row = lengths >= 0
        failed = self._quarantine.filter(pc.equal(self._quarantine["feature"], feature))["sample_id"]
        quarantined = pc.is_in(self._ids, value_set=failed.combine_chunks()).to_numpy(zero_copy_only=False)
        missing = told & expected & ~row & ~quarantined
        if missing.sum() > deferred:
            allowed = f" (allowed: {deferred} that were not asked for)" if deferred else ""
            yield self._fault(feature, missing, f"have neither a row nor a place in quarantine{allowed}")
        if (both := told & row & quarantined).any():
            yield self._fault(feature, both, "have a row and a place in quarantine")
        if (extra := told & row & ~expected).any():
            yield self._fault(feature, extra, f"have a row, but {otherwise}")

    def check_alignment(self) -> Iterator[Fault]:
        """All aligned features of a sample have the same number of steps."""
        aligned = [lengths for name, lengths in self._lengths.items() if name.startswith(ALIGNED_PREFIX)]
        if aligned:
            lengths = np.stack(aligned)
            wrong = (lengths >= 0).all(axis=0) & (lengths.min(axis=0) != lengths.max(axis=0))
            if wrong.any():
                yield self._fault(f"{ALIGNED_PREFIX}*", wrong, "have aligned features of different lengths")

    def _fault(self, where: str, samples: npt.NDArray[Any], message: str) -> Fault:
        """A fault of some samples (positions or a mask), the first of which is named."""
        found = np.flatnonzero(samples) if samples.dtype == bool else samples
        return Fault(where, f"{len(found):,} samples {message}; the first: {self._ids[int(found[0])]}")


def _both_null(one: pa.ChunkedArray, other: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = pc.and_(pc.is_null(one), pc.is_null(other)).to_numpy()
    return found
