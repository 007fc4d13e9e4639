"""The child process that computes shards for ``pipeline.execute.guard``: it may crash, hang or run out of memory.

Started as ``python -m pipeline.execute.child PIPE BOARD``, two file descriptors: its end of a pipe, and the memory in
which it notes which samples are at work. It is sent work and answers with what is finished, before it begins anything
else that could go wrong, so that its parent has every finished row.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import pickle
import signal
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from features.types import FeatureSequence
from pipeline.execute.board import Board, Diary
from pipeline.execute.compute import compute
from pipeline.execute.work import ShardWork
from pipeline.importing import importable
from pipeline.store.quarantine import Failure


class Teller:
    """A ``Watch`` that tells its parent. Finished rows of a batch travel together."""

    def __init__(self, pipe: Connection, board: Board) -> None:
        self._pipe, self._board = pipe, board
        self._diary = Diary(board)
        self._rows: list[tuple[str, str, int, FeatureSequence]] = []

    def tell(self, *message: Any) -> None:
        """Send one message: its kind, then what it says. Rows that are finished go first."""
        self._hand_over()
        self._send(*message)

    def _hand_over(self) -> None:
        if self._rows:
            rows, self._rows = self._rows, []
            self._send("rows", rows)

    def _send(self, *message: Any) -> None:
        self._pipe.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))

    def begin(self, feature: str, sample_ids: Sequence[str]) -> None:
        """Hand over what is finished, and note which samples are at work."""
        self._hand_over()
        self._diary.begin(feature, sample_ids)

    def end(self) -> None:
        """Note that they are not any more."""
        self._diary.end()

    def row(self, feature: str, sample_id: str, view: int, sequence: FeatureSequence) -> None:
        """Keep a finished row for what is told next."""
        self._rows.append((feature, sample_id, view, sequence))

    def failed(self, failure: Failure) -> None:
        """Tell of a failure."""
        self.tell("failed", failure)

    def over(self) -> None:
        """Forget how long samples took: another shard begins."""
        self._rows = []
        self._diary = Diary(self._board)


class _Handler(logging.Handler):
    """Hands warnings of steps to the parent, which has a place for them; the first ``MOST`` of them."""

    MOST = 100

    def __init__(self, teller: Teller) -> None:
        super().__init__(logging.WARNING)
        self._teller, self._count = teller, 0

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``."""
        self._count += 1
        if self._count <= self.MOST:
            more = "" if self._count < self.MOST else f" (what else this process {os.getpid()} logs is left out)"
            self._teller.tell("log", record.name, record.levelno, record.getMessage() + more)


def main(pipe_file: int, board_file: int) -> None:
    """Compute whatever is sent, until the parent closes the pipe or dies."""
    _die_with_parent()
    faulthandler.enable()
    pipe = Connection(pipe_file)
    teller = Teller(pipe, Board(board_file))
    logging.getLogger().addHandler(_Handler(teller))
    settled = False
    while True:
        try:
            content = pipe.recv_bytes()
        except EOFError:
            return
        folder, memory, work = pickle.loads(content)  # noqa: S301  # from our own parent, through its own pipe
        with importable(Path(folder)):
            try:
                _limit_memory(0)  # that of the shard before: what is imported for this one is no sample's
                piece: ShardWork = pickle.loads(work)  # noqa: S301  # as above
                _import_torch(piece)
                _limit_memory(memory)
                tally = compute(piece, teller)
            except Exception as error:  # noqa: BLE001  # no sample's fault: the parent raises it
                teller.tell("raised", _portable(error))
            else:
                teller.tell("done", tally)
        teller.over()
        if not settled:
            settled = True
            gc.collect()
            gc.freeze()  # libraries and models: looking through them again takes 0.3 s a time


def _import_torch(work: ShardWork) -> None:
    """Import torch for steps that compute with it, as ``numerics`` tells, while no sample is at work and none is held.

    It takes seconds and hundreds of MiB, which would count as the first sample's; and one that memory stops half way
    fails again for every sample after it.
    """
    steps = [step for feature in work.features for step in feature.chain.steps]
    if work.device == "cuda" or any("torch" in step.numerics for step in steps):
        import torch  # noqa: F401


def _limit_memory(memory: int) -> None:
    """Let allocations fail above ``memory`` bytes, so that most samples that want too much get an exception.

    0: no limit here (a CUDA context maps more than it uses). What slips through is seen by the parent.
    """
    try:
        import resource
    except ImportError:  # no POSIX
        return
    if sys.platform == "linux":
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = memory if hard == resource.RLIM_INFINITY else min(memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit if memory else hard, hard))


def _die_with_parent() -> None:
    """On Linux the kernel ends this process when its parent dies; elsewhere the closed pipe does."""
    if sys.platform == "linux":
        import ctypes

        parent = os.getppid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            sys.exit(0)


def _portable(error: Exception) -> Exception:
    """The error, or its words where it cannot travel."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # made here
    except Exception:  # noqa: BLE001  # whatever keeps it from travelling
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
