"""Time as integer nanoseconds in half-open spans, with one rounding rule for the whole project.

Every instant is an ``int`` count of nanoseconds on its medium's own clock (the container's presentation clock for
audio and video). Floats appear only where people read or write seconds. A span is half-open: ``[start_ns, end_ns)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

NS_PER_SECOND = 1_000_000_000

_FAR = 2**62


def round_ns(numerator: int, denominator: int) -> int:
    """Round the exact ratio ``numerator / denominator`` (nanoseconds) half up: the project's only rounding rule."""
    if denominator <= 0:
        raise ValueError(f"denominator: got {denominator}, allowed: > 0")
    return (2 * numerator + denominator) // (2 * denominator)


def seconds_to_ns(seconds: float | Fraction | int) -> int:
    """Convert seconds to nanoseconds, exactly for ints and Fractions and by the float's exact binary value otherwise.

    Raises ``ValueError`` for NaN and infinities.
    """
    try:
        exact = Fraction(seconds)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"seconds: got {seconds!r}, allowed: a finite number") from error
    return round_ns(exact.numerator * NS_PER_SECOND, exact.denominator)


def ticks_to_ns(ticks: int, time_base: Fraction) -> int:
    """Convert a count of ``time_base`` ticks (a container's pts) to nanoseconds."""
    return round_ns(ticks * time_base.numerator * NS_PER_SECOND, time_base.denominator)


def samples_to_ns(index: int, sample_rate: int) -> int:
    """Nanoseconds from the start of a signal to sample ``index`` at ``sample_rate`` Hz."""
    return round_ns(index * NS_PER_SECOND, sample_rate)


def sample_edges_ns(indices: npt.NDArray[np.int64], sample_rate: int) -> npt.NDArray[np.int64]:
    """``samples_to_ns`` for an array of indices. Exact: int64 in, int64 out, whatever the length of the recording."""
    whole, rest = np.divmod(np.asarray(indices, dtype=np.int64), np.int64(sample_rate))
    fraction = (2 * rest * NS_PER_SECOND + sample_rate) // (2 * sample_rate)
    edges: npt.NDArray[np.int64] = whole * NS_PER_SECOND + fraction
    return edges


@dataclass(frozen=True, order=True)
class Span:
    """A half-open interval of time ``[start_ns, end_ns)``; ``end_ns >= start_ns``."""

    start_ns: int
    end_ns: int

    def __post_init__(self) -> None:
        if self.end_ns < self.start_ns:
            raise ValueError(f"span: got end {self.end_ns} before start {self.start_ns}, allowed: end >= start")

    @property
    def duration_ns(self) -> int:
        """Length in nanoseconds."""
        return self.end_ns - self.start_ns

    def overlap_ns(self, other: Span) -> int:
        """Nanoseconds shared with ``other`` (0 when disjoint)."""
        return max(0, min(self.end_ns, other.end_ns) - max(self.start_ns, other.start_ns))

    def __repr__(self) -> str:
        if self == ALWAYS:
            return "Span(always)"
        return f"Span({self.start_ns / NS_PER_SECOND:.6f} s .. {self.end_ns / NS_PER_SECOND:.6f} s)"


ALWAYS = Span(-_FAR, _FAR)
"""The span of what has no time of its own and so holds at all times: a still image, an untimed text."""
