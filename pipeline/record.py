"""What a run did, as data: counts that add up, seconds by stage, what was published. Printed, stored, compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from features.base import WordCounts
from features.errors import RunFailedError


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The samples of one feature (or of the whole data set).

    ``in = done + unchanged + quarantined + deferred``, always. Deferred: stale or missing, but not asked for.
    """

    samples_in: int
    done: int
    unchanged: int
    quarantined: int
    removed: int = 0
    deferred: int = 0

    def check(self, what: str) -> None:
        """Raise ``RunFailedError`` when a sample was lost or invented."""
        if self.samples_in != self.done + self.unchanged + self.quarantined + self.deferred:
            raise RunFailedError(
                f"{what}: {self.samples_in} samples in, but {self.done} done + {self.unchanged} unchanged + "
                f"{self.quarantined} quarantined + {self.deferred} deferred; nothing was published. A defect of "
                "Gristmill: please report it"
            )


RunStatus: TypeAlias = Literal["running", "published", "unchanged", "red", "interrupted"]
"""How a run stands. Red: it failed, and the snapshot of before still serves. Interrupted: someone stopped it."""

DECODED_TOGETHER = "video+audio"
"""The stream that one pass over a video file for its frames and its sound counts as."""


@dataclass
class Spent:
    """What a part of the work cost so far: ``count`` pieces in ``seconds`` of workers."""

    count: int = 0
    seconds: float = 0.0

    def __iadd__(self, other: Spent) -> Spent:
        """Take in what another shard or run spent."""
        self.count += other.count
        self.seconds += other.seconds
        return self


@dataclass(kw_only=True)
class RunReport:
    """One execution. ``snapshot`` is the version that readers see after it, ``published`` whether this run made it."""

    run_id: str
    dataset: str
    started: str
    base: int | None
    snapshot: int | None = None
    published: bool = False
    samples: Counts | None = None
    features: dict[str, Counts] = field(default_factory=dict)
    reasons: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    resumed: int = 0
    """Rows that an earlier run had computed but not published."""
    aligned_samples: int = 0
    aligned_rows_written: int = 0
    quarantine_by_reason: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """Stage -> wall seconds."""
    worker_seconds: dict[str, float] = field(default_factory=dict)
    """Part of extraction (decode, extract, write) -> seconds summed over the workers."""
    spent: dict[str, Spent] = field(default_factory=dict)
    """``decode <stream>``, ``extract <feature>``, ``write <feature>``, ``align`` -> samples or rows, and seconds."""
    notices: list[str] = field(default_factory=list)
    words: dict[str, WordCounts] = field(default_factory=dict)
    """Feature -> words that its computed rows were made from, and those among them that it does not know."""
    flags: dict[str, dict[str, str]] = field(default_factory=dict)
    """Feature -> sample id -> what its prepare steps say of a medium that they let pass."""
    status: RunStatus = "running"
    finished: str = ""
    """When it ended (ISO 8601, UTC); empty while it runs."""
    error: str = ""
    """Why a red run failed, in words."""
    page: str = ""
    """Where the page for people lies (``report.html``); empty where none was made."""
    settings: dict[str, Any] = field(default_factory=dict)
    """The data set as the catalog had it, and the engine."""
    versions: dict[str, str] = field(default_factory=dict)
    """Gristmill, Python and the libraries that the work rests on."""

    @property
    def computed(self) -> int:
        """Feature rows computed by this run."""
        return sum(counts.done for counts in self.features.values())

    def as_json(self) -> dict[str, Any]:
        """The report as a JSON document."""
        return asdict(self) | {"computed": self.computed}
