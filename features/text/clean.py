"""Text cleaning by named options, safe for every script."""

from __future__ import annotations

import html
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from features.types import Stream, Text, TextSegment

if TYPE_CHECKING:
    import torch

Matches: TypeAlias = Literal["keep", "drop", "token"]

# Addresses are matched in their ASCII form only, so that what follows without a space (as in Chinese) stays.
_URL = re.compile(
    r"(?<![A-Za-z0-9])(?:https?://|ftp://|www\.)[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*[A-Za-z0-9\-_~/#@$&*+=%]",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"(?<![A-Za-z0-9._%+\-])[A-Za-z0-9._%+\-]+@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)+(?![A-Za-z0-9@])")
_MENTION = re.compile(r"(?<![A-Za-z0-9._%+\-@])@[A-Za-z0-9_]+")
_NUMBER = re.compile(r"(?<![A-Za-z\d])[+\-]?(?>\d+(?:[.,]\d+)*)(?![A-Za-z\d])")

_HTML_HIDDEN = re.compile(r"<!--.*?-->|<!doctype[^<>]*>|<(script|style)\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_HTML_INLINE = re.compile(
    r"</?(?:a|abbr|b|bdi|bdo|cite|code|em|font|i|mark|s|small|span|strong|sub|sup|tt|u)(?:\s[^<>]*)?/?>", re.IGNORECASE
)
_HTML_TAG = re.compile(r"</?[A-Za-z][A-Za-z0-9:\-]*(?:\s[^<>]*)?/?>")

# Joiners (U+200C, U+200D) shape letters and emoji, and tag characters spell flags: they are no control characters here.
_CONTROL = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]"
)

_APOSTROPHE = re.compile("(?<=[^\\W\\d_])['\u2019](?=[^\\W\\d_])")


@dataclass(frozen=True, kw_only=True)
class Clean:
    """Clean the text of every segment; segments and their times stay one to one, even where no text is left.

    In this order: ``html`` "strip" removes tags, comments, scripts and styles and decodes entities (``&amp;``);
    ``control`` "drop" removes control and invisible formatting characters, except the joiners that shape letters;
    ``unicode`` normalises ("NFC", "NFKC", "none"); ``urls``, ``emails``, ``mentions`` (``@name``) are kept, dropped, or
    replaced by the words ``xxurl``, ``xxemail``, ``xxmention``; ``lowercase`` folds case (ß becomes ss); ``numbers``
    "drop" removes numbers that are no part of a Latin word (``mp3`` stays); ``punctuation`` "drop" puts a space for
    every punctuation mark and ASCII symbol, except apostrophes inside words; ``whitespace`` "collapse" leaves single
    spaces between words and none at the ends.
    """

    name: ClassVar[str] = "text.clean"
    stream: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = ()

    html: Literal["strip", "keep"] = "strip"
    control: Literal["drop", "keep"] = "drop"
    unicode: Literal["NFC", "NFKC", "none"] = "NFC"
    urls: Matches = "token"
    emails: Matches = "token"
    mentions: Matches = "keep"
    lowercase: bool = True
    numbers: Literal["keep", "drop"] = "keep"
    punctuation: Literal["keep", "drop"] = "keep"
    whitespace: Literal["collapse", "keep"] = "collapse"

    def __post_init__(self) -> None:
        allowed: tuple[tuple[str, object, tuple[object, ...]], ...] = (
            ("html", self.html, ("strip", "keep")),
            ("control", self.control, ("drop", "keep")),
            ("unicode", self.unicode, ("NFC", "NFKC", "none")),
            ("urls", self.urls, ("keep", "drop", "token")),
            ("emails", self.emails, ("keep", "drop", "token")),
            ("mentions", self.mentions, ("keep", "drop", "token")),
            ("lowercase", self.lowercase, (True, False)),
            ("numbers", self.numbers, ("keep", "drop")),
            ("punctuation", self.punctuation, ("keep", "drop")),
            ("whitespace", self.whitespace, ("collapse", "keep")),
        )
        for option, got, choices in allowed:
            if got not in choices:
                raise ValueError(f"{self.name}: {option}: got {got!r}, allowed: {', '.join(map(str, choices))}")

    def prepare(self, batch: Sequence[Text], device: torch.device) -> list[Text]:
        """Return one cleaned text for each of ``batch``, with the same segments and spans. Runs on the CPU."""
        del device
        return [
            Text(tuple(TextSegment(self.clean(segment.text), segment.span) for segment in text.segments))
            for text in batch
        ]

    def clean(self, text: str) -> str:
        """Return the cleaned ``text``."""
        if self.html == "strip":
            text = _HTML_HIDDEN.sub(" ", text)
            text = html.unescape(_HTML_TAG.sub(" ", _HTML_INLINE.sub("", text)))
        if self.control == "drop":
            text = _CONTROL.sub("", text)
        text = self._normalised(text)
        for pattern, treatment, token in (
            (_URL, self.urls, "xxurl"),
            (_EMAIL, self.emails, "xxemail"),
            (_MENTION, self.mentions, "xxmention"),
        ):
            if treatment != "keep":
                text = pattern.sub(f" {token} " if treatment == "token" else " ", text)
        if self.lowercase:
            text = self._normalised(text.casefold())
        if self.numbers == "drop":
            text = _NUMBER.sub(" ", text)
        if self.punctuation == "drop":
            text = "'".join(part.translate(_punctuation()) for part in _APOSTROPHE.split(text))
        if self.whitespace == "collapse":
            text = " ".join(text.split())
        return text

    def _normalised(self, text: str) -> str:
        return text if self.unicode == "none" else unicodedata.normalize(self.unicode, text)


@lru_cache(maxsize=1)
def _punctuation() -> dict[int, str]:
    marks = (code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("P"))
    return dict.fromkeys([*marks, *map(ord, "$+<=>^`|~")], " ")
