"""What a plan will cost: seconds from the rates of earlier runs, bytes from the files of the last snapshot.

Nothing is guessed: what no earlier run has done has no rate, and what depends on it is unknown (``None``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from features.types import Stream
from pipeline.plan import COMPUTED, FeaturePlan, Plan
from pipeline.record import DECODED_TOGETHER, Spent
from pipeline.store import ALIGNED_PREFIX, DatasetStore, Snapshot

ENOUGH = 100
"""Samples or rows from which a rate is taken: the newest runs that did as many; fewer where there were no more."""
RUNS_READ = 50


@dataclass(frozen=True)
class Cost:
    """What ``count`` samples or rows cost: ``seconds`` of one worker, ``bytes`` written; ``None``: unknown."""

    count: int
    seconds: float | None
    bytes: int | None = 0


@dataclass(frozen=True)
class Estimate:
    """The cost of a plan.

    ``features``: extracting and writing. ``decode``: reading media, by stream; ``video+audio`` is one pass for both.
    ``align``: ``None`` where nothing is aligned. Fitting, and the start of workers, are not in it.
    """

    features: Mapping[str, Cost]
    decode: Mapping[str, Cost]
    align: Cost | None
    workers: int

    @property
    def seconds(self) -> float | None:
        """Wall seconds with all workers busy; alignment runs in one process."""
        shared = _total(cost.seconds for cost in (*self.features.values(), *self.decode.values()))
        alone = 0.0 if self.align is None else self.align.seconds
        return None if shared is None or alone is None else shared / self.workers + alone

    @property
    def bytes(self) -> int | None:
        """Bytes that the run writes, kept rows of rewritten shards included."""
        total = _total(cost.bytes for cost in (*self.features.values(), *([self.align] if self.align else [])))
        return None if total is None else int(total)

    def as_json(self) -> dict[str, Any]:
        """The estimate as a JSON document; unknown is null."""
        return {
            "features": {name: asdict(cost) for name, cost in self.features.items()},
            "decode": {name: {"count": cost.count, "seconds": cost.seconds} for name, cost in self.decode.items()},
            "align": None if self.align is None else asdict(self.align),
            "workers": self.workers,
            "seconds": self.seconds,
            "bytes": self.bytes,
        }


def _total(parts: Any) -> float | None:
    known = list(parts)
    return None if any(part is None for part in known) else sum(known)


def read_rates(store: DatasetStore) -> dict[str, Spent]:
    """What earlier runs spent on each part of the work (``RunReport.spent``), newest first, until it is ``ENOUGH``."""
    rates: dict[str, Spent] = {}
    folder = store.path("_runs")
    if not store.fs.exists(folder):
        return rates
    runs = sorted(store.fs.ls(folder, detail=False), reverse=True)  # a run's id begins with its time
    for run in runs[:RUNS_READ]:
        path = f"{run}/report.json"
        if not store.fs.exists(path):
            continue
        for part, spent in json.loads(store.fs.cat_file(path)).get("spent", {}).items():
            so_far = rates.setdefault(part, Spent())
            if so_far.count < ENOUGH:
                so_far += Spent(**spent)
    return rates


def estimate(plan: Plan, rates: Mapping[str, Spent], *, workers: int, aligned: bool) -> Estimate:
    """Say what a plan costs. ``aligned``: whether the data set is put on a common timeline."""
    shards = plan.shards_to_write
    features = {}
    for name, feature in plan.features.items():
        todo = feature.count(*COMPUTED)
        written = _rows_written(plan, name, feature, shards)
        seconds = _total([_seconds(rates, f"extract {name}", todo), _seconds(rates, f"write {name}", written)])
        features[name] = Cost(todo, seconds, _bytes(plan.base, name, written, feature.wanted.chain.extractor.dim))
    busy = {name: np.isin(feature.status, COMPUTED) for name, feature in plan.features.items()}
    decode = {
        stream: Cost(count, _seconds(rates, f"decode {stream}", count))
        for stream, count in _decoded(plan, busy).items()
        if count
    }
    align = None
    if aligned:
        samples = int(np.logical_or.reduce(list(busy.values())).sum())
        rows = samples * len(features)
        sizes = [
            _bytes(plan.base, ALIGNED_PREFIX + name, samples, feature.wanted.chain.extractor.dim)
            for name, feature in plan.features.items()
        ]
        size = _total(sizes)
        align = Cost(rows, _seconds(rates, "align", rows), None if size is None else int(size))
    return Estimate(features, decode, align, workers)


def _seconds(rates: Mapping[str, Spent], part: str, count: int) -> float | None:
    if not count:
        return 0.0
    spent = rates.get(part)
    return None if spent is None or not spent.count else spent.seconds / spent.count * count


def _bytes(base: Snapshot | None, name: str, rows: int, dim: int) -> int | None:
    """Bytes of rows as long as the last snapshot's; unknown where it has none, or rows of another width."""
    if not rows:
        return 0
    files = () if base is None else base.files_of(name)
    if base is None or not files or base.info["dims"].get(name.removeprefix(ALIGNED_PREFIX)) != dim:
        return None
    return round(sum(file.size for file in files) / sum(file.rows for file in files) * rows)


def _rows_written(plan: Plan, name: str, feature: FeaturePlan, shards: Mapping[int, set[str]]) -> int:
    """Rows of the files that are written anew: those that are computed, and those that are kept beside them."""
    rewritten = np.array([shard for shard, names in shards.items() if name in names], dtype=np.int32)
    if not len(rewritten):
        return 0
    rows = feature.kept | np.isin(feature.status, COMPUTED)
    return int(np.isin(plan.samples["shard"].to_numpy()[rows], rewritten).sum())


def _decoded(plan: Plan, busy: Mapping[str, npt.NDArray[np.bool_]]) -> dict[str, int]:
    """How many samples of each stream must be decoded."""
    wanting: dict[Stream, npt.NDArray[np.bool_]] = {}
    for name, rows in busy.items():
        for stream in plan.features[name].wanted.chain.streams:
            wanting[stream] = wanting.get(stream, np.zeros(len(rows), dtype=bool)) | rows
    found: dict[str, int] = {}
    if "video" in wanting and "audio" in wanting:
        one = pc.fill_null(pc.equal(plan.samples["audio_uri"], plan.samples["video_uri"]), False)
        together = wanting["video"] & wanting["audio"] & one.to_numpy()
        found[DECODED_TOGETHER] = int(together.sum())
        wanting |= {"video": wanting["video"] & ~together, "audio": wanting["audio"] & ~together}
    return found | {stream: int(rows.sum()) for stream, rows in wanting.items()}
