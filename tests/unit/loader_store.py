"""A store with sequences of random lengths, missing features, rows that are not valid, and views."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.types import FeatureSequence
from pipeline.execute.task import write_file
from pipeline.keys import digest, digest_json
from pipeline.store import DatasetStore, ShardFile, Snapshot, shard_path
from pipeline.store.quarantine import to_table
from pipeline.store.shard import Row, rows_to_table

SPLITS = ("train", "train", "train", "validation", "test")
LABELS = ("barley", "oats", "rye", None)
RECIPE: dict[str, Any] = {
    "steps": [{"step": "mill", "options": {}, "code": "00", "libraries": {}}],
    "state": None,
}


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What a made feature is like. ``absent``: every n-th sample lacks it. ``views``: 1..K for every third sample."""

    dim: int
    lengths: tuple[int, int] = (1, 1)
    absent: int = 0
    views: int = 0
    invalid: bool = False


@dataclass
class Grain:
    """A data set of ``count`` samples, ``shard_samples`` in each shard."""

    folder: Path
    features: Mapping[str, Feature]
    count: int = 40
    shard_samples: int = 6
    write: Callable[[pa.Table, Any], None] | None = None
    sequences: dict[tuple[str, str, int], FeatureSequence] = field(default_factory=dict)

    @property
    def ids(self) -> list[str]:
        return [f"s{i:04d}" for i in range(self.count)]

    def shard(self, i: int) -> int:
        return (i * 7919 % self.count) // self.shard_samples

    def split(self, i: int) -> str:
        return SPLITS[i % len(SPLITS)]

    def label(self, i: int) -> str | None:
        return LABELS[i % len(LABELS)]

    def publish(self) -> Snapshot:
        store = DatasetStore(str(self.folder), "grain")
        files = [file for name, feature in self.features.items() for file in self._files(store, name, feature)]
        table = pa.table(
            {
                "sample_id": self.ids,
                "split": [self.split(i) for i in range(self.count)],
                "label": pa.array([self.label(i) for i in range(self.count)], pa.string()),
                "text_uri": pa.array([f"{self.folder}/{name}.txt" for name in self.ids]),
                "start_ns": pa.array([None] * self.count, pa.int64()),
                "end_ns": pa.array([None] * self.count, pa.int64()),
                "shard": pa.array([self.shard(i) for i in range(self.count)], pa.int32()),
            }
        )
        base = store.snapshot()
        info = {
            "run_id": f"run-{base.version if base else 0}",
            "created": "2026-11-05T01:02:03+00:00",
            "samples": store.write_table("samples", table),
            "quarantine": store.write_table("quarantine", to_table([])),
            "recipes": {name: {digest_json(RECIPE).hex(): RECIPE} for name in self.features},
            "fitted": {},
            "dims": {name.removeprefix("aligned."): feature.dim for name, feature in self.features.items()},
            "grid": None,
            "streams": {},
            "counts": {"samples": self.count, "quarantined": 0, "deferred": {}},
            "changes": {},
            "rebuilt": False,
        }
        store.commit(
            run_id=info["run_id"], base=base, adds=files, removes=() if base is None else base.files, info=info
        )
        snapshot = store.snapshot()
        assert snapshot is not None
        return snapshot

    def _files(self, store: DatasetStore, name: str, feature: Feature) -> list[ShardFile]:
        made = []
        for shard in sorted({self.shard(i) for i in range(self.count)}):
            members = [i for i in range(self.count) if self.shard(i) == shard]
            kept = [i for i in members if not feature.absent or i % feature.absent]
            made.append(self._file(store, name, name, shard, [(i, 0) for i in kept]))
            viewed = [(i, view) for i in kept if i % 3 == 0 for view in range(1, feature.views + 1)]
            made.append(self._file(store, f"views.{name}", name, shard, viewed))
        return [file for file in made if file is not None]

    def _file(
        self, store: DatasetStore, stored: str, name: str, shard: int, wanted: list[tuple[int, int]]
    ) -> ShardFile | None:
        if not wanted:
            return None
        feature, rows = self.features[name], []
        for i, view in wanted:
            sequence = self._sequence(name, feature, i, view)
            self.sequences[name, self.ids[i], view] = sequence
            rows.append(
                Row(
                    sample_id=self.ids[i],
                    split=self.split(i),
                    label=self.label(i),
                    content=digest(b"content"),
                    recipe=digest_json(RECIPE),
                    sequence=sequence,
                    view=view,
                    coverage=np.ones(len(sequence), dtype=np.float32) if name.startswith("aligned.") else None,
                )
            )
        metadata = {"feature": stored, "dim": feature.dim, "aligned": name.startswith("aligned.")}
        table = rows_to_table(shard, rows, metadata)
        if self.write is None:
            return write_file(store, stored, shard, table)
        sink = pa.BufferOutputStream()
        self.write(table, sink)
        content = sink.getvalue()
        path = shard_path(stored, shard, content)
        store.write_bytes(path, content)
        return ShardFile(path, content.size, len(table))

    def _sequence(self, name: str, feature: Feature, i: int, view: int) -> FeatureSequence:
        # aligned features of a sample have the same rows, so their lengths depend on the sample alone
        shape = np.random.default_rng(i if name.startswith("aligned.") else [i, view, len(name)])
        length = int(shape.integers(feature.lengths[0], feature.lengths[1] + 1))
        random = np.random.default_rng([i, view, feature.dim])
        valid: npt.NDArray[np.bool_] = np.ones(length, dtype=np.bool_)
        if feature.invalid:
            valid = random.random(length) > 0.4
        values = random.standard_normal((length, feature.dim)).astype(np.float32)
        values[~valid] = 0
        start = np.arange(length, dtype=np.int64) * 1_000 + i
        return FeatureSequence(values=values, start_ns=start, end_ns=start + 1_000, valid=valid)
