"""What folders and manifests both give: the part of a catalog between ``root`` and ``features``."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from features.types import Stream
from pipeline.catalog.models import SPLITS

SPLIT_NAMES = dict(zip(SPLITS, SPLITS, strict=True)) | {
    **dict.fromkeys(("training",), "train"),
    **dict.fromkeys(("val", "valid", "dev"), "validation"),
    **dict.fromkeys(("testing",), "test"),
}
"""What splits are often called -> what they are called here."""


@dataclass(frozen=True, kw_only=True)
class SourceLines:
    """Lines of the catalog, and what they say: ``streams`` that samples have, whether they are ``labelled``."""

    lines: tuple[str, ...]
    streams: tuple[Stream, ...]
    summary: tuple[str, ...]
    labelled: bool
    grid: float = 0.5


def counted_labels(labels: Mapping[str, int]) -> str:
    """Labels and how many samples have each, in words."""
    return ", ".join(f"{label} ({count})" for label, count in sorted(labels.items()))


def deal_line(*, labelled: bool, windows: bool = False) -> str:
    """The line that deals samples to splits; what has no labels is never tested on, so all of it is for fitting."""
    if not labelled:
        return "splits: {train: 1.0}  # without labels there is nothing to test"
    by = ", by: file}  # windows of one file stay in one split" if windows else "}"
    return "splits: {train: 0.8, validation: 0.1, test: 0.1, seed: 0" + by


def split_names(names: Iterable[str], indent: str) -> list[str]:
    """Return the line that renames splits which are called otherwise than ours."""
    renamed = {name: SPLIT_NAMES[name.lower()] for name in sorted(names) if SPLIT_NAMES[name.lower()] != name}
    inside = ", ".join(f"{scalar(name)}: {to}" for name, to in renamed.items())
    return [f"{indent}split_names: {{{inside}}}"] if renamed else []


def scalar(text: str) -> str:
    """``text`` as a YAML scalar that every reader takes for a string."""
    plain = re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./-]*", text) and re.search(r"[A-Za-z]{2}|^\.\.?$", text)
    words = {"true", "false", "yes", "no", "on", "off", "null", "nan", "inf"}
    return text if plain and text.lower().strip(".") not in words else json.dumps(text, ensure_ascii=False)
