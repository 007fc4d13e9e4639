"""What a sample costs before anything is known of it: bytes of its files, seconds of media, pixels of pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.time import NS_PER_SECOND
from features.types import STREAMS, Stream
from pipeline.media.extent import Extent, read_extent
from pipeline.media.source import Source
from pipeline.store import DatasetStore

SHARD_BYTES = 64 << 20
"""A shard is closed before its samples hold more than this: of bytes ..."""
SHARD_NS: Mapping[Stream, int] = {"video": 1800 * NS_PER_SECOND, "audio": 14_400 * NS_PER_SECOND}
"""... of media time, by stream ..."""
SHARD_PIXELS = 512_000_000
"""... or of pixels. Each is some seconds to a minute of work, so that a few long films do not make one long task."""

PICTURED, OTHERS = 64, 512
"""Samples of a shard at most, unless the catalog says a number: with pictures or video, and without. A picture takes a
network tens of milliseconds however few pixels it has; a second of sound or a text takes about one."""
PIECES = 32
"""Small data sets are cut into so many shards (of ``PICTURED`` samples at least), so that every worker has some."""

SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
        pa.field("ns", pa.int64(), nullable=False),
        pa.field("pixels", pa.int64(), nullable=False),
    ]
)
_FILES = SCHEMA.names[:3]


def stream_extents(samples: pa.Table, stream: Stream, cache: pa.Table) -> pa.Table:
    """The extents of the files that one stream of ``samples`` names, from their headers or (same version) ``cache``."""
    files = samples.select([f"{stream}_{name}" for name in _FILES]).rename_columns(_FILES)
    files = files.filter(pc.is_valid(files["uri"])).group_by(_FILES, use_threads=False).aggregate([])
    known = {tuple(row[name] for name in _FILES): Extent(row["ns"], row["pixels"]) for row in cache.to_pylist()}
    rows = files.to_pylist()
    found = [known.get(tuple(row[name] for name in _FILES)) for row in rows]
    missing = [number for number, extent in enumerate(found) if extent is None]
    with ThreadPoolExecutor(max_workers=4) as pool:
        uris = (Source(rows[number]["uri"]) for number in missing)
        for number, extent in zip(missing, pool.map(read_extent, uris), strict=True):
            found[number] = extent
    columns = {name: [row[name] for row in rows] for name in _FILES}
    extents = [extent for extent in found if extent is not None]
    columns |= {"ns": [extent.ns for extent in extents], "pixels": [extent.pixels for extent in extents]}
    return pa.table(columns, schema=SCHEMA)


def read_extents(samples: pa.Table, streams: Iterable[Stream], store: DatasetStore) -> dict[Stream, pa.Table]:
    """The extents of several streams; what is read is remembered in the store. Nothing for no samples."""
    found: dict[Stream, pa.Table] = {}
    for stream in streams if len(samples) else ():
        cache = store.read_cache(f"extent-{stream}", SCHEMA)
        found[stream] = stream_extents(samples, stream, cache)
        if not found[stream].equals(cache):
            store.write_cache(f"extent-{stream}", found[stream])
    return found


def shard_shares(samples: pa.Table, extents: Mapping[Stream, pa.Table]) -> npt.NDArray[np.float64]:
    """Which share of a shard each sample is, float64 ``[N]``: by the measure of which it has most, all streams added.

    A window of a file costs its own time and, where the file's length is known, that part of its bytes. A file that
    gives both video and audio counts once.
    """
    shares = np.zeros(len(samples), dtype=np.float64)
    windows = pc.fill_null(pc.subtract(samples["end_ns"], samples["start_ns"]), -1).to_numpy()
    for stream in STREAMS:
        uris = samples[f"{stream}_uri"]
        size = pc.fill_null(samples[f"{stream}_size"], 0).to_numpy().astype(np.float64)
        ns, pixels = np.zeros(len(samples), dtype=np.int64), np.zeros(len(samples), dtype=np.int64)
        table = extents.get(stream)
        if table is not None and len(table):
            at = pc.fill_null(pc.index_in(uris, value_set=table["uri"]), -1).to_numpy()
            ns[at >= 0] = table["ns"].to_numpy()[at[at >= 0]]
            pixels[at >= 0] = table["pixels"].to_numpy()[at[at >= 0]]
        timed = stream in SHARD_NS
        if timed:
            cut = (windows >= 0) & pc.is_valid(uris).to_numpy()
            length = np.where(cut & (ns > 0), np.minimum(windows, ns), np.where(cut, windows, ns))
            size = np.where(cut, size * np.where(ns > 0, length / np.maximum(ns, 1), 0.0), size)
            ns = length
        share = np.maximum(size / SHARD_BYTES, pixels / SHARD_PIXELS)
        share = np.maximum(share, ns / SHARD_NS[stream]) if timed else share
        if stream == "audio":
            shared = pc.fill_null(pc.equal(samples["audio_uri"], samples["video_uri"]), False).to_numpy()
            share = np.where(shared, 0.0, share)
        shares += share
    return shares


def least_shares(samples: pa.Table) -> npt.NDArray[np.float64]:
    """Which share of a shard each sample is, however small its media are, float64 ``[N]``."""
    pictured = pc.or_(pc.is_valid(samples["image_uri"]), pc.is_valid(samples["video_uri"]))
    others = min(max(len(samples) // PIECES, PICTURED), OTHERS)
    return np.where(pictured.to_numpy(), 1 / PICTURED, 1 / others)
