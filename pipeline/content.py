"""Content digests: what the bytes of a sample's streams are, read once and remembered by (uri, size, version)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import SampleError
from features.types import Stream
from pipeline.events import SILENT, Events
from pipeline.keys import digest, digest_rows
from pipeline.media.source import Source
from pipeline.store import DatasetStore
from pipeline.store.shard import DIGEST_BYTES

CACHE_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("digest", pa.binary(DIGEST_BYTES), nullable=False),
    ]
)
_FILES = pa.schema([CACHE_SCHEMA.field(name) for name in ("uri", "size", "version")])
_CHUNK = 1 << 22

Digests = npt.NDArray[np.uint8]
"""uint8 ``[N, 16]``: one digest a sample; all zero where the sample lacks the stream."""


def file_digest(uri: str) -> bytes:
    """BLAKE3 of a file's bytes. Raises ``SampleError`` when it cannot be read."""
    import blake3

    state = blake3.blake3()
    with Source(uri).open() as stream:
        while block := stream.read(_CHUNK):
            state.update(block)
    return bytes(state.digest(length=DIGEST_BYTES))


def stream_digests(
    samples: pa.Table,
    stream: Stream,
    cache: pa.Table,
    *,
    shared: pa.Table | None = None,
    verify: bool = False,
    events: Events = SILENT,
) -> tuple[Digests, pa.Table]:
    """Digest every file that one stream of ``samples`` names; return the samples' digests, and the new cache.

    A file whose (uri, size, version) is in ``cache`` is not read, unless ``verify``; nor is one that is in ``shared``,
    what this returned for another stream. A file that cannot be read gets a digest of its identity, so that it is tried
    again when it changes; the reason is found again when it is extracted.
    """
    files = samples.select([f"{stream}_{name}" for name in _FILES.names]).rename_columns(_FILES.names)
    present = pc.is_valid(files["uri"])
    of_sample = np.cumsum(present.to_numpy(zero_copy_only=False)) - 1
    files = files.filter(present) if files["uri"].null_count else files
    remembered = [] if verify else [cache]
    remembered += [] if shared is None else [shared]
    known = next((table for table in remembered if _same_files(table, files)), None)
    if known is None:
        coded = files["uri"].combine_chunks().dictionary_encode()
        place = coded.indices.to_numpy().astype(np.int64)
        first = np.zeros(len(coded.dictionary), dtype=np.int64)
        first[place[::-1]] = np.arange(len(place))[::-1]
        of_sample = place[of_sample] if len(place) else of_sample
        known = _digested(files.take(pa.array(first)), remembered, events)
    digests = np.zeros((len(samples), DIGEST_BYTES), dtype=np.uint8)
    rows = np.flatnonzero(present.to_numpy(zero_copy_only=False))
    digests[rows] = fixed_binary(known["digest"])[of_sample[rows]]
    return digests, known


def read_digests(
    samples: pa.Table,
    streams: Iterable[Stream],
    store: DatasetStore,
    *,
    verify: bool = False,
    events: Events = SILENT,
) -> dict[Stream, Digests]:
    """The digests of several streams; what is read is remembered in the store. ``verify`` reads every file again."""
    found: dict[Stream, Digests] = {}
    shared = None  # a video file may be its own sound: it is read once
    for stream in sorted(streams):
        cache = store.read_cache(f"content-{stream}", CACHE_SCHEMA)
        found[stream], known = stream_digests(
            samples, stream, cache, shared=shared if stream == "video" else None, verify=verify, events=events
        )
        if not known.equals(cache):
            store.write_cache(f"content-{stream}", known)
        if stream == "audio":
            shared = known
    return found


def _same_files(known: pa.Table, files: pa.Table) -> bool:
    """Whether these very files in this order are known, as after a night without changes."""
    return len(known) == len(files) and all(known[name].equals(files[name]) for name in _FILES.names)


def _digested(files: pa.Table, remembered: Iterable[pa.Table], events: Events) -> pa.Table:
    """``files`` with their digests: remembered under the same uri, size and version, or read."""
    digests = np.zeros((len(files), DIGEST_BYTES), dtype=np.uint8)
    known = np.zeros(len(files), dtype=bool)
    for table in remembered:
        unknown = np.flatnonzero(~known)
        if not len(unknown):
            break
        sought = files["uri"].take(pa.array(unknown)).combine_chunks()
        found = pc.fill_null(pc.index_in(table["uri"], value_set=sought), -1).to_numpy()
        rows = np.flatnonzero(found >= 0)
        place = unknown[found[rows]]
        there, here = table.take(pa.array(rows)), files.take(pa.array(place))
        same = pc.and_(pc.equal(there["size"], here["size"]), pc.equal(there["version"], here["version"])).to_numpy()
        place = place[same]
        digests[place] = fixed_binary(there["digest"])[same]
        known[place] = True
    missing = np.flatnonzero(~known)
    if len(missing):
        events.started("digest", len(missing), "files")
        unread = files.take(pa.array(missing)).to_pylist()
        with ThreadPoolExecutor(max_workers=4) as pool:
            for index, found in zip(missing, pool.map(_digest_or_identity, unread), strict=True):
                digests[index] = np.frombuffer(found, dtype=np.uint8)
                events.advanced("digest")
        events.finished("digest")
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST_BYTES), len(digests), [None, pa.py_buffer(digests)])
    return pa.table([*files.columns, column], schema=CACHE_SCHEMA)


def _digest_or_identity(row: dict[str, Any]) -> bytes:
    try:
        return file_digest(row["uri"])
    except SampleError as error:
        return digest(error.reason.value.encode(), *(str(row[name]).encode() for name in ("uri", "size", "version")))


def fixed_binary(column: pa.ChunkedArray | pa.Array) -> Digests:
    """A fixed-size binary column without nulls as uint8 ``[N, width]``."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    width = column.type.byte_width
    raw = np.frombuffer(column.buffers()[1], dtype=np.uint8) if len(column) else np.zeros(0, dtype=np.uint8)
    start = column.offset * width
    return raw[start : start + len(column) * width].reshape(len(column), width)


def together(streams: Sequence[Digests]) -> Digests:
    """Digests of samples whose features read several streams; of one stream, as they are."""
    if len(streams) == 1:
        return streams[0]
    return digest_rows(np.concatenate(streams, axis=1), of=b"streams")


def windowed(digests: Digests, samples: pa.Table) -> Digests:
    """Digests of what a sample reads: a file's own, or of file and window where the sample is a window of it."""
    windows = pc.is_valid(samples["start_ns"]).to_numpy(zero_copy_only=False)
    if not windows.any():
        return digests
    rows = np.flatnonzero(windows)
    edges = [samples[name].take(pa.array(rows)).to_numpy().astype("<i8") for name in ("start_ns", "end_ns")]
    read = np.concatenate([digests[rows], np.stack(edges, axis=1).view(np.uint8)], axis=1)
    result = digests.copy()
    result[rows] = digest_rows(read, of=b"window")
    return result
