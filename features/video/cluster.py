"""Pictures that stand for a whole video: its pieces grouped by colour, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.video.shots import Pixels, Shot

Histogram = npt.NDArray[np.float64]

MOST = 64
"""Groups that are held at a time."""

_LEVELS = 8


@dataclass(eq=False, slots=True)
class _Group:
    histogram: Histogram
    seconds: float
    shot: Shot


def colours(pixels: Pixels) -> Histogram:
    """How the colours of a picture are spread: share of pixels in each of 8 x 8 x 8 cells of RGB, float64 ``[512]``."""
    levels = (pixels >> 5).astype(np.int64)
    cells = (levels[..., 0] * _LEVELS + levels[..., 1]) * _LEVELS + levels[..., 2]
    return np.bincount(cells.ravel(), minlength=_LEVELS**3) / cells.size


class Clusters:
    """Agglomerative grouping, one piece at a time: where more than ``MOST`` are held, the two most alike are joined.

    A group's histogram is the mean over its time, its picture that of its heavier part (the earlier of equals). How
    unlike two groups are is half the sum of absolute differences of their histograms: 0 for equal colours, 1 for none
    in common.
    """

    def __init__(self) -> None:
        self._groups: list[_Group] = []
        self._apart = np.full((MOST + 1, MOST + 1), np.inf)

    def add(self, shot: Shot) -> None:
        """Take the next piece of the video."""
        group = _Group(colours(shot.keyframe.thumbnail), (shot.end_ns - shot.start_ns) / 1e9, shot)
        self._groups.append(group)
        self._compare(len(self._groups) - 1)
        if len(self._groups) > MOST:
            self._join()

    def finish(self, distance: float, limit: int | None) -> list[Shot]:
        """Return the piece that stands for each group, in order of time; groups nearer than ``distance`` are one."""
        count = MOST if limit is None else limit
        while len(self._groups) > 1 and (len(self._groups) > count or self._nearest() < distance):
            self._join()
        pictured = [group for group in self._groups if not group.shot.blank]
        kept = pictured or self._groups
        total = sum(group.seconds for group in kept)
        for group in kept:
            group.shot.share = group.seconds / total if total else 1 / len(kept)
        return sorted((group.shot for group in kept), key=lambda shot: shot.start_ns)

    def _compare(self, index: int) -> None:
        for k, other in enumerate(self._groups):
            if k != index:
                apart = float(np.abs(self._groups[index].histogram - other.histogram).sum()) / 2
                self._apart[min(k, index), max(k, index)] = apart

    def _nearest(self) -> float:
        return float(self._apart[: len(self._groups), : len(self._groups)].min())

    def _join(self) -> None:
        count = len(self._groups)
        first, second = np.unravel_index(np.argmin(self._apart[:count, :count]), (count, count))
        one, other = self._groups[int(first)], self._groups[int(second)]
        seconds = one.seconds + other.seconds
        if seconds:
            mean = (one.histogram * one.seconds + other.histogram * other.seconds) / seconds
        else:
            mean = (one.histogram + other.histogram) / 2
        shot = one.shot if (one.seconds, other.shot.start_ns) >= (other.seconds, one.shot.start_ns) else other.shot
        self._groups[int(first)] = _Group(mean, seconds, shot)
        del self._groups[int(second)]
        self._apart = np.delete(np.delete(self._apart, second, 0), second, 1)
        self._apart = np.pad(self._apart, (0, 1), constant_values=np.inf)
        self._compare(int(first))
