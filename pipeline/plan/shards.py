"""Which shard each sample is of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.types import Stream
from pipeline.extents import least_shares, shard_shares
from pipeline.plan.places import positions
from pipeline.store import Snapshot


def assign_shards(
    base: Snapshot | None, samples: pa.Table, shard_samples: int | None, extents: Mapping[Stream, pa.Table]
) -> npt.NDArray[np.int32]:
    """The shard of each sample, int32 ``[N]``: the one that it has in ``base``, or a new one. See ``make_plan``."""
    shards = np.full(len(samples), -1, dtype=np.int32)
    following = 0
    if base is not None and len(base.sample_shards):
        known = base.sample_shards
        at = positions(samples["sample_id"], known["sample_id"])
        stored = known["shard"].to_numpy()
        shards[at >= 0] = stored[at[at >= 0]]
        following = int(stored.max()) + 1
    fresh = np.flatnonzero(shards < 0)
    new = samples.take(pa.array(fresh))
    ids, measured = new["sample_id"].to_pylist(), shard_shares(new, extents)
    shares = (np.maximum(measured, least_shares(new)) if shard_samples is None else measured).tolist()
    order = sorted(range(len(fresh)), key=lambda i: hashlib.blake2b(ids[i].encode(), digest_size=8).digest())
    count, held = 0, 0.0
    for index in order:
        if count and (count == shard_samples or held + shares[index] > 1):
            following, count, held = following + 1, 0, 0.0
        shards[fresh[index]] = following
        count, held = count + 1, held + shares[index]
    return shards
