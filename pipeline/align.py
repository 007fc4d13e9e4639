"""Aligning what was extracted: shard by shard, every modality of a sample on one timeline.

Aligned rows are stored like features, as ``aligned.<feature>``: the same samples in the same shards, and for a sample
the same number of rows whatever the modality.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from features.align.pool import Policy, align
from features.errors import SampleError
from features.time import Span, seconds_to_ns
from features.types import FeatureSequence
from pipeline.content import Digests
from pipeline.execute.task import merge, write_file
from pipeline.execute.work import ShardReport
from pipeline.keys import code_digest, digest, digest_rows
from pipeline.record import Spent
from pipeline.store import ALIGNED_PREFIX, DatasetStore, ShardFile
from pipeline.store.quarantine import Failure
from pipeline.store.shard import DIGEST_BYTES, Row, rows_to_table, sequence_at

_DIGESTED_AT_ONCE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class AlignWork:
    """One shard to align. ``inputs``: feature -> its current file (``None``: no sample of the shard has rows).

    ``compute`` and ``keep``: aligned feature -> samples to align, samples whose rows are kept from ``base``.
    """

    store: str
    dataset: str
    run_id: str
    shard: int
    roster: Mapping[str, tuple[str, str | None]]
    spans: Mapping[str, Span | None]
    inputs: Mapping[str, ShardFile | None]
    dims: Mapping[str, int]
    step_ns: int
    policies: Mapping[str, Policy]
    recipes: Mapping[str, bytes]
    contents: Mapping[str, bytes]
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
            "contents": {sample_id: content.hex() for sample_id, content in self.contents.items()},
            "compute": {name: sorted(ids) for name, ids in self.compute.items()},
            "keep": {name: sorted(ids) for name, ids in self.keep.items()},
            "base": {name: file and file.path for name, file in self.base.items()},
        }


def recipe(grid: float, policy: Policy) -> dict[str, Any]:
    """What decides an aligned row besides its inputs, in the form of a feature's recipe."""
    step = {
        "step": "align",
        "options": {"grid_ns": seconds_to_ns(grid), "policy": policy},
        "code": code_digest("features.align.pool").hex(),
        "libraries": {},
    }
    return {"steps": [step], "state": None}


def contents(inputs: Mapping[str, tuple[np.ndarray[Any, np.dtype[np.bool_]], Digests, Digests]]) -> Digests:
    """Digest for each sample of the rows that its alignment reads.

    ``inputs``: feature -> (which samples have rows, their content digests, their recipe digests).
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
    tables = {name: store.read_file(file.path) for name, file in work.inputs.items() if file is not None}
    at = {name: {key: row for row, key in enumerate(table["sample_id"].to_pylist())} for name, table in tables.items()}
    rows: dict[str, list[Row]] = {name: [] for name in work.compute}
    for sample_id in sorted(frozenset[str]().union(*work.compute.values())):
        sequences: dict[str, FeatureSequence | None] = {}
        for name in work.dims:
            row = at.get(name, {}).get(sample_id)
            sequences[name] = None if row is None else sequence_at(tables[name], row, work.dims[name])
        try:
            aligned = align(
                sequences, work.dims, step_ns=work.step_ns, policies=work.policies, span=work.spans[sample_id]
            )
        except SampleError as error:
            report.failures += [
                Failure(
                    sample_id=sample_id,
                    feature=ALIGNED_PREFIX + name,
                    stage="align",
                    reason=error.reason.value,
                    message=error.message,
                    content=work.contents[sample_id],
                    recipe=work.recipes[name],
                    run_id=work.run_id,
                )
                for name, wanted in work.compute.items()
                if sample_id in wanted
            ]
            continue
        for name, wanted in work.compute.items():
            if sample_id in wanted:
                split, label = work.roster[sample_id]
                rows[name].append(
                    Row(
                        sample_id=sample_id,
                        split=split,
                        label=label,
                        content=work.contents[sample_id],
                        recipe=work.recipes[name],
                        sequence=aligned[name].sequence,
                        coverage=aligned[name].coverage,
                    )
                )
    for name, fresh in rows.items():
        _write(work, store, report, name, fresh)
    spent = Spent(count=sum(len(fresh) for fresh in rows.values()), seconds=time.perf_counter() - begun)
    report.spent["align"] = spent
    return report


def _write(work: AlignWork, store: DatasetStore, report: ShardReport, name: str, fresh: list[Row]) -> None:
    feature = ALIGNED_PREFIX + name
    metadata = {"feature": feature, "dim": work.dims[name], "recipe": work.recipes[name].hex(), "aligned": True}
    table: pa.Table = rows_to_table(work.shard, fresh, metadata)
    base = work.base[name]
    if base is not None:
        report.removed.append(base)
        if work.keep[name]:
            table = merge(table, store.read_file(base.path), work.keep[name], work.roster)
    if len(table):
        report.files.append(write_file(store, feature, work.shard, table))
    report.computed[feature] = len(fresh)
