"""The plan: what must be computed, and why, from a scan and the last snapshot. It reads no media.

A stored row is current when its content and its recipe are those wanted today. Everything is compared in columns, so a
plan costs a few vector passes however many samples are unchanged.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import CatalogError
from features.types import STREAMS, Stream
from pipeline.catalog.problems import did_you_mean, listed
from pipeline.chain import Chain
from pipeline.content import Digests, fixed_binary
from pipeline.extents import least_shares, shard_shares
from pipeline.keys import digest_json, explain
from pipeline.store import VIEWS_PREFIX, ShardFile, Snapshot
from pipeline.store.shard import DIGEST_BYTES


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
    DEFERRED = 8  # not current, but not asked for: what is stored of it stays as it is
    RETRY = 9  # it failed before, nothing that could help has changed, and it was asked for by name


COMPUTED = (Status.NEW, Status.CONTENT, Status.RECIPE, Status.NEEDS_FIT, Status.RETRY)
_WORDS: Mapping[int, str] = {
    Status.NEW: "new",
    Status.CONTENT: "bytes or window changed",
    Status.NEEDS_FIT: "must be fitted first",
    Status.RETRY: "failed before, tried again as asked",
    Status.RELABEL: "only split or label changed",
}
REMOVED = "removed"
RETRIED = "failed before, and the recipe changed"
_LISTED_AT_ONCE = 4096


@dataclass(frozen=True)
class Asked:
    """What a run is limited to: features by name, samples by glob. Empty: all of them.

    ``retry``: only what is in quarantine is computed, though nothing has changed; for one of ``reasons``, where any are
    named. ``nothing``: no feature is computed, only the alignment of what is stored.
    """

    features: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    retry: bool = False
    reasons: tuple[str, ...] = ()
    nothing: bool = False

    def rows(self, feature: str, ids: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """Which samples of a feature may be computed, bool ``[N]``."""
        if self.nothing:
            return np.zeros(len(ids), dtype=bool)
        if self.features and not {feature, feature.removeprefix(VIEWS_PREFIX)} & set(self.features):
            return np.zeros(len(ids), dtype=bool)
        if not self.samples:
            return np.ones(len(ids), dtype=bool)
        matches = re.compile("|".join(fnmatch.translate(glob) for glob in self.samples)).match
        return np.array([matches(sample_id) is not None for sample_id in ids.to_pylist()], dtype=bool)

    def check_features(self, dataset: str, known: Iterable[str]) -> None:
        """Raise ``CatalogError`` where a feature is named that the data set does not have."""
        for name in self.features:
            if name not in (allowed := list(known)):
                near = did_you_mean(name, allowed)
                raise CatalogError([f"datasets.{dataset}: no feature {name!r}; allowed: {listed(allowed)}{near}"])

    def check_samples(self, dataset: str, ids: pa.ChunkedArray) -> None:
        """Raise ``CatalogError`` where a glob matches no sample."""
        for glob in self.samples:
            if not Asked(samples=(glob,)).rows("", ids).any():
                message = (
                    f"datasets.{dataset}: no sample of {len(ids)} matches {glob!r}; allowed: a sample id, or a glob "
                    "with *, ? and [...]; cure: check how the ids are written"
                )
                raise CatalogError([message])


EVERYTHING = Asked()
"""No limit: what every night asks for."""


@dataclass(frozen=True)
class Standing:
    """Stored rows that are stale and stay as they are, for they were not asked for.

    ``rows``: positions of their samples, int64 ``[K]``; ``content`` and ``recipe``: their own digests, uint8
    ``[K, 16]``; ``moved``: whose split or label changed, bool ``[K]``.
    """

    rows: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    content: Digests = field(default_factory=lambda: np.zeros((0, DIGEST_BYTES), dtype=np.uint8))
    recipe: Digests = field(default_factory=lambda: np.zeros((0, DIGEST_BYTES), dtype=np.uint8))
    moved: npt.NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))


@dataclass(frozen=True)
class Wanted:
    """One feature as it should be: its chain, its recipe (``None`` while it waits to be fitted) and its content.

    ``asked``: which samples may be computed; all of them where it is ``None``. ``retry``: of those only what is in
    quarantine, for one of these reasons (for any, where it is empty).
    """

    chain: Chain
    recipe: Mapping[str, Any] | None
    content: Digests
    present: npt.NDArray[np.bool_]
    asked: npt.NDArray[np.bool_] | None = None
    retry: tuple[str, ...] | None = None


@dataclass(frozen=True)
class FeaturePlan:
    """What one feature needs. ``status`` int8 ``[N]`` holds a ``Status`` for each sample."""

    wanted: Wanted
    recipe_digest: bytes
    status: npt.NDArray[np.int8]
    removed_ids: pa.ChunkedArray
    removed_shards: frozenset[int]
    changes: Mapping[str, int]
    """Reason in words -> number of rows, for stored rows whose recipe changed."""
    change_of: npt.NDArray[np.int32]
    """Which of ``changes`` a sample's row has, -1: none of them; ``[N]``, or empty where there are none."""
    standing: Standing = field(default_factory=Standing)

    @property
    def kept(self) -> npt.NDArray[np.bool_]:
        """Whose stored rows stay in the next snapshot, but for split and label."""
        kept = np.isin(self.status, (Status.UNCHANGED, Status.RELABEL))
        kept[self.standing.rows] = True
        return kept

    @property
    def stored_content(self) -> Digests:
        """The content digest of each sample's row as the run leaves it."""
        if not len(self.standing.rows):
            return self.wanted.content
        content = self.wanted.content.copy()
        content[self.standing.rows] = self.standing.content
        return content

    @property
    def stored_recipes(self) -> Digests:
        """The recipe digest of each sample's row as the run leaves it; all zero while the feature is not fitted."""
        recipe = np.frombuffer(self.recipe_digest or bytes(DIGEST_BYTES), dtype=np.uint8)
        recipes = np.broadcast_to(recipe, self.wanted.content.shape)
        if not len(self.standing.rows):
            return recipes
        recipes = recipes.copy()
        recipes[self.standing.rows] = self.standing.recipe
        return recipes

    @property
    def removed(self) -> int:
        """How many stored rows have no sample any more."""
        return len(self.removed_ids)

    def count(self, *statuses: Status) -> int:
        """How many samples have one of these statuses."""
        return int(np.isin(self.status, statuses).sum())

    def reasons(self, *, standing: bool = True) -> list[tuple[str, int]]:
        """Why rows are computed, dropped or (``standing``) kept, in words, with counts; most important first."""
        named = [
            (_WORDS[Status.NEW], self.count(Status.NEW)),
            (_WORDS[Status.CONTENT], self.count(Status.CONTENT)),
            *self.changes.items(),
            (RETRIED, self.count(Status.RECIPE) - sum(self.changes.values())),
            (_WORDS[Status.NEEDS_FIT], self.count(Status.NEEDS_FIT)),
            (_WORDS[Status.RETRY], self.count(Status.RETRY)),
            (_WORDS[Status.RELABEL], self.count(Status.RELABEL)),
            (REMOVED, self.removed),
        ]
        if standing:
            named += [
                ("stale or missing, but not asked for", self.count(Status.DEFERRED)),
                ("unchanged", self.count(Status.UNCHANGED)),
                ("in quarantine, nothing changed", self.count(Status.QUARANTINED)),
            ]
        return [(reason, count) for reason, count in named if count]

    def listing(self, ids: pa.ChunkedArray) -> Iterator[tuple[str, str]]:
        """(sample id, reason) of every row that is computed, written again or dropped, a few at a time.

        ``ids`` are those of the plan's samples. Rows that stay as they are, are not listed.
        """
        names = tuple(self.changes)
        busy = np.flatnonzero(np.isin(self.status, (*COMPUTED, Status.RELABEL)))
        for first in range(0, len(busy), _LISTED_AT_ONCE):
            rows = busy[first : first + _LISTED_AT_ONCE]
            for row, sample_id in zip(rows.tolist(), ids.take(pa.array(rows)).to_pylist(), strict=True):
                status = self.status[row]
                if status != Status.RECIPE:
                    yield sample_id, _WORDS[status]
                elif len(names) and self.change_of[row] >= 0:
                    yield sample_id, names[self.change_of[row]]
                else:
                    yield sample_id, RETRIED
        for sample_id in self.removed_ids:
            yield sample_id.as_py(), REMOVED


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
    shards = _assign_shards(base, samples, shard_samples, extents or {})
    samples = samples.append_column(pa.field("shard", pa.int32(), nullable=False), pa.array(shards))
    places = Places(samples)
    features = {name: plan_feature(name, base, samples, want, places) for name, want in wanted.items()}
    dropped = () if base is None else tuple(name for name in base.features if name not in wanted)
    return Plan(base, samples, features, dropped)


def _assign_shards(
    base: Snapshot | None, samples: pa.Table, shard_samples: int | None, extents: Mapping[Stream, pa.Table]
) -> npt.NDArray[np.int32]:
    shards = np.full(len(samples), -1, dtype=np.int32)
    following = 0
    if base is not None and len(base.sample_shards):
        known = base.sample_shards
        at = _positions(samples["sample_id"], known["sample_id"])
        stored = known["shard"].to_numpy()
        shards[at >= 0] = stored[at[at >= 0]]
        following = int(stored.max()) + 1
    fresh = np.flatnonzero(shards < 0)
    new = samples.take(pa.array(fresh))
    ids, measured = new["sample_id"].to_pylist(), shard_shares(new, extents)
    shares = (np.maximum(measured, least_shares(new)) if shard_samples is None else measured).tolist()
    order = sorted(range(len(fresh)), key=lambda i: hashlib.blake2b(ids[i].encode(), digest_size=8).digest())
    count, held = 0, 0.0
    for index in order:
        if count and (count == shard_samples or held + shares[index] > 1):
            following, count, held = following + 1, 0, 0.0
        shards[fresh[index]] = following
        count, held = count + 1, held + shares[index]
    return shards


class Places:
    """Where samples stand in the sample table; equal columns of ids, as features have, cost one look-up."""

    def __init__(self, samples: pa.Table) -> None:
        self._among: pa.ChunkedArray = samples["sample_id"]
        self._last: tuple[pa.ChunkedArray, npt.NDArray[np.int64]] | None = None

    def of(self, ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """Row of each id in the sample table; -1 where it is not there."""
        if self._last is None or not self._last[0].equals(ids):
            self._last = ids, _positions(ids, self._among)
        return self._last[1]


def _positions(values: pa.ChunkedArray, among: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Index of each value in ``among``; -1 where it is not there."""
    if values.equals(among):
        return np.arange(len(values), dtype=np.int64)
    found = pc.index_in(values.combine_chunks(), value_set=among.combine_chunks())
    positions: npt.NDArray[np.int64] = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return positions


def plan_feature(
    name: str, base: Snapshot | None, samples: pa.Table, want: Wanted, places: Places | None = None
) -> FeaturePlan:
    """Compare one feature's wanted rows with those that ``base`` stores under ``name``.

    ``places`` of ``samples`` may be shared by the features of a plan.
    """
    places = places or Places(samples)
    recipe_digest = b"" if want.recipe is None else digest_json(want.recipe)
    status = np.where(want.present, np.int8(Status.NEW), np.int8(Status.ABSENT)).astype(np.int8)
    removed_shards: frozenset[int] = frozenset()
    removed_ids = pa.chunked_array([], pa.string())
    changes: dict[str, int] = {}
    change_of = np.zeros(0, dtype=np.int32)
    stored = None
    if base is not None:
        tried = base.quarantine.filter(pc.equal(base.quarantine["feature"], name))
        if len(tried):
            at = _positions(tried["sample_id"], samples["sample_id"])
            _compare(status, samples, want, tried, at, recipe_digest, current=Status.QUARANTINED)
            if want.retry is not None:
                _retry(status, want, tried, at)
        if base.files_of(name):
            stored = base.keys(name)
            at = places.of(stored["sample_id"])
            gone = _compare(status, samples, want, stored, at, recipe_digest, current=Status.UNCHANGED)
            removed_ids = stored["sample_id"].filter(pa.array(gone))
            removed_shards = frozenset(np.unique(stored["shard"].to_numpy()[gone]).tolist())
    if want.recipe is None:
        status[np.isin(status, (Status.NEW, Status.CONTENT, Status.RECIPE))] = Status.NEEDS_FIT
    if want.retry is not None:
        status[np.isin(status, COMPUTED) & (status != Status.RETRY)] = Status.DEFERRED
    elif want.asked is not None:
        status[np.isin(status, COMPUTED) & ~want.asked] = Status.DEFERRED
    standing = Standing()
    if base is not None and stored is not None:
        at = places.of(stored["sample_id"])
        changes, change_of = _changes(base.info["recipes"].get(name, {}), want, status, at, stored)
        standing = _standing(status, samples, at, stored)
    return FeaturePlan(want, recipe_digest, status, removed_ids, removed_shards, changes, change_of, standing)


def _retry(status: npt.NDArray[np.int8], want: Wanted, tried: pa.Table, at: npt.NDArray[np.int64]) -> None:
    """Set the status of the failed samples that are to be tried again."""
    again = at >= 0
    if want.retry:
        again &= pc.is_in(tried["reason"], value_set=pa.array(want.retry)).to_numpy(zero_copy_only=False)
    rows = at[again]
    if want.asked is not None:
        rows = rows[want.asked[rows]]
    status[rows[np.isin(status[rows], (Status.QUARANTINED, *COMPUTED))]] = Status.RETRY


def _standing(status: npt.NDArray[np.int8], samples: pa.Table, at: npt.NDArray[np.int64], stored: pa.Table) -> Standing:
    if not (status == Status.DEFERRED).any():
        return Standing()
    rows = np.flatnonzero((at >= 0) & (status[at] == Status.DEFERRED))
    at = at[rows]
    content, recipe = (fixed_binary(stored[name])[rows] for name in ("content", "recipe"))
    return Standing(at, content, recipe, _differs(samples, stored, at, rows))


def _compare(
    status: npt.NDArray[np.int8],
    samples: pa.Table,
    want: Wanted,
    stored: pa.Table,
    at: npt.NDArray[np.int64],
    recipe_digest: bytes,
    *,
    current: Status,
) -> npt.NDArray[np.bool_]:
    """Set the status of every sample that has a stored row; return which stored rows have no sample any more.

    ``at``: where the samples of the stored rows stand.
    """
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
    documents: Mapping[str, Any],
    want: Wanted,
    status: npt.NDArray[np.int8],
    at: npt.NDArray[np.int64],
    stored: pa.Table,
) -> tuple[dict[str, int], npt.NDArray[np.int32]]:
    """Say for each old recipe what changed, for how many rows, and for each sample which of these it is."""
    rows = np.flatnonzero((at >= 0) & (status[at] == Status.RECIPE))
    if want.recipe is None or not len(rows):
        return {}, np.zeros(0, dtype=np.int32)
    coded = stored["recipe"].take(pa.array(rows)).combine_chunks().dictionary_encode()
    reasons = [
        explain(documents[recipe.hex()], want.recipe) if recipe.hex() in documents else "made by an unknown recipe"
        for recipe in coded.dictionary.to_pylist()
    ]
    names = sorted(set(reasons))
    coarse = np.array([names.index(reason) for reason in reasons], dtype=np.int32)[coded.indices.to_numpy()]
    change_of = np.full(len(status), -1, dtype=np.int32)
    change_of[at[rows]] = coarse
    return dict(zip(names, np.bincount(coarse, minlength=len(names)).tolist(), strict=True)), change_of


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
