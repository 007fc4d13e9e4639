"""What a run tells of words that its features do not know, and of media that its steps let pass but flag."""

from __future__ import annotations

from features.base import WordCounts
from pipeline.execute.work import ShardReport

_SHOWN = 5


def remarks(report: ShardReport) -> list[str]:
    """One sentence for each feature with a vocabulary, and one for each that flagged samples."""
    found = [
        _of_words(feature, words, report.masked.get(feature, 0), report.rows.get(feature, 0))
        for feature, words in sorted(report.words.items())
    ]
    return found + [_of_flags(feature, flags) for feature, flags in sorted(report.flags.items())]


def _of_words(feature: str, words: WordCounts, masked: int, rows: int) -> str:
    if words.words and not words.unknown and not masked:
        return f"{feature}: its vocabulary has all {words.words:,} words"
    share = f" ({100 * words.unknown / words.words:.1f} %)" if words.words else ""
    such = f", such as {', '.join(map(repr, list(words.examples)[:_SHOWN]))}" if words.examples else ""
    lost = f"; {masked:,} of {rows:,} rows have no other and are masked" if masked else ""
    return f"{feature}: {words.unknown:,} of {words.words:,} words{share} are not in its vocabulary{such}{lost}"


def _of_flags(feature: str, flags: dict[str, str]) -> str:
    first = [f"{sample_id} ({what})" for sample_id, what in sorted(flags.items())[:_SHOWN]]
    more = f" and {len(flags) - _SHOWN:,} more (report.json names them)" if len(flags) > _SHOWN else ""
    samples = "1 sample is" if len(flags) == 1 else f"{len(flags):,} samples are"
    return f"{feature}: {samples} flagged: {', '.join(first)}{more}"
