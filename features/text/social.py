"""Hashtags and emoji: taken out, or put into words."""

from __future__ import annotations

import re
from functools import lru_cache

EMOJI_LANGUAGES = {
    "arabic": "ar",
    "chinese": "zh",
    "english": "en",
    "french": "fr",
    "german": "de",
    "indonesian": "id",
    "italian": "it",
    "japanese": "ja",
    "korean": "ko",
    "persian": "fa",
    "portuguese": "pt",
    "russian": "ru",
    "spanish": "es",
    "turkish": "tr",
}
"""Languages that the ``emoji`` package has names in, and its codes for them."""

_TAG_PARTS = re.compile(r"\d+|[^\W\d_]+")
_CAPITALS = re.compile(r"(?<=[a-zß-öø-ÿ])(?=[A-ZÀ-ÖØ-Þ])|(?<=[A-ZÀ-ÖØ-Þ])(?=[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ])")


def split_hashtag(tag: str) -> str:
    """Return the words of a hashtag without its ``#``, split at capitals, digits and underscores.

    ``NLPIsFun_in2026`` gives ``NLP Is Fun in 2026``. What is written in one case stays one word.
    """
    return " ".join(_CAPITALS.sub(" ", part) for part in _TAG_PARTS.findall(tag))


def drop_emoji(text: str) -> str:
    """Return the text with a space for each run of emoji."""
    if text.isascii():
        return text
    return _runs().sub(lambda match: _replaced(match[0]), text)


def name_emoji(text: str, language: str) -> str:
    """Return the text with the name of each emoji in its place, as words between spaces."""
    if text.isascii():
        return text
    code = EMOJI_LANGUAGES[language]
    return _runs().sub(lambda match: _named(match[0], code), text)


@lru_cache(maxsize=1)
def _runs() -> re.Pattern[str]:
    """Finds runs of characters that emoji are made of, so that the slow search is made in these alone."""
    import emoji

    characters = {char for sequence in emoji.EMOJI_DATA for char in sequence} - set("0123456789#*\ufe0f\u20e3\u200d")
    letters = re.escape("".join(sorted(characters)))
    joiners = "\ufe0f\u200d"
    return re.compile(f"(?:[{letters}][{joiners}]*|[0-9#*]\ufe0f?\u20e3)+")


@lru_cache(maxsize=4096)
def _replaced(run: str) -> str:
    import emoji

    found: str = emoji.replace_emoji(run, " ")
    return found


@lru_cache(maxsize=4096)
def _named(run: str, code: str) -> str:
    import emoji

    named: str = emoji.demojize(run, delimiters=("\0", "\0"), language=code)
    plain = named.split("\0")
    # what is between the delimiters is a name; everything else stands as it was
    return "".join(f" {part.replace('_', ' ')} " if number % 2 else part for number, part in enumerate(plain))
