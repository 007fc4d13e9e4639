"""Whatever a Parquet file is like: its numbers are mapped right, or are left to pyarrow; never anything else."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline.store.mapped import BITS, NotMapped, locate

KINDS: dict[str, tuple[pa.DataType, type[np.generic]]] = {
    "float": (pa.float32(), np.float32),
    "int64": (pa.int64(), np.int64),
    "bool": (pa.bool_(), np.bool_),
}
OURS = {"compression": "none", "use_dictionary": False, "write_statistics": False, "data_page_size": 1 << 30}
lengths = st.lists(st.integers(0, 40), min_size=1, max_size=60)


def column(counts: list[int], kind: str, *, nullable: bool = False, seed: int = 0) -> pa.Table:
    arrow, dtype = KINDS[kind]
    random = np.random.default_rng(seed)
    flat = random.integers(0, 5, sum(counts)).astype(dtype)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    item = pa.list_(pa.field("element", arrow, nullable=nullable))
    array = pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat, arrow), type=item)
    return pa.table([array], schema=pa.schema([pa.field("x", item, nullable=nullable)]))


def written(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **{**OURS, **options})
    return bytes(sink.getvalue().to_pybytes())


def mapped(content: bytes, group: int, counts: list[int], kind: str) -> np.ndarray[Any, Any]:
    """The numbers of a row group at the place that ``locate`` gives."""
    file = pq.ParquetFile(pa.BufferReader(content))
    chunk = file.metadata.row_group(group).column(0)
    at = locate(memoryview(content), chunk, file.metadata.schema.column(0), np.array(counts, np.int64))
    dtype, total = KINDS[kind][1], sum(counts)
    if kind == "bool":
        bits = np.frombuffer(content, np.uint8, (total + 7) // 8, at)
        return np.unpackbits(bits, count=total, bitorder="little").astype(np.bool_)
    return np.frombuffer(content, dtype, total, at)


def decoded(content: bytes, group: int) -> np.ndarray[Any, Any]:
    table = pq.ParquetFile(pa.BufferReader(content)).read_row_group(group)
    return np.asarray(table["x"].combine_chunks().flatten().to_numpy(zero_copy_only=False))


@settings(max_examples=50, deadline=None)
@given(counts=lengths, kind=st.sampled_from(list(KINDS)), rows=st.integers(1, 60))
def test_our_layout_is_mapped_and_holds_what_pyarrow_reads(counts: list[int], kind: str, rows: int) -> None:
    content = written(column(counts, kind), row_group_size=rows)
    for group, begin in enumerate(range(0, len(counts), rows)):
        found = mapped(content, group, counts[begin : begin + rows], kind)
        np.testing.assert_array_equal(found, decoded(content, group))


@settings(max_examples=50, deadline=None)
@given(
    counts=lengths,
    kind=st.sampled_from(list(KINDS)),
    nullable=st.booleans(),
    options=st.fixed_dictionaries(
        {},
        optional={
            "compression": st.sampled_from(["none", "snappy", "zstd"]),
            "use_dictionary": st.booleans(),
            "write_statistics": st.booleans(),
            "data_page_size": st.sampled_from([1, 64, 1 << 30]),
            "data_page_version": st.sampled_from(["1.0", "2.0"]),
            "column_encoding": st.sampled_from([None, {"x.list.element": "PLAIN"}]),
            "write_page_checksum": st.booleans(),
        },
    ),
)
def test_any_other_file_is_mapped_right_or_refused(
    counts: list[int], kind: str, nullable: bool, options: dict[str, Any]
) -> None:
    assume(not (options.get("use_dictionary") and options.get("column_encoding")))
    content = written(column(counts, kind, nullable=nullable), **options)
    try:
        found = mapped(content, 0, counts, kind)
    except NotMapped:
        return
    np.testing.assert_array_equal(found, decoded(content, 0))


@settings(max_examples=40, deadline=None)
@given(counts=lengths, wrong=lengths)
def test_other_lengths_than_the_lists_have_are_refused(counts: list[int], wrong: list[int]) -> None:
    assume(counts != wrong)
    with pytest.raises(NotMapped):
        mapped(written(column(counts, "float")), 0, wrong, "float")


@settings(max_examples=60, deadline=None)
@given(counts=lengths, place=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_damaged_header_never_gives_another_place(counts: list[int], place: int, byte: int) -> None:
    content = bytearray(written(column(counts, "float")))
    file = pq.ParquetFile(pa.BufferReader(bytes(content)))
    chunk, schema = file.metadata.row_group(0).column(0), file.metadata.schema.column(0)
    want = np.array(counts, np.int64)
    right = locate(memoryview(bytes(content)), chunk, schema, want)
    content[min(chunk.data_page_offset + place, right - 1)] = byte  # of the header or the levels
    with suppress(NotMapped):
        assert locate(memoryview(bytes(content)), chunk, schema, want) == right


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"compression": "zstd"}, "compression ZSTD"),
        ({"use_dictionary": True}, "encodings PLAIN, RLE, RLE_DICTIONARY"),
        ({"data_page_version": "2.0"}, "a page of type 3"),
        ({"data_page_size": 1}, "more than one page, or damaged"),
        ({"column_encoding": {"x.list.element": "BYTE_STREAM_SPLIT"}}, "encodings BYTE_STREAM_SPLIT, RLE"),
    ],
)
def test_the_reason_is_told(options: dict[str, Any], reason: str) -> None:
    counts = [300] * 20  # more than a batch of the writer, so that small pages are made
    with pytest.raises(NotMapped, match=reason):
        mapped(written(column(counts, "float"), **options), 0, counts, "float")


def test_nulls_and_other_types_are_refused() -> None:
    with pytest.raises(NotMapped, match="nulls are allowed, or lists are nested"):
        mapped(written(column([1, 2], "float", nullable=True)), 0, [1, 2], "float")
    content = written(pa.table({"x": pa.array([[1.0], [2.0]], pa.list_(pa.float64()))}))
    with pytest.raises(NotMapped, match="numbers of type DOUBLE"):
        mapped(content, 0, [1, 1], "float")
    assert set(BITS) == {"FLOAT", "INT64", "BOOLEAN"}
