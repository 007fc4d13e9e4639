"""A store whose snapshots a test makes row by row, without extractors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from features.types import FeatureSequence
from pipeline.execute.task import write_file
from pipeline.keys import digest, digest_json
from pipeline.store import ALIGNED_PREFIX, DatasetStore, ShardFile, Snapshot
from pipeline.store.quarantine import Failure, to_table
from pipeline.store.shard import Row, rows_to_table

Values = Sequence[Sequence[float]]


def recipe(gain: float = 1) -> dict[str, Any]:
    """A recipe of one step with one option."""
    step = {"step": "mill", "options": {"gain": gain}, "code": "00", "libraries": {}, "weights": None}
    return {"steps": [step], "state": None}


class Made:
    """A data set of texts with the features that its files have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "grain"
        self.store = DatasetStore(str(folder), "grain")
        self.published = 0

    def file(
        self,
        feature: str,
        shard: int,
        rows: Mapping[str, Values],
        *,
        content: str = "content",
        gain: float = 1,
        labels: Mapping[str, str] | None = None,
        edit: Callable[[pa.Table], pa.Table] | None = None,
    ) -> ShardFile:
        """Write a shard file of ``rows`` (sample -> values [T, D]); ``edit`` spoils its table first."""
        aligned = feature.startswith(ALIGNED_PREFIX)
        made = []
        for sample_id, values in rows.items():
            numbers = np.asarray(values, dtype=np.float32)
            starts = np.arange(len(numbers), dtype=np.int64)
            made.append(
                Row(
                    sample_id=sample_id,
                    split="train",
                    label=(labels or {}).get(sample_id),
                    content=digest(content.encode()),
                    recipe=digest_json(recipe(gain)),
                    sequence=FeatureSequence(values=numbers, start_ns=starts, end_ns=starts + 1),
                    coverage=np.ones(len(numbers), dtype=np.float32) if aligned else None,
                )
            )
        width = made[0].sequence.dim
        table = rows_to_table(shard, made, {"feature": feature, "dim": width, "aligned": aligned})
        return write_file(self.store, feature, shard, table if edit is None else edit(table))

    def publish(
        self,
        *adds: ShardFile,
        removes: Sequence[ShardFile] = (),
        samples: Mapping[str, int],
        labels: Mapping[str, str] | None = None,
        quarantine: Sequence[Failure] = (),
        gains: Sequence[float] = (1,),
        width: int = 2,
        deferred: int = 0,
        **info: Any,
    ) -> Snapshot:
        """Publish a snapshot on top of the last one. ``samples``: id -> shard."""
        base = self.store.snapshot()
        self.published += 1
        run_id = f"run-{self.published}"
        table = pa.table(
            {
                "sample_id": list(samples),
                "split": ["train"] * len(samples),
                "label": pa.array([(labels or {}).get(sample_id) for sample_id in samples], pa.string()),
                "text_uri": [f"{sample_id}.txt" for sample_id in samples],
                "shard": pa.array(samples.values(), pa.int32()),
            }
        )
        features = {file.feature for file in ((*base.files, *adds) if base else adds)} - {"stray"}
        plain = sorted({name.removeprefix(ALIGNED_PREFIX) for name in features})
        known = {digest_json(recipe(gain)).hex(): recipe(gain) for gain in gains}
        document = {
            "run_id": run_id,
            "created": "2026-11-05T01:02:03+00:00",
            "samples": self.store.write_table("samples", table),
            "quarantine": self.store.write_table("quarantine", to_table(quarantine)),
            "recipes": dict.fromkeys(sorted(features), known),
            "fitted": {},
            "dims": dict.fromkeys(plain, width),
            "grid": None,
            "views": {},
            "streams": dict.fromkeys(plain, "text"),
            "counts": {
                "samples": len(samples),
                "quarantined": len({failure.sample_id for failure in quarantine}),
                "deferred": dict.fromkeys(plain, deferred),
            },
            "changes": {},
            "rebuilt": False,
        }
        self.store.commit(run_id=run_id, base=base, adds=adds, removes=removes, info=document | info)
        snapshot = self.store.snapshot()
        assert snapshot is not None
        return snapshot

    def files(self, folder: str = "") -> set[str]:
        """Every file below a folder of the data set, relative to the data set."""
        found = (self.folder / folder).rglob("*")
        return {str(path.relative_to(self.folder)) for path in found if path.is_file()}
