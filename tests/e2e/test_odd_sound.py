"""Odd sounds from the file to the rows: for each a named outcome, and memory that does not run away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from features.audio.denoise import Denoise
from features.audio.mel import Mel
from features.audio.mfcc import Mfcc
from features.audio.normalize import Normalize
from features.audio.prosody import Prosody
from features.audio.spectrogram import Chroma, Stft
from features.audio.trim import Trim
from features.errors import Reason, SampleError
from features.types import AudioClip, Device
from pipeline.media.audio import read_audio
from pipeline.media.source import Source

pytestmark = pytest.mark.e2e

CPU: Device = "cpu"
RATE = 16_000
EXTRACTORS = (Mfcc(), Mel(), Stft(), Chroma(), Prosody())
Write = Callable[[Path], None]


def noise(n: int, level: float = 0.1) -> Any:
    return level * np.random.default_rng(n).standard_normal(n)


def wav(samples: Any, rate: int = RATE, subtype: str = "PCM_16") -> Write:
    return lambda path: soundfile.write(path / "a.wav", samples, rate, subtype=subtype)


def mp3(damage: Callable[[bytes], bytes]) -> Write:
    def write(path: Path) -> None:
        soundfile.write(path / "a.mp3", noise(4 * RATE), RATE)
        (path / "a.mp3").write_bytes(damage((path / "a.mp3").read_bytes()))

    return write


TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)

DECODES: dict[str, tuple[Write, tuple[int, int, int]]] = {
    "silence": (wav(np.zeros(RATE)), (RATE, 1, RATE)),
    "DC offset": (wav(0.4 + noise(RATE, 0.01)), (RATE, 1, RATE)),
    "nothing but DC": (wav(np.full(RATE, 0.7), subtype="FLOAT"), (RATE, 1, RATE)),
    "8 bits": (wav(TONE, subtype="PCM_U8"), (RATE, 1, RATE)),
    "24 bits": (wav(TONE, subtype="PCM_24"), (RATE, 1, RATE)),
    "float above 1": (wav(40 * TONE, subtype="FLOAT"), (RATE, 1, RATE)),
    "192 kHz": (wav(noise(192_000), 192_000), (192_000, 1, 192_000)),
    "64 channels": (wav(np.tile(TONE[:, None], 64)), (RATE, 64, RATE)),
    "10 ms": (wav(TONE[:160]), (RATE, 1, 160)),
    "one sample": (wav(TONE[1:2]), (RATE, 1, 1)),
}

REFUSED: dict[str, tuple[Write, Reason, str]] = {
    "NaN": (wav([0.1, np.nan, 0.2], subtype="FLOAT"), Reason.NON_FINITE, "got 1 NaN or infinite samples"),
    "0 samples": (wav(np.zeros(0)), Reason.EMPTY, "got 0 samples of sound"),
    "65 channels": (wav(np.zeros((10, 65))), Reason.TOO_LARGE, "got 65 channels, allowed: 64"),
    "an MP3 of noise bytes": (
        mp3(lambda content: content[:4] + np.random.default_rng(0).bytes(len(content) - 4)),
        Reason.UNSUPPORTED_FORMAT,
        "got unknown binary data",
    ),
    "an empty MP3": (mp3(lambda _: b""), Reason.EMPTY, "got 0 bytes"),
}


def read(folder: Path) -> AudioClip:
    (path,) = folder.iterdir()
    return read_audio(Source(str(path)), note=lambda _: None)


@pytest.mark.parametrize("name", DECODES)
def test_what_can_be_heard_is_decoded_and_goes_through_every_step(tmp_path: Path, name: str) -> None:
    write, (rate, channels, length) = DECODES[name]
    write(tmp_path)
    clip = read(tmp_path)
    assert (clip.sample_rate, clip.samples.shape) == (rate, (channels, length))
    for extractor in EXTRACTORS:
        (found,) = extractor([clip], CPU)
        assert len(found) == 1 + round(length * extractor.sample_rate / rate) // extractor.hop_length
        assert np.isfinite(found.values).all()
        assert (found.start_ns[0], found.end_ns[-1]) == (clip.span.start_ns, clip.span.end_ns)
    for noise_kind in ("quantile", "mmse_spp"):
        (cleaned,) = Denoise(noise=noise_kind).prepare([clip], CPU)  # type: ignore[arg-type]  # of two literals
        assert cleaned.samples.shape == clip.samples.shape
        assert np.isfinite(cleaned.samples).all()


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_is_refused_with_a_reason(tmp_path: Path, name: str) -> None:
    write, reason, message = REFUSED[name]
    write(tmp_path)
    with pytest.raises(SampleError, match=message) as caught:
        read(tmp_path)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:3000] + bytes(4000) + content[7000:],
        lambda content: content[:3000] + np.random.default_rng(1).bytes(4000) + content[7000:],
    ],
    ids=["cut", "a hole of zeros", "a hole of noise"],
)
def test_a_damaged_mp3_is_read_in_part_or_refused_as_corrupt(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    mp3(damage)(tmp_path)
    try:
        outcome: AudioClip | Reason = read(tmp_path)
    except SampleError as error:
        outcome = error.reason
    if isinstance(outcome, AudioClip):
        assert 0 < outcome.samples.shape[1] <= 4 * RATE + 2304
        assert np.isfinite(outcome.samples).all()
    else:
        assert outcome in (Reason.CORRUPT, Reason.BAD_TIMESTAMPS)


def test_silence_has_an_outcome_in_every_step() -> None:
    clip = AudioClip(samples=np.zeros((1, RATE), np.float32), sample_rate=RATE)
    (mfcc,) = Mfcc()([clip], CPU)
    assert np.ptp(mfcc.values, axis=0).max() < 1e-9  # matrix products may round the last rows otherwise
    (chroma,) = Chroma()([clip], CPU)
    assert not chroma.valid.any()
    prosody = dict(zip(Prosody().columns, Prosody()([clip], CPU)[0].values.T, strict=True))
    assert not prosody["voiced"].any()
    assert not prosody["rms"].any()
    for step in (Trim(), Normalize()):
        with pytest.raises(SampleError) as caught:
            step.prepare([clip], CPU)
        assert caught.value.reason is Reason.SILENT
    (cleaned,) = Denoise().prepare([clip], CPU)
    assert not cleaned.samples.any()


_LONG = """
import resource, sys
import numpy as np, torch
from features.audio.denoise import Denoise
from features.audio.mfcc import Mfcc
from features.types import AudioClip
torch.set_num_threads(1)
rate, minutes, what = 16_000, int(sys.argv[1]), sys.argv[2]
step = Mfcc() if what == "mfcc" else Denoise(overlap=2)
run = step if what == "mfcc" else step.prepare
run([AudioClip(samples=np.ones((1, rate), np.float32), sample_rate=rate)], "cpu")  # compiled
samples = np.random.default_rng(0).standard_normal((1, minutes * 60 * rate), dtype=np.float32)
clip = AudioClip(samples=samples, sample_rate=rate)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(found,) = run([clip], "cpu")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, samples.nbytes // 1024)
"""


@pytest.mark.parametrize(("what", "minutes"), [("mfcc", 30), ("denoise", 15)])
def test_long_sound_needs_little_more_than_its_own_size(what: str, minutes: int) -> None:
    # 15 minutes are 55 MiB of samples; the result of denoising is as large again
    done = subprocess.run(
        [sys.executable, "-c", _LONG, str(minutes), what], check=True, stdout=subprocess.PIPE, text=True
    )
    more, own = map(int, done.stdout.split())
    allowed = 120_000 if what == "mfcc" else own + 100_000
    assert more < allowed
