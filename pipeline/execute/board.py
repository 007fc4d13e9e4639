"""What a child process is at work on, in memory that its parent can read, also when the child is dead.

A message for each step would wake the parent as often, which costs more than a short sample does; a note in shared
memory costs some microseconds. There are two slots, the older one is written, and each has a number and a checksum: one
that a process left half written is no note, and the one before it counts.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import time
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

SLOT = 16 << 20
"""Bytes of a slot: room for the ids of a batch. The file is sparse, what is not written takes no memory."""
_HEAD = struct.Struct("<II")
_FIXED = struct.Struct("<Qdd")


class Note(NamedTuple):
    """The samples that are being decoded (``feature`` is empty) or computed; none of them: nothing is at work.

    ``begun``: since when, on the system's monotonic clock, in seconds. ``used``: seconds that the same samples took
    before, in earlier pieces (the chunks of a video).
    """

    feature: str = ""
    sample_ids: tuple[str, ...] = ()
    begun: float = 0.0
    used: float = 0.0

    @property
    def seconds(self) -> float:
        """What these samples have taken up to now; 0 where nothing is at work."""
        return self.used + time.monotonic() - self.begun if self.sample_ids else 0.0


@lru_cache(maxsize=16)
def _names(feature: str, sample_ids: tuple[str, ...]) -> bytes:
    """What is at work, in ASCII whatever the ids hold. Most notes name what one of the last ones named."""
    return json.dumps([feature, sample_ids]).encode()


class Board:
    """Two slots of an open file that both processes have mapped: one writes, the other reads."""

    def __init__(self, file: int) -> None:
        os.ftruncate(file, 2 * SLOT)
        self._memory = mmap.mmap(file, 2 * SLOT)
        self._number = 0

    def write(self, note: Note) -> None:
        """Leave a note. Raises ``ValueError`` for more ids than a slot has room for."""
        number = self._number + 1
        names = _names(note.feature, note.sample_ids)
        content = _FIXED.pack(number, note.begun, note.used) + names
        if _HEAD.size + len(content) > SLOT:
            count = len(note.sample_ids)
            raise ValueError(f"batch of {count} samples: got {len(names)} bytes of ids, allowed: less than {SLOT}")
        self._number = number
        at = SLOT * (number % 2)
        self._memory[at + _HEAD.size : at + _HEAD.size + len(content)] = content
        _HEAD.pack_into(self._memory, at, len(content), zlib.crc32(content))

    def read(self) -> Note:
        """The last note that was written whole; nothing at work where there is none."""
        return max((self._slot(at) for at in (0, SLOT)), key=lambda slot: slot[0])[1]

    def _slot(self, at: int) -> tuple[int, Note]:
        length, checksum = _HEAD.unpack_from(self._memory, at)
        content = self._memory[at + _HEAD.size : at + _HEAD.size + min(length, SLOT - _HEAD.size)]
        if not length or zlib.crc32(content) != checksum:
            return 0, Note()
        number, begun, used = _FIXED.unpack_from(content)
        feature, sample_ids = json.loads(content[_FIXED.size :])
        return number, Note(feature, tuple(sample_ids), begun, used)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()


class Diary:
    """Keeps the board up to date, and how long each group of samples has taken so far."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._used: dict[tuple[str, tuple[str, ...]], float] = {}
        self._now = Note()

    def begin(self, feature: str, sample_ids: Sequence[str]) -> None:
        """Note what is at work from now on."""
        ids = tuple(sample_ids)
        self._now = Note(feature, ids, time.monotonic(), self._used.get((feature, ids), 0.0))
        self._board.write(self._now)

    def end(self) -> None:
        """Note that it is over."""
        self._used[self._now.feature, self._now.sample_ids] = self._now.seconds
        self._now = Note()
        self._board.write(self._now)
