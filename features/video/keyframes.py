"""Pictures that stand for a video: one for each shot, stretch of time, key frame of the container, or group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np

from features.base import FrameRequest, run_video
from features.time import NS_PER_SECOND, Span, seconds_to_ns
from features.types import Device, FeatureSequence, Image, Stream, VideoClip
from features.video.cluster import Clusters
from features.video.shots import Shot, ShotFinder
from features.video.spaced import SpacedFinder

Method: TypeAlias = Literal["content", "uniform", "container", "cluster"]


@dataclass(frozen=True, kw_only=True)
class _Selection:
    """The options that both steps share; see ``Keyframes``."""

    stream: ClassVar[Stream] = "video"
    numerics: ClassVar[tuple[str, ...]] = ("opencv-python",)

    method: Method = "content"
    threshold: float = 3.0
    min_change: float = 0.08
    fades: bool = True
    min_gap: float = 0.4
    interval: float = 2.0
    distance: float = 0.4
    max_keyframes: int | None = None
    short_side: int = 224

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            allowed = ", ".join(map(repr, get_args(Method)))
            raise ValueError(f"video.keyframes: method: got {self.method!r}, allowed: {allowed}")
        if not (self.threshold >= 1 and math.isfinite(self.threshold)):
            raise ValueError(f"video.keyframes: threshold: got {self.threshold}, allowed: >= 1 and finite")
        if not 0 < self.min_change < 1:
            raise ValueError(f"video.keyframes: min_change: got {self.min_change}, allowed: between 0 and 1")
        if not (self.min_gap >= 0 and math.isfinite(self.min_gap)):
            raise ValueError(f"video.keyframes: min_gap: got {self.min_gap}, allowed: >= 0 and finite")
        if not (math.isfinite(self.interval) and seconds_to_ns(self.interval) > 0):
            raise ValueError(f"video.keyframes: interval: got {self.interval}, allowed: > 0 and finite")
        if not 0 <= self.distance <= 1:
            raise ValueError(f"video.keyframes: distance: got {self.distance}, allowed: 0 to 1")
        if self.max_keyframes is not None and self.max_keyframes < 1:
            raise ValueError(f"video.keyframes: max_keyframes: got {self.max_keyframes}, allowed: >= 1, or none")
        if self.short_side < 1:
            raise ValueError(f"video.keyframes: short_side: got {self.short_side}, allowed: >= 1")

    @property
    def request(self) -> FrameRequest:
        """Small frames in colour: all of them, or no more than ``method`` can use."""
        if self.method == "container":
            return FrameRequest(short_side=self.short_side, keyframes_only=True, until_next=True)
        if self.method == "uniform":
            rate = Fraction(NS_PER_SECOND, seconds_to_ns(self.interval))
            return FrameRequest(short_side=self.short_side, rate=rate, until_next=True)
        return FrameRequest(short_side=self.short_side)


class Selector:
    """The keyframes of one video, chunk by chunk: how the frames are cut into chunks changes nothing.

    Memory: 1.2 seconds of pictures and, with ``pictures``, one for each shot (at most ``max_keyframes``); of "cluster"
    at most ``cluster.MOST``.
    """

    def __init__(self, options: _Selection, *, pictures: bool = True) -> None:
        gap_ns, interval_ns = seconds_to_ns(options.min_gap), seconds_to_ns(options.interval)
        self._options, self._pictures = options, pictures
        self._finder: ShotFinder | SpacedFinder
        if options.method in ("content", "cluster"):
            longest_ns = interval_ns if options.method == "cluster" else None
            self._finder = ShotFinder(options, gap_ns, longest_ns, pictures=pictures)
        else:
            self._finder = SpacedFinder(gap_ns, interval_ns if options.method == "uniform" else None)
        self._shots: list[Shot] = []
        self._clusters = Clusters()

    def push(self, clip: VideoClip) -> None:
        """Take the next frames. Raises ``ValueError`` for luma, and ``SampleError`` when time or size jumps."""
        self._finder.push(clip)
        self._keep(self._finder.next_shots())

    def finish(self) -> list[Shot]:
        """Return the shots that are kept, each with its keyframe, in order of time."""
        self._keep(self._finder.finish())
        if self._options.method == "cluster":
            return self._clusters.finish(self._options.distance, self._options.max_keyframes)
        total = sum(shot.end_ns - shot.start_ns for shot in self._shots)
        for shot in self._shots:
            shot.share = (shot.end_ns - shot.start_ns) / total if total else 1 / len(self._shots)
        return self._shots

    def _keep(self, shots: list[Shot]) -> None:
        for shot in shots:
            if self._options.method == "cluster":
                self._clusters.add(shot)
            else:
                shot.keyframe = shot.keyframe.kept(pixels=self._pictures)
                self._shots.append(shot)
                self._limit()

    def _limit(self) -> None:
        """Join the shot with the weakest beginning to the one before it when there are too many."""
        if self._options.max_keyframes is None or len(self._shots) <= self._options.max_keyframes:
            return
        weakest = min(range(1, len(self._shots)), key=lambda k: (self._shots[k].change, -k))
        shot, before = self._shots.pop(weakest), self._shots[weakest - 1]
        before.end_ns = shot.end_ns
        if self._options.method != "uniform" and shot.keyframe.quality > before.keyframe.quality:
            before.keyframe = shot.keyframe


class _ImageSink:
    def __init__(self, options: _Selection) -> None:
        self._selector = Selector(options)

    def push(self, frames: VideoClip) -> None:
        """Take the next chunk of frames."""
        self._selector.push(frames)

    def finish(self) -> list[Image]:
        """Return one picture for each shot."""
        return [
            Image(pixels=shot.keyframe.pixels, span=Span(shot.start_ns, shot.end_ns))
            for shot in self._selector.finish()
        ]


class _ScoreSink:
    def __init__(self, options: KeyframeScores) -> None:
        self._selector = Selector(options, pictures=False)
        self._dim = options.dim

    def push(self, frames: VideoClip) -> None:
        """Take the next chunk of frames."""
        self._selector.push(frames)

    def finish(self) -> FeatureSequence:
        """Return one row for each shot."""
        shots = self._selector.finish()
        if not shots:
            return FeatureSequence.empty(self._dim)
        rows: list[list[Any]] = [
            [
                shot.change,
                (shot.keyframe.start_ns - shot.start_ns) / NS_PER_SECOND,
                shot.keyframe.luma,
                shot.keyframe.sharpness,
                float(shot.gradual),
                shot.share,
            ]
            for shot in shots
        ]
        spans = [Span(shot.start_ns, shot.end_ns) for shot in shots]
        return FeatureSequence.from_rows(np.array(rows, dtype=np.float32), spans)


@dataclass(frozen=True, kw_only=True)
class Keyframes(_Selection):
    """A few timed pictures of a video, chosen by ``method``; an image extractor follows.

    "content": one for each shot. A frame opens a shot when the change there is at least ``min_change`` (mean absolute
    difference of RGB thumbnails, share of full scale) and at least ``threshold`` times the mean difference of the four
    frames on either side; the change is the least of the four differences between the two frames before and the two
    from there on. With ``fades`` the middle of a dissolve or fade of up to about a second opens
    one as well (see ``features.video.shots``).
    ``min_gap`` seconds must have passed since the last shot began. Black frames open none. The keyframe is the
    shot's sharpest frame that is not black (of a black shot, its sharpest), the earliest of equals.
    "uniform": a shot is the frames that begin in one ``interval`` of seconds, counted from the first frame; its
    keyframe is the first of them.
    "container": the key frames of the file (of H.264 its I-frames); nothing else is decoded, so this is the fastest by
    far, and what it finds is the encoder's choice. Those within ``min_gap`` of the last, and black ones, join it.
    "cluster": few pictures that stand for the whole: shots, in pieces of at most ``interval`` seconds, are grouped by
    colour until groups are at least ``distance`` apart (see ``features.video.cluster``); each group is shown by one
    piece. At most 64 groups.

    The first frame opens the first shot. ``max_keyframes``: when there would be more, the cuts with the smallest change
    are undone (the later of equals) and their shots joined, so the rest still covers the video; of clusters, the most
    alike are joined. ``short_side``: size of the pictures in pixels, never enlarged.

    A picture's span is its whole shot, from the start of its first frame to the end of its last, so spans tile the
    video; of "cluster", the piece that the picture is from. Raises ``ValueError`` for impossible options;
    ``SampleError(bad_timestamps)`` when time goes back.
    """

    name: ClassVar[str] = "video.keyframes"

    def select(self) -> _ImageSink:
        """Begin a video."""
        return _ImageSink(self)


@dataclass(frozen=True, kw_only=True)
class KeyframeScores(_Selection):
    """One row for each keyframe, over its shot; options and choice of frames as in ``Keyframes``.

    Columns: ``change`` where the shot begins (0 to 1; 0 for the first, which nothing precedes; for "uniform" and
    "container", from the keyframe before); ``offset_seconds`` of the keyframe from the start of the shot; its mean
    ``luma`` (0 black to 1 white); its ``sharpness``, log(1 + mean square of the Laplacian of 8-bit luma at half size);
    ``gradual``: 1 where the shot begins with a dissolve or fade, else 0; ``share`` of the video's time that the
    keyframe stands for. Runs on the CPU whatever the device.
    """

    name: ClassVar[str] = "video.keyframes"
    columns: ClassVar[tuple[str, ...]] = ("change", "offset_seconds", "luma", "sharpness", "gradual", "share")

    @property
    def dim(self) -> int:
        """Width of a row."""
        return len(self.columns)

    def open(self, device: Device) -> _ScoreSink:
        """Begin a video."""
        del device
        return _ScoreSink(self)

    def __call__(self, batch: Sequence[VideoClip], device: Device) -> list[FeatureSequence]:
        """Return the rows of each clip."""
        return run_video(self, batch, device)
