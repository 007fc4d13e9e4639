"""What was measured, and what it is held against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

FIGURES = ("guard", "scaling", "reading", "writing", "between", "failed")
"""What is measured as a ratio, and can have a floor."""


@dataclass(frozen=True, kw_only=True)
class Floor:
    """A limit on one of the figures: ``least`` or ``most``."""

    figure: str
    least: float | None = None
    most: float | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Check:
    """A figure held against its floor."""

    figure: str
    got: float
    allowed: str
    passed: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one part of the work costs: ``count`` samples or rows in ``seconds`` of one worker."""

    what: str
    count: int
    seconds: float
    share: float

    @property
    def rate(self) -> float:
        """Samples (or rows) by second of one worker."""
        return self.count / self.seconds if self.seconds else float("inf")


@dataclass(kw_only=True)
class Bench:
    """What was measured. ``figures`` are ratios, so that they can be held against floors on any machine."""

    dataset: str
    samples: int
    failed: int
    device: str
    workers: int
    cores: int
    parts: list[Part] = field(default_factory=list)
    """Parts of the work, by one worker without guard; their shares sum to 1."""
    figures: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    """``start``: until workers are ready; ``alone``, ``guarded``, ``all``: the work, in the three ways."""
    skipped: list[str] = field(default_factory=list)
    """Features that could not be measured, and why."""
    advice: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)

    @property
    def bottleneck(self) -> Part:
        """The part that takes most of the time."""
        return max(self.parts, key=lambda part: part.seconds)

    @property
    def passed(self) -> bool:
        """Whether every floor is held."""
        return all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON document."""
        parts = [vars(part) | {"rate": part.rate} for part in self.parts]
        checks = [vars(check) for check in self.checks]
        return vars(self) | {"parts": parts, "checks": checks, "bottleneck": self.bottleneck.what}
