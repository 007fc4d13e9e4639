"""Keeping the pictures that a feature chose of its videos: JPEG, beside the rows that were made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.base import FrameSelector
from features.errors import StoreError
from features.types import Image
from pipeline.catalog import Catalog
from pipeline.media.source import Source
from pipeline.media.video import Failure, FrameChunk, decode
from pipeline.report.moving import selector_of
from pipeline.run import published
from pipeline.store import DatasetStore
from pipeline.work import span_of

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("start_ns", pa.int64(), nullable=False),
        pa.field("end_ns", pa.int64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("jpeg", pa.binary(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Kept:
    """Where the pictures lie, and how many there are. ``size`` in bytes."""

    path: str
    samples: int
    pictures: int
    size: int


def keep_pictures(
    catalog: Catalog, dataset: str, feature: str, *, which: str | int | None = None, quality: int = 90
) -> Kept:
    """Write the frames that ``feature`` chose of each sample to ``_pictures/<feature>/<version>.parquet``.

    The frames are chosen again from the media, one sample after the other; a picture has the times of the stored row
    that was made of it. The file appears whole or not at all, and replaces an earlier one of the same snapshot. ``gc``
    leaves it alone. Memory: the pictures of the snapshot, as JPEG.

    Raises ``StoreError`` when the feature chooses no frames, is not in the snapshot, or a file no longer gives the
    frames whose rows are stored.
    """
    chosen = catalog.dataset(dataset)
    chain = chosen.features.get(feature)
    selector = None if chain is None else selector_of(chain)
    if selector is None:
        known = [name for name, other in chosen.features.items() if selector_of(other) is not None]
        raise StoreError(f"{dataset}: {feature!r} chooses no frames, allowed: {', '.join(known) or 'no feature here'}")
    store = DatasetStore(catalog.store, chosen.name)
    snapshot = published(catalog, dataset, which)
    if feature not in snapshot.features:
        raise StoreError(
            f"{store.url}: {feature!r} is not in snapshot {snapshot.version}; cure: gristmill run {dataset}"
        )
    stored = snapshot.read(feature, ["sample_id", "view", "start_ns"]).to_pylist()
    first = min((row["view"] for row in stored), default=0)
    rows = {row["sample_id"]: row["start_ns"] for row in stored if row["view"] == first}
    pictures, sink = 0, pa.BufferOutputStream()
    with pq.ParquetWriter(sink, SCHEMA, compression="none") as writer:
        for sample in snapshot.samples.to_pylist():
            if sample["sample_id"] not in rows:
                continue
            images = _selected(selector, sample)
            times = [image.span.start_ns for image in images]
            if times != rows[sample["sample_id"]]:
                raise StoreError(
                    f"{sample['video_uri']}: gives other frames than those whose rows are in snapshot "
                    f"{snapshot.version}: {len(times)} and {len(rows[sample['sample_id']])}; the file or the options "
                    f"have changed; cure: gristmill run {dataset}"
                )
            pictures += len(images)
            writer.write_table(pa.Table.from_pylist(list(_jpegs(sample["sample_id"], images, quality)), SCHEMA))
    content = sink.getvalue()
    path = f"_pictures/{feature}/{snapshot.version:06d}.parquet"
    store.write_bytes(path, content)
    return Kept(store.path(path), len(rows), pictures, content.size)


def _selected(selector: FrameSelector, sample: dict[str, Any]) -> list[Image]:
    sink = selector.select()
    for event in decode(Source(sample["video_uri"]), frames={"": selector.request}, span=span_of(sample)):
        if isinstance(event, FrameChunk):
            sink.push(event.clip)
        elif isinstance(event, Failure):
            raise event.error
    return sink.finish()


def _jpegs(sample_id: str, images: list[Image], quality: int) -> Iterator[dict[str, Any]]:
    import cv2

    for image in images:
        height, width = image.pixels.shape[:2]
        bgr = np.asarray(cv2.cvtColor(image.pixels, cv2.COLOR_RGB2BGR))
        found, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not found:
            raise StoreError(f"{sample_id}: a frame of {width}x{height} cannot be written as JPEG")
        yield {
            "sample_id": sample_id,
            "start_ns": image.span.start_ns,
            "end_ns": image.span.end_ns,
            "width": width,
            "height": height,
            "jpeg": data.tobytes(),
        }
