"""``audio.channels``: which channels the steps after it see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from features.audio.frames import refuse
from features.audio.resample import CHANNELS, select
from features.audio.resample import Channels as Policy
from features.types import AudioClip, Device, Stream


@dataclass(frozen=True, kw_only=True)
class Channels:
    """Mix or choose channels; same rate, length and clock.

    ``policy``: "mean" mixes all channels into one (channels in opposite phase cancel), "first" keeps the first, "each"
    keeps all and refuses clips that do not have exactly ``count`` (``unsupported_format``). Denoising or trimming after
    it costs that much less. Extractors have the same policy as their option ``channels``; with "each" their rows hold
    the columns of every channel side by side, never one channel as a sample of its own.
    Raises ``ValueError`` for options that do not fit, ``SampleError`` (``non_finite``) for NaN or infinity.
    """

    name: ClassVar[str] = "audio.channels"
    stream: ClassVar[Stream] = "audio"
    numerics: ClassVar[tuple[str, ...]] = ()

    policy: Policy = "mean"
    count: int = 1

    def __post_init__(self) -> None:
        fits = self.count >= 1 and (self.policy == "each" or self.count == 1)
        refuse(
            self.name,
            [
                ("policy", self.policy, self.policy in CHANNELS, " or ".join(CHANNELS)),
                ("count", self.count, fits, ">= 1, and 1 unless policy is 'each'"),
            ],
        )

    def prepare(self, batch: Sequence[AudioClip], device: Device) -> list[AudioClip]:
        """Return one clip for each of ``batch``."""
        del device
        return [select(clip, self.policy, self.count, self.name) for clip in batch]
