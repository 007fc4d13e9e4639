"""Steps from their names and options, as a catalog gives them."""

from __future__ import annotations

import dataclasses
import json
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from features.registry import AUGMENT, EXTRACTORS, PREPARE, UnknownStepError, resolve
from features.types import STREAMS
from pipeline.catalog.problems import Place, did_you_mean, listed
from pipeline.catalog.problems import faults as problems_of
from pipeline.importing import importable

_KINDS = {"extractor": EXTRACTORS, "prepare step": PREPARE, "augmentation": AUGMENT}


class StepFaultError(ValueError):
    """A step cannot be made. ``faults``: (place inside the options, message); the empty place is the step itself."""

    def __init__(self, faults: list[tuple[Place, str]]) -> None:
        self.faults = faults
        super().__init__("; ".join(message for _, message in faults))


def step_class(name: str, table: dict[str, str], folder: Path) -> type[Any]:
    """Return the class that ``name`` means, a registered name of ``table`` or a ``module:Class``.

    A module of the user's own is looked for in ``folder`` (the catalog's) too. Raises ``StepFaultError``.
    """
    try:
        with importable(folder):
            found = resolve(name, table)
    except UnknownStepError as error:
        raise StepFaultError([((), _unknown(name, table, error))]) from error
    except (ImportError, SyntaxError, NameError, AttributeError, TypeError, ValueError, OSError) as error:
        message = f"{name!r} cannot be imported: {type(error).__name__}: {error}"
        raise StepFaultError([((), message)]) from error
    if ":" in name:
        _check_origin(name, found, folder)
        _check_offer(name, found, table)
    return found


def _unknown(name: str, table: dict[str, str], error: UnknownStepError) -> str:
    if ":" in name:
        if error.known:
            wanted = name.partition(":")[2]
            return f"{error}; classes there: {listed(error.known)}{did_you_mean(wanted, error.known)}"
        return str(error)
    if name in table:
        return str(error)
    kind = next(kind for kind, known in _KINDS.items() if known is table)
    for other, known in _KINDS.items():
        if name in known:
            article = "an" if other[0] in "ae" else "a"
            return f"{name!r} is {article} {other}; allowed here: {listed(table)}, or module:Class"
    return f"unknown {kind} {name!r}; allowed: {listed(table)}, or module:Class{did_you_mean(name, table)}"


def _check_origin(name: str, found: type[Any], folder: Path) -> None:
    top = found.__module__.partition(".")[0]
    own = [path for path in (folder / f"{top}.py", folder / top) if path.exists()]
    origin = getattr(sys.modules[found.__module__], "__file__", None)
    if own and origin is not None and not Path(origin).resolve().is_relative_to(folder.resolve()):
        message = f"{name!r} is {origin}, not {own[0].name} beside the catalog; cure: give that module another name"
        raise StepFaultError([((), message)])


def _check_offer(name: str, found: type[Any], table: dict[str, str]) -> None:
    wanted = ["name", "stream", "numerics"]
    if table is EXTRACTORS:
        wanted += ["dim", "__call__"]
    missing = [attribute for attribute in wanted if not any(attribute in vars(base) for base in found.__mro__)]
    if missing:
        message = f"{name!r} lacks {', '.join(missing)}; cure: see docs/adding-an-extractor.md"
        raise StepFaultError([((), message)])
    if found.stream not in STREAMS:
        message = f"{name!r}: got stream {found.stream!r}, allowed: {', '.join(STREAMS)}"
        raise StepFaultError([((), message)])


def build_step(name: str, options: Mapping[str, Any], table: dict[str, str], folder: Path) -> Any:
    """Return the step ``name`` with ``options``, checked strictly against its annotations.

    Raises ``StepFaultError`` with everything that is wrong.
    """
    found = step_class(name, table, folder)
    fields = option_fields(found)
    faults: list[tuple[Place, str]] = [
        ((key,), f"unknown option {key!r}; allowed: {listed(fields)}{did_you_mean(key, fields)}")
        for key in options
        if key not in fields
    ]
    required = {key for key, field in fields.items() if _is_required(field)}
    faults += [((), f"option {key!r} of {name} is missing") for key in sorted(required - options.keys())]
    try:
        known = {key: value for key, value in options.items() if key in fields}
        checked = options_adapter(found).validate_json(json.dumps(known))
    except ValidationError as error:
        faults += [
            (place, message)
            for place, message in problems_of(
                error.errors(include_url=False), lambda detail: _place(options, detail["loc"])
            )
            if place and place[0] in options
        ]
    except (NameError, PydanticSchemaGenerationError) as error:
        faults.append(((), f"the options of {name!r} cannot be given in a catalog: {str(error).splitlines()[0]}"))
    if faults:
        raise StepFaultError(faults)
    try:
        return found(**{key: getattr(checked, key) for key in known})
    except (ValueError, TypeError) as error:
        option, colon, rest = str(error).partition(": ")
        fault: tuple[Place, str] = ((option,), rest) if colon and option in known else ((), str(error))
        raise StepFaultError([fault]) from error


def _place(options: Mapping[str, Any], loc: tuple[int | str, ...]) -> Place:
    """The place in the file of a finding: its location without the names of members of unions."""
    inside = [part for part in loc[1:] if isinstance(part, int) and isinstance(options.get(str(loc[0])), list)]
    return (loc[0], *inside)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def option_fields(step: type[Any]) -> dict[str, dataclasses.Field[Any]]:
    """The options of a step class: its fields that are given at construction and are not private."""
    return {field.name: field for field in dataclasses.fields(step) if field.init and not field.name.startswith("_")}


def options_adapter(step: type[Any]) -> TypeAdapter[Any]:
    """A strict checker, and JSON Schema, of the options of a step class.

    Raises ``NameError`` and ``PydanticSchemaGenerationError`` when an annotation cannot be read.
    """
    fields = option_fields(step)
    hints: dict[str, Any] = {}
    for base in reversed(step.__mro__):
        own = {key: hint for key, hint in vars(base).get("__annotations__", {}).items() if key in fields}
        holder = types.SimpleNamespace(__annotations__=own)
        hints |= get_type_hints(holder, globalns=vars(sys.modules[base.__module__]), include_extras=True)
    options = dataclasses.make_dataclass(
        f"{step.__name__}Options",
        [
            (key, hints[key], dataclasses.field(default=field.default, default_factory=field.default_factory))
            for key, field in fields.items()
        ],
        namespace={"__pydantic_config__": ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)},
        kw_only=True,
    )
    return TypeAdapter(options)
