"""Making items ahead of their use, in a thread that never outlives its user."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_LIVE: weakref.WeakSet[Prefetch[object]] = weakref.WeakSet()


class Prefetch(Generic[T]):
    """Iterates over what ``make`` yields, up to ``ahead`` items made in advance by one daemon thread.

    The thread makes items until ``ahead`` lie ready, and goes on when half of them are taken: two threads that wake
    each other for every item cost more than the item. An exception of ``make`` is raised at the place of the item.
    ``close`` stops and joins the thread; so do the end of the iteration, an exception, and the end of the interpreter.
    At any time at most ``ahead + 1`` items exist that were not taken.
    """

    def __init__(self, make: Callable[[], Iterator[T]], ahead: int) -> None:
        self._items: deque[T] = deque()
        self._fault: BaseException | None = None
        self._done = self._closed = False
        lock = threading.Lock()
        self._filled, self._drained = threading.Condition(lock), threading.Condition(lock)
        self._lock, self._ahead = lock, ahead
        self._thread = threading.Thread(target=self._work, args=(make,), name="gristmill-prefetch", daemon=True)
        _LIVE.add(self)  # type: ignore[arg-type]
        self._thread.start()

    def _work(self, make: Callable[[], Iterator[T]]) -> None:
        fault: BaseException | None = None
        try:
            for item in make():
                with self._lock:
                    self._items.append(item)
                    self._filled.notify()
                    if len(self._items) >= self._ahead:
                        self._drained.wait_for(lambda: self._closed or len(self._items) <= self._ahead // 2)
                    if self._closed:
                        return
        except BaseException as error:  # noqa: BLE001 (raised again where the item is asked for)
            fault = error
        finally:
            with self._lock:
                self._fault, self._done = fault, True
                self._filled.notify()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._lock:
            while not (self._items or self._done or self._closed):
                self._filled.wait()
            if self._items and not self._closed:
                item = self._items.popleft()
                if len(self._items) <= self._ahead // 2:
                    self._drained.notify()
                return item
            fault, self._fault = self._fault, None
        self.close()
        if fault is not None:
            raise fault
        raise StopIteration

    def close(self) -> None:
        """Stop making items, forget those that were made, and wait for the thread."""
        with self._lock:
            self._closed = True
            self._items.clear()
            self._drained.notify()
            self._filled.notify()
        if self._thread is not threading.current_thread():
            self._thread.join()


@atexit.register
def _close_all() -> None:
    for prefetch in list(_LIVE):
        prefetch.close()


os.register_at_fork(after_in_child=_LIVE.clear)  # threads do not go with a fork
