"""Files of word vectors as arrays that are mapped, not read: each file is converted once, beside the user's caches.

The converted form is a folder of plain little-endian arrays (``features.text.words.WordTable``) and a description,
under ``$XDG_CACHE_HOME/gristmill/vectors`` (``~/.cache`` without it). It may be deleted at any time.
"""

from __future__ import annotations

import fcntl
import json
import logging
import mmap
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from features.base import State
from features.errors import StateError
from features.text.vector_files import read_binary, read_text
from features.text.words import index_words

_log = logging.getLogger(__name__)

_FORMAT = 1
_DTYPES = {"vectors": "<f4", "vocabulary": "|u1", "ends": "<i8", "hashes": "<u8", "order": "<i8"}
READERS = {".txt": read_text, ".vec": read_text, ".glove": read_text, ".bin": read_binary}
"""Extension -> how such a file is read."""


def cache_folder() -> Path:
    """Where converted files lie."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gristmill" / "vectors"


def load_vectors(path: Path) -> State:
    """Return the state of a file of word vectors, mapped into memory; it is converted when it is new or changed.

    Converted are files by path, size and time of change; of processes that need the same file at once, one converts it
    and the others wait. Raises ``StateError`` where the file is damaged (with its line) or the disk refuses.
    """
    entry = path.stat()
    source = f"{_FORMAT}\0{path.resolve()}\0{entry.st_size}\0{entry.st_mtime_ns}"
    target = cache_folder() / f"{path.stem[:60]}-{blake2b(source.encode(), digest_size=12).hexdigest()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(target.name + ".lock")):
            found = _opened(target)
            if found is None:
                _log.info("converting %s to %s", path, target)
                _convert(path, target)
                found = _opened(target)
    except OSError as error:
        raise StateError(
            f"weights: {path} cannot be converted into {target.parent} ({error}); cure: make room there, or set "
            "XDG_CACHE_HOME to a folder on another disk"
        ) from error
    except StateError as error:
        raise StateError(f"weights: {path}: {error}") from error
    if found is None:
        raise StateError(f"weights: {target} was changed while it was opened; cure: delete it and run again")
    return found


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _opened(target: Path) -> State | None:
    """The arrays of a converted file; ``None`` where it is not there or not whole."""
    try:
        shapes: dict[str, list[int]] = json.loads((target / "arrays.json").read_bytes())
        sizes = {name: (target / name).stat().st_size for name in _DTYPES}
    except (OSError, ValueError):
        return None
    if shapes.keys() != _DTYPES.keys() or any(
        sizes[name] != int(np.prod(shapes[name])) * np.dtype(kind).itemsize for name, kind in _DTYPES.items()
    ):
        return None
    return {
        name: np.memmap(target / name, dtype=kind, mode="r", shape=tuple(shapes[name]))
        for name, kind in _DTYPES.items()
        if sizes[name]
    } | {name: np.zeros(shapes[name], dtype=kind) for name, kind in _DTYPES.items() if not sizes[name]}


def _convert(path: Path, target: Path) -> None:
    """Write ``target`` whole or not at all. A description is written last, and the folder renamed into place."""
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with path.open("rb") as source, (folder / "vectors").open("wb") as sink:
            arrays, shape = _copy(path, source, sink)
        shapes: dict[str, Any] = {"vectors": shape}
        for name, array in arrays.items():
            (folder / name).write_bytes(np.ascontiguousarray(array, dtype=_DTYPES[name]).tobytes())
            shapes[name] = list(array.shape)
        (folder / "arrays.json").write_text(json.dumps(shapes))
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(path: Path, source: BinaryIO, sink: BinaryIO) -> tuple[dict[str, Any], list[int]]:
    # a map of an empty file is refused by the system; the reader refuses it too, and says why
    size = os.fstat(source.fileno()).st_size
    data = mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    words: list[bytes] = []
    width = 0
    for block, vectors in READERS[path.suffix.lower()](data):
        words += block
        width = vectors.shape[1]
        sink.write(vectors.astype("<f4", copy=False).tobytes())
    hashes, order = index_words(words)
    ends = np.cumsum([len(word) for word in words]) + np.arange(len(words))
    vocabulary = np.frombuffer(b"\n".join(words), dtype=np.uint8)
    return {"vocabulary": vocabulary, "ends": ends, "hashes": hashes, "order": order}, [len(words), width]
