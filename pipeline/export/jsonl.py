"""Rows for prompt and instruction tuning: one JSON document a line, filled from a template.

A sample that has not what the template asks for (no label, no text, a text that cannot be read, no row of a feature)
is left out and counted by reason; it is never filled with something else.
"""

from __future__ import annotations

import json
import posixpath
from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from features.errors import SampleError
from pipeline.export.manifest import WrittenFile, WrittenPart
from pipeline.export.selection import Part, Selection, stored_name
from pipeline.export.template import Slot, Template
from pipeline.media.source import Source
from pipeline.media.text import read_text
from pipeline.work import span_of


class _Lacks(Exception):  # noqa: N818 (no error: the sample is left out)
    """The sample has not what the template asks for; the text says what."""


def write(
    selection: Selection, part: Part, folder: Path, advanced: Callable[[int], None], *, template: Template
) -> WrittenPart:
    """Write a split as ``<split>.jsonl``."""
    if not len(part):
        return WrittenPart(split=part.split, files=(), samples=0)
    name = f"{quote(part.split, safe='')}.jsonl"
    left_out: Counter[str] = Counter()
    written = 0
    filler = _Filler(selection, part)
    with (folder / name).open("w", encoding="utf-8") as stream:
        for i, row in enumerate(_rows(part)):
            try:
                made = template.fill(lambda slot, i=i, row=row: filler.value(slot, i, row))  # type: ignore[misc]
            except _Lacks as reason:
                left_out[str(reason)] += 1
            else:
                stream.write(json.dumps(made, ensure_ascii=False, allow_nan=False) + "\n")
                written += 1
            advanced(1)
    return WrittenPart(split=part.split, files=[WrittenFile(name, written)], samples=written, left_out=dict(left_out))


def _rows(part: Part) -> Any:
    for batch in part.table.to_batches(max_chunksize=1_024):
        yield from batch.to_pylist()


class _Filler:
    """What placeholders mean for a sample of a split."""

    def __init__(self, selection: Selection, part: Part) -> None:
        self._selection, self._part = selection, part
        self._classes = selection.reader.classes
        snapshot = selection.reader.snapshot
        self._url, self._version = snapshot.store.url, snapshot.version
        self._text: tuple[int, str] = (-1, "")

    def value(self, slot: Slot, i: int, row: Mapping[str, Any]) -> Any:
        """The value of a placeholder for sample ``i``, whose row of the table of samples is ``row``."""
        match slot:
            case ("text", _):
                return self._text_of(i, row)
            case ("label" | "label_id" as name, _):
                if row["label"] is None:
                    raise _Lacks("no label")
                return row["label"] if name == "label" else self._classes.index(row["label"])
            case ("labels", _):
                return ", ".join(self._classes)
            case ("dataset", _):
                return posixpath.basename(self._url)
            case ("snapshot", _):
                return self._version
            case ("media", stream):
                if (uri := row.get(f"{stream}_uri")) is None:
                    raise _Lacks(f"no {stream}")
                return uri
            case ("features", _):
                return {name: self._reference(name, i) for name in self._selection.features}
            case ("feature", name):
                if (found := self._reference(name, i)) is None:
                    raise _Lacks(f"no row of {name}")
                return found
            case ("values", name):
                return self._values(name, i)
            case (name, _):
                return row[name]

    def _text_of(self, i: int, row: Mapping[str, Any]) -> str:
        if row.get("text_uri") is None:
            raise _Lacks("no text")
        if self._text[0] != i:
            try:
                found = read_text(Source(row["text_uri"]), span=span_of(row))
            except SampleError as error:
                raise _Lacks(f"text: {error.reason.value}") from error
            self._text = (i, " ".join(text for segment in found.segments if (text := segment.text.strip())))
        if not self._text[1]:
            raise _Lacks("no text in its window")
        return self._text[1]

    @cached_property
    def _places(self) -> dict[str, Any]:
        samples = self._part.read
        return {name: (*samples.places(name), samples.lengths(name)) for name in self._selection.features}

    def _reference(self, name: str, i: int) -> dict[str, Any] | None:
        files, file, at, lengths = self._places[name]
        if file[i] < 0:
            return None
        return {
            "dataset": posixpath.basename(self._url),
            "snapshot": self._version,
            "feature": stored_name(name, aligned=self._selection.choice.aligned),
            "file": posixpath.join(self._url, files[file[i]]),
            "row": int(at[i]),
            "rows": int(lengths[i]),
            "dim": self._selection.features[name],
        }

    def _values(self, name: str, i: int) -> list[Any]:
        (sample,) = self._part.read.__getitems__([i])
        if not sample["present"][name]:
            raise _Lacks(f"no row of {name}")
        values, valid = sample["values"][name].numpy(), sample["valid"][name].numpy()
        if not np.isfinite(values).all():
            raise _Lacks(f"{name} holds numbers that are not finite")
        return [row.tolist() if holds else None for row, holds in zip(values, valid, strict=True)]
