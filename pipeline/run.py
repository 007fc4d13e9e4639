"""One run of one data set, stage by stage: scan, plan, fit, extract, align, publish.

``run_dataset`` calls the stages in order; the flows call the same stages one task each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, reduce
from types import TracebackType
from typing import Literal, Self
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from features.errors import RunFailedError, StoreError
from features.types import Device
from pipeline import align as alignment
from pipeline.accounts import Accounts
from pipeline.align_plan import plan_alignment
from pipeline.align_rows import Setting
from pipeline.catalog import Catalog, DataSet
from pipeline.content import read_digests, together, windowed
from pipeline.estimate import Estimate, estimate, read_rates
from pipeline.events import SILENT, Events
from pipeline.execute.engine import Engine, cores, open_engine, resolve_device
from pipeline.execute.ledger import Progress
from pipeline.execute.task import run_shard
from pipeline.execute.work import ShardReport, ShardWork
from pipeline.extents import read_extents
from pipeline.fitting import Fitting
from pipeline.importing import importable
from pipeline.plan import EVERYTHING, Asked, FeaturePlan, Plan, Status, Wanted, make_plan
from pipeline.publication import Publication
from pipeline.record import RunReport
from pipeline.remarks import remarks
from pipeline.report.finish import finish
from pipeline.report.journal import Journal
from pipeline.scan import Scan, scan
from pipeline.store import VIEWS_PREFIX, DatasetStore, Snapshot
from pipeline.store.lease import Lease, acquire
from pipeline.store.quarantine import Failure
from pipeline.store.releases import open_snapshot
from pipeline.timelines import Outside, outside
from pipeline.work import Place, align_work, input_files, shard_work

STAGES = ("scan", "plan", "fit", "extract", "align", "publish")
"""The methods of ``Run``, in the order in which they are called."""


class Run:
    """One run, stage by stage. Each stage may be called once, in order; each keeps what the next ones need.

    As a context manager it holds the data set's lease: no other run writes meanwhile, and one that tries is told so at
    its start. Raises ``StoreError`` where another live run holds it. A dry run (scan and plan) needs none.
    """

    def __init__(
        self,
        catalog: Catalog,
        dataset: str,
        *,
        events: Events = SILENT,
        verify_content: bool = False,
        from_nothing: bool = False,
        engine: Literal["serial", "dask"] | None = None,
        asked: Asked = EVERYTHING,
    ) -> None:
        """Prepare a run.

        ``verify_content`` reads every file again instead of trusting size and version. ``from_nothing`` computes and
        fits everything anew and replaces the old snapshot at the end. ``engine`` overrides the catalog's. ``asked``
        limits what is computed: other stale rows stay as they are, and the next plan names them again.
        """
        if from_nothing and asked != EVERYTHING:
            raise ValueError("from_nothing: got a limit as well; allowed: all features and samples")
        self.catalog = catalog
        self.events = self.journal = Journal(events)
        self.dataset: DataSet = catalog.dataset(dataset)
        self.asked = asked
        asked.check_features(self.dataset.name, self.dataset.features)
        self.store = DatasetStore(catalog.store, dataset)
        self.base: Snapshot | None = self.store.snapshot()
        self.verify_content, self.from_nothing = verify_content, from_nothing
        self.engine_kind: Literal["serial", "dask"] = engine or catalog.engine.kind
        now = datetime.now(UTC)
        self.report = RunReport(
            run_id=f"{now:%Y%m%dT%H%M%S-%f}{uuid4().hex[:4]}",  # runs are in order of their ids
            dataset=dataset,
            started=now.isoformat(timespec="seconds"),
            base=None if self.base is None else self.base.version,
        )
        self.extracted = ShardReport(shard=-1)
        self.aligned = ShardReport(shard=-1)
        self.failures: list[Failure] = []
        self._lease: Lease | None = None
        self._held = ExitStack()
        self._progress = Progress(self.store)
        self._fitting = Fitting(catalog, self.dataset, self.store, self.report)
        self._alignment: Mapping[str, FeaturePlan] = {}

    def __enter__(self) -> Self:
        """Take the lease, and look again what is published: another run may have been at work until now."""
        with ExitStack() as held:
            purpose = "rebuild" if self.from_nothing else "run"
            self._lease = held.enter_context(acquire(self.store, purpose, events=self.events))
            self.base = self.store.snapshot()
            self.report.base = None if self.base is None else self.base.version
            self._held = held.pop_all()
        self.journal.open(self.store, self.report)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lease back, and leave a record of the run for people and scripts."""
        try:
            self._held.close()
        finally:
            finish(self, error)

    @property
    def _compared(self) -> Snapshot | None:
        """The snapshot whose rows may be kept."""
        return None if self.from_nothing else self.base

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.report.seconds[stage] = self.report.seconds.get(stage, 0.0) + time.perf_counter() - begun

    def scan(self) -> Scan:
        """List the samples and digest the files that are new or touched."""
        with self._timed("scan"):
            self.events.started("scan", None, "samples")
            self.found = scan(self.dataset)
            total = len(self.found.samples) + len(self.found.rejected)
            self.events.finished("scan", f"{total} samples")
            self.report.notices += self.found.notes
            self.asked.check_samples(self.dataset.name, self.found.samples["sample_id"])
            streams = {stream for chain in self.dataset.features.values() for stream in chain.streams}
            self._digests = read_digests(
                self.found.samples, streams, self.store, verify=self.verify_content, events=self.events
            )
            self._extents = read_extents(self._new_samples(), self._digests, self.store)
        return self.found

    def _new_samples(self) -> pa.Table:
        """The samples that are to be dealt into shards."""
        if self._compared is None:
            return self.found.samples
        known = self._compared.sample_shards["sample_id"]
        new = pc.invert(pc.is_in(self.found.samples["sample_id"], value_set=known.combine_chunks()))
        return self.found.samples.filter(new)

    def plan(self) -> Plan:
        """Compare what is wanted with the last snapshot. Reads no media; features that must be fitted say so."""
        with self._timed("plan"), importable(self.catalog.folder):
            wanted = {}
            for name, chain in self.dataset.features.items():
                digests = windowed(together([self._digests[s] for s in chain.streams]), self.found.samples)
                there = [pc.is_valid(self.found.samples[f"{stream}_uri"]) for stream in chain.streams]
                present = reduce(pc.and_, there).to_numpy(zero_copy_only=False)
                if name in self.dataset.view_splits:
                    splits = pa.array(self.dataset.view_splits[name])
                    present = present & pc.is_in(self.found.samples["split"], value_set=splits).to_numpy()
                asked = self.asked.rows(name, self.found.samples["sample_id"])
                retry = self.asked.reasons if self.asked.retry else None
                recipe = self._fitting.recipe(name, chain, self._compared)
                wanted[name] = Wanted(chain, recipe, digests, present, asked, retry)
            self.planned = make_plan(
                self._compared,
                self.found.samples,
                wanted,
                shard_samples=self.dataset.shard_samples,
                extents=self._extents,
            )
            self.report.reasons = {name: feature.reasons() for name, feature in self.planned.features.items()}
        return self.planned

    def estimate(self) -> Estimate:
        """What the plan costs, from the rates of earlier runs and the files of the last snapshot."""
        workers = self.catalog.engine.workers
        wide = 1 if self.engine_kind == "serial" else cores() if workers == "auto" else workers
        return estimate(self.planned, read_rates(self.store), workers=wide, aligned=self.dataset.align is not None)

    def fit(self) -> None:
        """Fit what must be fitted, on the training split only, and plan again. Fitted state is kept between nights."""
        waiting = [name for name, feature in self.planned.features.items() if feature.count(Status.NEEDS_FIT)]
        if not waiting:
            return
        with self._timed("fit"), importable(self.catalog.folder):
            for name in sorted({name.removeprefix(VIEWS_PREFIX) for name in waiting}):
                self._fitting.fit(name, self.found.samples, self.events)
        reasons = self.report.reasons
        self.plan()
        self.report.reasons |= {name: reasons[name] for name in waiting}

    def extract(self) -> None:
        """Compute every row of the plan, shard by shard."""
        shards = self.planned.shards_to_write
        if not shards:
            return
        with self._timed("extract"):
            rows = self.planned.to_compute
            with self._open_engine(len(shards) if rows else 0) as engine:
                self.events.started("extract", rows, "rows")
                for report in self._progress.reports(engine, run_shard, self._shard_work(shards, engine)):
                    self.report.resumed = self._progress.resumed
                    self.extracted += report
                    self.events.advanced("extract", sum(report.computed.values()) + len(report.failures))
                self.events.finished("extract")
        self.report.worker_seconds = dict(self.extracted.seconds)
        self.report.spent |= self.extracted.spent
        self.report.words, self.report.flags = dict(self.extracted.words), dict(self.extracted.flags)
        self.report.notices += [*remarks(self.extracted), *self.extracted.notices]

    @contextmanager
    def _open_engine(self, shards: int) -> Iterator[Engine]:
        """The engine that the catalog names, for so many shards to compute; for none, nothing is started."""
        settings = self.catalog.engine.model_copy(update={"kind": self.engine_kind if shards else "serial"})
        with open_engine(settings, self._device, self.catalog.folder, shards) as engine:
            yield engine

    @cached_property
    def _device(self) -> Device:
        return resolve_device(self.catalog.engine.device)

    def _shard_work(self, shards: Mapping[int, set[str]], engine: Engine) -> Iterator[ShardWork]:
        states = {name: self._fitting.reference(name, feature) for name, feature in self.planned.features.items()}
        hardware = self.catalog.engine.video_decoder == "nvdec"
        for piece in shard_work(self.planned, shards, self._place, states, self._device):
            yield replace(piece, guard=engine.guard, decode_threads=engine.decode_threads, hardware=hardware)

    @property
    def _place(self) -> Place:
        return Place(store=self.catalog.store, dataset=self.dataset.name, run_id=self.report.run_id)

    def align(self) -> None:
        """Put every modality on the common timeline, for the samples whose rows changed."""
        if self.dataset.align is None:
            return
        with self._timed("align"):
            setting = Setting.of(self.dataset.align, self.dataset.features)
            outside = self._outside()
            aligned = plan_alignment(self.planned, self.extracted.failures, setting, outside)
            self._alignment = plans = aligned.features
            shards = aligned.shards_to_write
            rows = aligned.to_compute
            if shards:
                inputs = input_files(aligned, self.extracted)
                size = sum(file.size for (_, shard), file in inputs.items() if shard in shards)
                running = self.catalog.engine.scheduler is not None
                least = alignment.WORTH_SENDING if running else alignment.WORTH_WORKERS
                alone = alignment.seconds_alone(setting, size, rows)
                with self._open_engine(len(shards) if alone >= least else 0) as engine:
                    self.events.started("align", rows, "rows")
                    work = align_work(aligned, shards, self._place, setting, outside, inputs)
                    for report in self._progress.reports(engine, alignment.align_shard, work):
                        self.aligned += report
                        self.events.advanced("align", sum(report.computed.values()))
                    self.events.finished("align")
            self.report.spent |= self.aligned.spent
            self.report.notices += self.aligned.notices + list(outside.notes if outside is not None else ())
            self.report.aligned_rows_written = sum(self.aligned.computed.values())
            self.report.aligned_samples = max((int(plan.wanted.present.sum()) for plan in plans.values()), default=0)

    def _outside(self) -> Outside | None:
        """What timelines are made of besides features: texts, or a table."""
        return outside(
            self.dataset,
            self.found.samples,
            self.store,
            self._digests,
            verify=self.verify_content,
            events=self.events,
        )

    def publish(self) -> RunReport:
        """Check the counts and commit everything at once; nothing is published when nothing changed."""
        with self._timed("publish"):
            accounts = Accounts(
                dataset=self.dataset,
                run_id=self.report.run_id,
                compared=self._compared,
                found=self.found,
                plan=self.planned,
                alignment=self._alignment,
                extracted=self.extracted,
                aligned=self.aligned,
            )
            self.failures = accounts.failures
            self.report.features, self.report.samples = accounts.features, accounts.samples
            self.report.quarantine_by_reason = accounts.reasons
            try:
                accounts.gate()
            except RunFailedError:
                self._progress.forget(failed=True)
                raise
            publication = Publication(
                dataset=self.dataset,
                store=self.store,
                base=self.base,
                from_nothing=self.from_nothing,
                report=self.report,
                plan=self.planned,
                alignment=self._alignment,
                extracted=self.extracted,
                aligned=self.aligned,
                failures=self.failures,
                fitted=self._fitting.published(self._compared, self.planned.features),
            )
            if publication.changes_anything:
                if self._lease is not None:
                    self._lease.check()
                self.report.snapshot = publication.commit()
                self.report.published = True
                self._progress.forget()
            else:
                self.report.snapshot = self.report.base
        return self.report


def run_dataset(
    catalog: Catalog,
    dataset: str,
    *,
    events: Events = SILENT,
    verify_content: bool = False,
    from_nothing: bool = False,
    engine: Literal["serial", "dask"] | None = None,
    asked: Asked = EVERYTHING,
) -> RunReport:
    """Bring one data set up to date: scan, plan, fit, extract, align, publish. Options as for ``Run``."""
    run = Run(
        catalog,
        dataset,
        events=events,
        verify_content=verify_content,
        from_nothing=from_nothing,
        engine=engine,
        asked=asked,
    )
    with run:
        for stage in STAGES:
            getattr(run, stage)()
    return run.report


def plan_dataset(
    catalog: Catalog,
    dataset: str,
    *,
    events: Events = SILENT,
    verify_content: bool = False,
    asked: Asked = EVERYTHING,
) -> Run:
    """The dry run: scan and plan, compute nothing, publish nothing."""
    run = Run(catalog, dataset, events=events, verify_content=verify_content, asked=asked)
    run.scan()
    run.plan()
    return run


def published(catalog: Catalog, dataset: str, which: str | int | None = None) -> Snapshot:
    """The snapshot that readers see, or another one by version or release name.

    Raises ``StoreError`` where nothing was published yet, or there is no such snapshot.
    """
    store = DatasetStore(catalog.store, catalog.dataset(dataset).name)
    snapshot = open_snapshot(store, which)
    if snapshot is None:
        raise StoreError(f"{store.url}: nothing is published yet; cure: gristmill run {dataset}")
    return snapshot
