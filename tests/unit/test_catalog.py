"""The catalog: what it accepts, and what is told of a file that is none."""

from __future__ import annotations

import pickle
import re
import sys
from pathlib import Path

import pytest
from made_catalog import MINIMAL, TEXT, Blur, Loudness, Write, problems, with_data_set

from features.align.pool import Pooling
from features.errors import CatalogError
from features.registry import EXTRACTORS
from pipeline.catalog import Catalog, CsvSource, FolderSource, Splits, load_catalog
from pipeline.catalog.align_models import Grid
from pipeline.catalog.models import Engine, Train
from pipeline.importing import importable


def test_minimal_catalog_has_the_documented_defaults(write: Write, tmp_path: Path) -> None:
    catalog = load_catalog(write(MINIMAL))
    assert catalog.path == tmp_path / "data_catalog.yaml"
    assert catalog.folder == tmp_path
    assert catalog.store == str(tmp_path / "store")
    assert catalog.engine == Engine(kind="dask", workers="auto", device="auto")
    clips = catalog.dataset("clips")
    assert clips.root == str(tmp_path / "media")
    assert clips.source == FolderSource(kind="folder", label_from="none", split_from="none", include=("**/*",))
    assert clips.splits == Splits(train=0.8, validation=0.1, test=0.1, seed=0, by="sample")
    assert clips.align is None
    assert clips.train == Train(methods=("early", "late"), epochs=60)
    assert (clips.max_failed, clips.shard_samples, clips.excluded) == (0.1, None, ())
    assert clips.features["voice"].extractor == Loudness()
    assert clips.features["voice"].name == "voice"


def test_everything_that_can_be_said(write: Write, tmp_path: Path) -> None:
    (tmp_path / "media" / "list.csv").write_text("a\n", encoding="utf-8")
    catalog = load_catalog(
        write(
            """\
version: 1
store: s3://bucket/prefix/
engine: {kind: serial, workers: 2, device: cpu}
datasets:
  "2024.clips":
    root: ./media
    source:
      kind: csv
      path: list.csv
      delimiter: ";"
      columns: {id: i, split: s, label: l, start: b, end: e, video: v, image: p}
      siblings: true
      split_names: {dev: validation}
    splits: {train: 0.5, test: 0.5, seed: 7, by: file}
    features:
      a-b_c.1:
        extractor: made_catalog:Loudness
        options: {frame: 1, bands: [3, 4], mode: peak, limit: null, copy: true}
      faces:
        prepare: [{"made_catalog:Blur": {radius: 3}}]
        extractor: test_own_image:Shape
    align: {grid: 0.5, policies: {faces: linear}, default: max}
    train: {methods: [late], learning_rate: 1e-3, dropout: 0}
    max_failed: 1
    shard_samples: 3
""".replace("test_own_image:Shape", "made_catalog:Shape")
        )
    )
    data_set = catalog.datasets["2024.clips"]
    assert catalog.store == "s3://bucket/prefix"
    assert catalog.engine == Engine(kind="serial", workers=2, device="cpu")
    assert isinstance(data_set.source, CsvSource)
    assert data_set.source.columns.streams == {"video": "v", "image": "p"}
    assert data_set.source.siblings
    assert (data_set.splits.validation, data_set.splits.by) == (0.0, "file")
    extractor = data_set.features["a-b_c.1"].extractor
    assert extractor == Loudness(frame=1.0, bands=(3, 4), mode="peak", copy=True)
    assert data_set.features["faces"].prepare == (Blur(radius=3),)
    assert data_set.align is not None
    assert data_set.align.windows == Grid(length=0.5)
    assert data_set.align.pooling("faces") == Pooling("linear")
    assert data_set.align.pooling("a-b_c.1") == Pooling("max")
    assert data_set.train.learning_rate == 0.001
    assert pickle.loads(pickle.dumps(data_set)) == data_set


def test_only_a_seed_keeps_the_default_shares(write: Write) -> None:
    splits = load_catalog(write(with_data_set("splits: {seed: 3}"))).dataset("clips").splits
    assert splits == Splits(train=0.8, validation=0.1, test=0.1, seed=3)


def test_store_inside_the_root_is_not_scanned(write: Write) -> None:
    catalog = load_catalog(write(MINIMAL.replace("./media", ".").replace("./store", "./out/store")))
    assert catalog.dataset("clips").excluded == ("out/store",)


def test_root_behind_a_symbolic_link_is_resolved(write: Write, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "media")
    catalog = load_catalog(write(MINIMAL.replace("./media", "./link")))
    assert catalog.dataset("clips").root == str(tmp_path / "media")


def test_file_url_is_a_path(write: Write, tmp_path: Path) -> None:
    catalog = load_catalog(write(MINIMAL.replace("./media", f"file://{tmp_path}/media")))
    assert catalog.dataset("clips").root == str(tmp_path / "media")


def test_registered_extractor_by_the_name_of_the_feature(write: Write) -> None:
    for value in ("{}", ""):
        text = MINIMAL.replace("{voice: {extractor: 'made_catalog:Loudness'}}", f"\n      audio.mfcc: {value}")
        chain = load_catalog(write(text)).dataset("clips").features["audio.mfcc"]
        assert (chain.name, chain.extractor.name) == ("audio.mfcc", "audio.mfcc")


def test_own_step_beside_the_catalog(write: Write, tmp_path: Path) -> None:
    (tmp_path / "beside_the_catalog.py").write_text(TEXT, encoding="utf-8")
    path = write(MINIMAL.replace("made_catalog:", "beside_the_catalog:"))
    before = list(sys.path)
    chain = load_catalog(path).dataset("clips").features["voice"]
    assert type(chain.extractor).__module__ == "beside_the_catalog"
    assert sys.path == before
    with importable(tmp_path):
        assert str(tmp_path) in sys.path
        assert pickle.loads(pickle.dumps(chain)) == chain


def test_own_module_that_another_one_hides(write: Write, tmp_path: Path) -> None:
    (tmp_path / "made_catalog.py").write_text("", encoding="utf-8")
    (line,) = problems(write(MINIMAL))
    assert "not made_catalog.py beside the catalog; cure: give that module another name" in line


def test_dataset_that_there_is_not(write: Write) -> None:
    catalog: Catalog = load_catalog(write(MINIMAL))
    message = "data_catalog.yaml: no data set 'clip'; allowed: clips; did you mean 'clips'?"
    with pytest.raises(CatalogError, match=re.escape(message)):
        catalog.dataset("clip")


# The file itself


def test_no_such_file(tmp_path: Path) -> None:
    (line,) = problems(tmp_path / "nope.yaml")
    assert line == f"{tmp_path}/nope.yaml: no such file; cure: `gristmill init DIR` writes one"


def test_a_folder_instead_of_the_file(write: Write, tmp_path: Path) -> None:
    assert problems(tmp_path)[0].endswith("a folder, allowed: a catalog file; cure: `gristmill init DIR` writes one")
    path = write(MINIMAL)
    assert problems(tmp_path)[0].endswith(f"allowed: a catalog file; cure: name the file, {path}")


@pytest.mark.parametrize("text", ["", " \n\n"])
def test_empty_file(write: Write, text: str) -> None:
    assert problems(write(text))[0].endswith("empty; cure: `gristmill init DIR` writes one")


@pytest.mark.parametrize("text", ["# only a comment\n", "- 1\n", "text\n"])
def test_file_that_is_no_mapping(write: Write, text: str) -> None:
    assert "allowed: a mapping that begins with version: 1" in problems(write(text))[0]


def test_file_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "data_catalog.yaml"
    path.write_bytes(b"version: 1\nstore: \xff\n")
    assert problems(path) == ["data_catalog.yaml:2: byte 18 is not UTF-8; cure: save the file as UTF-8"]


# All at once


def test_all_problems_at_once_in_order_of_lines(write: Write) -> None:
    text = """\
version: 2
stor: ./store
engine: {kind: dusk, workers: 0}
datasets:
  clips:
    root: ./nowhere
    source: {kind: foldr}
    splits: {train: 0.8, test: 0.1}
    features:
      voice:
        extractor: made_catalog:Loudness
        options: {fram: 1, mode: rmz}
      audio.mfc: {}
    align: {grid: 0.5, policies: {voise: mean}}
    train: {epochs: 1.5}
    root: again
"""
    at = "data_catalog.yaml"
    clips = "datasets.clips"
    assert problems(write(text)) == [
        f"{at}:1: 'store' is missing: folder (relative to the catalog) or URL that results are kept in",
        f"{at}:1: version: got 2, allowed: 1",
        f"{at}:2: stor: unknown key 'stor'; allowed: datasets, engine, metrics, on_failure, store, version; "
        "did you mean 'store'?",
        f"{at}:3: engine.kind: got 'dusk', allowed: 'dask' or 'serial'; did you mean 'dask'?",
        f"{at}:3: engine.workers: got 0, allowed: greater than or equal to 1 or 'auto'",
        f"{at}:7: {clips}.source: kind: got 'foldr', allowed: csv, folder, jsonl, parquet; did you mean 'folder'?",
        f"{at}:8: {clips}.splits: the shares of train, validation and test sum to 0.9, allowed: 1",
        f"{at}:12: {clips}.features.voice.options.fram: unknown option 'fram'; allowed: bands, copy, frame, limit, mode"
        "; did you mean 'frame'?",
        f"{at}:12: {clips}.features.voice.options.mode: got 'rmz', allowed: 'rms' or 'peak'; did you mean 'rms'?",
        f"{at}:13: {clips}.features.audio.mfc: unknown extractor 'audio.mfc'; allowed: "
        f"{', '.join(sorted(EXTRACTORS))}, or module:Class; did you mean 'audio.mfcc'?",
        f"{at}:14: {clips}.align.policies.voise: no feature 'voise' in this data set; allowed: audio.mfc, voice; "
        "did you mean 'voice'?",
        f"{at}:15: {clips}.train.epochs: got 1.5, allowed: a whole number",
        f"{at}:16: {clips}.root: duplicate key 'root'; the first is on line 6",
    ]
