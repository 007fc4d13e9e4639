"""A signal as overlapping windowed frames, and back: with gains of one the same signal to the rounding of float32.

Frame ``f`` of ``frame`` samples begins at sample ``f * hop - (frame - hop)``, so that every sample lies in
``frame // hop`` frames; beyond the signal lie zeros. Signals come in pieces of any size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.audio.cut import cut_frames
from features.compiled import compiled

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """Frames of ``frame`` samples that overlap ``overlap`` times (2 or 4)."""

    frame: int
    overlap: int

    @property
    def hop(self) -> int:
        """Samples from one frame to the next."""
        return self.frame // self.overlap

    @property
    def bins(self) -> int:
        """Bins of a frame's spectrum."""
        return self.frame // 2 + 1

    @property
    def windows(self) -> tuple[Samples, Samples]:
        """Windows of analysis and synthesis, whose products add up to one: Hann, or its root at an overlap of 2."""
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.frame) / self.frame)
        if self.overlap == 2:
            return np.sqrt(hann).astype(np.float32), np.sqrt(hann).astype(np.float32)
        return hann.astype(np.float32), (hann / 1.5).astype(np.float32)  # squares a quarter apart add up to 1.5

    def rows(self, samples: int) -> int:
        """Frames that hold a sample of a signal of ``samples``."""
        return -(-samples // self.hop) + self.overlap - 1 if samples else 0

    @classmethod
    def at_least(cls, samples: float, overlap: int) -> Shape:
        """Frames of ``samples`` or more, up to the next ``4 * 2**n``, ``4 * 3 * 2**n`` or ``4 * 5 * 2**n``."""
        least = max(2, math.ceil(samples / 4))
        return cls(4 * min(odd << max(0, math.ceil(math.log2(least / odd))) for odd in (1, 3, 5)), overlap)


class Cutter:
    """The frames of one signal that grows piece by piece."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._kept = np.zeros(0, dtype=np.float32)
        self._first = 0  # the sample that ``_kept`` begins with
        self._window, _ = shape.windows
        self.samples = 0

    def feed(self, samples: Samples) -> None:
        """Append samples ``[n]``."""
        self._kept = np.concatenate([self._kept, samples]) if len(self._kept) else samples
        self.samples += len(samples)

    @property
    def ready(self) -> int:
        """Frames whose samples have all come."""
        return self.samples // self._shape.hop

    def cut(self, begin: int, end: int, out: Samples) -> None:
        """Write frames ``begin`` to ``end``, windowed, into ``out`` ``[end - begin, frame]``; zeros where none are."""
        hop = self._shape.hop
        at = begin * hop - (self._shape.frame - hop) - self._first
        compiled(cut_frames)(self._kept, at, hop, self._window, out[: end - begin])

    def drop(self, begin: int) -> None:
        """Forget the samples that no frame from ``begin`` on holds."""
        first = max(0, begin * self._shape.hop - (self._shape.frame - self._shape.hop))
        if first > self._first:
            self._kept = self._kept[first - self._first :].copy()
            self._first = first


class Adder:
    """Adds frames up again. Takes them in order; gives samples as soon as no later frame holds them."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        _, self._window = shape.windows
        self._open = np.zeros(shape.frame - shape.hop, dtype=np.float32)
        self._skip = shape.frame - shape.hop  # the first frames begin before the signal does

    def add(self, frames: Samples) -> Samples:
        """Add frames ``[T, frame]``; return the samples that are complete."""
        total = np.zeros(len(frames) * self._shape.hop + len(self._open), dtype=np.float32)
        total[: len(self._open)] = self._open
        compiled(_add)(frames, self._window, self._shape.hop, total)
        done = len(frames) * self._shape.hop
        self._open = total[done:].copy()
        skipped = min(self._skip, done)
        self._skip -= skipped
        return total[skipped:done]


def _add(frames: Samples, window: Samples, hop: int, out: Samples) -> None:
    for t in range(len(frames)):
        frame, into = frames[t], out[t * hop : t * hop + len(window)]
        for i in range(len(window)):
            into[i] += frame[i] * window[i]
