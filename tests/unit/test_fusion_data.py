"""From aligned shard tables to padded arrays, and what is refused on the way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from features.errors import StoreError
from features.types import FeatureSequence
from pipeline.fusion.data import FusionData, Modality
from pipeline.store.shard import Row, rows_to_table

DIGEST = bytes(16)
LATER = FeatureSequence(values=np.ones((1, 1), dtype=np.float32), start_ns=np.array([5]), end_ns=np.array([9]))


def row(sample_id: str, values: list[list[float]], valid: list[bool] | None = None, **changes: object) -> Row:
    length = len(values)
    start_ns = np.arange(length, dtype=np.int64) * 10
    made = Row(
        sample_id=sample_id,
        split="train",
        label="x",
        content=DIGEST,
        recipe=DIGEST,
        sequence=FeatureSequence(
            values=np.array(values, dtype=np.float32),
            start_ns=start_ns,
            end_ns=start_ns + 10,
            valid=np.array([True] * length if valid is None else valid, dtype=np.bool_),
        ),
        coverage=np.ones(length, dtype=np.float32),
    )
    return replace(made, **changes)


def table(*rows: Row, shard: int = 0) -> pa.Table:
    return rows_to_table(shard, rows, {"feature": "aligned.f", "dim": rows[0].sequence.dim, "aligned": True})


def test_samples_of_all_shards_are_padded_to_one_length_and_masked() -> None:
    first = table(row("s2", [[1, 2], [3, 4], [5, 6]], [True, False, True], label="y", split="test"))
    second = table(row("s1", [[7, 8]]), shard=1)
    other = table(row("s2", [[1], [2], [3]], label="y", split="test"), row("s1", [[4]], [False]))
    data = FusionData.from_tables({"a": pa.concat_tables([first, second]), "b": other})
    assert data.sample_ids == ("s1", "s2")
    assert data.splits == ("train", "test")
    assert data.labels == ("x", "y")
    assert data.dims == {"a": 2, "b": 1}
    assert data.modalities["a"].values.tolist() == [[[7, 8], [0, 0], [0, 0]], [[1, 2], [0, 0], [5, 6]]]
    assert data.modalities["a"].mask.tolist() == [[True, False, False], [True, False, True]]
    assert data.modalities["b"].mask.tolist() == [[False, False, False], [True, True, True]]
    assert data.rows("test").tolist() == [1]


def test_the_order_of_rows_and_shards_changes_nothing() -> None:
    parts = [table(row(f"s{k}", [[float(k)]] * (k + 1)), shard=k) for k in range(4)]
    one, two = (FusionData.from_tables({"a": pa.concat_tables(order)}) for order in (parts, parts[::-1]))
    assert one.sample_ids == two.sample_ids
    assert one.modalities["a"].values.tobytes() == two.modalities["a"].values.tobytes()
    assert one.modalities["a"].mask.tobytes() == two.modalities["a"].mask.tobytes()


def test_a_slice_of_a_table_is_read_from_where_it_begins() -> None:
    whole = table(row("s1", [[1], [2]]), row("s2", [[3]]), row("s3", [[4], [5]]))
    data = FusionData.from_tables({"a": whole.slice(1, 2)})
    assert data.sample_ids == ("s2", "s3")
    assert data.modalities["a"].values[:, :, 0].tolist() == [[3, 0], [4, 5]]


def test_samples_without_label_and_views_outside_training_are_left_out_and_counted() -> None:
    data = FusionData.from_tables(
        {
            "a": table(
                row("s1", [[1], [2]], label=None),
                row("s2", [[3]]),
                row("s2", [[4]], view=1),
                row("s3", [[5]], split="test"),
                row("s3", [[6]], split="test", view=1),
            )
        }
    )
    assert data.sample_ids == ("s2", "s2", "s3")
    assert data.modalities["a"].values.ravel().tolist() == [3, 4, 5]
    assert (data.unlabelled, data.extra_views) == (1, 1)


def test_values_behind_the_mask_are_zeros_whatever_was_stored() -> None:
    data = FusionData.from_tables({"a": table(row("s1", [[np.nan], [2]], [False, True]))})
    assert data.modalities["a"].values.ravel().tolist() == [0, 2]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([row("s1", [[1]])], r"sample 's2' is in a but not in b; cure: align again"),
        ([row("s0", [[1]]), row("s1", [[1]]), row("s2", [[1]])], r"sample 's0' is in b but not in a"),
        (
            [row("s1", [[1]]), row("s2", [[1], [2]])],
            r"sample 's2' has 1 rows in a but 2 in b; allowed: the same in every",
        ),
        ([row("s1", [[1]], label="y"), row("s2", [[1]])], r"sample 's1' has label 'x' in a but 'y' in b"),
        ([row("s1", [[1]], split="test"), row("s2", [[1]])], r"sample 's1' has split 'train' in a but 'test' in b"),
        ([row("s1", [[1]], view=2), row("s2", [[1]])], r"sample 's1' is in a but not in b"),
        (
            [row("s1", [[1]]), row("s2", [[1]], sequence=LATER)],
            r"sample 's2' has row 0 at 0 ns in a but 5 ns in b",
        ),
    ],
)
def test_modalities_that_do_not_match_are_refused_by_name(other: list[Row], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        FusionData.from_tables({"a": table(row("s1", [[1]]), row("s2", [[1]])), "b": table(*other)})


def test_a_sample_that_is_there_twice_is_refused() -> None:
    twice = pa.concat_tables([table(row("s1", [[1]])), table(row("s1", [[1]]), shard=1)])
    with pytest.raises(StoreError, match=r"fusion: a: sample 's1' is there twice, allowed: once; cure: align again"):
        FusionData.from_tables({"a": twice})


def test_numbers_that_are_not_finite_are_refused_by_sample() -> None:
    with pytest.raises(StoreError, match=r"fusion: a: sample 's2' view 1 holds numbers that are not finite"):
        FusionData.from_tables({"a": table(row("s1", [[1]]), row("s2", [[1]]), row("s2", [[1], [np.inf]], view=1))})


def test_a_table_whose_columns_disagree_is_refused() -> None:
    good = table(row("s1", [[1], [2]]))
    at = good.schema.get_field_index("length")
    bad = good.set_column(at, good.schema.field(at), pa.array([3], pa.int32()))
    with pytest.raises(StoreError, match=r"fusion: a: got 2 values, 2 flags and 2 times, allowed: 3 rows of width 1"):
        FusionData.from_tables({"a": bad})


def test_no_modality_is_refused() -> None:
    with pytest.raises(StoreError, match=r"fusion: got no modality, allowed: at least one aligned feature"):
        FusionData.from_tables({})


def test_arrays_that_do_not_fit_together_are_refused() -> None:
    values = np.zeros((2, 3, 4), dtype=np.float32)
    with pytest.raises(ValueError, match=r"mask: got bool \[2, 2\], allowed: bool \[2, 3\]"):
        Modality(values=values, mask=np.ones((2, 2), dtype=np.bool_))
    with pytest.raises(ValueError, match=r"values: got float64 \[2\], allowed: float32 \[N, n, D\]"):
        Modality(values=np.zeros(2), mask=np.ones((2, 2), dtype=np.bool_))
    modality = Modality(values=values, mask=np.ones((2, 3), dtype=np.bool_))
    with pytest.raises(ValueError, match=r"FusionData: labels: got 1 entries, allowed: one for each of 2 samples"):
        FusionData(sample_ids=("a", "b"), splits=("train", "test"), labels=("x",), modalities={"m": modality})
    with pytest.raises(ValueError, match=r"FusionData\.modalities: got none"):
        FusionData(sample_ids=(), splits=(), labels=(), modalities={})
