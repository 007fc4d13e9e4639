"""The catalog: what it accepts, and every way of being told that it is wrong."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import jsonschema
import pytest
from pydantic import BaseModel

from features.align.pool import POLICIES, Pooling
from features.errors import CatalogError
from features.registry import AUGMENT, EXTRACTORS, PREPARE
from pipeline.catalog import (
    Catalog,
    CsvSource,
    FolderSource,
    Splits,
    catalog_schema,
    load_catalog,
)
from pipeline.catalog.align_models import (
    Align,
    Clock,
    Durations,
    Estimate,
    Grid,
    Intervals,
    PolicySpec,
    SignalSpec,
)
from pipeline.catalog.models import (
    SOURCES,
    CatalogFile,
    Columns,
    DataSetFile,
    Engine,
    FeatureSpec,
    Schedule,
    Tls,
    Train,
    Views,
)
from pipeline.catalog.problems import dotted
from pipeline.catalog.yaml_lines import Document
from pipeline.importing import importable
from pipeline.scan.candidates import EXTENSIONS

DOCS = Path(__file__).resolve().parents[2] / "docs" / "catalog.md"


@dataclass(frozen=True, kw_only=True)
class Loudness:
    """An extractor for these tests."""

    name: ClassVar[str] = "loudness"
    stream: ClassVar[str] = "audio"
    numerics: ClassVar[tuple[str, ...]] = ("numpy",)
    frame: float = 0.1
    bands: tuple[int, ...] = (1, 2)
    mode: Literal["rms", "peak"] = "rms"
    limit: int | None = None
    copy: bool = False
    _state: object = None

    def __post_init__(self) -> None:
        if self.frame <= 0:
            raise ValueError(f"frame: got {self.frame}, allowed: > 0")
        if self.limit == 13:
            raise ValueError("unlucky")

    @property
    def dim(self) -> int:
        return 1

    def __call__(self, batch: Any, device: Any) -> list[Any]:
        return []


@dataclass(frozen=True, kw_only=True)
class Blur:
    """A prepare step with an option that has no default."""

    name: ClassVar[str] = "blur"
    stream: ClassVar[str] = "image"
    numerics: ClassVar[tuple[str, ...]] = ()
    radius: int

    def prepare(self, batch: Any, device: Any) -> list[Any]:
        return list(batch)


@dataclass(frozen=True)
class NoStep:
    """A frozen dataclass that is no step."""


@dataclass(frozen=True)
class Smell:
    """A step of a stream that there is not."""

    name: ClassVar[str] = "smell"
    stream: ClassVar[str] = "smell"
    numerics: ClassVar[tuple[str, ...]] = ()
    dim: ClassVar[int] = 1

    def __call__(self, batch: Any, device: Any) -> list[Any]:
        return []


class Thawed:
    """Not a dataclass."""


Write = Callable[[str], Path]

FEATURES = "    features: {voice: {extractor: 'test_catalog:Loudness'}}\n"
HEAD = "version: 1\nstore: ./store\n"
FOLDER = "    root: ./media\n    source: {kind: folder}\n"
MINIMAL = HEAD + "datasets:\n  clips:\n" + FOLDER + FEATURES


@pytest.fixture
def write(tmp_path: Path) -> Write:
    (tmp_path / "media").mkdir()

    def _write(text: str) -> Path:
        path = tmp_path / "data_catalog.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write


def problems(path: Path) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        load_catalog(path)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def with_feature(feature: str) -> str:
    """A catalog whose only feature ``voice`` is this flow mapping; it stands on line 7."""
    return HEAD + "datasets:\n  clips:\n" + FOLDER + "    features:\n      voice: " + feature + "\n"


def with_data_set(text: str) -> str:
    """A catalog whose data set ``clips`` has these lines more; the first of them is line 8."""
    return MINIMAL + "".join(f"    {line}\n" for line in text.splitlines())


VOICE = "data_catalog.yaml:8: datasets.clips.features.voice"


# What is accepted


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
        extractor: test_catalog:Loudness
        options: {frame: 1, bands: [3, 4], mode: peak, limit: null, copy: true}
      faces:
        prepare: [{"test_catalog:Blur": {radius: 3}}]
        extractor: test_own_image:Shape
    align: {grid: 0.5, policies: {faces: linear}, default: max}
    train: {methods: [late], learning_rate: 1e-3, dropout: 0}
    max_failed: 1
    shard_samples: 3
""".replace("test_own_image:Shape", "test_catalog:Shape")
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


@dataclass(frozen=True, kw_only=True)
class Shape:
    """An image extractor for these tests."""

    name: ClassVar[str] = "shape"
    stream: ClassVar[str] = "image"
    numerics: ClassVar[tuple[str, ...]] = ()

    @property
    def dim(self) -> int:
        return 2

    def __call__(self, batch: Any, device: Any) -> list[Any]:
        return []


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
        text = MINIMAL.replace("{voice: {extractor: 'test_catalog:Loudness'}}", f"\n      audio.mfcc: {value}")
        chain = load_catalog(write(text)).dataset("clips").features["audio.mfcc"]
        assert (chain.name, chain.extractor.name) == ("audio.mfcc", "audio.mfcc")


def test_own_step_beside_the_catalog(write: Write, tmp_path: Path) -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    (tmp_path / "beside_the_catalog.py").write_text(source, encoding="utf-8")
    path = write(MINIMAL.replace("test_catalog:", "beside_the_catalog:"))
    before = list(sys.path)
    chain = load_catalog(path).dataset("clips").features["voice"]
    assert type(chain.extractor).__module__ == "beside_the_catalog"
    assert sys.path == before
    with importable(tmp_path):
        assert str(tmp_path) in sys.path
        assert pickle.loads(pickle.dumps(chain)) == chain


def test_own_module_that_another_one_hides(write: Write, tmp_path: Path) -> None:
    (tmp_path / "test_catalog.py").write_text("", encoding="utf-8")
    (line,) = problems(write(MINIMAL))
    assert "not test_catalog.py beside the catalog; cure: give that module another name" in line


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
        extractor: test_catalog:Loudness
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


# Values


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("max_failed: 2", "max_failed: got 2, allowed: less than or equal to 1"),
        ("max_failed: yes", "max_failed: got 'yes', allowed: a number"),
        ("max_failed: true", "max_failed: got true, allowed: a number"),
        ("max_failed: .nan", "max_failed: got NaN, allowed: a finite number"),
        ("shard_samples: 12:30", "shard_samples: got '12:30', allowed: a whole number"),
        ("shard_samples: 0", "shard_samples: got 0, allowed: greater than or equal to 1"),
        ("align: {}", "align: got no timeline, allowed: one of grid, text, rows_of, intervals"),
        ("align: {grid: 0}", "align.grid: got 0, allowed: greater than 0"),
        ("align: {grid: 1e-10}", "align: grid: got 1e-10 s, allowed: at least one nanosecond (1e-9)"),
        ("align: {grid: 1, default: avg}", "align.default: got 'avg', allowed: 'mean', 'max', 'sum', 'first', "),
        ("train: {methods: []}", "train.methods: got [], allowed: at least 1"),
        ("train: {methods: [early, early]}", "train.methods: got ['early', 'early'], allowed: each method once"),
        ("train: {methods: [middle]}", "train.methods[0]: got 'middle', allowed: 'early', 'average', "),
        ("train: {encoders: {audio.mfc: {}}}", "train.encoders.audio.mfc: no feature 'audio.mfc' in this data set; "),
        ("train: {encoders: {voice: {part: 2}}}", "train.encoders.voice.part: unknown key 'part'; "),
        ("train: {targets: {}}", "train.targets: got {}, allowed: at least 1"),
        ("train: {targets: {mood: {kind: sort}}}", "train.targets.mood.kind: got 'sort', allowed: 'classes', "),
        ("train: {targets: {mood: {kinds: number}}}", "train.targets.mood.kinds: unknown key 'kinds'; allowed: kind, "),
        ("train: {folds: 1}", "train: train: folds: got 1, allowed: 0, or >= 2"),
        ("train: {schedule: warm}", "train.schedule: got 'warm', allowed: 'constant', 'cosine', 'step' or 'plateau'"),
        ("train: {dropout: 1}", "train.dropout: got 1, allowed: less than 1"),
        ("train: {learning_rat: 1}", "train.learning_rat: unknown key 'learning_rat'; allowed: ablation, balanced, "),
        ("splits: {train: 1, seed: -1}", "splits.seed: got -1, allowed: greater than or equal to 0"),
        ("splits: [1, 2]", "splits: got [1, 2], allowed: a mapping (key: value)"),
    ],
)
def test_bad_value_of_a_data_set(write: Write, line: str, message: str) -> None:
    found = problems(write(with_data_set(line)))
    assert found[0].startswith(f"data_catalog.yaml:8: datasets.clips.{message}")
    assert len(found) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../up", "got '../up', allowed: a name that matches"),
        ("_log", "got '_log', allowed: a name that matches"),
        (".", "got '.', allowed: a name that matches"),
    ],
)
def test_name_of_a_data_set_is_a_safe_folder_name(write: Write, name: str, message: str) -> None:
    (line,) = problems(write(MINIMAL.replace("clips", f"'{name}'")))
    assert message in line


def test_name_of_a_feature(write: Write) -> None:
    (line,) = problems(write(MINIMAL.replace("voice", "'a/b'")))
    assert line == (
        "data_catalog.yaml:7: datasets.clips.features.a/b: got 'a/b', allowed: a name that matches ^[A-Za-z0-9_.-]+$"
    )


def test_no_data_sets_and_no_features(write: Write) -> None:
    assert problems(write(HEAD + "datasets: {}\n")) == ["data_catalog.yaml:3: datasets: got {}, allowed: at least 1"]
    (line,) = problems(write(MINIMAL.replace("{voice: {extractor: 'test_catalog:Loudness'}}", "{}")))
    assert line == "data_catalog.yaml:7: datasets.clips.features: got {}, allowed: at least 1"


# Steps


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ("{}", ": unknown extractor 'voice'; allowed: "),
        ("{extractor: video.keyfrmes}", ".extractor: unknown extractor 'video.keyfrmes'; allowed: "),
        ("{extractor: audio.denoise}", ".extractor: 'audio.denoise' is a prepare step; allowed here: "),
        ("{extractor: 'no_such_module:X'}", ".extractor: 'no_such_module:X': no module named 'no_such_module'"),
        (
            "{extractor: 'test_catalog:Loudnes'}",
            ".extractor: 'test_catalog:Loudnes': module 'test_catalog' has no class",
        ),
        ("{extractor: 'test_catalog:Thawed'}", ".extractor: 'test_catalog:Thawed': a step must be a frozen dataclass"),
        ("{extractor: 'test_catalog:Blur'}", ".extractor: 'test_catalog:Blur' lacks dim, __call__; cure: see docs/add"),
        ("{extractor: 'test_catalog:NoStep'}", ".extractor: 'test_catalog:NoStep' lacks name, stream, numerics, dim, "),
        ("{extractor: 'test_catalog:Smell'}", ".extractor: 'test_catalog:Smell': got stream 'smell', allowed: video, "),
        ("{extractor: ':X'}", ".extractor: ':X' cannot be imported: ValueError: Empty module name"),
        ("{extractor: ''}", ".extractor: got '', allowed: text that is not empty"),
        (
            "{extract: x}",
            ".extract: unknown key 'extract'; allowed: extractor, options, prepare, views; did you mean 'extractor'",
        ),
        ("7", ": got 7, allowed: a mapping (key: value)"),
    ],
)
def test_bad_extractor(write: Write, feature: str, message: str) -> None:
    found = problems(write(with_feature(feature)))
    assert found[0].startswith(VOICE + message)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("{frame: 0}", ".options.frame: got 0.0, allowed: > 0"),
        ("{limit: 13}", ".extractor: unlucky"),
        ("{frame: .inf}", ".options.frame: got Infinity, allowed: a finite number"),
        ("{frame: '1'}", ".options.frame: got '1', allowed: a number"),
        ("{bands: [1, x]}", ".options.bands[1]: got 'x', allowed: a whole number"),
        ("{bands: 1}", ".options.bands: got 1, allowed: a list"),
        ("{limit: 1.0}", ".options.limit: got 1.0, allowed: a whole number"),
        ("{copy: 1}", ".options.copy: got 1, allowed: true or false"),
        ("{_state: 1}", ".options._state: unknown option '_state'; allowed: bands, copy, frame, limit, mode"),
        ("{name: x}", ".options.name: unknown option 'name'; allowed: bands, copy, frame, limit, mode"),
        ("[1]", ".options: got [1], allowed: a mapping (key: value)"),
    ],
)
def test_bad_option(write: Write, options: str, message: str) -> None:
    found = problems(write(with_feature(f"{{extractor: 'test_catalog:Loudness', options: {options}}}")))
    assert found[0].startswith(VOICE + message)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("audio.mfcc", ".prepare[0]: 'audio.mfcc' is an extractor; allowed here: "),
        ("audio.denois", ".prepare[0]: unknown prepare step 'audio.denois'; allowed: "),
        ("7", ".prepare[0]: got 7, allowed: a step's name, or {name: {option: value}}"),
        ("{a: {}, b: {}}", '.prepare[0]: got {"a": {}, "b": {}}, allowed: a step\'s name, or {name: {option: value}}'),
        ("{'test_catalog:Blur': 3}", ".prepare[0].test_catalog:Blur: got 3, allowed: a mapping of options"),
        ("{'test_catalog:Blur': {}}", ".prepare[0]: option 'radius' of test_catalog:Blur is missing"),
        ("'test_catalog:Blur'", ".prepare[0]: option 'radius' of test_catalog:Blur is missing"),
        (
            "{'test_catalog:Blur': {radius: x}}",
            ".prepare[0].test_catalog:Blur.radius: got 'x', allowed: a whole number",
        ),
        ("{'test_catalog:Blur': {radius: 1}}", ": loudness takes audio, but the step before it gives image"),
        ("'test_catalog:Loudness'", ": loudness is not a prepare step; allowed: prepare steps and frame selectors"),
    ],
)
def test_bad_prepare_step(write: Write, item: str, message: str) -> None:
    found = problems(write(with_feature(f"{{extractor: 'test_catalog:Loudness', prepare: [{item}]}}")))
    assert found[0].startswith(VOICE + message)
    assert len(found) == 1


def test_own_module_that_does_not_import(write: Write, tmp_path: Path) -> None:
    (tmp_path / "broken_syntax_step.py").write_text("def (:\n", encoding="utf-8")
    (tmp_path / "broken_import_step.py").write_text("import no_such_package\n", encoding="utf-8")
    (line,) = problems(write(with_feature("{extractor: 'broken_syntax_step:X'}")))
    assert "'broken_syntax_step:X' cannot be imported: SyntaxError: invalid syntax" in line
    (line,) = problems(write(with_feature("{extractor: 'broken_import_step:X'}")))
    assert "'broken_import_step:X' cannot be imported: ModuleNotFoundError: No module named 'no_such_package'" in line


def test_own_step_with_an_annotation_that_cannot_be_read(write: Write, tmp_path: Path) -> None:
    text = Path(__file__).read_text(encoding="utf-8").replace("frame: float = 0.1", "frame: Nowhere = 0.1")
    (tmp_path / "unreadable_annotation_step.py").write_text(text, encoding="utf-8")
    (line,) = problems(write(with_feature("{extractor: 'unreadable_annotation_step:Loudness'}")))
    assert "cannot be given in a catalog: name 'Nowhere' is not defined" in line


# Roots, stores, manifests


@pytest.mark.parametrize(
    ("root", "message"),
    [
        ("./data_catalog.yaml", "/data_catalog.yaml is a file, allowed: a folder, or a URL such as s3://bucket/prefix"),
        ("nope://x", "unknown kind of URL 'nope://', allowed: a folder, or a URL such as s3://bucket/prefix"),
        (
            "lakefs://x",
            "lakefs:// cannot be read here: Please install lakefs-spec to access LakeFSFileSystem; cure: install",
        ),
        ("zip://x::file.zip", "got 'zip://x::file.zip': chained URLs are not offered, allowed: a folder, or a URL "),
        ("./store/media", "root lies in the store ("),
        ('"a\\0b"', "got 'a\\x00b', allowed: a folder, or a URL such as s3://bucket/prefix"),
    ],
)
def test_bad_root(write: Write, tmp_path: Path, root: str, message: str) -> None:
    (tmp_path / "store" / "media").mkdir(parents=True)
    (line,) = problems(write(MINIMAL.replace("./media", root)))
    assert line.startswith("data_catalog.yaml:5: datasets.clips.root: ")
    assert message in line


def test_store_that_is_a_file(write: Write, tmp_path: Path) -> None:
    (tmp_path / "store").write_text("", encoding="utf-8")
    (line,) = problems(write(MINIMAL))
    assert line.startswith(f"data_catalog.yaml:2: store: {tmp_path}/store is a file, allowed: a folder")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("lits.csv", "no such file: {root}/lits.csv; cure: give the path relative to root; did you mean 'list.csv'?"),
        ("sub", "{root}/sub is a folder, allowed: a csv file"),
        ("../data_catalog.yaml", "got '../data_catalog.yaml', allowed: a path below root ({root})"),
        ("/etc/passwd", "got '/etc/passwd', allowed: a path below root ({root})"),
        ("out.csv", "out.csv is a symbolic link to {folder}/data_catalog.yaml, allowed: a file below root ({root})"),
    ],
)
def test_bad_path_of_a_manifest(write: Write, tmp_path: Path, path: str, message: str) -> None:
    root = tmp_path / "media"
    (root / "sub").mkdir()
    (root / "list.csv").write_text("p\n", encoding="utf-8")
    (root / "out.csv").symlink_to(tmp_path / "data_catalog.yaml")
    source = f"{{kind: csv, path: {path}, columns: {{audio: p}}}}"
    found = problems(write(MINIMAL.replace("{kind: folder}", source)))
    expected = message.format(root=root, folder=tmp_path)
    assert found == [f"data_catalog.yaml:6: datasets.clips.source.path: {expected}"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{}", ": 'kind' is missing; allowed: csv, folder, jsonl, parquet"),
        ("folder", ": got 'folder', allowed: a mapping (key: value)"),
        ("{kind: csv}", ": 'path' is missing: the manifest, relative to root"),
        (
            "{kind: folder, path: x}",
            ".path: unknown key 'path'; allowed: include, kind, label_from, split_from, split_na",
        ),
        ("{kind: folder, include: []}", ".include: got [], allowed: at least 1"),
        ("{kind: folder, include: ['a**']}", ".include: got 'a**', allowed: a glob such as '**/*.mp4' ("),
        (
            "{kind: csv, path: l.csv, columns: {id: x}}",
            ".columns: no column of files is named, allowed: at least one of",
        ),
        (
            "{kind: csv, path: l.csv, columns: {audio: x, end: e}}",
            ".columns: start and end make a window together; cure",
        ),
        (
            "{kind: csv, path: l.csv, columns: {vido: x}}",
            ".columns.vido: unknown key 'vido'; allowed: audio, end, id, ",
        ),
        (
            "{kind: csv, path: l.csv, columns: {audio: x}, delimiter: ab}",
            ".delimiter: got 'ab', allowed: text of at most 1",
        ),
    ],
)
def test_bad_source(write: Write, tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "media" / "l.csv").write_text("x\n", encoding="utf-8")
    found = problems(write(MINIMAL.replace("{kind: folder}", source)))
    assert found[0].startswith(f"data_catalog.yaml:6: datasets.clips.source{message}")


def test_feature_of_a_stream_that_the_manifest_does_not_have(write: Write, tmp_path: Path) -> None:
    (tmp_path / "media" / "l.csv").write_text("x\n", encoding="utf-8")
    source = "{kind: csv, path: l.csv, columns: {image: x}}"
    (line,) = problems(write(MINIMAL.replace("{kind: folder}", source)))
    assert line == (
        "data_catalog.yaml:7: datasets.clips.features.voice: loudness reads audio, but the source has columns for "
        "image only; cure: name a column of audio or video files, or set siblings: true"
    )
    for enough in ("image: x}, siblings: true}", "video: x}}"):
        load_catalog(write(MINIMAL.replace("{kind: folder}", source.replace("image: x}}", enough))))


# YAML


def test_yaml_reads_the_core_schema_of_1_2() -> None:
    text = """\
on: on
time: 12:30
small: 1e-3
numbers: [1, 0x1F, 0o17, 012, -3, +4, 1., .5]
inf: [.inf, -.INF]
words: [yes, no, 1_000, 2020-01-01, "1", '']
rest: [~, null, true, FALSE]
empty:
tagged: !!str 1
1: key
"""
    document = Document(text)
    assert document.problems == []
    assert document.data == {
        "on": "on",
        "time": "12:30",
        "small": 0.001,
        "numbers": [1, 31, 15, 12, -3, 4, 1.0, 0.5],
        "inf": [float("inf"), float("-inf")],
        "words": ["yes", "no", "1_000", "2020-01-01", "1", ""],
        "rest": [None, None, True, False],
        "empty": None,
        "tagged": "1",
        "1": "key",
    }
    assert document.line(("numbers", 2)) == 4
    assert document.line(("nowhere", "below")) == 1


def test_aliases_stand_for_their_value(write: Write) -> None:
    text = MINIMAL.replace("features: {", "features: &both {") + "  more:\n" + FOLDER + "    features: *both\n"
    catalog = load_catalog(write(text))
    assert catalog.datasets["more"].features == catalog.datasets["clips"].features


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\na: [1\nb: 2", 3, "not YAML: while parsing a flow sequence expected ',' or ']', but got ':'"),
        ("a:\n\tb: 1", 2, "that cannot start any token; cure: indent with spaces"),
        ("a: b: c", 1, "not YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 1", 2, "not YAML: expected a single document in the stream but found another document"),
        ("a: *x", 1, "not YAML: found undefined alias 'x'"),
        ("\na: \x07", 2, "not YAML: the character U+0007 is not allowed; cure: remove it"),
        ("a:\n- !!python/name:os.x", 2, "the tag 'tag:yaml.org,2002:python/name:os.x' is not offered"),
        ("a: !!int x", 1, "got 'x', allowed: int as YAML 1.2 writes it"),
        ("a: 1\nb: 1\na: 2", 3, "duplicate key 'a'; the first is on line 1"),
        ("? [1]\n: 1", 1, "a key is a list or a mapping, allowed: text"),
        ("a: &x [1, *x]", 1, "an alias stands inside what it stands for; cure: write the value out"),
        ("[" * 5000, None, "not read: nested deeper than Python's recursion limit"),
    ],
)
def test_yaml_problem(text: str, line: int | None, message: str) -> None:
    (problem,) = Document(text).problems
    assert problem.line == line
    assert message in problem.message


def test_yaml_problem_is_told_with_its_line(write: Write) -> None:
    (line,) = problems(write("version: 1\nstore: [\n"))
    assert line.startswith("data_catalog.yaml:3: not YAML: while parsing a flow node")


def test_place_is_written_as_people_do() -> None:
    assert dotted(("datasets", "a", "prepare", 0, "x")) == "datasets.a.prepare[0].x"


# The JSON Schema and the reference


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    document = catalog_schema()
    jsonschema.Draft202012Validator.check_schema(document)
    return jsonschema.Draft202012Validator(document)


def test_schema_accepts_what_the_loader_accepts(schema: jsonschema.Draft202012Validator) -> None:
    for text in (
        MINIMAL,
        blocks()["data_catalog.yaml"],
        with_feature("{extractor: 'a:B', prepare: ['c:D', text.clean]}"),
    ):
        schema.validate(Document(text).data)


@pytest.mark.parametrize(
    ("feature", "place"),
    [
        ("{extractor: audio.mfcc, options: {n_mfc: 1}}", ["voice", "options"]),
        ("{extractor: audio.mfcc, options: {n_mfcc: x}}", ["voice", "options", "n_mfcc"]),
        ("{prepare: []}", ["voice"]),
        ("{extractor: audio.mfcc, prepare: [audio.mfcc]}", ["voice", "prepare", 0]),
        ("{extractor: audio.mfcc, prepare: [{audio.denoise: {n: 1}}]}", ["voice", "prepare", 0]),
    ],
)
def test_schema_marks_mistakes(schema: jsonschema.Draft202012Validator, feature: str, place: list[str | int]) -> None:
    (error,) = schema.iter_errors(Document(with_feature(feature)).data)
    assert list(error.absolute_path)[3:] == place


def test_schema_knows_features_by_their_name(schema: jsonschema.Draft202012Validator) -> None:
    text = with_feature("{}").replace("voice", "audio.mfcc")
    schema.validate(Document(text).data)
    schema.validate(Document(text.replace("{}", "")).data)
    assert not schema.is_valid(Document(text.replace("audio.mfcc: {}", "audio.mfcc: {options: {x: 1}}")).data)


def blocks() -> dict[str, str]:
    """The fenced blocks of the reference that have a title."""
    return dict(re.findall(r"```\w+ title=(\S+)\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL))


def test_the_example_of_the_reference_loads(write: Write, tmp_path: Path) -> None:
    (tmp_path / "talks").mkdir()
    (tmp_path / "talks" / "segments.csv").write_text("segment\n", encoding="utf-8")
    catalog = load_catalog(write(blocks()["data_catalog.yaml"]))
    assert list(catalog.datasets["clips"].features) == ["audio.mfcc", "voice", "scenes"]


def test_the_errors_of_the_reference_are_real(write: Write) -> None:
    assert problems(write(blocks()["broken"])) == blocks()["told"].splitlines()


ALIGN = [Align, Grid, Intervals, PolicySpec, Clock, Estimate, SignalSpec, Durations]
PARTS = [Engine, Tls, Splits, FeatureSpec, Views, Train, Schedule, Columns]
MODELS = [CatalogFile, DataSetFile, *PARTS, *ALIGN, *SOURCES.values()]


def test_the_reference_has_every_key_step_and_extension() -> None:
    text = DOCS.read_text(encoding="utf-8")
    keys = {field.alias or key for model in MODELS for key, field in model.model_fields.items()}
    extensions = {extension for every in EXTENSIONS.values() for extension in every}
    policies = set(POLICIES)
    for name in sorted(keys | extensions | policies | EXTRACTORS.keys() | PREPARE.keys() | AUGMENT.keys()):
        assert f"`{name}`" in text, name


@pytest.mark.parametrize("model", MODELS)
def test_the_reference_has_every_default(model: type[BaseModel]) -> None:
    text = DOCS.read_text(encoding="utf-8")
    for key, info in model.model_fields.items():
        if isinstance(info.default, (int, float, str)) and model is not Splits:
            written = {True: "true", False: "false"}[info.default] if isinstance(info.default, bool) else info.default
            assert f"| `{key}` | `{written}` |" in text, key
