"""Batches of an epoch as an iterable data set: ordered by (seed, epoch), dealt to ranks and workers, resumable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from pipeline.loader.order import SHUFFLES, WINDOW_BYTES, Deal, Remainder, Shuffle, Step, epoch_order
from pipeline.loader.prefetch import Prefetch
from pipeline.loader.samples import LAYOUTS, Batch, Layout, Samples

_VERSION = 1
_AHEAD = 4
"""Batches made ahead where something must be decoded."""


class Batches(IterableDataset[Batch]):
    """Batches of samples, epoch after epoch: iterating once gives the rest of the present epoch, then the next is due.

    ``seed``, ``shuffle`` (``window``, ``full`` or ``none``), ``window_bytes``, ``remainder``: see ``order``, which says
    in what order samples come and how ranks share them. ``rank`` and ``world_size`` are those of
    ``torch.distributed`` where it is initialised, else 0 of 1. ``layout``: ``pad`` or ``pack``. ``views``: in every
    epoch each sample comes as itself or as one of its augmentations, drawn by (seed, epoch, sample id). ``prefetch``:
    how many batches one thread makes ahead; 0: none, they are made when asked for. By default 0 where everything is
    mapped, since a batch is no more than a copy then, and handing it over costs as much as making it; else 4.

    A batch depends on the samples, the seed, the epoch and its place in the order: not on the number of workers, nor on
    what was read before. In a ``DataLoader`` with ``batch_size=None`` and workers, worker w of n makes every n-th batch
    and the order is the same; call ``set_epoch`` before each epoch then, since workers are copies.

    Memory: ``prefetch + 2`` batches, what ``rows`` keeps open, and 9 bytes a sample for the order of the epoch.
    """

    def __init__(
        self,
        data: Samples,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: Shuffle = "window",
        window_bytes: int = WINDOW_BYTES,
        layout: Layout = "pad",
        views: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        remainder: Remainder = "pad",
        prefetch: int | None = None,
    ) -> None:
        if shuffle not in SHUFFLES:
            raise ValueError(f"shuffle: got {shuffle!r}, allowed: {', '.join(SHUFFLES)}")
        if layout not in LAYOUTS:
            raise ValueError(f"layout: got {layout!r}, allowed: {', '.join(LAYOUTS)}")
        if prefetch is None:
            prefetch = 0 if all(share == 1.0 for share in data.mapped.values()) else _AHEAD
        if window_bytes < 1 or prefetch < 0:
            raise ValueError(f"got window_bytes {window_bytes}, prefetch {prefetch}, allowed: at least 1, at least 0")
        if (rank is None) != (world_size is None):
            raise ValueError(f"got rank {rank}, world_size {world_size}, allowed: both or neither")
        here, of = _distributed() if rank is None or world_size is None else (rank, world_size)
        self.data = data
        self.deal = Deal(batch_size=batch_size, rank=here, world_size=of, remainder=remainder)
        self.seed = seed
        self.shuffle: Shuffle = shuffle
        self.window_bytes = window_bytes
        self.layout: Layout = layout
        self.views = views
        self.prefetch = prefetch
        self._epoch = self._position = 0
        self._iteration = 0

    @property
    def epoch(self) -> int:
        """The epoch that is going on, or due."""
        return self._epoch

    @property
    def position(self) -> int:
        """How many samples of the epoch's order all ranks have taken."""
        return self._position

    def __len__(self) -> int:
        """Batches that this rank gets in a whole epoch."""
        return self.deal.count(len(self.data))

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch; where that one is going on already, it goes on (see ``seek``)."""
        if epoch != self._epoch:
            self.seek(epoch)

    def seek(self, epoch: int, position: int = 0) -> None:
        """Go to a place: an epoch, and how many samples of it have been taken. Ends an iteration that is going on."""
        if epoch < 0 or not 0 <= position <= len(self.data):
            raise ValueError(
                f"got epoch {epoch}, position {position}, allowed: 0 or more, and 0 to {len(self.data)} samples"
            )
        self._iteration += 1
        self._epoch, self._position = epoch, position

    def state_dict(self, after: Batch | None = None) -> dict[str, Any]:
        """Where the run stands: after the batch that was taken last, whatever was made ahead of it.

        ``after``: after this batch instead. With worker processes that is the only way, since they are copies.
        """
        epoch, position = (self._epoch, self._position) if after is None else (after["epoch"], after["position"])
        return {"epoch": epoch, "position": position, **self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where a run stood. The batches that follow are the same, also with other numbers of workers.

        With another number of ranks or another batch size the order is the same, only cut otherwise. Raises
        ``ValueError`` for the state of other samples, another snapshot, seed or shuffling.
        """
        for name, here in self._identity.items():
            if state.get(name) != here:
                raise ValueError(f"state: got {name} {state.get(name)!r}, allowed: {here!r}, that of these batches")
        self.seek(state["epoch"], state["position"])

    @property
    def _identity(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
            "samples": self.data.digest,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "window_bytes": self.window_bytes,
            "views": self.views,
        }

    def order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The samples of an epoch in their order, before they are dealt out."""
        return epoch_order(
            self.data.shard,
            self.data.sizes,
            seed=self.seed,
            epoch=epoch,
            shuffle=self.shuffle,
            window_bytes=self.window_bytes,
        )

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        return self._taken() if worker is None else self._worked(worker.id, worker.num_workers)

    def _worked(self, worker: int, workers: int) -> Iterator[Batch]:
        """One worker's share of the epoch; a worker that is kept goes on to the next one by itself."""
        yield from self._made(self._epoch, self._position, worker, workers)
        self._epoch, self._position = self._epoch + 1, 0

    def _taken(self) -> Iterator[Batch]:
        """The rest of the epoch, counted as it is taken."""
        self._iteration += 1
        iteration = self._iteration
        make = partial(self._made, self._epoch, self._position)
        ahead = Prefetch(make, self.prefetch) if self.prefetch else None
        try:
            for batch in make() if ahead is None else ahead:
                if iteration != self._iteration:
                    raise RuntimeError("batches: another iteration was begun meanwhile, or another place was sought")
                self._epoch, self._position = batch["epoch"], batch["position"]
                yield batch
            if iteration == self._iteration:
                self._epoch, self._position = self._epoch + 1, 0
        finally:
            if ahead is not None:
                ahead.close()

    def _made(self, epoch: int, position: int, worker: int = 0, workers: int = 1) -> Iterator[Batch]:
        total = len(self.data)
        order = self.order(epoch)
        drawn = self.data.drawn_views(self.seed, epoch) if self.views else None
        for step in islice(self.deal.steps(total, position), worker, None, workers):
            yield self._batch(order, drawn, step, epoch)

    def _batch(
        self, order: npt.NDArray[np.int64], drawn: npt.NDArray[np.int16] | None, step: Step, epoch: int
    ) -> Batch:
        chosen = order[step.places]
        views = None if drawn is None else drawn[chosen].astype(np.int64)
        batch = self.data.read(chosen, self.layout, views)
        batch["repeated"] = torch.from_numpy(step.repeated)
        batch["epoch"], batch["position"] = epoch, step.end
        return batch


def _distributed() -> tuple[int, int]:
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
