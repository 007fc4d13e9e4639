"""The plan: what must be computed, and why, from a scan and the last snapshot. It reads no media.

A stored row is current when its content and its recipe are those wanted today. Everything is compared in columns, so a
plan costs a few vector passes however many samples are unchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.types import STREAMS
from pipeline.chain import Chain
from pipeline.content import Digests, fixed_binary
from pipeline.keys import digest_json, explain
from pipeline.store import ALIGNED_PREFIX, ShardFile, Snapshot

SHARD_BYTES = 64 << 20
"""A shard is closed before its samples' media exceed this, so that a few long videos do not make one long task."""
KEY_COLUMNS = ("shard", "sample_id", "split", "label", "content", "recipe")


class Status(IntEnum):
    """What is to be done for one sample of one feature."""

    ABSENT = 0  # the sample does not have the stream that the feature reads
    UNCHANGED = 1  # its row is current
    RELABEL = 2  # its numbers are current, but its split or label changed
    QUARANTINED = 3  # it failed before, and nothing that could help has changed
    NEW = 4
    CONTENT = 5  # its bytes (or its window) changed
    RECIPE = 6  # options, code, weights or fitted state changed
    NEEDS_FIT = 7  # the feature must be fitted first


COMPUTED = (Status.NEW, Status.CONTENT, Status.RECIPE, Status.NEEDS_FIT)


@dataclass(frozen=True)
class Wanted:
    """One feature as it should be: its chain, its recipe (``None`` while it waits to be fitted) and its content."""

    chain: Chain
    recipe: Mapping[str, Any] | None
    content: Digests
    present: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FeaturePlan:
    """What one feature needs. ``status`` int8 ``[N]`` holds a ``Status`` for each sample."""

    wanted: Wanted
    recipe_digest: bytes
    status: npt.NDArray[np.int8]
    removed: int
    removed_shards: frozenset[int]
    changes: Mapping[str, int]
    """Reason in words -> number of rows, for rows whose recipe changed."""

    def count(self, *statuses: Status) -> int:
        """How many samples have one of these statuses."""
        return int(np.isin(self.status, statuses).sum())

    def reasons(self) -> list[tuple[str, int]]:
        """Why rows are computed, dropped or kept, in words, with counts; most important first."""
        named = [
            ("new", self.count(Status.NEW)),
            ("bytes or window changed", self.count(Status.CONTENT)),
            *sorted(self.changes.items()),
            ("must be fitted first", self.count(Status.NEEDS_FIT)),
            ("only split or label changed", self.count(Status.RELABEL)),
            ("removed", self.removed),
            ("unchanged", self.count(Status.UNCHANGED)),
            ("in quarantine, nothing changed", self.count(Status.QUARANTINED)),
        ]
        return [(reason, count) for reason, count in named if count]


@dataclass(frozen=True)
class Plan:
    """What a run would do. ``samples`` is the scan with each sample's ``shard``."""

    base: Snapshot | None
    samples: pa.Table
    features: Mapping[str, FeaturePlan]
    dropped: tuple[str, ...] = field(default=())
    """Features with rows in the base that the catalog no longer names."""

    @property
    def to_compute(self) -> int:
        """Number of rows to compute, over all features."""
        return sum(feature.count(*COMPUTED) for feature in self.features.values())

    @property
    def shards_to_write(self) -> dict[int, set[str]]:
        """Shard -> the features whose file must be written anew."""
        shards = self.samples["shard"].to_numpy()
        found: dict[int, set[str]] = {}
        for name, feature in self.features.items():
            busy = np.isin(feature.status, (*COMPUTED, Status.RELABEL))
            for shard in {*np.unique(shards[busy]).tolist(), *feature.removed_shards}:
                found.setdefault(int(shard), set()).add(name)
        return dict(sorted(found.items()))

    def base_files(self) -> dict[tuple[str, int], ShardFile]:
        """(feature, shard) -> the file that the base snapshot has for it."""
        return {} if self.base is None else {(file.feature, file.shard): file for file in self.base.files}


def make_plan(base: Snapshot | None, samples: pa.Table, wanted: Mapping[str, Wanted], *, shard_samples: int) -> Plan:
    """Compare what is wanted with what ``base`` holds.

    ``samples`` as ``pipeline.scan`` gives it. Samples keep the shard that they have; new ones are dealt at random (by a
    digest of their id) into new shards of at most ``shard_samples`` and ``SHARD_BYTES``.
    """
    shards = _assign_shards(base, samples, shard_samples)
    samples = samples.append_column(pa.field("shard", pa.int32(), nullable=False), pa.array(shards))
    features = {name: plan_feature(name, base, samples, want) for name, want in wanted.items()}
    dropped = () if base is None else tuple(name for name in base.features if name not in wanted)
    return Plan(base, samples, features, dropped)


def _assign_shards(base: Snapshot | None, samples: pa.Table, shard_samples: int) -> npt.NDArray[np.int32]:
    shards = np.full(len(samples), -1, dtype=np.int32)
    following = 0
    if base is not None and len(base.samples):
        known = base.samples
        at = _positions(samples["sample_id"], known["sample_id"])
        stored = known["shard"].to_numpy()
        shards[at >= 0] = stored[at[at >= 0]]
        following = int(stored.max()) + 1
    fresh = np.flatnonzero(shards < 0)
    ids = samples["sample_id"].take(pa.array(fresh)).to_pylist()
    sizes = _media_bytes(samples)[fresh].tolist()
    order = sorted(range(len(fresh)), key=lambda i: hashlib.blake2b(ids[i].encode(), digest_size=8).digest())
    count = held = 0
    for index in order:
        if count and (count == shard_samples or held + sizes[index] > SHARD_BYTES):
            following, count, held = following + 1, 0, 0
        shards[fresh[index]] = following
        count, held = count + 1, held + sizes[index]
    return shards


def _media_bytes(samples: pa.Table) -> npt.NDArray[np.int64]:
    """Bytes of media of each sample; a file that gives two streams counts once."""
    total = np.zeros(len(samples), dtype=np.int64)
    for stream in STREAMS:
        size = pc.fill_null(samples[f"{stream}_size"], 0).to_numpy()
        if stream == "audio":
            shared = pc.fill_null(pc.equal(samples["audio_uri"], samples["video_uri"]), False).to_numpy()
            size = np.where(shared, 0, size)
        total += size
    return total


def _positions(values: pa.ChunkedArray, among: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Index of each value in ``among``; -1 where it is not there."""
    found = pc.index_in(values.combine_chunks(), value_set=among.combine_chunks())
    positions: npt.NDArray[np.int64] = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return positions


def plan_feature(name: str, base: Snapshot | None, samples: pa.Table, want: Wanted) -> FeaturePlan:
    """Compare one feature's wanted rows with those that ``base`` stores under ``name``."""
    recipe_digest = b"" if want.recipe is None else digest_json(want.recipe)
    status = np.where(want.present, np.int8(Status.NEW), np.int8(Status.ABSENT)).astype(np.int8)
    removed_shards: frozenset[int] = frozenset()
    removed, changes = 0, {}
    if base is not None:
        tried = base.quarantine.filter(pc.equal(base.quarantine["feature"], name))
        if len(tried):
            _compare(status, samples, want, tried, recipe_digest, current=Status.QUARANTINED)
        if base.files_of(name):
            stored = base.read(name, KEY_COLUMNS)
            gone = _compare(status, samples, want, stored, recipe_digest, current=Status.UNCHANGED)
            removed = int(gone.sum())
            removed_shards = frozenset(np.unique(stored["shard"].to_numpy()[gone]).tolist())
            changes = _changes(name, base, want, status, samples, stored)
    if want.recipe is None:
        status[np.isin(status, (Status.NEW, Status.CONTENT, Status.RECIPE))] = Status.NEEDS_FIT
    return FeaturePlan(want, recipe_digest, status, removed, removed_shards, changes)


def _compare(
    status: npt.NDArray[np.int8],
    samples: pa.Table,
    want: Wanted,
    stored: pa.Table,
    recipe_digest: bytes,
    *,
    current: Status,
) -> npt.NDArray[np.bool_]:
    """Set the status of every sample that has a stored row; return which stored rows have no sample any more."""
    at = _positions(stored["sample_id"], samples["sample_id"])
    gone = at < 0
    gone[~gone] = ~want.present[at[~gone]]
    rows = np.flatnonzero(~gone)
    at = at[rows]
    same_content = (fixed_binary(stored["content"])[rows] == want.content[at]).all(axis=1)
    if want.recipe is None:
        same_recipe = np.zeros(len(rows), dtype=bool)
    else:
        same_recipe = (fixed_binary(stored["recipe"])[rows] == np.frombuffer(recipe_digest, np.uint8)).all(axis=1)
    found = np.full(len(rows), current, dtype=np.int8)
    if current is Status.UNCHANGED:
        found[_differs(samples, stored, at, rows)] = Status.RELABEL
    found[~same_recipe] = Status.RECIPE
    found[~same_content] = Status.CONTENT
    status[at] = found
    return gone


def _differs(
    samples: pa.Table, stored: pa.Table, at: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    different = np.zeros(len(rows), dtype=bool)
    for column in ("split", "label"):
        now = pc.fill_null(samples[column], "\0").take(pa.array(at))
        before = pc.fill_null(stored[column], "\0").take(pa.array(rows))
        different |= pc.not_equal(now, before).to_numpy()
    return different


def _changes(
    name: str, base: Snapshot, want: Wanted, status: npt.NDArray[np.int8], samples: pa.Table, stored: pa.Table
) -> dict[str, int]:
    """Say for each old recipe what changed, and for how many rows."""
    if want.recipe is None:
        return {}
    at = _positions(stored["sample_id"], samples["sample_id"])
    changed = np.flatnonzero((at >= 0) & (status[at] == Status.RECIPE))
    counts: dict[str, int] = {}
    recipes, number = np.unique(fixed_binary(stored["recipe"])[changed], axis=0, return_counts=True)
    for recipe, rows in zip(recipes, number.tolist(), strict=True):
        old = base.info["recipes"].get(name, {}).get(recipe.tobytes().hex())
        reason = explain(old, want.recipe) if old is not None else "made by an unknown recipe"
        counts[reason] = counts.get(reason, 0) + rows
    return counts


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


def is_feature_name_reserved(name: str) -> bool:
    """Whether a feature may not have this name because the store uses it for aligned rows."""
    return name.startswith(ALIGNED_PREFIX)
