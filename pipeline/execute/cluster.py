"""Work on Dask: a local cluster on loopback, one single-threaded process a core."""

from __future__ import annotations

import itertools
import logging
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
from distributed import Client, KilledWorker, LocalCluster, as_completed

from features.errors import RunFailedError
from pipeline.catalog.steps import importable
from pipeline.execute.engine import Piece, Result, Work
from pipeline.execute.isolate import find_killers
from pipeline.execute.work import ShardWork

# One thread a worker for every library with threads of its own, so that workers do not fight for cores; and freed
# pages stay with the process: eager torch is several times slower when each batch faults its pages in anew.
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
}
IN_FLIGHT_PER_WORKER = 2
ATTEMPTS = 3
"""How often a shard is begun whose worker dies, before its samples are suspected; Dask blames the shards that wait on a
dead worker as well."""


class Cluster:
    """Runs work on a Dask client, a bounded number of pieces in flight."""

    def __init__(self, client: Client, workers: int, folder: Path) -> None:
        self._client, self._folder = client, folder
        self._window = workers * IN_FLIGHT_PER_WORKER

    def map(self, function: Callable[[Work], Result], work: Iterable[Work]) -> Iterator[Result]:
        """Apply ``function`` to each piece of ``work``; results come in order of completion."""
        pieces = iter(work)
        submitted = {self._submit(function, piece): (piece, 1) for piece in itertools.islice(pieces, self._window)}
        running = as_completed(list(submitted), with_results=False)
        for future in running:
            piece, attempt = submitted.pop(future)
            try:
                result: Result = future.result()
            except KilledWorker as error:
                if attempt >= ATTEMPTS:
                    piece = self._isolate(piece, error)
                again = self._submit(function, piece)
                submitted[again] = (piece, attempt + 1)
                running.add(again)
                continue
            finally:
                future.release()
            following = next(pieces, None)
            if following is not None:
                added = self._submit(function, following)
                submitted[added] = (following, 1)
                running.add(added)
            yield result

    def _isolate(self, piece: Work, error: KilledWorker) -> Work:
        """The same work without the samples that kill their process; they are quarantined instead.

        Raises ``RunFailedError`` where no sample is to blame, or that was tried before.
        """
        if not isinstance(piece, ShardWork) or piece.killers:
            raise RunFailedError(_died(piece)) from error
        killers = find_killers(piece, self._folder, WORKER_ENVIRONMENT)
        if not killers:
            raise RunFailedError(_died(piece)) from error
        return replace(piece, killers=killers)

    def _submit(self, function: Callable[[Work], Result], piece: Work) -> Any:
        return self._client.submit(_run, function, pickle.dumps(piece), self._folder, pure=False)


def _died(piece: Piece) -> str:
    ids = sorted(piece.roster)
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return (
        f"a worker process died {ATTEMPTS} times while it held shard {piece.shard} ({', '.join(ids[:5])}{more}): "
        "killed from outside or out of memory, for none of its samples does that alone; nothing was published, "
        "finished shards are kept; cure: fewer engine.workers or more memory, then run again"
    )


def _run(function: Callable[[Work], Result], pickled: bytes, folder: Path) -> Result:
    """Run one piece of work in a worker. It may hold steps of the user's own, imported from ``folder``."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    with importable(folder):
        piece: Work = pickle.loads(pickled)  # noqa: S301  # made by this run's driver, never read from disk
        return function(piece)


@contextmanager
def local_cluster(workers: int, folder: Path) -> Iterator[Cluster]:
    """A cluster of ``workers`` processes on this machine, reachable from this machine only.

    ``folder`` is the catalog's: steps of the user's own are imported from it.
    """
    settings = {
        "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
        "distributed.scheduler.allowed-failures": 0,
        "distributed.worker.memory.terminate": False,
    }
    with (
        dask.config.set(settings),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",  # any free port; left out, the scheduler takes 8787
            silence_logs=logging.CRITICAL,  # what fails in a worker is raised in the driver
        ) as cluster,
        Client(cluster) as client,
    ):
        yield Cluster(client, workers, folder)
