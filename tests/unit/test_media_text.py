import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import Reason, SampleError
from features.time import ALWAYS, Span
from features.types import TextSegment
from pipeline.media.source import Limits, Source
from pipeline.media.text import read_text

MS = 1_000_000


@pytest.fixture
def read(tmp_path):
    def read(name, content, **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_text(Source(str(path)), **options).segments

    return read


def seg(text, start_ms, end_ms):
    return TextSegment(text, Span(start_ms * MS, end_ms * MS))


def refused(reason, text, call, *args, **options):
    with pytest.raises(SampleError, match=text) as caught:
        call(*args, **options)
    assert caught.value.reason is reason


TWO = "1\n00:00:01,000 --> 00:00:02,500\nHello <i>world</i>\n\n2\n00:00:03,000 --> 00:00:04,000\n{\\an8}Second\nline\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_srt(read, encoding, newline):
    got = read("a.srt", TWO.replace("\n", newline).encode(encoding))
    assert got == (seg("Hello world", 1000, 2500), seg("Second\nline", 3000, 4000))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("00:00:01,000 --> 00:00:02,000\nno index", [("no index", 1000, 2000)]),
        ("1\n00:00:01.000 --> 00:00:02.000\ndots", [("dots", 1000, 2000)]),
        ("1\n00:00:5,000 --> 00:0:6,000\nshort", [("short", 5000, 6000)]),
        ("1\n100:00:00,000 --> 100:00:01,000\nlong", [("long", 360_000_000, 360_001_000)]),
        (
            "1\n00:00:01,000 --> 00:00:02,000\nA\n2\n00:00:03,000 --> 00:00:04,000\nB",
            [("A", 1000, 2000), ("B", 3000, 4000)],
        ),
        (
            "1\n00:00:01,000 --> 00:00:05,000\nA\n\n2\n00:00:02,000 --> 00:00:03,000\nB",
            [("A", 1000, 5000), ("B", 2000, 3000)],
        ),
        (
            "2\n00:00:10,000 --> 00:00:11,000\nlate\n\n1\n00:00:01,000 --> 00:00:02,000\nearly",
            [("early", 1000, 2000), ("late", 10_000, 11_000)],
        ),
        ("1\n00:00:05,000 --> 00:00:05,000\nzero", [("zero", 5000, 5000)]),
        (
            "1\n00:00:01,000 --> 00:00:02,000 X1:0 X2:9\n1 < 2 and <font color='x'>a</font>",
            [("1 < 2 and a", 1000, 2000)],
        ),
        ("1\n00:00:01,000 --> 00:00:02,000\n\n", [("", 1000, 2000)]),
    ],
)
def test_srt_as_it_is_found(read, content, expected):
    assert read("a.srt", content) == tuple(seg(*row) for row in expected)


def test_srt_refusals(read):
    cue = "1\n00:00:05,000 --> 00:00:02,000\nx"
    refused(
        Reason.BAD_TIMESTAMPS, r"line 2, cue '00:00:05,000 .*': got an end 3 s before its start", read, "a.srt", cue
    )
    refused(Reason.BAD_TIMESTAMPS, "line 1: got 'a --> b', allowed: 00:00:01,000", read, "a.srt", "a --> b\nx")
    refused(Reason.BAD_TIMESTAMPS, "got 0 h 75 min", read, "a.srt", "00:75:00,000 --> 00:76:00,000\nx")
    refused(Reason.CORRUPT, "no cue", read, "a.srt", "just words")
    refused(Reason.CORRUPT, "line 1: got 'title' before the first cue", read, "a.srt", "title\n" + TWO)
    refused(
        Reason.BAD_ENCODING,
        "byte 33: got 0xe9, which is not UTF-8",
        read,
        "a.srt",
        b"1\n00:00:01,000 --> 00:00:02,000\nC\xe9 ",
    )
    refused(Reason.CORRUPT, "character 3: got NUL", read, "a.txt", b"abc\0def")
    refused(Reason.EMPTY, "nothing but white space", read, "a.srt", " \n\t\n")
    refused(Reason.EMPTY, "got 0 bytes", read, "a.srt", "")
    refused(Reason.TOO_LARGE, "allowed: 4", read, "a.txt", "12345", limits=Limits(max_text_bytes=4))
    refused(Reason.UNSUPPORTED_FORMAT, r"got extension '.docx', allowed: .srt, .vtt, .json, .txt", read, "a.docx", "x")


VTT = """WEBVTT - title
Kind: captions

NOTE a comment

STYLE
::cue{}

id1
00:01.000 --> 00:02.000 align:start position:0%
<v Bob>Hi<00:00:01.500><c> there</c>

01:00:00.000 --> 01:00:01.000
Fish &amp; <b>chips</b>
"""


def test_vtt(read):
    assert read("a.vtt", VTT) == (
        seg("Hi", 1000, 1500),
        seg("there", 1500, 2000),
        seg("Fish & chips", 3_600_000, 3_601_000),
    )


def test_vtt_refusals(read):
    refused(Reason.CORRUPT, "line 1: got '00:01.000.*', allowed: WEBVTT", read, "a.vtt", "00:01.000 --> 00:02.000\nHi")
    refused(Reason.CORRUPT, "line 3: got 'stray', allowed: a cue", read, "a.vtt", "WEBVTT\n\nstray\n")
    late = "WEBVTT\n\n00:01.000 --> 00:02.000\na<00:05.000>b\n"
    refused(Reason.BAD_TIMESTAMPS, "line 3: got word time stamps out of order or outside", read, "a.vtt", late)
    refused(Reason.EMPTY, "got no text", read, "a.vtt", "WEBVTT\n")


def test_json_word_timings(read):
    words = [{"word": " b ", "start": 0.3, "end": 0.7}, {"text": "a", "start": 0.1, "end": "0.3"}]
    expected = (seg("a", 100, 300), seg("b", 300, 700))
    assert read("a.json", json.dumps(words)) == expected
    assert read("a.json", json.dumps({"words": words})) == expected
    assert read("a.json", json.dumps({"segments": words})) == expected
    assert read("a.json", json.dumps({"segments": [{"text": "a b", "start": 0, "end": 1, "words": words}]})) == expected


def test_json_fragments_of_aeneas(read):
    found = {"fragments": [{"begin": "0.000", "end": "2.680", "id": "f1", "language": "en", "lines": ["one", "two"]}]}
    assert read("a.json", json.dumps(found)) == (seg("one two", 0, 2680),)


def test_json_refusals(read):
    refused(Reason.CORRUPT, "line 2, column 1: not JSON", read, "a.json", "[\n")
    refused(Reason.CORRUPT, "NaN is not a number", read, "a.json", '[{"word": "a", "start": NaN, "end": 1}]')
    refused(Reason.CORRUPT, "not JSON", read, "a.json", "[" * 100_000)
    refused(Reason.CORRUPT, r"\[0\]: got no text", read, "a.json", '[{"start": 0, "end": 1}]')
    refused(Reason.CORRUPT, r"\[0\]: got 'x', allowed: an object", read, "a.json", '["x"]')
    refused(Reason.UNSUPPORTED_FORMAT, "allowed: a list of", read, "a.json", '{"a": 1}')
    refused(Reason.EMPTY, "got no text", read, "a.json", "[]")
    for start in ("1e999999999", "true", '"soon"', "null", "1e-999999999"):
        item = f'[{{"word": "a", "start": {start}, "end": 1}}]'
        refused(Reason.BAD_TIMESTAMPS, r"\[0\].start: got .*, allowed: seconds", read, "a.json", item)
    refused(Reason.BAD_TIMESTAMPS, "0.5 s before", read, "a.json", '[{"word": "a", "start": 1, "end": 0.5}]')


def test_plain_text_holds_always_and_is_not_changed(read):
    content = "e\u0301 \u202eabc\u202c\r\nline\n"
    assert read("a.txt", content) == (TextSegment(content, ALWAYS),)
    assert read("a.txt", content, span=Span(5, 6)) == (TextSegment(content, ALWAYS),)


def test_span_keeps_whole_segments_that_overlap_it(read):
    content = "".join(f"00:00:0{i},000 --> 00:00:0{i},500\n{i}\n\n" for i in range(9)).replace("04,500", "04,000")
    texts = [s.text for s in read("a.srt", content, span=Span(1400 * MS, 5000 * MS))]
    assert texts == ["1", "2", "3", "4"]
    assert read("a.srt", content, span=Span(1500 * MS, 2000 * MS)) == ()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 10**8), st.integers(0, 10**6), st.text("abc é", min_size=1)), min_size=1))
def test_srt_round_trip(tmp_path_factory, cues):
    def clock(ms):
        return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02},{ms % 1000:03}"

    blocks = [f"{i}\n{clock(s)} --> {clock(s + d)}\n{text}\n\n" for i, (s, d, text) in enumerate(cues, 1)]
    path = tmp_path_factory.mktemp("srt") / "a.srt"
    path.write_text("".join(blocks), encoding="utf-8")
    expected = [seg(text.strip(), s, s + d) for s, d, text in cues]
    assert list(read_text(Source(str(path))).segments) == sorted(expected, key=lambda item: item.span)
