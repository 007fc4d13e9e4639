"""Every way of being told that a value, a step, a root or a source of the catalog is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_catalog import HEAD, MINIMAL, TEXT, VOICE, Write, problems, with_data_set, with_feature

from pipeline.catalog import load_catalog

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
    (line,) = problems(write(MINIMAL.replace("{voice: {extractor: 'made_catalog:Loudness'}}", "{}")))
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
            "{extractor: 'made_catalog:Loudnes'}",
            ".extractor: 'made_catalog:Loudnes': module 'made_catalog' has no class",
        ),
        ("{extractor: 'made_catalog:Thawed'}", ".extractor: 'made_catalog:Thawed': a step must be a frozen dataclass"),
        ("{extractor: 'made_catalog:Blur'}", ".extractor: 'made_catalog:Blur' lacks dim, __call__; cure: see docs/add"),
        ("{extractor: 'made_catalog:NoStep'}", ".extractor: 'made_catalog:NoStep' lacks name, stream, numerics, dim, "),
        ("{extractor: 'made_catalog:Smell'}", ".extractor: 'made_catalog:Smell': got stream 'smell', allowed: video, "),
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
    found = problems(write(with_feature(f"{{extractor: 'made_catalog:Loudness', options: {options}}}")))
    assert found[0].startswith(VOICE + message)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("audio.mfcc", ".prepare[0]: 'audio.mfcc' is an extractor; allowed here: "),
        ("audio.denois", ".prepare[0]: unknown prepare step 'audio.denois'; allowed: "),
        ("7", ".prepare[0]: got 7, allowed: a step's name, or {name: {option: value}}"),
        ("{a: {}, b: {}}", '.prepare[0]: got {"a": {}, "b": {}}, allowed: a step\'s name, or {name: {option: value}}'),
        ("{'made_catalog:Blur': 3}", ".prepare[0].made_catalog:Blur: got 3, allowed: a mapping of options"),
        ("{'made_catalog:Blur': {}}", ".prepare[0]: option 'radius' of made_catalog:Blur is missing"),
        ("'made_catalog:Blur'", ".prepare[0]: option 'radius' of made_catalog:Blur is missing"),
        (
            "{'made_catalog:Blur': {radius: x}}",
            ".prepare[0].made_catalog:Blur.radius: got 'x', allowed: a whole number",
        ),
        ("{'made_catalog:Blur': {radius: 1}}", ": loudness takes audio, but the step before it gives image"),
        ("'made_catalog:Loudness'", ": loudness is not a prepare step; allowed: prepare steps and frame selectors"),
    ],
)
def test_bad_prepare_step(write: Write, item: str, message: str) -> None:
    found = problems(write(with_feature(f"{{extractor: 'made_catalog:Loudness', prepare: [{item}]}}")))
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
    text = TEXT.replace("frame: float = 0.1", "frame: Nowhere = 0.1")
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
