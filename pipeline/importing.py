"""Modules of the user's own, which lie beside the catalog: processes that meet their steps import them from there."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_lock = threading.Lock()
_users: Counter[str] = Counter()
"""Folder on ``sys.path`` that was put there here -> how many threads need it."""


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Make modules that lie in ``folder`` importable, after everything that is installed; threads may share it."""
    entry = str(folder)
    with _lock:
        if entry not in sys.path:
            sys.path.append(entry)
            _users.setdefault(entry, 0)
        ours = entry in _users
        _users[entry] += ours
    try:
        yield
    finally:
        with _lock:
            if ours:
                _users[entry] -= 1
                if _users[entry] == 0:
                    del _users[entry]
                    sys.path.remove(entry)
