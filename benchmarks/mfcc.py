"""`audio.mfcc` beside `librosa.feature.mfcc`: seconds a file on one thread, and how far apart the numbers are.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1 uv run python benchmarks/mfcc.py [--quick]

CPU milliseconds a file, medians of interleaved rounds; a round is so many files one after the other, each a call of its
own. `rfft alone` is torch's Fourier transform of the finished frames. `off` is the largest absolute difference from
librosa given the same float32 signal, `off in double` from librosa given it as float64 (its own sums in float32 are
then out of the way); over speech-like, tonal and noise signals of the same length.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import librosa
import numpy as np
import torch
from harness import emit, figure, interleaved

from features.audio.mfcc import Mfcc
from features.types import AudioClip, Device

CPU: Device = "cpu"
Wave = np.ndarray[Any, np.dtype[np.float32]]

OPTIONS = {
    "16 kHz, 512/160, 128 bands, 20": Mfcc(),
    "16 kHz, 400/160, 40 bands, 13": Mfcc(n_fft=400, n_mels=40, n_mfcc=13),
    "22.05 kHz, 2048/512, 128 bands, 20": Mfcc(sample_rate=22_050, n_fft=2048, hop_length=512),
}

TARGETS = {1.0: 5.0, 10.0: 2.5}
"""Seconds of a clip -> times librosa's speed, at least."""


def signals(rate: int, seconds: float) -> dict[str, Wave]:
    """Signals of every kind that is hard in its own way."""
    rng = np.random.default_rng(0)
    t = np.arange(round(rate * seconds)) / rate
    noise = rng.standard_normal(len(t))
    phase = 2 * np.pi * np.cumsum(120 + 30 * np.sin(2 * np.pi * 0.7 * t)) / rate
    voice = sum(np.sin(k * phase) / k for k in range(1, 20)) * np.clip(np.sin(2 * np.pi * 2.3 * t), 0, 1)
    made = {"noise": 0.1 * noise, "voice": 0.1 * voice + 1e-3 * noise, "tone": 0.5 * np.sin(2 * np.pi * 1234.5 * t)}
    return {name: wave.astype(np.float32) for name, wave in made.items()}


def theirs(wave: Wave, step: Mfcc) -> Any:
    """The same with librosa, ``[T, n_mfcc]``."""
    return librosa.feature.mfcc(
        y=wave, sr=step.sample_rate, n_mfcc=step.n_mfcc, n_fft=step.n_fft, hop_length=step.hop_length,
        n_mels=step.n_mels,
    ).T  # fmt: skip


def measure(name: str, step: Mfcc, seconds: float, rounds: int) -> dict[str, Any]:
    """One row."""
    waves = signals(step.sample_rate, seconds)
    clips = {kind: AudioClip(samples=wave[None], sample_rate=step.sample_rate) for kind, wave in waves.items()}
    off, exact = 0.0, 0.0
    for kind, wave in waves.items():
        (ours,) = step([clips[kind]], CPU)
        off = max(off, float(np.abs(ours.values - theirs(wave, step)).max()))
        exact = max(exact, float(np.abs(ours.values - theirs(wave.astype(np.float64), step)).max()))
    files = max(2, round(20 / seconds))
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(waves["noise"], step.n_fft // 2), step.n_fft)
    ready = torch.from_numpy(frames[:: step.hop_length].astype(np.float64))
    times = interleaved(
        {
            "librosa ms": lambda: [theirs(waves["noise"], step) for _ in range(files)],
            "ours ms": lambda: [step([clips["noise"]], CPU) for _ in range(files)],
            "rfft alone ms": lambda: [torch.fft.rfft(ready) for _ in range(files)],
        },
        rounds,
    )
    return {
        "options": name,
        "seconds": seconds,
        **{key: 1e3 * value / files for key, value in times.items()},
        "times": times["librosa ms"] / times["ours ms"],
        "off": off,
        "off in double": exact,
    }


def main() -> None:
    """Measure all options on clips of two lengths."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few rounds")
    rounds = 5 if parser.parse_args().quick else 31
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of empty filters
    rows = [measure(name, step, seconds, rounds) for name, step in OPTIONS.items() for seconds in TARGETS]
    measures = [
        figure(f"{row['options']}: speed on {row['seconds']:g} s / librosa", row["times"], TARGETS[row["seconds"]])
        for row in rows
    ]
    measures += [
        figure("largest difference from librosa in float32", max(row["off"] for row in rows), 2e-3, at_most=True),
        figure("the same, librosa in float64", max(row["off in double"] for row in rows), 1e-5, at_most=True),
    ]
    for row in rows:
        row.update({name: f"{row[name]:.1e}" for name in ("off", "off in double")})
    emit(rows, measures=measures)


if __name__ == "__main__":
    main()
