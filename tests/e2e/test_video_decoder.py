"""What decodes video decides no key and no row: a catalog that asks for the GPU's decoder computes nothing again."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import pytest
from sklearn.datasets import load_sample_image

from pipeline.catalog import load_catalog
from pipeline.execute import engine
from pipeline.media.hardware import missing
from pipeline.run import published, run_dataset

pytestmark = pytest.mark.e2e

CATALOG = """
version: 1
store: store
engine: {{kind: serial, device: cpu, video_decoder: {decoder}}}
datasets:
  films:
    root: clips
    source: {{kind: folder}}
    features:
      video.keyframes: {{}}
      video.flow: {{options: {{rate: 2.0}}}}
"""


def film(path: Path) -> None:
    """A photograph that is panned over for two seconds."""
    photograph = cv2.resize(load_sample_image("china.jpg"), (360, 240), interpolation=cv2.INTER_AREA)
    with av.open(str(path), "w") as made:
        stream = made.add_stream("libx264", rate=10, options={"crf": "18", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for k in range(20):
            frame = av.VideoFrame.from_ndarray(photograph[:, 2 * k : 2 * k + 320].copy(), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 10)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))


def test_the_decoder_decides_no_key_and_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "clips").mkdir()
    film(tmp_path / "clips/one.mp4")
    path = tmp_path / "data_catalog.yaml"
    path.write_text(CATALOG.format(decoder="software"))
    assert run_dataset(load_catalog(path), "films").computed == 2
    first = {file.feature: file.digest for file in published(load_catalog(path), "films").files}

    monkeypatch.setattr(engine, "missing", lambda: None)  # as on a machine with a GPU
    path.write_text(CATALOG.format(decoder="nvdec"))
    assert run_dataset(load_catalog(path), "films").computed == 0
    report = run_dataset(load_catalog(path), "films", from_nothing=True)
    assert report.computed == 2
    assert {file.feature: file.digest for file in published(load_catalog(path), "films").files} == first
    told = [notice for notice in report.notices if "decoded in software, not by the GPU" in notice]
    assert len(told) == (0 if missing() is None else 1), report.notices
