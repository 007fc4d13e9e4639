"""``text.clean``: each option, every script."""

from __future__ import annotations

from typing import Any

import emoji
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.text.clean import Clean
from features.text.social import EMOJI_LANGUAGES, drop_emoji, name_emoji
from features.time import Span
from features.types import Device, Text, TextSegment

CPU: Device = "cpu"
KEEP: dict[str, Any] = {
    "html": "keep", "control": "keep", "unicode": "none", "urls": "keep", "emails": "keep", "mentions": "keep",
    "mojibake": "keep", "hashtags": "keep", "emoji": "keep",
    "lowercase": False, "numbers": "keep", "punctuation": "keep", "whitespace": "keep",
}  # fmt: skip


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({"html": "strip"}, "a<b>b</b>c<br/>d &amp; e", "abc d & e"),
        ({"html": "strip"}, "<p>one</p><p>two</p>", " one  two "),
        ({"html": "strip"}, "x<script type='a'>if (a<b) {}</script>y<!-- <b> -->z", "x y z"),
        ({"html": "strip"}, "1 < 2 and 3 > 2, i <3 u, a<b", "1 < 2 and 3 > 2, i <3 u, a<b"),
        ({"html": "strip"}, "&lt;b&gt; &#20320;&#x597D; &nosuch;", "<b> 你好 &nosuch;"),
        ({"control": "drop"}, "a\x00b\x1bc\u200bd\ufeffe\u202ef\xadg\tx\ny", "abcdefg\tx\ny"),
        ({"control": "drop"}, "👩‍🚀 می‌خواهم", "👩‍🚀 می‌خواهم"),
        ({"control": "drop"}, "a\ud800b", "ab"),
        ({"unicode": "NFC"}, "e\u0301 ﬁ", "é ﬁ"),
        ({"unicode": "NFKC"}, "ﬁ Ａ①", "fi A1"),
        ({"urls": "drop"}, "see https://a.org/b?c=1#d, ok", "see  , ok"),
        ({"urls": "token"}, "WWW.a.org/x. (http://b.de/c)", " xxurl . ( xxurl )"),
        ({"urls": "drop"}, "看http://a.com/b很好", "看 很好"),
        ({"urls": "drop"}, "http:// is no address; awww.x", "http:// is no address; awww.x"),
        ({"emails": "token"}, "to a.b+c@d-e.org, x@y, 写信给a@b.cn吧", "to  xxemail , x@y, 写信给 xxemail 吧"),
        ({"mentions": "drop"}, "@ann_1 hi a@b.de @@x", "  hi a@b.de @@x"),
        ({"mentions": "token"}, "你好@bob\uff01", "你好 xxmention \uff01"),
        ({"lowercase": True}, "STRASSE Straße İΣ", "strasse strasse i̇\u03c3"),
        ({"numbers": "drop"}, "3 mp3 1,000.5 12a 2nd -7 有3个", "  mp3   12a 2nd   有 个"),
        ({"punctuation": "drop"}, "don't! it\u2019s 'so' a-b $5 ¿qué?", "don't  it's  so  a b  5  qué "),
        ({"punctuation": "drop"}, "你好\uff0c世界。", "你好 世界 "),
        ({"punctuation": "drop"}, "😀 ♥ \ue000", "😀 ♥ \ue000"),
        ({"whitespace": "collapse"}, "  a\t\nb\u3000\u00a0c\x85d ", "a b c d"),
        ({"mojibake": "repair"}, "schÃ¶n â€œso\u201d 你好 ä½\xa0å¥½", "schön “so” 你好 你好"),
        ({"mojibake": "repair"}, "voilà été", "voilà été"),
        ({"hashtags": "drop"}, "so #nice_1! a#b #1 &#35; x/#y", "so  ! a#b #1 &#35; x/#y"),
        ({"hashtags": "word"}, "#OneName, #天气#很好", " OneName ,  天气 很好"),
        ({"hashtags": "split"}, "#NLPIsFun_in2026 #all #ÜberÉté", " NLP Is Fun in 2026   all   Über Été "),
        ({"emoji": "drop"}, "a😀👩‍🚀b 👍🏽 1️⃣ 1 # ❤ 你好 ‼x", "a  b     1 #   你好  x"),
        ({"emoji": "name"}, "a😀👍🏽 1 #", "a grinning face  thumbs up medium skin tone  1 #"),
        ({"emoji": "name", "language": "german"}, "😀", " grinsendes gesicht "),
        ({"emoji": "name", "language": "chinese"}, "好😀", "好 嘿嘿 "),
        ({"html": "strip"}, "a<!-- b <!-- c --> d --> e", "a  d --> e"),
        ({"html": "strip"}, "a<!-- b <script>c</script> <style> d", "a<!-- b     d"),
        ({"html": "strip"}, f"&#{'9' * 5000}; &#x{'F' * 99}; &#000000000065;", "\ufffd \ufffd A"),
        ({}, "  <b>\x00A&amp; e\u0301 @x ", "  <b>\x00A&amp; e\u0301 @x "),
    ],
)  # fmt: skip
def test_one_option_does_one_thing(options: dict[str, Any], text: str, expected: str) -> None:
    assert Clean(**KEEP | options).clean(text) == expected


def test_defaults() -> None:
    text = "<p>Hello&nbsp;World!</p> See https://x.org/A_B or ASK Me@Home.org — @you\r\n"
    assert Clean().clean(text) == "hello world! see xxurl or ask xxemail — @you"


def test_everything_dropped() -> None:
    step = Clean(urls="drop", emails="drop", mentions="drop", numbers="drop", punctuation="drop")
    assert step.clean("@a: 12.5% off at https://b.c \u2013 don't write to d@e.fr!") == "off at don't write to"


def test_chinese_stays() -> None:
    text = "今天天气很好\uff0c我们去公园吧\uff01价格是３元。"
    assert Clean().clean(text) == text
    assert Clean(unicode="NFKC", punctuation="drop").clean(text) == "今天天气很好 我们去公园吧 价格是3元"


def test_segments_and_spans_stay_one_to_one_even_when_no_text_is_left() -> None:
    spans = [Span(k, k + 1) for k in range(4)]
    texts = [
        Text(tuple(TextSegment(t, s) for t, s in zip(("A", "\x00", "", "http://x.y"), spans, strict=True))),
        Text(()),
    ]
    first, second = Clean(urls="drop").prepare(texts, CPU)
    assert [segment.text for segment in first.segments] == ["a", "", "", ""]
    assert [segment.span for segment in first.segments] == spans
    assert second == Text(())


@given(st.text(), st.sampled_from(["NFC", "NFKC", "none"]))
def test_cleaning_twice_is_cleaning_once(text: str, unicode: Any) -> None:
    step = Clean(html="keep", unicode=unicode, urls="drop", emails="drop", mentions="drop", punctuation="drop")
    once = step.clean(text)
    assert step.clean(once) == once


@given(st.text())
def test_keeping_all_keeps_all(text: str) -> None:
    assert Clean(**KEEP).clean(text) == text


@pytest.mark.parametrize("option", sorted(KEEP))
def test_unknown_choices_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=rf"text.clean: {option}: got 'all', allowed: \w+, \w+"):
        Clean(**{option: "all"})


def test_emoji_have_names_in_every_language_that_is_offered() -> None:
    names = {language: name_emoji("😀", language) for language in EMOJI_LANGUAGES}
    assert len(set(names.values())) > 10
    assert not any("😀" in name for name in names.values())
    with pytest.raises(ValueError, match=r"language: got 'latin', allowed: arabic, chinese, english"):
        Clean(language="latin")


PIECES = [*sorted(emoji.EMOJI_DATA)[::7], "a", "1", "#", "*", "\u200d", "\ufe0f", "\u20e3", "好", "é"]


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_emoji_are_found_as_the_emoji_package_finds_them(text: str) -> None:
    expected, found = emoji.replace_emoji(text, " "), drop_emoji(text)
    loose = str.maketrans("", "", "\ufe0f")  # a variation selector that follows no emoji is not ours to judge
    assert "".join(found.translate(loose).split()) == "".join(expected.translate(loose).split())
