"""What one feature needs: what is wanted, and the status of each sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.chain import Chain
from pipeline.content import Digests
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
