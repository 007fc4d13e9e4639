"""``audio.trim``: silence at both ends goes, and what stays keeps its time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt

from features.audio.frames import frame_rows, refuse
from features.audio.pitch import frames_of
from features.audio.resample import require_finite
from features.errors import Reason, SampleError
from features.time import Span, samples_to_ns
from features.types import AudioClip, Device, Stream

_CHUNK = 1024
"""Frames looked at at a time."""

_LEAST = 1e-10
"""Least mean square: -100 dB, librosa's."""


def loud_frames(
    clip: AudioClip, frame_length: int, hop_length: int, top_db: float, floor_db: float
) -> npt.NDArray[np.bool_]:
    """Which frames, centred on samples 0, hop, 2 hop ..., are not silent: bool ``[1 + N // hop_length]``.

    A frame is silent when its root mean square, of the loudest channel, is ``top_db`` or more below the loudest
    frame's, or at or below ``floor_db`` (full scale is 0 dB).
    """
    rows = frame_rows(clip.samples.shape[1], hop_length)
    power = np.full(rows, _LEAST)
    for signal in clip.samples:
        for begin in range(0, rows, _CHUNK):
            part = slice(begin, min(begin + _CHUNK, rows))
            frames = frames_of(signal, frame_length, hop_length, part.start, part.stop)
            power[part] = np.maximum(power[part], (frames**2).mean(axis=1))
    level = 10 * np.log10(power)
    loud: npt.NDArray[np.bool_] = level > max(level.max() - top_db, floor_db) if rows else np.zeros(0, dtype=np.bool_)
    return loud


def sounding_spans(clip: AudioClip, *, top_db: float = 60.0, floor_db: float = -80.0) -> list[Span]:
    """Return when ``clip`` is not silent, on its own clock, in order: silence detection by ``loud_frames``.

    Frames of 64 ms every 16 ms; as ``librosa.effects.split``. A silent clip has none.
    """
    require_finite(clip)
    rate, length = clip.sample_rate, clip.samples.shape[1]
    frame, hop = _samples(64, rate), _samples(16, rate)
    loud = loud_frames(clip, frame, hop, top_db, floor_db).astype(np.int8)
    edges = np.minimum(np.flatnonzero(np.diff(loud, prepend=0, append=0)) * hop, length).tolist()
    starts = [clip.start_ns + samples_to_ns(edge, rate) for edge in edges]
    return [Span(begin, end) for begin, end in zip(starts[::2], starts[1::2], strict=True)]


def _samples(milliseconds: float, sample_rate: int) -> int:
    return max(2, 2 * round(milliseconds * sample_rate / 2000))


@dataclass(frozen=True, kw_only=True)
class Trim:
    """Cut silence off both ends: what is left is the same samples at the same time (``start_ns`` moves with the cut).

    Silent are frames of ``frame_ms`` every ``hop_ms`` whose loudest channel is ``top_db`` below the loudest frame or at
    ``floor_db`` (full scale is 0 dB) or less; the cut is where ``librosa.effects.trim`` makes it, ``margin_ms`` further
    out. Silence inside stays: time has no holes (``sounding_spans`` tells where it is). A clip that is silent
    throughout is refused (``silent``), or kept whole with ``silent="keep"``; 0 samples stay as they are.
    Raises ``ValueError`` for options that do not fit, ``SampleError`` (``silent``, ``non_finite``).
    """

    name: ClassVar[str] = "audio.trim"
    stream: ClassVar[Stream] = "audio"
    numerics: ClassVar[tuple[str, ...]] = ()

    top_db: float = 60.0
    floor_db: float = -80.0
    frame_ms: float = 64.0
    hop_ms: float = 16.0
    margin_ms: float = 0.0
    silent: Literal["refuse", "keep"] = "refuse"

    def __post_init__(self) -> None:
        refuse(
            self.name,
            [
                ("top_db", self.top_db, 0 < self.top_db < math.inf, "above 0 dB"),
                ("floor_db", self.floor_db, -math.inf < self.floor_db <= 0, "0 dB or below"),
                ("frame_ms", self.frame_ms, 1 <= self.frame_ms <= 1000, "1 to 1000 ms"),
                ("hop_ms", self.hop_ms, 0 < self.hop_ms <= self.frame_ms, "above 0, at most frame_ms"),
                ("margin_ms", self.margin_ms, 0 <= self.margin_ms < math.inf, "0 ms or more"),
                ("silent", self.silent, self.silent in ("refuse", "keep"), "refuse or keep"),
            ],
        )

    def prepare(self, batch: Sequence[AudioClip], device: Device) -> list[AudioClip]:
        """Return one trimmed clip for each of ``batch``."""
        del device
        return [self._trimmed(clip) if clip.samples.shape[1] else clip for clip in batch]

    def _trimmed(self, clip: AudioClip) -> AudioClip:
        require_finite(clip)
        rate, length = clip.sample_rate, clip.samples.shape[1]
        hop = _samples(self.hop_ms, rate)
        loud = np.flatnonzero(loud_frames(clip, _samples(self.frame_ms, rate), hop, self.top_db, self.floor_db))
        if not len(loud):
            if self.silent == "keep":
                return clip
            raise SampleError(
                Reason.SILENT,
                f"{self.name}: got {length / rate:.3f} s that never rise above {self.floor_db:g} dB, allowed: sound; "
                "cure: "
                "record it again, lower floor_db, or set silent to keep",
            )
        margin = round(self.margin_ms * rate / 1000)
        first = max(0, int(loud[0]) * hop - margin)
        stop = min(length, (int(loud[-1]) + 1) * hop + margin)
        if (first, stop) == (0, length):
            return clip
        kept = np.ascontiguousarray(clip.samples[:, first:stop])
        return AudioClip(samples=kept, sample_rate=rate, start_ns=clip.start_ns + samples_to_ns(first, rate))
