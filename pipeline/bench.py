"""Where the time of a data set goes on this machine: what each stage costs, and what would make it faster.

Some samples, chosen at random, are computed into a temporary store in three ways, after one pass to warm up: by all
workers of the catalog's engine, by one guarded worker, and by one without guard (what the work itself costs). Samples
that fail in the first pass are counted and left out of the others. Nothing is published, and the data
set's own store is only read.
"""

from __future__ import annotations

import tempfile
import time
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import GristmillError, SampleError
from features.types import STREAMS
from pipeline.catalog import Catalog
from pipeline.chain import Chain
from pipeline.events import SILENT, Events
from pipeline.execute.engine import Engine, cores, open_engine, resolve_device
from pipeline.execute.task import run_shard
from pipeline.execute.work import FeatureWork, SampleWork, ShardReport, ShardWork
from pipeline.media.source import Source
from pipeline.plan import sample_rows
from pipeline.record import Spent
from pipeline.scan import scan
from pipeline.state import StateRef, needs_fit, weights_digests
from pipeline.store import DatasetStore, Snapshot
from pipeline.work import span_of

FIGURES = ("guard", "scaling", "reading", "writing", "between", "failed")
"""What is measured as a ratio, and can have a floor."""
SHARD_SAMPLES = 16
"""Small, so that a few samples are several shards for several workers."""
PAYS_BACK = 60_000
"""Pictures after which a compiled network has saved what compiling it cost (measured: ten seconds, 36 % faster)."""


@dataclass(frozen=True, kw_only=True)
class Floor:
    """A limit on one of the figures: ``least`` or ``most``."""

    figure: str
    least: float | None = None
    most: float | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A figure held against its floor."""

    figure: str
    got: float
    allowed: str
    passed: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one part of the work costs: ``count`` samples or rows in ``seconds`` of one worker."""

    what: str
    count: int
    seconds: float
    share: float

    @property
    def rate(self) -> float:
        """Samples (or rows) by second of one worker."""
        return self.count / self.seconds if self.seconds else float("inf")


@dataclass(kw_only=True)
class Bench:
    """What was measured. ``figures`` are ratios, so that they can be held against floors on any machine."""

    dataset: str
    samples: int
    failed: int
    device: str
    workers: int
    cores: int
    parts: list[Part] = field(default_factory=list)
    """Parts of the work, by one worker without guard; their shares sum to 1."""
    figures: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """``start``: until workers are ready; ``alone``, ``guarded``, ``all``: the work, in the three ways."""
    skipped: list[str] = field(default_factory=list)
    """Features that could not be measured, and why."""
    advice: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    @property
    def bottleneck(self) -> Part:
        """The part that takes most of the time."""
        return max(self.parts, key=lambda part: part.seconds)

    @property
    def passed(self) -> bool:
        """Whether every floor is held."""
        return all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON document."""
        parts = [vars(part) | {"rate": part.rate} for part in self.parts]
        checks = [vars(check) for check in self.checks]
        return vars(self) | {"parts": parts, "checks": checks, "bottleneck": self.bottleneck.what}


def read_floors(path: Path | None = None) -> list[Floor]:
    """The floors in a TOML file (one table for each figure), or those that come with Gristmill.

    Raises ``GristmillError`` when the file cannot be read or names something unknown.
    """
    where = str(path) if path is not None else "floors.toml"
    try:
        text = path.read_text() if path is not None else files("pipeline").joinpath("floors.toml").read_text()
        found = tomllib.loads(text)
        return [Floor(figure=name, **limits) for name, limits in found.items()]
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise GristmillError(
            f"{where}: not a file of floors ({error}); allowed: a table for each figure with least or most, and why"
        ) from error


def bench_dataset(
    catalog: Catalog,
    dataset: str,
    *,
    samples: int = 200,
    seed: int = 0,
    floors: Sequence[Floor] = (),
    events: Events = SILENT,
) -> Bench:
    """Measure ``samples`` samples of a data set, chosen at random by ``seed``.

    Features that are fitted are measured with the state of the last snapshot; where there is none they are named in
    ``skipped``. Raises ``GristmillError`` when nothing can be measured, for a floor of an unknown figure,
    or with a catalog that names a scheduler.
    """
    for floor in floors:
        if floor.figure not in FIGURES:
            raise GristmillError(f"floors: got {floor.figure!r}, allowed: {', '.join(FIGURES)}")
    if catalog.engine.scheduler is not None:
        raise GristmillError(
            f"engine.scheduler: got {catalog.engine.scheduler}, allowed here: none, for this machine is measured; "
            "cure: run bench where the workers run, with a catalog that names no scheduler"
        )
    device = resolve_device(catalog.engine.device)
    settings = catalog.engine.model_copy(update={"kind": "dask"})
    with tempfile.TemporaryDirectory(prefix="gristmill-bench-") as place:
        work, skipped = _work(catalog, dataset, samples, seed, device, place, events)
        ids = {sample.sample_id for piece in work for sample in piece.samples}
        found = Bench(
            dataset=dataset, samples=len(ids), failed=0, device=device, workers=0, cores=cores(), skipped=skipped
        )
        events.started("read", len(ids), "samples")
        bytes_read, read_seconds = _read(work, events)
        events.finished("read", f"{bytes_read / 2**20:,.0f} MiB")

        first, alone = ShardReport(shard=-1), ShardReport(shard=-1)
        begun = time.perf_counter()
        with open_engine(settings, device, catalog.folder) as engine:
            found.seconds["start"] = time.perf_counter() - begun
            found.workers = engine.workers
            _timed("warm up", engine, _guarded(work, engine), events, first)
            failed = {failure.sample_id for failure in first.failures}
            work = _without(work, failed)
            found.seconds["all"] = _timed("all workers", engine, _guarded(work, engine), events)
        with open_engine(settings.model_copy(update={"workers": 1}), device, catalog.folder) as engine:
            for guarded in (_guarded(work, engine), _guarded(work, None)):
                _timed("warm up", engine, guarded[:1], events)
            found.seconds["guarded"] = _timed("one worker", engine, _guarded(work, engine), events)
            found.seconds["alone"] = _timed("without guard", engine, _guarded(work, None), events, alone)
    found.failed = len(failed)
    found.parts = _parts(alone.spent, found.seconds["alone"], len(ids) - len(failed))
    found.figures = _figures(found, len(work), read_seconds)
    found.advice = list(_advice(found, catalog, dataset))
    found.checks = _checks(found.figures, floors)
    return found


def _work(
    catalog: Catalog, name: str, samples: int, seed: int, device: str, place: str, events: Events
) -> tuple[list[ShardWork], list[str]]:
    """Work on a random choice of samples, writing below ``place``; and the features left out, with reasons."""
    dataset = catalog.dataset(name)
    events.started("scan", None, "samples")
    table = scan(dataset).samples
    events.finished("scan", f"{len(table)} samples")
    base = DatasetStore(catalog.store, name).snapshot()
    states: dict[str, StateRef | None] = {}
    skipped = []
    for feature, chain in dataset.features.items():
        try:
            states[feature] = _state(catalog, name, feature, chain, base)
        except LookupError as error:
            skipped.append(str(error))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(table))[:samples])
    rows = [row for row in sample_rows(table, chosen) if row["uris"]]
    pieces = [
        _piece(place, name, number, rows[first : first + SHARD_SAMPLES], dataset.features, states, device)
        for number, first in enumerate(range(0, len(rows), SHARD_SAMPLES))
    ]
    pieces = [piece for piece in pieces if piece.features]
    if not pieces:
        why = "; ".join(skipped) or f"{len(table)} samples, of which {len(rows)} have media"
        raise GristmillError(f"{name}: nothing can be measured: {why}; cure: gristmill run {name}")
    return pieces, skipped


def _state(catalog: Catalog, dataset: str, feature: str, chain: Chain, base: Snapshot | None) -> StateRef | None:
    folder = str(catalog.folder)
    if not needs_fit(chain):
        has = any(digest is not None for digest in weights_digests(chain, catalog.folder))
        return StateRef(catalog.store, dataset, folder) if has else None
    fitted = None if base is None else base.info["fitted"].get(feature.removeprefix("views."))
    if fitted is None:
        raise LookupError(f"{feature}: not fitted yet; cure: gristmill run {dataset}, then bench again")
    return StateRef(catalog.store, dataset, folder, fitted["path"])


def _piece(
    place: str,
    dataset: str,
    number: int,
    rows: Sequence[Mapping[str, Any]],
    chains: Mapping[str, Chain],
    states: Mapping[str, StateRef | None],
    device: str,
) -> ShardWork:
    features = []
    for name, state in states.items():
        chain = chains[name]
        wanting = {row["sample_id"]: bytes(16) for row in rows if row["uris"].keys() >= set(chain.streams)}
        if wanting:
            features.append(
                FeatureWork(chain=chain, recipe=bytes(16), state=state, compute=wanting, keep=frozenset(), base=None)
            )
    busy = {sample_id for feature in features for sample_id in feature.compute}
    return ShardWork(
        store=place,
        dataset=dataset,
        run_id="bench",
        shard=number,
        roster={row["sample_id"]: (row["split"], row["label"]) for row in rows},
        samples=tuple(
            SampleWork(sample_id=row["sample_id"], uris=row["uris"], span=span_of(dict(row)))
            for row in rows
            if row["sample_id"] in busy
        ),
        features=tuple(features),
        device=device,
    )


def _read(work: Iterable[ShardWork], events: Events) -> tuple[int, float]:
    """Bytes of every file of the work, and the seconds that reading them takes."""
    seen: dict[str, int] = {}
    begun = time.perf_counter()
    for piece in work:
        streams = {stream for feature in piece.features for stream in feature.chain.streams}
        for sample in piece.samples:
            for stream in STREAMS:
                uri = sample.uris.get(stream)
                if uri is not None and stream in streams and uri not in seen:
                    seen[uri] = _size(Source(uri))
            events.advanced("read")
    return sum(seen.values()), time.perf_counter() - begun


def _size(source: Source) -> int:
    """Bytes of a file, all of them read; 0 where it cannot be: it fails when it is decoded, and is counted then."""
    try:
        with source.open() as file:
            return sum(map(len, iter(partial(file.read, 1 << 20), b"")))
    except SampleError:
        return 0


def _without(work: Iterable[ShardWork], failed: Collection[str]) -> list[ShardWork]:
    """The same work without samples that failed: one may be of the kind that kills its process."""
    kept = []
    for piece in work:
        features = (
            replace(feature, compute={key: content for key, content in feature.compute.items() if key not in failed})
            for feature in piece.features
        )
        samples = tuple(sample for sample in piece.samples if sample.sample_id not in failed)
        if samples:
            kept.append(replace(piece, samples=samples, features=tuple(one for one in features if one.compute)))
    if not kept:
        raise GristmillError("all samples failed; cure: gristmill run, then gristmill quarantine says why")
    return kept


def _guarded(work: Iterable[ShardWork], engine: Engine | None) -> list[ShardWork]:
    if engine is None:
        return [replace(piece, guard=None) for piece in work]
    return [replace(piece, guard=engine.guard, decode_threads=engine.decode_threads) for piece in work]


def _timed(
    stage: str, engine: Engine, work: Sequence[ShardWork], events: Events, total: ShardReport | None = None
) -> float:
    """Wall seconds of ``work``; what its shards report is added to ``total``."""
    events.started(stage, len(work), "shards")
    begun = time.perf_counter()
    for report in engine.map(run_shard, work):
        if total is not None:
            total += report
        events.advanced(stage)
    events.finished(stage)
    return time.perf_counter() - begun


def _parts(spent: Mapping[str, Spent], wall: float, samples: int) -> list[Part]:
    """Parts of the work as shares of what one worker needs; what is left over belongs to no part."""
    parts = [
        Part(what=what, count=one.count, seconds=one.seconds, share=one.seconds / wall)
        for what, one in sorted(spent.items(), key=lambda item: -item[1].seconds)
    ]
    rest = max(0.0, wall - sum(part.seconds for part in parts))
    parts.append(Part(what="between", count=samples, seconds=rest, share=rest / wall))
    return parts


def _figures(found: Bench, shards: int, read_seconds: float) -> dict[str, float]:
    """The ratios that floors are about."""
    seconds = found.seconds
    writing = sum(part.share for part in found.parts if part.what.startswith("write "))
    between = sum(part.share for part in found.parts if part.what == "between")
    useful = min(found.workers, found.cores, shards)
    return {
        "guard": seconds["alone"] / seconds["guarded"],
        "scaling": seconds["guarded"] / seconds["all"] / useful,
        "reading": read_seconds / seconds["alone"],
        "writing": writing,
        "between": between,
        "failed": found.failed / found.samples,
    }


def _advice(found: Bench, catalog: Catalog, dataset: str) -> Iterator[str]:
    """Settings that would help, the most useful first."""
    engine, top = catalog.engine, found.bottleneck
    kind, _, what = top.what.partition(" ")
    if kind == "decode":
        yield from _decoding(found, what)
    if kind == "extract":
        yield from _extracting(found, catalog.dataset(dataset).features.get(what), what)
    if kind == "write":
        yield f"writing takes {top.share:.0%}: put the store on a faster disk"
    if engine.workers != "auto" and engine.workers < found.cores and found.device == "cpu":
        yield f"engine.workers: {engine.workers} of {found.cores} cores are used; auto uses all"
    if found.figures["scaling"] < 0.7:
        yield (
            f"{found.workers} workers are only {found.figures['scaling'] * found.workers:.1f} times as fast as one: is "
            "the machine busy with other work, or its disk or memory at its limit?"
        )
    if found.figures["failed"] > 0.05:
        yield f"{found.failed} of {found.samples} samples failed: see gristmill quarantine {dataset} after a run"


def _decoding(found: Bench, stream: str) -> Iterator[str]:
    if found.device == "cuda":
        yield "decoding is what the GPU waits for: raise engine.decode_threads, or run more CPU cores beside each GPU"
    elif "video" in stream:
        yield (
            "decoding video takes most of the time: key frames alone (video.keyframes: {method: container}), a lower "
            "rate (fps) or more features of one pass cost next to nothing more; smaller frames decode faster"
        )
    else:
        yield f"decoding ({stream}) takes most of the time: more cores help; so do files of the size that is needed"


def _extracting(found: Bench, chain: Chain | None, name: str) -> Iterator[str]:
    options = getattr(chain, "extractor", None)
    if found.device == "cpu":
        precision = getattr(options, "precision", None)
        if precision == "float32" and _has_bfloat16():
            yield f"{name}: options: {{precision: bfloat16}} computes in half the width, which this processor can do"
        if getattr(options, "compile", None) is False:
            yield f"{name}: options: {{compile: true}} pays back after some {PAYS_BACK:,} pictures"
        if precision is not None:
            yield f"{name} takes most of the time; on a GPU (engine: {{device: cuda}}) it would not"
        else:
            yield f"{name} takes most of the time: more cores help, or a coarser rate (hop_length, fps, size)"
    else:
        size = getattr(options, "batch_size", None)
        yield f"{name} takes most of the time: a larger batch_size (now {size}) may fill the GPU better"


def _has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _checks(figures: Mapping[str, float], floors: Sequence[Floor]) -> list[Check]:
    """Every floor held against its figure."""
    checks = []
    for floor in floors:
        got = figures[floor.figure]
        low = floor.least is None or got >= floor.least
        high = floor.most is None or got <= floor.most
        limits = [f">= {floor.least:g}"] if floor.least is not None else []
        limits += [f"<= {floor.most:g}"] if floor.most is not None else []
        checks.append(
            Check(figure=floor.figure, got=got, allowed=", ".join(limits), passed=low and high, why=floor.why)
        )
    return checks
