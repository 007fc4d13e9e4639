"""The scan: what samples a data set has, where their files lie, and which candidates cannot be samples.

Reads names, sizes and times of change (and the manifest), no media. Every candidate is in the result once, as a row of
``samples`` or in ``rejected``.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from features.errors import CatalogError, Reason
from features.types import STREAMS, Stream
from pipeline.catalog import DataSet
from pipeline.catalog.models import SPLITS, FolderSource, TableSource
from pipeline.scan.candidates import STREAM_OF, Candidate, RowReader, ambiguous, printable
from pipeline.scan.listing import Fault, File, Root, Skipped, open_root
from pipeline.scan.manifest import read_manifest
from pipeline.scan.splits import HashedSplits

SAMPLES_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.string()),
        pa.field("start_ns", pa.int64()),
        pa.field("end_ns", pa.int64()),
        *(
            pa.field(f"{stream}_{name}", kind)
            for stream in STREAMS
            for name, kind in (("uri", pa.string()), ("size", pa.int64()), ("version", pa.string()))
        ),
    ]
)

_FEW = 3


@dataclass(frozen=True)
class Rejected:
    """A candidate that is no sample, and why. Without an id of its own it is called ``manifest:line``."""

    sample_id: str
    reason: Reason
    message: str


@dataclass(frozen=True)
class Scan:
    """What a scan found.

    ``samples``: one row a sample, sorted by ``sample_id``, columns as in ``SAMPLES_SCHEMA``. ``start_ns`` and
    ``end_ns`` are both set or both null; where set, the sample is that window of its files. Of a stream, ``uri``,
    ``size`` and ``version`` are all set or all null; a video without a sound file is its own audio. ``rejected`` is
    sorted too. ``notes``: what a person should be told.
    """

    samples: pa.Table
    rejected: list[Rejected]
    notes: list[str]


@dataclass
class _Findings:
    accepted: list[Candidate] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def reject(self, sample_id: str, fault: Fault) -> None:
        self.rejected.append(Rejected(printable(sample_id), fault.reason, printable(fault.message)))


def scan(dataset: DataSet) -> Scan:
    """Find the samples of ``dataset``.

    Raises ``CatalogError`` when there is nothing to find: no files, no rows, no such column, a manifest that cannot be
    read as a whole.
    """
    root = open_root(dataset.root)
    findings = _Findings()
    if isinstance(dataset.source, FolderSource):
        _scan_folder(root, dataset, dataset.source, findings)
    else:
        _scan_manifest(root, dataset, dataset.source, findings)
    findings.accepted.sort(key=lambda candidate: candidate.sample_id)
    findings.rejected.sort(key=lambda rejected: (rejected.sample_id, rejected.message))
    splits = _splits(findings, dataset)
    _note_labels(findings)
    _note_splits(findings, dataset, splits)
    _note_streams(findings)
    return Scan(_table(findings.accepted, splits), findings.rejected, findings.notes)


# Folders


def _scan_folder(root: Root, dataset: DataSet, source: FolderSource, findings: _Findings) -> None:
    from fsspec.utils import glob_translate

    patterns = [re.compile(glob_translate(pattern)) for pattern in source.include]
    skipped = Skipped()
    ignored: Counter[str] = Counter()
    left_out = 0
    stems: defaultdict[str, list[tuple[Stream, str, File | Fault]]] = defaultdict(list)
    for path, found in root.walk(dataset.excluded, skipped):
        if path.endswith("/") or not path:
            _unlistable(path, found, findings, dataset)
            continue
        stem, extension = posixpath.splitext(path)
        stream = STREAM_OF.get(extension.lower())
        if stream is None:
            ignored[extension.lower() or "(no extension)"] += 1
        elif not any(pattern.match(path) for pattern in patterns):
            left_out += 1
        else:
            stems[stem].append((stream, path, found))
    if not stems and not findings.rejected:
        seen = f"; files of other kinds: {_counts(ignored)}" if ignored else ""
        seen += f"; left out by include: {left_out}" if left_out else ""
        message = f"{dataset.name}: no media files below {dataset.root}{seen}; cure: put media there, or correct root"
        raise CatalogError([printable(message)])
    for stem, members in stems.items():
        _folder_candidate(stem, members, source, findings)
    if ignored:
        findings.notes.append(f"ignored {sum(ignored.values())} files of no known kind: {_counts(ignored)}")
    if left_out:
        findings.notes.append(f"{left_out} media files are left out by include")
    if skipped.hidden:
        findings.notes.append(f"ignored {skipped.hidden} files and folders whose name begins with a dot")
    if skipped.linked:
        findings.notes.append(
            f"{len(skipped.linked)} folders are symbolic links and were not entered: {_first(sorted(skipped.linked))}"
        )


def _unlistable(path: str, found: File | Fault, findings: _Findings, dataset: DataSet) -> None:
    if isinstance(found, Fault):
        if not path:
            raise CatalogError([f"{dataset.name}: root {dataset.root}: {found.message}; cure: check its rights"])
        findings.reject(path, found)


def _folder_candidate(
    stem: str, members: list[tuple[Stream, str, File | Fault]], source: FolderSource, findings: _Findings
) -> None:
    candidate = Candidate(stem, group=stem)
    if printable(stem) != stem:
        fault = Fault(Reason.INVALID_ROW, f"the name {stem!r} is not UTF-8; cure: rename the file")
        findings.reject(stem, fault)
        return
    by_stream: defaultdict[Stream, list[str]] = defaultdict(list)
    for stream, path, _ in members:
        by_stream[stream].append(path)
    for stream, paths in by_stream.items():
        if len(paths) > 1:
            findings.reject(stem, ambiguous(stream, paths))
            return
    for stream, _, found in members:
        if isinstance(found, Fault):
            findings.reject(stem, found)
            return
        candidate.files[stream] = found
    folders = stem.split("/")[:-1]
    if source.label_from == "folder" and folders:
        candidate.label = folders[-1]
    if source.split_from == "folder" and folders:
        candidate.split = source.split_names.get(folders[0], folders[0])
    findings.accepted.append(candidate)


# Manifests


def _scan_manifest(root: Root, dataset: DataSet, source: TableSource, findings: _Findings) -> None:
    try:
        raw = root.read(posixpath.normpath(source.path))
    except OSError as error:
        message = f"{dataset.name}: {source.path} below {dataset.root} cannot be read: {error}; cure: correct path"
        raise CatalogError([message]) from None
    reader = RowReader(root, source)
    ids: list[str | None] = []
    parsed: list[Candidate | Fault] = []
    lines: defaultdict[str, list[int]] = defaultdict(list)
    rows = read_manifest(raw, source)
    for row in rows:
        sample_id, result = reader.parse(row)
        ids.append(sample_id)
        parsed.append(result)
        if sample_id is not None:
            lines[sample_id].append(row.line)
    for row, sample_id, result in zip(rows, ids, parsed, strict=True):
        name = f"{source.path}:{row.line}" if sample_id is None else sample_id
        outcome: Candidate | Fault = result
        if sample_id is not None and len(lines[sample_id]) > 1:
            others = ", ".join(map(str, lines[sample_id]))
            cure = "make ids unique" if source.columns.id else "name an id column (columns.id)"
            message = f"the id {sample_id!r} stands on lines {others}; cure: {cure}"
            outcome = Fault(Reason.DUPLICATE_ID, message)
        elif isinstance(result, Candidate):
            outcome = reader.locate(result)
        if isinstance(outcome, Fault):
            findings.reject(name, Fault(outcome.reason, f"{source.path}:{row.line}: {outcome.message}"))
        else:
            findings.accepted.append(outcome)
    if source.columns.split is not None:
        unassigned = sum(candidate.split is None for candidate in findings.accepted)
        if unassigned:
            findings.notes.append(
                f"{unassigned} rows have no split in {source.path}; they got one from the catalog's shares"
            )


# Splits and the table


def _splits(findings: _Findings, dataset: DataSet) -> list[str]:
    by_file = dataset.splits.by == "file"
    hashed = HashedSplits(dataset.splits)
    return [
        candidate.split or hashed.split(candidate.group if by_file else candidate.sample_id)
        for candidate in findings.accepted
    ]


def _table(candidates: list[Candidate], splits: list[str]) -> pa.Table:
    windows = [candidate.window or (None, None) for candidate in candidates]
    columns: dict[str, list[Any]] = {
        "sample_id": [candidate.sample_id for candidate in candidates],
        "split": splits,
        "label": [candidate.label for candidate in candidates],
        "start_ns": [window[0] for window in windows],
        "end_ns": [window[1] for window in windows],
    }
    nothing = (None, None, None)
    for stream in STREAMS:
        files: Iterator[tuple[Any, Any, Any]] = (
            candidate.files.get(stream) or (candidate.files.get("video") if stream == "audio" else None) or nothing
            for candidate in candidates
        )
        uris, sizes, versions = zip(*files, strict=True) if candidates else ((), (), ())
        columns |= {f"{stream}_uri": [*uris], f"{stream}_size": [*sizes], f"{stream}_version": [*versions]}
    return pa.table(columns, schema=SAMPLES_SCHEMA)


# Notes


def _note_labels(findings: _Findings) -> None:
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    unlabelled = [candidate.sample_id for candidate in findings.accepted if candidate.label is None]
    for candidate in findings.accepted:
        if candidate.label is not None:
            first.setdefault(candidate.label, candidate.sample_id)
            counts[candidate.label] += 1
    once = [label for label, count in counts.items() if count == 1]
    if len(once) == 1:
        findings.notes.append(
            f"label {once[0]!r} appears once (sample {first[once[0]]}): it can be trained on or tested on, not both"
        )
    elif once:
        named = _first([f"{label!r} (sample {first[label]})" for label in once])
        findings.notes.append(f"{len(once)} labels appear once: {named}: each can be trained on or tested on, not both")
    if unlabelled and counts:
        findings.notes.append(f"{len(unlabelled)} samples have no label: {_first(unlabelled)}")


def _note_splits(findings: _Findings, dataset: DataSet, splits: list[str]) -> None:
    counts = Counter(splits)
    for name in sorted(set(counts) - set(SPLITS)):
        findings.notes.append(
            f"{counts[name]} samples are in split {name!r}; training knows train, validation and test; "
            f"cure: split_names: {{{name}: ...}} in the source"
        )
    declared = any(candidate.split is not None for candidate in findings.accepted)
    for name in SPLITS:
        if splits and not counts[name] and not declared and getattr(dataset.splits, name) > 0:
            findings.notes.append(f"no sample fell into split {name!r}, share {getattr(dataset.splits, name):g}")
    hashed: defaultdict[str, set[str]] = defaultdict(set)
    for candidate, split in zip(findings.accepted, splits, strict=True):
        if candidate.window is not None and candidate.split is None:
            hashed[candidate.group].add(split)
    torn = sorted(group for group, found in hashed.items() if len(found) > 1)
    if torn:
        findings.notes.append(
            f"{len(torn)} files have windows in more than one split: {_first(torn)}; "
            "cure: splits: {by: file} keeps a file in one split"
        )


def _note_streams(findings: _Findings) -> None:
    total = len(findings.accepted)
    for stream in STREAMS:
        lacking = [
            candidate.sample_id
            for candidate in findings.accepted
            if stream not in candidate.files and not (stream == "audio" and "video" in candidate.files)
        ]
        if 0 < len(lacking) < total:
            findings.notes.append(f"{len(lacking)} of {total} samples have no {stream}: {_first(lacking)}")


def _counts(found: Counter[str]) -> str:
    return printable(", ".join(f"{name} {count}" for name, count in sorted(found.items())))


def _first(names: list[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return printable(", ".join(names[:_FEW]) + more)
