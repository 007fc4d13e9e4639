"""``gristmill pictures``: the frames that a feature chose, kept as JPEG in the store."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_sample_image
from typer.testing import CliRunner

from features.errors import StoreError
from pipeline.catalog import load_catalog
from pipeline.cli import app
from pipeline.keep import SCHEMA, keep_pictures
from pipeline.run import published, run_dataset
from pipeline.store import DatasetStore
from pipeline.store.gc import collect

pytestmark = pytest.mark.e2e

CATALOG = """
version: 1
store: store
datasets:
  films:
    root: clips
    source: {kind: folder}
    features:
      video.keyframes: {}
      video.flow: {options: {rate: 2.0}}
"""


def film(path: Path, names: list[str]) -> None:
    """A second of each photograph."""
    with av.open(str(path), "w") as made:
        stream = made.add_stream("libx264", rate=10, options={"crf": "18", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for k, name in enumerate(name for name in names for _ in range(10)):
            pixels = cv2.resize(load_sample_image(name), (320, 240), interpolation=cv2.INTER_AREA)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 10)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    (folder / "clips").mkdir()
    film(folder / "clips/one.mp4", ["china.jpg", "flower.jpg"])
    film(folder / "clips/two.mp4", ["flower.jpg"])
    path = folder / "data_catalog.yaml"
    path.write_text(CATALOG)
    run_dataset(load_catalog(path), "films", engine="serial")
    return path


def test_pictures_have_the_times_of_their_rows_and_look_like_their_shots(catalog: Path) -> None:
    done = CliRunner().invoke(
        app, ["pictures", "films", "video.keyframes", "--catalog", str(catalog), "--quality", "95"]
    )
    assert done.exit_code == 0, done.output
    assert "3 pictures of 2 samples" in done.output
    version = published(load_catalog(catalog), "films").version
    found = pq.read_table(catalog.parent / f"store/films/_pictures/video.keyframes/{version:06d}.parquet")
    assert found.schema.equals(SCHEMA)
    times = [(row["sample_id"], row["start_ns"], row["end_ns"]) for row in found.to_pylist()]
    assert times == [("one", 0, 10**9), ("one", 10**9, 2 * 10**9), ("two", 0, 10**9)]
    for row, name in zip(found.to_pylist(), ["china.jpg", "flower.jpg", "flower.jpg"], strict=True):
        shown = cv2.cvtColor(cv2.imdecode(np.frombuffer(row["jpeg"], np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
        assert shown.shape == (row["height"], row["width"], 3)
        truth = cv2.resize(load_sample_image(name), (row["width"], row["height"]), interpolation=cv2.INTER_AREA)
        assert np.abs(shown.astype(float) - truth).mean() < 6


def test_what_cannot_be_kept_is_refused(catalog: Path) -> None:
    loaded = load_catalog(catalog)
    with pytest.raises(StoreError, match=r"'video.flow' chooses no frames, allowed: video.keyframes"):
        keep_pictures(loaded, "films", "video.flow")
    film(catalog.parent / "clips/two.mp4", ["flower.jpg", "china.jpg"])
    kept = keep_pictures(loaded, "films", "video.keyframes")
    assert (kept.samples, kept.pictures) == (1, 2), "the other sample has its pictures"
    assert list(kept.missed) == ["two"]
    assert re.search(r"two.mp4: gives other frames .*: 2 and 1; .*; cure: gristmill run", kept.missed["two"])
    (catalog.parent / "clips/two.mp4").unlink()
    done = CliRunner().invoke(app, ["pictures", "films", "video.keyframes", "--catalog", str(catalog)])
    assert done.exit_code == 3
    assert "2 pictures of 1 samples" in done.output
    assert "no pictures of two: " in done.output
    (catalog.parent / "clips/one.mp4").write_bytes(b"no film")
    with pytest.raises(StoreError, match=r"films: no sample has pictures; the first: .*one\.mp4"):
        keep_pictures(loaded, "films", "video.keyframes")


def test_pictures_go_with_their_snapshot(catalog: Path) -> None:
    loaded = load_catalog(catalog)
    kept = []
    for names in (["china.jpg"], ["flower.jpg"]):
        for film_name in ("one", "two"):
            film(catalog.parent / f"clips/{film_name}.mp4", names)
        run_dataset(loaded, "films", engine="serial")
        kept.append(Path(keep_pictures(loaded, "films", "video.keyframes").path))
    assert all(path.exists() for path in kept)
    collected = collect(DatasetStore(loaded.store, "films"), keep=1)
    assert collected.freed["pictures kept of removed snapshots"].files >= 1
    assert [path.exists() for path in kept] == [False, True]
