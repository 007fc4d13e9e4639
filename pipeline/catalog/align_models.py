"""How the features of a data set are aligned, as it is written in the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from features.align.pool import Policy, Pooling
from features.align.timeline import Pieces
from features.time import seconds_to_ns
from features.types import Stream
from pipeline.catalog.base import Model, Share, Text

Seconds: TypeAlias = Annotated[float, Field(gt=0, le=1e9)]
Moment: TypeAlias = Annotated[float, Field(ge=-1e9, le=1e9)]
Signal: TypeAlias = Literal["value", "rise"]

TIMELINES = ("grid", "text", "rows_of", "intervals")


def _kind(written: Any) -> str:
    """Which member of a union of a plain value and a mapping is meant."""
    return "mapping" if isinstance(written, (dict, Model)) else "plain"


class Grid(Model):
    """Windows of one length."""

    length: Seconds = Field(description="length of a window, seconds")
    hop: Seconds | None = Field(
        default=None, description="from one start to the next, seconds; shorter than `length`: they overlap"
    )
    phase: Moment = Field(default=0.0, description="where the first window begins, seconds after the sample does")

    @model_validator(mode="after")
    def _sense(self) -> Grid:
        for name in ("length", "hop"):
            seconds = getattr(self, name)
            if seconds is not None and seconds_to_ns(seconds) < 1:
                raise ValueError(f"{name}: got {seconds:g} s, allowed: at least one nanosecond (1e-9)")
        if self.phase <= -self.length:
            raise ValueError(f"phase: got {self.phase:g} s, allowed: above {-self.length:g}, minus the length")
        return self


class Intervals(Model):
    """Intervals of each sample, from a table below root."""

    path: Text = Field(description="a .csv or .parquet file, relative to root; a row is an interval")
    id: Text = Field(default="sample_id", description="its column of sample ids")
    start: Text = Field(default="start", description="its column of starts, seconds on the clock of the files")
    end: Text = Field(default="end", description="its column of ends (exclusive), seconds")

    @field_validator("path")
    @classmethod
    def _known(cls, path: str) -> str:
        if not path.lower().endswith((".csv", ".parquet")):
            raise ValueError(f"got {path!r}, allowed: a .csv or .parquet file")
        return path


class PolicySpec(Model):
    """A policy and its options."""

    policy: Policy = Field(description="how rows become one")
    tolerance: Annotated[float, Field(ge=0, le=1e9)] | None = Field(
        default=None, description="nearest: how far from the centre of an interval a row may be, seconds"
    )
    bins: tuple[float, ...] | None = Field(
        default=None, description="histogram: edges of the bins that each column is counted in; without: largest column"
    )

    @model_validator(mode="after")
    def _sense(self) -> PolicySpec:
        if self.tolerance is not None and self.policy != "nearest":
            raise ValueError(f"tolerance is for nearest, and the policy is {self.policy}")
        if self.bins is not None and self.policy != "histogram":
            raise ValueError(f"bins are for histogram, and the policy is {self.policy}")
        if self.bins is not None and (len(self.bins) < 2 or sorted(set(self.bins)) != list(self.bins)):
            raise ValueError(f"bins: got {list(self.bins)}, allowed: two or more ascending edges")
        return self

    @property
    def pooling(self) -> Pooling:
        """The same for ``features.align.pool``."""
        tolerance = None if self.tolerance is None else seconds_to_ns(self.tolerance)
        return Pooling(self.policy, tolerance_ns=tolerance, bins=self.bins)


Pooled: TypeAlias = Annotated[
    Annotated[Policy, Tag("plain")] | Annotated[PolicySpec, Tag("mapping")], Discriminator(_kind)
]


class SignalSpec(Model):
    """A column of a feature, as a signal in time."""

    feature: Text = Field(description="a feature of this data set")
    column: Annotated[int, Field(ge=0)] | Text = Field(default=0, description="its column: number from 0, or name")
    take: Signal | None = Field(
        default=None,
        description="value: as it is; rise: how much a row is above the last; by default rise for sound, else value",
    )


class Estimate(Model):
    """An offset that is found out for each sample, by what two features have in common."""

    model_config = ConfigDict(populate_by_name=True)

    signals: tuple[
        Annotated[Annotated[Text, Tag("plain")] | Annotated[SignalSpec, Tag("mapping")], Discriminator(_kind)], ...
    ] = Field(
        alias="from",
        min_length=2,
        max_length=2,
        description="a feature of this stream and one of another: name, name/column, or {feature, column, take}",
    )
    max_offset: Annotated[float, Field(ge=0.01, le=3600)] = Field(
        default=1.0, description="the largest offset that is tried, seconds either way"
    )
    min_confidence: Share = Field(default=0.4, description="below it the clock is left as it is, which is told")

    @property
    def pair(self) -> tuple[SignalSpec, SignalSpec]:
        """The two signals, written out."""
        one, other = (_signal(written) for written in self.signals)
        return one, other


def _signal(written: str | SignalSpec) -> SignalSpec:
    if isinstance(written, SignalSpec):
        return written
    feature, _, column = written.partition("/")
    return SignalSpec(feature=feature, column=int(column) if column.isdecimal() else column or 0)


class Clock(Model):
    """How the times of a stream are corrected: t' = t + offset + t * drift_ppm / 1e6."""

    offset: Moment = Field(default=0.0, description="seconds that are added to the stream's times")
    drift_ppm: Annotated[float, Field(ge=-100_000, le=100_000)] = Field(
        default=0.0, description="by how much the stream's clock is too slow: millionths, added to what it counts"
    )
    estimate: Estimate | None = Field(default=None, description="find the offset of each sample out instead")

    @model_validator(mode="after")
    def _one(self) -> Clock:
        if self.estimate is not None and self.offset:
            raise ValueError("an offset is given and is to be estimated; cure: one of the two")
        return self

    @property
    def offset_ns(self) -> int:
        """``offset`` in nanoseconds."""
        return seconds_to_ns(self.offset)


class Durations(Model):
    """What becomes of samples whose sound and picture do not last equally long."""

    tolerance: Annotated[float, Field(ge=0, le=1e9)] = Field(
        default=1.0, description="by how much they may differ, seconds"
    )
    then: Literal["flag", "quarantine"] = Field(
        default="flag", description="flag: a notice, and the sample is aligned; quarantine: it is not"
    )


class Align(Model):
    """The common timeline of a data set's features: one of grid, text, rows_of and intervals."""

    grid: Annotated[Annotated[Seconds, Tag("plain")] | Annotated[Grid, Tag("mapping")], Discriminator(_kind)] | None = (
        Field(default=None, description="windows: their length in seconds, or {length, hop, phase}")
    )
    text: Pieces | None = Field(
        default=None,
        description="the times of the sample's text: segments (as the file times them), words, or sentences",
    )
    rows_of: Text | None = Field(default=None, description="a feature, each of whose rows is an interval")
    intervals: Intervals | None = Field(default=None, description="intervals from a table")
    policies: Mapping[str, Pooled] = Field(
        default_factory=dict, description="feature -> how its rows become one: a policy, or {policy, tolerance, bins}"
    )
    default: Pooled = Field(default="mean", description="the policy of features that `policies` does not name")
    clocks: Mapping[Stream, Clock] = Field(default_factory=dict, description="stream -> correction of its times")
    durations: Durations = Field(
        default=Durations(), description="what becomes of samples whose sound and picture last differently"
    )

    @model_validator(mode="after")
    def _one_timeline(self) -> Align:
        named = [name for name in TIMELINES if getattr(self, name) is not None]
        if len(named) != 1:
            got = " and ".join(named) or "no timeline"
            raise ValueError(f"got {got}, allowed: one of {', '.join(TIMELINES)}")
        if isinstance(self.grid, float) and seconds_to_ns(self.grid) < 1:
            raise ValueError(f"grid: got {self.grid:g} s, allowed: at least one nanosecond (1e-9)")
        return self

    @property
    def windows(self) -> Grid | None:
        """``grid``, written out."""
        return Grid(length=self.grid) if isinstance(self.grid, (int, float)) else self.grid

    def pooling(self, feature: str) -> Pooling:
        """How the rows of ``feature`` become one."""
        found = self.policies.get(feature, self.default)
        return found.pooling if isinstance(found, PolicySpec) else Pooling(found)

    @property
    def timeline(self) -> dict[str, Any]:
        """The timeline as a JSON document."""
        if self.windows is not None:
            return {"grid": self.windows.model_dump()}
        return self.model_dump(include=set(TIMELINES), exclude_none=True)
