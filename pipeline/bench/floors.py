"""Floors: limits on the figures."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from features.errors import GristmillError
from pipeline.bench.result import Check, Floor


def read_floors(path: Path | None = None) -> list[Floor]:
    """The floors in a TOML file (one table for each figure), or those that come with Gristmill.

    Raises ``GristmillError`` when the file cannot be read or names something unknown.
    """
    where = str(path) if path is not None else "floors.toml"
    try:
        text = path.read_text() if path is not None else files("pipeline.bench").joinpath("floors.toml").read_text()
        found = tomllib.loads(text)
        return [Floor(figure=name, **limits) for name, limits in found.items()]
    except (OSError, tomllib.TOMLDecodeError, TypeError) as error:
        raise GristmillError(
            f"{where}: not a file of floors ({error}); allowed: a table for each figure with least or most, and why"
        ) from error


def hold(figures: Mapping[str, float], floors: Sequence[Floor]) -> list[Check]:
    """Every floor held against its figure."""
    checks = []
    for floor in floors:
        got = figures[floor.figure]
        low = floor.least is None or got >= floor.least
        high = floor.most is None or got <= floor.most
        limits = [f">= {floor.least:g}"] if floor.least is not None else []
        limits += [f"<= {floor.most:g}"] if floor.most is not None else []
        checks.append(
            Check(figure=floor.figure, got=got, allowed=", ".join(limits), passed=low and high, why=floor.why)
        )
    return checks
