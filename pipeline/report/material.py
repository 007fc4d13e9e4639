"""What a page is made from: a run's record, its snapshot and the one before it, its samples and failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import StoreError
from features.random import derive_seed, generator
from features.time import Span
from features.types import STREAMS, Stream
from pipeline.catalog import Catalog, DataSet
from pipeline.record import RunReport
from pipeline.report.records import before, read_record
from pipeline.store import DatasetStore, Snapshot
from pipeline.store.quarantine import Failure

if TYPE_CHECKING:
    from pipeline.run import Run

EARLIER = 30
"""How many earlier runs a page knows of."""
_LOOKED_AT = 4000
"""Samples that are shown are chosen from so many, drawn at random."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One sample that may be shown."""

    sample_id: str
    split: str
    label: str | None
    span: Span | None
    uris: Mapping[Stream, str]
    fresh: bool
    """Whether it was not in the snapshot before."""


@dataclass(frozen=True, kw_only=True)
class Material:
    """Everything that a page may say.

    ``snapshot`` is the one that this run has published (``None``: it has published nothing), ``base`` the one before
    it. ``samples`` is the table of the scan, ``None`` where the run did not come so far. ``earlier`` are the records of
    runs before this one, the newest first.
    """

    catalog: Catalog
    dataset: DataSet
    store: DatasetStore
    record: RunReport
    earlier: tuple[RunReport, ...]
    snapshot: Snapshot | None
    base: Snapshot | None
    samples: pa.Table | None
    failures: Sequence[Failure]

    @property
    def previous(self) -> RunReport | None:
        """The run before this one."""
        return self.earlier[0] if self.earlier else None

    @cached_property
    def failed(self) -> frozenset[str]:
        """The samples that have a failure."""
        return frozenset(failure.sample_id for failure in self.failures)

    @cached_property
    def known(self) -> pa.Array | None:
        """The ids of the snapshot before; ``None`` where there is none that can be read."""
        if self.base is None:
            return None
        try:
            return self.base.sample_shards["sample_id"].combine_chunks()
        except (StoreError, OSError):
            return None

    def choose(self, stream: Stream, count: int) -> list[Shown]:
        """At most ``count`` samples that have ``stream`` and did not fail, the same ones every night.

        Labels take turns, and up to half of the places go to samples that the snapshot before does not have.
        """
        if self.samples is None or count < 1:
            return []
        wanted = pc.is_valid(self.samples[f"{stream}_uri"]).to_numpy(zero_copy_only=False)
        rows = np.flatnonzero(wanted)
        if len(rows) > _LOOKED_AT:
            draw = generator(0, "report", self.dataset.name, stream)
            rows = np.sort(draw.choice(rows, _LOOKED_AT, replace=False))
        found = [shown for shown in self.rows(rows) if shown.sample_id not in self.failed]
        found.sort(key=lambda shown: derive_seed(0, shown.sample_id))
        fresh = _taking_turns([shown for shown in found if shown.fresh])[: -(-count // 2)]
        taken = {shown.sample_id for shown in fresh}
        rest = _taking_turns([shown for shown in found if shown.sample_id not in taken])
        return sorted([*fresh, *rest[: count - len(fresh)]], key=lambda shown: (shown.label or "", shown.sample_id))

    def rows(self, rows: npt.NDArray[np.int64]) -> list[Shown]:
        """The samples at these rows of the table."""
        if self.samples is None:
            return []
        table = self.samples.take(pa.array(rows))
        fresh = np.zeros(len(table), dtype=bool)
        if self.known is not None:
            fresh = ~pc.is_in(table["sample_id"], value_set=self.known).to_numpy(zero_copy_only=False)
        return [
            Shown(
                sample_id=row["sample_id"],
                split=row["split"],
                label=row["label"],
                span=None if row["start_ns"] is None else Span(row["start_ns"], row["end_ns"]),
                uris={stream: uri for stream in STREAMS if (uri := row[f"{stream}_uri"]) is not None},
                fresh=bool(new),
            )
            for row, new in zip(table.to_pylist(), fresh, strict=True)
        ]

    def find(self, sample_ids: Sequence[str]) -> dict[str, Shown]:
        """Samples by id; ids that the table does not have are left out."""
        if self.samples is None or not sample_ids:
            return {}
        at = pc.index_in(pa.array(sample_ids, pa.string()), value_set=self.samples["sample_id"].combine_chunks())
        rows = at.drop_null().to_numpy(zero_copy_only=False).astype(np.int64)
        return {shown.sample_id: shown for shown in self.rows(rows)}


def _taking_turns(found: list[Shown]) -> list[Shown]:
    """The same samples, so that each label comes once before any comes twice."""
    turns: dict[str | None, int] = {}
    keyed = []
    for place, shown in enumerate(found):
        turn = turns[shown.label] = turns.get(shown.label, -1) + 1
        keyed.append((turn, place, shown))
    return [shown for _, _, shown in sorted(keyed, key=lambda item: item[:2])]


def of_run(run: Run) -> Material:
    """The material of a run that has just ended."""
    report = run.report
    planned, found = getattr(run, "planned", None), getattr(run, "found", None)
    samples = planned.samples if planned is not None else found.samples if found is not None else None
    failures: Sequence[Failure] = run.failures or run.extracted.failures
    return Material(
        catalog=run.catalog,
        dataset=run.dataset,
        store=run.store,
        record=report,
        earlier=tuple(islice(before(run.store, report.run_id), EARLIER)),
        snapshot=run.store.snapshot(report.snapshot) if report.published else None,
        base=run.base,
        samples=samples,
        failures=failures,
    )


def of_record(catalog: Catalog, dataset: str, run_id: str) -> Material:
    """The material of an earlier run, from what the store has of it.

    Raises ``StoreError`` where the run left no record, or is red: its failures are on the page that it made, and
    nowhere else.
    """
    store = DatasetStore(catalog.store, catalog.dataset(dataset).name)
    record = read_record(store, run_id)
    if record is None:
        raise StoreError(f"{store.url}: no record of a run {run_id!r}; cure: gristmill report lists all runs")
    if record.status not in ("published", "unchanged") or record.snapshot is None:
        raise StoreError(
            f"{store.url}: run {run_id} is {record.status}; only pages of runs that did not fail are remade"
        )
    standing = store.snapshot(record.snapshot)
    if standing is None:
        raise StoreError(f"{store.url}: snapshot {record.snapshot} of run {run_id} is not there")
    return Material(
        catalog=catalog,
        dataset=catalog.dataset(dataset),
        store=store,
        record=record,
        earlier=tuple(islice(before(store, run_id), EARLIER)),
        snapshot=standing if record.published else None,
        base=_base(store, record),
        samples=standing.samples,
        failures=[Failure(**row) for row in standing.quarantine.to_pylist()],
    )


def _base(store: DatasetStore, record: RunReport) -> Snapshot | None:
    """The snapshot before, where gc has not removed it."""
    if record.base is None or record.base in store.removed():
        return None
    return store.snapshot(record.base)
