"""One feature's wanted rows against the rows that a snapshot stores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.content import fixed_binary
from pipeline.keys import digest_json, explain
from pipeline.plan.feature import COMPUTED, FeaturePlan, Standing, Status, Wanted
from pipeline.plan.places import Places, positions
from pipeline.store import Snapshot


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
            at = positions(tried["sample_id"], samples["sample_id"])
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
