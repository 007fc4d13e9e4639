"""The catalog as it is written: one pydantic model for each mapping of ``data_catalog.yaml``.

The models say what each key may hold (docs/catalog.md is the reference for people, ``gristmill``'s JSON Schema the one
for editors). What cannot be seen in the file alone (folders, steps, chains) is checked by ``pipeline.catalog``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

from features.time import seconds_to_ns
from features.types import STREAMS, Stream

NAME = r"^[A-Za-z0-9_.-]+$"
"""What a feature may be called."""
DATA_SET_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""What a data set may be called: it is also a folder of the store."""

SPLITS = ("train", "validation", "test")

Policy: TypeAlias = Literal["mean", "max", "nearest", "first", "last", "linear", "sum"]
Text: TypeAlias = Annotated[str, StringConstraints(min_length=1)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
Count: TypeAlias = Annotated[int, Field(ge=1)]


class Model(BaseModel):
    """Base of all: frozen, strict types, unknown keys forbidden, no NaN and no infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Engine(Model):
    """How work is executed."""

    kind: Literal["dask", "serial"] = Field(
        default="dask", description="dask: worker processes; serial: this process alone"
    )
    workers: Count | Literal["auto"] = Field(
        default="auto", description="worker processes; auto: one for each core or GPU"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: CUDA where there is one, else CPU"
    )


class Columns(Model):
    """Which column of a manifest holds what. At least one of video, audio, image and text must be named."""

    id: Text | None = Field(
        default=None, description="sample id; without it: the row's path, and @start where there is one"
    )
    split: Text | None = Field(default=None, description="split of the sample; rows without one are split by `splits`")
    label: Text | None = Field(default=None, description="label of the sample; an empty cell is no label")
    start: Text | None = Field(default=None, description="where the sample's window of its files begins, seconds")
    end: Text | None = Field(default=None, description="where the window ends (exclusive), seconds")
    video: Text | None = Field(default=None, description="path of the video file, relative to root")
    audio: Text | None = Field(default=None, description="path of the audio file, relative to root")
    image: Text | None = Field(default=None, description="path of the image file, relative to root")
    text: Text | None = Field(default=None, description="path of the text or caption file, relative to root")

    @model_validator(mode="after")
    def _whole(self) -> Columns:
        if not self.streams:
            raise ValueError("no column of files is named, allowed: at least one of video, audio, image, text")
        if (self.start is None) != (self.end is None):
            raise ValueError("start and end make a window together; cure: name both or neither")
        return self

    @property
    def streams(self) -> dict[Stream, str]:
        """Stream -> manifest column, for the streams that have one."""
        named: dict[Stream, str | None] = {stream: getattr(self, stream) for stream in STREAMS}
        return {stream: column for stream, column in named.items() if column is not None}


class _Source(Model):
    split_names: dict[Text, Text] = Field(
        default_factory=dict, description="what a split found in the source is called here, such as {dev: validation}"
    )


class FolderSource(_Source):
    """Samples are the files of a folder: those with the same path without extension make one sample."""

    kind: Literal["folder"] = Field(description="samples are the files below root")
    label_from: Literal["folder", "none"] = Field(
        default="none",
        description="folder: the label is the name of the folder that the files lie in; root itself gives none",
    )
    split_from: Literal["folder", "none"] = Field(
        default="none", description="folder: the split is the name of the topmost folder below root"
    )
    include: Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        default=("**/*",), description="globs on the path below root; ** is any number of folders"
    )

    @field_validator("include")
    @classmethod
    def _globs(cls, include: tuple[str, ...]) -> tuple[str, ...]:
        import re

        from fsspec.utils import glob_translate

        for pattern in include:
            try:
                re.compile(glob_translate(pattern))
            except (ValueError, re.error) as error:
                raise ValueError(f"got {pattern!r}, allowed: a glob such as '**/*.mp4' ({error})") from error
        return include


class ManifestSource(_Source):
    """Samples are the rows of a table below root."""

    path: Text = Field(description="the manifest, relative to root")
    columns: Columns = Field(description="which column holds what")
    siblings: bool = Field(
        default=False,
        description="files with the same path without extension as a file that the row names give the streams that "
        "have no column",
    )


class CsvSource(ManifestSource):
    """Samples are the rows of a CSV file: UTF-8, a header line, RFC 4180 quotes."""

    kind: Literal["csv"] = Field(description="samples are the rows of a CSV file")
    delimiter: Annotated[str, StringConstraints(min_length=1, max_length=1)] = Field(
        default=",", description='what stands between cells: one character, such as ";" or "\\t"'
    )


class JsonlSource(ManifestSource):
    """Samples are the lines of a file of JSON objects."""

    kind: Literal["jsonl"] = Field(description="samples are the lines of a JSON Lines file")


class ParquetSource(ManifestSource):
    """Samples are the rows of a Parquet file."""

    kind: Literal["parquet"] = Field(description="samples are the rows of a Parquet file")


TableSource: TypeAlias = CsvSource | JsonlSource | ParquetSource
Source: TypeAlias = Annotated[FolderSource | CsvSource | JsonlSource | ParquetSource, Field(discriminator="kind")]

SOURCES: dict[str, type[Model]] = {
    "folder": FolderSource,
    "csv": CsvSource,
    "jsonl": JsonlSource,
    "parquet": ParquetSource,
}


class Splits(Model):
    """Shares of the splits, for samples whose source gives none. A share that is not written is 0."""

    train: Share = Field(default=0.0, description="share of samples to train on")
    validation: Share = Field(default=0.0, description="share of samples that early stopping looks at")
    test: Share = Field(default=0.0, description="share of samples that metrics are measured on")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(default=0, description="another seed gives another split")
    by: Literal["sample", "file"] = Field(
        default="sample", description="file: all samples that are windows of one file get the same split"
    )

    @model_validator(mode="before")
    @classmethod
    def _shares(cls, written: Any) -> Any:
        if isinstance(written, dict) and not any(name in written for name in SPLITS):
            return {**written, "train": 0.8, "validation": 0.1, "test": 0.1}
        return written

    @model_validator(mode="after")
    def _sum(self) -> Splits:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-9:
            raise ValueError(f"the shares of train, validation and test sum to {total:g}, allowed: 1")
        return self


class FeatureSpec(Model):
    """One feature: prepare steps, then an extractor."""

    extractor: Text | None = Field(
        default=None,
        description="a registered extractor, or module:Class; without it: the one that the feature is named after",
    )
    prepare: tuple[Any, ...] = Field(
        default=(), description="steps before the extractor: a name, or {name: {option: value}}"
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of the extractor")


class Align(Model):
    """The common timeline of a data set's features."""

    grid: Annotated[float, Field(gt=0)] = Field(description="length of an interval of the timeline, seconds")
    policies: dict[str, Policy] = Field(default_factory=dict, description="feature -> how its rows become one")
    default: Policy = Field(default="mean", description="the policy of features that `policies` does not name")

    @property
    def step_ns(self) -> int:
        """``grid`` in nanoseconds."""
        return seconds_to_ns(self.grid)

    @model_validator(mode="after")
    def _step(self) -> Align:
        if self.step_ns < 1:
            raise ValueError(f"grid: got {self.grid:g} s, allowed: at least one nanosecond (1e-9)")
        return self

    def policy(self, feature: str) -> Policy:
        """The policy of ``feature``."""
        return self.policies.get(feature, self.default)


class Fit(Model):
    """When what is fitted on the corpus (word vectors) is fitted again. Every new fit recomputes the feature's rows."""

    every_days: Count | None = Field(
        default=None, description="fit again when the state is this many days old; null: only by `gristmill rebuild`"
    )


class Train(Model):
    """How the fusion models are trained."""

    methods: Annotated[tuple[Literal["early", "late"], ...], Field(min_length=1)] = Field(
        default=("early", "late"), description="fusion methods, each trained beside every feature alone"
    )
    epochs: Count = Field(default=60, description="passes over the training split, at most")
    hidden: Count = Field(default=64, description="width of the hidden layers")
    learning_rate: Annotated[float, Field(gt=0)] = Field(default=0.001, description="of AdamW")
    batch_size: Count = Field(default=32, description="samples a step")
    seeds: Count = Field(default=1, description="how many times everything is trained; metrics give mean and deviation")
    patience: Count = Field(default=10, description="epochs without a better validation loss before training stops")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.2, description="share of activations dropped in training"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.0001, description="of AdamW")

    @field_validator("methods")
    @classmethod
    def _once(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(methods)) < len(methods):
            raise ValueError(f"got {list(methods)}, allowed: each method once")
        return methods


class Report(Model):
    """The page that every run leaves."""

    pictures: Annotated[int, Field(ge=0, le=100)] = Field(
        default=12, description="samples of each kind that are shown, at most; 0: a page without pictures"
    )


class DataSetFile(Model):
    """One data set, as written."""

    root: Text = Field(description="folder (relative to the catalog) or URL that all media files lie in")
    source: Source = Field(description="where the samples come from")
    splits: Splits = Field(default=Splits(train=0.8, validation=0.1, test=0.1), description="shares of the splits")
    features: Annotated[
        dict[Annotated[str, StringConstraints(pattern=NAME)], FeatureSpec | None], Field(min_length=1)
    ] = Field(description="what is extracted: name -> feature")
    align: Align | None = Field(default=None, description="the common timeline; without it nothing is aligned")
    fit: Fit = Field(default=Fit(), description="when fitted state is fitted again")
    train: Train = Field(default=Train(), description="how the fusion models are trained")
    max_failed: Share = Field(
        default=0.1, description="share of samples that may fail; above it a run publishes nothing"
    )
    shard_samples: Count = Field(default=64, description="samples in one shard, the unit of work and of storage")
    report: Report = Field(default=Report(), description="the page that every run leaves")


class CatalogFile(Model):
    """The whole of ``data_catalog.yaml``, as written."""

    version: Literal[1] = Field(description="version of this format")
    store: Text = Field(description="folder (relative to the catalog) or URL that results are kept in")
    engine: Engine = Field(default=Engine(), description="how work is executed")
    metrics: Text | None = Field(
        default=None, description="file (relative to the catalog) that metrics of the last runs are written to"
    )
    on_failure: Annotated[tuple[Text, ...], Field(min_length=1)] | None = Field(
        default=None, description="command and arguments that are called when a run fails"
    )
    datasets: Annotated[
        dict[Annotated[str, StringConstraints(pattern=DATA_SET_NAME)], DataSetFile], Field(min_length=1)
    ] = Field(description="the data sets, by name")
