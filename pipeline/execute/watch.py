"""Who is told of the work on a shard, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from features.base import WordCounts
from features.types import FeatureSequence
from pipeline.record import Spent
from pipeline.store.quarantine import Failure


class Watch(Protocol):
    """Who is told what happens, as it happens."""

    def begin(self, feature: str, sample_ids: Sequence[str]) -> None:
        """These samples are being decoded (``feature`` is empty) or computed; inside what was begun before."""
        ...

    def end(self) -> None:
        """What was begun last is over."""
        ...

    def row(self, feature: str, sample_id: str, view: int, sequence: FeatureSequence) -> None:
        """A row is finished."""
        ...

    def failed(self, failure: Failure) -> None:
        """A sample failed in one feature, in all its views."""
        ...


@dataclass
class Tally:
    """What the work cost, and what people must be told."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> seconds of one worker."""
    spent: dict[str, Spent] = field(default_factory=dict)
    """``decode <stream>``, ``extract <feature>`` -> samples or rows, and their seconds."""
    notices: list[str] = field(default_factory=list)
    words: dict[str, WordCounts] = field(default_factory=dict)
    """Feature -> words that its rows were made from, and those among them that it does not know."""
    flags: dict[str, dict[str, str]] = field(default_factory=dict)
    """Feature -> sample id -> what its prepare steps say of a medium that they let pass."""

    def add(self, stage: str, what: str, seconds: float, count: int = 0) -> None:
        """Count the cost of a part of the work."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self.spent.setdefault(f"{stage} {what}", Spent()).__iadd__(Spent(count=count, seconds=seconds))

    def __iadd__(self, other: Tally) -> Tally:
        """Take in what another part of the same work cost."""
        for stage, seconds in other.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        for part, spent in other.spent.items():
            self.spent.setdefault(part, Spent()).__iadd__(spent)
        self.notices += other.notices
        for feature, words in other.words.items():
            self.words.setdefault(feature, WordCounts()).__iadd__(words)
        for feature, flags in other.flags.items():
            self.flags.setdefault(feature, {}).update(flags)
        return self
