"""Which features are proposed for the kinds of media that were found."""

from __future__ import annotations

from collections.abc import Sequence

from features.types import Stream
from pipeline.init.files import Found

PROBED = 50


def feature_lines(found: Found, streams: Sequence[Stream]) -> tuple[list[str], list[str], bool]:
    """The lines of the features, what to say of them, and whether some videos have no sound though it is asked for."""
    lines: list[str] = []
    notes: list[str] = []
    if "image" in streams:
        lines.append("image.cnn: {}  # what a picture shows: a vector of a pretrained network")
    if "video" in streams:
        lines += [
            "video.flow: {}  # how the picture moves",
            "scenes:  # what each shot shows: the network on one keyframe of each",
            "  prepare: [video.keyframes]",
            "  extractor: image.cnn",
        ]
    heard, silent = "audio" in streams, False
    if "video" in streams and not heard:
        heard, silent, note = _audio_in_videos(found)
        notes.append(note)
    if heard:
        lines.append("audio.mfcc: {}  # how it sounds; against noise: {prepare: [audio.denoise]}")
    if "text" in streams:
        lines += ["text.word2vec:  # what is written: vectors trained on these texts", "  prepare: [text.clean]"]
    return lines, notes, heard and silent


def _audio_in_videos(found: Found) -> tuple[bool, bool, str]:
    """Open some videos, evenly spread: whether any has sound, whether any has none, and what to say of it."""
    import av

    videos = [path for path, stream in found.media.items() if stream == "video"]
    chosen = videos[:: max(1, len(videos) // PROBED)][:PROBED]
    heard, silent, broken = 0, 0, 0
    for path in chosen:
        try:
            with av.open(str(found.folder / path)) as container:
                heard, silent = heard + bool(container.streams.audio), silent + (not container.streams.audio)
        except (av.error.FFmpegError, OSError):
            broken += 1
    said = f"sound: {heard} of {len(chosen)} videos looked at have an audio track"
    said += f", {broken} cannot be opened" if broken else ""
    return heard > 0, silent > 0, said + ("; those without one fail audio.mfcc" if heard and silent else "")
