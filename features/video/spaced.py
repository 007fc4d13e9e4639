"""Pictures at given places of a video: every so many seconds, or wherever the container has a key frame."""

from __future__ import annotations

from features.types import VideoClip
from features.video.shots import Frame, Pixels, Shot, check_follows, check_frames, difference, extend, measure


class SpacedFinder:
    """Makes a shot of each frame that is given, but for those that come too early.

    With ``interval_ns`` a shot is the frames that begin in one interval, counted from the first frame, and its
    keyframe is the first of them. Without, a frame opens a shot when ``min_gap_ns`` have passed since the last one did;
    until then the better picture stands; black frames open none.
    """

    def __init__(self, min_gap_ns: int, interval_ns: int | None) -> None:
        self._min_gap_ns = min_gap_ns
        self._interval_ns = interval_ns
        self._first_ns = self._cell = 0
        self._last: Frame | None = None
        self._over: list[Shot] = []
        self._shot: Shot | None = None

    def push(self, clip: VideoClip) -> None:
        """Take the next frames. Raises ``ValueError`` for luma, and ``SampleError`` when time or size jumps."""
        check_frames(clip)
        for pixels, start, end in zip(clip.pixels, clip.start_ns.tolist(), clip.end_ns.tolist(), strict=True):
            self._take(pixels, start, end)
        if self._shot is not None:
            for shot in (*self._over, self._shot):
                shot.keyframe.own()

    def next_shots(self) -> list[Shot]:
        """Return the shots that have ended since the last call."""
        found, self._over = self._over, []
        return found

    def finish(self) -> list[Shot]:
        """Return the remaining shots of the video, in order of time."""
        return self.next_shots() if self._shot is None else [*self.next_shots(), self._shot]

    def _take(self, pixels: Pixels, start_ns: int, end_ns: int) -> None:
        if self._shot is None:
            self._first_ns = start_ns
        if self._last is not None:
            check_follows(self._last, start_ns, pixels)
        if self._interval_ns is not None and self._shot is not None and not self._next_cell(start_ns):
            self._shot.end_ns = end_ns
            if self._last is not None:
                self._last.end_ns = end_ns
            return
        frame = measure(pixels, start_ns, end_ns)
        shot = self._shot
        if shot is None or self._opens(shot, frame):
            change = 0.0 if shot is None else difference(frame.thumbnail, shot.keyframe.thumbnail)
            if shot is not None:
                self._over.append(shot)
            self._shot = Shot(
                change=change, gradual=False, start_ns=start_ns, end_ns=end_ns, keyframe=frame, blank=frame.blank
            )
        else:
            extend(shot, frame)
        self._last = frame

    def _next_cell(self, start_ns: int) -> bool:
        cell = (start_ns - self._first_ns) // (self._interval_ns or 1)
        later, self._cell = cell > self._cell, max(cell, self._cell)
        return later

    def _opens(self, shot: Shot, frame: Frame) -> bool:
        if self._interval_ns is not None:
            return True
        return not (frame.blank or shot.blank or frame.start_ns - shot.start_ns < self._min_gap_ns)
