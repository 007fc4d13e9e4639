"""The work of one shard: compute its rows, write one file a feature."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from time import perf_counter

import pyarrow as pa
import pyarrow.compute as pc

from features.types import FeatureSequence
from pipeline.execute.compute import compute
from pipeline.execute.guard import Outcome, compute_guarded
from pipeline.execute.work import FeatureWork, ShardReport, ShardWork
from pipeline.media.source import Source
from pipeline.record import Spent
from pipeline.store import DatasetStore, ShardFile, shard_path
from pipeline.store.quarantine import Failure
from pipeline.store.shard import Row, rows_to_table, write_shard


def run_shard(work: ShardWork) -> ShardReport:
    """Compute and write one shard: in a child process where the work has a guard, else in this one."""
    if work.guard is not None and work.samples:
        outcome = compute_guarded(work, work.guard)
    else:
        outcome = Outcome()
        outcome.tally = compute(work, outcome)
    report = ShardReport(
        shard=work.shard,
        failures=sorted(_with_media(work, outcome.failures), key=lambda row: (row.sample_id, row.feature)),
        seconds=outcome.tally.seconds,
        spent=outcome.tally.spent,
        notices=outcome.tally.notices,
        words=outcome.tally.words,
        flags=outcome.tally.flags,
    )
    store = DatasetStore(work.store, work.dataset)
    for feature in work.features:
        _write(work, feature, outcome, store, report)
    return report


def _with_media(work: ShardWork, failures: Iterable[Failure]) -> Iterator[Failure]:
    """Failures with a description of the file that each feature reads."""
    streams = {feature.chain.name: feature.chain.stream for feature in work.features}
    uris = {sample.sample_id: sample.uris for sample in work.samples}
    for failure in failures:
        source = Source(uris[failure.sample_id][streams[failure.feature]])
        yield replace(failure, media=source.describe())


def _write(work: ShardWork, feature: FeatureWork, outcome: Outcome, store: DatasetStore, report: ShardReport) -> None:
    """Write one new file for a feature, with kept rows and computed ones together."""
    begun = perf_counter()
    name = feature.chain.name
    failed = {failure.sample_id for failure in outcome.failures if failure.feature == name}
    rows = {key: row for key, row in outcome.rows.get(name, {}).items() if key[0] not in failed}
    table = _table(work, feature, rows, store)
    if feature.base is not None:
        report.removed.append(feature.base)
    if len(table):
        report.files.append(write_file(store, name, work.shard, table))
    report.computed[name] = len({sample_id for sample_id, _ in rows})
    report.rows[name] = sum(len(row) for row in rows.values())
    report.masked[name] = sum(int(len(row) - row.valid.sum()) for row in rows.values())
    took = perf_counter() - begun
    report.seconds["write"] = report.seconds.get("write", 0.0) + took
    report.spent.setdefault(f"write {name}", Spent()).__iadd__(Spent(count=len(table), seconds=took))


def _table(
    work: ShardWork, feature: FeatureWork, rows: Mapping[tuple[str, int], FeatureSequence], store: DatasetStore
) -> pa.Table:
    fresh = [
        Row(
            sample_id=sample_id,
            split=work.roster[sample_id][0],
            label=work.roster[sample_id][1],
            content=feature.compute[sample_id],
            recipe=feature.recipe,
            sequence=sequence,
            view=view,
        )
        for (sample_id, view), sequence in rows.items()
    ]
    metadata = {"feature": feature.chain.name, "dim": feature.chain.extractor.dim, "recipe": feature.recipe.hex()}
    table = rows_to_table(work.shard, fresh, metadata)
    if feature.base is None or not feature.keep:
        return table
    return merge(table, store.read_file(feature.base.path), feature.keep, work.roster)


def merge(
    fresh: pa.Table, base: pa.Table, keep: frozenset[str], roster: Mapping[str, tuple[str, str | None]]
) -> pa.Table:
    """``fresh`` and the rows of ``base`` whose sample is in ``keep`` (with today's split and label), sorted."""
    kept = base.filter(pc.is_in(base["sample_id"], value_set=pa.array(sorted(keep), pa.string())))
    ids = kept["sample_id"].to_pylist()
    for index, name in ((0, "split"), (1, "label")):
        position = kept.schema.get_field_index(name)
        column = pa.array([roster[sample_id][index] for sample_id in ids], pa.string())
        kept = kept.set_column(position, kept.schema.field(name), column)
    both = pa.concat_tables([kept.replace_schema_metadata(fresh.schema.metadata), fresh])
    return both.sort_by([("sample_id", "ascending"), ("view", "ascending")])


def write_file(store: DatasetStore, feature: str, shard: int, table: pa.Table) -> ShardFile:
    """Write one shard table under a fresh name; it is invisible until it is committed."""
    sink = pa.BufferOutputStream()
    write_shard(table, sink)
    content = sink.getvalue()
    path = shard_path(feature, shard, content)
    store.write_bytes(path, content)
    return ShardFile(path, content.size, len(table))
