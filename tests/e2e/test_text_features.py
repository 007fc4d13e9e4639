"""Text from files to probabilities: fitted on the training split alone, and computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.catalog import load_catalog
from pipeline.run import published, run_dataset
from pipeline.store import DatasetStore

CATALOG = """\
version: 1
store: ./store
engine: {kind: serial, device: cpu}
datasets:
  talk:
    root: ./media
    source: {kind: folder, label_from: folder, split_from: none}
    splits: {train: 0.5, validation: 0.25, test: 0.25, seed: 3}
    features:
      text.tfidf: {prepare: [text.clean, {text.tokens: {stem: snowball}}], options: {size: 50}}
      text.class_probabilities: {options: {classes: [farm, sea], folds: 2}}
      text.bow: {options: {size: 50}}
    max_failed: 0.2
"""
WORDS = {"farm": ["wheat", "mill", "barn", "rye", "field"], "sea": ["wave", "ship", "sail", "storm", "harbour"]}


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for label, words in WORDS.items():
        folder = tmp_path / "media" / label
        folder.mkdir(parents=True)
        for number in range(20):
            own = f"only{label}{number}"
            (folder / f"{number:02d}.txt").write_text(" ".join([*rng.choice(words, 8), own]))
    (tmp_path / "data_catalog.yaml").write_text(CATALOG)
    return tmp_path / "data_catalog.yaml"


def test_probabilities_are_fitted_on_the_training_split_and_tell_the_rest_apart(talk: Path) -> None:
    catalog = load_catalog(talk)
    report = run_dataset(catalog, "talk")
    assert {name: counts.done for name, counts in report.features.items()} == {
        "text.tfidf": 40,
        "text.class_probabilities": 40,
        "text.bow": 40,
    }
    snapshot = published(catalog, "talk")
    rows = snapshot.read("text.class_probabilities").to_pylist()
    for row in rows:
        assert abs(sum(row["values"]) - 1) < 1e-5
        assert row["values"][("farm", "sea").index(row["label"])] > 0.5
    store = DatasetStore(catalog.store, "talk")
    training = {row["sample_id"] for row in rows if row["split"] == "train"}
    for name in ("text.bow", "text.class_probabilities"):
        state = store.fs.cat_file(store.path(snapshot.info["fitted"][name]["path"]))
        for label in WORDS:
            for number in range(20):
                seen = f"only{label}{number}".encode() in state.replace(b"\n", b" ").split(b" ")[0:] or (
                    f"only{label}{number}\n".encode() in state
                )
                if seen:
                    assert f"{label}/{number:02d}" in training, "learnt from another split"
    again = run_dataset(catalog, "talk")
    assert again.computed == 0
    assert not again.published


def test_hostile_texts_end_in_bounded_time(talk: Path) -> None:
    media = talk.parent / "media" / "sea"
    odd = {
        "long": "storm harbour " * 750_000,  # 10 MB in one line
        "right": "שלום עולם و السلام",
        "emoji": "😀👍🏽🇩🇪",
        "chinese": "今天天气很好我们去海边",
        "control": "a\x01b\x1fc wave",
        "tags": "<" * 100_000,
    }
    for name, text in odd.items():
        (media / f"{name}.txt").write_text(text)
    (media / "latin.txt").write_bytes("Küste und Meer".encode("latin-1"))
    (media / "empty.txt").write_bytes(b"")
    catalog = load_catalog(talk)
    report = run_dataset(catalog, "talk")
    assert report.samples is not None
    assert report.samples.samples_in == 48
    failed = {row["sample_id"]: row["reason"] for row in published(catalog, "talk").quarantine.to_pylist()}
    assert failed["sea/latin"] == "bad_encoding"
    assert failed["sea/empty"] == "empty"
    assert not {f"sea/{name}" for name in ("long", "right", "chinese", "tags")} & failed.keys()
