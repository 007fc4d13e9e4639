"""Timelines that come from outside of the features: the sample's text, or a table of given intervals."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.align.timeline import Edges, ordered
from features.errors import CatalogError
from features.time import seconds_to_ns
from pipeline.catalog import DataSet
from pipeline.catalog.align_models import Intervals
from pipeline.catalog.problems import did_you_mean, listed
from pipeline.content import CACHE_SCHEMA, Digests, stream_digests, windowed
from pipeline.events import SILENT, Events
from pipeline.keys import digest
from pipeline.scan.listing import open_root
from pipeline.store import DatasetStore
from pipeline.store.shard import DIGEST_BYTES

Given = Mapping[str, Edges | str]
"""Sample id -> its intervals in order, or what is wrong with them."""


@dataclass(frozen=True)
class Outside:
    """What the timelines of the samples are read from, besides features.

    ``present`` bool ``[N]`` and ``digests``: which samples have it, and what it is. ``given``: intervals of a table.
    ``notes``: what a person should be told.
    """

    present: npt.NDArray[np.bool_]
    digests: Digests
    given: Given = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def outside(
    dataset: DataSet,
    samples: pa.Table,
    store: DatasetStore,
    known: Mapping[Any, Digests],
    *,
    verify: bool = False,
    events: Events = SILENT,
) -> Outside | None:
    """Read, or digest, what the timelines of ``samples`` come from; ``None`` where features alone decide.

    ``known``: digests of the streams that features read. Raises ``CatalogError`` for a table that cannot be read.
    """
    align = dataset.align
    if align is None:
        return None
    if align.text is not None:
        digests = known.get("text")
        if digests is None:
            cache = store.read_cache("content-text", CACHE_SCHEMA)
            digests, found = stream_digests(samples, "text", cache, verify=verify, events=events)
            if not found.equals(cache):
                store.write_cache("content-text", found)
        present = pc.is_valid(samples["text_uri"]).to_numpy(zero_copy_only=False)
        return Outside(present, windowed(digests, samples))
    if align.intervals is not None:
        return _of_table(read_intervals(dataset.root, align.intervals), samples, align.intervals)
    return None


def _of_table(given: dict[str, Edges | str], samples: pa.Table, spec: Intervals) -> Outside:
    ids = samples["sample_id"].to_pylist()
    present = np.zeros(len(ids), dtype=bool)
    digests = np.zeros((len(ids), DIGEST_BYTES), dtype=np.uint8)
    for row, sample_id in enumerate(ids):
        found = given.get(sample_id)
        if found is not None:
            parts = [found.encode()] if isinstance(found, str) else [edges.astype("<i8").tobytes() for edges in found]
            digests[row] = np.frombuffer(digest(*parts), dtype=np.uint8)
            present[row] = True
    strange = sorted(given.keys() - set(ids))
    notes: tuple[str, ...] = ()
    if strange:
        notes = (f"{spec.path}: intervals of {len(strange)} ids that no sample has; the first: {strange[0]!r}",)
    return Outside(present, digests, given, notes)


def read_intervals(root: str, spec: Intervals) -> dict[str, Edges | str]:
    """Read a table of intervals: sample id -> its intervals in order, or what is wrong with one of them.

    Raises ``CatalogError`` where the table as a whole cannot be read, or a column is not there.
    """
    try:
        raw = open_root(root).read(spec.path)
    except OSError as error:
        raise CatalogError([f"{spec.path}: cannot be read: {error}"]) from error
    table = (_parquet if spec.path.lower().endswith(".parquet") else _csv)(raw, spec)
    ids = pc.cast(table[spec.id], pa.string()).combine_chunks()
    edges = {name: _nanoseconds(table[column]) for name, column in (("start", spec.start), ("end", spec.end))}
    coded = ids.dictionary_encode(null_encoding="encode")
    code = coded.indices.to_numpy()
    faults = _faults(table, spec, edges)
    order = np.argsort(code, kind="stable")
    bounds = np.searchsorted(code[order], np.arange(len(coded.dictionary) + 1))
    found: dict[str, Edges | str] = {}
    for k, sample_id in enumerate(coded.dictionary.to_pylist()):
        rows = order[bounds[k] : bounds[k + 1]]
        if sample_id is None:
            raise CatalogError([f"{spec.path}: row {int(rows[0]) + 1} has no {spec.id}"])
        wrong = next((faults[row] for row in rows.tolist() if row in faults), None) if faults else None
        found[sample_id] = wrong or ordered(edges["start"][0][rows], edges["end"][0][rows])
    return found


def _csv(raw: bytes, spec: Intervals) -> pa.Table:
    from pyarrow import csv

    wanted = [spec.id, spec.start, spec.end]
    try:
        with csv.open_csv(io.BytesIO(raw)) as reader:
            _check_columns(reader.schema.names, spec)
        return csv.read_csv(
            io.BytesIO(raw),
            read_options=csv.ReadOptions(use_threads=False),
            convert_options=csv.ConvertOptions(
                include_columns=wanted, column_types=dict.fromkeys(wanted, pa.string()), strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise CatalogError([f"{spec.path}: not CSV that can be read: {error}; cure: check the row"]) from error


def _parquet(raw: bytes, spec: Intervals) -> pa.Table:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(raw))
        _check_columns(file.schema_arrow.names, spec)
        return file.read(columns=list(dict.fromkeys([spec.id, spec.start, spec.end])), use_threads=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise CatalogError([f"{spec.path}: not a Parquet file that can be read: {error}"]) from error


def _check_columns(found: list[str], spec: Intervals) -> None:
    problems = [
        f"{spec.path}: no column {column!r} (align.intervals.{key}); columns found: {listed(found)}"
        f"{did_you_mean(column, found)}"
        for key, column in (("id", spec.id), ("start", spec.start), ("end", spec.end))
        if column not in found
    ]
    if problems:
        raise CatalogError(problems)


def _nanoseconds(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Seconds as whole nanoseconds, and which of them are numbers within 30 years."""
    try:
        seconds = pc.cast(column, pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        seconds = np.array([_number(cell) for cell in column.to_pylist()], dtype=np.float64)
    good = np.abs(seconds) <= 1e9
    scaled = np.where(good, seconds, 0.0) * 1e9
    whole = np.floor(scaled + 0.5)
    close = np.flatnonzero(np.abs(scaled - whole) > 0.4999)  # the one rounding rule decides what a float cannot
    nanoseconds = whole.astype(np.int64)
    nanoseconds[close] = [seconds_to_ns(float(seconds[row])) for row in close]
    return nanoseconds, good


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return float("nan")


def _faults(
    table: pa.Table,
    spec: Intervals,
    edges: Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]],
) -> dict[int, str]:
    """Row -> what is wrong with it; rows are counted from 1, without the header."""
    found: dict[int, str] = {}
    for name, column in (("start", spec.start), ("end", spec.end)):
        for row in np.flatnonzero(~edges[name][1]).tolist():
            cell = table[column][row].as_py()
            found[row] = f"{spec.path}: row {row + 1}: {column}: got {cell!r}, allowed: seconds"
    for row in np.flatnonzero(edges["end"][0] < edges["start"][0]).tolist():
        message = f"{spec.path}: row {row + 1}: ends before it starts, allowed: {spec.start} <= {spec.end}"
        found.setdefault(row, message)
    return found
