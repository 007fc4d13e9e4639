"""Text and its times: SubRip, WebVTT, word timings in JSON, plain text."""

from __future__ import annotations

import codecs
import html
import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

from features.errors import Reason
from features.time import ALWAYS, Span, seconds_to_ns
from features.types import Text, TextSegment
from pipeline.media.source import DEFAULT_LIMITS, Limits, Source

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NEWLINE = re.compile(r"\r\n|\r|\n")
_CLOCK = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})(?:[.,](\d{3,9}))?"
_TIMING = re.compile(rf"\s*{_CLOCK}\s*-->\s*{_CLOCK}(?:\s.*)?$")
_STAMP = re.compile(rf"<{_CLOCK}>")
_TAG = re.compile(r"</?(?:b|i|u|s|c|v|font|lang|ruby|rt)(?:[\s.=][^<>]*)?/?>", re.IGNORECASE)
_OVERRIDE = re.compile(r"\{\\[^{}]*\}|\{/?[biu]\}", re.IGNORECASE)
_MAX_EXPONENT = 9  # of seconds: beyond thirty years nothing is meant


def read_text(source: Source, *, span: Span | None = None, limits: Limits = DEFAULT_LIMITS) -> Text:
    r"""Read text by its extension: ``.srt``, ``.vtt``, ``.json`` or ``.txt``.

    - ``.srt`` (SubRip): one segment a cue. Indices, blank lines between cues, hours and zero padding may be missing, a
      dot may stand for the comma. ``<i>``, ``<font>`` and ``{\an8}`` markup is taken off.
    - ``.vtt`` (W3C WebVTT, header required): one segment a cue, or one for each piece between word time stamps
      (``<00:00:01.000>``) where a cue has them. Notes, styles, regions, settings and markup are taken off.
    - ``.json``: a list of ``{"word" or "text", "start", "end"}`` in seconds, or an object that holds such a list as
      ``words``, ``segments`` (whose own ``words`` are taken where there are any) or ``fragments`` (aeneas: ``begin``,
      ``end``, ``lines``).
    - ``.txt``: one segment that holds always.

    UTF-8, or UTF-16 or UTF-32 with a byte order mark. Segments come in order of (start, end); overlapping ones and
    ones of no length are kept. With ``span`` only the segments that overlap it are returned, whole, perhaps none.

    Raises ``SampleError``: what ``Source`` raises, ``empty`` (nothing but white space, or no cue), ``bad_encoding``,
    ``bad_timestamps`` (no or impossible times, an end before its start), ``corrupt`` or ``unsupported_format``.
    """
    parsers: dict[str, Callable[[Source, str], Iterator[TextSegment]]] = {
        ".srt": _parse_srt,
        ".vtt": _parse_vtt,
        ".json": _parse_json,
        ".txt": _parse_plain,
    }
    if source.suffix not in parsers:
        raise source.error(
            Reason.UNSUPPORTED_FORMAT,
            f"got extension {source.suffix!r}, allowed: {', '.join(parsers)}; cure: convert or rename the file",
        )
    content = _decode(source, source.read_bytes(limits.max_text_bytes))
    if not content.strip():
        raise source.error(Reason.EMPTY, "got nothing but white space; cure: remove it from the catalog")
    segments = sorted(parsers[source.suffix](source, content), key=lambda segment: segment.span)
    if not segments:
        raise source.error(Reason.EMPTY, "got no text; cure: remove it from the catalog")
    if span is not None:
        segments = [segment for segment in segments if _overlaps(segment.span, span)]
    return Text(tuple(segments))


def _overlaps(held: Span, window: Span) -> bool:
    if held.duration_ns == 0:
        return window.start_ns <= held.start_ns < window.end_ns
    return held.overlap_ns(window) > 0


def _decode(source: Source, data: bytes) -> str:
    bom, encoding = next(((bom, name) for bom, name in _BOMS if data.startswith(bom)), (b"", "utf-8"))
    try:
        content = data[len(bom) :].decode(encoding)
    except UnicodeDecodeError as error:
        raise source.error(
            Reason.BAD_ENCODING,
            f"byte {len(bom) + error.start}: got {data[len(bom) + error.start]:#04x}, which is not {encoding.upper()}; "
            "cure: save it as UTF-8 (iconv -f <its encoding> -t UTF-8)",
        ) from error
    if "\0" in content:
        raise source.error(
            Reason.CORRUPT,
            f"character {content.index(chr(0))}: got NUL, allowed: text; cure: save it as UTF-8 "
            "(UTF-16 needs a byte order mark)",
        )
    return content


def _parse_plain(source: Source, content: str) -> Iterator[TextSegment]:
    del source
    yield TextSegment(content, ALWAYS)


def _clock_ns(source: Source, where: str, groups: tuple[str | None, ...]) -> int:
    hours, minutes, seconds = int(groups[0] or 0), int(groups[1] or 0), int(groups[2] or 0)
    if minutes > 59 or seconds > 59 or hours > 99_999:
        raise source.error(
            Reason.BAD_TIMESTAMPS,
            f"{where}: got {hours} h {minutes} min {seconds} s, allowed: minutes and seconds below 60",
        )
    fraction = groups[3] or "0"
    return seconds_to_ns(3600 * hours + 60 * minutes + seconds + Fraction(int(fraction), 10 ** len(fraction)))


def _cue_span(source: Source, number: int, line: str) -> Span:
    where = f"line {number}"
    match = _TIMING.match(line)
    if match is None:
        raise source.error(
            Reason.BAD_TIMESTAMPS, f"{where}: got {line.strip()[:80]!r}, allowed: 00:00:01,000 --> 00:00:02,000"
        )
    groups = match.groups()
    return _span(
        source, f"{where}, cue {line.strip()[:80]!r}", *(_clock_ns(source, where, g) for g in (groups[:4], groups[4:]))
    )


def _span(source: Source, where: str, start_ns: int, end_ns: int) -> Span:
    if end_ns < start_ns:
        raise source.error(
            Reason.BAD_TIMESTAMPS,
            f"{where}: got an end {(start_ns - end_ns) / 1e9:g} s before its start, allowed: end >= start; "
            "cure: correct the cue",
        )
    return Span(start_ns, end_ns)


def _parse_srt(source: Source, content: str) -> Iterator[TextSegment]:
    lines = _NEWLINE.split(content)
    timings = [i for i, line in enumerate(lines) if "-->" in line]
    if not timings:
        raise source.error(Reason.CORRUPT, "got no cue (no line with -->), allowed: SubRip captions")
    begins = [i - 1 if i and lines[i - 1].strip().isdecimal() else i for i in timings]
    for i, line in enumerate(lines[: begins[0]]):
        if line.strip():
            raise source.error(
                Reason.CORRUPT, f"line {i + 1}: got {line.strip()[:80]!r} before the first cue, allowed: an index"
            )
    for timing, end in zip(timings, [*begins[1:], len(lines)], strict=True):
        body = "\n".join(line.strip() for line in lines[timing + 1 : end]).strip()
        yield TextSegment(_plain(body), _cue_span(source, timing + 1, lines[timing]))


def _plain(body: str) -> str:
    return _TAG.sub("", _OVERRIDE.sub("", body)).strip()


def _parse_vtt(source: Source, content: str) -> Iterator[TextSegment]:
    lines = _NEWLINE.split(content)
    if not re.match(r"WEBVTT(?:[ \t]|$)", lines[0]):
        raise source.error(
            Reason.CORRUPT,
            f"line 1: got {lines[0][:80]!r}, allowed: WEBVTT; cure: add the header, or name a SubRip file .srt",
        )
    for first, block in _blocks(lines):
        if first == 0 or re.match(r"(?:NOTE|STYLE|REGION)(?:[ \t]|$)", block[0]):
            continue
        timing = next((i for i, line in enumerate(block[:2]) if "-->" in line), None)
        if timing is None:
            raise source.error(
                Reason.CORRUPT,
                f"line {first + 1}: got {block[0][:80]!r}, allowed: a cue (times within its first two lines)",
            )
        span = _cue_span(source, first + timing + 1, block[timing])
        yield from _vtt_pieces(source, f"line {first + timing + 1}", "\n".join(block[timing + 1 :]), span)


def _blocks(lines: list[str]) -> Iterator[tuple[int, list[str]]]:
    block: list[str] = []
    for i, line in enumerate([*lines, ""]):
        if line.strip():
            block.append(line)
        elif block:
            yield i - len(block), block
            block = []


def _vtt_pieces(source: Source, where: str, payload: str, span: Span) -> Iterator[TextSegment]:
    stamps = [_clock_ns(source, where, match.groups()) for match in _STAMP.finditer(payload)]
    pieces = re.split(r"<(?:\d+:)?\d{1,2}:\d{1,2}(?:[.,]\d{3,9})?>", payload)
    edges = [span.start_ns, *stamps, span.end_ns]
    if edges != sorted(edges):
        raise source.error(
            Reason.BAD_TIMESTAMPS,
            f"{where}: got word time stamps out of order or outside the cue, allowed: ascending, inside it",
        )
    for piece, start_ns, end_ns in zip(pieces, edges[:-1], edges[1:], strict=True):
        text = html.unescape(_TAG.sub("", piece)).strip()
        if text or not stamps:
            yield TextSegment(text, Span(start_ns, end_ns))


def _parse_json(source: Source, content: str) -> Iterator[TextSegment]:
    try:
        found = json.loads(content, parse_float=Decimal, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise source.error(
            Reason.CORRUPT, f"line {error.lineno}, column {error.colno}: not JSON ({error.msg})"
        ) from error
    except (ValueError, RecursionError, InvalidOperation) as error:
        raise source.error(Reason.CORRUPT, f"not JSON ({error})") from error
    if isinstance(found, dict):
        key = next((key for key in ("words", "segments", "fragments") if key in found), None)
        yield from _timed_list(source, key or "", found.get(key))
    else:
        yield from _timed_list(source, "", found)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _timed_list(source: Source, where: str, found: Any) -> Iterator[TextSegment]:
    if not isinstance(found, list):
        raise source.error(
            Reason.UNSUPPORTED_FORMAT,
            f"got {where or 'a document'} of another form, allowed: a list of {{word, start, end}}, or an object with "
            "such a list as words, segments or fragments",
        )
    for i, item in enumerate(found):
        if isinstance(item, dict) and item.get("words"):
            yield from _timed_list(source, f"{where}[{i}].words", item["words"])
        else:
            yield _timed_item(source, f"{where}[{i}]", item)


def _timed_item(source: Source, where: str, item: Any) -> TextSegment:
    if not isinstance(item, dict):
        raise source.error(
            Reason.CORRUPT, f"{where}: got {str(item)[:40]!r}, allowed: an object with word, start and end"
        )
    text = next((item[key] for key in ("word", "text", "lines") if key in item), None)
    if isinstance(text, list) and all(isinstance(line, str) for line in text):
        text = " ".join(text)
    if not isinstance(text, str):
        raise source.error(
            Reason.CORRUPT, f"{where}: got no text, allowed: a string as word or text, or strings as lines"
        )
    start_ns = _json_ns(source, f"{where}.start", item["start"] if "start" in item else item.get("begin"))
    return TextSegment(text.strip(), _span(source, where, start_ns, _json_ns(source, f"{where}.end", item.get("end"))))


def _json_ns(source: Source, where: str, found: Any) -> int:
    problem = source.error(Reason.BAD_TIMESTAMPS, f"{where}: got {str(found)[:40]!r}, allowed: seconds")
    if isinstance(found, bool) or not isinstance(found, (int, str, Decimal)):
        raise problem
    try:
        seconds = Decimal(found)
    except InvalidOperation as error:
        raise problem from error
    if seconds == 0:
        return 0
    if not seconds.is_finite() or not -30 <= seconds.adjusted() <= _MAX_EXPONENT:
        raise problem
    return seconds_to_ns(Fraction(seconds))
