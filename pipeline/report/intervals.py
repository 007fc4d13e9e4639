"""A timeline as a page shows it: in words, as lines over other lanes, and as a lane of its own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from features.align.timeline import Edges, is_timed, occupied_end_ns
from features.time import NS_PER_SECOND, Span, seconds_to_ns

MAX_MARKS = 80
"""More intervals than this are drawn on their own lane only."""
_FINE = 2000
"""Places along a lane that can be told apart."""


def in_words(timeline: Mapping[str, Any]) -> str:
    """What a snapshot's ``timeline`` is: of any of the kinds that a catalog knows."""
    if "grid" in timeline:
        grid = timeline["grid"]
        length, hop = grid["length"], grid.get("hop")
        every = f", one every {hop:g} s" if hop is not None and hop != length else ""
        phase = f", the first {grid['phase']:+g} s from where the sample begins" if grid.get("phase") else ""
        return f"windows of {length:g} s{every}{phase}"
    if "text" in timeline:
        return f"the {timeline['text']} of the sample's text"
    if "rows_of" in timeline:
        return f"the rows of {timeline['rows_of']}"
    return f"the intervals of {timeline['intervals']['path']}"


@dataclass(frozen=True)
class Correction:
    """By how much aligning moved a stream of a sample: ``t' = t + offset + t * drift_ppm / 1e6``."""

    offset_ns: int = 0
    drift_ppm: float = 0.0

    def before(self, span: Span) -> Span:
        """The span on the stream's own clock that became ``span``."""
        scale = 1 + self.drift_ppm / 1e6
        start, end = (round((edge - self.offset_ns) / scale) for edge in (span.start_ns, span.end_ns))
        return Span(start, max(start, end))

    @property
    def note(self) -> str:
        """What was done, for people; empty where nothing was."""
        offset = f"{self.offset_ns / NS_PER_SECOND:+.3f} s" if self.offset_ns else ""
        ppm = f"{self.drift_ppm:+g} ppm" if self.drift_ppm else ""
        parts = " and ".join(part for part in (offset, ppm) if part)
        return f", moved by {parts}" if parts else ""


def corrections(said: Mapping[str, Any], sample_id: str) -> dict[str, Correction]:
    """Stream -> how its times were corrected in one sample; ``said``: metadata of a file of aligned rows."""
    found = said.get("estimated", {}).get(sample_id, {})
    return {
        stream: Correction(
            offset_ns=seconds_to_ns(given.get("offset", 0.0)) + found.get(stream, {}).get("offset_ns", 0),
            drift_ppm=given.get("drift_ppm", 0.0),
        )
        for stream, given in said.get("clocks", {}).items()
    }


def shown_span(timeline: Edges, media: Iterable[Edges], seconds: float) -> tuple[Span, bool]:
    """What of a sample is shown, and whether that is less than all: ``seconds`` from the first interval on.

    Media that begin before the first interval are shown from at most a second before it. Raises ``ValueError`` for a
    timeline that has no interval, or one without a time.
    """
    start, end = timeline
    if not len(start):
        raise ValueError("the sample's timeline has no interval")
    if not is_timed(start, end).all():
        raise ValueError("nothing of the sample has a time")
    starts, ends = [int(start.min())], [int(occupied_end_ns(start, end).max())]
    for row_start, row_end in media:
        timed = is_timed(row_start, row_end)
        if timed.any():
            starts.append(int(row_start[timed].min()))
            ends.append(int(row_end[timed].max()))
    first = max(min(starts), starts[0] - NS_PER_SECOND)
    last = min(max(ends), first + seconds_to_ns(seconds))
    return Span(first, last), (first, last) != (min(starts), max(ends))


def inside(timeline: Edges, span: Span) -> Edges:
    """The intervals that reach into ``span``."""
    start, end = timeline
    held = (start < span.end_ns) & (occupied_end_ns(start, end) > span.start_ns)
    return start[held], end[held]


def marks(timeline: Edges, span: Span) -> Markup | None:
    """A line at every edge of an interval, to lie over a lane; ``None`` where there are too many to see between."""
    if len(timeline[0]) > MAX_MARKS:
        return None
    places = np.unique(np.concatenate([_places(edges, span) for edges in timeline]))
    lines = "".join(f"M{x:g} 0V1" for x in places.tolist() if 0 < x < _FINE)
    return _svg("marks", 1, f'<path d="{lines}"/>', "edges of intervals")


def lane(timeline: Edges, span: Span) -> Markup:
    """The intervals as boxes; those that overlap lie beneath one another."""
    row = rows_apart(*timeline)
    left, right = (_places(edges, span) for edges in timeline)
    boxes = np.unique(np.stack([left, np.maximum(right - left, 1), row], axis=1), axis=0)
    drawn = "".join(f'<rect x="{x}" width="{width}" y="{y}.08" height=".84"/>' for x, width, y in boxes.tolist())
    return _svg("boxes", int(row.max(initial=0)) + 1, drawn, "intervals of the timeline")


def rows_apart(start: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Which line each of some intervals, ascending by start, is drawn on, so that none lies over another."""
    free: list[int] = []
    found = np.zeros(len(start), dtype=np.int64)
    for index, (begin, until) in enumerate(zip(start.tolist(), end.tolist(), strict=True)):
        row = next((k for k, taken in enumerate(free) if taken <= begin), len(free))
        free[row : row + 1] = [until]
        found[index] = row
    return found


def _places(edges: npt.NDArray[np.int64], span: Span) -> npt.NDArray[np.int64]:
    share = (edges - span.start_ns) / max(1, span.duration_ns)
    return np.asarray(np.rint(np.clip(share, 0, 1) * _FINE), dtype=np.int64)


def _svg(kind: str, height: int, body: str, label: str) -> Markup:
    head = Markup('<svg class="{}" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img" aria-label="{}">')
    return head.format(kind, _FINE, height, label) + Markup(body + "</svg>")  # noqa: S704  # numbers
