"""Pieces of work from a plan: each shard has its own samples, and costs the same however many samples there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from features.audio.mfcc import Mfcc
from features.types import STREAMS
from pipeline.chain import Chain
from pipeline.plan import FeaturePlan, Plan, Status, Wanted, make_plan
from pipeline.scan.samples import SAMPLES_SCHEMA
from pipeline.work import Place, shard_work

PLACE = Place(store="/store", dataset="grain", run_id="r")
COUNT, EACH = 120, 4


@pytest.fixture
def plan() -> Plan:
    ids = [f"s{number:04d}" for number in range(COUNT)]
    columns: dict[str, Any] = {name: pa.nulls(COUNT, SAMPLES_SCHEMA.field(name).type) for name in SAMPLES_SCHEMA.names}
    columns |= {"sample_id": ids, "split": ["train"] * COUNT}
    for stream in STREAMS:
        columns[f"{stream}_uri"] = [f"/media/{name}.{stream}" for name in ids]
        columns[f"{stream}_size"] = pa.array(np.ones(COUNT, np.int64))
        columns[f"{stream}_version"] = ["1"] * COUNT
    content = np.arange(COUNT * 16, dtype=np.uint32).astype(np.uint8).reshape(COUNT, 16)
    recipe = {"steps": [], "weights": None, "state": None}
    wanted = Wanted(Chain("f", (), Mfcc()), recipe, content, np.ones(COUNT, dtype=bool))
    return make_plan(None, pa.table(columns, schema=SAMPLES_SCHEMA), {"f": wanted, "g": wanted}, shard_samples=EACH)


def test_each_shard_has_what_the_plan_says_of_its_samples(plan: Plan) -> None:
    kept = np.arange(COUNT) % 3 == 0
    plan.features["f"].status[kept] = Status.UNCHANGED
    ids, shards = plan.samples["sample_id"].to_pylist(), plan.samples["shard"].to_pylist()
    seen = 0
    for piece in shard_work(plan, plan.shards_to_write, PLACE, {"f": None, "g": None}, "cpu"):
        mine = [row for row in range(COUNT) if shards[row] == piece.shard]
        first, second = piece.features
        assert set(piece.roster) == {ids[row] for row in mine}
        assert first.keep == {ids[row] for row in mine if kept[row]}
        content = plan.features["f"].wanted.content
        assert first.compute == {ids[row]: content[row].tobytes() for row in mine if not kept[row]}
        assert second.compute == {ids[row]: content[row].tobytes() for row in mine}
        assert not second.keep
        seen += 1
    assert seen == COUNT // EACH


def test_the_whole_data_set_is_looked_at_once_not_once_a_shard(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[FeaturePlan] = []
    kept = FeaturePlan.kept.fget

    def counted(feature: FeaturePlan) -> Any:
        asked.append(feature)
        return kept(feature)  # type: ignore[misc]

    monkeypatch.setattr(FeaturePlan, "kept", property(counted))
    pieces = list(shard_work(plan, plan.shards_to_write, PLACE, {"f": None, "g": None}, "cpu"))
    assert len(pieces) == COUNT // EACH
    assert len(asked) == len(plan.features)
