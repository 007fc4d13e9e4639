"""Content digests: what the bytes of a sample's streams are, read once and remembered by (uri, size, version)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import SampleError
from features.types import Stream
from pipeline.events import SILENT, Events
from pipeline.keys import digest
from pipeline.media.source import Source
from pipeline.store.shard import DIGEST_BYTES

CACHE_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("digest", pa.binary(DIGEST_BYTES), nullable=False),
    ]
)
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
    samples: pa.Table, streams: Sequence[Stream], cache: pa.Table, *, verify: bool = False, events: Events = SILENT
) -> tuple[dict[Stream, Digests], pa.Table]:
    """Digest every file that the streams of ``samples`` name; return them by stream, and the new cache.

    A file whose (uri, size, version) is in ``cache`` is not read, unless ``verify``. A file that cannot be read gets a
    digest of its identity, so that it is tried again when it changes; the reason is found again when it is extracted.
    """
    files = pa.concat_tables(
        [
            samples.select([f"{stream}_uri", f"{stream}_size", f"{stream}_version"]).rename_columns(
                ["uri", "size", "version"]
            )
            for stream in streams
        ]
    )
    files = files.filter(pc.is_valid(files["uri"])).group_by(["uri", "size", "version"]).aggregate([])
    files = files.combine_chunks()
    known = np.zeros(len(files), dtype=bool)
    digests = np.zeros((len(files), DIGEST_BYTES), dtype=np.uint8)
    if len(cache) and not verify:
        at = pc.index_in(_identity(files), value_set=_identity(cache)).to_numpy(zero_copy_only=False)
        known = ~np.isnan(at)
        digests[known] = fixed_binary(cache["digest"])[at[known].astype(np.int64)]
    missing = np.flatnonzero(~known)
    if len(missing):
        events.started("digest", len(missing), "files")
        rows = files.take(pa.array(missing)).to_pylist()
        with ThreadPoolExecutor(max_workers=4) as pool:
            for index, found in zip(missing, pool.map(_digest_or_identity, rows), strict=True):
                digests[index] = np.frombuffer(found, dtype=np.uint8)
                events.advanced("digest")
        events.finished("digest")
    by_stream: dict[Stream, Digests] = {}
    for stream in streams:
        at = pc.index_in(samples[f"{stream}_uri"].combine_chunks(), value_set=files["uri"].combine_chunks())
        index = at.to_numpy(zero_copy_only=False).astype(np.float64)
        present = ~np.isnan(index)
        column = np.zeros((len(samples), DIGEST_BYTES), dtype=np.uint8)
        column[present] = digests[index[present].astype(np.int64)]
        by_stream[stream] = column
    flat = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(DIGEST_BYTES), len(files), [None, pa.py_buffer(np.ascontiguousarray(digests))]
    )
    return by_stream, pa.table([*files.columns, flat], schema=CACHE_SCHEMA)


def _identity(files: pa.Table) -> pa.Array:
    parts = [files["uri"], pc.cast(files["size"], pa.string()), files["version"]]
    return pc.binary_join_element_wise(*parts, "\0").combine_chunks()


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


def windowed(digests: Digests, samples: pa.Table) -> Digests:
    """Digests of what a sample reads: a file's own, or of file and window where the sample is a window of it."""
    windows = pc.is_valid(samples["start_ns"]).to_numpy(zero_copy_only=False)
    if not windows.any():
        return digests
    result = digests.copy()
    starts, ends = samples["start_ns"].to_pylist(), samples["end_ns"].to_pylist()
    for row in np.flatnonzero(windows):
        part = digest(digests[row].tobytes(), str(starts[row]).encode(), str(ends[row]).encode())
        result[row] = np.frombuffer(part, dtype=np.uint8)
    return result
