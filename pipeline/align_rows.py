"""One shard on its way to a common timeline: rows are read, clocks corrected, timelines laid, streams compared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.align.clock import UNKNOWN, OffsetEstimate, corrected_rows, estimate_offset, rise
from features.align.pool import Batch, Timelines, splits_of
from features.align.timeline import Edges, extents, grid, ordered, pieces_of, rows_of
from features.errors import Reason, SampleError, StoreError
from features.time import ALWAYS, NS_PER_SECOND, Span, seconds_to_ns
from features.types import FeatureSequence, Stream
from pipeline.catalog.align_checks import column_of
from pipeline.catalog.align_models import Align, Grid, Signal
from pipeline.chain import Chain
from pipeline.media.source import Source
from pipeline.media.text import read_text
from pipeline.store import VIEWS_PREFIX, DatasetStore, ShardFile
from pipeline.timelines import Given

_NO_EDGES = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class Track:
    """A column of a feature as a signal in time."""

    feature: str
    column: int
    take: Signal


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How the features of a data set are aligned. ``estimates``: stream -> its own signal, and that it is moved to."""

    align: Align
    dims: Mapping[str, int]
    streams: Mapping[str, Stream]
    estimates: Mapping[Stream, tuple[Track, Track]]

    @classmethod
    def of(cls, align: Align, chains: Mapping[str, Chain]) -> Setting:
        """Bring an entry of the catalog and the features that it is about together."""
        chains = {name: chain for name, chain in chains.items() if not name.startswith(VIEWS_PREFIX)}
        estimates = {}
        for stream, clock in align.clocks.items():
            if clock.estimate is not None:
                tracks = []
                for signal in clock.estimate.pair:
                    chain = chains[signal.feature]
                    default: Signal = "rise" if chain.stream == "audio" else "value"
                    tracks.append(Track(signal.feature, column_of(signal, chain), signal.take or default))
                own = 0 if chains[tracks[0].feature].stream == stream else 1
                estimates[stream] = (tracks[own], tracks[1 - own])
        return cls(
            align=align,
            dims={name: chain.extractor.dim for name, chain in chains.items()},
            streams={name: chain.stream for name, chain in chains.items()},
            estimates=estimates,
        )

    def read_with(self, feature: str) -> frozenset[str]:
        """The features that the aligned rows of ``feature`` depend on."""
        found = {feature}
        if self.align.grid is not None:  # it covers what all of them cover
            return frozenset(self.dims)
        if self.align.rows_of is not None:
            found.add(self.align.rows_of)
        for pair in self.estimates.values():
            found |= {track.feature for track in pair}
        if self.align.durations.then == "quarantine":
            found |= {name for name, stream in self.streams.items() if stream in ("audio", "video")}
        return frozenset(found)


@dataclass
class ShardRows:
    """The rows of a shard's features, sample by sample, on corrected clocks. ``notices`` are for people."""

    setting: Setting
    samples: list[str]
    batches: dict[str, Batch]
    clocks: dict[str, dict[str, OffsetEstimate]] = field(default_factory=dict)
    """Sample -> stream -> what was estimated of its clock, and with which confidence."""
    notices: list[str] = field(default_factory=list)

    @classmethod
    def read(
        cls,
        store: DatasetStore,
        inputs: Mapping[str, ShardFile | None],
        setting: Setting,
        wanted: frozenset[str],
        samples: frozenset[str],
    ) -> ShardRows:
        """Read the rows of ``samples``; numbers only of the features ``wanted`` and of those that clocks need."""
        numbers = wanted | {track.feature for pair in setting.estimates.values() for track in pair}
        order = sorted(samples)
        batches = {}
        for name, dim in setting.dims.items():
            file = inputs[name]
            columns = [*_TIMES, "values"] if name in numbers else list(_TIMES)
            table = None if file is None else store.read_file(file.path, columns)
            batches[name] = _batch(name, table, order, dim if name in numbers else 0)
        rows = cls(setting, order, batches)
        rows._correct_clocks()
        return rows

    def _correct_clocks(self) -> None:
        align = self.setting.align
        for stream, clock in align.clocks.items():
            self._move(stream, clock.offset_ns, clock.drift_ppm)
        for stream, (own, other) in self.setting.estimates.items():
            estimate = align.clocks[stream].estimate
            assert estimate is not None  # noqa: S101  # narrowed for mypy: that is what `estimates` are
            reach = seconds_to_ns(estimate.max_offset)
            offsets = np.zeros(len(self.samples), dtype=np.int64)
            unsure: list[str] = []
            for index, sample_id in enumerate(self.samples):
                moving, fixed = self._signal(own, index), self._signal(other, index)
                if not len(moving) or not len(fixed):
                    continue
                found = estimate_offset(moving, fixed, max_offset_ns=reach)
                trusted = found is not UNKNOWN and found.confidence >= estimate.min_confidence
                if trusted:
                    offsets[index] = found.offset_ns
                else:
                    unsure.append(sample_id)
                applied = found if trusted else replace(found, offset_ns=0)
                self.clocks.setdefault(sample_id, {})[stream] = applied
            self._move(stream, offsets, 0.0)
            self._tell(
                f"the offset of {stream} is not sure enough (confidence below {estimate.min_confidence:g}): "
                "the clock is left as it is",
                unsure,
            )

    def _move(self, stream: Stream, offset_ns: int | npt.NDArray[np.int64], drift_ppm: float) -> None:
        """Correct the times of a stream's features; offsets are one for all, or one a sample."""
        if not np.any(offset_ns) and not drift_ppm:
            return
        for name, batch in self.batches.items():
            if self.setting.streams[name] == stream:
                offsets = np.repeat(offset_ns, np.diff(batch.splits)) if np.ndim(offset_ns) else offset_ns
                start, end = corrected_rows(batch.start_ns, batch.end_ns, offsets, drift_ppm)
                self.batches[name] = replace(batch, start_ns=start, end_ns=end)

    def _signal(self, track: Track, index: int) -> FeatureSequence:
        batch = self.batches[track.feature]
        part = slice(batch.splits[index], batch.splits[index + 1])
        signal = FeatureSequence(
            values=np.ascontiguousarray(batch.values[part, track.column : track.column + 1]),
            start_ns=batch.start_ns[part],
            end_ns=batch.end_ns[part],
            valid=batch.valid[part],
        )
        return rise(signal) if track.take == "rise" else signal

    def _times(self, name: str, index: int) -> Edges:
        batch = self.batches[name]
        part = slice(batch.splits[index], batch.splits[index + 1])
        return batch.start_ns[part], batch.end_ns[part]

    def timelines(
        self, spans: Mapping[str, Span | None], texts: Mapping[str, str], given: Given
    ) -> tuple[Timelines, dict[str, SampleError]]:
        """Lay the timeline of every sample; those that cannot have one get no interval and are named with why."""
        found: list[Edges] = []
        failed: dict[str, SampleError] = {}
        without: list[str] = []
        within = [
            Span(first, last) if first <= last else ALWAYS
            for first, last in zip(*(edge.tolist() for edge in self._extents(self.batches)), strict=True)
        ]
        disagreeing = self._disagreeing()
        for index, sample_id in enumerate(self.samples):
            edges: Edges | None = None
            span = spans[sample_id]
            try:
                if sample_id in disagreeing:
                    self._disagree(sample_id, disagreeing[sample_id])
                if self._windows is not None:
                    edges = self._grid(within[index] if span is None or span == ALWAYS else span, self._windows)
                else:
                    edges = self._timeline(index, span, texts.get(sample_id), given.get(sample_id))
                if edges is None:
                    without.append(sample_id)
            except SampleError as error:
                failed[sample_id] = error
            found.append(_NO_EDGES if edges is None else edges)
        (what,) = self.setting.align.timeline
        self._tell(f"nothing to make the timeline of ({what}): the aligned rows are empty", without)
        return Timelines.of(found), failed

    def _timeline(self, index: int, span: Span | None, text: str | None, given: Edges | str | None) -> Edges | None:
        """The timeline of one sample; ``None`` where there is nothing to make it of."""
        align = self.setting.align
        if align.rows_of is not None:
            start_ns, end_ns = self._times(align.rows_of, index)
            return rows_of(align.rows_of, start_ns, end_ns) if len(start_ns) else None
        if align.text is not None:
            if text is None:
                return None
            edges = pieces_of(read_text(Source(text), span=span), align.text)
            clock = align.clocks.get("text")
            return edges if clock is None else ordered(*corrected_rows(*edges, clock.offset_ns, clock.drift_ppm))
        if isinstance(given, str):
            raise SampleError(Reason.INVALID_ROW, given)
        return given

    @cached_property
    def _windows(self) -> Grid | None:
        return self.setting.align.windows

    def _grid(self, extent: Span, windows: Grid) -> Edges:
        hop = None if windows.hop is None else seconds_to_ns(windows.hop)
        return grid(extent, seconds_to_ns(windows.length), hop_ns=hop, phase_ns=seconds_to_ns(windows.phase))

    def _extents(self, names: Iterable[str]) -> Edges:
        """Where the timed rows of some features begin and end, by sample; one that has none begins after its end."""
        batches = [self.batches[name] for name in names]
        found = [extents(batch.start_ns, batch.end_ns, batch.splits) for batch in batches]
        return np.min([first for first, _ in found], axis=0), np.max([last for _, last in found], axis=0)

    def _disagreeing(self) -> dict[str, tuple[int, int]]:
        """The samples whose sound and picture last differently, and how long: ns of sound, of picture."""
        by_stream = {
            stream: [name for name, read in self.setting.streams.items() if read == stream]
            for stream in ("audio", "video")
        }
        if not all(by_stream.values()):
            return {}
        (begin, end), (start, stop) = (self._extents(names) for names in by_stream.values())
        both = np.flatnonzero((begin <= end) & (start <= stop))
        sound, picture = (end - begin)[both], (stop - start)[both]
        tolerance = seconds_to_ns(self.setting.align.durations.tolerance)
        wrong = np.flatnonzero(np.abs(sound - picture) > tolerance)
        return {self.samples[both[k]]: (int(sound[k]), int(picture[k])) for k in wrong.tolist()}

    def _disagree(self, sample_id: str, lasting: tuple[int, int]) -> None:
        """Flag a sample whose sound and picture last differently; raise ``SampleError`` where that is asked for."""
        durations = self.setting.align.durations
        sound, picture = (f"{length / NS_PER_SECOND:.3f} s" for length in lasting)
        message = (
            f"the sound lasts {sound} and the picture {picture}; allowed: a difference of {durations.tolerance:g} s"
        )
        if durations.then == "quarantine":
            cure = "cure: correct the file or its clock, or raise align.durations.tolerance"
            raise SampleError(Reason.STREAMS_DISAGREE, f"{message}; {cure}")
        self.notices.append(f"{sample_id}: {message}")

    def _tell(self, what: str, samples: list[str]) -> None:
        if samples:
            more = f" and {len(samples) - 3} more" if len(samples) > 3 else ""
            self.notices.append(f"{', '.join(samples[:3])}{more}: {what}")


_TIMES = ("sample_id", "length", "start_ns", "end_ns", "valid")
_EMPTY = pa.table(
    {
        "sample_id": pa.array([], pa.string()),
        "length": pa.array([], pa.int32()),
        "start_ns": pa.array([], pa.list_(pa.int64())),
        "end_ns": pa.array([], pa.list_(pa.int64())),
        "valid": pa.array([], pa.list_(pa.bool_())),
        "values": pa.array([], pa.list_(pa.float32())),
    }
)


def _batch(name: str, table: pa.Table | None, samples: list[str], width: int) -> Batch:
    """The rows of ``samples`` side by side; one that is not in the table has none."""
    table = _EMPTY if table is None else table
    rows = pc.fill_null(pc.index_in(pa.array(samples, pa.string()), value_set=table["sample_id"].combine_chunks()), -1)
    rows = rows.to_numpy().astype(np.int64)
    there = rows >= 0
    if not (there.all() and np.array_equal(rows, np.arange(len(table)))):
        table = table.take(pa.array(rows[there]))
    lengths = np.zeros(len(samples), dtype=np.int64)
    lengths[there] = table["length"].to_numpy()
    splits = splits_of(lengths)
    start, end, valid = (_flat(table, column) for column in ("start_ns", "end_ns", "valid"))
    values = _flat(table, "values") if width else np.zeros(0, dtype=np.float32)
    total = int(splits[-1])
    if not len(start) == len(end) == len(valid) == total or len(values) != total * width:
        raise StoreError(
            f"{name}: got {len(values)} numbers and {len(start)} times, allowed: {total} rows of width {width}; "
            "cure: gristmill verify"
        )
    return Batch(values=values.reshape(total, width), start_ns=start, end_ns=end, valid=valid, splits=splits)


def _flat(table: pa.Table, column: str) -> npt.NDArray[Any]:
    flat = pc.list_flatten(table[column])
    whole = flat.combine_chunks() if flat.num_chunks != 1 else flat.chunk(0)
    return np.asarray(whole.to_numpy(zero_copy_only=False))
