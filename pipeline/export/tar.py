"""WebDataset: tar files whose members of one stem are one sample.

``<key>.json`` (sample id, split, label), ``<key>.cls`` (the label's place in the classes, where there is one), and for
each feature that the sample has ``<key>.<feature>.npy``, float32 ``[T, D]``, ``.valid.npy``, ``.start_ns.npy`` and
``.end_ns.npy``. The key is the sample id with all but letters, digits, ``_`` and ``-`` percent-encoded, since a dot
ends a key. Times and owners are zero: the same snapshot gives the same bytes.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np

from pipeline.export.manifest import WrittenFile, WrittenPart
from pipeline.export.selection import Part, Record, Selection

_ARRAYS = (("npy", "values"), *((f"{name}.npy", name) for name in ("valid", "start_ns", "end_ns")))


def write(
    selection: Selection, part: Part, folder: Path, advanced: Callable[[int], None], *, file_bytes: int
) -> WrittenPart:
    """Write a split as ``<split>-000000.tar`` and so on, files of about ``file_bytes`` of values."""
    files: list[WrittenFile] = []
    classes = selection.reader.classes
    for number, (begin, end) in enumerate(part.cuts(file_bytes) if len(part) else []):
        name = f"{quote(part.split, safe='')}-{number:06d}.tar"
        with tarfile.open(folder / name, "w") as archive:
            for records in part.chunks(begin, end):
                for record in records:
                    for member, content in _members(record, part.split, classes):
                        head = tarfile.TarInfo(member)
                        head.size = len(content)
                        archive.addfile(head, io.BytesIO(content))
                advanced(len(records))
        files.append(WrittenFile(name, end - begin))
    return WrittenPart(split=part.split, files=files, samples=len(part))


def key(sample_id: str) -> str:
    """The stem of a sample's members."""
    return quote(sample_id, safe="").replace(".", "%2E").replace("~", "%7E")


def _members(record: Record, split: str, classes: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    stem = key(record.sample_id)
    label = None if record.label is None else classes[record.label]
    said = {"sample_id": record.sample_id, "split": split, "label": label}
    yield f"{stem}.json", json.dumps(said, ensure_ascii=False).encode()
    if record.label is not None:
        yield f"{stem}.cls", str(record.label).encode()
    for name, sequence in record.features.items():
        if sequence is None:
            continue
        for extension, array in _ARRAYS:
            content = io.BytesIO()
            np.save(content, getattr(sequence, array), allow_pickle=False)
            yield f"{stem}.{name}.{extension}", content.getvalue()
