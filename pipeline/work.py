"""From a plan to pieces of work: one for each shard, made one at a time as the engine asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.time import Span
from features.types import Device
from pipeline.align import AlignWork
from pipeline.align_rows import Setting
from pipeline.execute.work import FeatureWork, SampleWork, ShardReport, ShardWork
from pipeline.plan import COMPUTED, FeaturePlan, Plan, sample_rows
from pipeline.state import StateRef
from pipeline.store import ALIGNED_PREFIX, ShardFile
from pipeline.timelines import Outside


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the files of a run go."""

    store: str
    dataset: str
    run_id: str


def shard_work(
    plan: Plan, shards: Mapping[int, set[str]], place: Place, states: Mapping[str, StateRef | None], device: Device
) -> Iterator[ShardWork]:
    """The extraction work of ``shards`` (shard -> features to write). ``states``: where each feature finds its own."""
    samples = plan.samples
    computed, kept = _whole(plan)
    for shard, rows in _rows_by_shard(samples, shards):
        features, wanted = [], np.zeros(len(rows), dtype=bool)
        ids = _ids(samples, rows)
        for name in sorted(shards[shard]):
            feature = plan.features[name]
            busy = computed[name][rows]
            wanted |= busy
            features.append(
                FeatureWork(
                    chain=feature.wanted.chain,
                    recipe=feature.recipe_digest,
                    state=states[name],
                    compute=_contents(ids, feature, rows, busy),
                    keep=frozenset(compress(ids, kept[name][rows])),
                    base=plan.base_files.get((name, shard)),
                )
            )
        yield ShardWork(
            store=place.store,
            dataset=place.dataset,
            run_id=place.run_id,
            shard=shard,
            roster=_roster(samples, rows),
            samples=tuple(
                SampleWork(sample_id=row["sample_id"], uris=row["uris"], span=span_of(row))
                for row in sample_rows(samples, rows[wanted])
            ),
            features=tuple(features),
            device=device,
        )


def align_work(
    plan: Plan,
    shards: Mapping[int, set[str]],
    place: Place,
    setting: Setting,
    outside: Outside | None,
    inputs: Mapping[tuple[str, int], ShardFile],
) -> Iterator[AlignWork]:
    """The alignment work of ``shards``, on the files ``inputs`` (``input_files``); ``outside``: see there."""
    samples, base_files = plan.samples, plan.base_files
    given = {} if outside is None else outside.given
    computed, kept = _whole(plan)
    for shard, rows in _rows_by_shard(samples, shards):
        compute, keep, contents = {}, {}, {}
        ids = _ids(samples, rows)
        for stored in sorted(shards[shard]):
            feature, name = plan.features[stored], stored.removeprefix(ALIGNED_PREFIX)
            contents[name] = _contents(ids, feature, rows, computed[stored][rows])
            compute[name] = frozenset(contents[name])
            keep[name] = frozenset(compress(ids, kept[stored][rows]))
        found = list(sample_rows(samples, rows))
        texts = {row["sample_id"]: row["uris"]["text"] for row in found if "text" in row["uris"]}
        yield AlignWork(
            store=place.store,
            dataset=place.dataset,
            run_id=place.run_id,
            shard=shard,
            roster=_roster(samples, rows),
            spans={row["sample_id"]: span_of(row) for row in found},
            inputs={name: inputs.get((name, shard)) for name in setting.dims},
            setting=setting,
            texts=texts if setting.align.text is not None else {},
            given={row["sample_id"]: given[row["sample_id"]] for row in found if row["sample_id"] in given},
            recipes={name: plan.features[ALIGNED_PREFIX + name].recipe_digest for name in compute},
            contents=contents,
            compute=compute,
            keep=keep,
            base={name: base_files.get((ALIGNED_PREFIX + name, shard)) for name in compute},
        )


def input_files(plan: Plan, extracted: ShardReport) -> dict[tuple[str, int], ShardFile]:
    """(feature, shard) -> the file to align: that of the base, or the one that was just extracted."""
    current = {key: file for key, file in plan.base_files.items() if not file.feature.startswith(ALIGNED_PREFIX)}
    for file in extracted.removed:
        current.pop((file.feature, file.shard))
    return current | {(file.feature, file.shard): file for file in extracted.files}


def span_of(row: Mapping[str, Any]) -> Span | None:
    """The window of its files that a sample is, where it is not the whole of them."""
    return None if row["start_ns"] is None else Span(row["start_ns"], row["end_ns"])


def _ids(samples: pa.Table, rows: npt.NDArray[np.int64]) -> list[str]:
    ids: list[str] = samples["sample_id"].take(pa.array(rows)).to_pylist()
    return ids


def _whole(plan: Plan) -> tuple[dict[str, npt.NDArray[np.bool_]], dict[str, npt.NDArray[np.bool_]]]:
    """By feature, which samples are computed and which keep their rows: found once, not once a shard."""
    computed = {name: np.isin(feature.status, COMPUTED) for name, feature in plan.features.items()}
    return computed, {name: feature.kept for name, feature in plan.features.items()}


def _contents(
    ids: list[str], feature: FeaturePlan, rows: npt.NDArray[np.int64], busy: npt.NDArray[np.bool_]
) -> dict[str, bytes]:
    """Sample id -> content digest, for the samples at ``rows`` (whose ``ids`` these are) that are ``busy``."""
    found = zip(compress(ids, busy), feature.wanted.content[rows[busy]], strict=True)
    return {sample_id: content.tobytes() for sample_id, content in found}


def _roster(samples: pa.Table, rows: npt.NDArray[np.int64]) -> dict[str, tuple[str, str | None]]:
    part = samples.select(["sample_id", "split", "label"]).take(pa.array(rows)).to_pydict()
    return {
        key: (split, label) for key, split, label in zip(part["sample_id"], part["split"], part["label"], strict=True)
    }


def _rows_by_shard(samples: pa.Table, shards: Mapping[int, set[str]]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """(shard, positions of its samples) for every shard in ``shards``, also for those that lost all samples."""
    column = samples["shard"].to_numpy()
    order = np.argsort(column, kind="stable")
    ordered = column[order]
    for shard in shards:
        first, last = np.searchsorted(ordered, [shard, shard + 1])
        yield shard, order[first:last]
