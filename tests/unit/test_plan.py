"""The plan: what it counts must agree with a plain comparison of what is stored and what is wanted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from features.types import STREAMS
from pipeline.extents import SHARD_BYTES
from pipeline.keys import digest_json
from pipeline.plan import COMPUTED, Status, Wanted, make_plan, streamless
from pipeline.store.quarantine import SCHEMA as QUARANTINE
from pipeline.store.shard import ROW_SCHEMA

RECIPES = [
    {"steps": [{"step": "s", "options": {"n": n}, "code": "", "libraries": {}, "weights": None}], "state": None}
    for n in (1, 2)
]
DIGESTS = [digest_json(recipe) for recipe in RECIPES]


@dataclass
class Stored:
    """A snapshot in memory, with what the plan asks of one."""

    rows: pa.Table
    quarantine: pa.Table
    samples: pa.Table
    features: tuple[str, ...] = ("f",)
    files: tuple[Any, ...] = ()
    info: dict[str, Any] = field(
        default_factory=lambda: {"recipes": {"f": {d.hex(): r for d, r in zip(DIGESTS, RECIPES, strict=True)}}}
    )

    def files_of(self, feature: str) -> tuple[str, ...]:
        return ("file",) if feature == "f" and len(self.rows) else ()

    @property
    def sample_shards(self) -> pa.Table:
        return self.samples

    def keys(self, feature: str) -> pa.Table:
        del feature
        return self.rows


def sample_table(ids: list[str], labels: list[str | None], size: int = 1) -> pa.Table:
    columns: dict[str, Any] = {
        "sample_id": pa.array(ids, pa.string()),
        "split": ["train"] * len(ids),
        "label": pa.array(labels, pa.string()),
        "start_ns": pa.nulls(len(ids), pa.int64()),
        "end_ns": pa.nulls(len(ids), pa.int64()),
    }
    for stream in STREAMS:
        columns[f"{stream}_uri"] = pa.array([f"{i}.mp4" for i in ids], pa.string())
        columns[f"{stream}_size"] = pa.array([size] * len(ids), pa.int64())
    return pa.table(columns)


def content(number: int) -> bytes:
    return bytes([number]) * 16


STORED = st.dictionaries(
    st.integers(0, 9), st.tuples(st.integers(1, 3), st.integers(0, 1), st.sampled_from(["a", "b", None]), st.booleans())
)
WANTED = st.dictionaries(
    st.integers(0, 9), st.tuples(st.integers(1, 3), st.sampled_from(["a", "b", None]), st.booleans()), min_size=1
)


@given(stored=STORED, wanted=WANTED, recipe=st.integers(0, 1))
@settings(deadline=None, max_examples=150)
def test_statuses_agree_with_a_plain_comparison(stored: Any, wanted: Any, recipe: int) -> None:
    kept = {i: row for i, row in stored.items() if not row[3]}
    failed = {i: row for i, row in stored.items() if row[3]}
    rows = pa.Table.from_pylist(
        [
            {
                "shard": i % 3,
                "split": "train",
                "label": label,
                "sample_id": f"s{i}",
                "view": 0,
                "content": content(c),
                "recipe": DIGESTS[r],
                "length": 0,
                "start_ns": [],
                "end_ns": [],
                "valid": [],
                "values": [],
            }
            for i, (c, r, label, _) in sorted(kept.items())
        ],
        schema=ROW_SCHEMA,
    )
    texts = dict.fromkeys(("stage", "reason", "message", "traceback", "run_id"), "")
    quarantine = pa.Table.from_pylist(
        [
            {"sample_id": f"s{i}", "feature": "f", "content": content(c), "recipe": DIGESTS[r], **texts}
            for i, (c, r, _, _) in failed.items()
        ],
        schema=QUARANTINE,
    )
    shards = pa.table(
        {
            "sample_id": pa.array([f"s{i}" for i in stored], pa.string()),
            "shard": pa.array([i % 3 for i in stored], pa.int32()),
        }
    )
    base: Any = Stored(rows, quarantine, shards)
    ids = sorted(wanted)
    samples = sample_table([f"s{i}" for i in ids], [wanted[i][1] for i in ids])
    digests = np.array([list(content(wanted[i][0])) for i in ids], dtype=np.uint8)
    present = np.array([wanted[i][2] for i in ids])
    want = Wanted(chain=None, recipe=RECIPES[recipe], content=digests, present=present)  # type: ignore[arg-type]
    plan = make_plan(base, samples, {"f": want}, shard_samples=2)

    def expected(i: int) -> Status:
        c, label, here = wanted[i]
        if not here:
            return Status.ABSENT
        if i not in stored:
            return Status.NEW
        old_c, old_r, old_label, bad = stored[i]
        if old_c != c:
            return Status.CONTENT
        if old_r != recipe:
            return Status.RECIPE
        if bad:
            return Status.QUARANTINED
        return Status.UNCHANGED if label == old_label else Status.RELABEL

    feature = plan.features["f"]
    assert [Status(s) for s in feature.status] == [expected(i) for i in ids]
    gone = [i for i in kept if i not in wanted or not wanted[i][2]]
    assert feature.removed == len(gone)
    assert sum(feature.changes.values()) == sum(expected(i) is Status.RECIPE and i in kept for i in ids)
    must_write = {i % 3 for i in gone} | {
        shard
        for i, shard in zip(ids, plan.samples["shard"].to_pylist(), strict=True)
        if expected(i) in (*COMPUTED, Status.RELABEL)
    }
    assert set(plan.shards_to_write) == must_write
    assert streamless(plan).tolist() == [not wanted[i][2] for i in ids]
    kept_shards = dict(zip(plan.samples["sample_id"].to_pylist(), plan.samples["shard"].to_pylist(), strict=True))
    assert all(kept_shards[f"s{i}"] == i % 3 for i in ids if i in stored), "a sample keeps its shard"

    listed = list(plan.listing())
    moved = (*COMPUTED, Status.RELABEL)
    dropped = [(f"s{i}", "f", "removed") for i in gone]
    assert sorted(row[0] for row in listed) == sorted(
        [f"s{i}" for i in ids if expected(i) in moved] + [row[0] for row in dropped]
    )
    assert {row for row in listed if row[2] == "removed"} == set(dropped)
    quiet = ("unchanged", "in quarantine, nothing changed")
    told = {reason: count for reason, count in feature.reasons() if reason not in quiet}
    assert Counter(reason for _, _, reason in listed) == told, "the list and the counts say the same"


@given(count=st.integers(1, 40), size=st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_new_samples_fill_shards_whatever_their_order(count: int, size: int) -> None:
    names = [f"s{i}" for i in range(count)]
    want = Wanted(
        chain=None,  # type: ignore[arg-type]
        recipe=RECIPES[0],
        content=np.zeros((count, 16), dtype=np.uint8),
        present=np.ones(count, dtype=bool),
    )

    def shards(ids: list[str]) -> dict[str, int]:
        plan = make_plan(None, sample_table(ids, [None] * count), {"f": want}, shard_samples=size)
        return dict(zip(ids, plan.samples["shard"].to_pylist(), strict=True))

    found = shards(names)
    assert found == shards(names[::-1])
    sizes = np.bincount(list(found.values()))
    assert (sizes[:-1] == size).all()
    assert 1 <= sizes[-1] <= size


def test_a_shard_is_closed_before_its_media_grow_too_large() -> None:
    names = [f"s{i}" for i in range(10)]
    samples = sample_table(names, [None] * 10, size=SHARD_BYTES // 7)  # three streams' files a sample: two samples fit
    want = Wanted(
        chain=None,  # type: ignore[arg-type]
        recipe=RECIPES[0],
        content=np.zeros((10, 16), dtype=np.uint8),
        present=np.ones(10, dtype=bool),
    )
    plan = make_plan(None, samples, {"f": want}, shard_samples=64)
    assert np.bincount(plan.samples["shard"].to_numpy()).tolist() == [2] * 5


def test_samples_without_pictures_make_larger_shards_unless_a_number_is_asked_for() -> None:
    names = [f"s{i}" for i in range(9_600)]
    want = Wanted(
        chain=None,  # type: ignore[arg-type]
        recipe=RECIPES[0],
        content=np.zeros((9_600, 16), dtype=np.uint8),
        present=np.ones(9_600, dtype=bool),
    )
    samples = sample_table(names, [None] * 9_600)
    sounds = samples
    for place, column in enumerate(samples.schema):
        if column.name.startswith(("image_", "video_")):
            sounds = sounds.set_column(place, column, pa.nulls(9_600, column.type))

    def shards(table: pa.Table, asked: int | None) -> list[int]:
        plan = make_plan(None, table, {"f": want}, shard_samples=asked)
        return np.bincount(plan.samples["shard"].to_numpy()).tolist()

    assert shards(sounds, None) == [300] * 32
    assert shards(sounds.slice(0, 640), None) == [64] * 10, "every worker has some"
    assert shards(samples, None) == [64] * 150
    assert shards(sounds, 100) == shards(samples, 100) == [100] * 96


def test_shards_are_cut_by_seconds_and_pixels_too() -> None:
    names = [f"s{i}" for i in range(9)]
    samples = sample_table(names, [None] * 9)
    under_ten_minutes = [599_000_000_000] * 9
    extents = pa.table({"uri": [f"{name}.mp4" for name in names], "ns": under_ten_minutes, "pixels": [0] * 9})
    want = Wanted(
        chain=None,  # type: ignore[arg-type]
        recipe=RECIPES[0],
        content=np.zeros((9, 16), dtype=np.uint8),
        present=np.ones(9, dtype=bool),
    )
    plan = make_plan(None, samples, {"f": want}, shard_samples=64, extents={"video": extents})
    assert np.bincount(plan.samples["shard"].to_numpy()).tolist() == [3, 3, 3]
