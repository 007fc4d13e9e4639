"""Look at a folder of media and propose a catalog for it.

What is looked at: which files are media, by extension; which of them belong together, by name; a manifest (CSV, JSON
Lines or Parquet, in the folder or one level below) whose cells are paths of those files; what folders and columns are
called. Nothing is decided behind anyone's back: every guess is a line of the summary and a line of the catalog.
"""

from __future__ import annotations

import csv
import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.errors import CatalogError
from features.types import STREAMS, Stream
from pipeline.catalog.models import SPLITS
from pipeline.scan.candidates import EXTENSIONS, stream_of
from pipeline.scan.listing import LocalRoot, Skipped

MANIFESTS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
SPLIT_NAMES = dict(zip(SPLITS, SPLITS, strict=True)) | {
    **dict.fromkeys(("training",), "train"),
    **dict.fromkeys(("val", "valid", "dev"), "validation"),
    **dict.fromkeys(("testing",), "test"),
}
"""What splits are often called -> what they are called here."""
KIND_NAMES = (
    "audio", "audios", "captions", "clips", "data", "files", "image", "images", "img", "imgs", "media", "photos",
    "pictures", "sound", "sounds", "subtitles", "text", "texts", "transcripts", "video", "videos", "wav", "wavs",
)  # fmt: skip
"""Folders of these names are no classes."""
COLUMN_NAMES: dict[str, tuple[str, ...]] = {
    "id": ("id", "sampleid", "clipid", "segmentid", "utteranceid", "uttid", "uid", "key"),
    "split": ("split", "subset", "partition"),
    "label": ("label", "class", "classname", "category", "target", "emotion", "sentiment", "genre"),
    "start": ("start", "starts", "starttime", "startseconds", "begin", "begintime", "onset"),
    "end": ("end", "ends", "endtime", "endseconds", "stop", "stoptime"),
}
"""Field of a sample -> what its column is often called, letters and digits only; the first one found is taken."""
PREFERRED = (".mp4", ".mkv", ".webm", ".mov", ".wav", ".flac", ".png", ".jpg", ".srt", ".vtt", ".txt")
"""Which of two files of the same name is kept, when the folder has as many of one kind as of the other."""
PROBED = 50


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
            f"  {_scalar(self.name)}:",
            f"    root: {_relative(self.folder, here)}",
            *(f"    {line}" for line in self.source),
            "    features:",
            *(f"      {line}" for line in self.features),
            f"    align: {{grid: {self.grid:g}, default: mean}}  # seconds; the same rows for every feature",
            *(["    train: {methods: [early, late]}  # beside every feature alone"] if self.trainable else []),
            f"    max_failed: {0.5 if self.silent else 0.1}  # share of samples that may fail; above, a run publishes "
            + ("nothing (videos without sound fail audio.mfcc)" if self.silent else "nothing"),
        ]
        return "\n".join(lines) + "\n"


def propose(folder: Path) -> Proposal:
    """Look at ``folder`` and propose a catalog.

    Raises ``CatalogError`` when it is not a folder or holds no media, saying what it does hold.
    """
    if not folder.is_dir():
        got = "a file" if folder.exists() else "nothing"
        raise CatalogError([f"{folder}: got {got}, allowed: a folder with media; cure: check the path"])
    folder = folder.resolve()
    found = _look(folder)
    manifest, notes = _best_manifest(found)
    source = _manifest_source(manifest, found) if manifest else _folder_source(found)
    features, feature_notes, silent = _features(found, source.streams)
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", folder.name).strip("-._") or "data"
    kinds = Counter(found.media.values())
    summary = [
        f"{folder}: " + ", ".join(f"{kinds[stream]} {stream}" for stream in STREAMS if kinds[stream]) + " files",
        *([f"not media, by extension: {_counted(found.others)}"] if found.others else []),
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


def write(proposal: Proposal, target: Path, force: bool = False) -> Path:
    """Write the catalog to ``target``. Raises ``CatalogError`` when there is one already, unless ``force``."""
    if target.is_dir():
        raise CatalogError([f"{target}: got a folder, allowed: a file; cure: --catalog {target / 'data_catalog.yaml'}"])
    if target.exists() and not force:
        raise CatalogError([f"{target}: exists already and is left as it is; cure: another --catalog, or --force"])
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.write_text(proposal.text(target), encoding="utf-8")
    partial.replace(target)
    return target


# --- what is there -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Found:
    """The files below a folder: path (with ``/``) -> stream; manifests; and how many others, by extension."""

    folder: Path
    media: dict[str, Stream]
    manifests: list[str]
    others: Counter[str]

    def stems(self) -> dict[str, dict[Stream, list[str]]]:
        """Path without extension -> stream -> files."""
        stems: dict[str, dict[Stream, list[str]]] = {}
        for path, stream in self.media.items():
            stems.setdefault(posixpath.splitext(path)[0], {}).setdefault(stream, []).append(path)
        return stems


def _look(folder: Path) -> _Found:
    media: dict[str, Stream] = {}
    manifests: list[str] = []
    others: Counter[str] = Counter()
    for path, _ in sorted(LocalRoot(str(folder)).walk((), Skipped())):
        stream, suffix = stream_of(path), _suffix(path)
        if stream is not None:
            media[path] = stream
        elif suffix.lower() in MANIFESTS and path.count("/") <= 1:
            manifests.append(path)
        else:
            others[suffix or "(no extension)"] += 1
    if not media:
        held = _counted(others + Counter(map(_suffix, manifests))) or "it is empty"
        kinds = "; ".join(f"{stream}: {' '.join(extensions)}" for stream, extensions in EXTENSIONS.items())
        message = f"{folder}: got no media files ({held}), allowed: {kinds}; cure: name the folder of your media"
        raise CatalogError([message])
    return _Found(folder=folder, media=media, manifests=manifests, others=others)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))


@dataclass(frozen=True, kw_only=True)
class _Source:
    """The part of a catalog between ``root`` and ``features``."""

    lines: tuple[str, ...]
    streams: tuple[Stream, ...]
    summary: tuple[str, ...]
    labelled: bool
    grid: float = 0.5


# --- files of a folder ---------------------------------------------------------------------------------------------


def _folder_source(found: _Found) -> _Source:
    include, summary = _include(found)
    media = {path: stream for path, stream in found.media.items() if include is None or _suffix(path) in include}
    samples: dict[str, set[Stream]] = {}
    for path, stream in media.items():
        samples.setdefault(posixpath.splitext(path)[0], set()).add(stream)
    streams = tuple(stream for stream in STREAMS if stream in media.values())
    whole = sum(len(held) == len(streams) for held in samples.values())
    summary.append(f"samples (files of the same name): {len(samples)}, of them {whole} with {' and '.join(streams)}")
    summary += _scattered(samples)

    tops = {path.split("/")[0] for path in samples if "/" in path}
    split_from = bool(tops) and all(top.lower() in SPLIT_NAMES for top in tops) and all("/" in path for path in samples)
    labels = _folder_labels(list(samples), split_from=split_from)
    lines = ["source:", "  kind: folder  # files with the same path without extension make one sample"]
    if isinstance(labels, str):
        lines.append(f"  label_from: none  # {labels}")
        summary.append(labels)
    else:
        lines.append("  label_from: folder  # the label is the name of the folder that the files lie in")
        summary.append(f"labels from folders: {_counted_labels(labels)}")
    if split_from:
        lines.append("  split_from: folder  # the topmost folders are named like splits")
        lines.extend(_split_names(tops, "  "))
        summary.append(f"splits from folders: {', '.join(sorted(tops))}")
    if include is not None:
        globs = ", ".join(_scalar(f"**/*{suffix}") for suffix in sorted(include))
        lines.append(f"  include: [{globs}]  # one file of each kind for a sample")
    if not split_from:
        lines.append(_shares(labelled=not isinstance(labels, str)))
    labelled = not isinstance(labels, str)
    return _Source(lines=tuple(lines), streams=streams, summary=tuple(summary), labelled=labelled)


def _scattered(samples: Mapping[str, set[Stream]]) -> list[str]:
    """Say when what looks like one sample lies in several folders, one for each kind of file."""
    by_name: dict[str, list[str]] = {}
    for path in samples:
        by_name.setdefault(posixpath.basename(path), []).append(path)
    apart = [
        paths
        for paths in by_name.values()
        if len(paths) > 1
        and len(set().union(*(samples[path] for path in paths))) == sum(len(samples[p]) for p in paths)
    ]
    if not apart:
        return []
    return [
        f"the same name in several folders, with other kinds of files: {len(apart)} times "
        f"({' and '.join(sorted(apart[0]))}); these are different samples; "
        "cure: put the files of a sample into one folder, or write a manifest"
    ]


def _suffix(path: str) -> str:
    return posixpath.splitext(path)[1]


def _include(found: _Found) -> tuple[set[str] | None, list[str]]:
    """Return the extensions to take when some samples have two files of a kind, and what was left out."""
    clashes = [files for held in found.stems().values() for files in held.values() if len(files) > 1]
    if not clashes:
        return None, []
    often = Counter(_suffix(path) for path in found.media)

    def rank(suffix: str) -> tuple[int, int, str]:
        return -often[suffix], PREFERRED.index(suffix) if suffix in PREFERRED else len(PREFERRED), suffix

    dropped = {suffix for files in clashes for suffix in sorted({_suffix(path) for path in files}, key=rank)[1:]}
    example = " and ".join(sorted(clashes[0]))
    return set(often) - dropped, [
        f"two files of a kind in one sample: {len(clashes)} times ({example}); left out: {', '.join(sorted(dropped))}"
    ]


def _folder_labels(samples: Sequence[str], *, split_from: bool) -> Counter[str] | str:
    """Return labels and how often each is given, or why folders give none."""
    parents = [posixpath.dirname(path).split("/") for path in samples]
    counts = Counter(parts[-1] for parts in parents if parts[-1] and len(parts) > split_from)
    if len(counts) < 2:
        return "no labels: the files do not lie in two or more folders; without labels nothing can be trained"
    if all(name.lower() in {*KIND_NAMES, *SPLIT_NAMES} for name in counts):
        return f"no labels: the folders are not named like classes ({', '.join(sorted(counts))})"
    if 2 * len(counts) > sum(counts.values()):
        return f"no labels: {len(counts)} folders for {sum(counts.values())} samples; a class needs several"
    return counts


def _counted_labels(labels: Mapping[str, int]) -> str:
    return ", ".join(f"{label} ({count})" for label, count in sorted(labels.items()))


def _shares(*, labelled: bool, windows: bool = False) -> str:
    """The line that deals samples to splits; what has no labels is never tested on, so all of it is for fitting."""
    if not labelled:
        return "splits: {train: 1.0}  # without labels there is nothing to test"
    by = ", by: file}  # windows of one file stay in one split" if windows else "}"
    return "splits: {train: 0.8, validation: 0.1, test: 0.1, seed: 0" + by


def _split_names(names: Iterable[str], indent: str) -> list[str]:
    """Return the line that renames splits which are called otherwise than ours."""
    renamed = {name: SPLIT_NAMES[name.lower()] for name in sorted(names) if SPLIT_NAMES[name.lower()] != name}
    inside = ", ".join(f"{_scalar(name)}: {to}" for name, to in renamed.items())
    return [f"{indent}split_names: {{{inside}}}"] if renamed else []


# --- rows of a manifest --------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Manifest:
    """A table and what its columns of paths name: stream -> (column, a path below the folder or None for each row)."""

    path: str
    columns: dict[str, list[Any]]
    paths: dict[Stream, tuple[str, list[str | None]]]
    delimiter: str

    @property
    def rows(self) -> int:
        return len(next(iter(self.columns.values())))

    @property
    def named(self) -> int:
        return sum(path is not None for _, paths in self.paths.values() for path in paths)


def _best_manifest(found: _Found) -> tuple[_Manifest | None, list[str]]:
    """Return the manifest that names most files, if one names any, and what is to be said of the others."""
    notes: list[str] = []
    candidates: list[_Manifest] = []
    for path in found.manifests:
        try:
            delimiter, columns = _read(found.folder / path)
        except _UnusableError as error:
            notes.append(f"{path}: not used, {error}")
            continue
        manifest = _Manifest(path=path, columns=columns, paths=_path_columns(columns, found), delimiter=delimiter)
        if manifest.named:
            candidates.append(manifest)
        else:
            notes.append(f"{path}: not used, no cell is the path of a media file below {found.folder.name}")
    best = max(candidates, key=lambda manifest: manifest.named, default=None)
    notes += [
        f"{m.path}: not used, {best.path} names more files" for m in candidates if best is not None and m is not best
    ]
    return best, notes


class _UnusableError(Exception):
    """A table that cannot be read; the text says why."""


def _read(path: Path) -> tuple[str, dict[str, list[Any]]]:
    """Return the delimiter and column -> cells."""
    try:
        if MANIFESTS[path.suffix.lower()] == "csv":
            return _read_csv(path)
        if MANIFESTS[path.suffix.lower()] == "jsonl":
            return ",", _read_jsonl(path)
        return ",", _read_parquet(path)
    except UnicodeDecodeError as error:
        raise _UnusableError(f"not UTF-8 (byte {error.start})") from error
    except (OSError, ValueError, csv.Error) as error:
        raise _UnusableError(str(error).splitlines()[0]) from error


def _read_csv(path: Path) -> tuple[str, dict[str, list[Any]]]:
    """Rows that do not fit the header are left out here; a run puts them in quarantine."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        first = file.readline()
        delimiter = max(",;\t|", key=first.count)
        file.seek(0)
        rows = list(csv.reader(file, delimiter=delimiter, strict=True))
    header = rows[0] if rows else []
    cells = [row for row in rows[1:] if row and len(row) == len(header)]
    if len(set(header)) < len(header) or not cells:
        raise _UnusableError("a column name is there twice" if cells else "it has no rows below a header")
    return delimiter, {name: [row[at] for row in cells] for at, name in enumerate(header)}


def _read_jsonl(path: Path) -> dict[str, list[Any]]:
    with path.open(encoding="utf-8-sig") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise _UnusableError("not a JSON object on every line" if rows else "it has no rows")
    return {name: [row.get(name) for row in rows] for name in dict.fromkeys(key for row in rows for key in row)}


def _read_parquet(path: Path) -> dict[str, list[Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_integer,
        pa.types.is_floating,
        pa.types.is_dictionary,
    )
    schema = pq.read_schema(path)
    names = [field.name for field in schema if any(kind(field.type) for kind in kinds)]
    columns: dict[str, list[Any]] = pq.read_table(path, columns=names, use_threads=False).to_pydict()
    if not columns or not next(iter(columns.values())):
        raise _UnusableError("it has no rows of text or numbers")
    return columns


def _path_columns(columns: dict[str, list[Any]], found: _Found) -> dict[Stream, tuple[str, list[str | None]]]:
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


def _manifest_source(manifest: _Manifest, found: _Found) -> _Source:
    kind = MANIFESTS[posixpath.splitext(manifest.path)[1].lower()]
    fields, summary = _fields(manifest)
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
    lines = ["source:", f"  kind: {kind}", f"  path: {_scalar(manifest.path)}"]
    if manifest.delimiter != ",":
        lines.append(f"  delimiter: {json.dumps(manifest.delimiter)}")
    lines.append("  columns:  # what a sample needs: the column that holds it")
    lines += [f"    {field}: {_scalar(column)}" for field, column in fields.items()]
    lines += [f"    {stream}: {_scalar(column)}" for stream, (column, _) in manifest.paths.items()]
    if beside:
        lines.append(
            f"  siblings: true  # {' and '.join(sorted(beside))} files lie beside the named ones under the same name"
        )
        summary.append(f"{' and '.join(sorted(beside))} files lie beside the named ones under the same name: siblings")
    if "split" in fields:
        lines += _split_names({str(cell) for cell in manifest.columns[fields["split"]] if cell not in (None, "")}, "  ")
    else:
        lines.append(_shares(labelled="label" in fields, windows=len(named) < manifest.rows))
    ordered = tuple(stream for stream in STREAMS if stream in streams | beside)
    return _Source(
        lines=tuple(lines),
        streams=ordered,
        summary=tuple(summary),
        labelled="label" in fields,
        grid=_grid(manifest, fields),
    )


def _grid(manifest: _Manifest, fields: Mapping[str, str]) -> float:
    """Half a second; a tenth where half of the windows are shorter than a second."""
    if "start" not in fields:
        return 0.5
    starts, ends = (manifest.columns[fields[field]] for field in ("start", "end"))
    lengths = sorted(float(end) - float(start) for start, end in zip(starts, ends, strict=True))
    return 0.1 if lengths[len(lengths) // 2] < 1 else 0.5


def _fields(manifest: _Manifest) -> tuple[dict[str, str], list[str]]:
    """Return field -> column for id, split, label, start and end, by name and by what is in them."""
    by_name = {re.sub(r"[^a-z0-9]", "", column.lower()): column for column in reversed(manifest.columns)}
    fields: dict[str, str] = {}
    notes: list[str] = []
    for field, names in COLUMN_NAMES.items():
        column = next((by_name[name] for name in names if name in by_name), None)
        if column is None or column in {named for named, _ in manifest.paths.values()}:
            continue
        cells = [cell for cell in manifest.columns[column] if cell not in (None, "")]
        objection = _objection(field, cells, manifest.rows)
        if objection:
            notes.append(f"{manifest.path}: column {column!r} is not taken for the {field}: {objection}")
        else:
            fields[field] = column
    if ("start" in fields) != ("end" in fields):
        alone = fields.pop("start", None) or fields.pop("end")
        notes.append(f"{manifest.path}: column {alone!r} is not used: a window needs a start and an end")
    notes.append(
        "labels: "
        + _counted_labels(Counter(str(cell) for cell in manifest.columns[fields["label"]] if cell not in (None, "")))
        if "label" in fields
        else "no labels: no column is named like one; without labels nothing can be trained"
    )
    if "start" in fields:
        notes.append(f"windows: {fields['start']!r} to {fields['end']!r}, taken for seconds")
    return fields, notes


def _objection(field: str, cells: Sequence[Any], rows: int) -> str:
    """Why ``cells`` cannot be this field of a sample; empty when they can."""
    values = {str(cell) for cell in cells}
    if field == "id" and (len(values) < rows or len(cells) < rows):
        return "it is not another one in every row"
    if field == "split" and not (values and all(value.lower() in SPLIT_NAMES for value in values)):
        return f"allowed: {', '.join(SPLIT_NAMES)}"
    if field == "label" and not 2 <= len(values) <= max(2, rows // 2):
        return f"it has {len(values)} values in {rows} rows"
    if field in ("start", "end") and not (len(cells) == rows and all(_is_seconds(cell) for cell in cells)):
        return "not a number of 0 or more in every row"
    return ""


def _is_seconds(cell: Any) -> bool:
    try:
        return 0 <= float(cell) < float("inf")
    except (TypeError, ValueError):
        return False


# --- features ------------------------------------------------------------------------------------------------------


def _features(found: _Found, streams: Sequence[Stream]) -> tuple[list[str], list[str], bool]:
    """The lines of the features, what to say of them, and whether some videos have no sound though it is asked for."""
    lines: list[str] = []
    notes: list[str] = []
    if "image" in streams:
        lines.append("image.cnn: {}  # what a picture shows: a vector of a pretrained network")
    if "video" in streams:
        lines += [
            "video.flow: {}  # how the picture moves",
            "scenes:  # what each shot shows: the network on one keyframe of each",
            "  prepare: [video.keyframes]",
            "  extractor: image.cnn",
        ]
    heard, silent = "audio" in streams, False
    if "video" in streams and not heard:
        heard, silent, note = _audio_in_videos(found)
        notes.append(note)
    if heard:
        lines.append("audio.mfcc: {}  # how it sounds; against noise: {prepare: [audio.denoise]}")
    if "text" in streams:
        lines += ["text.word2vec:  # what is written: vectors trained on these texts", "  prepare: [text.clean]"]
    return lines, notes, heard and silent


def _audio_in_videos(found: _Found) -> tuple[bool, bool, str]:
    """Open some videos, evenly spread: whether any has sound, whether any has none, and what to say of it."""
    import av

    videos = [path for path, stream in found.media.items() if stream == "video"]
    chosen = videos[:: max(1, len(videos) // PROBED)][:PROBED]
    heard, silent, broken = 0, 0, 0
    for path in chosen:
        try:
            with av.open(str(found.folder / path)) as container:
                heard, silent = heard + bool(container.streams.audio), silent + (not container.streams.audio)
        except (av.error.FFmpegError, OSError):
            broken += 1
    said = f"sound: {heard} of {len(chosen)} videos looked at have an audio track"
    said += f", {broken} cannot be opened" if broken else ""
    return heard > 0, silent > 0, said + ("; those without one fail audio.mfcc" if heard and silent else "")


# --- YAML ----------------------------------------------------------------------------------------------------------


def _relative(path: Path, here: Path) -> str:
    relative = Path(os.path.relpath(path, here)).as_posix()
    return _scalar(relative if relative.startswith(".") else f"./{relative}")


def _scalar(text: str) -> str:
    """``text`` as a YAML scalar that every reader takes for a string."""
    plain = re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./-]*", text) and re.search(r"[A-Za-z]{2}|^\.\.?$", text)
    words = {"true", "false", "yes", "no", "on", "off", "null", "nan", "inf"}
    return text if plain and text.lower().strip(".") not in words else json.dumps(text, ensure_ascii=False)
