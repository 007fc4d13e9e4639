"""The JSON Schema and the reference say what the catalog accepts."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest
from made_catalog import MINIMAL, Write, problems, with_feature
from pydantic import BaseModel

from features.align.pool import POLICIES
from features.registry import AUGMENT, EXTRACTORS, PREPARE
from pipeline.catalog import Splits, catalog_schema, load_catalog
from pipeline.catalog.align_models import Align, Clock, Durations, Estimate, Grid, Intervals, PolicySpec, SignalSpec
from pipeline.catalog.models import (
    SOURCES,
    CatalogFile,
    Columns,
    DataSetFile,
    Engine,
    FeatureSpec,
    Schedule,
    Tls,
    Train,
    Views,
)
from pipeline.catalog.yaml_lines import Document
from pipeline.scan.candidates import EXTENSIONS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "catalog.md"


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    document = catalog_schema()
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


def test_schema_accepts_what_the_loader_accepts(schema: jsonschema.Draft202012Validator) -> None:
    for text in (
        MINIMAL,
        blocks()["data_catalog.yaml"],
        with_feature("{extractor: 'a:B', prepare: ['c:D', text.clean]}"),
    ):
        schema.validate(Document(text).data)


@pytest.mark.parametrize(
    ("feature", "place"),
    [
        ("{extractor: audio.mfcc, options: {n_mfc: 1}}", ["voice", "options"]),
        ("{extractor: audio.mfcc, options: {n_mfcc: x}}", ["voice", "options", "n_mfcc"]),
        ("{prepare: []}", ["voice"]),
        ("{extractor: audio.mfcc, prepare: [audio.mfcc]}", ["voice", "prepare", 0]),
        ("{extractor: audio.mfcc, prepare: [{audio.denoise: {n: 1}}]}", ["voice", "prepare", 0]),
    ],
)
def test_schema_marks_mistakes(schema: jsonschema.Draft202012Validator, feature: str, place: list[str | int]) -> None:
    (error,) = schema.iter_errors(Document(with_feature(feature)).data)
    assert list(error.absolute_path)[3:] == place


def test_schema_knows_features_by_their_name(schema: jsonschema.Draft202012Validator) -> None:
    text = with_feature("{}").replace("voice", "audio.mfcc")
    schema.validate(Document(text).data)
    schema.validate(Document(text.replace("{}", "")).data)
    assert not schema.is_valid(Document(text.replace("audio.mfcc: {}", "audio.mfcc: {options: {x: 1}}")).data)


def blocks() -> dict[str, str]:
    """The fenced blocks of the reference that have a title."""
    return dict(re.findall(r"```\w+ title=(\S+)\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL))


def test_the_example_of_the_reference_loads(write: Write, tmp_path: Path) -> None:
    (tmp_path / "talks").mkdir()
    (tmp_path / "talks" / "segments.csv").write_text("segment\n", encoding="utf-8")
    catalog = load_catalog(write(blocks()["data_catalog.yaml"]))
    assert list(catalog.datasets["clips"].features) == ["audio.mfcc", "voice", "scenes"]


def test_the_errors_of_the_reference_are_real(write: Write) -> None:
    assert problems(write(blocks()["broken"])) == blocks()["told"].splitlines()


ALIGN = [Align, Grid, Intervals, PolicySpec, Clock, Estimate, SignalSpec, Durations]
PARTS = [Engine, Tls, Splits, FeatureSpec, Views, Train, Schedule, Columns]
MODELS = [CatalogFile, DataSetFile, *PARTS, *ALIGN, *SOURCES.values()]


def test_the_reference_has_every_key_step_and_extension() -> None:
    text = DOCS.read_text(encoding="utf-8")
    keys = {field.alias or key for model in MODELS for key, field in model.model_fields.items()}
    extensions = {extension for every in EXTENSIONS.values() for extension in every}
    policies = set(POLICIES)
    for name in sorted(keys | extensions | policies | EXTRACTORS.keys() | PREPARE.keys() | AUGMENT.keys()):
        assert f"`{name}`" in text, name


@pytest.mark.parametrize("model", MODELS)
def test_the_reference_has_every_default(model: type[BaseModel]) -> None:
    text = DOCS.read_text(encoding="utf-8")
    for key, info in model.model_fields.items():
        if isinstance(info.default, (int, float, str)) and model is not Splits:
            written = {True: "true", False: "false"}[info.default] if isinstance(info.default, bool) else info.default
            assert f"| `{key}` | `{written}` |" in text, key
