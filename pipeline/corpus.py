"""What an extractor is fitted on: the prepared media of the training split, with their labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.base import Example, FrameSelector
from features.errors import SampleError, StateError
from features.time import Span
from features.types import Stream
from pipeline.chain import Chain
from pipeline.media.audio import read_audio
from pipeline.media.image import read_image
from pipeline.media.source import Source
from pipeline.media.text import read_text
from pipeline.media.video import Failure as StreamFailure
from pipeline.media.video import FrameChunk, decode
from pipeline.plan import sample_rows
from pipeline.work import span_of

TRAINING_SPLIT = "train"


def training_rows(samples: pa.Table, dataset: str, chain: Chain) -> npt.NDArray[np.int64]:
    """Positions of the samples that the chain's extractor is fitted on, in order of sample id.

    Raises ``StateError`` where there are none.
    """
    training = pc.and_(pc.equal(samples["split"], TRAINING_SPLIT), pc.is_valid(samples[f"{chain.stream}_uri"]))
    rows = np.flatnonzero(training.to_numpy(zero_copy_only=False))
    if not len(rows):
        raise StateError(
            f"datasets.{dataset}.features.{chain.name}: {chain.extractor.name} is fitted on the training split, but no "
            f"sample of split {TRAINING_SPLIT!r} has {chain.stream}; cure: name the split in the source, or give "
            "`splits` a train share"
        )
    return rows


def examples(
    samples: pa.Table, rows: npt.NDArray[np.int64], chain: Chain, prepare: tuple[Any, ...]
) -> Iterator[list[Example]]:
    """For each of ``rows`` its prepared media, those of one sample at a time, with its label.

    Empty for a sample that cannot be read: extraction puts it into quarantine. ``prepare``: the chain's prepare steps,
    with their weights.
    """
    for row in sample_rows(samples, rows):
        try:
            media = _prepared(chain, prepare, Source(row["uris"][chain.stream]), span_of(row))
        except SampleError:
            media = []
        yield [Example(medium, row["label"]) for medium in media]


def _prepared(chain: Chain, prepare: tuple[Any, ...], source: Source, span: Span | None) -> list[Any]:
    media = _read(chain, source, span)
    for step in prepare:
        if not isinstance(step, FrameSelector):
            media = step.prepare(media, "cpu")
    return media


def _read(chain: Chain, source: Source, span: Span | None) -> list[Any]:
    stream: Stream = chain.stream
    if stream == "text":
        return [read_text(source, span=span)]
    if stream == "image":
        return [read_image(source)]
    if stream == "audio":
        return [read_audio(source, span=span)]
    return _frames(chain, source, span)


def _frames(chain: Chain, source: Source, span: Span | None) -> list[Any]:
    """The frames that the chain's selector takes from a video. ``Chain`` has checked that there is one."""
    selector = chain.prepare[0]
    assert isinstance(selector, FrameSelector)  # noqa: S101  # narrowed for mypy
    sink = selector.select()
    for piece in decode(source, span=span, frames={chain.name: selector.request}, audio=False):
        match piece:
            case FrameChunk():
                sink.push(piece.clip)
            case StreamFailure():
                raise piece.error
    return list(sink.finish())
