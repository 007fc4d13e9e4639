"""Keeping the pictures that a feature chose of its videos: JPEG, beside the rows that were made of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.base import FrameSelector
from features.errors import SampleError, StoreError
from features.types import Image
from pipeline.catalog import Catalog
from pipeline.events import SILENT, Events
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
    """Where the pictures lie, and how many there are. ``size`` in bytes; ``missed``: sample id -> why it has none."""

    path: str
    samples: int
    pictures: int
    size: int
    missed: dict[str, str]


def keep_pictures(
    catalog: Catalog,
    dataset: str,
    feature: str,
    *,
    which: str | int | None = None,
    quality: int = 90,
    events: Events = SILENT,
) -> Kept:
    """Write the frames that ``feature`` chose of each sample to ``_pictures/<feature>/<version>.parquet``.

    The frames are chosen again from the media, one sample after the other; a picture has the times of the stored row
    that was made of it. A sample whose file is gone, or no longer gives the frames whose rows are stored, has no
    pictures and is told. The file appears whole or not at all, replaces an earlier one of the same snapshot, and goes
    with it in ``gc``. Memory: the pictures of one sample; the file is made in the folder for temporary files.

    Raises ``StoreError`` when the feature chooses no frames, is not in the snapshot, or no sample has any picture.
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
    samples = [sample for sample in snapshot.samples.to_pylist() if sample["sample_id"] in rows]
    path = f"_pictures/{feature}/{snapshot.version:06d}.parquet"
    pictures, missed = 0, dict[str, str]()
    events.started("pictures", len(samples), "samples")
    with tempfile.TemporaryDirectory(prefix="gristmill-pictures-") as folder:
        made = Path(folder) / "pictures.parquet"
        with pq.ParquetWriter(made, SCHEMA, compression="none") as writer:
            for sample in samples:
                sample_id = sample["sample_id"]
                try:
                    images = _chosen(selector, sample, rows[sample_id])
                    kept = list(_jpegs(sample_id, images, quality))
                except (SampleError, StoreError) as error:
                    missed[sample_id] = str(error)
                else:
                    pictures += len(kept)
                    writer.write_table(pa.Table.from_pylist(kept, SCHEMA))
                events.advanced("pictures")
        events.finished("pictures", f"{pictures} of {len(samples) - len(missed)} samples")
        if samples and len(missed) == len(samples):
            raise StoreError(f"{dataset}: no sample has pictures; the first: {next(iter(missed.values()))}")
        with pa.memory_map(str(made)) as content:
            store.write_bytes(path, content.read_buffer())
        size = made.stat().st_size
    return Kept(store.path(path), len(rows) - len(missed), pictures, size, missed)


def _chosen(selector: FrameSelector, sample: dict[str, Any], starts: list[int]) -> list[Image]:
    """The frames of a sample. Raises ``StoreError`` where they are not those whose rows are stored."""
    images = _selected(selector, sample)
    if [image.span.start_ns for image in images] != starts:
        raise StoreError(
            f"{sample['video_uri']}: gives other frames than those whose rows are stored: {len(images)} and "
            f"{len(starts)}; the file or the options have changed; cure: gristmill run"
        )
    return images


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
