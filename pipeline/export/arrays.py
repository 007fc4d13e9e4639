"""NumPy: plain arrays, as a folder of .npy files for each split, or as one .npz.

``sample_ids`` (text) and ``labels`` int64 ``[N]`` (the label's place in the classes, -100 where there is none); and of
each feature, its sequences one after another: ``<name>.values`` float32 ``[S, D]``, ``<name>.valid`` bool ``[S]``,
``<name>.start_ns`` and ``<name>.end_ns`` int64 ``[S]``, and ``<name>.offsets`` int64 ``[N + 1]``, where each sample's
rows begin; ``<name>.present`` bool ``[N]``: false where a sample does not have the feature (it has no rows then).
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from pipeline.export.manifest import WrittenFile, WrittenPart
from pipeline.export.selection import Part, Selection

_COLUMNS = (("values", np.float32), ("valid", np.bool_), ("start_ns", np.int64), ("end_ns", np.int64))


def write(selection: Selection, part: Part, folder: Path, advanced: Callable[[int], None]) -> WrittenPart:
    """Write a split as ``<split>/<array>.npy``."""
    if not len(part):
        return WrittenPart(split=part.split, files=(), samples=0)
    place = folder / quote(part.split, safe="")
    place.mkdir()
    samples, names = part.read, list(selection.features)
    np.save(place / "sample_ids.npy", np.array(samples.sample_ids, dtype=np.str_), allow_pickle=False)
    np.save(place / "labels.npy", samples.labels.numpy(), allow_pickle=False)
    targets: dict[str, list[npt.NDArray[Any]]] = {}
    for name, dim in selection.features.items():
        lengths = samples.lengths(name)
        offsets = np.concatenate([[0], np.cumsum(np.maximum(lengths, 0))]).astype(np.int64)
        np.save(place / f"{name}.offsets.npy", offsets, allow_pickle=False)
        np.save(place / f"{name}.present.npy", lengths >= 0, allow_pickle=False)
        total = int(offsets[-1])
        targets[name] = [
            _empty(place / f"{name}.{column}.npy", (total, dim) if column == "values" else (total,), kind)
            for column, kind in _COLUMNS
        ]
    done = dict.fromkeys(names, 0)
    for records in part.chunks():
        for name in names:
            for record in records:
                sequence = record.features[name]
                if sequence is None:
                    continue
                rows = slice(done[name], done[name] + len(sequence))
                for (column, _), target in zip(_COLUMNS, targets[name], strict=True):
                    target[rows] = getattr(sequence, column)
                done[name] = rows.stop
        advanced(len(records))
    for found in targets.values():
        for target in found:
            if isinstance(target, np.memmap):
                target.flush()
    files = [
        WrittenFile(path.relative_to(folder).as_posix(), len(part) if path.name == "sample_ids.npy" else 0)
        for path in sorted(place.iterdir())
    ]
    return WrittenPart(split=part.split, files=files, samples=len(part))


def _empty(path: Path, shape: tuple[int, ...], kind: type[np.generic]) -> npt.NDArray[Any]:
    """An array on disk to be filled; one without numbers, which cannot be mapped, is written at once."""
    if 0 in shape:
        empty: npt.NDArray[Any] = np.zeros(shape, kind)
        np.save(path, empty, allow_pickle=False)
        return empty
    return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)


def write_npz(selection: Selection, part: Part, folder: Path, advanced: Callable[[int], None]) -> WrittenPart:
    """Write a split as ``<split>.npz``, not compressed."""
    if not len(part):
        return WrittenPart(split=part.split, files=(), samples=0)
    written = write(selection, part, folder, advanced)
    place, name = folder / quote(part.split, safe=""), f"{quote(part.split, safe='')}.npz"
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for file in written.files:
            archive.write(folder / file.path, Path(file.path).name)
    shutil.rmtree(place)
    return WrittenPart(split=part.split, files=[WrittenFile(name, len(part))], samples=len(part))
