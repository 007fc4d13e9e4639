"""Text cleaning by named options, safe for every script."""

from __future__ import annotations

import html
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal, TypeAlias

from features.text.social import EMOJI_LANGUAGES, drop_emoji, name_emoji, split_hashtag
from features.text.tokenizers import check_choice
from features.types import Device, Stream, Text, TextSegment

Matches: TypeAlias = Literal["keep", "drop", "token"]

# Addresses are matched in their ASCII form only, so that what follows without a space (as in Chinese) stays.
_URL = re.compile(
    r"(?<![A-Za-z0-9])(?:https?://|ftp://|www\.)[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]*[A-Za-z0-9\-_~/#@$&*+=%]",
    re.IGNORECASE,
)
_EMAIL = re.compile(r"(?<![A-Za-z0-9._%+\-])[A-Za-z0-9._%+\-]+@[A-Za-z0-9\-]+(?:\.[A-Za-z0-9\-]+)+(?![A-Za-z0-9@])")
_MENTION = re.compile(r"(?<![A-Za-z0-9._%+\-@])@[A-Za-z0-9_]+")
_HASHTAG = re.compile(r"(?<![\w&/#])#(?=\d*[^\W\d])(\w+)(?:(?<=[^\x00-\x7f])#)?")
_NUMBER = re.compile(r"(?<![A-Za-z\d])[+\-]?(?>\d+(?:[.,]\d+)*)(?![A-Za-z\d])")

_HTML_HIDDEN = re.compile(r"<!--|<!doctype[^<>]*>|<(script|style)\b[^<>]*>", re.IGNORECASE)
_HTML_CLOSING = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in ("script", "style")}
_HTML_COMMENT_END = re.compile("-->")
_HTML_ENDLESS_REFERENCE = re.compile("&#(?:0*[1-9][0-9]{7,}|[xX]0*[1-9A-Fa-f][0-9A-Fa-f]{7,});?")
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

    In this order: ``mojibake`` "repair" undoes UTF-8 that was read as another encoding (``Ã¼`` for ü; by ftfy's
    ``fix_encoding``); ``html`` "strip" removes tags, comments, scripts and styles and decodes entities (``&amp;``);
    ``control`` "drop" removes control and invisible formatting characters, except the joiners that shape letters;
    ``unicode`` normalises ("NFC", "NFKC", "none"); ``urls``, ``emails``, ``mentions`` (``@name``) are kept, dropped, or
    replaced by the words ``xxurl``, ``xxemail``, ``xxmention``; ``hashtags`` (``#OneName``) are kept, dropped, made a
    plain word ("word": ``OneName``) or words ("split", at capitals, digits and underscores: ``One Name``); ``emoji``
    are kept, dropped, or named in ``language`` ("name": ``grinning face``; names by the ``emoji`` package);
    ``lowercase`` folds case (ß becomes ss); ``numbers`` "drop" removes numbers that are no part of a Latin word
    (``mp3`` stays); ``punctuation`` "drop" puts a space for every punctuation mark and ASCII symbol, except apostrophes
    inside words; ``whitespace`` "collapse" leaves single spaces between words and none at the ends.

    Time is linear in the length of the text, whatever it holds.
    """

    name: ClassVar[str] = "text.clean"
    stream: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = ("emoji", "ftfy")

    mojibake: Literal["repair", "keep"] = "keep"
    html: Literal["strip", "keep"] = "strip"
    control: Literal["drop", "keep"] = "drop"
    unicode: Literal["NFC", "NFKC", "none"] = "NFC"
    urls: Matches = "token"
    emails: Matches = "token"
    mentions: Matches = "keep"
    hashtags: Literal["keep", "drop", "word", "split"] = "keep"
    emoji: Literal["keep", "drop", "name"] = "keep"
    language: str = "english"
    lowercase: bool = True
    numbers: Literal["keep", "drop"] = "keep"
    punctuation: Literal["keep", "drop"] = "keep"
    whitespace: Literal["collapse", "keep"] = "collapse"

    def __post_init__(self) -> None:
        allowed: tuple[tuple[str, object, tuple[object, ...]], ...] = (
            ("mojibake", self.mojibake, ("repair", "keep")),
            ("html", self.html, ("strip", "keep")),
            ("control", self.control, ("drop", "keep")),
            ("unicode", self.unicode, ("NFC", "NFKC", "none")),
            ("urls", self.urls, ("keep", "drop", "token")),
            ("emails", self.emails, ("keep", "drop", "token")),
            ("mentions", self.mentions, ("keep", "drop", "token")),
            ("hashtags", self.hashtags, ("keep", "drop", "word", "split")),
            ("emoji", self.emoji, ("keep", "drop", "name")),
            ("language", self.language, tuple(EMOJI_LANGUAGES)),
            ("lowercase", self.lowercase, (True, False)),
            ("numbers", self.numbers, ("keep", "drop")),
            ("punctuation", self.punctuation, ("keep", "drop")),
            ("whitespace", self.whitespace, ("collapse", "keep")),
        )
        for option, got, choices in allowed:
            check_choice(self.name, option, got, choices)

    def prepare(self, batch: Sequence[Text], device: Device) -> list[Text]:
        """Return one cleaned text for each of ``batch``, with the same segments and spans. Runs on the CPU."""
        del device
        return [
            Text(tuple(TextSegment(self.clean(segment.text), segment.span) for segment in text.segments))
            for text in batch
        ]

    def clean(self, text: str) -> str:
        """Return the cleaned ``text``."""
        if self.mojibake == "repair":
            text = _repaired(text)
        if self.html == "strip":
            text = _HTML_TAG.sub(" ", _HTML_INLINE.sub("", _without_hidden(text)))
            text = html.unescape(_HTML_ENDLESS_REFERENCE.sub("\ufffd", text))
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
        text = self._spoken(text)
        if self.lowercase:
            text = self._normalised(text.casefold())
        if self.numbers == "drop":
            text = _NUMBER.sub(" ", text)
        if self.punctuation == "drop":
            text = "'".join(part.translate(_punctuation()) for part in _APOSTROPHE.split(text))
        if self.whitespace == "collapse":
            text = " ".join(text.split())
        return text

    def _spoken(self, text: str) -> str:
        if self.hashtags == "drop":
            text = _HASHTAG.sub(" ", text)
        elif self.hashtags == "word":
            text = _HASHTAG.sub(r" \1 ", text)
        elif self.hashtags == "split":
            text = _HASHTAG.sub(lambda match: f" {split_hashtag(match[1])} ", text)
        if self.emoji == "drop":
            text = drop_emoji(text)
        elif self.emoji == "name":
            text = name_emoji(text, self.language)
        return text

    def _normalised(self, text: str) -> str:
        return text if self.unicode == "none" else unicodedata.normalize(self.unicode, text)


def _repaired(text: str) -> str:
    from ftfy import fix_encoding

    found: str = fix_encoding(text)
    return found


def _without_hidden(text: str) -> str:
    """The text with a space for each comment, document type, script and style. One without an end stays."""
    kept, end = [], 0
    unclosed: set[re.Pattern[str]] = set()
    for match in _HTML_HIDDEN.finditer(text):
        if match.start() < end:
            continue
        last = match.end()
        if match[0] == "<!--" or match[1]:
            closing = _HTML_CLOSING[match[1].lower()] if match[1] else _HTML_COMMENT_END
            close = None if closing in unclosed else closing.search(text, last)
            if close is None:
                unclosed.add(closing)  # nor is there one further on: looking again would take quadratic time
                continue
            last = close.end()
        kept += [text[end : match.start()], " "]
        end = last
    return "".join([*kept, text[end:]])


@lru_cache(maxsize=1)
def _punctuation() -> dict[int, str]:
    marks = (code for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("P"))
    return dict.fromkeys([*marks, *map(ord, "$+<=>^`|~")], " ")
