"""One writer at a time for each data set; any number of readers, who ask nobody.

The lease is a small file beside the data (``_lease.json``) that says who writes. Its holder renews it every
``BEAT_SECONDS``. A holder is dead, and the next writer takes over at once or after a while, when

- it ran on this machine (same boot, same process namespace), and its process is gone: at once;
- its last renewal is older than ``STALE_SECONDS`` by the clocks of both: at once. These clocks may differ by minutes;
- it ran elsewhere and the file does not change for ``SILENT_SECONDS`` while the next writer looks at it.

Every change of the file is a compare-and-swap, so of two who take over one wins. A lease saves work and tells people
what goes on; what keeps the data whole is the commit, which refuses a run whose base is no longer the last snapshot.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from features.errors import StoreError
from pipeline.events import SILENT, Events
from pipeline.store.dataset import DatasetStore
from pipeline.store.files import Stamped

FILE = "_lease.json"
BEAT_SECONDS = 10.0
SILENT_SECONDS = 60.0
STALE_SECONDS = 600.0
_LOOK_SECONDS = 2.0
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds the lease: what the file says."""

    token: str
    purpose: str
    host: str
    machine: str
    """The boot and the process namespace in which ``pid`` means something; empty where the system does not tell."""
    pid: int
    process_started: str
    """By the system's own clock, so that a later process of the same number is not taken for this one."""
    since: str
    renewed: float
    """Seconds since the epoch."""
    released: bool = False

    def __str__(self) -> str:
        """Who it is, for people."""
        return f"{self.purpose}, pid {self.pid} on {self.host}, since {self.since}"

    @property
    def is_here(self) -> bool:
        """Whether its process can be looked up here."""
        return bool(self.machine) and self.machine == _machine()

    @property
    def is_stale(self) -> bool:
        """Whether its last sign of life is too old for any difference of clocks."""
        return time.time() - self.renewed > STALE_SECONDS


_HOLDER = TypeAdapter(Holder)


class Lease:
    """The right to write one data set. Made by ``acquire``."""

    def __init__(self, store: DatasetStore, purpose: str) -> None:
        self._store = store
        self._me = Holder(
            token=uuid.uuid4().hex,
            purpose=purpose,
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            process_started=_process(os.getpid())[1],
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            renewed=time.time(),
        )
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name=f"lease {store.url}", daemon=True)

    def check(self) -> None:
        """Raise ``StoreError`` when the lease is no longer held. To be asked before what it protects."""
        found = self._read()
        holder = None if found is None else found[1]
        if holder is None or holder.token != self._me.token:
            by = "its file is gone" if holder is None else f"another run ({holder}) took over"
            raise StoreError(
                f"{self._store.url}: this run lost its lease: {by}, as if this one had died (no sign of life for "
                f"{SILENT_SECONDS:.0f} s); nothing of it was published; cure: run again (finished shards are kept)"
            )

    def take(self, events: Events) -> None:
        """Take the lease, and keep it until ``release``. Raises ``StoreError`` where a live run holds it."""
        while not self._try(events):
            pass
        self._heart.start()

    def release(self) -> None:
        """Give the lease back, where it is still held. The file stays, and says so."""
        self._over.set()
        self._heart.join(BEAT_SECONDS)
        try:
            while not self._renew(released=True):
                pass
        except StoreError as error:
            _logger.warning("the lease of %s could not be released: %s", self._store.url, error)

    def _try(self, events: Events) -> bool:
        found = self._read()
        if found is None:
            taken = self._store.create(FILE, self._content())
        else:
            state, holder = found
            if not holder.released and not self._is_dead(state, holder, events):
                raise StoreError(
                    f"{self._store.url}: another run ({holder}) is writing this data set, and it lives; allowed: "
                    "one writer at a time; cure: wait until it is done, or end that process"
                )
            taken = self._store.swap(FILE, self._content(), state.stamp)
        taken = taken or self._is_mine()
        if taken and found is not None and not found[1].released:
            events.note(f"took over from a run that died ({found[1]})")
        return taken

    def _is_mine(self) -> bool:
        """Whether the file is this lease's: a put whose answer was lost is refused when it is tried again."""
        found = self._read()
        return found is not None and found[1].token == self._me.token

    def _is_dead(self, state: Stamped, holder: Holder, events: Events) -> bool:
        if holder.is_here:
            return not _lives(holder)
        if holder.is_stale:
            return True
        events.note(f"waiting up to {SILENT_SECONDS:.0f} s for a sign of life of another run ({holder})")
        until = time.monotonic() + SILENT_SECONDS
        while time.monotonic() < until:
            time.sleep(min(_LOOK_SECONDS, SILENT_SECONDS / 10))
            now = self._read()
            if now is None or now[0].stamp != state.stamp:
                # where another state is to be looked at, swap refuses this one and _try begins anew
                return now is None or now[1].released or now[1].token != holder.token
        return True

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                self._renew(released=False)
            except StoreError as error:
                _logger.warning("the lease of %s could not be renewed: %s", self._store.url, error)

    def _renew(self, *, released: bool) -> bool:
        """Write the file again where it is this lease's. False: it changed meanwhile."""
        found = self._read()
        if found is None or found[1].token != self._me.token or found[1].released:
            return True
        return self._store.swap(FILE, self._content(released=released), found[0].stamp)

    def _content(self, *, released: bool = False) -> bytes:
        document = asdict(replace(self._me, renewed=time.time(), released=released))
        return json.dumps(document, indent=1).encode()

    def _read(self) -> tuple[Stamped, Holder] | None:
        found = self._store.read(FILE)
        if found is None:
            return None
        try:
            return found, _HOLDER.validate_json(found.content)
        except ValidationError as error:
            raise StoreError(
                f"{self._store.url}/{FILE}: is no lease ({error.error_count()} faults); cure: see that nobody writes "
                "this data set, and remove the file"
            ) from error


@contextmanager
def acquire(store: DatasetStore, purpose: str, *, events: Events = SILENT) -> Iterator[Lease]:
    """Hold the lease of a data set. ``purpose`` is told to whoever is refused meanwhile.

    Raises ``StoreError`` where another live run holds it, naming that run. Where the holder runs on another machine,
    finding out takes up to ``BEAT_SECONDS`` when it lives and ``SILENT_SECONDS`` when it has just died.
    """
    lease = Lease(store, purpose)
    lease.take(events)
    try:
        yield lease
    finally:
        lease.release()


def holder(store: DatasetStore) -> Holder | None:
    """Who writes a data set now; ``None`` where nobody does, or the one who did is dead. Changes nothing.

    A holder on another machine counts as alive until its last renewal is older than ``STALE_SECONDS``.
    """
    found = store.read(FILE)
    try:
        told = None if found is None else _HOLDER.validate_json(found.content)
    except ValidationError:
        return None
    if told is None or told.released:
        return None
    alive = _lives(told) if told.is_here else not told.is_stale
    return told if alive else None


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _process(pid: int) -> tuple[str, str]:
    """State and start (in ticks since the boot) of a process; empty texts where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]


def _lives(holder: Holder) -> bool:
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's: it is there
    state, started = _process(holder.pid)
    return state not in ("Z", "X") and started in ("", holder.process_started)
