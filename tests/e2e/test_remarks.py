"""What a run tells of words that a feature does not know and of pictures that a check flags; hostile pictures."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_image

from pipeline.catalog import load_catalog
from pipeline.run import published, run_dataset

CATALOG = """\
version: 1
store: ./store
engine: {{kind: serial, device: cpu}}
datasets:
  shots:
    root: ./media
    source: {{kind: folder, label_from: none, split_from: none}}
    splits: {{train: 0.5, test: 0.5, seed: 3}}
    features:
{features}
    max_failed: 0.5
"""


def world(folder: Path, *features: str) -> Path:
    path = folder / "data_catalog.yaml"
    path.write_text(CATALOG.format(features="\n".join(f"      {feature}" for feature in features)))
    (folder / "media").mkdir(exist_ok=True)
    return path


def photos(folder: Path) -> None:
    china = load_sample_image("china.jpg")[:240, :320, ::-1]
    for number in range(4):
        cv2.imwrite(str(folder / "media" / f"sharp{number}.jpg"), np.roll(china, 40 * number, axis=1))
    cv2.imwrite(str(folder / "media" / "soft.jpg"), cv2.GaussianBlur(china, (0, 0), 4))


@pytest.mark.parametrize("action", ["flag", "quarantine"])
def test_a_blurred_picture_is_flagged_or_quarantined(tmp_path: Path, action: str) -> None:
    catalog = load_catalog(
        world(
            tmp_path,
            f"image.histogram: {{prepare: [{{image.check: {{min_sharpness: 100, action: {action}}}}}]}}",
            "image.quality: {}",
        )
    )
    photos(tmp_path)
    report = run_dataset(catalog, "shots")
    snapshot = published(catalog, "shots")
    sharpness = {row["sample_id"]: row["values"][0] for row in snapshot.read("image.quality").to_pylist()}
    assert sharpness["soft"] < 100 < min(value for name, value in sharpness.items() if name != "soft")
    quarantined = {row["sample_id"]: row["reason"] for row in snapshot.quarantine.to_pylist()}
    if action == "quarantine":
        assert quarantined == {"soft": "low_quality"}
        assert not report.flags
    else:
        assert not quarantined
        assert report.flags["image.histogram"].keys() == {"soft"}
        (notice,) = report.notices
        assert notice.startswith("image.histogram: 1 sample is flagged: soft (image.check: sharpness: got ")
        record = next((tmp_path / "store" / "shots" / "_runs").glob("*/report.json"))
        assert json.loads(record.read_text())["flags"] == report.flags


def test_words_outside_the_vocabulary_are_told_and_their_rows_masked(tmp_path: Path) -> None:
    path = world(
        tmp_path,
        "words: {extractor: text.pretrained_vectors, options: {path: v.vec, vector_size: 2}}",
        "text.bow: {options: {size: 3}}",
    )
    (tmp_path / "v.vec").write_text("mill 1 0\nwheat 0 1\n")
    for number, text in enumerate(["mill wheat wheat", "mill Unheard-of", "zug zug zug", "今天天气很好"]):
        (tmp_path / "media" / f"t{number}.txt").write_text(text)
    catalog = load_catalog(path)
    report = run_dataset(catalog, "shots")
    assert (report.words["words"].words, report.words["words"].unknown) == (9, 5)
    (_, notice) = report.notices
    assert notice == (
        "words: 5 of 9 words (55.6 %) are not in its vocabulary, such as 'zug', 'Unheard-of', '今天天气很好'; "
        "2 of 4 rows have no other and are masked"
    )
    rows = published(catalog, "shots").read("words").to_pylist()
    assert [row["valid"] for row in rows] == [[True], [True], [False], [False]]
    assert report.notices[0].startswith("text.bow: ")
    again = run_dataset(catalog, "shots")
    assert (again.computed, again.words, again.notices) == (0, {}, [])


def test_hostile_pictures_go_through_every_extractor_or_into_quarantine(tmp_path: Path) -> None:
    resize = "prepare: [{image.resize: {long_side: 64}}, {image.denoise: {method: nlmeans}}, image.pad]"
    augment = "views: {count: 1, splits: [train, test], steps: [{image.augment: {rotate: 20, crop: [0.5, 1.0]}}]}"
    path = world(
        tmp_path,
        "image.cnn: {}",
        "image.hog: {}",
        f"image.histogram: {{{resize}, {augment}}}",
        "image.quality: {}",
        "image.pixels: {}",
        "image.standardized_pixels: {}",
    )
    media = tmp_path / "media"
    cv2.imwrite(str(media / "pixel.png"), np.full((1, 1, 3), 9, np.uint8))
    cv2.imwrite(str(media / "long.png"), np.random.default_rng(0).integers(0, 256, (1, 20_000, 3), dtype=np.uint8))
    cv2.imwrite(str(media / "tall.png"), np.random.default_rng(0).integers(0, 256, (20_000, 1, 3), dtype=np.uint8))
    cv2.imwrite(str(media / "glass.png"), np.zeros((30, 40, 4), np.uint8))  # nothing but transparency
    (media / "text.jpg").write_bytes(b"no picture")
    catalog = load_catalog(path)
    run_dataset(catalog, "shots")
    snapshot = published(catalog, "shots")
    assert {row["sample_id"]: row["reason"] for row in snapshot.quarantine.to_pylist()} == {
        "text": "unsupported_format"
    }
    for name in ("image.cnn", "image.hog", "image.histogram", "image.quality", "image.standardized_pixels"):
        rows = snapshot.read(name).to_pylist()
        assert [row["sample_id"] for row in rows] == ["glass", "long", "pixel", "tall"], name
        assert all(row["valid"] == [True] and np.isfinite(row["values"]).all() for row in rows)
    assert len(snapshot.read("views.image.histogram")) == 4
    (glass,) = [row for row in snapshot.read("image.pixels").to_pylist() if row["sample_id"] == "glass"]
    assert set(glass["values"]) == {1.0}, "transparent over white"


def test_statistics_of_a_data_set_are_fitted_on_its_training_split_once_and_kept(tmp_path: Path) -> None:
    path = world(tmp_path, "image.standardized_pixels: {options: {width: 4, height: 4}}")
    for number in range(12):
        pixels = np.full((4, 4, 3), 20 * number, np.uint8)
        cv2.imwrite(str(tmp_path / "media" / f"p{number:02d}.png"), pixels)
    catalog = load_catalog(path)
    run_dataset(catalog, "shots")
    snapshot = published(catalog, "shots")
    training = [int(row["sample_id"][1:]) for row in snapshot.samples.to_pylist() if row["split"] == "train"]
    levels = 20.0 * np.array(training)
    assert 0 < len(training) < 12
    rows = snapshot.read("image.standardized_pixels").to_pylist()
    for row in rows:
        wanted = (20 * int(row["sample_id"][1:]) - levels.mean()) / levels.std()
        np.testing.assert_allclose(row["values"], wanted, atol=1e-5)
    before = snapshot.info["fitted"]["image.standardized_pixels"]["digest"]
    cv2.imwrite(str(tmp_path / "media" / "p99.png"), np.full((4, 4, 3), 255, np.uint8))
    report = run_dataset(catalog, "shots")
    assert report.computed == 1, "the statistics stay as they are, and so do the rows"
    assert published(catalog, "shots").info["fitted"]["image.standardized_pixels"]["digest"] == before
