"""Which samples kill the process that computes them: found by bisecting a shard in child processes.

A worker that dies (a crash in a decoder, out of memory) names suspects, not culprits: all samples of its shard. Each
half that dies again is halved until single samples are left; those are quarantined and their neighbours are kept.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from pipeline.catalog.steps import importable
from pipeline.execute.work import ShardWork

_RAISED = 77
"""Exit status of a child in which an exception was raised: that is no death, and the run itself will meet it."""


def find_killers(work: ShardWork, folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """Sample id -> what becomes of a process that computes this sample alone. Empty where none dies.

    ``folder`` is the catalog's, ``environment`` what workers have. Nothing is written.
    """
    killers: dict[str, str] = {}
    todo = [tuple(sample.sample_id for sample in work.samples)]
    while todo:
        ids = todo.pop()
        status = _status(_only(work, frozenset(ids)), folder, environment)
        if status in (0, _RAISED):
            continue
        if len(ids) == 1:
            killers[ids[0]] = _in_words(status)
        else:
            todo += [ids[len(ids) // 2 :], ids[: len(ids) // 2]]
    return killers


def _only(work: ShardWork, ids: frozenset[str]) -> ShardWork:
    """The same work on some of its samples, without rows that are kept."""
    features = (
        replace(
            feature,
            compute={key: content for key, content in feature.compute.items() if key in ids},
            keep=frozenset(),
            base=None,
        )
        for feature in work.features
    )
    samples = tuple(sample for sample in work.samples if sample.sample_id in ids)
    return replace(work, samples=samples, features=tuple(features))


def _status(work: ShardWork, folder: Path, environment: dict[str, str]) -> int:
    """The exit status of a child process that computes the work (a signal's number, negated)."""
    done = subprocess.run(  # noqa: S603  # our own interpreter and module
        [sys.executable, "-m", __name__],
        input=pickle.dumps((str(folder), pickle.dumps(work))),
        env=os.environ | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return done.returncode


def _in_words(status: int) -> str:
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return (
        f"a process that computed this sample alone {how}; cure: look at the file, or take the feature off it; "
        "it is tried again when its bytes, options or code change"
    )


def _main() -> None:
    """Compute the work on standard input, in a child process of ``find_killers``."""
    import cv2
    import torch

    from pipeline.execute.task import compute_shard

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    folder, pickled = pickle.load(sys.stdin.buffer)  # noqa: S301  # made by this run's driver, never read from disk
    with importable(Path(folder)):
        try:
            compute_shard(pickle.loads(pickled))  # noqa: S301  # as above
        except Exception:  # noqa: BLE001  # no sample is to blame for it: the run itself raises it again, and tells it
            sys.exit(_RAISED)


if __name__ == "__main__":
    _main()
