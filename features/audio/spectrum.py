"""Power of the bins of every frame, or of bands of them: the one transform behind every spectral feature.

All of it in float64, as librosa does when it is given float64. On CPU the frames are cut and weighted, and bands are
summed, by compiled loops around NumPy's Fourier transform, block by block in the cache and always in the same memory;
each signal alone, so that its bytes depend on nothing else. On a GPU short signals are packed into one of torch's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from features.audio.cut import cut_frames
from features.audio.frames import Rows, Signal, frame_rows
from features.compiled import compiled
from features.types import Device

Power: TypeAlias = npt.NDArray[np.float64]
Finish: TypeAlias = Callable[[Power, float], Rows]
"""Rows of power (to be written over) and the highest power of the clip in, rows of the feature out."""

_CPU_BLOCK = 1 << 16
"""Samples of windowed frames transformed at a time on CPU: half a megabyte, which stays in the core's cache."""

_GPU_BLOCK = 1 << 25
"""Samples of windowed frames transformed at a time on a GPU."""

_CHUNK = 1 << 23
"""Powers held at a time (64 MiB); a longer clip is gone over twice, first for its peak."""

_LANES = 8
"""Frames whose bands are summed side by side: as many float64 as the widest vectors hold."""


class Bank(NamedTuple):
    """Bands of bins: band ``b`` weighs bins ``first[b]`` onwards with ``weights[offsets[b] : offsets[b + 1]]``."""

    first: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]
    dense: npt.NDArray[np.float64]

    @classmethod
    def of(cls, filters: npt.NDArray[np.floating[Any]]) -> Bank:
        """Make one of filters ``[bands, bins]``, which are zero outside a few neighbouring bins."""
        first, weights = [], []
        for row in filters:
            touched = np.flatnonzero(row)
            begin, end = (int(touched[0]), int(touched[-1]) + 1) if len(touched) else (0, 0)
            first.append(begin)
            weights.append(row[begin:end].astype(np.float64))
        return cls(
            first=np.array(first, dtype=np.int64),
            offsets=np.cumsum([0, *map(len, weights)], dtype=np.int64),
            weights=np.concatenate(weights),
            dense=filters.astype(np.float64),
        )


@dataclass(frozen=True, eq=False)
class Analysis:
    """Frames of ``len(window)`` samples every ``hop_length``, and the bands (``None``: the bins) that are wanted."""

    window: npt.NDArray[np.float64]
    hop_length: int
    bank: Bank | None = None

    @property
    def width(self) -> int:
        """Powers of a frame."""
        return len(self.window) // 2 + 1 if self.bank is None else len(self.bank.first)

    def power(self, signal: Signal, begin: int, end: int, device: Device) -> Power:
        """Powers float64 ``[end - begin, width]`` of frames ``begin`` to ``end`` of a signal."""
        return self._on_cpu(signal, begin, end) if device == "cpu" else self._on_gpu(signal, begin, end, device)

    def _on_cpu(self, signal: Signal, begin: int, end: int) -> Power:
        n_fft, hop = len(self.window), self.hop_length
        block = min(max(_LANES, _CPU_BLOCK // n_fft // _LANES * _LANES), max(1, end - begin))
        frames = np.empty((block, n_fft))
        spectrum = np.empty((block, n_fft // 2 + 1), dtype=np.complex128)
        parts = spectrum.view(np.float64).reshape(*spectrum.shape, 2)
        scratch = np.empty((n_fft // 2 + 1, _LANES))
        power: Power = np.empty((end - begin, self.width))
        for at in range(begin, end, block):
            count = min(block, end - at)
            compiled(cut_frames)(signal, at * hop - n_fft // 2, hop, self.window, frames[:count])
            np.fft.rfft(frames[:count], out=spectrum[:count])
            out = power[at - begin : at - begin + count]
            if self.bank is None:
                compiled(_power_of)(parts[:count], out)
            else:
                compiled(_sum_bands)(parts[:count], self.bank.first, self.bank.offsets, self.bank.weights, scratch, out)
        return power

    def _on_gpu(self, signal: Signal, begin: int, end: int, device: Device) -> Power:
        import torch

        n_fft, hop = len(self.window), self.hop_length
        first = begin * hop - n_fft // 2
        length = (end - 1 - begin) * hop + n_fft
        padded = np.zeros(length, dtype=np.float32)
        inside = signal[max(0, first) : max(0, first + length)]
        padded[max(0, -first) : max(0, -first) + len(inside)] = inside
        frames = torch.from_numpy(padded).to(device).unfold(0, n_fft, hop)
        window = torch.from_numpy(self.window).to(device)
        dense = None if self.bank is None else torch.from_numpy(self.bank.dense.T.copy()).to(device)
        power = torch.empty((end - begin, self.width), dtype=torch.float64, device=device)
        step = max(1, _GPU_BLOCK // n_fft)
        for at in range(0, end - begin, step):
            real, imaginary = torch.view_as_real(torch.fft.rfft(frames[at : at + step] * window)).square_().unbind(-1)
            bins = real + imaginary
            power[at : at + step] = bins if dense is None else torch.mm(bins, dense)
        return power.cpu().numpy()

    def rows(self, signals: Sequence[Signal], device: Device, finish: Finish, *, peak: bool, width: int) -> list[Rows]:
        """Return ``finish`` of the powers of each signal; 0 samples give 0 rows of ``width``.

        With ``peak`` it is told the highest power of the whole clip (and 0 otherwise). A clip whose powers would not
        fit into 64 MiB is worked off in parts.
        """
        results: list[Rows] = [np.zeros((0, width), dtype=np.float32)] * len(signals)
        filled = [number for number, signal in enumerate(signals) if len(signal)]
        for group in self._groups(signals, filled, device):
            if len(group) == 1:
                results[group[0]] = self._alone(signals[group[0]], device, finish, peak=peak)
                continue
            packed, parts = self._packed([signals[number] for number in group])
            power = self.power(packed, 0, parts[-1].stop, device)
            for number, part in zip(group, parts, strict=True):
                results[number] = finish(power[part], float(power[part].max()) if peak else 0.0)
        return results

    def _groups(self, signals: Sequence[Signal], filled: Sequence[int], device: Device) -> Iterator[list[int]]:
        """On a GPU as many signals as fit into a chunk together; on CPU each alone."""
        group: list[int] = []
        rows = 0
        for number in filled:
            more = frame_rows(len(signals[number]) + len(self.window), self.hop_length) + 1
            if group and (device == "cpu" or (rows + more) * self.width > _CHUNK):
                yield group
                group, rows = [], 0
            group.append(number)
            rows += more
        if group:
            yield group

    def _packed(self, signals: Sequence[Signal]) -> tuple[Signal, list[slice]]:
        """Signals one after the other, so far apart that no frame reads two of them, and the frames of each."""
        hop = self.hop_length
        gap = -(-len(self.window) // hop)  # hops after a signal's last frame
        parts, at = [], 0
        for signal in signals:
            rows = frame_rows(len(signal), hop)
            parts.append(slice(at, at + rows))
            at += rows + gap
        packed = np.zeros(at * hop, dtype=np.float32)
        for signal, part in zip(signals, parts, strict=True):
            packed[part.start * hop : part.start * hop + len(signal)] = signal
        return packed, parts

    def _alone(self, signal: Signal, device: Device, finish: Finish, *, peak: bool) -> Rows:
        rows = frame_rows(len(signal), self.hop_length)
        step = max(1, _CHUNK // self.width)
        if rows <= step:
            power = self.power(signal, 0, rows, device)
            return finish(power, float(power.max()) if peak else 0.0)
        chunks = [(at, min(at + step, rows)) for at in range(0, rows, step)]
        highest = max(float(self.power(signal, *chunk, device).max()) for chunk in chunks) if peak else 0.0
        return np.concatenate([finish(self.power(signal, *chunk, device), highest) for chunk in chunks])


def _power_of(spectrum: npt.NDArray[np.float64], out: Power) -> None:
    rows, bins = out.shape
    for t in range(rows):
        for i in range(bins):
            out[t, i] = spectrum[t, i, 0] ** 2 + spectrum[t, i, 1] ** 2


def _sum_bands(
    spectrum: npt.NDArray[np.float64],
    first: npt.NDArray[np.int64],
    offsets: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float64],
    power: Power,
    out: Power,
) -> None:
    """Bands of eight frames at a time: ``power`` is scratch ``[bins, 8]``."""
    rows, bands = out.shape
    bins = len(power)
    for t in range(0, rows, 8):
        count = min(8, rows - t)
        for r in range(count):
            for i in range(bins):
                power[i, r] = spectrum[t + r, i, 0] ** 2 + spectrum[t + r, i, 1] ** 2
        for b in range(bands):
            bin_ = first[b] - offsets[b]
            s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
            for j in range(offsets[b], offsets[b + 1]):
                weight = weights[j]
                p = power[bin_ + j]
                s0 += weight * p[0]
                s1 += weight * p[1]
                s2 += weight * p[2]
                s3 += weight * p[3]
                s4 += weight * p[4]
                s5 += weight * p[5]
                s6 += weight * p[6]
                s7 += weight * p[7]
            sums = (s0, s1, s2, s3, s4, s5, s6, s7)
            for r in range(count):
                out[t + r, b] = sums[r]
