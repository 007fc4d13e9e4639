"""The work that is measured: some samples of a data set, chosen at random."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from features.errors import GristmillError
from features.types import Device
from pipeline.catalog import Catalog
from pipeline.chain import Chain
from pipeline.events import Events
from pipeline.execute.engine import Engine, cores
from pipeline.execute.work import FeatureWork, SampleWork, ShardWork
from pipeline.plan import sample_rows
from pipeline.scan import scan
from pipeline.state import StateRef, needs_fit, weights_digests
from pipeline.store import DatasetStore, Snapshot
from pipeline.work import span_of

SHARD_SAMPLES = 16
SHARDS_PER_CORE = 2
"""Shards are small, so that a few samples are several shards for several workers, each of which is warm when timed."""


def choose_work(
    catalog: Catalog, name: str, samples: int, seed: int, device: Device, place: str, events: Events
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
    size = max(1, min(SHARD_SAMPLES, len(rows) // (SHARDS_PER_CORE * cores())))
    pieces = [
        _piece(place, name, number, rows[first : first + size], dataset.features, states, device)
        for number, first in enumerate(range(0, len(rows), size))
    ]
    hardware = catalog.engine.video_decoder == "nvdec"
    pieces = [replace(piece, hardware=hardware) for piece in pieces if piece.features]
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
    device: Device,
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


def without(work: Iterable[ShardWork], failed: Collection[str]) -> list[ShardWork]:
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


def guarded_work(work: Iterable[ShardWork], engine: Engine | None) -> list[ShardWork]:
    """The same work with the guard of an engine, or (``None``) without any."""
    if engine is None:
        return [replace(piece, guard=None) for piece in work]
    return [replace(piece, guard=engine.guard, decode_threads=engine.decode_threads) for piece in work]
