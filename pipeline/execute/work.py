"""What crosses to a worker and back: small specs in, small reports out. Arrays never do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from features.base import WordCounts
from features.time import Span
from features.types import Device, Stream
from pipeline.chain import Chain
from pipeline.record import Spent
from pipeline.state import StateRef
from pipeline.store import ShardFile
from pipeline.store.quarantine import Failure


@dataclass(frozen=True, kw_only=True)
class SampleWork:
    """A sample whose media must be read: where its streams lie and which part of them is the sample."""

    sample_id: str
    uris: Mapping[Stream, str]
    span: Span | None


@dataclass(frozen=True, kw_only=True)
class FeatureWork:
    """What one feature needs in one shard.

    ``compute``: sample id -> content digest. ``keep``: ids whose rows are taken from ``base`` as they are, but for
    split and label.
    """

    chain: Chain
    recipe: bytes
    state: StateRef | None
    compute: Mapping[str, bytes]
    keep: frozenset[str]
    base: ShardFile | None

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the rows that come out, as a JSON document."""
        return {
            "feature": self.chain.name,
            "recipe": self.recipe.hex(),
            "compute": {sample_id: content.hex() for sample_id, content in self.compute.items()},
            "keep": sorted(self.keep),
            "base": None if self.base is None else self.base.path,
        }


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What keeps a bad sample from harming others: rows are computed in a child process with limits.

    ``folder`` is the catalog's, which the user's own steps are imported from; ``environment`` is set for the child;
    ``sample_seconds`` is what decoding a sample, or one feature of it, may take; ``memory`` is what the process may
    hold, in bytes.
    """

    folder: str
    environment: Mapping[str, str]
    sample_seconds: float
    memory: int


@dataclass(frozen=True, kw_only=True)
class ShardWork:
    """One shard of a run. ``roster``: sample id -> (split, label) of every sample in the shard."""

    store: str
    dataset: str
    run_id: str
    shard: int
    roster: Mapping[str, tuple[str, str | None]]
    samples: tuple[SampleWork, ...]
    features: tuple[FeatureWork, ...]
    device: Device
    decode_threads: int = 0
    """Threads that decode ahead of the device; 0: none."""
    hardware: bool = False
    """Video is decoded by the GPU, where it gives the same frames."""
    guard: Guard | None = None
    """Limits of the child process that computes; ``None``: this process computes, without limits."""

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the files that come out, as a JSON document; the same work has the same identity in any run."""
        return {
            "shard": self.shard,
            "roster": dict(self.roster),
            "features": [feature.identity for feature in self.features],
        }


@dataclass(kw_only=True)
class ShardReport:
    """What became of a shard. Reports add up with ``+=``."""

    shard: int
    entry: str = ""
    """The ledger's name for the work."""
    files: list[ShardFile] = field(default_factory=list)
    removed: list[ShardFile] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    computed: dict[str, int] = field(default_factory=dict)
    """Feature -> samples computed."""
    rows: dict[str, int] = field(default_factory=dict)
    """Feature -> rows of their sequences."""
    masked: dict[str, int] = field(default_factory=dict)
    """Feature -> those of them that are not valid."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> seconds of one worker: decode, prepare and extract, write."""
    spent: dict[str, Spent] = field(default_factory=dict)
    """``decode <stream>``, ``extract <feature>``, ``write <feature>`` -> samples or rows, and their seconds."""
    notices: list[str] = field(default_factory=list)
    words: dict[str, WordCounts] = field(default_factory=dict)
    """Feature -> words that its rows were made from, and those among them that it does not know."""
    flags: dict[str, dict[str, str]] = field(default_factory=dict)
    """Feature -> sample id -> what its prepare steps say of a medium that they let pass."""

    def __iadd__(self, other: ShardReport) -> ShardReport:
        """Take in what another shard reports."""
        self.files += other.files
        self.removed += other.removed
        self.failures += other.failures
        self.notices += other.notices
        for mine, theirs in ((self.computed, other.computed), (self.rows, other.rows), (self.masked, other.masked)):
            for feature, count in theirs.items():
                mine[feature] = mine.get(feature, 0) + count
        for stage, seconds in other.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        for part, spent in other.spent.items():
            self.spent.setdefault(part, Spent()).__iadd__(spent)
        for feature, words in other.words.items():
            self.words.setdefault(feature, WordCounts()).__iadd__(words)
        for feature, flags in other.flags.items():
            self.flags.setdefault(feature, {}).update(flags)
        return self
