"""What is wrong with the shape of a catalog, in words: keys that are missing, unknown or of no known kind."""

from __future__ import annotations

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from pipeline.catalog.align_models import Align, Clock, Durations, Estimate, Grid, Intervals, PolicySpec, SignalSpec
from pipeline.catalog.models import (
    SOURCES,
    CatalogFile,
    Columns,
    DataSetFile,
    Engine,
    FeatureSpec,
    Fit,
    Report,
    Schedule,
    Splits,
)
from pipeline.catalog.problems import did_you_mean, listed
from pipeline.catalog.train_models import Encoder, TargetSpec, Train

_MODELS: dict[str, type[BaseModel]] = {
    "engine": Engine,
    "columns": Columns,
    "splits": Splits,
    "align": Align,
    "intervals": Intervals,
    "durations": Durations,
    "estimate": Estimate,
    "fit": Fit,
    "train": Train,
    "report": Report,
    "schedule": Schedule,
}


def key_problem(detail: ErrorDetails) -> str | None:
    """The message for a key that is missing or unknown, or ``None`` when the finding is of another kind."""
    loc = detail["loc"]
    match detail["type"]:
        case "missing":
            key = str(loc[-1])
            return f"{key!r} is missing: {_fields(_model_at(loc[:-1]))[key].description}"
        case "extra_forbidden":
            key, allowed = str(loc[-1]), _fields(_model_at(loc[:-1]))
            return f"unknown key {key!r}; allowed: {listed(allowed)}{did_you_mean(key, allowed)}"
        case "union_tag_not_found":
            return f"'kind' is missing; allowed: {listed(SOURCES)}"
        case "union_tag_invalid":
            kind = str(detail["ctx"]["tag"])
            return f"kind: got {kind!r}, allowed: {listed(SOURCES)}{did_you_mean(kind, SOURCES)}"
    return None


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a model under the names that they have in the catalog."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _model_at(loc: tuple[int | str, ...]) -> type[BaseModel]:
    """The model of the mapping at a pydantic location."""
    names = [str(part) for part in loc]
    if not names:
        return CatalogFile
    if names[0] == "datasets" and len(names) == 2:
        return DataSetFile
    if names[-2:-1] == ["features"]:
        return FeatureSpec
    if names[-2:-1] == ["encoders"]:
        return Encoder
    if names[-2:-1] == ["targets"]:
        return TargetSpec
    if names[-2:-1] == ["source"]:
        return SOURCES[names[-1]]
    if names[-2:-1] == ["clocks"]:
        return Clock
    if names[-1] == "mapping":  # the member of a union that is a mapping
        return Grid if names[-2] == "grid" else SignalSpec if "from" in names else PolicySpec
    return _MODELS[names[-1]]
