"""The media of one sample, decoded once for everything that reads them; and decoding ahead of a device."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

from features.base import FrameRequest
from features.types import AudioClip, Stream
from pipeline.chain import REFERENCES
from pipeline.execute.work import SampleWork
from pipeline.media.audio import read_audio
from pipeline.media.image import read_image
from pipeline.media.source import Source
from pipeline.media.text import read_text
from pipeline.media.video import AudioChunk, FrameChunk, Notice, decode
from pipeline.media.video import Failure as StreamFailure
from pipeline.record import DECODED_TOGETHER

T = TypeVar("T")


@dataclass(frozen=True)
class Whole:
    """A medium that is read in one piece: a picture, a text, a sound."""

    stream: Stream
    medium: Any


@dataclass(frozen=True)
class Broken:
    """Streams of a sample that cannot be used."""

    streams: tuple[Stream, ...]
    error: Exception


Piece: TypeAlias = FrameChunk | Whole | Broken | Notice


@dataclass(frozen=True)
class Decoded:
    """A piece, and what it cost. ``count`` is 1 with the first piece of a medium; ``part``: the streams read."""

    piece: Piece | None
    part: str
    seconds: float
    count: int


@dataclass(frozen=True)
class Wants:
    """What is wanted of one sample: frames by feature, and other media by stream."""

    sample: SampleWork
    frames: Mapping[str, FrameRequest]
    streams: frozenset[Stream]
    hardware: bool = False
    """Video is decoded by the GPU, where it gives the same frames."""

    def decode(self) -> Iterator[Decoded]:
        """Decode each file once. What is wrong with a medium comes as ``Broken``; nothing is raised for it.

        Pictures and texts come before frames, which may be compared with them (``Chain`` sees to it that nothing else
        is).
        """
        streams = set(self.streams)
        for stream in sorted(streams & REFERENCES):
            streams.remove(stream)
            yield from self._whole(stream)
        if self.frames:
            shared = "audio" in streams and self.sample.uris.get("audio") == self.sample.uris["video"]
            streams -= {"audio"} if shared else set()
            yield from self._container(audio=shared)
        for stream in sorted(streams):
            yield from self._whole(stream)

    def _whole(self, stream: Stream) -> Iterator[Decoded]:
        source, span = Source(self.sample.uris[stream]), self.sample.span
        notes: list[str] = []
        piece: Piece
        begun = time.perf_counter()
        try:
            if stream == "audio":
                piece = Whole(stream, read_audio(source, span=span, note=notes.append))
            elif stream == "image":
                piece = Whole(stream, read_image(source))
            else:
                piece = Whole(stream, read_text(source, span=span))
        except Exception as error:  # noqa: BLE001  # the failure boundary: any error belongs to the sample
            piece = Broken((stream,), error)
        yield Decoded(piece, stream, time.perf_counter() - begun, 1)
        yield from (Decoded(Notice(note), stream, 0.0, 0) for note in notes)

    def _container(self, *, audio: bool) -> Iterator[Decoded]:
        """One demux pass over a video file for its frames and, where wanted, its audio track."""
        part = DECODED_TOGETHER if audio else "video"
        clips: list[AudioClip] = []
        broken: set[Stream] = set()
        count = 1
        source, span = Source(self.sample.uris["video"]), self.sample.span
        events = decode(source, span=span, frames=self.frames, audio=audio, hardware=self.hardware)
        while True:
            begun = time.perf_counter()
            piece: Piece | None = None
            try:
                event = next(events, None)
            except Exception as error:  # noqa: BLE001  # the failure boundary: any error belongs to the sample
                streams: tuple[Stream, ...] = ("video", "audio") if audio else ("video",)
                yield Decoded(Broken(streams, error), part, time.perf_counter() - begun, count)
                return
            match event:
                case AudioChunk():
                    clips.append(event.clip)
                case StreamFailure():
                    broken.add(event.stream)
                    piece = Broken((event.stream,), event.error)
                case FrameChunk() | Notice():
                    piece = event
                case None if audio and "audio" not in broken:
                    piece = Whole("audio", _join(clips))
            yield Decoded(piece, part, time.perf_counter() - begun, count)
            count = 0
            if event is None:
                return


def _join(clips: list[AudioClip]) -> AudioClip:
    """Consecutive pieces of one track as one clip."""
    return AudioClip(
        samples=np.concatenate([clip.samples for clip in clips], axis=1),
        sample_rate=clips[0].sample_rate,
        start_ns=clips[0].start_ns,
    )


_END = object()
_PATIENCE = 0.1
"""Seconds after which a thread that waits for room looks whether anybody still reads."""


class _Stopped(Exception):  # noqa: N818  # no error: nobody reads any more
    pass


class _Filled(Generic[T]):
    """An iterator that a thread reads ahead, at most ``depth`` items."""

    def __init__(self, source: Iterator[T], depth: int, stop: threading.Event) -> None:
        self._source, self._stop = source, stop
        self._items: queue.Queue[Any] = queue.Queue(depth)

    def fill(self) -> None:
        """Read the source, in a thread of its own."""
        try:
            try:
                for item in self._source:
                    self._put((item, None))
            except Exception as error:  # noqa: BLE001  # raised again where the items are read
                self._put((_END, error))
            self._put((_END, None))
        except _Stopped:
            return

    def _put(self, item: Any) -> None:
        while not self._stop.is_set():
            try:
                self._items.put(item, timeout=_PATIENCE)
            except queue.Full:
                continue
            return
        raise _Stopped

    def __iter__(self) -> Iterator[T]:
        while True:
            item, error = self._items.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item


def ahead(sources: Iterable[Iterator[T]], threads: int, depth: int = 8) -> Iterator[Iterable[T]]:
    """The same iterators in the same order; the next ``threads`` of them are read ahead, ``depth`` items each.

    With 0 threads they are returned as they are.
    """
    if threads < 1:
        yield from sources
        return
    waiting: list[_Filled[T]] = []
    rest = iter(sources)
    stop = threading.Event()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            while True:
                while len(waiting) < threads and (source := next(rest, None)) is not None:
                    waiting.append(_Filled(source, depth, stop))
                    pool.submit(waiting[-1].fill)
                if not waiting:
                    return
                yield waiting.pop(0)
        finally:
            stop.set()
