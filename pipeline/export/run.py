"""The export itself: written beside its place and moved there when it is complete, or not there at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from features.errors import StoreError
from pipeline.events import SILENT, Events
from pipeline.export import arrays, huggingface, jsonl, manifest, tar
from pipeline.export.manifest import WrittenPart
from pipeline.export.selection import Choice, Part, Selection, in_words, select
from pipeline.export.template import Template
from pipeline.loader import StoreReader

Format: TypeAlias = Literal["huggingface", "webdataset", "numpy", "npz", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
FILE_BYTES = 500 << 20
"""How large a file of values becomes before the next one is begun."""
_STAGE = "export"

Write: TypeAlias = Callable[[Selection, Part, Path, Callable[[int], None]], WrittenPart]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A finished export: its folder, and what its manifest says."""

    folder: Path
    manifest: Mapping[str, Any] = field(repr=False)

    @property
    def lines(self) -> list[str]:
        """What to tell a person."""
        found, counts = self.manifest, self.manifest["samples"]
        said = [
            f"{split}: {part['samples']:,} samples"
            + (f"; left out: {in_words(part['left_out'])}" if part["left_out"] else "")
            for split, part in found["splits"].items()
        ]
        others = {**counts["left_out"], **counts["not_asked"]}
        said.append(
            f"{found['dataset']}, snapshot {found['snapshot']}: {counts['in_snapshot']:,} samples = "
            f"{counts['written']:,} written + {sum(counts['left_out'].values()):,} left out + "
            f"{sum(counts['not_asked'].values()):,} not asked for" + (f" ({in_words(others)})" if others else "")
        )
        size = sum(file["bytes"] for file in found["files"])
        said += [f"note: {note}" for note in found["notes"]]
        return [*said, f"{len(found['files']):,} files, {size:,} bytes, and {manifest.MANIFEST}: {self.folder}"]


def export_dataset(
    reader: StoreReader,
    folder: Path | str,
    format_: Format,
    choice: Choice | None = None,
    *,
    template: Template | None = None,
    file_bytes: int = FILE_BYTES,
    overwrite: bool = False,
    events: Events = SILENT,
) -> Exported:
    """Write what is chosen of a snapshot to ``folder``, in a format.

    ``template``: what a row of ``jsonl`` is. ``file_bytes``: see ``FILE_BYTES`` (``huggingface`` and ``webdataset``).
    ``overwrite``: replace an earlier export in ``folder``; a folder that is none is never replaced.

    Raises ``StoreError`` when there is nothing of what is chosen, a file of the store is missing, or ``folder`` holds
    something; ``ValueError`` for options that do not go together.
    """
    if format_ not in FORMATS:
        raise ValueError(f"format: got {format_!r}, allowed: {', '.join(FORMATS)}")
    if (template is None) == (format_ == "jsonl"):
        raise ValueError(f"template: got {template!r} for {format_}; allowed: with jsonl, and only there")
    if file_bytes < 1:
        raise ValueError(f"file_bytes: got {file_bytes}, allowed: at least 1")
    target = Path(folder)
    _refuse(target, overwrite=overwrite)
    chosen = select(reader, choice or Choice(), features=template is None or template.needs_features)
    if template is not None:
        template.check(chosen.features)
    for note in chosen.notes:
        events.note(note)
    write, extra = _writer(format_, template, file_bytes)
    with _beside(target) as place:
        events.started(_STAGE, sum(len(part) for part in chosen.parts), "samples")
        written = [write(chosen, part, place, partial(events.advanced, _STAGE)) for part in chosen.parts]
        if format_ == "huggingface":
            huggingface.write_card(chosen, place, written)
        found = manifest.document(place, chosen, format_, written, extra)
        manifest.write(place, found)
        events.finished(_STAGE, f"{found['samples']['written']:,} samples")
    return Exported(folder=target, manifest=found)


def _writer(format_: Format, template: Template | None, file_bytes: int) -> tuple[Write, dict[str, Any]]:
    if template is not None:
        return partial(jsonl.write, template=template), {"template": template.document}
    formats: dict[Format, Write] = {
        "huggingface": partial(huggingface.write, file_bytes=file_bytes),
        "webdataset": partial(tar.write, file_bytes=file_bytes),
        "numpy": arrays.write,
        "npz": arrays.write_npz,
    }
    return formats[format_], {}


def _refuse(target: Path, *, overwrite: bool) -> None:
    """Raise ``StoreError`` where ``target`` holds something that is not to be replaced."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not (target / manifest.MANIFEST).is_file():
        raise StoreError(f"{target}: is there and is no export; allowed: a folder that is not there, or is empty")
    if not overwrite:
        raise StoreError(f"{target}: holds an export; cure: --overwrite, or another folder")


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A folder to write in, which takes the place of ``target`` at the end, and is removed when something fails."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    except OSError as error:
        raise StoreError(f"{target}: cannot be written: {error}") from error
    try:
        yield place
        place.chmod(0o777 & ~_umask())
        _replace(target, place)
    except OSError as error:
        raise StoreError(f"{target}: cannot be written: {error}; nothing was exported") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _replace(target: Path, place: Path) -> None:
    """Move ``place`` to ``target``; what was there is removed when that is done, and comes back where it fails."""
    if not target.exists():
        place.rename(target)
        return
    aside = place.with_name(f"{place.name}-old")
    target.rename(aside)
    try:
        place.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
