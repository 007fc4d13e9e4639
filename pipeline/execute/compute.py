"""The computation of one shard: decode each sample once, feed every feature that reads it, batch by batch.

This is where a bad sample is stopped: whatever it raises becomes a quarantine row, and its neighbours go on. Nothing is
read from or written to the store here; what comes out is told to a ``Watch``, row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from features.base import (
    CountsWords,
    Extractor,
    FeatureSink,
    Flags,
    FrameSelector,
    ImageSink,
    NeedsReference,
    VideoExtractor,
    WordCounts,
)
from features.errors import Reason, SampleError
from features.types import FeatureSequence, Stream
from pipeline.execute.decode import Broken, Decoded, Wants, Whole, ahead
from pipeline.execute.failure import device_is_full, failure_of
from pipeline.execute.watch import Tally, Watch
from pipeline.execute.work import FeatureWork, SampleWork, ShardWork
from pipeline.media.video import FrameChunk, Notice
from pipeline.state import bind

DEFAULT_BATCH = 16


def compute(work: ShardWork, watch: Watch) -> Tally:
    """Compute the rows of one shard. Deterministic: the same work gives the same rows in any process and order."""
    job = _Job(work, watch)
    pairs = ((sample, job.wants(sample)) for sample in work.samples)
    wanted = [(sample, wants) for sample, wants in pairs if wants is not None]
    decoding = ahead((wants.decode() for _, wants in wanted), work.decode_threads)
    nearby = max(1, work.decode_threads)
    for number, ((sample, _), pieces) in enumerate(zip(wanted, decoding, strict=True)):
        at_work = [other.sample_id for other, _ in wanted[number : number + nearby]]
        job.read(sample, iter(pieces), at_work)
    job.finish()
    return job.tally


@dataclass
class _Pending:
    """The media of one view of a sample on their way through one feature, and the rows that have come out."""

    sample_id: str
    view: int
    expected: int
    rows: list[FeatureSequence] = field(default_factory=list)


@dataclass(frozen=True)
class _Item:
    """One medium in a batch: the ``index``-th of its sample."""

    pending: _Pending
    index: int
    medium: Any


class _Feature:
    """One feature at work on one shard: media are collected into batches across samples."""

    def __init__(self, job: _Job, work: FeatureWork) -> None:
        self.job, self.work = job, work
        self.chain, bound = work.chain, bind(work.chain, work.state)
        self.name = self.chain.name
        self.streams = frozenset(self.chain.streams)
        self.extractor: Extractor = bound.extractor
        self.selector = next((step for step in bound.prepare if isinstance(step, FrameSelector)), None)
        self.prepare = [step for step in bound.prepare if step is not self.selector]
        self.augment = bound.augment
        self.batch_size: int = getattr(self.extractor, "batch_size", DEFAULT_BATCH)
        self.queue: list[_Item] = []
        self.sink: ImageSink | FeatureSink | None = None

    def open(self) -> None:
        """Begin a video."""
        if self.selector is not None:
            self.sink = self.selector.select()
            return
        assert isinstance(self.extractor, VideoExtractor)  # noqa: S101  # narrowed for mypy; Chain has checked it
        self.sink = None if isinstance(self.extractor, NeedsReference) else self.extractor.open(self.job.device)

    def compare_with(self, medium: Any) -> None:
        """Begin a video whose frames are compared with another medium of the sample."""
        assert isinstance(self.extractor, NeedsReference)  # noqa: S101  # narrowed for mypy: read() has looked
        self.sink = self.extractor.with_reference(medium).open(self.job.device)

    def offer(self, sample_id: str, media: list[Any]) -> None:
        """Queue the media of a sample, for each view; full batches are computed at once."""
        for view in self.chain.views:
            pending = _Pending(sample_id, view, len(media))
            if not media:
                self._complete(pending)
            self.queue.extend(_Item(pending, index, medium) for index, medium in enumerate(media))
            while len(self.queue) >= self.batch_size:
                batch, self.queue = self.queue[: self.batch_size], self.queue[self.batch_size :]
                self._run(batch)

    def flush(self) -> None:
        """Compute what is still queued."""
        batch, self.queue = self.queue, []
        if batch:
            self._run(batch)

    def _run(self, batch: list[_Item]) -> None:
        batch = [item for item in batch if (item.pending.sample_id, self.name) not in self.job.failed]
        if not batch:
            return
        ids = list(dict.fromkeys(item.pending.sample_id for item in batch))
        try:
            with self.job.at_work(self, ids), self.job.clock("extract", self.name):
                results = self._compute(batch)
        except Exception as error:  # noqa: BLE001  # the failure boundary: any error belongs to a sample
            self._again(batch, ids, error)
            return
        for item, sequence in zip(batch, results, strict=True):
            item.pending.rows.append(sequence)
            if len(item.pending.rows) == item.pending.expected:
                self._complete(item.pending)

    def _again(self, batch: list[_Item], ids: list[str], error: Exception) -> None:
        """Which sample of the batch is it? Halves are tried: rows do not depend on the batch.

        Where the device's memory is full no sample is to blame while the batch can be smaller; it stays smaller.
        """
        full = device_is_full(error)
        if full:
            self.job.free_device()
        if len(ids) == 1 and not (full and len(batch) > 1):
            self.job.fail(ids[0], self, "extract", error)
            return
        half = len(batch) // 2
        if full:
            self.batch_size = max(1, half)
        self._run(batch[:half])
        self._run(batch[half:])

    def _compute(self, batch: list[_Item]) -> list[FeatureSequence]:
        media = [item.medium for item in batch]
        flags: dict[str, str] = {}
        for step in self.prepare:
            if isinstance(step, Flags):
                said = zip(batch, step.flags(media), strict=True)
                flags |= {item.pending.sample_id: f"{step.name}: {flag}" for item, flag in said if flag}
            media = step.prepare(media, self.job.device)
        for number, step in enumerate(self.augment):
            seeds = [
                self.chain.view_seed(item.pending.sample_id, item.pending.view, number, item.index) for item in batch
            ]
            media = step.augment(media, seeds, self.job.device)
        words: WordCounts | None = None
        if isinstance(self.extractor, CountsWords):
            results, words = self.extractor.counted(media, self.job.device)
        else:
            results = self.extractor(media, self.job.device)
        if len(results) != len(media):
            raise SampleError(
                Reason.EXTRACTOR_ERROR, f"{self.name}: got {len(results)} sequences for a batch of {len(media)}"
            )
        if words is not None:
            self.job.tally.words.setdefault(self.name, WordCounts()).__iadd__(words)
        if flags:
            self.job.tally.flags.setdefault(self.name, {}).update(flags)
        return results

    def _complete(self, pending: _Pending) -> None:
        try:
            self.accept(pending.sample_id, pending.view, _join(pending.rows, self.extractor.dim))
        except SampleError as error:
            self.job.fail(pending.sample_id, self, "check", error)

    def accept(self, sample_id: str, view: int, sequence: FeatureSequence) -> None:
        """Check a finished sequence and hand it on. Raises ``SampleError`` when it may not be stored."""
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
            self.job.watch.row(self.name, sample_id, view, sequence)


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


class _Job:
    """One shard at work."""

    def __init__(self, work: ShardWork, watch: Watch) -> None:
        self.work, self.device, self.watch = work, work.device, watch
        self.tally = Tally()
        self.failed: set[tuple[str, str]] = set()
        self.features = {feature.chain.name: _Feature(self, feature) for feature in work.features}

    @contextmanager
    def clock(self, stage: str, what: str) -> Iterator[None]:
        """Count the seconds spent in a stage on one feature."""
        begun = perf_counter()
        try:
            yield
        finally:
            self.tally.add(stage, what, perf_counter() - begun)

    @contextmanager
    def at_work(self, feature: _Feature | None, sample_ids: list[str]) -> Iterator[None]:
        """Say which samples are to blame should this process die or never come back."""
        self.watch.begin("" if feature is None else feature.name, sample_ids)
        try:
            yield
        finally:
            self.watch.end()

    def free_device(self) -> None:
        """Give cached memory of the device back."""
        if self.device == "cuda":
            import torch

            torch.cuda.empty_cache()

    def fail(self, sample_id: str, feature: _Feature, stage: str, error: Exception) -> None:
        """Put a sample into quarantine for one feature (once)."""
        if (sample_id, feature.name) in self.failed:
            return
        self.failed.add((sample_id, feature.name))
        self.watch.failed(failure_of(error, self.work, feature.work, sample_id, stage))

    def _wanting(self, sample_id: str) -> list[_Feature]:
        return [feature for feature in self.features.values() if sample_id in feature.work.compute]

    def wants(self, sample: SampleWork) -> Wants | None:
        """What is to be decoded of a sample; ``None`` where nothing is."""
        wanting = self._wanting(sample.sample_id)
        frames = {}
        for feature in wanting:
            if feature.chain.stream == "video":
                step: Any = feature.selector or feature.extractor
                frames[feature.name] = step.request
        streams: frozenset[Stream] = frozenset(s for f in wanting for s in f.streams if s != "video")
        return Wants(sample, frames, streams, self.work.hardware) if wanting else None

    def read(self, sample: SampleWork, pieces: Iterator[Decoded], at_work: list[str]) -> None:
        """Decode a sample's media once and hand them to every feature that wants them."""
        wanting = self._wanting(sample.sample_id)
        video = [feature for feature in wanting if feature.chain.stream == "video"]
        for feature in video:
            feature.open()
        while True:
            with self.at_work(None, at_work):
                decoded = next(pieces, None)
            if decoded is None:
                break
            self.tally.add("decode", decoded.part, decoded.seconds, decoded.count)
            match decoded.piece:
                case FrameChunk() as chunk:
                    self._push(sample, self.features[chunk.key], chunk.clip)
                case Whole() as whole:
                    for feature in wanting:
                        if feature.chain.stream == whole.stream:
                            feature.offer(sample.sample_id, [whole.medium])
                        elif whole.stream in feature.streams:
                            self._push(sample, feature, whole.medium)
                case Broken() as broken:
                    for feature in wanting:
                        if feature.streams & set(broken.streams):
                            self.fail(sample.sample_id, feature, "decode", broken.error)
                case Notice() as notice:
                    self.tally.notices.append(f"{sample.sample_id}: {notice.message}")
        for feature in video:
            if (sample.sample_id, feature.name) not in self.failed:
                self._finish_video(sample, feature)

    def _push(self, sample: SampleWork, feature: _Feature, medium: Any) -> None:
        """Give a video feature the next frames, or what they are compared with."""
        if (sample.sample_id, feature.name) in self.failed:
            return
        try:
            with self.at_work(feature, [sample.sample_id]), self.clock("extract", feature.name):
                if feature.sink is None:
                    feature.compare_with(medium)
                else:
                    feature.sink.push(medium)
        except Exception as error:  # noqa: BLE001  # the failure boundary: any error belongs to the sample
            self.fail(sample.sample_id, feature, "extract", error)

    def _finish_video(self, sample: SampleWork, feature: _Feature) -> None:
        assert feature.sink is not None  # noqa: S101  # narrowed for mypy: read() has opened it
        try:
            with self.at_work(feature, [sample.sample_id]), self.clock("extract", feature.name):
                result = feature.sink.finish()
            if isinstance(result, FeatureSequence):
                feature.accept(sample.sample_id, 0, result)
            else:
                feature.offer(sample.sample_id, result)
        except Exception as error:  # noqa: BLE001  # the failure boundary: any error belongs to the sample
            self.fail(sample.sample_id, feature, "extract", error)
        feature.sink = None

    def finish(self) -> None:
        """Compute the last, unfilled batches."""
        for feature in self.features.values():
            feature.flush()
            self.tally.add("extract", feature.name, 0.0, len(feature.work.compute))
