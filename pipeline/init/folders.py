"""Samples, labels and splits from the names of files and folders."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Mapping, Sequence

from features.types import STREAMS, Stream
from pipeline.init.files import Found, extension_of
from pipeline.init.source import SPLIT_NAMES, SourceLines, counted_labels, deal_line, scalar, split_names

KIND_NAMES = (
    "audio", "audios", "captions", "clips", "data", "files", "image", "images", "img", "imgs", "media", "photos",
    "pictures", "sound", "sounds", "subtitles", "text", "texts", "transcripts", "video", "videos", "wav", "wavs",
)  # fmt: skip
"""Folders of these names are no classes."""


PREFERRED = (".mp4", ".mkv", ".webm", ".mov", ".wav", ".flac", ".png", ".jpg", ".srt", ".vtt", ".txt")
"""Which of two files of the same name is kept, when the folder has as many of one kind as of the other."""


def folder_source(found: Found) -> SourceLines:
    """Files of the same name make a sample; folders may be its label and its split."""
    include, summary = _include(found)
    media = {path: stream for path, stream in found.media.items() if include is None or extension_of(path) in include}
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
        summary.append(f"labels from folders: {counted_labels(labels)}")
    if split_from:
        lines.append("  split_from: folder  # the topmost folders are named like splits")
        lines.extend(split_names(tops, "  "))
        summary.append(f"splits from folders: {', '.join(sorted(tops))}")
    if include is not None:
        globs = ", ".join(scalar(f"**/*{suffix}") for suffix in sorted(include))
        lines.append(f"  include: [{globs}]  # one file of each kind for a sample")
    if not split_from:
        lines.append(deal_line(labelled=not isinstance(labels, str)))
    labelled = not isinstance(labels, str)
    return SourceLines(lines=tuple(lines), streams=streams, summary=tuple(summary), labelled=labelled)


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


def _include(found: Found) -> tuple[set[str] | None, list[str]]:
    """Return the extensions to take when some samples have two files of a kind, and what was left out."""
    clashes = [files for held in found.stems().values() for files in held.values() if len(files) > 1]
    if not clashes:
        return None, []
    often = Counter(extension_of(path) for path in found.media)

    def rank(suffix: str) -> tuple[int, int, str]:
        return -often[suffix], PREFERRED.index(suffix) if suffix in PREFERRED else len(PREFERRED), suffix

    dropped = {suffix for files in clashes for suffix in sorted({extension_of(path) for path in files}, key=rank)[1:]}
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
