"""The catalog that is proposed: what was found, put together and written as YAML."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from features.errors import CatalogError
from features.types import STREAMS
from pipeline.catalog import load_catalog
from pipeline.catalog.yaml_lines import Document
from pipeline.init.features import feature_lines
from pipeline.init.files import counted, look
from pipeline.init.folders import folder_source
from pipeline.init.manifest import best_manifest, manifest_source
from pipeline.init.source import scalar


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A catalog for ``folder``, and what was found there: ``summary``, one line each, for people."""

    folder: Path
    name: str
    summary: tuple[str, ...]
    source: tuple[str, ...]
    features: tuple[str, ...]
    grid: float
    trainable: bool
    silent: bool
    """Some of the videos looked at have no audio track, though the catalog asks for their sound."""

    def text(self, target: Path) -> str:
        """Return the YAML of a catalog at ``target``: its paths are relative to the folder that it lies in."""
        here = target.absolute().parent.resolve()
        store = here / "store"
        if store.is_relative_to(self.folder):  # what is stored must not be taken for media
            store = self.folder.parent / f"{self.name}-store"
        lines = [
            "# Written by `gristmill init`. Every key is explained in docs/catalog.md; look at the guesses, then try",
            "# `gristmill plan`, which computes nothing, and `gristmill run`.",
            "version: 1",
            f"store: {_relative(store, here)}",
            "",
            "datasets:",
            *(f"  {line}" for line in self.entry(here)),
        ]
        return "\n".join(lines) + "\n"

    def entry(self, here: Path) -> list[str]:
        """Return the lines of the data set alone, as they stand in a catalog in the folder ``here``."""
        return [
            f"{scalar(self.name)}:",
            f"  root: {_relative(self.folder, here)}",
            *(f"  {line}" for line in self.source),
            "  features:",
            *(f"    {line}" for line in self.features),
            f"  align: {{grid: {self.grid:g}, default: mean}}  # seconds; the same rows for every feature",
            *(["  train: {methods: [early, late]}  # beside every feature alone"] if self.trainable else []),
            f"  max_failed: {0.5 if self.silent else 0.1}  # share of samples that may fail; above, a run publishes "
            + ("nothing (videos without sound fail audio.mfcc)" if self.silent else "nothing"),
        ]


def propose(folder: Path) -> Proposal:
    """Look at ``folder`` and propose a catalog.

    Raises ``CatalogError`` when it is not a folder or holds no media, saying what it does hold.
    """
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing"
        raise CatalogError([f"{folder}: got {got}, allowed: a folder with media; cure: check the path"])
    folder = folder.resolve()
    found = look(folder)
    manifest, notes = best_manifest(found)
    source = manifest_source(manifest, found) if manifest else folder_source(found)
    features, feature_notes, silent = feature_lines(found, source.streams)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.name).strip("-._") or "data"
    kinds = Counter(found.media.values())
    summary = [
        f"{folder}: " + ", ".join(f"{kinds[stream]} {stream}" for stream in STREAMS if kinds[stream]) + " files",
        *([f"not media, by extension: {counted(found.others)}"] if found.others else []),
        *notes,
        *source.summary,
        *feature_notes,
    ]
    return Proposal(
        folder=folder,
        name=name,
        summary=tuple(summary),
        source=source.lines,
        features=tuple(features),
        grid=source.grid,
        trainable=source.labelled,
        silent=silent,
    )


def write(proposal: Proposal, target: Path, force: bool = False) -> bool:
    """Write the catalog to ``target``, or add the data set to the one that is there; ``force``: overwrite it.

    What stands in a catalog is kept to the letter. Returns whether it was added. Raises ``CatalogError``, and leaves
    everything as it is, when there is a data set of that name or the catalog is not in order.
    """
    if target.is_dir():
        raise CatalogError([f"{target}: got a folder, allowed: a file; cure: --catalog {target / 'data_catalog.yaml'}"])
    adds = target.exists() and not force
    text = _with_entry(proposal, target) if adds else proposal.text(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.write_bytes(text.encode())
    try:
        if adds:
            load_catalog(partial)
    except CatalogError:
        partial.unlink()
        raise
    partial.replace(target)
    return adds


def _with_entry(proposal: Proposal, target: Path) -> str:
    """The text of the catalog at ``target`` with one more data set, at the end of the others."""
    cure = "it is left as it is; cure: another --catalog, or --force, which overwrites it"
    try:
        catalog = load_catalog(target)
    except CatalogError as error:
        raise CatalogError([*error.problems, f"{target}: no data set can be added to it; {cure}"]) from error
    if proposal.name in catalog.datasets:
        raise CatalogError([f"{target}: data set {proposal.name!r} is there already; {cure}"])
    text = target.read_bytes().decode("utf-8-sig")
    end = Document(text).end("datasets")
    if end is None:
        raise CatalogError([f"{target}: datasets is written in braces, which nothing can be added to; {cure}"])
    at, indent = end
    line_break = "\r\n" if "\r\n" in text else "\n"
    before = text[:at] if text[:at].endswith("\n") else text[:at] + line_break
    entry = proposal.entry(target.absolute().parent.resolve())
    return before + line_break + "".join(" " * indent + line + line_break for line in entry) + text[at:]


def _relative(path: Path, here: Path) -> str:
    relative = Path(os.path.relpath(path, here)).as_posix()
    return scalar(relative if relative.startswith(".") else f"./{relative}")
