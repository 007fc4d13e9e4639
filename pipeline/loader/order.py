"""In what order samples are read: decided by (seed, epoch) alone, and then dealt out to ranks.

**Order.** Samples keep the shard that they were given at random when they came in, so shuffling within a window is
enough: shards are cut into pieces of one row group's size, pieces are put in random order, consecutive pieces make
windows, and the samples of a window come in random order. A window is what is read from at one time.

**Ranks.** The order does not know how many ranks there are. A step takes the next ``batch_size * world_size`` samples
of it, and every rank an equal slice of those. So a run may be resumed with other numbers of ranks.

**Remainder.** Where fewer samples are left than a step takes:

- ``pad``: they are dealt out evenly, and ranks that got one less take samples from the beginning of the order, which
  are marked as repeated. Every rank makes the same number of steps, with batches of the same size.
- ``uneven``: they are dealt out as evenly as they can be; a rank may get one less than another, or no last batch.
- ``drop``: they are left out of this epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from features.random import derive_seed, generator

Shuffle: TypeAlias = Literal["window", "full", "none"]
Remainder: TypeAlias = Literal["pad", "uneven", "drop"]
SHUFFLES: tuple[Shuffle, ...] = get_args(Shuffle)
REMAINDERS: tuple[Remainder, ...] = get_args(Remainder)

PIECE_BYTES = 6 << 20
WINDOW_BYTES = 8 * PIECE_BYTES
"""A window is as large as eight full row groups."""


def epoch_order(
    shard: npt.NDArray[np.int64],
    size: npt.NDArray[np.int64],
    *,
    seed: int,
    epoch: int,
    shuffle: Shuffle = "window",
    window_bytes: int = WINDOW_BYTES,
) -> npt.NDArray[np.int64]:
    """The order of an epoch: a permutation of ``len(shard)`` samples.

    ``shard`` (ascending) and ``size`` (bytes) int64 ``[N]``: where each sample lies, and how much is read for it.
    """
    if shuffle == "none":
        return np.arange(len(shard))
    random = generator(seed, "loader", epoch)
    if shuffle == "full":
        return random.permutation(len(shard))
    before = np.cumsum(size) - size
    new_shard = np.ones(len(shard), dtype=np.bool_)
    new_shard[1:] = shard[1:] != shard[:-1]
    in_shard = before - before[new_shard][np.cumsum(new_shard) - 1]
    part = in_shard // PIECE_BYTES
    new_piece = new_shard.copy()
    new_piece[1:] |= part[1:] != part[:-1]
    piece = np.cumsum(new_piece) - 1
    bytes_of = np.add.reduceat(size, np.flatnonzero(new_piece)) if len(size) else size
    sequence = random.permutation(len(bytes_of))
    begins = np.cumsum(bytes_of[sequence]) - bytes_of[sequence]
    window = np.empty_like(bytes_of)
    window[sequence] = begins // window_bytes
    mixed = random.permutation(len(shard))
    of = window[piece][mixed]
    return mixed[np.argsort(of.astype(np.uint16) if of.max(initial=0) < 1 << 16 else of, kind="stable")]


def draw_views(
    available: npt.NDArray[np.bool_], samples: npt.NDArray[np.uint64], *, seed: int, epoch: int
) -> npt.NDArray[np.int16]:
    """A view for each sample in an epoch: 0 or one of those that it has, each as likely as the others.

    ``available`` bool ``[N, K]``: whether a sample has view 1..K. ``samples`` uint64 ``[N]``: digests of sample ids; a
    draw depends on that, the seed and the epoch alone.
    """
    if not available.shape[1]:
        return np.zeros(len(samples), dtype=np.int16)
    mixed = _mix(samples ^ np.uint64(derive_seed(seed, "view", epoch)))
    number = (mixed % (available.sum(axis=1, dtype=np.uint64) + np.uint64(1))).astype(np.int64)
    rank = np.cumsum(available, axis=1)
    chosen = available & (rank == number[:, None])
    return np.where(number > 0, chosen.argmax(axis=1) + 1, 0).astype(np.int16)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread every bit over all others (the finaliser of SplitMix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True, eq=False)
class Step:
    """A rank's part of a step: ``places`` in the order, of which some are ``repeated``; and where the step ends."""

    places: npt.NDArray[np.int64]
    repeated: npt.NDArray[np.bool_]
    end: int


@dataclass(frozen=True, kw_only=True)
class Deal:
    """How an order is dealt out: ``rank`` of ``world_size``, ``batch_size`` samples a step for each."""

    batch_size: int
    rank: int = 0
    world_size: int = 1
    remainder: Remainder = "pad"

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size: got {self.batch_size}, allowed: at least 1")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank: got {self.rank}, allowed: 0 to {self.world_size - 1} (world_size - 1)")
        if self.remainder not in REMAINDERS:
            raise ValueError(f"remainder: got {self.remainder!r}, allowed: {', '.join(REMAINDERS)}")

    def steps(self, total: int, start: int = 0) -> Iterator[Step]:
        """This rank's steps through an order of ``total`` samples, from ``start`` on."""
        whole = self.batch_size * self.world_size
        while total - start >= whole:
            first = start + self.rank * self.batch_size
            start += whole
            yield Step(np.arange(first, first + self.batch_size), np.zeros(self.batch_size, dtype=np.bool_), start)
        left = total - start
        if not left or self.remainder == "drop":
            return
        if self.remainder == "uneven":
            first, last = (start + left * rank // self.world_size for rank in (self.rank, self.rank + 1))
            if first < last:
                yield Step(np.arange(first, last), np.zeros(last - first, dtype=np.bool_), total)
            return
        each = -(-left // self.world_size)
        places = start + self.rank * each + np.arange(each)
        yield Step(np.where(places < total, places, (places - total) % total), places >= total, total)

    def count(self, total: int, start: int = 0) -> int:
        """How many steps ``steps`` makes."""
        full, left = divmod(max(total - start, 0), self.batch_size * self.world_size)
        if not left or self.remainder == "drop":
            return full
        mine = left * (self.rank + 1) // self.world_size - left * self.rank // self.world_size
        return full + (1 if self.remainder == "pad" or mine else 0)
