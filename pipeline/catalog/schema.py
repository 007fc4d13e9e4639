"""The JSON Schema of ``data_catalog.yaml``, so that editors complete keys and mark mistakes while one writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from features.registry import AUGMENT, EXTRACTORS, PREPARE
from pipeline.catalog.models import NAME, CatalogFile
from pipeline.catalog.steps import options_adapter, step_class

_DEFS = "#/$defs/"
_CUSTOM = r"^[^:]+:[^:]+$"


def catalog_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a catalog, with the options of every registered step."""
    schema = CatalogFile.model_json_schema()
    definitions: dict[str, Any] = schema["$defs"]
    for prefix, table in (("extractor:", EXTRACTORS), ("prepare:", PREPARE), ("augment:", AUGMENT)):
        for name in table:
            _add_options(definitions, prefix + name, name, table)
    spec = definitions["FeatureSpec"]
    spec["properties"]["prepare"]["items"] = _item("prepare:", PREPARE)
    definitions["Views"]["properties"]["steps"]["items"] = _item("augment:", AUGMENT)
    spec["properties"]["extractor"]["examples"] = sorted(EXTRACTORS)
    spec["allOf"] = [
        {
            "if": {"properties": {"extractor": {"const": name}}, "required": ["extractor"]},
            "then": {"properties": {"options": _ref("extractor:" + name)}},
        }
        for name in sorted(EXTRACTORS)
    ]
    definitions["DataSetFile"]["properties"]["features"] |= {
        "propertyNames": {"pattern": NAME},
        "properties": {name: _named_after(name) for name in sorted(EXTRACTORS)},
        "additionalProperties": {"allOf": [_ref("FeatureSpec"), {"required": ["extractor"]}]},
    }
    definitions["DataSetFile"]["properties"]["features"].pop("patternProperties", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Gristmill data catalog"}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _DEFS + name}


def _add_options(definitions: dict[str, Any], key: str, name: str, table: dict[str, str]) -> None:
    step = step_class(name, table, Path())
    options = options_adapter(step).json_schema(ref_template=_DEFS + "{model}")
    definitions |= options.pop("$defs", {})
    options["description"] = (step.__doc__ or "").partition("\n")[0]
    definitions[key] = options


def _item(prefix: str, table: dict[str, str]) -> dict[str, Any]:
    """A step of a list: its name, or its name with options."""
    anything = {"anyOf": [{"type": "object"}, {"type": "null"}]}
    return {
        "anyOf": [
            {"enum": sorted(table)},
            {"type": "string", "pattern": _CUSTOM},
            {
                "type": "object",
                "minProperties": 1,
                "maxProperties": 1,
                "properties": {name: {"anyOf": [_ref(prefix + name), {"type": "null"}]} for name in sorted(table)},
                "patternProperties": {_CUSTOM: anything},
                "additionalProperties": False,
            },
        ]
    }


def _named_after(name: str) -> dict[str, Any]:
    """A feature that is called like a registered extractor: that extractor, unless it names another."""
    whole = {
        "if": {"not": {"required": ["extractor"]}},
        "then": {"properties": {"options": _ref("extractor:" + name)}},
    }
    return {"anyOf": [{"allOf": [_ref("FeatureSpec"), whole]}, {"type": "null"}]}
