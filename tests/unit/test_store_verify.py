"""Verifying a snapshot: whole ones have no fault, and every kind of damage is found and named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from made_store import Made

from pipeline.store import ShardFile, Snapshot
from pipeline.store.quarantine import Failure
from pipeline.store.verify import verify

SAMPLES = {"a": 0, "b": 0, "c": 1}
FAILED = Failure(sample_id="c", feature="g", stage="extract", reason="silent", message="no")


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def whole(made: Made) -> list[ShardFile]:
    """Two features, one of them with a sample in quarantine, and both aligned."""
    return [
        made.file("f", 0, {"a": [[1, 1]], "b": [[1, 2], [3, 4]]}),
        made.file("f", 1, {"c": [[1, 3]]}),
        made.file("g", 0, {"a": [[1, 1]], "b": [[1, 2]]}),
        *(made.file(f"aligned.{name}", 0, {"a": [[1, 1]], "b": [[1, 2], [0, 0]]}) for name in "fg"),
        *(made.file(f"aligned.{name}", 1, {"c": [[1, 1]]}) for name in "fg"),
    ]


def faults(snapshot: Snapshot) -> list[tuple[str, str]]:
    return [(fault.where.partition("/")[0], fault.message) for fault in verify(snapshot).faults]


def publish(made: Made, files: Sequence[ShardFile], **options: object) -> Snapshot:
    settings: dict[str, object] = {"samples": SAMPLES, "quarantine": [FAILED]} | options
    return made.publish(*files, **settings)  # type: ignore[arg-type]


def test_a_whole_snapshot_has_no_fault(made: Made) -> None:
    snapshot = publish(made, whole(made))
    found = verify(snapshot)
    assert found.faults == ()
    assert (found.dataset, found.snapshot, found.files, found.rows) == ("grain", 1, 7, 11)
    assert found.bytes == sum(file.size for file in snapshot.files)
    assert found.as_json()["faults"] == ()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip, "its bytes have changed: got digest "),
        (cut, "bytes, allowed: "),
        (Path.unlink, "is not there"),
    ],
)
@pytest.mark.parametrize("feature", ["f", "aligned.g"])
def test_a_damaged_file_is_one_fault_whatever_follows_from_it(
    made: Made, damage: Callable[[Path], None], message: str, feature: str
) -> None:
    snapshot = publish(made, whole(made))
    victim = snapshot.files_of(feature)[0]
    damage(made.folder / victim.path)
    (fault,) = verify(snapshot).faults
    assert fault.where == victim.path
    assert message in fault.message


def column(name: str, change: Callable[[pa.ChunkedArray], object]) -> Callable[[pa.Table], pa.Table]:
    """An edit of one column of a shard's table."""

    def edit(table: pa.Table) -> pa.Table:
        position = table.schema.get_field_index(name)
        field = table.schema.field(position)
        return table.set_column(position, field, pa.array(change(table.column(position)), field.type))

    return edit


def lists(*values: Sequence[float]) -> Callable[[pa.ChunkedArray], object]:
    return lambda old: [*values, *old.to_pylist()[len(values) :]]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (column("end_ns", lists([-1])), "1 steps end before they start; the first is of a"),
        (column("values", lists([np.nan, 1])), "1 steps are valid but hold NaN or infinity; the first is of a"),
        (
            column("values", lists([1, 2, 3])),
            "1 rows have lists of another length than they say; the first: a, values: got 3, allowed: 2",
        ),
        (column("length", lambda old: [1, 1]), "the first: b, start_ns: got 2, allowed: 1"),
        (column("shard", lambda old: pc.add(old, 1).to_pylist()), "holds rows of other shards than 0"),
        (lambda table: table.replace_schema_metadata(), "its metadata say feature None of width None, allowed: 'f' of"),
        (lambda table: table.set_column(0, "shard", pc.cast(table["shard"], pa.int64())), "got columns ['shard', "),
    ],
)
def test_wrong_rows_are_found(made: Made, edit: Callable[[pa.Table], pa.Table], message: str) -> None:
    bad = made.file("f", 0, {"a": [[1, 1]], "b": [[1, 2], [3, 4]]}, edit=edit)
    snapshot = publish(made, [bad, *whole(made)[1:]])
    (fault,) = verify(snapshot).faults
    assert fault.where == bad.path
    assert message in fault.message


def test_a_coverage_of_more_than_all_is_found(made: Made) -> None:
    files = whole(made)
    files[3] = made.file("aligned.f", 0, {"a": [[1, 1]], "b": [[1, 2], [0, 0]]}, edit=column("coverage", lists([1.5])))
    assert faults(publish(made, files)) == [
        ("feature=aligned.f", "1 steps have a coverage outside 0 to 1; the first is of a")
    ]


def test_another_number_of_rows_than_the_log_says_is_found(made: Made) -> None:
    snapshot = publish(made, whole(made))
    file = snapshot.files_of("f")[1]
    lying = Snapshot(made.store, 1, (*snapshot.files[1:], ShardFile(file.path, file.size, 2)), snapshot.info)
    assert ("feature=f", "got 1 rows, allowed: 2") in faults(lying)


def test_the_counts_must_add_up(made: Made) -> None:
    files = whole(made)
    lost = "1 samples have neither a row nor a place in quarantine"
    nothing = publish(made, files, quarantine=[])
    assert faults(nothing) == [("g", f"{lost}; the first: c")]
    both = publish(made, [], quarantine=[FAILED, Failure(**{**vars(FAILED), "feature": "f", "sample_id": "a"})])
    assert faults(both) == [("f", "1 samples have a row and a place in quarantine; the first: a")]
    late = publish(made, [], quarantine=[], deferred=1)
    assert faults(late) == []


def test_a_lost_aligned_row_is_found(made: Made) -> None:
    files = whole(made)
    snapshot = publish(made, files[:-1])
    assert faults(snapshot) == [
        ("aligned.g", "1 samples have neither a row nor a place in quarantine; the first: c"),
    ]


def test_aligned_features_must_have_equal_lengths(made: Made) -> None:
    files = whole(made)
    files[-1] = made.file("aligned.g", 1, {"c": [[1, 1], [2, 2]]})
    assert faults(publish(made, files)) == [
        ("aligned.*", "1 samples have aligned features of different lengths; the first: c")
    ]


def test_rows_that_do_not_belong_are_found(made: Made) -> None:
    files = whole(made)
    twice = made.file("f", 1, {"a": [[1, 1]], "c": [[1, 3]]})
    assert faults(publish(made, [files[0], twice, *files[2:]])) == [
        ("f", "1 rows are there more than once"),
        ("f", "1 samples have another shard than the table of samples says; the first: a"),
    ]


def test_rows_of_samples_that_are_not_there_are_found(made: Made) -> None:
    files = whole(made)
    stranger = made.file("f", 1, {"c": [[1, 3]], "x": [[1, 1]]})
    assert faults(publish(made, [files[0], stranger, *files[2:]])) == [
        ("f", "1 rows are of samples that the table of samples does not have")
    ]


def test_labels_and_recipes_must_be_known(made: Made) -> None:
    files = whole(made)
    files[1] = made.file("f", 1, {"c": [[1, 3]]}, labels={"c": "day"}, gain=2)
    assert faults(publish(made, files)) == [
        ("f", "1 samples have another label than the table of samples says; the first: c"),
        ("f", "rows were made by 1 recipes that the snapshot does not know"),
    ]


@pytest.mark.parametrize("name", ["samples", "quarantine"])
@pytest.mark.parametrize("damage", [Path.unlink, cut])
def test_a_damaged_side_table_is_found(made: Made, name: str, damage: Callable[[Path], None]) -> None:
    snapshot = publish(made, whole(made))
    damage(made.folder / snapshot.info[name])
    (fault,) = verify(snapshot).faults
    assert fault.where == snapshot.info[name]
    assert f"the table of {name} cannot be read" in fault.message
