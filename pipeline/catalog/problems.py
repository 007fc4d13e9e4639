"""How problems in files that people write are told: where, what, got, allowed, did you mean."""

from __future__ import annotations

import difflib
import json
import os
import posixpath
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

Place: TypeAlias = tuple[str | int, ...]
"""Keys and list positions from the top of a document down to a value."""

_SHOWN = 60


@dataclass(frozen=True)
class Problem:
    """Something wrong in a file: where (1-based line, place) and what."""

    line: int | None
    place: Place
    message: str

    def told(self, file: str) -> str:
        """One line for people: ``file:line: place: message``."""
        where = file if self.line is None else f"{file}:{self.line}"
        return ": ".join(part for part in (where, dotted(self.place), self.message) if part)


def dotted(place: Place) -> str:
    """A place as people write it: ``datasets.clips.features.voice.prepare[0]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest of ``allowed``, or nothing when none is near."""
    near = difflib.get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def listed(names: Iterable[str]) -> str:
    """Names in order, joined by commas; ``none`` when there are none."""
    return ", ".join(sorted(names)) or "none"


def shown(value: Any) -> str:
    """A value of a catalog or manifest as it is written there, shortened to one line."""
    text = repr(value) if isinstance(value, str) else json.dumps(value, default=repr, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def file_problem(root: str, written: str, kind: str) -> str | None:
    """What is wrong with ``written`` as the path, below the local folder ``root``, of a file (of a ``kind``).

    Below a root that is not there, no file need be.
    """
    path = posixpath.normpath(written)
    if path.startswith(("/", "..")) or "\0" in path:
        return f"got {shown(written)}, allowed: a path below root ({root})"
    real = os.path.realpath(Path(root, path))
    if not real.startswith(root.rstrip("/") + "/"):
        return f"{written} is a symbolic link to {real}, allowed: a file below root ({root})"
    if not Path(root).is_dir():
        return None
    if not Path(real).exists():
        folder = Path(root, path).parent
        beside = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
        near = did_you_mean(posixpath.basename(path), beside)
        return f"no such file: {Path(root, path)}; cure: give the path relative to root{near}"
    return None if Path(real).is_file() else f"{Path(root, path)} is a folder, allowed: {kind}"


def faults(details: Iterable[ErrorDetails], place_of: Callable[[ErrorDetails], Place]) -> list[tuple[Place, str]]:
    """What pydantic found, in this project's words: place, and ``got ..., allowed: ...``.

    ``place_of`` makes the place in the file from a finding. What several members of a union say of one value becomes
    one line.
    """
    wanted: dict[Place, list[str]] = {}
    got: dict[Place, str] = {}
    result: list[tuple[Place, str]] = []
    for detail in details:
        place = place_of(detail)
        if detail["type"] == "value_error":
            result.append((place, detail["msg"].removeprefix("Value error, ")))
            continue
        if detail["type"] == "too_short" and len(detail["input"]) >= detail["ctx"]["min_length"]:
            continue  # its items are wrong, which is told of each of them
        got[place] = shown(detail["input"])
        wanted.setdefault(place, []).append(_allowed(detail))
    for place, phrases in wanted.items():
        result.append((place, f"got {got[place]}, allowed: {' or '.join(dict.fromkeys(phrases))}"))
    return result


def _allowed(detail: ErrorDetails) -> str:
    context = detail.get("ctx", {})
    match detail["type"]:
        case "string_type":
            return "text"
        case "int_type" | "int_from_float":
            return "a whole number"
        case "float_type":
            return "a number"
        case "bool_type":
            return "true or false"
        case "string_too_short":
            return "text that is not empty"
        case "string_too_long":
            return f"text of at most {context['max_length']} character(s)"
        case "too_short":
            return f"at least {context['min_length']}"
        case "string_pattern_mismatch":
            return f"a name that matches {context['pattern']}"
        case "model_type" | "dict_type" | "dataclass_type" | "model_attributes_type":
            return "a mapping (key: value)"
        case "tuple_type" | "list_type":
            return "a list"
        case "none_required":
            return "null"
        case "literal_error":
            near = did_you_mean(str(detail["input"]), [part.strip("'") for part in _words(context["expected"])])
            return f"{context['expected']}{near}"
        case _:
            return detail["msg"].removeprefix("Input should be ")


def _words(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")
