"""Work on Dask: a local cluster on loopback, one process a core or GPU; or a cluster that runs already."""

from __future__ import annotations

import itertools
import logging
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
from distributed import Client, KilledWorker, LocalCluster, Security, as_completed
from distributed.system import MEMORY_LIMIT

from features.errors import GristmillError, RunFailedError
from features.types import Device
from pipeline.arrow import spare_pandas
from pipeline.execute.engine import Piece, Result, Work, check_decoder, cores
from pipeline.execute.work import Guard
from pipeline.importing import importable
from pipeline.keys import code_digest
from pipeline.media.hardware import missing

if TYPE_CHECKING:  # the workers need nothing of catalogs
    from pipeline.catalog.models import Engine as Settings

# One thread a worker for every library with threads of its own, so that workers do not fight for cores; and freed
# pages stay with the process: eager torch is several times slower when each batch faults its pages in anew.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    "MALLOC_TRIM_THRESHOLD_": "1073741824",
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
}
IN_FLIGHT_PER_WORKER = 2
SHARE_OF_MEMORY = 0.8
LEAST_MEMORY = 1 << 30
"""Of one worker: its libraries alone take half of that."""
DEATHS = 5
"""How many workers may die under a shard. Samples do not kill workers (``pipeline.execute.guard``); people do."""
WORKERS_MISSING_SECONDS = 60.0
"""How long there may be no worker at all: one that starts takes some seconds."""
NOBODY_LEFT = (
    f"no worker process has been there for {WORKERS_MISSING_SECONDS:g} s: killed from outside while they started, or "
    "the machine ran out of memory; nothing was published, finished shards are kept; cure: run again, with fewer "
    "engine.workers or more memory"
)
CANCELLED = "nothing was published, finished shards are kept; cure: see that the scheduler is there, then run again"


class Cluster:
    """Runs work on a Dask client, a bounded number of pieces in flight."""

    def __init__(
        self, client: Client, workers: int, guard: Guard, *, decode_threads: int, resources: Mapping[str, float]
    ) -> None:
        self.workers = workers
        self.guard: Guard | None = guard
        self.decode_threads = decode_threads
        self.client, self._folder, self._resources = client, Path(guard.folder), dict(resources)
        self._window = workers * IN_FLIGHT_PER_WORKER
        self._local: LocalCluster | None = client.cluster if isinstance(client.cluster, LocalCluster) else None

    def map(self, function: Callable[[Work], Result], work: Iterable[Work]) -> Iterator[Result]:
        """Apply ``function`` to each piece of ``work``; results come in order of completion."""
        pieces = iter(work)
        submitted = {self._submit(function, piece): piece for piece in itertools.islice(pieces, self._window)}
        running = as_completed(list(submitted), with_results=False)
        with self._watched(submitted) as nobody:
            for future in running:
                piece = submitted.pop(future)
                try:
                    result: Result = future.result()
                except KilledWorker as error:
                    raise RunFailedError(_died(piece)) from error
                except CancelledError as error:
                    why = f"waits: {NOBODY_LEFT}" if nobody.is_set() else f"was cancelled ({error}); {CANCELLED}"
                    raise RunFailedError(f"shard {piece.shard} {why}") from error
                finally:
                    future.release()
                following = next(pieces, None)
                if following is not None:
                    added = self._submit(function, following)
                    submitted[added] = following
                    running.add(added)
                yield result

    @contextmanager
    def _watched(self, submitted: Mapping[Any, Any]) -> Iterator[threading.Event]:
        """Cancel what is in flight, and set the event, when no worker is left: Dask would wait for one for ever.

        Dask starts a worker that dies again, but not one that dies while it starts. Workers of a cluster that is not
        ours may come at any time.
        """
        over, nobody = threading.Event(), threading.Event()

        def look(scheduler: Any) -> None:
            missing = 0.0
            while not over.wait(WORKERS_MISSING_SECONDS / 10) and self.client.status == "running":
                missing = 0.0 if scheduler.workers else missing + WORKERS_MISSING_SECONDS / 10
                if missing >= WORKERS_MISSING_SECONDS:
                    nobody.set()
                    self.client.cancel(list(submitted))
                    return

        if self._local is None:
            yield nobody
            return
        watcher = threading.Thread(target=look, args=[self._local.scheduler], name="gristmill-workers", daemon=True)
        watcher.start()
        try:
            yield nobody
        finally:
            over.set()
            watcher.join()

    def _submit(self, function: Callable[[Work], Result], piece: Work) -> Any:
        content = pickle.dumps(piece)
        ours = self._local is not None
        return self.client.submit(_run, function, content, self._folder, ours, pure=False, resources=self._resources)


def _died(piece: Piece) -> str:
    ids = sorted(piece.roster)
    more = f" and {len(ids) - 5} more" if len(ids) > 5 else ""
    return (
        f"{DEATHS} worker processes died while they held shard {piece.shard} ({', '.join(ids[:5])}{more}): killed from "
        "outside, or the machine ran out of memory; nothing was published, finished shards are kept; cure: fewer "
        "engine.workers or more memory, then run again"
    )


def _run(function: Callable[[Work], Result], pickled: bytes, folder: Path, ours: bool) -> Result:
    """Run one piece of work in a worker. It may hold steps of the user's own, imported from ``folder``.

    ``ours``: nobody else uses the worker.
    """
    if ours:
        spare_pandas()
    with importable(folder):
        piece: Work = pickle.loads(pickled)  # noqa: S301  # made by this run's driver, never read from disk
        return function(piece)


@contextmanager
def local_cluster(settings: Settings, device: Device, folder: Path, pieces: int) -> Iterator[Cluster]:
    """A cluster of processes on this machine, reachable from this machine only.

    ``folder`` is the catalog's: steps of the user's own are imported from it. For fewer ``pieces`` than workers fewer
    are started, under the limits of all: what a sample may hold does not depend on its neighbours. Raises
    ``GristmillError`` where memory or GPUs do not suffice.
    """
    workers = _local_workers(settings, device)
    total = int(MEMORY_LIMIT * SHARE_OF_MEMORY) if settings.memory == "auto" else int(settings.memory)
    guard = _guard(settings, folder, total // workers, f"{workers} workers")
    workers = min(workers, pieces)
    ahead = max(2, cores() // workers) if device == "cuda" else 0
    threads = ahead if settings.decode_threads == "auto" else settings.decode_threads
    configuration = {
        "distributed.nanny.pre-spawn-environ": ENVIRONMENT,
        "distributed.scheduler.allowed-failures": DEATHS - 1,
        "distributed.worker.memory.terminate": False,
        "distributed.worker.profile.enabled": False,
    }
    options: dict[str, Any] = {
        "n_workers": workers,
        "threads_per_worker": 1,
        "host": "127.0.0.1",
        "dashboard_address": "127.0.0.1:0",  # any free port; left out, the scheduler takes 8787
        "silence_logs": logging.CRITICAL,  # what fails in a worker is raised in the driver
        "memory_limit": None,  # the guard limits what samples take; a worker itself holds one shard's rows
    }
    with ExitStack() as opened:
        opened.enter_context(dask.config.set(configuration))
        if device == "cuda" and workers > 1:
            options.pop("host")
            options["protocol"] = "tcp"
            cluster = opened.enter_context(_cuda_cluster()(host="127.0.0.1", **options))
        else:
            cluster = opened.enter_context(LocalCluster(processes=True, **options))
        client = opened.enter_context(Client(cluster))
        client.forward_logging(level=logging.WARNING)  # of steps and libraries, to whoever listens in this process
        yield Cluster(client, workers, guard, decode_threads=threads, resources={})


def _local_workers(settings: Settings, device: Device) -> int:
    if device != "cuda":
        return cores() if settings.workers == "auto" else settings.workers
    import torch

    found = torch.cuda.device_count()
    if settings.workers != "auto" and settings.workers > found:
        raise GristmillError(
            f"engine.workers: got {settings.workers} on CUDA, allowed: at most one for each of {found} GPUs"
        )
    return found if settings.workers == "auto" else settings.workers


def _cuda_cluster() -> Any:
    try:
        from dask_cuda import LocalCUDACluster
    except ImportError as error:
        raise GristmillError(
            "engine: several GPUs of one machine need dask-cuda; cure: pip install 'gristmill[cuda]', or workers: 1"
        ) from error
    return LocalCUDACluster


def _guard(settings: Settings, folder: Path, memory: int, whose: str) -> Guard:
    if memory < LEAST_MEMORY:
        raise GristmillError(
            f"engine.memory: {whose} get {memory / 2**20:.0f} MiB each, allowed: at least {LEAST_MEMORY >> 20}; "
            "cure: fewer engine.workers, or more engine.memory"
        )
    return Guard(folder=str(folder), environment=ENVIRONMENT, sample_seconds=settings.sample_seconds, memory=memory)


@contextmanager
def remote_cluster(settings: Settings, device: Device, folder: Path) -> Iterator[Cluster]:
    """A cluster that runs already, at ``settings.scheduler``.

    Its workers must have the same code and see the same paths. Raises ``GristmillError`` where it cannot be reached,
    has no workers, or they have other code or other versions of what decides numbers.
    """
    with ExitStack() as opened:
        try:
            client = opened.enter_context(Client(settings.scheduler, security=_security(settings, folder), timeout=10))
        except (OSError, TimeoutError) as error:
            raise GristmillError(
                f"engine.scheduler: {settings.scheduler} cannot be reached ({error}); cure: start it, or correct the "
                "address and engine.tls"
            ) from error
        found = client.scheduler_info(n_workers=-1)["workers"]
        if not found:
            raise GristmillError(f"engine.scheduler: {settings.scheduler} has no workers; cure: start some")
        _check_code(client)
        if settings.video_decoder == "nvdec":
            for address, told in client.run(missing).items():
                check_decoder(told and f"{address}: {told}")
        slots = sum(worker["nthreads"] for worker in found.values())
        if settings.memory == "auto":
            each = min(worker["memory_limit"] / worker["nthreads"] for worker in found.values())
            memory = int((each or MEMORY_LIMIT / slots) * SHARE_OF_MEMORY)
        else:
            memory = int(settings.memory) // slots
        threads = settings.decode_threads
        guard = _guard(settings, folder, memory, f"{slots} slots")
        yield Cluster(
            client,
            slots,
            guard,
            decode_threads=(2 if device == "cuda" else 0) if threads == "auto" else threads,
            resources=settings.resources,
        )


def _security(settings: Settings, folder: Path) -> Security | None:
    if settings.tls is None:
        return None
    paths = {}
    for name in ("ca", "cert", "key"):
        path = folder / getattr(settings.tls, name)
        if not path.is_file():
            raise GristmillError(f"engine.tls.{name}: {path} is no file; cure: correct the path")
        paths[name] = str(path)
    return Security(
        tls_ca_file=paths["ca"], tls_client_cert=paths["cert"], tls_client_key=paths["key"], require_encryption=True
    )


def _check_code(client: Client) -> None:
    """Workers must compute what the driver's keys say that they compute."""
    ours = _code()
    for worker, theirs in client.run(_code).items():
        for what in sorted(ours):
            if theirs.get(what) != ours[what]:
                raise GristmillError(
                    f"engine.scheduler: worker {worker} has {what} {theirs.get(what)}, this machine has {ours[what]}; "
                    "rows would not be what their keys say; cure: install the same on both"
                )


def _code() -> dict[str, str]:
    """What decides numbers, and how shards are computed: digests of our code, versions of libraries."""
    libraries = ("av", "librosa", "numpy", "opencv-python", "pillow", "pyarrow", "soundfile", "soxr", "torch")
    digests = {module: code_digest(module).hex() for module in ("pipeline.execute.child", "features.registry")}
    return digests | {library: version(library) for library in libraries}
