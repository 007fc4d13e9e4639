"""One run of one data set, stage by stage: scan, plan, fit, extract, align, publish.

``run_dataset`` calls the stages in order; the flows call the same stages one task each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial, reduce
from types import TracebackType
from typing import Any, Literal, Self, TypeVar
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.base import Example, NeedsFit
from features.errors import RunFailedError, StoreError
from features.types import Stream
from pipeline import align as alignment
from pipeline import extents, keys
from pipeline.accounts import Accounts
from pipeline.align_rows import Setting
from pipeline.catalog import Catalog, DataSet
from pipeline.catalog.steps import importable
from pipeline.chain import Chain
from pipeline.content import CACHE_SCHEMA, Digests, stream_digests, together, windowed
from pipeline.corpus import examples, training_rows
from pipeline.estimate import Estimate, estimate, read_rates
from pipeline.events import SILENT, Events
from pipeline.execute.engine import Engine, cores, open_engine, resolve_device
from pipeline.execute.ledger import Ledger, entry_name, recorded
from pipeline.execute.task import run_shard
from pipeline.execute.work import ShardReport, ShardWork
from pipeline.plan import (
    COMPUTED,
    EVERYTHING,
    Asked,
    FeaturePlan,
    Plan,
    Status,
    Wanted,
    make_plan,
    plan_feature,
)
from pipeline.record import RunReport
from pipeline.remarks import remarks
from pipeline.report.finish import finish
from pipeline.report.journal import Journal
from pipeline.scan import Scan, scan
from pipeline.state import StateRef, needs_fit, save_fitted, weights_digests, with_weights
from pipeline.store import ALIGNED_PREFIX, VIEWS_PREFIX, DatasetStore, ShardFile, Snapshot
from pipeline.store.lease import Lease, acquire
from pipeline.store.quarantine import Failure, to_table
from pipeline.store.releases import open_snapshot
from pipeline.timelines import Outside, outside
from pipeline.work import Place, align_work, input_files, shard_work

W = TypeVar("W", ShardWork, alignment.AlignWork)

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
        self._ledger = Ledger(self.store)
        self._entries: dict[str, bool] = {}
        self._fitted: dict[str, dict[str, Any]] = {}
        self._alignment: dict[str, FeaturePlan] = {}

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
            self._digests = self._digest_streams()
            self._extents = self._measure()
        return self.found

    def _measure(self) -> dict[Stream, pa.Table]:
        """How much the headers of new samples' files say that there is, so that shards are cut by what they cost."""
        new = self.found.samples
        if self._compared is not None:
            known = self._compared.sample_shards["sample_id"]
            new = new.filter(pc.invert(pc.is_in(new["sample_id"], value_set=known.combine_chunks())))
        if not len(new):
            return {}
        found: dict[Stream, pa.Table] = {}
        for stream in self._digests:
            cache = self.store.read_cache(f"extent-{stream}", extents.SCHEMA)
            found[stream] = extents.stream_extents(new, stream, cache)
            if not found[stream].equals(cache):
                self.store.write_cache(f"extent-{stream}", found[stream])
        return found

    def _digest_streams(self) -> dict[Stream, Digests]:
        found: dict[Stream, Digests] = {}
        streams: list[Stream] = sorted({stream for chain in self.dataset.features.values() for stream in chain.streams})
        shared = None  # a video file may be its own sound: it is read once
        for stream in streams:
            cache = self.store.read_cache(f"content-{stream}", CACHE_SCHEMA)
            found[stream], known = stream_digests(
                self.found.samples,
                stream,
                cache,
                shared=shared if stream == "video" else None,
                verify=self.verify_content,
                events=self.events,
            )
            if not known.equals(cache):
                self.store.write_cache(f"content-{stream}", known)
            if stream == "audio":
                shared = known
        return found

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
                wanted[name] = Wanted(chain, self._recipe(name, chain), digests, present, asked, retry)
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

    def _recipe(self, name: str, chain: Chain) -> dict[str, Any] | None:
        weights = weights_digests(chain, self.catalog.folder)
        if not needs_fit(chain):
            return keys.recipe(chain, weights=weights)
        name = name.removeprefix(VIEWS_PREFIX)  # views are extracted with what the feature was fitted to
        if name not in self._fitted and self._compared is not None:
            known = self._compared.info["fitted"].get(name)
            if known is not None and known["recipe"] == self._fit_recipe(chain) and not self._outdated(known):
                self._fitted[name] = known
        fitted = self._fitted.get(name)
        return None if fitted is None else keys.recipe(chain, weights=weights, state=bytes.fromhex(fitted["digest"]))

    def _outdated(self, fitted: Mapping[str, Any]) -> bool:
        """Whether the catalog wants this state fitted again because of its age."""
        days = self.dataset.fit.every_days
        if days is None:
            return False
        age = datetime.fromisoformat(self.report.started) - datetime.fromisoformat(fitted["created"])
        return age >= timedelta(days=days)

    def _fit_recipe(self, chain: Chain) -> str:
        return keys.digest_json(keys.recipe(chain)).hex()

    def fit(self) -> None:
        """Fit what must be fitted, on the training split only, and plan again. Fitted state is kept between nights."""
        waiting = [name for name, feature in self.planned.features.items() if feature.count(Status.NEEDS_FIT)]
        if not waiting:
            return
        with self._timed("fit"), importable(self.catalog.folder):
            for name in sorted({name.removeprefix(VIEWS_PREFIX) for name in waiting}):
                self._fit_one(name, self.dataset.features[name])
        reasons = self.report.reasons
        self.plan()
        self.report.reasons |= {name: reasons[name] for name in waiting}

    def _fit_one(self, name: str, chain: Chain) -> None:
        rows = training_rows(self.found.samples, self.dataset.name, chain)
        assert isinstance(chain.extractor, NeedsFit)  # noqa: S101  # narrowed for mypy: needs_fit() has said so
        stage = f"fit {name}"
        self.events.started(stage, len(rows), "samples")
        state = chain.extractor.fit(self._corpus(chain, rows, stage))
        path, digest = save_fitted(self.store, name, state)
        self._fitted[name] = {
            "path": path,
            "digest": digest.hex(),
            "recipe": self._fit_recipe(chain),
            "samples": len(rows),
            "run_id": self.report.run_id,
            "created": self.report.started,
        }
        self.events.finished(stage)

    def _corpus(self, chain: Chain, rows: npt.NDArray[np.int64], stage: str) -> Iterator[Example]:
        weights = StateRef(self.catalog.store, self.dataset.name, str(self.catalog.folder))
        prepare = with_weights(chain, weights).prepare
        for found in examples(self.found.samples, rows, chain, prepare):
            self.events.advanced(stage)
            yield from found

    def extract(self) -> None:
        """Compute every row of the plan, shard by shard."""
        shards = self.planned.shards_to_write
        if not shards:
            return
        with self._timed("extract"):
            rows = self.planned.to_compute
            with self._open_engine(rows) as engine:
                self.events.started("extract", rows, "rows")
                for report in self._finished_or_run(engine, run_shard, self._shard_work(shards, engine)):
                    self.extracted += report
                    self.events.advanced("extract", sum(report.computed.values()) + len(report.failures))
                self.events.finished("extract")
        self.report.worker_seconds = dict(self.extracted.seconds)
        self.report.spent |= self.extracted.spent
        self.report.words, self.report.flags = dict(self.extracted.words), dict(self.extracted.flags)
        self.report.notices += [*remarks(self.extracted), *self.extracted.notices]

    def _finished_or_run(
        self, engine: Engine, function: Callable[[W], ShardReport], work: Iterable[W]
    ) -> Iterator[ShardReport]:
        """Reports of all work: what an earlier, unpublished run finished is taken from the ledger, the rest is done."""
        finished: list[ShardReport] = []

        def todo() -> Iterator[W]:
            for piece in work:
                found = self._ledger.find(entry_name(piece))
                if found is None:
                    yield piece
                else:
                    finished.append(found)

        for report in engine.map(partial(recorded, function), todo()):
            yield self._enter(report)
            yield from self._resume(finished)
        yield from self._resume(finished)

    def _resume(self, finished: list[ShardReport]) -> Iterator[ShardReport]:
        while finished:
            report = finished.pop()
            counted = (rows for name, rows in report.computed.items() if not name.startswith(ALIGNED_PREFIX))
            self.report.resumed += sum(counted)
            yield self._enter(report)

    def _enter(self, report: ShardReport) -> ShardReport:
        self._entries[report.entry] = bool(report.failures)
        return report

    @contextmanager
    def _open_engine(self, rows: int) -> Iterator[Engine]:
        """The engine that the catalog names; nothing is started where no row is to be computed."""
        settings = self.catalog.engine.model_copy(update={"kind": self.engine_kind if rows else "serial"})
        with open_engine(settings, self._device, self.catalog.folder) as engine:
            yield engine

    @cached_property
    def _device(self) -> str:
        return resolve_device(self.catalog.engine.device)

    def _shard_work(self, shards: Mapping[int, set[str]], engine: Engine) -> Iterator[ShardWork]:
        states = {name: self._state_ref(name, feature) for name, feature in self.planned.features.items()}
        for piece in shard_work(self.planned, shards, self._place, states, self._device):
            yield replace(piece, guard=engine.guard, decode_threads=engine.decode_threads)

    @property
    def _place(self) -> Place:
        return Place(store=self.catalog.store, dataset=self.dataset.name, run_id=self.report.run_id)

    def _state_ref(self, name: str, feature: FeaturePlan) -> StateRef | None:
        recipe = feature.wanted.recipe or {}
        weights = any(step["weights"] is not None for step in recipe.get("steps", ()))
        if recipe.get("state") is None and not weights:
            return None
        fitted = self._fitted[name.removeprefix(VIEWS_PREFIX)]["path"] if recipe.get("state") is not None else ""
        return StateRef(self.catalog.store, self.dataset.name, str(self.catalog.folder), fitted)

    def _present(self) -> dict[str, npt.NDArray[np.bool_]]:
        """Feature -> which samples have a row after extraction."""
        ids = self.planned.samples["sample_id"]
        present = {}
        for name, feature in self.planned.originals.items():
            has = feature.kept | np.isin(feature.status, COMPUTED)
            failed = [failure.sample_id for failure in self.extracted.failures if failure.feature == name]
            has[pc.is_in(ids, value_set=pa.array(failed, pa.string())).to_numpy()] = False
            present[name] = has
        return present

    def align(self) -> None:
        """Put every modality on the common timeline, for the samples whose rows changed."""
        if self.dataset.align is None:
            return
        with self._timed("align"):
            setting = Setting.of(self.dataset.align, self.dataset.features)
            outside = self._outside()
            self._alignment = plans = self._plan_alignment(setting, outside)
            aligned = Plan(self._compared, self.planned.samples, plans)
            shards = aligned.shards_to_write
            rows = aligned.to_compute
            if shards:
                inputs = input_files(aligned, self.extracted)
                size = sum(file.size for (_, shard), file in inputs.items() if shard in shards)
                running = self.catalog.engine.scheduler is not None
                least = alignment.WORTH_SENDING if running else alignment.WORTH_WORKERS
                alone = alignment.seconds_alone(setting, size, rows)
                with self._open_engine(rows if alone >= least else 0) as engine:
                    self.events.started("align", rows, "rows")
                    work = align_work(aligned, shards, self._place, setting, outside, inputs)
                    for report in self._finished_or_run(engine, alignment.align_shard, work):
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

    def _plan_alignment(self, setting: Setting, outside: Outside | None) -> dict[str, FeaturePlan]:
        present = self._present()
        inputs = {
            name: (present[name], feature.stored_content, feature.stored_recipes)
            for name, feature in self.planned.originals.items()
        }
        anything = np.logical_or.reduce(list(present.values()))
        plans = {}
        for name, (recipe, contents) in alignment.recipes_and_contents(setting, inputs, outside).items():
            wanted = Wanted(self.dataset.features[name], recipe, contents, anything)
            stored = ALIGNED_PREFIX + name
            plans[stored] = plan_feature(stored, self._compared, self.planned.samples, wanted)
        return plans

    @property
    def _aligned_dims(self) -> dict[str, int]:
        """Width of the aligned rows of each feature."""
        align = self.dataset.align
        if align is None:
            return {}
        return {
            ALIGNED_PREFIX + name: align.pooling(name).width(self.dataset.features[name].extractor.dim)
            for name in self.planned.originals
        }

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
            failures = self.failures = accounts.failures
            self.report.features, self.report.samples = accounts.features, accounts.samples
            self.report.quarantine_by_reason = accounts.reasons
            try:
                accounts.gate()
            except RunFailedError:
                self._ledger.clear(name for name, failed in self._entries.items() if failed)
                raise
            adds = [*self.extracted.files, *self.aligned.files]
            removes = self._removes()
            if self._anything_changed(adds, removes, failures):
                if self._lease is not None:
                    self._lease.check()
                self.report.snapshot = self._commit(adds, removes, failures)
                self.report.published = True
                self._ledger.clear(self._entries)
            else:
                self.report.snapshot = self.report.base
        return self.report

    def _recipes(self, name: str, feature: FeaturePlan) -> dict[str, Any]:
        """The documents of every recipe that rows of a feature have after this run, by digest."""
        found = {} if feature.wanted.recipe is None else {feature.recipe_digest.hex(): feature.wanted.recipe}
        if self._compared is not None:
            before = self._compared.info["recipes"].get(name, {})
            stale = {row.tobytes().hex() for row in np.unique(feature.standing.recipe, axis=0)}
            found |= {digest: before[digest] for digest in sorted(stale) if digest in before}
        return found

    def _fitted_before(self) -> dict[str, Any]:
        """Fitted state of the last snapshot: stale rows that were not asked for were made with it."""
        fitted = {} if self._compared is None else self._compared.info["fitted"]
        return {name: fitted[name] for name in self.planned.features if name in fitted}

    def _removes(self) -> list[ShardFile]:
        if self.base is None:
            return []
        if self.from_nothing:
            return list(self.base.files)
        names = set(self.planned.features)
        if self.dataset.align is not None:
            names |= {ALIGNED_PREFIX + name for name in self.planned.originals}
        gone = [file for file in self.base.files if file.feature not in names]
        return [*self.extracted.removed, *self.aligned.removed, *gone]

    def _anything_changed(self, adds: list[ShardFile], removes: list[ShardFile], failures: list[Failure]) -> bool:
        if adds or removes or self.base is None or self.from_nothing:
            return True
        if self._fitted_before() | self._fitted != self.base.info["fitted"]:  # fitted again, with the same result
            return True
        columns = ["sample_id", "feature", "stage", "reason", "message", "attempt", "content", "recipe"]
        if not to_table(failures).select(columns).equals(self.base.quarantine.select(columns)):
            return True
        kept = [name for name in self.planned.samples.column_names if not name.endswith(("_size", "_version"))]
        return not self.planned.samples.select(kept).equals(self.base.samples.select(kept))

    def _commit(self, adds: list[ShardFile], removes: list[ShardFile], failures: list[Failure]) -> int:
        recipes = {
            name: self._recipes(name, feature) for name, feature in {**self.planned.features, **self._alignment}.items()
        }
        failures = [replace(failure, run_id=failure.run_id or self.report.run_id) for failure in failures]
        info = {
            "run_id": self.report.run_id,
            "created": self.report.started,
            "samples": self.store.write_table("samples", self.planned.samples),
            "quarantine": self.store.write_table("quarantine", to_table(failures)),
            "recipes": recipes,
            "fitted": self._fitted_before() | self._fitted,
            "dims": {name: chain.extractor.dim for name, chain in self.dataset.features.items()} | self._aligned_dims,
            "timeline": None if self.dataset.align is None else self.dataset.align.timeline,
            "views": {
                name: {"count": self.dataset.features[name].count, "splits": list(splits)}
                for name, splits in self.dataset.view_splits.items()
            },
            "streams": {name: chain.stream for name, chain in self.dataset.features.items()},
            "counts": {
                "samples": len(self.planned.samples),
                "quarantined": len({failure.sample_id for failure in failures}),
                "deferred": {name: counts.deferred for name, counts in self.report.features.items()},
            },
            "changes": {name: feature.reasons(standing=False) for name, feature in self.planned.features.items()},
            "rebuilt": self.from_nothing and self.base is not None,
        }
        return self.store.commit(run_id=self.report.run_id, base=self.base, adds=adds, removes=removes, info=info)


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
