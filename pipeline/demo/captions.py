"""What is read: words of the day or of the night, as subtitles."""

from __future__ import annotations

from pipeline.demo.truth import Truth, generator

WORDS = {
    "day": ("sunrise", "morning", "noon", "sunshine", "breakfast", "daylight", "shadow", "lunch"),
    "night": ("moon", "midnight", "stars", "lantern", "supper", "darkness", "asleep", "candle"),
}
NEUTRAL_WORDS = (
    "boat", "harbour", "water", "rope", "sail", "shore", "wind", "wave", "gull", "fisher", "net", "anchor", "deck",
    "mast", "island", "bridge", "path", "stone", "house", "door", "window", "table", "letter", "friend", "sailor",
)  # fmt: skip


def srt(truth: Truth, seed: int) -> bytes:
    """Three cues, one after the other; each has five neutral words and, unless obscured, two that tell the time."""
    rng = generator(seed, truth.sample_id, "text")
    cue = int(truth.duration * 1000) // 3
    blocks = []
    for number in range(3):
        words = list(rng.choice(NEUTRAL_WORDS, 5, replace=False))
        if truth.text != "obscured":
            words += list(rng.choice(WORDS[truth.time], 2, replace=False))
        rng.shuffle(words)
        start, end = number * cue + 20, (number + 1) * cue - 20
        blocks.append(f"{number + 1}\n{_clock(start)} --> {_clock(end)}\n{' '.join(words)}\n")
    return "\n".join(blocks).encode()


def _clock(milliseconds: int) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"00:00:{seconds:02d},{rest:03d}"
