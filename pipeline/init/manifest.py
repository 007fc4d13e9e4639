"""Samples from a manifest: a table, one of whose columns holds paths of the files that were found."""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from typing import Any

from features.types import STREAMS, Stream
from pipeline.init.columns import fields_of, grid_of
from pipeline.init.files import MANIFESTS, Found
from pipeline.init.source import SourceLines, deal_line, scalar, split_names
from pipeline.init.tables import Manifest, UnusableError, read_table


def best_manifest(found: Found) -> tuple[Manifest | None, list[str]]:
    """Return the manifest that names most files, if one names any, and what is to be said of the others."""
    notes: list[str] = []
    candidates: list[Manifest] = []
    for path in found.manifests:
        try:
            delimiter, columns = read_table(found.folder / path)
        except UnusableError as error:
            notes.append(f"{path}: not used, {error}")
            continue
        manifest = Manifest(path=path, columns=columns, paths=_path_columns(columns, found), delimiter=delimiter)
        if manifest.named:
            candidates.append(manifest)
        else:
            notes.append(f"{path}: not used, no cell is the path of a media file below {found.folder.name}")
    best = max(candidates, key=lambda manifest: manifest.named, default=None)
    notes += [
        f"{m.path}: not used, {best.path} names more files" for m in candidates if best is not None and m is not best
    ]
    return best, notes


def _path_columns(columns: dict[str, list[Any]], found: Found) -> dict[Stream, tuple[str, list[str | None]]]:
    best: dict[Stream, tuple[int, str, list[str | None]]] = {}
    for name, cells in columns.items():
        paths = [path if (path := _normal(cell)) in found.media else None for cell in cells]
        streams = Counter(found.media[path] for path in paths if path is not None)
        if streams:
            (stream, count), *_ = streams.most_common()
            if stream not in best or count > best[stream][0]:
                best[stream] = count, name, paths
    return {stream: (best[stream][1], best[stream][2]) for stream in STREAMS if stream in best}


def _normal(cell: Any) -> str:
    """A cell as a path below the folder; empty when it cannot be one."""
    return posixpath.normpath(cell) if isinstance(cell, str) and cell and ".." not in cell.split("/") else ""


def manifest_source(manifest: Manifest, found: Found) -> SourceLines:
    """Each row of the manifest makes a sample."""
    kind = MANIFESTS[posixpath.splitext(manifest.path)[1].lower()]
    fields, summary = fields_of(manifest)
    streams = set(manifest.paths)
    stems = found.stems()
    named = {path for _, paths in manifest.paths.values() for path in paths if path is not None}
    beside = {stream for path in named for stream in stems[posixpath.splitext(path)[0]]} - streams

    summary.insert(0, f"{manifest.path}: {manifest.rows} rows, each a sample; " + ", ".join(
        f"{stream} files in column {column!r}" for stream, (column, _) in manifest.paths.items()
    ))  # fmt: skip
    missing = sum(
        _normal(cell) != "" and path is None
        for column, paths in manifest.paths.values()
        for cell, path in zip(manifest.columns[column], paths, strict=True)
    )
    if missing:
        summary.append(
            f"{manifest.path}: {missing} cells name a file that is not there; a run puts those rows in quarantine"
        )
    lines = ["source:", f"  kind: {kind}", f"  path: {scalar(manifest.path)}"]
    if manifest.delimiter != ",":
        lines.append(f"  delimiter: {json.dumps(manifest.delimiter)}")
    lines.append("  columns:  # what a sample needs: the column that holds it")
    lines += [f"    {field}: {scalar(column)}" for field, column in fields.items()]
    lines += [f"    {stream}: {scalar(column)}" for stream, (column, _) in manifest.paths.items()]
    if beside:
        lines.append(
            f"  siblings: true  # {' and '.join(sorted(beside))} files lie beside the named ones under the same name"
        )
        summary.append(f"{' and '.join(sorted(beside))} files lie beside the named ones under the same name: siblings")
    if "split" in fields:
        lines += split_names({str(cell) for cell in manifest.columns[fields["split"]] if cell not in (None, "")}, "  ")
    else:
        lines.append(deal_line(labelled="label" in fields, windows=len(named) < manifest.rows))
    ordered = tuple(stream for stream in STREAMS if stream in streams | beside)
    return SourceLines(
        lines=tuple(lines),
        streams=ordered,
        summary=tuple(summary),
        labelled="label" in fields,
        grid=grid_of(manifest, fields),
    )
