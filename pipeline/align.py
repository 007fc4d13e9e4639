"""Aligning what was extracted: shard by shard, every modality of a sample on one timeline.

Aligned rows are stored like features, as ``aligned.<feature>``: the same samples in the same shards, and for a sample
the same number of rows whatever the modality.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.align.pool import Pooled, Pooling, Timelines, pool_batch
from features.errors import SampleError
from features.time import Span
from features.types import FeatureSequence
from pipeline.align_rows import Setting, ShardRows
from pipeline.content import Digests
from pipeline.execute.task import merge, write_file
from pipeline.execute.work import ShardReport
from pipeline.keys import code_digest, digest, digest_rows
from pipeline.record import Spent
from pipeline.store import ALIGNED_PREFIX, DatasetStore, ShardFile
from pipeline.store.quarantine import Failure
from pipeline.store.shard import DIGEST_BYTES, Row, rows_to_table, table_metadata
from pipeline.timelines import Given, Outside

Input = tuple[npt.NDArray[np.bool_], Digests, Digests]
"""Which samples have rows of a feature, their content digests, their recipe digests."""

WORTH_WORKERS = 20.0
"""Seconds of work from which on workers are started for it: below, one process is done about as soon as several that
have to be started (``benchmarks/align.py --stage``)."""
WORTH_SENDING = 1.0
"""The same for workers that are running already."""
_BYTES_A_SECOND = 400e6
_SECONDS_A_ROW = 100e-6
_SECONDS_AN_ESTIMATE = 2.5e-3

_DIGESTED_AT_ONCE = 1 << 16
_OUTSIDE = "\0timeline"  # no feature is called like this


@dataclass(frozen=True, kw_only=True)
class AlignWork:
    """One shard to align. ``inputs``: feature -> its current file (``None``: no sample of the shard has rows).

    ``texts``, ``given``: sample -> what its timeline is made of, where that is text or a table. ``compute`` and
    ``keep``: aligned feature -> samples to align, samples whose rows are kept from ``base``. ``contents``: the same ->
    sample -> digest of what is read.
    """

    store: str
    dataset: str
    run_id: str
    shard: int
    roster: Mapping[str, tuple[str, str | None]]
    spans: Mapping[str, Span | None]
    inputs: Mapping[str, ShardFile | None]
    setting: Setting
    texts: Mapping[str, str]
    given: Given
    recipes: Mapping[str, bytes]
    contents: Mapping[str, Mapping[str, bytes]]
    compute: Mapping[str, frozenset[str]]
    keep: Mapping[str, frozenset[str]]
    base: Mapping[str, ShardFile | None]

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the files that come out, as a JSON document; the same work has the same identity in any run."""
        return {
            "shard": self.shard,
            "roster": dict(self.roster),
            "recipes": {name: recipe.hex() for name, recipe in self.recipes.items()},
            "contents": {
                name: {sample_id: content.hex() for sample_id, content in found.items()}
                for name, found in self.contents.items()
            },
            "compute": {name: sorted(ids) for name, ids in self.compute.items()},
            "keep": {name: sorted(ids) for name, ids in self.keep.items()},
            "base": {name: file and file.path for name, file in self.base.items()},
        }


def seconds_alone(setting: Setting, size: int, rows: int) -> float:
    """About how long one process takes to align ``rows`` (one a sample and feature) out of files of ``size`` bytes."""
    estimates = len(setting.estimates) * rows / max(1, len(setting.dims))
    return size / _BYTES_A_SECOND + rows * _SECONDS_A_ROW + estimates * _SECONDS_AN_ESTIMATE


def recipe(setting: Setting, feature: str) -> dict[str, Any]:
    """What decides an aligned row besides its inputs, in the form of a feature's recipe."""
    align = setting.align
    options: dict[str, Any] = {"timeline": align.timeline, "policy": policy_document(align.pooling(feature))}
    modules = ["features.align.pool"]
    if align.clocks:
        options["clocks"] = {
            stream: clock.model_dump(by_alias=True, exclude_defaults=True) for stream, clock in align.clocks.items()
        }
        modules.append("features.align.clock")
    if align.durations.then == "quarantine":
        options["durations"] = align.durations.model_dump()
    step = {
        "step": "align",
        "options": options,
        "code": digest(*(code_digest(module) for module in modules)).hex(),
        "libraries": {},
        "weights": None,
    }
    return {"steps": [step], "state": None}


def policy_document(pooling: Pooling) -> Any:
    """A policy as a JSON document: its name, or its name and options."""
    found = {name: value for name, value in asdict(pooling).items() if value is not None}
    return pooling.policy if len(found) == 1 else found


def recipes_and_contents(
    setting: Setting, inputs: Mapping[str, Input], outside: Outside | None
) -> dict[str, tuple[dict[str, Any], Digests]]:
    """For each feature the recipe of its aligned rows, and a digest for each sample of the rows that they are made of.

    What does not depend on all features (their extents decide where a grid lies) is not touched by them.
    """
    found: dict[frozenset[str], Digests] = {}
    result = {}
    for name in inputs:
        names = setting.read_with(name)
        if names not in found:
            read: dict[str, tuple[Any, ...]] = {other: inputs[other] for other in names}
            if outside is not None:
                read[_OUTSIDE] = (outside.present, outside.digests)
            found[names] = contents(read)
        result[name] = (recipe(setting, name), found[names])
    return result


def contents(inputs: Mapping[str, tuple[Any, ...]]) -> Digests:
    """Digest for each sample of the rows that its alignment reads.

    ``inputs``: name -> (which samples have it, digests of it: of contents and of recipes, for a feature).
    """
    names = sorted(inputs)
    total = len(inputs[names[0]][0])
    patterns = np.packbits(np.stack([inputs[name][0] for name in names], axis=1), axis=1)
    result = np.zeros((total, DIGEST_BYTES), dtype=np.uint8)
    kind = pa.binary(patterns.shape[1])
    coded = pa.FixedSizeBinaryArray.from_buffers(kind, total, [None, pa.py_buffer(patterns)]).dictionary_encode()
    for code in range(len(coded.dictionary)):  # samples that have the same features are digested together
        rows = np.flatnonzero(coded.indices.to_numpy() == code)
        having = [name for name in names if inputs[name][0][rows[0]]]
        if not having:
            continue
        of = digest(*(name.encode() for name in having))
        for some in np.array_split(rows, len(rows) // _DIGESTED_AT_ONCE + 1):
            read = np.concatenate([part[some] for name in having for part in inputs[name][1:]], axis=1)
            result[some] = digest_rows(read, of=of)
    return result


def align_shard(work: AlignWork) -> ShardReport:
    """Align the samples of one shard and write one file for each aligned feature."""
    begun = time.perf_counter()
    store = DatasetStore(work.store, work.dataset)
    report = ShardReport(shard=work.shard)
    samples = frozenset[str]().union(*work.compute.values())
    rows = ShardRows.read(store, work.inputs, work.setting, frozenset(work.compute), samples)
    timelines, failed = rows.timelines(work.spans, work.texts, work.given)
    report.notices += rows.notices
    report.failures += _failures(work, failed)
    done = 0
    for name, wanted in work.compute.items():
        pooled = pool_batch(rows.batches[name], timelines, work.setting.align.pooling(name))
        fresh = list(_rows(work, name, rows, timelines, pooled, wanted - failed.keys()))
        _write(work, store, report, name, fresh, rows)
        done += len(fresh)
    report.spent["align"] = Spent(count=done, seconds=time.perf_counter() - begun)
    return report


def _failures(work: AlignWork, failed: Mapping[str, SampleError]) -> Iterable[Failure]:
    for sample_id, error in failed.items():
        for name, wanted in work.compute.items():
            if sample_id in wanted:
                yield Failure(
                    sample_id=sample_id,
                    feature=ALIGNED_PREFIX + name,
                    stage="align",
                    reason=error.reason.value,
                    message=error.message,
                    content=work.contents[name][sample_id],
                    recipe=work.recipes[name],
                    run_id=work.run_id,
                )


def _rows(
    work: AlignWork, name: str, rows: ShardRows, timelines: Timelines, pooled: Pooled, wanted: frozenset[str]
) -> Iterable[Row]:
    for index, sample_id in enumerate(rows.samples):
        if sample_id in wanted:
            part = slice(timelines.splits[index], timelines.splits[index + 1])
            split, label = work.roster[sample_id]
            yield Row(
                sample_id=sample_id,
                split=split,
                label=label,
                content=work.contents[name][sample_id],
                recipe=work.recipes[name],
                sequence=FeatureSequence(
                    values=pooled.values[part],
                    start_ns=timelines.start_ns[part],
                    end_ns=timelines.end_ns[part],
                    valid=pooled.valid[part],
                ),
                coverage=pooled.coverage[part],
            )


def _write(
    work: AlignWork, store: DatasetStore, report: ShardReport, name: str, fresh: list[Row], rows: ShardRows
) -> None:
    align = work.setting.align
    feature, pooling = ALIGNED_PREFIX + name, align.pooling(name)
    base = work.base[name]
    kept = store.read_file(base.path) if base is not None and work.keep[name] else None
    metadata = {
        "feature": feature,
        "dim": pooling.width(work.setting.dims[name]),
        "recipe": work.recipes[name].hex(),
        "aligned": True,
        "timeline": align.timeline,
        "policy": policy_document(pooling),
    }
    if align.clocks:
        given = {stream: clock.model_dump(include={"offset", "drift_ppm"}) for stream, clock in align.clocks.items()}
        before = {} if kept is None else table_metadata(kept).get("estimated", {})
        estimated = {sample_id: before[sample_id] for sample_id in work.keep[name] if sample_id in before}
        for sample_id, streams in rows.clocks.items():
            if sample_id in work.compute[name]:
                estimated[sample_id] = {stream: asdict(found) for stream, found in streams.items()}
        metadata |= {"clocks": given, "estimated": estimated}
    table: pa.Table = rows_to_table(work.shard, fresh, metadata)
    if base is not None:
        report.removed.append(base)
        if kept is not None:
            table = merge(table, kept, work.keep[name], work.roster)
    if len(table):
        report.files.append(write_file(store, feature, work.shard, table))
    report.computed[feature] = len(fresh)
