"""A child process between bad samples and everything else: crashes, hangs and runaway memory cost one sample each.

A worker hands its shard to a child and keeps every row that the child finishes. When the child dies, exceeds a limit or
does not come back, the samples that it was at work on are suspects, not culprits: what else is left goes to a new
child, and each suspect is tried alone. What fails alone is quarantined (``worker_died``, ``timeout``,
``out_of_memory``). No finished row is computed again, and no neighbour is blamed.
"""

from __future__ import annotations

import atexit
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from typing import IO, Any

import psutil

from features.errors import Reason, RunFailedError, SampleError
from features.types import FeatureSequence
from pipeline.execute.board import Board, Note
from pipeline.execute.failure import failure_of
from pipeline.execute.watch import Tally
from pipeline.execute.work import Guard, ShardWork
from pipeline.store.quarantine import Failure

LOOK_SECONDS = 0.1
"""How often the child's memory is looked at."""
STARTS = 3
"""How many children in a row may die before any sample was at work."""
_TRACE_BYTES = 8192

Pair = tuple[str, str]
"""(feature, sample id)."""


@dataclass
class Outcome:
    """What came of a shard: rows by feature and (sample id, view), failures, and the cost."""

    rows: dict[str, dict[tuple[str, int], FeatureSequence]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    def begin(self, feature: str, sample_ids: Collection[str]) -> None:
        """As a ``Watch`` in the same process: nothing is to be remembered."""

    def end(self) -> None:
        """As ``begin``."""

    def row(self, feature: str, sample_id: str, view: int, sequence: FeatureSequence) -> None:
        """Take a finished row."""
        self.rows.setdefault(feature, {})[sample_id, view] = sequence

    def failed(self, failure: Failure) -> None:
        """Take a failure."""
        self.failures.append(failure)


@dataclass(frozen=True)
class _End:
    """Why a child stopped before its work was done, and what it was at work on (no samples: nothing)."""

    reason: Reason
    message: str
    feature: str
    sample_ids: tuple[str, ...]
    trace: str


def compute_guarded(work: ShardWork, guard: Guard) -> Outcome:
    """Compute a shard in child processes. Raises what the work itself raises (wrong state, a defect)."""
    outcome = Outcome()
    todo: list[tuple[frozenset[Pair], bool]] = [(_pairs(work), False)]
    starts = 0
    while todo:
        pairs, alone = todo.pop()
        end = _attempt(_only(work, pairs), guard, outcome, alone=alone)
        left = pairs - _settled(work, outcome)
        if end is None:
            if left:
                raise RunFailedError(f"shard {work.shard}: {len(left)} rows neither came nor failed; a defect")
            continue
        suspects = {pair for pair in left if pair[1] in end.sample_ids and end.feature in ("", pair[0])}
        if not suspects:
            starts += 1
            if starts >= STARTS:
                raise RunFailedError(_cannot_compute(work, end))
            todo.append((left, alone))
            continue
        groups = _groups(work, suspects, end)
        if len(groups) == 1 and (alone or end.reason is Reason.TIMEOUT):
            _blame(work, outcome, suspects, end)
        else:
            todo += [(group, True) for group in groups]
        if left - suspects:
            todo.append((left - suspects, alone))
    return outcome


def _groups(work: ShardWork, suspects: Collection[Pair], end: _End) -> list[frozenset[Pair]]:
    """What is to be tried by itself: one sample in one feature or, where it was being decoded, in one stream."""
    streams = {feature.chain.name: feature.chain.stream for feature in work.features}
    found: dict[Pair, set[Pair]] = {}
    for name, sample_id in sorted(suspects):
        found.setdefault((name if end.feature else streams[name], sample_id), set()).add((name, sample_id))
    return [frozenset(group) for group in found.values()]


def _pairs(work: ShardWork) -> frozenset[Pair]:
    return frozenset((feature.chain.name, sample) for feature in work.features for sample in feature.compute)


def _settled(work: ShardWork, outcome: Outcome) -> set[Pair]:
    """What needs no more work: rows of all views are there, or the sample failed."""
    views = {feature.chain.name: len(feature.chain.views) for feature in work.features}
    counts: dict[Pair, int] = {}
    for feature, rows in outcome.rows.items():
        for sample_id, _ in rows:
            counts[feature, sample_id] = counts.get((feature, sample_id), 0) + 1
    done = {pair for pair, count in counts.items() if count == views[pair[0]]}
    return done | {(failure.feature, failure.sample_id) for failure in outcome.failures}


def _only(work: ShardWork, pairs: Collection[Pair]) -> ShardWork:
    """The same work on some of its rows, without those that are kept."""
    features = tuple(
        replace(
            feature,
            compute={key: content for key, content in feature.compute.items() if (feature.chain.name, key) in pairs},
            keep=frozenset(),
            base=None,
        )
        for feature in work.features
    )
    wanted = {sample_id for _, sample_id in pairs}
    return replace(
        work,
        features=tuple(feature for feature in features if feature.compute),
        samples=tuple(sample for sample in work.samples if sample.sample_id in wanted),
        roster={},
        guard=None,
    )


def _attempt(work: ShardWork, guard: Guard, outcome: Outcome, *, alone: bool) -> _End | None:
    """Let a child compute; take what it finishes. Returns why it stopped early, if it did.

    Suspects are tried ``alone`` in a child of their own, whose memory holds nothing of others. Of the rest, a sample
    that ran out of memory in company is a suspect as well.
    """
    child = _Child(guard) if alone else _child(guard)
    try:
        held: list[Failure] = []
        for message in child.compute(work):
            match message:
                case ("rows", rows):
                    for row in rows:
                        outcome.row(*row)
                case ("failed", failure):
                    full = failure.reason == Reason.OUT_OF_MEMORY.value and not alone
                    (held if full else outcome.failures).append(failure)
                case ("done", tally):
                    outcome.tally += tally
                case ("raised", error):
                    raise error
                case _End() as end:
                    _drop(child)
                    return end
        if not held:
            return None
        _drop(child)  # its memory may be full of what its other samples left
        first = held[0]
        ids = tuple(failure.sample_id for failure in held if failure.feature == first.feature)
        return _End(Reason.OUT_OF_MEMORY, first.message, first.feature, ids, first.traceback)
    finally:
        if alone:
            child.stop()


def _blame(work: ShardWork, outcome: Outcome, pairs: Collection[Pair], end: _End) -> None:
    features = {feature.chain.name: feature for feature in work.features}
    stage = "extract" if end.feature else "decode"
    for name, sample_id in sorted(pairs):
        found = failure_of(SampleError(end.reason, end.message), work, features[name], sample_id, stage)
        outcome.failed(replace(found, traceback=end.trace))


def _cannot_compute(work: ShardWork, end: _End) -> str:
    return (
        f"shard {work.shard}: {STARTS} child processes ended with no sample at work; the last one {end.message}; "
        f"nothing was published, finished shards are kept; cure: see what they said last: {end.trace or 'nothing'}"
    )


class _Child:
    """One child process."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by stop()
        self._notes: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # likewise
        self._board = Board(self._notes.fileno())
        self._pipe, theirs = Pipe()
        files = [theirs.fileno(), self._notes.fileno()]
        self._process = subprocess.Popen(  # noqa: S603  # our own interpreter and module
            [sys.executable, "-m", "pipeline.execute.child", *map(str, files)],
            pass_fds=files,
            env={**os.environ, **guard.environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )
        theirs.close()
        self._watched = psutil.Process(self._process.pid)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def fits(self, guard: Guard) -> bool:
        """Whether this child was started for the same guard."""
        return self.alive and self._guard == guard

    def compute(self, work: ShardWork) -> Iterator[Any]:
        """Send work; yield the child's messages, and an ``_End`` where it stops early."""
        memory = self._guard.memory if work.device == "cpu" else 0
        try:
            self._pipe.send_bytes(pickle.dumps((self._guard.folder, memory, pickle.dumps(work))))
            while True:
                quiet = not self._pipe.poll(LOOK_SECONDS)
                if (note := self._board.read()).seconds > self._guard.sample_seconds:
                    yield self._stopped(Reason.TIMEOUT, self._too_slow(note), note)
                    return
                if quiet:
                    held = self._held()
                    if held > self._guard.memory:
                        yield self._stopped(Reason.OUT_OF_MEMORY, self._too_much(held), note)
                        return
                    continue
                message = pickle.loads(self._pipe.recv_bytes())  # noqa: S301  # from our own child
                match message:
                    case ("log", name, level, said):
                        logging.getLogger(name).log(level, "%s", said)
                    case _:
                        yield message
                        if message[0] in ("done", "raised"):
                            return
        except (EOFError, ConnectionError):
            self._process.wait()
            yield self._stopped(Reason.WORKER_DIED, _in_words(self._process.returncode), self._board.read())

    def _held(self) -> int:
        """Bytes that the child holds in memory of its own: files that it maps do not count."""
        try:
            info = self._watched.memory_info()
        except psutil.Error:  # it has just died: the pipe says so next
            return 0
        return int(info.rss - getattr(info, "shared", 0))

    def _too_slow(self, note: Note) -> str:
        what = note.feature or "decoding"
        more = f" for {len(note.sample_ids)} samples" if len(note.sample_ids) > 1 else ""
        return (
            f"{what} took more than {self._guard.sample_seconds:g} s{more}, allowed: engine.sample_seconds; cure: look "
            "at the file, or raise engine.sample_seconds; it is tried again when its bytes, options or code change, or "
            "by gristmill retry"
        )

    def _too_much(self, held: int) -> str:
        return (
            f"the process held {held / 2**20:.0f} MiB, allowed: {self._guard.memory / 2**20:.0f} MiB, its share of "
            "engine.memory; cure: a smaller file, fewer engine.workers, or more engine.memory"
        )

    def _stopped(self, reason: Reason, message: str, note: Note) -> _End:
        self._process.kill()
        self._process.wait()
        return _End(reason, message, note.feature, note.sample_ids, self._last_words())

    def _last_words(self) -> str:
        """The end of what the child wrote to its standard error: where it crashed, if it could say."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - _TRACE_BYTES))
        return self._errors.read().decode(errors="replace").strip()

    def stop(self) -> None:
        """End the process, if it has not ended."""
        self._process.kill()
        self._process.wait()
        self._pipe.close()
        self._board.close()
        self._notes.close()
        self._errors.close()


def _in_words(status: int) -> str:
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    return (
        f"a process that computed this sample alone {how}; cure: look at the file, or take the feature off it; "
        "it is tried again when its bytes, options or code change, or by gristmill retry"
    )


_own = threading.local()
"""Each thread of a worker keeps its own child from shard to shard: models are loaded once."""
_children: set[_Child] = set()


def _child(guard: Guard) -> _Child:
    child: _Child | None = getattr(_own, "child", None)
    if child is None or not child.fits(guard):
        if child is not None:
            _drop(child)
        child = _own.child = _Child(guard)
        _children.add(child)
    return child


def _drop(child: _Child) -> None:
    child.stop()
    _children.discard(child)
    if getattr(_own, "child", None) is child:
        _own.child = None


@atexit.register
def _stop_all() -> None:
    for child in list(_children):
        child.stop()
