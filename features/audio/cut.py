"""The loop that spectra and denoising share."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt


def cut_frames(signal: npt.NDArray[Any], begin: int, hop: int, window: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
    """Frames times window into ``out`` ``[T, length]``: row ``t`` from sample ``begin + t * hop``; zeros elsewhere."""
    rows, length = out.shape
    size = len(signal)
    for t in range(rows):
        at = begin + t * hop
        row = out[t]
        if at >= 0 and at + length <= size:
            piece = signal[at : at + length]
            for i in range(length):
                row[i] = piece[i] * window[i]
        else:
            for i in range(length):
                row[i] = signal[at + i] * window[i] if 0 <= at + i < size else 0.0
