"""Candidates for samples, and how a row of a manifest becomes one."""

from __future__ import annotations

import math
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

from features.errors import Reason
from features.time import NS_PER_SECOND, seconds_to_ns
from features.types import Stream
from pipeline.catalog.models import TableSource
from pipeline.catalog.problems import shown
from pipeline.scan.listing import Fault, File, Root
from pipeline.scan.manifest import ManifestRow

EXTENSIONS: Mapping[Stream, tuple[str, ...]] = {
    "video": (
        *(".mp4", ".m4v", ".mkv", ".webm", ".mov", ".avi", ".mpg"),
        *(".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".ogv", ".3gp"),
    ),
    "audio": (".wav", ".flac", ".mp3", ".m4a", ".aac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".wma"),
    "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    "text": (".srt", ".vtt", ".txt", ".json"),
}
"""The stream that a file gives, by its extension in lower case."""

STREAM_OF = {extension: stream for stream, extensions in EXTENSIONS.items() for extension in extensions}

_NUMBER = re.compile(r"\s*[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,2})?\s*", re.ASCII)
_LATEST_NS = 2**62


def stream_of(name: str) -> Stream | None:
    """The stream that a file of this name gives, or ``None`` when its extension is of no known kind."""
    return STREAM_OF.get(posixpath.splitext(name)[1].lower())


@dataclass(slots=True)
class Candidate:
    """What may become a sample. ``window`` in ns; ``group``: the file that it is a window of; ``paths`` below root."""

    sample_id: str
    split: str | None = None
    label: str | None = None
    window: tuple[int, int] | None = None
    group: str = ""
    paths: dict[Stream, str] = field(default_factory=dict)
    files: dict[Stream, File] = field(default_factory=dict)


def ambiguous(stream: Stream, paths: Iterable[str]) -> Fault:
    """The fault of a candidate that has several files of one stream."""
    names = " and ".join(sorted(paths))
    message = f"{names} would both be the {stream} of this sample; cure: keep one, or leave one out by its name"
    return Fault(Reason.AMBIGUOUS, message)


def printable(text: str) -> str:
    """The text, with what UTF-8 cannot hold (bytes of a file name that are not UTF-8) as escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class RowReader:
    """Makes candidates of rows: first what the row itself says, then the files that it names."""

    def __init__(self, root: Root, source: TableSource) -> None:
        columns = source.columns
        self._root = root
        self._source = source
        self._fields = tuple(columns.model_dump(exclude_none=True))
        self._streams = tuple(columns.streams)
        self._names = columns.model_dump(exclude_none=True)
        self._stats: dict[str, File | Fault] = {}
        self._siblings: dict[str, dict[str, list[tuple[Stream, str]]]] = {}

    def parse(self, row: ManifestRow) -> tuple[str | None, Candidate | Fault]:
        """The row's id, where it has one, and its candidate, or what is wrong with the row."""
        if row.fault is not None:
            return None, Fault(Reason.INVALID_ROW, row.fault)
        cells = dict(zip(self._fields, row.cells, strict=True))
        sample_id: str | None = None
        try:
            if "id" in cells:
                sample_id = self._cell(cells, "id")
                if sample_id is None:
                    raise ValueError(f"the id ({self._names['id']}) is empty, allowed: a unique text")
            return self._candidate(sample_id, cells)
        except ValueError as error:
            return sample_id, Fault(Reason.INVALID_ROW, str(error))

    def _candidate(self, sample_id: str | None, cells: dict[str, Any]) -> tuple[str, Candidate]:
        paths: dict[Stream, str] = {}
        for stream in self._streams:
            written = self._cell(cells, stream)
            if written is not None:
                paths[stream] = _inside(written, self._names[stream])
        if not paths:
            columns = ", ".join(self._names[stream] for stream in self._streams)
            raise ValueError(f"no file is named (columns {columns}), allowed: at least one path below root")
        window = self._window(cells)
        first = next(iter(paths.values()))
        if sample_id is None:
            sample_id = first if window is None else f"{first}@{_seconds(window[0])}"
        split = self._cell(cells, "split")
        if split is not None:
            split = self._source.split_names.get(split, split)
        return sample_id, Candidate(sample_id, split, self._cell(cells, "label"), window, first, paths)

    def _cell(self, cells: dict[str, Any], name: str) -> str | None:
        value = cells.get(name)
        if isinstance(value, str):
            text = value
        elif value is None or _is_nan(value):
            return None
        elif isinstance(value, (int, float)):
            text = str(value).lower() if isinstance(value, bool) else repr(value)
        else:
            raise ValueError(f"{self._names[name]}: got {shown(value)}, allowed: text or a number")
        if not text.isascii() and printable(text) != text:
            raise ValueError(f"{self._names[name]}: got {text!r}, allowed: text that UTF-8 can hold")
        return text or None

    def _window(self, cells: dict[str, Any]) -> tuple[int, int] | None:
        if "start" not in cells:
            return None
        start, end = self._time(cells, "start"), self._time(cells, "end")
        if start is None and end is None:
            return None
        if start is None or end is None:
            lacking = self._names["start" if start is None else "end"]
            raise ValueError(f"{lacking} is empty, allowed: both ends of the window, or neither")
        if end <= start:
            raise ValueError(
                f"the window ends at {_seconds(end)} s and begins at {_seconds(start)} s, allowed: end > start"
            )
        return start, end

    def _time(self, cells: dict[str, Any], name: str) -> int | None:
        value = cells[name]
        if value is None or value == "" or _is_nan(value):
            return None
        try:
            time = _to_ns(value)
        except ValueError:
            time = -1
        if not 0 <= time < _LATEST_NS:
            raise ValueError(f"{self._names[name]}: got {shown(value)}, allowed: seconds from 0, such as 12.5")
        return time

    def locate(self, candidate: Candidate) -> Candidate | Fault:
        """Find the files that a candidate's row names, and their siblings."""
        paths = candidate.paths
        if self._source.siblings:
            paths = dict(paths)
            for stream, names in self._beside(paths).items():
                if len(names) > 1:
                    return ambiguous(stream, names)
                paths[stream] = names[0]
        for stream, path in paths.items():
            found = self._stats.get(path)
            if found is None:
                found = self._stats[path] = self._root.stat(path)
            if isinstance(found, Fault):
                return found
            candidate.files[stream] = found
        return candidate

    def _beside(self, named: Mapping[Stream, str]) -> dict[Stream, list[str]]:
        result: dict[Stream, list[str]] = {}
        for stem in {posixpath.splitext(path)[0] for path in named.values()}:
            for stream, path in self._same_stem(stem):
                result.setdefault(stream, []).append(path)
        return result

    def _same_stem(self, stem: str) -> list[tuple[Stream, str]]:
        """Media files called ``stem`` and an extension, of the streams that have no column."""
        folder = stem.rpartition("/")[0]
        if folder not in self._siblings:
            stems: defaultdict[str, list[tuple[Stream, str]]] = defaultdict(list)
            prefix = f"{folder}/" if folder else ""
            for name in self._root.names(folder):
                base, extension = posixpath.splitext(name)
                stream = STREAM_OF.get(extension.lower())
                if stream is not None and stream not in self._streams:
                    stems[prefix + base].append((stream, prefix + name))
            self._siblings[folder] = stems
        return self._siblings[folder].get(stem, [])


def _inside(written: str, column: str) -> str:
    """A path below root in its plain form. Raises ``ValueError`` when it leaves the root."""
    path = posixpath.normpath(written)
    if written.startswith("/") or ".." in written.split("/") or "://" in written or path == ".":
        raise ValueError(f"{column}: got {shown(written)}, allowed: a path below root, relative and without '..'")
    return path


def _is_nan(value: Any) -> bool:
    """Whether a cell is NaN, which pandas writes where a number is missing."""
    return isinstance(value, float) and math.isnan(value)


def _to_ns(value: Any) -> int:
    """Exact nanoseconds of seconds as a manifest writes them. Raises ``ValueError``."""
    if isinstance(value, str):
        whole, _, part = value.partition(".")
        if whole.isascii() and whole.isdigit() and len(part) <= 9 and (not part or (part.isascii() and part.isdigit())):
            return int(whole) * NS_PER_SECOND + int(part.ljust(9, "0"))
        if not _NUMBER.fullmatch(value):
            raise ValueError(value)
        return seconds_to_ns(Fraction(value.strip()))
    if isinstance(value, Decimal):
        return seconds_to_ns(Fraction(value))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(value)
    return seconds_to_ns(value)


def _seconds(time_ns: int) -> str:
    whole, part = divmod(time_ns, NS_PER_SECOND)
    return f"{whole}.{part:09d}".rstrip("0").rstrip(".")
