"""What each sample of the demo corpus is, and what each modality shows of it."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from hashlib import blake2b
from typing import Any, Literal, TypeAlias

import numpy as np

State: TypeAlias = Literal["clear", "obscured", "broken"]

WEATHERS = ("calm", "storm")
TIMES = ("day", "night")
FRAME_RATE = Fraction(25, 2)
OBSCURED_ONE_IN = 8


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is known of one sample: its label and what each modality shows of it."""

    sample_id: str
    weather: str
    time: str
    image: State
    video: State
    audio: State
    text: State
    frames: int

    @property
    def label(self) -> str:
        """The class, such as ``calm-day``; also the folder that the files lie in."""
        return f"{self.weather}-{self.time}"

    @property
    def duration(self) -> Fraction:
        """Seconds of video, and of audio."""
        return self.frames / FRAME_RATE

    @property
    def cut(self) -> int:
        """Index of the first frame of the second shot."""
        return self.frames // 2


def make_truth(samples: int, seed: int) -> tuple[Truth, ...]:
    """Return what the corpus of ``samples`` and ``seed`` shows, the two broken samples last."""
    rng = generator(seed, "truth")
    share = samples // OBSCURED_ONE_IN
    seen, heard = rng.permutation(samples), rng.permutation(samples)
    obscured = {"image": seen[:share], "video": seen[share : 2 * share]}
    obscured |= {"audio": heard[:share], "text": heard[share : 2 * share]}
    truths = []
    for index in range(samples):
        weather, time = WEATHERS[index % 2], TIMES[index // 2 % 2]
        states: dict[str, Any] = {m: "obscured" if index in where else "clear" for m, where in obscured.items()}
        sample_id = f"{weather}-{time}/clip-{index:04d}"
        truths.append(Truth(sample_id=sample_id, weather=weather, time=time, frames=_frames(rng), **states))
    truths.append(
        Truth(sample_id="calm-day/broken-video", weather="calm", time="day", image="clear", video="broken",
              audio="broken", text="clear", frames=_frames(rng))
    )  # fmt: skip
    truths.append(
        Truth(sample_id="storm-night/broken-image", weather="storm", time="night", image="broken", video="clear",
              audio="clear", text="clear", frames=_frames(rng))
    )  # fmt: skip
    return tuple(truths)


def _frames(rng: np.random.Generator) -> int:
    return int(rng.integers(25, 38))


def generator(seed: int, *names: str) -> np.random.Generator:
    """Random numbers of their own for each seed and names."""
    digest = blake2b("/".join((str(seed), *names)).encode(), digest_size=16).digest()
    return np.random.default_rng(np.frombuffer(digest, dtype="<u4"))
