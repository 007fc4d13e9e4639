"""What every reader of sound shares: which samples are wanted, how many are allowed, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from features.errors import Reason, SampleError
from features.time import NS_PER_SECOND, Span, samples_to_ns
from pipeline.media.source import Limits, Source

Samples: TypeAlias = npt.NDArray[np.float32]
Note: TypeAlias = Callable[[str], None]


def check_finite(source: Source, samples: Samples) -> None:
    """Raise ``SampleError(non_finite)`` when any sample is NaN or infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(np.vdot(samples, samples)):  # one pass; it may overflow, so a no is looked at again
            return
    bad = int(samples.size - np.count_nonzero(np.isfinite(samples)))
    if bad:
        raise source.error(
            Reason.NON_FINITE,
            f"got {bad} NaN or infinite samples, allowed: finite numbers; cure: export the sound again",
        )


def sample_range(start_ns: int, sample_rate: int, count: int, span: Span) -> tuple[int, int]:
    """Return ``(first, stop)``: the samples, of ``count`` that begin at ``start_ns``, whose time lies in ``span``."""

    def first_at_or_after(time_ns: int) -> int:
        index = max(0, min(count, (time_ns - start_ns) * sample_rate // NS_PER_SECOND - 1))
        while index < count and start_ns + samples_to_ns(index, sample_rate) < time_ns:
            index += 1
        return index

    return first_at_or_after(span.start_ns), first_at_or_after(span.end_ns)


def check_channels(source: Source, channels: int, limits: Limits) -> None:
    """Raise ``SampleError(too_large)`` for too many channels."""
    if channels > limits.max_audio_channels:
        raise source.error(
            Reason.TOO_LARGE,
            f"got {channels} channels, allowed: {limits.max_audio_channels}; cure: mix down or raise the limit",
        )


def check_length(source: Source, count: int, rate: int, limits: Limits) -> None:
    """Raise ``SampleError(too_large)`` for too many samples."""
    if count > limits.max_audio_seconds * rate:
        raise source.error(
            Reason.TOO_LARGE,
            f"got {count / rate:.0f} s of sound or more, allowed: {limits.max_audio_seconds:g} s; cure: cut it, use "
            "windows (start and end in the catalog), or raise the limit",
        )


def nothing_found(source: Source, span: Span | None, whole: Span | None) -> SampleError:
    """The error ``empty``, for a file of which ``span`` was wanted and that lasts ``whole``."""
    if span is None or whole is None:
        return source.error(Reason.EMPTY, "got 0 samples of sound; cure: record it again or remove it from the catalog")
    return source.error(
        Reason.EMPTY, f"got no sample inside {span}, allowed: a window that overlaps {whole}; cure: correct it"
    )
