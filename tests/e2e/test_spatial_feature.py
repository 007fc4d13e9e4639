"""``align.spatial`` in a run: a feature that reads the video and the picture of a sample."""

from __future__ import annotations

import csv
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from pipeline.catalog import load_catalog
from pipeline.record import RunReport
from pipeline.run import published, run_dataset

pytestmark = pytest.mark.e2e

CATALOG = """
version: 1
store: store
datasets:
  films:
    root: clips
    source: {kind: folder}
    max_failed: 0.9
    features:
      align.spatial: {options: {rate: 2.0}}
      video.flow: {options: {rate: 2.0}}
"""
BOX = (120, 60, 300, 200)  # left, top, width and height of the picture in the photograph


def film(path: Path) -> None:
    """A camera that pans over a photograph for two seconds."""
    whole = cv2.resize(load_sample_image("china.jpg"), (560, 380), interpolation=cv2.INTER_AREA)
    with av.open(str(path), "w") as made:
        stream = made.add_stream("libx264", rate=10, options={"crf": "18", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 480, 360, "yuv420p"
        for k in range(20):
            pixels = np.ascontiguousarray(whole[k : k + 360, 3 * k : 3 * k + 480])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 10)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("films")
    clips = base / "clips"
    clips.mkdir()
    left, top, width, height = BOX
    whole = cv2.resize(load_sample_image("china.jpg"), (560, 380), interpolation=cv2.INTER_AREA)
    pictures = {"here": whole[top : top + height, left : left + width], "other": load_sample_image("flower.jpg")}
    for name, pixels in pictures.items():
        film(clips / f"{name}.mp4")
        cv2.imwrite(str(clips / f"{name}.jpg"), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    film(clips / "alone.mp4")
    (base / "data_catalog.yaml").write_text(CATALOG)
    return base


def run(folder: Path) -> RunReport:
    return run_dataset(load_catalog(folder / "data_catalog.yaml"), "films", engine="serial")


def test_a_picture_is_found_and_what_is_not_there_is_refused_with_a_reason(folder: Path) -> None:
    report = run(folder)
    counts = report.features["align.spatial"]
    assert (counts.done, counts.quarantined) == (1, 1), "a sample without a picture has no such feature"
    assert report.features["video.flow"].done == 3
    assert report.quarantine_by_reason == {"no_overlap": 1}
    snapshot = published(load_catalog(folder / "data_catalog.yaml"), "films")
    (row,) = snapshot.read("align.spatial").to_pylist()
    assert (row["sample_id"], row["length"], row["valid"]) == ("here", 4, [True] * 4)
    assert row["start_ns"] == [0, 500_000_000, 1_000_000_000, 1_500_000_000]
    left, top, width, height = BOX
    for k, values in zip((0, 5, 10, 15), np.reshape(row["values"], (4, -1)), strict=True):
        x, y = left - 3 * k, top - k
        truth = [(x, y), (x + width - 1, y), (x + width - 1, y + height - 1), (x, y + height - 1)]
        np.testing.assert_allclose(values[:8].reshape(4, 2) * 480, truth, atol=1)


def test_a_touched_picture_is_computed_again_and_nothing_else_is(folder: Path) -> None:
    run(folder)
    picture = cv2.imread(str(folder / "clips/here.jpg"))
    cv2.imwrite(str(folder / "clips/here.jpg"), picture[:180])
    report = run(folder)
    assert report.features["align.spatial"].done == 1
    assert (report.features["video.flow"].done, report.features["video.flow"].unchanged) == (0, 3)


def test_a_manifest_without_pictures_is_told(folder: Path) -> None:
    with (folder / "films.csv").open("w") as file:
        csv.writer(file).writerows([("video",), ("here.mp4",)])
    path = folder / "manifest.yaml"
    path.write_text(CATALOG.replace("{kind: folder}", "{kind: csv, path: films.csv, columns: {video: video}}"))
    with pytest.raises(Exception, match=r"align.spatial reads image, but the source has columns for video only; cure"):
        load_catalog(path)
