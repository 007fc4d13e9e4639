"""A timeline over the sound and the motion that it was laid on, so that a person can see whether it fits."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from features.align.timeline import Edges
from features.time import NS_PER_SECOND
from features.types import AudioClip, FeatureSequence

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINE = "#d7263d"
_OVER_SOUND = "#7df9ff"
_SHADE = "#1b4965"
_LABELS = 60
"""More labels than this are not readable and not drawn."""


def alignment_strip(
    timeline: Edges,
    *,
    labels: Sequence[str] = (),
    sound: FeatureSequence | None = None,
    motion: FeatureSequence | None = None,
    coverage: Mapping[str, npt.NDArray[np.float32]] | None = None,
    title: str = "",
    width: float = 10.0,
    dpi: int = 100,
) -> bytes:
    """Draw the intervals ``timeline`` (``start_ns, end_ns``, int64 ``[n]``) over sound and motion; return a PNG.

    ``sound``: rows that are drawn as an image, time to the right and columns upwards (``spectrogram`` makes them; MFCC
    rows do as well). ``motion``: its first column is drawn as a line, broken where rows are not valid or leave a gap.
    ``labels``: one text for each interval, or none. ``coverage``: name -> float ``[n]``, drawn as bars beneath.
    ``width`` in inches. Raises ``ValueError`` where there is nothing to draw, or lengths do not match.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    start, end = (edges / NS_PER_SECOND for edges in timeline)
    coverage = coverage or {}
    lengths = {"labels": len(labels), **{name: len(found) for name, found in coverage.items()}}
    for name, found in lengths.items():
        if found != len(start) and not (name == "labels" and not labels):
            raise ValueError(f"alignment_strip: {name}: got {found}, allowed: {len(start)}, one for each interval")
    sequences = [found for found in (sound, motion) if found is not None and len(found)]
    if not len(start) and not sequences:
        raise ValueError("alignment_strip: got no interval, no sound and no motion, allowed: at least one of them")
    heights = [2.2] * (sound is not None) + [1.2] * (motion is not None) + [0.9] + [0.35] * len(coverage)
    figure = Figure(figsize=(width, sum(heights) + 0.9), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    axes: list[Axes] = list(
        figure.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    )
    if title:
        figure.suptitle(title, fontsize=10)
    rest = iter(axes)
    if sound is not None:
        _draw_sound(next(rest), sound)
    if motion is not None:
        _draw_motion(next(rest), motion)
    for place, axis in enumerate(axes[: len(heights) - 1 - len(coverage)]):
        colour = _OVER_SOUND if sound is not None and place == 0 else _LINE
        axis.vlines(np.union1d(start, end), 0, 1, transform=axis.get_xaxis_transform(), color=colour, lw=1.1)
    _draw_intervals(next(rest), start, end, labels)
    for (name, share), axis in zip(coverage.items(), rest, strict=True):
        axis.bar(start, share, width=end - start, align="edge", color=_SHADE, lw=0)
        axis.set(ylim=(0, 1), yticks=[])
        axis.set_ylabel(name, rotation=0, ha="right", va="center", fontsize=7)
    bounds = [(found.start_ns.min(), found.end_ns.max()) for found in sequences]
    if len(start):
        bounds.append((timeline[0].min(), timeline[1].max()))
    axes[-1].set_xlim(min(b[0] for b in bounds) / NS_PER_SECOND, max(b[1] for b in bounds) / NS_PER_SECOND)
    axes[-1].set_xlabel("seconds", fontsize=8)
    for axis in axes:
        axis.tick_params(labelsize=7)
    sink = io.BytesIO()
    figure.savefig(sink, format="png", metadata={"Software": None})
    return sink.getvalue()


def _draw_sound(axis: Any, sound: FeatureSequence) -> None:
    axis.set_ylabel("sound", fontsize=8)
    axis.set_yticks([])
    if not len(sound):
        return
    values = np.where(sound.valid[:, None], sound.values, np.nan)
    low, high = np.nanpercentile(values, [2, 99.5]) if sound.valid.any() else (0.0, 1.0)
    edges = np.append(sound.start_ns, sound.end_ns[-1]) / NS_PER_SECOND
    rows = np.arange(values.shape[1] + 1)
    axis.pcolormesh(edges, rows, values.T, cmap="magma", vmin=low, vmax=high, rasterized=True)


def _draw_motion(axis: Any, motion: FeatureSequence) -> None:
    centre = (motion.start_ns + (motion.end_ns - motion.start_ns) / 2) / NS_PER_SECOND
    value = np.where(motion.valid, motion.values[:, 0], np.nan).astype(np.float64)
    gaps = np.flatnonzero(motion.start_ns[1:] > motion.end_ns[:-1]) + 1
    axis.plot(np.insert(centre, gaps, np.nan), np.insert(value, gaps, np.nan), color=_SHADE, lw=0.9)
    axis.set_ylabel("motion", fontsize=8)
    axis.set_yticks([])


def _draw_intervals(axis: Any, start: Any, end: Any, labels: Sequence[str]) -> None:
    lanes: list[float] = []
    lane = np.zeros(len(start), dtype=np.int64)
    for index in range(len(start)):  # overlapping intervals lie above one another
        free = next((k for k, until in enumerate(lanes) if until <= start[index]), len(lanes))
        lanes[free : free + 1] = [end[index]]
        lane[index] = free
    axis.bar(start, 0.8, width=end - start, bottom=lane + 0.1, align="edge", color="#cfe8ef", edgecolor=_LINE, lw=0.6)
    axis.set(ylim=(0, max(1, len(lanes))), yticks=[])
    axis.set_ylabel("timeline", fontsize=8)
    if len(start) and len(labels) <= _LABELS:
        span = end.max() - start.min()
        for index, label in enumerate(labels):
            share = (end[index] - start[index]) / span if span else 1.0
            fits = max(1, int(share * 150))
            text = label if len(label) <= fits else label[: max(1, fits - 1)] + "…"
            place = ((start[index] + end[index]) / 2, lane[index] + 0.5)
            axis.annotate(text, place, ha="center", va="center", fontsize=6, annotation_clip=True)


def spectrogram(clip: AudioClip, *, window: float = 0.025, hop: float = 0.01, bands: int = 96) -> FeatureSequence:
    """Return the log power of a clip in ``bands`` bands of equal width, dB, one row every ``hop`` seconds: to look at.

    Channels are averaged; the window (Hann) and the hop are in seconds. A clip shorter than a window gives no row.
    """
    samples = clip.samples.mean(axis=0)
    size, step = round(window * clip.sample_rate), max(1, round(hop * clip.sample_rate))
    if len(samples) < size:
        return FeatureSequence.empty(bands)
    frames = np.lib.stride_tricks.sliding_window_view(samples, size)[::step]
    shape = np.hanning(size + 2)[1:-1].astype(np.float32)
    power = np.abs(np.fft.rfft(frames * shape, n=max(size, 2 * bands), axis=1)) ** 2
    edges = np.linspace(0, power.shape[1], bands + 1).astype(np.int64)
    banded = np.add.reduceat(power, edges[:-1], axis=1) / np.diff(edges)
    start = clip.start_ns + np.arange(len(frames), dtype=np.int64) * round(step * NS_PER_SECOND / clip.sample_rate)
    return FeatureSequence(
        values=(10 * np.log10(banded + 1e-10)).astype(np.float32),
        start_ns=start,
        end_ns=start + round(step * NS_PER_SECOND / clip.sample_rate),
    )
