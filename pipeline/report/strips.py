"""Section of alignment: one sample's media, its features as extracted, and the same on the common timeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
from markupsafe import Markup

from features.align.clock import corrected_rows
from features.align.timeline import Edges
from features.time import ALWAYS, NS_PER_SECOND, Span
from features.types import FeatureSequence, Stream
from pipeline.media.source import Source
from pipeline.media.text import read_text
from pipeline.report import charts, intervals
from pipeline.report.album import Album, Picture
from pipeline.report.clocks import clocks
from pipeline.report.draw import RANGE_DB, feature_strip, heat, over_time, spectrogram_db
from pipeline.report.intervals import Correction
from pipeline.report.material import Material, Shown
from pipeline.report.media import open_sound
from pipeline.report.moving import even_frames
from pipeline.report.statistics import Reader, chosen_shards
from pipeline.store import ALIGNED_PREFIX, Snapshot
from pipeline.store.shard import sequence_at, table_metadata

SECONDS = 20.0
"""What is shown of each sample."""
_COLUMNS = 600
_FRAMES = 8
_MAX_WORDS = 60
_LOOKED_AT = 8
"""Samples that are tried for each that is shown: some have no interval, or cannot be read."""


@dataclass(frozen=True)
class Block:
    """A piece of text in time: where it lies, in percent of what is shown."""

    left: float
    width: float
    text: str


@dataclass(frozen=True)
class Lane:
    """One thing over time. ``kind``: frames, sound, text, timeline, rows, curve or aligned."""

    kind: str
    name: str
    note: str = ""
    picture: Picture | None = None
    left: float = 0.0
    width: float = 100.0
    blocks: tuple[Block, ...] = ()
    frames: tuple[tuple[float, Picture], ...] = ()
    drawing: Markup | None = None


@dataclass(frozen=True)
class Strip:
    """One sample over time. ``intervals``: how many of its timeline are shown. ``marks``: a line at their edges."""

    sample: Shown
    span: Span
    cut: bool
    intervals: int
    marks: Markup | None
    lanes: list[Lane] = field(default_factory=list)

    @property
    def ticks(self) -> list[str]:
        """Five times from the first to the last, seconds."""
        length = self.span.duration_ns
        return [f"{(self.span.start_ns + length * i // 4) / NS_PER_SECOND:.2f} s" for i in range(5)]


def alignment(material: Material, album: Album, count: int) -> dict[str, Any] | None:
    """How much of the timeline each feature covers, and a few samples to check by eye."""
    snapshot = material.snapshot
    if snapshot is None or not snapshot.aligned:
        return None
    rows, reader = [], Reader()
    for name in snapshot.aligned:
        stored = ALIGNED_PREFIX + name
        found = album.attempt(
            f"coverage of {name}",
            partial(reader.distribution, snapshot, stored, chosen_shards(snapshot, stored)),
        )
        if found is not None and found.steps:
            rows.append(
                {
                    "name": name,
                    "intervals": found.steps,
                    "samples": found.samples,
                    "valid": found.valid / found.steps,
                    "coverage": found.coverage or 0.0,
                }
            )
    strips: list[Strip] = []
    wanted, empty = -(-count // 4), 0
    for sample in _to_show(material, _LOOKED_AT * wanted):
        if len(strips) == wanted:
            break
        rows_of = album.attempt(f"the rows of {sample.sample_id}", partial(_rows_of, snapshot, sample))
        if rows_of is None:
            continue
        if not rows_of.has_intervals:
            empty += 1
            continue
        what = f"the timeline of {sample.sample_id}"
        strip = album.attempt(what, partial(_strip, material, album, sample, rows_of))
        if strip is not None:
            strips.append(strip)
    tolerance = 1.0 if material.dataset.align is None else material.dataset.align.durations.tolerance
    shards = chosen_shards(snapshot, ALIGNED_PREFIX + snapshot.aligned[0])
    return {
        "clocks": album.attempt("the clocks of streams", partial(clocks, snapshot, tolerance, shards)),
        "rows": rows,
        "strips": strips,
        "empty": empty,
        "timeline": intervals.in_words(snapshot.info["timeline"]),
        "seconds": SECONDS,
    }


def _to_show(material: Material, count: int) -> list[Shown]:
    streams = {chain.stream for chain in material.dataset.features.values()}
    for stream in ("video", "audio", "text"):
        if stream in streams and (found := material.choose(stream, count)):
            return found
    return []


@dataclass(frozen=True, eq=False)
class _Stored:
    sequence: FeatureSequence
    coverage: npt.NDArray[np.float32] | None
    said: Mapping[str, Any]
    """Metadata of its file."""

    @property
    def edges(self) -> Edges:
        return self.sequence.start_ns, self.sequence.end_ns


@dataclass(frozen=True, eq=False)
class _Rows:
    """What a snapshot holds of one sample. ``stored``, ``aligned``: feature -> its row, if it has one."""

    streams: Mapping[str, str]
    stored: Mapping[str, _Stored | None]
    aligned: Mapping[str, _Stored | None]
    clocks: Mapping[str, Correction]

    @property
    def has_intervals(self) -> bool:
        return any(row is not None and len(row.sequence) for row in self.aligned.values())

    @property
    def timeline(self) -> Edges:
        return next(row.edges for row in self.aligned.values() if row is not None and len(row.sequence))

    def clock(self, stream: str) -> Correction:
        return self.clocks.get(stream, Correction())


def _rows_of(snapshot: Snapshot, sample: Shown) -> _Rows:
    shards = snapshot.sample_shards
    shard = shards["shard"][pc.index(shards["sample_id"], sample.sample_id).as_py()].as_py()
    names = snapshot.aligned
    aligned = {name: _row(snapshot, ALIGNED_PREFIX + name, shard, sample.sample_id) for name in names}
    said = next((row.said for row in aligned.values() if row is not None), {})
    return _Rows(
        streams=snapshot.info["streams"],
        stored={name: _row(snapshot, name, shard, sample.sample_id) for name in names},
        aligned=aligned,
        clocks=intervals.corrections(said, sample.sample_id),
    )


def _row(snapshot: Snapshot, feature: str, shard: int, sample_id: str) -> _Stored | None:
    """The stored row of one sample, reading no more of its shard than the row group that it is in."""
    file = next((file for file in snapshot.files_of(feature) if file.shard == shard), None)
    width = snapshot.dim(feature)
    if file is None or width is None:
        return None
    columns = ["start_ns", "end_ns", "valid", "values"]
    if feature.startswith(ALIGNED_PREFIX):
        columns.append("coverage")
    with snapshot.store.fs.open(snapshot.store.path(file.path), "rb") as stream, pq.ParquetFile(stream) as opened:
        for group in range(opened.num_row_groups):
            keys = opened.read_row_group(group, columns=["sample_id", "view"], use_threads=False).to_pylist()
            at = next((i for i, key in enumerate(keys) if (key["sample_id"], key["view"]) == (sample_id, 0)), None)
            if at is not None:
                table = opened.read_row_group(group, columns=columns, use_threads=False)
                covered = table["coverage"][at].values if "coverage" in columns else None
                return _Stored(
                    sequence_at(table, at, width),
                    None if covered is None else np.asarray(covered.to_numpy(zero_copy_only=False)),
                    table_metadata(table),
                )
    return None


def _strip(material: Material, album: Album, sample: Shown, rows: _Rows) -> Strip:
    media = (
        corrected_rows(*row.edges, clock.offset_ns, clock.drift_ppm)
        for name, row in rows.stored.items()
        for clock in (rows.clock(rows.streams[name]),)
        if row is not None
    )
    span, cut = intervals.shown_span(rows.timeline, media, SECONDS)
    timeline = intervals.inside(rows.timeline, span)
    strip = Strip(sample, span, cut, len(timeline[0]), intervals.marks(timeline, span))
    streams: tuple[tuple[Stream, Callable[..., Lane]], ...] = (("video", _film), ("audio", _sound), ("text", _words))
    for stream, make in streams:
        if stream in sample.uris:
            what, clock = f"{stream} on the timeline of {sample.sample_id}", rows.clock(stream)
            lane = album.attempt(what, partial(make, album, sample, clock.before(span)))
            if lane is not None:
                strip.lanes.append(replace(lane, note=lane.note + clock.note))
    note = f"{len(timeline[0]):,} of {len(rows.timeline[0]):,} intervals"
    strip.lanes.append(Lane("timeline", "timeline", note, drawing=intervals.lane(timeline, span)))
    for name, row in rows.aligned.items():
        own = rows.clock(rows.streams[name]).before(span)
        strip.lanes.extend(_feature_lanes(material, album, sample, name, (own, rows.stored[name]), (span, row)))
    return strip


def _film(album: Album, sample: Shown, span: Span) -> Lane:
    frames = tuple(
        (_percent(start, span), album.photo(pixels, f"{sample.sample_id} at {start / NS_PER_SECOND:.2f} s"))
        for start, pixels in even_frames(sample, span, _FRAMES, 72)
    )
    return Lane("frames", "video", "frames at their times", frames=frames)


def _sound(album: Album, sample: Shown, span: Span) -> Lane:
    clip = open_sound(sample, span)
    power = spectrogram_db(clip, _COLUMNS)
    top = max(-100.0, float(power.max(initial=-100.0)))
    picture = album.photo(_squeezed(heat(power, top - RANGE_DB, top)), f"spectrogram of {sample.sample_id}")
    left = _percent(clip.span.start_ns, span)
    note = f"{clip.span.start_ns / NS_PER_SECOND:.2f} to {clip.span.end_ns / NS_PER_SECOND:.2f} s"
    return Lane("sound", "audio", note, picture, left, max(0.0, _percent(clip.span.end_ns, span) - left))


def _squeezed(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    import cv2

    size = (min(_COLUMNS, pixels.shape[1]), 72)
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _words(album: Album, sample: Shown, span: Span) -> Lane:
    del album
    blocks = []
    for segment in read_text(Source(sample.uris["text"]), span=sample.span).segments:
        if segment.span == ALWAYS:
            blocks.append(Block(0, 100, segment.text[:200]))
        elif segment.span.overlap_ns(span):
            left = max(0.0, _percent(segment.span.start_ns, span))
            right = min(100.0, _percent(segment.span.end_ns, span))
            blocks.append(Block(left, max(0.3, right - left), segment.text[:200]))
    if not blocks:
        raise ValueError("no text in what is shown")
    more = f", the first {_MAX_WORDS} of {len(blocks)}" if len(blocks) > _MAX_WORDS else ""
    return Lane("text", "text", f"segments at their times{more}", blocks=tuple(blocks[:_MAX_WORDS]))


def _feature_lanes(
    material: Material,
    album: Album,
    sample: Shown,
    name: str,
    plain: tuple[Span, _Stored | None],
    aligned: tuple[Span, _Stored | None],
) -> list[Lane]:
    """Lanes of a feature's rows, each drawn in its own span: as extracted, its speed if it is motion, and aligned."""
    lanes = []
    (own, stored), (span, row) = plain, aligned
    if stored is None:
        lanes.append(Lane("rows", name, "no rows: absent in this sample, or in quarantine"))
    else:
        note = f"{len(stored.sequence):,} rows × {stored.sequence.dim:,}, {_reach(stored.sequence)}"
        lanes.append(Lane("rows", name, note, _drawn(album, sample, name, stored, _edges(own))))
        extractor = material.dataset.features[name].extractor if name in material.dataset.features else None
        if extractor is not None and extractor.name == "video.flow" and len(stored.sequence):
            speed, at = stored.sequence.values[:, 0], _columns(stored.sequence, _edges(own))
            points = [None if column < 0 else float(speed[column]) for column in at.tolist()]
            lanes.append(Lane("curve", f"{name} speed", drawing=charts.curve(points, "speed of motion over time")))
    if row is None:
        lanes.append(Lane("aligned", f"{name}, aligned", "no aligned rows"))
    else:
        valid = int(np.count_nonzero(row.sequence.valid))
        mean = 0.0 if row.coverage is None or not len(row.coverage) else float(row.coverage.mean())
        note = f"{valid:,} of {len(row.sequence):,} intervals valid, {mean:.0%} covered"
        drawn = _drawn(album, sample, f"{name}, aligned", row, _edges(span))
        lanes.append(Lane("aligned", f"{name}, aligned", note, drawn))
    return lanes


def _edges(span: Span) -> npt.NDArray[np.int64]:
    return np.linspace(span.start_ns, span.end_ns, _COLUMNS + 1).astype(np.int64)


def _columns(sequence: FeatureSequence, edges: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return over_time(sequence.values, sequence.start_ns, sequence.end_ns, edges)


def _drawn(album: Album, sample: Shown, name: str, row: _Stored, edges: npt.NDArray[np.int64]) -> Picture:
    """Rows over time; what is not valid is not drawn, and what is half covered is half transparent."""
    columns = _columns(row.sequence, edges)
    if len(row.sequence):
        columns[(columns >= 0) & ~row.sequence.valid[np.maximum(columns, 0)]] = -1
    drawn = feature_strip(row.sequence.values, columns)
    if row.coverage is not None and len(row.coverage):
        share = np.clip(row.coverage[np.maximum(columns, 0)], 0, 1)
        drawn[..., 3] = (drawn[..., 3] * (0.35 + 0.65 * share)).astype(np.uint8)
    return album.graphic(drawn, f"{name} of {sample.sample_id} over time")


def _reach(sequence: FeatureSequence) -> str:
    if not len(sequence):
        return "no time"
    if int(sequence.start_ns[0]) == ALWAYS.start_ns:
        return "holds at all times"
    return f"{sequence.start_ns[0] / NS_PER_SECOND:.2f} to {sequence.end_ns.max() / NS_PER_SECOND:.2f} s"


def _percent(time_ns: int, span: Span) -> float:
    return 100 * (time_ns - span.start_ns) / max(1, span.duration_ns)
