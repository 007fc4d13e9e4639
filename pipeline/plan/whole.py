"""The plan of a run: all features, and the samples with their shards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.types import STREAMS, Stream
from pipeline.plan.compare import plan_feature
from pipeline.plan.feature import COMPUTED, FeaturePlan, Status, Wanted
from pipeline.plan.places import Places
from pipeline.plan.shards import assign_shards
from pipeline.store import VIEWS_PREFIX, ShardFile, Snapshot


@dataclass(frozen=True)
class Plan:
    """What a run would do. ``samples`` is the scan with each sample's ``shard``."""

    base: Snapshot | None
    samples: pa.Table
    features: Mapping[str, FeaturePlan]
    dropped: tuple[str, ...] = field(default=())
    """Features with rows in the base that the catalog no longer names."""

    @property
    def originals(self) -> dict[str, FeaturePlan]:
        """The features themselves, without their augmented views."""
        return {name: feature for name, feature in self.features.items() if not name.startswith(VIEWS_PREFIX)}

    @property
    def to_compute(self) -> int:
        """Number of rows to compute, over all features."""
        return sum(feature.count(*COMPUTED) for feature in self.features.values())

    def listing(self) -> Iterator[tuple[str, str, str]]:
        """(sample id, feature, reason) of every row that is computed, written again or dropped, by feature."""
        for name, feature in self.features.items():
            for sample_id, reason in feature.listing(self.samples["sample_id"]):
                yield sample_id, name, reason

    @property
    def shards_to_write(self) -> dict[int, set[str]]:
        """Shard -> the features whose file must be written anew."""
        shards = self.samples["shard"].to_numpy()
        found: dict[int, set[str]] = {}
        for name, feature in self.features.items():
            busy = np.isin(feature.status, (*COMPUTED, Status.RELABEL))
            busy[feature.standing.rows] = feature.standing.moved
            for shard in {*np.unique(shards[busy]).tolist(), *feature.removed_shards}:
                found.setdefault(int(shard), set()).add(name)
        return dict(sorted(found.items()))

    @cached_property
    def base_files(self) -> dict[tuple[str, int], ShardFile]:
        """(feature, shard) -> the file that the base snapshot has for it."""
        return {} if self.base is None else {(file.feature, file.shard): file for file in self.base.files}


def make_plan(
    base: Snapshot | None,
    samples: pa.Table,
    wanted: Mapping[str, Wanted],
    *,
    shard_samples: int | None,
    extents: Mapping[Stream, pa.Table] | None = None,
) -> Plan:
    """Compare what is wanted with what ``base`` holds.

    ``samples`` as ``pipeline.scan`` gives it. Samples keep the shard that they have; new ones are dealt at random (by a
    digest of their id) into new shards of at most ``shard_samples``, none larger than ``pipeline.extents`` says (by
    bytes and, where ``extents`` has them, by seconds and pixels; ``None``: by a least cost of each sample too).
    """
    shards = assign_shards(base, samples, shard_samples, extents or {})
    samples = samples.append_column(pa.field("shard", pa.int32(), nullable=False), pa.array(shards))
    places = Places(samples)
    features = {name: plan_feature(name, base, samples, want, places) for name, want in wanted.items()}
    dropped = () if base is None else tuple(name for name in base.features if name not in wanted)
    return Plan(base, samples, features, dropped)


def streamless(plan: Plan) -> npt.NDArray[np.bool_]:
    """Which samples have none of the streams that the features read."""
    absent = np.ones(len(plan.samples), dtype=bool)
    for feature in plan.features.values():
        absent &= ~feature.wanted.present
    return absent


def sample_rows(samples: pa.Table, rows: npt.NDArray[np.int64]) -> Iterator[dict[str, Any]]:
    """The rows of the sample table at these positions, as dicts, with ``uris`` by stream."""
    for row in samples.take(pa.array(rows)).to_pylist():
        row["uris"] = {stream: row[f"{stream}_uri"] for stream in STREAMS if row[f"{stream}_uri"] is not None}
        yield row
