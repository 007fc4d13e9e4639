"""Which files a folder holds: media by kind, manifests, and the rest."""

from __future__ import annotations

import posixpath
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from features.errors import CatalogError
from features.types import Stream
from pipeline.scan.candidates import EXTENSIONS, stream_of
from pipeline.scan.listing import LocalRoot, Skipped

MANIFESTS = {".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
"""Extension of a manifest -> its kind of source."""


@dataclass(frozen=True, kw_only=True)
class Found:
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


def look(folder: Path) -> Found:
    """List what lies below ``folder``. Raises ``CatalogError`` where no file is media."""
    media: dict[str, Stream] = {}
    manifests: list[str] = []
    others: Counter[str] = Counter()
    for path, _ in sorted(LocalRoot(str(folder)).walk((), Skipped())):
        stream, suffix = stream_of(path), extension_of(path)
        if stream is not None:
            media[path] = stream
        elif suffix.lower() in MANIFESTS and path.count("/") <= 1:
            manifests.append(path)
        else:
            others[suffix or "(no extension)"] += 1
    if not media:
        held = counted(others + Counter(map(extension_of, manifests))) or "it is empty"
        kinds = "; ".join(f"{stream}: {' '.join(extensions)}" for stream, extensions in EXTENSIONS.items())
        message = f"{folder}: got no media files ({held}), allowed: {kinds}; cure: name the folder of your media"
        raise CatalogError([message])
    return Found(folder=folder, media=media, manifests=manifests, others=others)


def counted(counts: Counter[str]) -> str:
    """Numbers of files by extension, in words."""
    return ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))


def extension_of(path: str) -> str:
    """The extension as it is written, with its dot; empty where there is none."""
    return posixpath.splitext(path)[1]
