"""The work of one shard: decode each sample once, feed every feature that reads it, write one file a feature.

This is where a bad sample is stopped: whatever it raises becomes a quarantine row, and its neighbours go on.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.base import Extractor, FeatureSink, FrameRequest, FrameSelector, ImageSink, VideoExtractor
from features.errors import Reason, SampleError
from features.types import AudioClip, FeatureSequence, Stream
from pipeline.execute.work import FeatureWork, SampleWork, ShardReport, ShardWork
from pipeline.media.audio import read_audio
from pipeline.media.image import read_image
from pipeline.media.source import Source
from pipeline.media.text import read_text
from pipeline.media.video import AudioChunk, Event, FrameChunk, Notice, decode
from pipeline.media.video import Failure as StreamFailure
from pipeline.record import DECODED_TOGETHER, Spent
from pipeline.state import bind
from pipeline.store import DatasetStore, ShardFile, shard_path
from pipeline.store.quarantine import Failure
from pipeline.store.shard import Row, rows_to_table, write_shard

if TYPE_CHECKING:
    import torch

DEFAULT_BATCH = 16


def run_shard(work: ShardWork) -> ShardReport:
    """Compute and write one shard. Deterministic: the same work gives the same rows in any process and order."""
    job = compute_shard(work)
    job.write()
    return job.report


def compute_shard(work: ShardWork) -> _Job:
    """Compute one shard; nothing is written yet."""
    import torch

    job = _Job(work, torch.device(work.device))
    for sample in work.samples:
        if sample.sample_id in work.killers:
            job.refuse(sample, SampleError(Reason.WORKER_DIED, work.killers[sample.sample_id]))
        else:
            job.read(sample)
    job.finish()
    return job


@dataclass
class _Pending:
    """The media of one sample on their way through one feature, and the rows that have come out."""

    sample_id: str
    expected: int
    rows: list[FeatureSequence] = field(default_factory=list)


class _Feature:
    """One feature at work on one shard: media are collected into batches across samples."""

    def __init__(self, job: _Job, work: FeatureWork) -> None:
        self.job, self.work = job, work
        chain = bind(work.chain, work.state)
        self.name = chain.name
        self.extractor: Extractor = chain.extractor
        self.selector = next((step for step in chain.prepare if isinstance(step, FrameSelector)), None)
        self.prepare = [step for step in chain.prepare if step is not self.selector]
        self.batch_size: int = getattr(self.extractor, "batch_size", DEFAULT_BATCH)
        self.queue: list[tuple[_Pending, Any]] = []
        self.done: dict[str, FeatureSequence] = {}

    def open(self) -> ImageSink | FeatureSink:
        if self.selector is not None:
            return self.selector.select()
        assert isinstance(self.extractor, VideoExtractor)  # noqa: S101  # narrowed for mypy; Chain has checked it
        return self.extractor.open(self.job.device)

    @property
    def request(self) -> FrameRequest:
        step: Any = self.selector or self.extractor
        found: FrameRequest = step.request
        return found

    def offer(self, sample_id: str, media: list[Any]) -> None:
        """Queue the media of a sample; full batches are computed at once."""
        pending = _Pending(sample_id, len(media))
        if not media:
            self._complete(pending)
        self.queue.extend((pending, medium) for medium in media)
        while len(self.queue) >= self.batch_size:
            batch, self.queue = self.queue[: self.batch_size], self.queue[self.batch_size :]
            self._run(batch)

    def flush(self) -> None:
        """Compute what is still queued."""
        batch, self.queue = self.queue, []
        if batch:
            self._run(batch)

    def _run(self, batch: list[tuple[_Pending, Any]]) -> None:
        with self.job.clock("extract", self.name):
            try:
                results = self._compute([medium for _, medium in batch])
            except Exception as error:  # noqa: BLE001  # the failure boundary: any error belongs to a sample
                if len(batch) == 1:
                    self.job.fail(batch[0][0].sample_id, self, "extract", error)
                else:
                    for item in batch:  # which of them is it? each alone; results do not depend on the batch
                        self._run([item])
                return
        for (pending, _), sequence in zip(batch, results, strict=True):
            pending.rows.append(sequence)
            if len(pending.rows) == pending.expected:
                self._complete(pending)

    def _compute(self, media: list[Any]) -> list[FeatureSequence]:
        for step in self.prepare:
            media = step.prepare(media, self.job.device)
        results = self.extractor(media, self.job.device)
        if len(results) != len(media):
            raise SampleError(
                Reason.EXTRACTOR_ERROR, f"{self.name}: got {len(results)} sequences for a batch of {len(media)}"
            )
        return results

    def _complete(self, pending: _Pending) -> None:
        try:
            sequence = _join(pending.rows, self.extractor.dim)
            self.accept(pending.sample_id, sequence)
        except SampleError as error:
            self.job.fail(pending.sample_id, self, "check", error)

    def accept(self, sample_id: str, sequence: FeatureSequence) -> None:
        """Check a finished sequence and keep it. Raises ``SampleError`` when it may not be stored."""
        if sequence.dim != self.extractor.dim:
            raise SampleError(
                Reason.WRONG_WIDTH, f"{self.name}: got width {sequence.dim}, allowed: {self.extractor.dim}"
            )
        finite = np.isfinite(sequence.values).all(axis=1) | ~sequence.valid
        if not finite.all():
            raise SampleError(
                Reason.NON_FINITE,
                f"{self.name}: row {int(np.argmin(finite))} of {len(sequence)} holds NaN or infinity; "
                "allowed: finite numbers in valid rows",
            )
        if (sample_id, self.name) not in self.job.failed:
            self.done[sample_id] = sequence


def _join(rows: list[FeatureSequence], dim: int) -> FeatureSequence:
    if len(rows) == 1:
        return rows[0]
    if not rows:
        return FeatureSequence.empty(dim)
    return FeatureSequence(
        values=np.concatenate([part.values for part in rows]),
        start_ns=np.concatenate([part.start_ns for part in rows]),
        end_ns=np.concatenate([part.end_ns for part in rows]),
        valid=np.concatenate([part.valid for part in rows]),
    )


def _join_clips(clips: list[AudioClip]) -> AudioClip:
    """Consecutive pieces of one track as one clip."""
    return AudioClip(
        samples=np.concatenate([clip.samples for clip in clips], axis=1),
        sample_rate=clips[0].sample_rate,
        start_ns=clips[0].start_ns,
    )


class _Job:
    """One shard at work."""

    def __init__(self, work: ShardWork, device: torch.device) -> None:
        self.work, self.device = work, device
        self.report = ShardReport(shard=work.shard)
        self.failed: set[tuple[str, str]] = set()
        self.features = [_Feature(self, feature) for feature in work.features]

    @contextmanager
    def clock(self, stage: str, what: str, count: int = 0) -> Iterator[None]:
        """Count the seconds spent in a stage on one stream or feature, and ``count`` samples or rows of it."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - begun
            self.report.seconds[stage] = self.report.seconds.get(stage, 0.0) + took
            self.report.spent.setdefault(f"{stage} {what}", Spent()).__iadd__(Spent(count=count, seconds=took))

    def fail(self, sample_id: str, feature: _Feature, stage: str, error: Exception) -> None:
        """Put a sample into quarantine for one feature (once)."""
        if (sample_id, feature.name) in self.failed:
            return
        self.failed.add((sample_id, feature.name))
        expected = isinstance(error, SampleError)
        reason = error.reason if isinstance(error, SampleError) else _reason_of(error)
        self.report.failures.append(
            Failure(
                sample_id=sample_id,
                feature=feature.name,
                stage=stage,
                reason=reason.value,
                message=error.message if isinstance(error, SampleError) else f"{type(error).__name__}: {error}",
                traceback="" if expected else "".join(traceback.format_exception(error)),
                content=feature.work.compute[sample_id],
                recipe=feature.work.recipe,
                run_id=self.work.run_id,
            )
        )

    def refuse(self, sample: SampleWork, error: SampleError) -> None:
        """Put a sample into quarantine for every feature that wants it, without touching it."""
        wanting = [feature for feature in self.features if sample.sample_id in feature.work.compute]
        self._fail_all(sample, wanting, error, "extract")

    def read(self, sample: SampleWork) -> None:
        """Decode a sample's media once and hand them to every feature that wants them."""
        wanting: dict[Stream, list[_Feature]] = {}
        for feature in self.features:
            if sample.sample_id in feature.work.compute:
                wanting.setdefault(feature.work.chain.stream, []).append(feature)
        readers: dict[Stream, Callable[[Source], Any]] = {
            "audio": lambda source: read_audio(source, span=sample.span, note=lambda text: self._note(sample, text)),
            "image": read_image,
            "text": lambda source: read_text(source, span=sample.span),
        }
        if "video" in wanting:
            shared = sample.uris.get("audio") == sample.uris["video"]
            audio = wanting.pop("audio", []) if shared else []
            self._read_container(sample, wanting.pop("video"), audio)
        for stream, features in wanting.items():
            self._read_one(sample, stream, features, readers[stream])

    def _read_one(
        self, sample: SampleWork, stream: Stream, features: list[_Feature], reader: Callable[[Source], Any]
    ) -> None:
        try:
            with self.clock("decode", stream, 1):
                medium = reader(Source(sample.uris[stream]))
        except Exception as error:  # noqa: BLE001  # the failure boundary: any error belongs to the sample
            for feature in features:
                self.fail(sample.sample_id, feature, "decode", error)
            return
        for feature in features:
            feature.offer(sample.sample_id, [medium])

    def _read_container(self, sample: SampleWork, video: list[_Feature], audio: list[_Feature]) -> None:
        """One demux pass over a video file for its frames and, where wanted, its audio track."""
        source = Source(sample.uris["video"])
        sinks = {feature.name: feature.open() for feature in video}
        requests = {feature.name: feature.request for feature in video}
        clips: list[AudioClip] = []
        try:
            for piece in self._decode(source, sample, requests, audio=bool(audio)):
                match piece:
                    case FrameChunk():
                        self._push(sample, sinks, piece)
                    case AudioChunk():
                        clips.append(piece.clip)
                    case StreamFailure():
                        self._fail_all(sample, video if piece.stream == "video" else audio, piece.error)
                    case Notice():
                        self._note(sample, piece.message)
        except Exception as error:  # noqa: BLE001  # the failure boundary: any error belongs to the sample
            self._fail_all(sample, video + audio, error)
            return
        for feature in video:
            if (sample.sample_id, feature.name) not in self.failed:
                self._finish_video(sample, feature, sinks[feature.name])
        for feature in audio:
            if (sample.sample_id, feature.name) not in self.failed:
                feature.offer(sample.sample_id, [_join_clips(clips)])

    def _note(self, sample: SampleWork, message: str) -> None:
        self.report.notices.append(f"{sample.sample_id}: {message}")

    def _decode(
        self, source: Source, sample: SampleWork, requests: Mapping[str, FrameRequest], *, audio: bool
    ) -> Iterator[Event]:
        pieces = iter(decode(source, span=sample.span, frames=requests, audio=audio))
        what = DECODED_TOGETHER if audio else "video"
        with self.clock("decode", what, 1):
            piece = next(pieces, None)
        while piece is not None:
            yield piece
            with self.clock("decode", what):
                piece = next(pieces, None)

    def _push(self, sample: SampleWork, sinks: Mapping[str, ImageSink | FeatureSink], piece: FrameChunk) -> None:
        feature = next(feature for feature in self.features if feature.name == piece.key)
        if (sample.sample_id, feature.name) in self.failed:
            return
        try:
            with self.clock("extract", feature.name):
                sinks[piece.key].push(piece.clip)
        except Exception as error:  # noqa: BLE001  # the failure boundary: any error belongs to the sample
            self.fail(sample.sample_id, feature, "extract", error)

    def _finish_video(self, sample: SampleWork, feature: _Feature, sink: ImageSink | FeatureSink) -> None:
        try:
            with self.clock("extract", feature.name):
                result = sink.finish()
            if isinstance(result, FeatureSequence):
                feature.accept(sample.sample_id, result)
            else:
                feature.offer(sample.sample_id, result)
        except Exception as error:  # noqa: BLE001  # the failure boundary: any error belongs to the sample
            self.fail(sample.sample_id, feature, "extract", error)

    def _fail_all(self, sample: SampleWork, features: list[_Feature], error: Exception, stage: str = "decode") -> None:
        for feature in features:
            self.fail(sample.sample_id, feature, stage, error)

    def finish(self) -> None:
        """Compute the last, unfilled batches."""
        for feature in self.features:
            feature.flush()
            part = self.report.spent.setdefault(f"extract {feature.name}", Spent())
            part.count += len(feature.work.compute)

    def write(self) -> None:
        """Write one new file for each feature, with kept rows and computed ones together."""
        store = DatasetStore(self.work.store, self.work.dataset)
        for feature in self.features:
            with self.clock("write", feature.name):
                table = self._table(feature, store)
                if feature.work.base is not None:
                    self.report.removed.append(feature.work.base)
                if len(table):
                    self.report.files.append(write_file(store, feature.name, self.work.shard, table))
            self.report.spent[f"write {feature.name}"].count += len(table)
            self.report.computed[feature.name] = len(feature.done)

    def _table(self, feature: _Feature, store: DatasetStore) -> pa.Table:
        rows = [
            Row(
                sample_id=sample_id,
                split=self.work.roster[sample_id][0],
                label=self.work.roster[sample_id][1],
                content=feature.work.compute[sample_id],
                recipe=feature.work.recipe,
                sequence=sequence,
            )
            for sample_id, sequence in feature.done.items()
        ]
        metadata = {"feature": feature.name, "dim": feature.extractor.dim, "recipe": feature.work.recipe.hex()}
        table = rows_to_table(self.work.shard, rows, metadata)
        if feature.work.base is None or not feature.work.keep:
            return table
        return merge(table, store.read_file(feature.work.base.path), feature.work.keep, self.work.roster)


def merge(
    fresh: pa.Table, base: pa.Table, keep: frozenset[str], roster: Mapping[str, tuple[str, str | None]]
) -> pa.Table:
    """``fresh`` and the rows of ``base`` whose sample is in ``keep`` (with today's split and label), sorted."""
    kept = base.filter(pc.is_in(base["sample_id"], value_set=pa.array(sorted(keep), pa.string())))
    ids = kept["sample_id"].to_pylist()
    for index, name in ((0, "split"), (1, "label")):
        position = kept.schema.get_field_index(name)
        column = pa.array([roster[sample_id][index] for sample_id in ids], pa.string())
        kept = kept.set_column(position, kept.schema.field(name), column)
    both = pa.concat_tables([kept.replace_schema_metadata(fresh.schema.metadata), fresh])
    return both.sort_by([("sample_id", "ascending"), ("view", "ascending")])


def write_file(store: DatasetStore, feature: str, shard: int, table: pa.Table) -> ShardFile:
    """Write one shard table under a fresh name; it is invisible until it is committed."""
    sink = pa.BufferOutputStream()
    write_shard(table, sink)
    content = sink.getvalue()
    path = shard_path(feature, shard, content)
    store.write_bytes(path, content)
    return ShardFile(path, content.size, len(table))


def _reason_of(error: Exception) -> Reason:
    return Reason.OUT_OF_MEMORY if isinstance(error, MemoryError) else Reason.EXTRACTOR_ERROR
