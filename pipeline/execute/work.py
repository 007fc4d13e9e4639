"""What crosses to a worker and back: small specs in, small reports out. Arrays never do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from features.time import Span
from features.types import Stream
from pipeline.chain import Chain
from pipeline.quarantine import Failure
from pipeline.state import StateRef
from pipeline.store import ShardFile


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
    device: str


@dataclass(kw_only=True)
class ShardReport:
    """What became of a shard. Reports add up with ``+=``."""

    shard: int
    files: list[ShardFile] = field(default_factory=list)
    removed: list[ShardFile] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    computed: dict[str, int] = field(default_factory=dict)
    """Feature -> rows computed."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> seconds of one worker: decode, prepare and extract, write."""
    notices: list[str] = field(default_factory=list)

    def __iadd__(self, other: ShardReport) -> ShardReport:
        """Take in what another shard reports."""
        self.files += other.files
        self.removed += other.removed
        self.failures += other.failures
        self.notices += other.notices
        for feature, rows in other.computed.items():
            self.computed[feature] = self.computed.get(feature, 0) + rows
        for stage, seconds in other.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        return self
