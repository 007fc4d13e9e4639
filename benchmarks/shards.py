"""Pieces of work as a run would send them to workers, without a catalog, a scan and a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from features.types import Stream
from pipeline.chain import Chain
from pipeline.execute.work import FeatureWork, SampleWork, ShardWork
from pipeline.state import StateRef


def shard_work(
    samples: Mapping[str, Mapping[Stream, str]],
    chains: Sequence[Chain],
    *,
    shard: int = 0,
    store: str = "",
    states: Mapping[str, StateRef] | None = None,
) -> ShardWork:
    """One shard: sample id -> uri by stream, of which every feature of ``chains`` is to be computed.

    ``states``: where a feature finds its weights, by name.
    """
    features = tuple(
        FeatureWork(
            chain=chain,
            recipe=bytes(16),
            state=(states or {}).get(chain.name),
            compute=dict.fromkeys(samples, bytes(16)),
            keep=frozenset(),
            base=None,
        )
        for chain in chains
    )
    return ShardWork(
        store=store,
        dataset="bench",
        run_id="r",
        shard=shard,
        roster=dict.fromkeys(samples, ("train", None)),
        samples=tuple(SampleWork(sample_id=name, uris=dict(uris), span=None) for name, uris in samples.items()),
        features=features,
        device="cpu",
    )
