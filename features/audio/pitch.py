"""Fundamental frequency of every frame: YIN, equal to ``librosa.yin``, and pYIN by librosa itself."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.audio.frames import Signal, frame_rows

_BLOCK = 1 << 20
"""Samples of frames worked on at a time."""

_SILENT = 1e-12
"""Least mean square of a frame that can be voiced: -120 dB."""

Column = npt.NDArray[np.float64]


class Pitch(NamedTuple):
    """Columns float64 ``[T]``: frequency in Hz, how periodic the frame is in [0, 1], whether it is voiced (0 or 1)."""

    hz: Column
    periodicity: Column
    voiced: Column


def frames_of(
    signal: Signal, frame_length: int, hop_length: int, begin: int, end: int, *, edge: bool = False
) -> Column:
    """Frames ``begin`` to ``end``, float64 ``[end - begin, frame_length]``; beyond the signal: zeros or its edges."""
    first = begin * hop_length - frame_length // 2
    length = (end - 1 - begin) * hop_length + frame_length
    inside = signal[max(0, first) : max(0, first + length)].astype(np.float64)
    left = min(length, max(0, -first))
    padding = (left, max(0, length - left - len(inside)))
    if edge:
        padded = np.pad(inside, padding, constant_values=(float(signal[0]), float(signal[-1])))
    else:
        padded = np.pad(inside, padding)
    return np.lib.stride_tricks.sliding_window_view(padded, frame_length)[::hop_length]


def yin(
    signal: Signal, sample_rate: int, frame_length: int, hop_length: int, fmin: float, fmax: float, threshold: float
) -> Pitch:
    """YIN (de Cheveigné and Kawahara 2002) as ``librosa.yin`` computes it.

    The period is the first dip of the cumulative mean normalised difference below ``threshold``, or else its lowest
    point, refined by a parabola. ``periodicity`` is 1 minus the difference there; a frame is voiced when that
    difference is below ``threshold`` and the frame is not silent (-120 dB).
    """
    rows = frame_rows(len(signal), hop_length)
    step = max(1, _BLOCK // frame_length)
    parts = [
        _yin(frames_of(signal, frame_length, hop_length, at, min(at + step, rows)), sample_rate, fmin, fmax, threshold)
        for at in range(0, rows, step)
    ]
    return Pitch(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _yin(frames: Column, sample_rate: int, fmin: float, fmax: float, threshold: float) -> Pitch:
    length = frames.shape[1]
    least, most = math.floor(sample_rate / fmax), min(math.ceil(sample_rate / fmin), length - 1)
    padded = 1 << (length + most).bit_length()
    spectrum = np.fft.rfft(frames, padded)
    products = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, padded)[:, : most + 1]
    energy = np.cumsum(frames[:, :most] ** 2, axis=1)
    difference = 2 * (products[:, :1] - products[:, 1:]) - energy
    lags = np.arange(1, most + 1)
    mean = np.cumsum(difference, axis=1) / lags
    tiny = np.finfo(np.float64).tiny
    normal = difference[:, least - 1 :] / (mean[:, least - 1 :] + tiny)

    dips = np.zeros(normal.shape, dtype=bool)
    dips[:, 1:-1] = (normal[:, 1:-1] < normal[:, :-2]) & (normal[:, 1:-1] <= normal[:, 2:])
    dips[:, -1] = normal[:, -1] < normal[:, -2]
    dips[:, 0] = normal[:, 0] < normal[:, 1]
    dips &= normal < threshold
    lag = np.where(dips.any(axis=1), dips.argmax(axis=1), normal.argmin(axis=1))
    here = np.arange(len(lag))
    period = least + lag + _parabola(normal, here, lag)
    loud = (frames**2).mean(axis=1) > _SILENT
    periodicity = np.where(loud, np.clip(1 - normal[here, lag], 0, 1), 0)
    return Pitch(sample_rate / period, periodicity, (periodicity > 1 - threshold).astype(np.float64))


def _parabola(curve: Column, rows: npt.NDArray[np.intp], at: npt.NDArray[np.intp]) -> Column:
    """How far the lowest point of the parabola through three neighbours lies from the middle one; 0 at the ends."""
    inner = np.clip(at, 1, curve.shape[1] - 2)
    left, middle, right = (curve[rows, inner + shift] for shift in (-1, 0, 1))
    bend, slope = right + left - 2 * middle, (right - left) / 2
    inside = (np.abs(slope) < np.abs(bend)) & (inner == at)
    return np.where(inside, -slope / np.where(inside, bend, 1), 0)


def pyin(signal: Signal, sample_rate: int, frame_length: int, hop_length: int, fmin: float, fmax: float) -> Pitch:
    """pYIN (Mauch and Dixon 2014) by ``librosa.pyin``: YIN with many thresholds, and the likeliest path through time.

    ``periodicity`` is the probability of being voiced. The path needs the whole clip: memory grows with its length.
    """
    import librosa

    hz, voiced, probability = librosa.pyin(
        signal.astype(np.float64),
        fmin=fmin,
        fmax=fmax,
        sr=sample_rate,
        frame_length=frame_length,
        hop_length=hop_length,
        fill_na=None,
    )
    return Pitch(hz, probability, voiced.astype(np.float64))
