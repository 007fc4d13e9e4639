"""Estimates: rates times counts, checked by hand; what was never measured is unknown."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.estimate import ENOUGH, Cost, Estimate, estimate, read_rates
from pipeline.plan import FeaturePlan, Plan, Status, Wanted
from pipeline.record import RunReport, Spent
from pipeline.store import DatasetStore, ShardFile

NAMES = {"sound": ("audio",), "flow": ("video",), "where": ("video", "image")}
RATES = {
    "decode video+audio": Spent(10, 40.0),
    "decode audio": Spent(10, 10.0),
    "decode video": Spent(10, 30.0),
    "extract sound": Spent(100, 50.0),
    "extract flow": Spent(100, 200.0),
    "write sound": Spent(100, 1.0),
    "write flow": Spent(100, 2.0),
    "align": Spent(100, 10.0),
}


def shard_file(feature: str, shard: int, size: int, rows: int) -> ShardFile:
    return ShardFile(f"feature={feature}/shard-{shard:06d}-{'0' * 32}-{'0' * 8}.parquet", size, rows)


@dataclass
class Stored:
    """What an estimate asks of a snapshot."""

    files: tuple[ShardFile, ...]
    info: dict[str, Any]

    def files_of(self, feature: str) -> tuple[ShardFile, ...]:
        return tuple(file for file in self.files if file.feature == feature)


def plan_of(statuses: dict[str, list[Status]], shared: list[bool], base: Any = None) -> Plan:
    """A plan of samples in shards of two; ``shared``: whose sound is the video's own."""
    count = len(shared)
    samples = pa.table(
        {
            "sample_id": [f"s{i}" for i in range(count)],
            "video_uri": [f"{i}.mp4" for i in range(count)],
            "audio_uri": [f"{i}.mp4" if one else f"{i}.wav" for i, one in enumerate(shared)],
            "shard": pa.array([i // 2 for i in range(count)], pa.int32()),
        }
    )
    features = {}
    for name, found in statuses.items():
        chain: Any = SimpleNamespace(streams=NAMES[name], extractor=SimpleNamespace(dim=3))
        want = Wanted(chain, {}, np.zeros((count, 16), np.uint8), np.ones(count, bool))
        nothing: Any = pa.chunked_array([], pa.string())
        features[name] = FeaturePlan(
            want, b"", np.array(found, np.int8), nothing, frozenset(), {}, np.zeros(0, np.int32)
        )
    return Plan(base, samples, features)


NEW, SAME = Status.NEW, Status.UNCHANGED
BASE: Any = Stored(
    (
        shard_file("sound", 0, 1_000, 4),
        shard_file("sound", 1, 600, 4),
        shard_file("flow", 0, 800, 8),
        shard_file("aligned.sound", 0, 300, 3),
        shard_file("aligned.flow", 0, 600, 3),
    ),
    {"dims": {"sound": 3, "flow": 3}},
)


def test_rates_times_counts() -> None:
    plan = plan_of({"sound": [NEW, SAME, NEW, SAME, SAME, SAME], "flow": [NEW] + [SAME] * 5}, [True] * 6, BASE)
    found = estimate(plan, RATES, workers=2, aligned=True)
    # sound: 2 rows computed, 4 rows in the two shards that are written; flow: 1 and 2
    assert found.features == {
        "sound": Cost(2, 2 * 0.5 + 4 * 0.01, 4 * 200),
        "flow": Cost(1, 1 * 2.0 + 2 * 0.02, 2 * 100),
    }
    assert found.decode == {"video+audio": Cost(1, 4.0), "audio": Cost(1, 1.0)}
    assert found.align == Cost(4, 0.4, 2 * 100 + 2 * 200)
    assert found.seconds == pytest.approx((1.04 + 2.04 + 4.0 + 1.0) / 2 + 0.4)
    assert found.bytes == 800 + 200 + 600
    assert json.loads(json.dumps(found.as_json()))["seconds"] == pytest.approx(4.44)


def test_separate_sound_is_decoded_by_itself() -> None:
    plan = plan_of({"sound": [NEW, NEW], "flow": [NEW, SAME]}, [False, True], BASE)
    assert estimate(plan, RATES, workers=1, aligned=False).decode == {"video": Cost(1, 3.0), "audio": Cost(2, 2.0)}


def test_a_feature_of_two_streams_has_both_decoded() -> None:
    plan = plan_of({"where": [NEW, SAME], "flow": [NEW, NEW]}, [False, False], BASE)
    found = estimate(plan, RATES | {"decode image": Spent(10, 5.0)}, workers=1, aligned=False).decode
    assert found == {"video": Cost(2, 6.0), "image": Cost(1, 0.5)}


@pytest.mark.parametrize("part", ["decode audio", "extract sound", "write sound", "align"])
def test_what_was_never_done_is_unknown(part: str) -> None:
    plan = plan_of({"sound": [NEW, SAME]}, [True, True], BASE)
    whole = estimate(plan, RATES, workers=1, aligned=True)
    assert whole.seconds is not None
    partly = estimate(plan, {name: RATES[name] for name in RATES if name != part}, workers=1, aligned=True)
    assert partly.seconds is None
    assert partly.bytes == whole.bytes


def test_bytes_are_unknown_without_rows_of_this_width() -> None:
    plan = plan_of({"sound": [NEW]}, [True])
    assert estimate(plan, RATES, workers=1, aligned=False).bytes is None
    wider: Any = replace(BASE, info={"dims": {"sound": 4}})
    assert estimate(replace(plan, base=wider), RATES, workers=1, aligned=False).bytes is None


def test_nothing_to_compute_costs_nothing_whatever_is_known() -> None:
    found = estimate(plan_of({"sound": [SAME], "flow": [SAME]}, [True], BASE), {}, workers=1, aligned=True)
    assert (found.seconds, found.bytes, found.decode) == (0.0, 0, {})


def test_estimates_without_alignment_add_up() -> None:
    found = Estimate({"a": Cost(1, 6.0, 5)}, {"text": Cost(1, 2.0)}, None, 4)
    assert (found.seconds, found.bytes) == (2.0, 5)


def test_rates_come_from_the_newest_runs_that_did_enough(tmp_path: Path) -> None:
    store = DatasetStore(str(tmp_path), "grain")
    assert read_rates(store) == {}
    runs = [("20260101", ENOUGH, 900.0), ("20260102", ENOUGH, 50.0), ("20260103", 10, 10.0), ("20260104", 0, 0.0)]
    for run, count, seconds in runs:
        report = RunReport(run_id=run, dataset="grain", started="", base=None)
        report.spent = {"extract f": Spent(count, seconds)} if count else {}
        store.write_bytes(f"_runs/{run}/report.json", json.dumps(report.as_json()).encode())
    assert read_rates(store) == {"extract f": Spent(ENOUGH + 10, 60.0)}
