"""The scan: what of a folder becomes a sample, what is rejected and why, what is noted."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from made_scan import data_set, folder, from_csv, ids, reasons, touch

from features.errors import CatalogError, Reason
from pipeline.catalog import Splits
from pipeline.scan import SAMPLES_SCHEMA, scan
from pipeline.scan.candidates import EXTENSIONS, stream_of
from pipeline.scan.listing import Fault, LocalRoot

# Folders


def test_files_of_one_stem_are_one_sample(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.mp4", "a/x.SRT", "a/x.jpg", "b/x.wav", "y.txt", "a/x.csv", "LICENSE")
    found = folder(tmp_path, label_from="folder")
    assert found.samples.schema.equals(SAMPLES_SCHEMA)
    assert found.rejected == []
    rows = {row["sample_id"]: row for row in found.samples.to_pylist()}
    assert list(rows) == ["a/x", "b/x", "y"]
    assert [row["label"] for row in rows.values()] == ["a", "b", None]
    sample = rows["a/x"]
    info = (tmp_path / "a/x.mp4").stat()
    assert sample["video_uri"] == sample["audio_uri"] == str(tmp_path / "a/x.mp4")
    assert sample["video_size"] == sample["audio_size"] == info.st_size == 7
    assert sample["video_version"] == sample["audio_version"] == str(info.st_mtime_ns)
    assert sample["text_uri"] == str(tmp_path / "a/x.SRT")
    assert sample["image_uri"] == str(tmp_path / "a/x.jpg")
    assert (sample["start_ns"], sample["end_ns"]) == (None, None)
    assert rows["b/x"]["video_uri"] is rows["b/x"]["text_size"] is rows["b/x"]["image_version"] is None
    assert "ignored 2 files of no known kind: (no extension) 1, .csv 1" in found.notes


def test_a_sound_file_beside_a_video_is_the_audio(tmp_path: Path) -> None:
    touch(tmp_path, "x.mp4", "x.flac")
    (row,) = folder(tmp_path).samples.to_pylist()
    assert row["audio_uri"] == str(tmp_path / "x.flac")


def test_extensions_are_of_one_stream_each() -> None:
    every = [extension for extensions in EXTENSIONS.values() for extension in extensions]
    assert len(every) == len(set(every))
    assert all(re.fullmatch(r"\.[a-z0-9]+", extension) for extension in every)
    assert [stream_of(name) for name in ("A.MP4", "b.Wav", "c.jpeg", "d.vtt", "e.csv", "f", ".mp4")] == [
        "video",
        "audio",
        "image",
        "text",
        None,
        None,
        None,
    ]


def test_two_files_of_one_stream_are_ambiguous(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.mp4", "a/x.mkv", "a/y.mp4")
    found = folder(tmp_path)
    assert ids(found) == ["a/y"]
    assert reasons(found) == {
        "a/x": (
            Reason.AMBIGUOUS,
            "a/x.mkv and a/x.mp4 would both be the video of this sample; cure: keep one, or leave one out by its name",
        )
    }


def test_include_leaves_out(tmp_path: Path) -> None:
    touch(tmp_path, "x.mp4", "x.mkv", "deep/er/y.mp4", "deep/er/y.srt", "other/z.mp4")
    found = folder(tmp_path, include=["*.mp4", "deep/**/*"])
    assert ids(found) == ["deep/er/y", "x"]
    assert "2 media files are left out by include" in found.notes


def test_ids_that_differ_by_case_are_distinct(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav", "X.wav")
    assert ids(folder(tmp_path)) == ["X", "x"]


def test_split_of_the_topmost_folder(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.jpg", "dev/dog/2.jpg", "holdout/3.jpg", "4.jpg")
    found = folder(tmp_path, split_from="folder", label_from="folder", split_names={"dev": "validation"})
    rows = {row["sample_id"]: (row["split"], row["label"]) for row in found.samples.to_pylist()}
    assert rows["train/cat/1"] == ("train", "cat")
    assert rows["dev/dog/2"] == ("validation", "dog")
    assert rows["holdout/3"] == ("holdout", "holdout")
    assert any(
        note.startswith(
            "1 samples are in split 'holdout'; training knows train, validation and test; cure: split_names"
        )
        for note in found.notes
    )


def test_hidden_names_and_linked_folders_are_noted(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav", ".hidden.wav", ".cache/y.wav", "real/z.wav")
    (tmp_path / "again").symlink_to(tmp_path / "real")
    found = folder(tmp_path)
    assert ids(found) == ["real/z", "x"]
    assert "ignored 2 files and folders whose name begins with a dot" in found.notes
    assert "1 folders are symbolic links and were not entered: again" in found.notes


def test_store_below_the_root_is_not_scanned(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav", "out/store/clips/_delta_log/0.json", "out/kept.wav")
    found = scan(data_set(tmp_path, {"kind": "folder"}, excluded=("out/store",)))
    assert ids(found) == ["out/kept", "x"]


def test_links_to_files(tmp_path: Path) -> None:
    root = tmp_path / "media"
    touch(tmp_path, "secret.wav")
    touch(root, "x.wav", "y.jpg")
    (root / "inside.wav").symlink_to("x.wav")
    (root / "outside.wav").symlink_to(tmp_path / "secret.wav")
    (root / "y.wav").symlink_to("gone.wav")
    os.mkfifo(root / "pipe.wav")
    found = folder(root)
    assert ids(found) == ["inside", "x"]
    told = reasons(found)
    assert told["outside"] == (
        Reason.INVALID_ROW,
        f"outside.wav leads to {tmp_path}/secret.wav, allowed: files below root ({root})",
    )
    assert told["y"] == (
        Reason.MISSING_FILE,
        f"y.wav: a symbolic link to {root}/gone.wav, which is not there (root {root})",
    )
    assert told["pipe"] == (Reason.UNREADABLE, "pipe.wav: neither a file nor a folder, allowed: a file")


def test_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))).write_bytes(b"1")
    found = folder(tmp_path)
    assert ids(found) == ["x"]
    assert reasons(found) == {
        "caf\\udce9": (Reason.INVALID_ROW, "the name 'caf\\udce9' is not UTF-8; cure: rename the file")
    }


def test_folder_that_cannot_be_listed_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "x.wav", "locked/y.wav")
    listed = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("locked/"):
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr("pipeline.scan.listing.os.scandir", refuse)
    found = folder(tmp_path)
    assert ids(found) == ["x"]
    assert reasons(found) == {"locked/": (Reason.UNREADABLE, "locked/ cannot be listed: Permission denied")}


def test_nothing_to_find(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=rf"^clips: no media files below {tmp_path}; cure: put media there, or corr"):
        folder(tmp_path)
    touch(tmp_path, "a.csv", "b.wav")
    with pytest.raises(CatalogError, match=r"files of other kinds: \.csv 1; left out by include: 1; cure: put media"):
        folder(tmp_path, include=["*.mp4"])
    with pytest.raises(CatalogError, match=rf"^root: no such folder: {tmp_path}/gone; cure: make or mount it, or corr"):
        folder(tmp_path / "gone")


# Notes


def test_labels_that_appear_once(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.wav", "a/2.wav", "b/3.wav")
    assert (
        "label 'b' appears once (sample b/3): it can be trained on or tested on, not both"
        in folder(tmp_path, label_from="folder").notes
    )
    touch(tmp_path, *(f"{name}/1.wav" for name in "cdef"), "none.wav")
    notes = folder(tmp_path, label_from="folder").notes
    assert (
        "5 labels appear once: 'b' (sample b/3), 'c' (sample c/1), 'd' (sample d/1) and 2 more: each can be trained on "
        "or tested on, not both"
    ) in notes
    assert "1 samples have no label: none" in notes


def test_streams_that_some_samples_lack(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.jpg", "b.mp4", "README.txt")
    notes = folder(tmp_path).notes
    assert "1 of 3 samples have no video: README" in notes
    assert "1 of 3 samples have no audio: README" in notes
    assert "2 of 3 samples have no image: README, b" in notes
    assert "2 of 3 samples have no text: a, b" in notes


def test_windows_of_one_file_in_several_splits(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav", "y.wav")
    rows = "".join(f"{name}.wav,{start},{start + 1}\n" for name in "xy" for start in range(40))
    columns = {"audio": "p", "start": "s", "end": "e"}
    found = from_csv(tmp_path, "p,s,e\n" + rows, columns)
    assert (
        "2 files have windows in more than one split: x.wav, y.wav; cure: splits: {by: file} keeps a file in one split"
    ) in found.notes
    source = {"kind": "csv", "path": "m.csv", "columns": columns}
    whole = scan(data_set(tmp_path, source, splits=Splits(train=0.5, test=0.5, by="file")))
    by_file = {(row["audio_uri"], row["split"]) for row in whole.samples.to_pylist()}
    assert len(by_file) == 2
    assert not any("more than one split" in note for note in whole.notes)


def test_split_that_got_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav")
    notes = folder(tmp_path).notes
    assert sum(note.startswith("no sample fell into split ") for note in notes) == 2


def test_root_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> Any:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("pipeline.scan.listing.os.scandir", refuse)
    message = f"clips: root {tmp_path}: . cannot be listed: Permission denied; cure: check its rights"
    with pytest.raises(CatalogError, match="^" + re.escape(message)):
        folder(tmp_path)


def test_a_local_root_lists_nothing_of_what_is_not_there(tmp_path: Path) -> None:
    root = LocalRoot(str(tmp_path))
    assert root.names("gone") == ()
    assert isinstance(root.stat("gone"), Fault)
