"""The clocks of a snapshot's samples: when each stream begins and ends, its gaps, and where streams disagree.

Read off the times of published rows; no media are opened. So it is as fine as the rows are: a stream ends with the last
analysis frame, and begins and ends within the sample's window.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.align.clock import Held, corrected_rows, held
from features.align.timeline import Edges
from features.time import NS_PER_SECOND, seconds_to_ns
from pipeline.store import ALIGNED_PREFIX, VIEWS_PREFIX, Snapshot
from pipeline.store.shard import table_metadata

STREAMS = ("audio", "video", "text")


def _field(name: str, kind: pa.DataType, note: str) -> pa.Field:
    return pa.field(name, kind, metadata={"description": note})


SCHEMA = pa.schema(
    [
        _field("sample_id", pa.string(), "the sample"),
        *(
            field
            for stream in STREAMS
            for field in (
                _field(f"{stream}_start", pa.float64(), f"where {stream} begins, seconds; null without timed rows"),
                _field(f"{stream}_end", pa.float64(), f"where {stream} ends, seconds"),
                _field(f"{stream}_duration", pa.float64(), f"from its start to its end, seconds ({stream})"),
                _field(f"{stream}_gaps", pa.float64(), f"seconds of it in which {stream} has no row"),
                _field(f"{stream}_offset", pa.float64(), f"seconds that aligning adds to the times of {stream}"),
                _field(f"{stream}_drift_ppm", pa.float64(), f"millionths by which aligning stretches {stream}"),
                _field(f"{stream}_confidence", pa.float64(), f"of an estimated offset of {stream}, 0 to 1; else null"),
            )
        ),
        _field("start_offset", pa.float64(), "audio start less video start, seconds, corrected"),
        _field("duration_difference", pa.float64(), "audio duration less video duration, seconds, corrected"),
        _field("overlap", pa.float64(), "seconds that audio and video share, corrected"),
        _field("text_beyond", pa.float64(), "seconds by which text goes on after audio and video, corrected"),
        _field("disagree", pa.bool_(), "whether the durations of audio and video differ by more than the tolerance"),
    ]
)


def drift(snapshot: Snapshot, *, tolerance: float = 1.0, shards: Collection[int] | None = None) -> pa.Table:
    """Say for every sample of ``snapshot`` when its streams begin and end (``SCHEMA``), one row each, sorted by id.

    Starts, ends, durations and gaps are those of the media; what compares streams uses the clocks that aligning used.
    ``tolerance``: seconds by which sound and picture may last differently. ``shards``: those samples only. The times of
    one shard are held at once.
    """
    streams: Mapping[str, str] = snapshot.info["streams"]
    features = [
        name for name in snapshot.features if streams.get(name) in STREAMS and not name.startswith(VIEWS_PREFIX)
    ]
    limit = seconds_to_ns(tolerance)
    rows = []
    for shard, samples in _by_shard(snapshot, shards):
        times: dict[str, dict[str, list[Edges]]] = {}
        for feature in features:
            for sample_id, edges in _times(snapshot, feature, shard):
                times.setdefault(sample_id, {}).setdefault(streams[feature], []).append(edges)
        clocks, estimated = _clocks(snapshot, shard)
        rows += [_row(name, times.get(name, {}), clocks, estimated.get(name, {}), limit) for name in samples]
    return pa.Table.from_pylist(sorted(rows, key=lambda row: row["sample_id"]), schema=SCHEMA)


def disagreeing(table: pa.Table) -> pa.Table:
    """The samples of a drift table whose sound and picture do not last equally long, the worst first."""
    found = table.filter(pc.equal(table["disagree"], True))
    order = np.argsort(-np.abs(found["duration_difference"].to_numpy()), kind="stable")
    return found.take(pa.array(order))


def _by_shard(snapshot: Snapshot, shards: Collection[int] | None) -> Iterator[tuple[int, list[str]]]:
    """Each shard that is asked for, and its samples."""
    table = snapshot.sample_shards
    shard = table["shard"].to_numpy()
    order = np.argsort(shard, kind="stable")
    ids = table["sample_id"].take(pa.array(order)).to_pylist()
    numbers, first = np.unique(shard[order], return_index=True)
    for number, begin, stop in zip(numbers.tolist(), first.tolist(), [*first[1:].tolist(), len(ids)], strict=True):
        if shards is None or number in shards:
            yield number, ids[begin:stop]


def _times(snapshot: Snapshot, feature: str, shard: int) -> Iterator[tuple[str, Edges]]:
    for file in snapshot.files_of(feature):
        if file.shard == shard:
            table = snapshot.store.read_file(file.path, ["sample_id", "length", "start_ns", "end_ns"])
            edges = [pc.list_flatten(table[name]).to_numpy() for name in ("start_ns", "end_ns")]
            stops = np.cumsum(table["length"].to_numpy())
            starts = stops - table["length"].to_numpy()
            for sample_id, start, stop in zip(table["sample_id"].to_pylist(), starts, stops, strict=True):
                yield sample_id, (edges[0][start:stop], edges[1][start:stop])


def _clocks(snapshot: Snapshot, shard: int) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The given clocks by stream, and the estimated ones by sample and stream, as aligned files tell them."""
    given: dict[str, Any] = {}
    estimated: dict[str, Any] = {}
    for feature in snapshot.aligned[:1]:
        for file in snapshot.files_of(ALIGNED_PREFIX + feature):
            if file.shard == shard:
                said = table_metadata(snapshot.store.read_file(file.path, ["sample_id"]))
                given |= said.get("clocks", {})
                estimated |= said.get("estimated", {})
    return given, estimated


def _row(
    sample_id: str,
    times: Mapping[str, list[Edges]],
    clocks: Mapping[str, Any],
    estimated: Mapping[str, Any],
    limit: int,
) -> dict[str, Any]:
    row: dict[str, Any] = {"sample_id": sample_id}
    moved: dict[str, Held] = {}
    for stream in STREAMS:
        clock, found = clocks.get(stream, {}), estimated.get(stream)
        offset_ns = seconds_to_ns(clock.get("offset", 0.0)) + (0 if found is None else found["offset_ns"])
        ppm = clock.get("drift_ppm", 0.0)
        plain = held(times.get(stream, []))
        if plain is not None:
            row |= {
                f"{stream}_start": plain.span.start_ns / NS_PER_SECOND,
                f"{stream}_end": plain.span.end_ns / NS_PER_SECOND,
                f"{stream}_duration": plain.span.duration_ns / NS_PER_SECOND,
                f"{stream}_gaps": plain.gaps_ns / NS_PER_SECOND,
                f"{stream}_offset": offset_ns / NS_PER_SECOND,
                f"{stream}_drift_ppm": ppm,
                f"{stream}_confidence": None if found is None else found["confidence"],
            }
            corrected = held(corrected_rows(*edges, offset_ns, ppm) for edges in times[stream])
            if corrected is not None:
                moved[stream] = corrected
    return row | _compared(moved, limit)


def _compared(moved: Mapping[str, Held], limit: int) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if "audio" in moved and "video" in moved:
        audio, video = moved["audio"].span, moved["video"].span
        difference = audio.duration_ns - video.duration_ns
        row |= {
            "start_offset": (audio.start_ns - video.start_ns) / NS_PER_SECOND,
            "duration_difference": difference / NS_PER_SECOND,
            "overlap": audio.overlap_ns(video) / NS_PER_SECOND,
            "disagree": abs(difference) > limit,
        }
    media = [moved[stream].span.end_ns for stream in ("audio", "video") if stream in moved]
    if "text" in moved and media:
        row["text_beyond"] = max(0, moved["text"].span.end_ns - max(media)) / NS_PER_SECOND
    return row
