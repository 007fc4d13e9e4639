"""Sections of moving things: keyframes of videos, and how the picture moves between frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from features.base import FrameRequest, FrameSelector, ImageSink
from features.registry import PREPARE, resolve
from features.time import NS_PER_SECOND, Span
from features.types import Image, VideoClip
from pipeline.chain import Chain
from pipeline.keys import options
from pipeline.media.source import Source
from pipeline.media.video import Failure, FrameChunk, decode
from pipeline.report.album import Album, Picture
from pipeline.report.draw import flow_over, flow_wheel, thumbnail
from pipeline.report.material import Material, Shown
from pipeline.report.media import beginning

SECONDS = 20.0
"""What is looked at of each video."""
KEYFRAMES = 12
FIELDS = 2
"""Pairs of frames of each video whose flow is drawn: those with the most motion, of one a second."""
_EVEN = "frames, evenly chosen"
_SIDE = 176
_WHEEL = 72
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Sheet:
    """Frames of one video: each with its time in words. ``of``: how many there were."""

    sample: Shown
    how: str
    of: int
    frames: list[tuple[str, Picture]]


@dataclass(frozen=True)
class Motion:
    """The flow between two frames, and what the rim of the wheel stands for."""

    sample: Shown
    feature: str
    when: str
    rim: str
    picture: Picture


@dataclass
class _Watched:
    """What comes out of one pass over a video."""

    frames: dict[str, list[Image]] = field(default_factory=dict)
    fields: dict[str, list[_Field]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Field:
    frame: Pixels
    vectors: npt.NDArray[np.float32]
    start_ns: int
    end_ns: int

    @property
    def motion(self) -> float:
        return float(np.linalg.norm(self.vectors, axis=2).mean())


def videos(material: Material, album: Album, count: int) -> dict[str, Any] | None:
    """Contact sheets of keyframes (or of frames evenly chosen), and flow fields, one pass over each video."""
    chains = [chain for chain in material.dataset.features.values() if chain.stream == "video"]
    shown = material.choose("video", -(-count // 2))
    sheets: list[Sheet] = []
    motions: list[Motion] = []
    for place, sample in enumerate(shown):
        flows = [chain for chain in chains if chain.extractor.name == "video.flow" and place < -(-count // 4)]
        watched = album.attempt(f"frames of {sample.sample_id}", partial(_watch, album, sample, chains, flows))
        if watched is None:
            continue
        for how, frames in watched.frames.items():
            sheet = album.attempt(f"{how} of {sample.sample_id}", partial(_sheet, album, sample, how, frames))
            if sheet is not None:
                sheets.append(sheet)
        for feature, fields in watched.fields.items():
            for found in fields:
                drawn = album.attempt(
                    f"{feature} of {sample.sample_id}", partial(_motion, album, sample, feature, found)
                )
                if drawn is not None:
                    motions.append(drawn)
    if not sheets and not motions:
        return None
    wheel = (
        album.graphic(flow_wheel(_WHEEL), "the direction of each colour: right is red, down is green")
        if motions
        else None
    )
    return {"sheets": sheets, "motions": motions, "wheel": wheel, "seconds": SECONDS}


def first_frame(sample: Shown) -> Pixels:
    """The first frame of a sample's video."""
    for clip in _frames(sample, {"": FrameRequest(short_side=_SIDE)}, beginning(sample, 1.0)):
        first: Pixels = clip[1].pixels[0]
        return first
    raise ValueError(f"{sample.sample_id}: no frame in its first second")


def even_frames(sample: Shown, span: Span, count: int, side: int) -> list[tuple[int, Pixels]]:
    """At most ``count`` small frames of ``span`` at equal distances, each with its time in ns."""
    rate = count * NS_PER_SECOND / max(span.duration_ns, 1)
    found = [
        (start, pixels)
        for _, clip in _frames(sample, {"": FrameRequest(short_side=side, rate=rate)}, span)
        for start, pixels in zip(clip.start_ns.tolist(), clip.pixels, strict=True)
    ]
    return found[:count]


def _frames(sample: Shown, requests: dict[str, FrameRequest], span: Span) -> Iterator[tuple[str, VideoClip]]:
    for event in decode(Source(sample.uris["video"]), span=span, frames=requests):
        if isinstance(event, FrameChunk):
            yield event.key, event.clip
        elif isinstance(event, Failure):
            raise event.error


def selector_of(chain: Chain) -> FrameSelector | None:
    """What chooses the frames of a feature, if anything does."""
    for step in chain.prepare:
        if isinstance(step, FrameSelector):
            return step
    if chain.extractor.name == "video.keyframes":  # the scores of keyframes: the same choice, without the pictures
        chosen: FrameSelector = resolve("video.keyframes", PREPARE)(**options(chain.extractor))
        return chosen
    return None


def _watch(album: Album, sample: Shown, chains: list[Chain], flows: list[Chain]) -> _Watched:
    selectors = {chain.name: found for chain in chains if (found := selector_of(chain)) is not None}
    requests = {f"select {name}": selector.request for name, selector in selectors.items()}
    if not selectors:
        requests[_EVEN] = FrameRequest(short_side=_SIDE, rate=1.0)
    for chain in flows:
        requests[f"flow {chain.name}"] = replace(_request(chain), pixel_format="rgb24")
    sinks: dict[str, ImageSink] = {f"select {name}": selector.select() for name, selector in selectors.items()}
    walks = {f"flow {chain.name}": _Walk(chain) for chain in flows}
    even: list[Image] = []
    for key, clip in _frames(sample, requests, beginning(sample, SECONDS)):
        if key in sinks:
            sinks[key].push(clip)
        elif key in walks:
            walks[key].push(clip)
        else:
            even += [
                Image(pixels=pixels.copy(), span=Span(start, end))
                for pixels, start, end in zip(clip.pixels, clip.start_ns.tolist(), clip.end_ns.tolist(), strict=True)
            ]
        if album.seconds_left <= 0:
            break
    frames = {f"keyframes of {key.removeprefix('select ')}": sink.finish() for key, sink in sinks.items()}
    if even:
        frames[_EVEN] = even
    return _Watched(frames, {key.removeprefix("flow "): walk.best for key, walk in walks.items()})


def _request(chain: Chain) -> FrameRequest:
    extractor: Any = chain.extractor
    request: FrameRequest = extractor.request
    return request


class _Walk:
    """Flow fields of one pair of frames a second; the strongest are kept."""

    def __init__(self, chain: Chain) -> None:
        extractor: Any = chain.extractor
        self._options = {name: getattr(extractor, name) for name in ("method", "preset") if hasattr(extractor, name)}
        self._last: tuple[Pixels, int] | None = None
        self._next_ns: int | None = None
        self.best: list[_Field] = []

    def push(self, clip: VideoClip) -> None:
        import cv2

        from features.video.fields import flow_field

        for pixels, start in zip(clip.pixels, clip.start_ns.tolist(), strict=True):
            if self._last is not None and (self._next_ns is None or start >= self._next_ns):
                frame, before = self._last
                one, other = (np.asarray(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), dtype=np.uint8) for p in (frame, pixels))
                vectors = flow_field(one, other, **self._options)
                self.best.append(_Field(frame, vectors, before, start))
                self.best = sorted(self.best, key=lambda found: -found.motion)[:FIELDS]
                self._next_ns = start + NS_PER_SECOND
            self._last = (pixels.copy(), start)


def _sheet(album: Album, sample: Shown, how: str, images: list[Image]) -> Sheet:
    if not images:
        raise ValueError("no frame was chosen")
    places = np.unique(np.linspace(0, len(images) - 1, min(KEYFRAMES, len(images))).round().astype(int))
    frames = []
    for place in places.tolist():
        image = images[place]
        when = f"{image.span.start_ns / NS_PER_SECOND:.2f} s"
        frames.append((when, album.photo(thumbnail(image.pixels, _SIDE), f"{sample.sample_id} at {when}")))
    return Sheet(sample, how, len(images), frames)


def _motion(album: Album, sample: Shown, feature: str, found: _Field) -> Motion:
    size = np.linalg.norm(found.vectors, axis=2)
    limit = max(0.5, float(np.percentile(size, 99)))
    seconds = (found.end_ns - found.start_ns) / NS_PER_SECOND
    speed = limit / found.vectors.shape[1] / seconds if seconds > 0 else 0.0
    zoom = max(1, round(320 / found.vectors.shape[1]))
    drawn = flow_over(found.frame, found.vectors, limit, zoom)
    return Motion(
        sample,
        feature,
        f"{found.start_ns / NS_PER_SECOND:.2f} to {found.end_ns / NS_PER_SECOND:.2f} s",
        f"{limit:.1f} px, {speed:.2f} frame widths a second",
        album.photo(thumbnail(drawn, 480), f"motion in {sample.sample_id}"),
    )
