"""Section of sounds: waveform, spectrogram and the sound itself, before and after the prepare steps of a feature."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup

from features.types import AudioClip
from pipeline.chain import Chain
from pipeline.report import charts
from pipeline.report.album import Album, Picture
from pipeline.report.draw import RANGE_DB, envelope, heat, spectrogram_db
from pipeline.report.material import Material, Shown
from pipeline.report.media import Preparer, attempt_open, beginning, open_sound, prepares, steps_in_words

SECONDS = 10.0
"""What is shown, and can be heard, of each sound."""
_WIDTH, _HEIGHT = 560, 150
_POINTS = 280
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


@dataclass(frozen=True)
class Heard:
    """One sound, drawn."""

    name: str
    wave: Markup
    spectrogram: Picture
    top: str
    level: str
    player: str
    """A data URI of the sound as MP3; empty where MP3 does not know its rate."""


@dataclass(frozen=True)
class Hearing:
    """One sample as a feature hears it, or several that prepare it alike: as read, and prepared."""

    sample: Shown
    feature: str
    steps: str
    sounds: list[Heard]
    seconds: float
    change: str


def sounds(material: Material, album: Album, count: int) -> list[Hearing]:
    """Sounds before and after the prepare steps of each feature; as read only, where no feature has any."""
    if not any(chain.stream == "audio" for chain in material.dataset.features.values()):
        return []
    chains, preparer = prepares(material, "audio"), Preparer(material)
    found: list[Hearing] = []
    for sample in material.choose("audio", -(-count // 4)):
        clip = attempt_open(album, "the sound", sample, open_sound, beginning(sample, SECONDS))
        if clip is None:
            continue
        for alike in _alike(chains) or [[]]:
            what = ", ".join(chain.name for chain in alike)
            heard = album.attempt(
                f"{what or 'the sound'} of {sample.sample_id}",
                partial(_hearing, album, preparer, sample, clip, alike[0] if alike else None, what),
            )
            if heard is not None:
                found.append(heard)
    return found


def _alike(chains: Sequence[Chain]) -> list[list[Chain]]:
    """Features that make the same of a sound, together."""
    groups: list[list[Chain]] = []
    for chain in chains:
        same = [group for group in groups if _before_extractor(group[0]) == _before_extractor(chain)]
        if same:
            same[0].append(chain)
        else:
            groups.append([chain])
    return groups


def _before_extractor(chain: Chain) -> tuple[object, ...]:
    return chain.prepare, chain.augment, chain.count, chain.seed


def _hearing(
    album: Album, preparer: Preparer, sample: Shown, clip: AudioClip, chain: Chain | None, names: str
) -> Hearing:
    clips = [("as read", clip)]
    change = ""
    if chain is not None:
        prepared = preparer(chain, clip)
        clips.append(("prepared", prepared))
        before, after = _level(clip), _level(prepared)
        change = f"level {before:.1f} → {after:.1f} dBFS" if before is not None and after is not None else ""
    powers = [spectrogram_db(found, _WIDTH) for _, found in clips]
    top = max(-100.0, float(powers[0].max(initial=-100.0)))
    peak = max(float(np.abs(found.samples).max(initial=0)) for _, found in clips)
    sounds = [
        _heard(album, sample, name, found, power, top, peak) for (name, found), power in zip(clips, powers, strict=True)
    ]
    length = clip.samples.shape[1] / clip.sample_rate
    steps = "" if chain is None else steps_in_words(chain)
    return Hearing(sample, names, steps, sounds, length, change)


def _heard(album: Album, sample: Shown, name: str, clip: AudioClip, power: Any, top: float, peak: float) -> Heard:
    import cv2

    drawn = cv2.resize(heat(power, top - RANGE_DB, top), (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA)
    low, high = envelope(clip, _POINTS)
    level = _level(clip)
    return Heard(
        name,
        charts.waveform(low, high, peak, f"waveform of {name}"),
        album.photo(np.asarray(drawn, dtype=np.uint8), f"spectrogram of {sample.sample_id}, {name}"),
        f"{clip.sample_rate / 2000:g} kHz",
        "silence" if level is None else f"{level:.1f} dBFS",
        _player(album, clip),
    )


def _level(clip: AudioClip) -> float | None:
    """Root mean square in dB of full scale; ``None`` for silence."""
    power = float(np.mean(np.square(clip.samples, dtype=np.float64))) if clip.samples.size else 0.0
    return 10 * float(np.log10(power)) if power > 0 else None


def _player(album: Album, clip: AudioClip) -> str:
    import soundfile

    if clip.sample_rate not in _MP3_RATES or not clip.samples.size:
        return ""
    sink = io.BytesIO()
    signal = np.clip(clip.samples.mean(axis=0), -1, 1)
    soundfile.write(sink, signal, clip.sample_rate, format="MP3")
    return album.embed("audio/mpeg", sink.getvalue())
