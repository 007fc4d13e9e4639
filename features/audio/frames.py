"""Analysis frames of a signal: how many there are, what they stand for in time, and the steps that have one row each.

Said once for every step of the room. Frame ``t`` is centred on sample ``t * hop_length`` of the signal at the step's
``sample_rate``, with zeros beyond both ends; ``N`` samples have ``1 + N // hop_length`` frames and 0 samples have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from features.audio.resample import CHANNELS, Channels, resample, select
from features.time import Span, sample_edges_ns
from features.types import AudioClip, Device, FeatureSequence, Stream

Signal: TypeAlias = npt.NDArray[np.float32]
Rows: TypeAlias = npt.NDArray[np.float32]
Check: TypeAlias = tuple[str, Any, bool, str]
"""An option, what it is, whether that is allowed, and what is."""

Window: TypeAlias = Literal["hann", "hamming", "blackman"]
_COSINES: dict[str, tuple[float, ...]] = {"hann": (0.5, 0.5), "hamming": (0.54, 0.46), "blackman": (0.42, 0.5, 0.08)}


def refuse(name: str, checks: Sequence[Check]) -> None:
    """Raise ``ValueError`` for the first of ``checks`` that does not hold."""
    for option, got, good, allowed in checks:
        if not good:
            raise ValueError(f"{name}: {option}: got {got!r}, allowed: {allowed}")


def frame_rows(samples: int, hop_length: int) -> int:
    """Frames, and so rows, of a signal of ``samples`` samples."""
    return 1 + samples // hop_length if samples else 0


def frame_spans(
    rows: int, hop_length: int, sample_rate: int, span: Span
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return ``start_ns`` and ``end_ns``, int64 ``[rows]``, of analysis frames centred on samples 0, hop, 2 hop, ...

    Row ``t`` holds where its centre is the nearest one: from half a hop before sample ``t * hop_length`` to half a hop
    after it; the first row begins and the last row ends with the clip. So the rows tile ``span``: each ends where the
    next one starts, and the edges are exact to the nanosecond however long the clip.
    """
    half_hops = (2 * np.arange(rows + 1, dtype=np.int64) - 1) * hop_length
    edges = np.minimum(span.start_ns + sample_edges_ns(half_hops, 2 * sample_rate), span.end_ns)
    edges[0], edges[-1] = span.start_ns, span.end_ns
    return edges[:-1], edges[1:]


def frame_window(kind: Window, length: int, n_fft: int) -> npt.NDArray[np.float64]:
    """Return a periodic window of ``length`` samples in the middle of a frame: float64 ``[n_fft]``."""
    turn = 2 * np.pi * np.arange(length) / length
    window = np.zeros(n_fft)
    left = (n_fft - length) // 2
    for order, weight in enumerate(_COSINES[kind]):
        window[left : left + length] += (-1) ** order * weight * np.cos(order * turn)
    return window


@dataclass(frozen=True, kw_only=True)
class Framed:
    """What extractors with one row a hop share: rate, frames, channels, and the times of their rows.

    ``sample_rate`` Hz: clips are resampled to it. ``n_fft`` and ``hop_length`` samples: length of a frame, and from one
    to the next; ``win_length`` samples of ``window`` in the middle of the frame (``None``: all of it). ``channels``:
    "mean" or "first" give one signal a clip; "each" gives the columns of every channel beside those of the one before,
    for clips of exactly ``channel_count`` channels (others are refused: ``unsupported_format``).
    """

    name: ClassVar[str]
    stream: ClassVar[Stream] = "audio"
    numerics: ClassVar[tuple[str, ...]] = ("soxr",)

    sample_rate: int = 16_000
    n_fft: int = 512
    win_length: int | None = None
    hop_length: int = 160
    window: Window = "hann"
    channels: Channels = "mean"
    channel_count: int = 1

    def __post_init__(self) -> None:
        refuse(self.name, [*self._frame_checks(), *self._checks()])

    def _frame_checks(self) -> list[Check]:
        counts = "1 unless channels is 'each'" if self.channels != "each" else ">= 1"
        counted = self.channel_count == 1 or (self.channels == "each" and self.channel_count > 1)
        inside = 1 <= self.window_length <= self.n_fft
        return [
            ("sample_rate", self.sample_rate, self.sample_rate >= 1, ">= 1 Hz"),
            ("n_fft", self.n_fft, self.n_fft >= 2 and self.n_fft % 2 == 0, "an even number >= 2"),
            ("win_length", self.win_length, inside, f"1 to n_fft ({self.n_fft}), or null"),
            ("hop_length", self.hop_length, self.hop_length >= 1, ">= 1"),
            ("window", self.window, self.window in _COSINES, " or ".join(_COSINES)),
            ("channels", self.channels, self.channels in CHANNELS, " or ".join(CHANNELS)),
            ("channel_count", self.channel_count, counted, counts),
        ]

    def _checks(self) -> list[Check]:
        """Check the options that a step adds."""
        return []

    @property
    def window_length(self) -> int:
        """Samples of the window."""
        return self.n_fft if self.win_length is None else self.win_length

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns of one channel, in order."""
        raise NotImplementedError

    @property
    def dim(self) -> int:
        """Width of a row: the columns of one channel, times the channels."""
        return len(self.columns) * self.channel_count

    def __call__(self, batch: Sequence[AudioClip], device: Device) -> list[FeatureSequence]:
        """Return one sequence ``[1 + N // hop_length, dim]`` for each clip of ``N`` samples at ``sample_rate``.

        Raises ``SampleError``: ``non_finite`` for NaN or infinity, ``unsupported_format`` for a wrong channel count.
        """
        signals = [signal for clip in batch for signal in self.signals(clip)]
        found = self._rows(signals, device)
        width = self.channel_count
        return [self._timed(found[k * width : (k + 1) * width], clip.span) for k, clip in enumerate(batch)]

    def signals(self, clip: AudioClip) -> Sequence[Signal]:
        """Return the signals of a clip at ``sample_rate``, one or one a channel. Raises ``SampleError``."""
        chosen = select(clip, self.channels, self.channel_count, self.name)
        return list(resample(chosen, self.sample_rate).samples)

    def _timed(self, parts: Sequence[Rows], span: Span) -> FeatureSequence:
        values = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        start, end = frame_spans(len(values), self.hop_length, self.sample_rate, span)
        return self._sequence(values, start, end)

    def _sequence(
        self, values: Rows, start_ns: npt.NDArray[np.int64], end_ns: npt.NDArray[np.int64]
    ) -> FeatureSequence:
        return FeatureSequence(values=values, start_ns=start_ns, end_ns=end_ns)

    def _rows(self, signals: Sequence[Signal], device: Device) -> list[Rows]:
        """Rows float32 ``[1 + N // hop_length, columns]`` of each signal ``[N]`` at ``sample_rate``."""
        raise NotImplementedError
