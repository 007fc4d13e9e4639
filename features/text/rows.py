"""Which rows an extractor of text makes: one a segment, or one a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from features.errors import Reason, SampleError
from features.time import Span
from features.types import FeatureSequence, Text

Rows: TypeAlias = Literal["segment", "text"]
ROWS: tuple[Rows, ...] = ("segment", "text")


@dataclass(frozen=True)
class Documents:
    """The documents of a batch, one a row. ``counts``: how many of them each text has, in order."""

    texts: tuple[str, ...]
    spans: tuple[Span, ...]
    counts: tuple[int, ...]

    def sequences(
        self, values: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_] | None = None
    ) -> list[FeatureSequence]:
        """One sequence a text from ``values`` float32 ``[documents, D]``; rows that are not valid become zeros."""
        starts = np.array([span.start_ns for span in self.spans], dtype=np.int64)
        ends = np.array([span.end_ns for span in self.spans], dtype=np.int64)
        if valid is None:
            valid = np.ones(len(values), dtype=np.bool_)
        values = np.where(valid[:, None], values, np.float32(0))
        found, first = [], 0
        for count in self.counts:
            rows = slice(first, first + count)
            found.append(
                FeatureSequence(
                    values=values[rows].copy(), start_ns=starts[rows], end_ns=ends[rows], valid=valid[rows].copy()
                )
            )
            first = rows.stop
        return found


def documents(batch: Sequence[Text], rows: Rows) -> Documents:
    """Return the documents of ``batch``: its segments with their spans, or whole texts from first start to last end.

    A text without segments has no document. Raises ``SampleError`` where segments go back in time.
    """
    texts: list[str] = []
    spans: list[Span] = []
    counts: list[int] = []
    for text in batch:
        _require_order(text)
        if rows == "segment":
            texts += [segment.text for segment in text.segments]
            spans += [segment.span for segment in text.segments]
            counts.append(len(text.segments))
        elif text.segments:
            texts.append(text.plain)
            ends = max(segment.span.end_ns for segment in text.segments)
            spans.append(Span(text.segments[0].span.start_ns, ends))
            counts.append(1)
        else:
            counts.append(0)
    return Documents(tuple(texts), tuple(spans), tuple(counts))


def _require_order(text: Text) -> None:
    for number in range(1, len(text.segments)):
        if text.segments[number].span.start_ns < text.segments[number - 1].span.start_ns:
            raise SampleError(
                Reason.BAD_TIMESTAMPS,
                f"text: segment {number + 1} of {len(text.segments)} starts before the one ahead of it, "
                f"allowed: segments in order of time",
            )
