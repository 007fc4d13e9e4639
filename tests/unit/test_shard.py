"""The physical row: what is written is what is read, and its layout is the one that readers may map."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.types import FeatureSequence
from pipeline.store import shard


def row(sample_id: str, length: int, dim: int = 3, **more: object) -> shard.Row:
    rng = np.random.default_rng(abs(length) + len(sample_id))
    start = np.arange(length, dtype=np.int64) * 10
    sequence = FeatureSequence(
        values=rng.standard_normal((length, dim)).astype(np.float32),
        start_ns=start,
        end_ns=start + 10,
        valid=rng.random(length) > 0.3,
    )
    base = {"split": "train", "label": None, "content": b"c" * 16, "recipe": b"r" * 16}
    return shard.Row(sample_id=sample_id, sequence=sequence, **(base | more))  # type: ignore[arg-type]


@given(lengths=st.lists(st.integers(0, 9), min_size=1, max_size=8), dim=st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_sequences_come_back_as_they_were(lengths: list[int], dim: int) -> None:
    rows = [row(f"s{i:02d}", length, dim) for i, length in enumerate(lengths)]
    buffer = io.BytesIO()
    shard.write_shard(shard.rows_to_table(7, reversed(rows), {"feature": "f", "dim": dim}), buffer)
    table = pq.read_table(pa.BufferReader(buffer.getvalue()))
    assert table["sample_id"].to_pylist() == [r.sample_id for r in rows]
    assert table["length"].to_pylist() == lengths
    assert shard.table_metadata(table)["dim"] == dim
    for i, expected in enumerate(rows):
        found = shard.sequence_at(table, i, dim)
        for name in ("values", "start_ns", "end_ns", "valid"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected.sequence, name))


def test_values_are_plain_uncompressed_and_without_dictionary(tmp_path: Path) -> None:
    shard.write_shard(shard.rows_to_table(0, [row("a", 4), row("b", 2)], {"feature": "f", "dim": 3}), tmp_path / "x")
    column = pq.ParquetFile(tmp_path / "x").metadata.row_group(0).column(shard.ROW_SCHEMA.get_field_index("values"))
    assert column.path_in_schema == "values.list.element"
    assert column.compression == "UNCOMPRESSED"
    assert not column.has_dictionary_page
    assert not column.is_stats_set
    assert set(column.encodings) <= {"PLAIN", "RLE"}


def test_columns_describe_themselves(tmp_path: Path) -> None:
    shard.write_shard(shard.rows_to_table(0, [row("a", 1)], {"feature": "f", "dim": 3}), tmp_path / "x")
    for field in pq.read_schema(tmp_path / "x"):
        assert field.metadata[b"description"]


def test_a_row_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="a: got width 2, allowed: 3"):
        shard.rows_to_table(0, [row("a", 1, dim=2)], {"feature": "f", "dim": 3})


def test_an_aligned_row_needs_coverage() -> None:
    with pytest.raises(ValueError, match="a: an aligned row needs coverage"):
        shard.rows_to_table(0, [row("a", 1)], {"feature": "f", "dim": 3, "aligned": True})
    covered = row("a", 2, coverage=np.array([1, 0.5], dtype=np.float32))
    table = shard.rows_to_table(0, [covered], {"feature": "f", "dim": 3, "aligned": True})
    assert table["coverage"].to_pylist() == [[1.0, 0.5]]
