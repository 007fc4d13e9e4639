"""Measuring: the same work by all workers, by one, and without guard."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from features.errors import GristmillError, SampleError
from features.types import STREAMS
from pipeline.bench.advice import advise
from pipeline.bench.choice import choose_work, guarded_work, without
from pipeline.bench.floors import hold
from pipeline.bench.result import FIGURES, Bench, Floor, Part
from pipeline.catalog import Catalog
from pipeline.events import SILENT, Events
from pipeline.execute.engine import Engine, cores, open_engine, resolve_device
from pipeline.execute.task import run_shard
from pipeline.execute.work import ShardReport, ShardWork
from pipeline.media.source import Source
from pipeline.record import Spent


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
        work, skipped = choose_work(catalog, dataset, samples, seed, device, place, events)
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
            _timed("warm up", engine, guarded_work(work, engine), events, first)
            failed = {failure.sample_id for failure in first.failures}
            work = without(work, failed)
            found.seconds["all"] = _timed("all workers", engine, guarded_work(work, engine), events)
        with open_engine(settings.model_copy(update={"workers": 1}), device, catalog.folder) as engine:
            for guarded in (guarded_work(work, engine), guarded_work(work, None)):
                _timed("warm up", engine, guarded[:1], events)
            found.seconds["guarded"] = _timed("one worker", engine, guarded_work(work, engine), events)
            found.seconds["alone"] = _timed("without guard", engine, guarded_work(work, None), events, alone)
    found.failed = len(failed)
    found.parts = _parts(alone.spent, found.seconds["alone"], len(ids) - len(failed))
    found.figures = _figures(found, len(work), read_seconds)
    found.advice = list(advise(found, catalog, dataset))
    found.checks = hold(found.figures, floors)
    return found


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
