"""The catalog as it is written: one pydantic model for each mapping of ``data_catalog.yaml``.

The models say what each key may hold (docs/catalog.md is the reference for people, ``gristmill``'s JSON Schema the one
for editors). What cannot be seen in the file alone (folders, steps, chains) is checked by ``pipeline.catalog``.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import ByteSize, Field, StringConstraints, field_validator, model_validator

from features.types import STREAMS, Stream
from pipeline.catalog.align_models import Align
from pipeline.catalog.base import Count, Model, Share, Text
from pipeline.catalog.train_models import Train

NAME = r"^[A-Za-z0-9_.-]+$"
"""What a feature may be called."""
DATA_SET_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
"""What a data set may be called: it is also a folder of the store."""

SPLITS = ("train", "validation", "test")


class Tls(Model):
    """How a Dask scheduler is spoken with: paths of PEM files, relative to the catalog."""

    ca: Text = Field(description="certificates of the authority that signed the others")
    cert: Text = Field(description="this client's certificate")
    key: Text = Field(description="its private key")


class Engine(Model):
    """How work is executed."""

    kind: Literal["dask", "serial"] = Field(
        default="dask", description="dask: worker processes; serial: this process alone, without limits, for debugging"
    )
    workers: Count | Literal["auto"] = Field(
        default="auto", description="worker processes; auto: one for each core or GPU"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: CUDA where there is one, else CPU"
    )
    memory: ByteSize | Literal["auto"] = Field(
        default="auto",
        description="what all workers may hold together, such as 12GiB; auto: four fifths of the machine's. A sample "
        "that wants more than its worker's share is quarantined (out_of_memory)",
    )
    sample_seconds: Annotated[float, Field(gt=0)] = Field(
        default=600.0,
        description="what decoding a sample, or one feature of it, may take; a sample that takes longer is quarantined "
        "(timeout)",
    )
    decode_threads: Annotated[int, Field(ge=0)] | Literal["auto"] = Field(
        default="auto",
        description="threads of a worker that decode ahead of its device; auto: none on a CPU, whose cores are busy "
        "anyway, and the worker's share of the cores with a GPU",
    )
    video_decoder: Literal["software", "nvdec"] = Field(
        default="software",
        description="nvdec: a GPU's own decoder, for files of which it gives the same frames as software (some are "
        "compared, of each file); the others are decoded in software, which a notice tells. It pays for long videos",
    )
    scheduler: Text | None = Field(
        default=None,
        pattern=r"^(tcp|tls|ws|wss|ucx)://.+",
        description="address of a running Dask scheduler, such as tls://10.0.0.5:8786; null: a cluster on this machine",
    )
    tls: Tls | None = Field(default=None, description="certificates for the scheduler; needed for tls:// addresses")
    resources: dict[Text, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="Dask worker resources that a shard takes, such as {GPU: 1}; only with a scheduler",
    )

    @model_validator(mode="after")
    def _whole(self) -> Engine:
        if self.scheduler is None and (self.tls is not None or self.resources):
            raise ValueError("tls and resources belong to a scheduler; cure: name it, or leave them out")
        if self.scheduler is not None and self.scheduler.startswith("tls://") and self.tls is None:
            raise ValueError("a tls:// scheduler needs tls: {ca, cert, key}")
        if self.scheduler is not None and (self.kind == "serial" or self.workers != "auto"):
            raise ValueError("a scheduler has its own workers; cure: leave kind and workers out")
        return self


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


class Views(Model):
    """Seeded augmentations of a feature's samples: stored beside the samples themselves, as views 1 to ``count``."""

    count: Count = Field(description="views of each sample")
    steps: Annotated[tuple[Any, ...], Field(min_length=1)] = Field(
        description="augmentations, after the prepare steps: a name, or {name: {option: value}}"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(default=0, description="another seed gives other views")
    splits: Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        default=("train",), description="whose samples get views; those of other splits are never altered"
    )


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
    views: Views | None = Field(default=None, description="augmented views of training samples; null: none")


class Fit(Model):
    """When what is fitted on the corpus (word vectors) is fitted again. Every new fit recomputes the feature's rows."""

    every_days: Count | None = Field(
        default=None, description="fit again when the state is this many days old; null: only by `gristmill rebuild`"
    )


class Schedule(Model):
    """When a data set is brought up to date by `gristmill serve`."""

    cron: Text = Field(description="five fields: minute, hour, day of month, month, day of week; such as '0 2 * * *'")
    timezone: Text = Field(default="UTC", description="of the cron fields, such as Europe/Berlin")

    @field_validator("cron")
    @classmethod
    def _cron(cls, cron: str) -> str:
        from cronsim import CronSim, CronSimError

        try:
            CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC))
        except CronSimError as error:
            raise ValueError(f"got {cron!r}, allowed: five cron fields such as '0 2 * * *' ({error})") from error
        return cron

    @field_validator("timezone")
    @classmethod
    def _timezone(cls, timezone: str) -> str:
        from zoneinfo import ZoneInfo

        try:
            ZoneInfo(timezone)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"got {timezone!r}, allowed: a time zone such as UTC or Europe/Berlin") from error
        return timezone

    def ticks(self, since: datetime, *, reverse: bool = False) -> Iterator[datetime]:
        """Times of the schedule after ``since`` (before it, latest first, with ``reverse``)."""
        from zoneinfo import ZoneInfo

        from cronsim import CronSim

        yield from CronSim(self.cron, since.astimezone(ZoneInfo(self.timezone)), reverse=reverse)


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
    schedule: Schedule | None = Field(default=None, description="when `gristmill serve` brings it up to date")
    max_failed: Share = Field(
        default=0.1, description="share of samples that may fail; above it a run publishes nothing"
    )
    shard_samples: Count | None = Field(
        default=None,
        description="samples in one shard, the unit of work and of storage, at most; null: 64 that have pictures or "
        "video, of others 64 to 512, growing with the data set",
    )
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
