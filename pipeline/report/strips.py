"""Section of alignment: one sample's media, its features as extracted, and the same on the common timeline."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq
from markupsafe import Markup

from features.time import ALWAYS, NS_PER_SECOND, Span
from features.types import FeatureSequence
from pipeline.media.source import Source
from pipeline.media.text import read_text
from pipeline.report import charts
from pipeline.report.album import Album, Picture
from pipeline.report.draw import RANGE_DB, feature_strip, heat, over_time, spectrogram_db
from pipeline.report.material import Material, Shown
from pipeline.report.media import open_sound
from pipeline.report.moving import even_frames
from pipeline.report.statistics import Reader, chosen_shards
from pipeline.store import ALIGNED_PREFIX, Snapshot
from pipeline.store.shard import sequence_at

SECONDS = 20.0
"""What is shown of each sample."""
_COLUMNS = 600
_FRAMES = 8
_MAX_MARKS = 80
_MAX_WORDS = 60


@dataclass(frozen=True)
class Block:
    """A piece of text in time: where it lies, in percent of what is shown."""

    left: float
    width: float
    text: str


@dataclass(frozen=True)
class Lane:
    """One thing over time. ``kind``: frames, sound, text, rows or aligned."""

    kind: str
    name: str
    note: str = ""
    picture: Picture | None = None
    left: float = 0.0
    width: float = 100.0
    blocks: tuple[Block, ...] = ()
    frames: tuple[tuple[float, Picture], ...] = ()
    curve: Markup | None = None


@dataclass(frozen=True)
class Strip:
    """One sample over time. ``step``: percent of one interval (0: too many to be marked)."""

    sample: Shown
    span: Span
    cut: bool
    intervals: int
    step: float
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
    strips = []
    for sample in _to_show(material, -(-count // 4)):
        strip = album.attempt(f"the timeline of {sample.sample_id}", partial(_strip, material, snapshot, album, sample))
        if strip is not None:
            strips.append(strip)
    return {"rows": rows, "strips": strips, "grid": snapshot.info["grid"], "seconds": SECONDS}


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


def _row(snapshot: Snapshot, feature: str, shard: int, sample_id: str) -> _Stored | None:
    """The stored row of one sample, reading no more of its shard than the row group that it is in."""
    file = next((file for file in snapshot.files_of(feature) if file.shard == shard), None)
    if file is None:
        return None
    width = snapshot.info["dims"][feature.removeprefix(ALIGNED_PREFIX)]
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
                )
    return None


def _strip(material: Material, snapshot: Snapshot, album: Album, sample: Shown) -> Strip:
    shards = snapshot.sample_shards
    shard = shards["shard"][pc.index(shards["sample_id"], sample.sample_id).as_py()].as_py()
    names = snapshot.aligned
    aligned = {name: _row(snapshot, ALIGNED_PREFIX + name, shard, sample.sample_id) for name in names}
    stored = {name: _row(snapshot, name, shard, sample.sample_id) for name in names}
    first = next((row.sequence for row in aligned.values() if row is not None and len(row.sequence)), None)
    if first is None:
        raise ValueError("the sample has no aligned rows")
    whole = Span(int(first.start_ns[0]), int(first.end_ns[-1]))
    if whole == ALWAYS:
        raise ValueError("nothing of the sample has a time")
    span = Span(whole.start_ns, min(whole.end_ns, whole.start_ns + int(SECONDS * NS_PER_SECOND)))
    intervals = int(np.count_nonzero(first.start_ns < span.end_ns))
    step = 100 * int(first.end_ns[0] - first.start_ns[0]) / max(1, span.duration_ns)
    strip = Strip(sample, span, span != whole, intervals, step if intervals <= _MAX_MARKS else 0.0)
    for stream, make in (("video", _film), ("audio", _sound), ("text", _words)):
        if stream in sample.uris:
            lane = album.attempt(f"{stream} on the timeline of {sample.sample_id}", partial(make, album, sample, span))
            if lane is not None:
                strip.lanes.append(lane)
    for name in names:
        strip.lanes.extend(_feature_lanes(material, album, sample, name, span, stored[name], aligned[name]))
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
    material: Material, album: Album, sample: Shown, name: str, span: Span, stored: _Stored | None, row: _Stored | None
) -> list[Lane]:
    edges = np.linspace(span.start_ns, span.end_ns, _COLUMNS + 1).astype(np.int64)
    lanes = []
    if stored is None:
        lanes.append(Lane("rows", name, "no rows: absent in this sample, or in quarantine"))
    else:
        note = f"{len(stored.sequence):,} rows × {stored.sequence.dim:,}, {_reach(stored.sequence)}"
        lanes.append(Lane("rows", name, note, _drawn(album, sample, name, stored, edges)))
        extractor = material.dataset.features[name].extractor if name in material.dataset.features else None
        if extractor is not None and extractor.name == "video.flow" and len(stored.sequence):
            speed, at = stored.sequence.values[:, 0], _columns(stored.sequence, edges)
            points = [None if column < 0 else float(speed[column]) for column in at.tolist()]
            lanes.append(Lane("curve", f"{name} speed", curve=charts.curve(points, "speed of motion over time")))
    if row is None:
        lanes.append(Lane("aligned", f"{name}, aligned", "no aligned rows"))
    else:
        valid = int(np.count_nonzero(row.sequence.valid))
        mean = 0.0 if row.coverage is None or not len(row.coverage) else float(row.coverage.mean())
        note = f"{valid:,} of {len(row.sequence):,} intervals valid, {mean:.0%} covered"
        lanes.append(Lane("aligned", f"{name}, aligned", note, _drawn(album, sample, f"{name}, aligned", row, edges)))
    return lanes


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
