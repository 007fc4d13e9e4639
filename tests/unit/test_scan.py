"""The scan: what becomes a sample, what is rejected and why, what is noted."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import TypeAdapter

from features.errors import CatalogError, Reason
from pipeline.catalog import DataSet, Source, Splits, Train
from pipeline.scan import SAMPLES_SCHEMA, Scan, scan
from pipeline.scan.candidates import EXTENSIONS, stream_of
from pipeline.scan.listing import Fault, LocalRoot


def data_set(root: str | Path, source: Mapping[str, Any], **others: Any) -> DataSet:
    parsed: Source = TypeAdapter(Source).validate_json(json.dumps(source))
    settings: dict[str, Any] = {
        "splits": Splits(train=0.8, validation=0.1, test=0.1),
        "features": {},
        "align": None,
        "train": Train(),
        "max_failed": 0.1,
        "shard_samples": 64,
    }
    return DataSet(name="clips", root=str(root), source=parsed, **(settings | others))


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def folder(root: str | Path, **source: Any) -> Scan:
    return scan(data_set(root, {"kind": "folder", **source}))


def table(root: str | Path, columns: dict[str, str], *, kind: str = "csv", path: str = "m.csv", **source: Any) -> Scan:
    return scan(data_set(root, {"kind": kind, "path": path, "columns": columns, **source}))


def from_csv(root: Path, text: str, columns: dict[str, str], **source: Any) -> Scan:
    (root / "m.csv").write_text(text, encoding="utf-8")
    return table(root, columns, **source)


def ids(found: Scan) -> list[str]:
    result: list[str] = found.samples["sample_id"].to_pylist()
    return result


def reasons(found: Scan) -> dict[str, tuple[Reason, str]]:
    return {rejected.sample_id: (rejected.reason, rejected.message) for rejected in found.rejected}


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


# Manifests


COLUMNS = {
    "id": "clip",
    "split": "part",
    "label": "class",
    "start": "from",
    "end": "to",
    "video": "file",
    "text": "cap",
}
HEADER = "clip,part,class,from,to,file,cap,more\n"


def test_rows_are_samples(tmp_path: Path) -> None:
    touch(tmp_path, "d/x.mp4", "x.srt")
    text = HEADER + 'b,train,"a, b",0.632,1.1,./d/x.mp4,x.srt,1\n' + "a,dev,,,,d//x.mp4,,\n"
    found = from_csv(tmp_path, text, COLUMNS, split_names={"dev": "validation"})
    assert found.rejected == []
    first, second = found.samples.to_pylist()
    assert (first["sample_id"], first["split"], first["label"]) == ("a", "validation", None)
    assert (first["start_ns"], first["end_ns"], first["text_uri"]) == (None, None, None)
    assert (second["sample_id"], second["split"], second["label"]) == ("b", "train", "a, b")
    assert (second["start_ns"], second["end_ns"]) == (632_000_000, 1_100_000_000)
    assert first["video_uri"] == second["video_uri"] == second["audio_uri"] == str(tmp_path / "d/x.mp4")
    assert second["text_uri"] == str(tmp_path / "x.srt")


def test_ids_from_paths_and_starts(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav")
    text = "p,s,e\nx.wav,,\nx.wav,0,1\nx.wav,1.50,2\nx.wav,0.000000001,2\n"
    found = from_csv(tmp_path, text, {"audio": "p", "start": "s", "end": "e"})
    assert ids(found) == ["x.wav", "x.wav@0", "x.wav@0.000000001", "x.wav@1.5"]


@pytest.mark.parametrize(
    ("written", "ns"),
    [
        ("0", 0),
        ("1.", 1_000_000_000),
        ("0.0000000005", 1),
        ("1e-3", 1_000_000),
        (" 2.5 ", 2_500_000_000),
        ("+3", 3_000_000_000),
        (".5", 500_000_000),
        ("-0", 0),
        ("4611686018", 4_611_686_018_000_000_000),
    ],
)
def test_seconds_are_exact(tmp_path: Path, written: str, ns: int) -> None:
    touch(tmp_path, "x.wav")
    found = from_csv(tmp_path, f"p,s,e\nx.wav,{written},4611686018.1\n", {"audio": "p", "start": "s", "end": "e"})
    assert found.samples["start_ns"].to_pylist() == [ns]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (",t,l,0,1,x.mp4,,", "the id (clip) is empty, allowed: a unique text"),
        ("a,t,l,0,1,,,", "no file is named (columns file, cap), allowed: at least one path below root"),
        ("a,t,l,x,1,x.mp4,,", "from: got 'x', allowed: seconds from 0, such as 12.5"),
        ("a,t,l,-1,1,x.mp4,,", "from: got '-1', allowed: seconds from 0, such as 12.5"),
        ("a,t,l,nan,1,x.mp4,,", "from: got 'nan', allowed: seconds from 0, such as 12.5"),
        ("a,t,l,0,1e99,x.mp4,,", "to: got '1e99', allowed: seconds from 0, such as 12.5"),
        ("a,t,l,0,1e999999999,x.mp4,,", "to: got '1e999999999', allowed: seconds from 0, such as 12.5"),
        ("a,t,l,00:01,1,x.mp4,,", "from: got '00:01', allowed: seconds from 0, such as 12.5"),
        ("a,t,l,1/3,1,x.mp4,,", "from: got '1/3', allowed: seconds from 0, such as 12.5"),
        ("a,t,l,2,1,x.mp4,,", "the window ends at 1 s and begins at 2 s, allowed: end > start"),
        ("a,t,l,1,1,x.mp4,,", "the window ends at 1 s and begins at 1 s, allowed: end > start"),
        ("a,t,l,1,,x.mp4,,", "to is empty, allowed: both ends of the window, or neither"),
        ("a,t,l,,1,x.mp4,,", "from is empty, allowed: both ends of the window, or neither"),
        ("a,t,l,0,1,../x.mp4,,", "file: got '../x.mp4', allowed: a path below root, relative and without '..'"),
        ("a,t,l,0,1,b/../x.mp4,,", "file: got 'b/../x.mp4', allowed: a path below root, relative and without '..'"),
        ("a,t,l,0,1,/x.mp4,,", "file: got '/x.mp4', allowed: a path below root, relative and without '..'"),
        ("a,t,l,0,1,s3://b/x.mp4,,", "file: got 's3://b/x.mp4', allowed: a path below root, relative and without '..'"),
        ("a,t,l,0,1,.,,", "file: got '.', allowed: a path below root, relative and without '..'"),
        ("a,t,l,0,1,x\0.mp4,,", "'x\\x00.mp4' is no path: embedded null byte"),
        ("a,t,l,0,1,x.mp4", "got 6 cells, allowed: 8, as in the header"),
    ],
)
def test_invalid_row(tmp_path: Path, row: str, message: str) -> None:
    touch(tmp_path, "x.mp4")
    found = from_csv(tmp_path, HEADER + "ok,t,l,,,x.mp4,,\n" + row + "\n", COLUMNS)
    (rejected,) = found.rejected
    assert rejected.reason is Reason.INVALID_ROW
    assert rejected.message == f"m.csv:3: {message}"
    assert rejected.sample_id in ("a", "m.csv:3")
    assert ids(found) == ["ok"]


def test_files_that_rows_name(tmp_path: Path) -> None:
    root = tmp_path / "root"
    touch(root, "x.wav", "d/y.wav")
    touch(tmp_path, "away/secret.wav")
    (root / "out.wav").symlink_to(tmp_path / "away/secret.wav")
    (root / "away").symlink_to(tmp_path / "away")
    (root / "near").symlink_to(root / "d")
    names = ["x.wav", "near/y.wav", "gone.wav", "d", "x.wav/y.wav", "out.wav", "away/secret.wav", "d\\y.wav", "n" * 300]
    found = from_csv(root, "p\n" + "".join(f"{name}\n" for name in names), {"audio": "p"})
    assert ids(found) == ["near/y.wav", "x.wav"]
    assert reasons(found) == {
        "gone.wav": (Reason.MISSING_FILE, f"m.csv:4: gone.wav: file is not there (root {root})"),
        "d": (Reason.UNREADABLE, "m.csv:5: d: a folder, allowed: a file"),
        "x.wav/y.wav": (
            Reason.MISSING_FILE,
            f"m.csv:6: x.wav/y.wav: a part of the path is a file, not a folder (root {root})",
        ),
        "out.wav": (
            Reason.INVALID_ROW,
            f"m.csv:7: out.wav leads to {tmp_path}/away/secret.wav, allowed: files below root ({root})",
        ),
        "away/secret.wav": (
            Reason.INVALID_ROW,
            f"m.csv:8: away/secret.wav leads to {tmp_path}/away/secret.wav, allowed: files below root ({root})",
        ),
        "d\\y.wav": (
            Reason.MISSING_FILE,
            f"m.csv:9: d\\y.wav: file is not there (root {root}); cure: write the path with forward slashes",
        ),
        "n" * 300: (Reason.UNREADABLE, f"m.csv:10: {'n' * 300}: File name too long"),
    }


def test_an_id_that_stands_twice_rejects_every_row(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav", "y.wav")
    found = from_csv(tmp_path, "i,p\na,x.wav\nb,y.wav\na,gone.wav\na,\n", {"id": "i", "audio": "p"})
    assert ids(found) == ["b"]
    assert [(rejected.sample_id, rejected.reason) for rejected in found.rejected] == [("a", Reason.DUPLICATE_ID)] * 3
    assert found.rejected[1].message == "m.csv:4: the id 'a' stands on lines 2, 4, 5; cure: make ids unique"
    found = from_csv(tmp_path, "p\nx.wav\nx.wav\ny.wav\n", {"audio": "p"})
    assert found.rejected[0].message == (
        "m.csv:2: the id 'x.wav' stands on lines 2, 3; cure: name an id column (columns.id)"
    )


def test_siblings_give_the_streams_that_have_no_column(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "a.srt", "a.jpg", "b.mp4", "b.srt", "b.vtt", "d/c.mp4", "d/c.wav", "c.srt")
    text = "v,i\na.mp4,\nb.mp4,\nd/c.mp4,a.jpg\n"
    found = from_csv(tmp_path, text, {"video": "v", "image": "i"}, siblings=True)
    assert ids(found) == ["a.mp4", "d/c.mp4"]
    first, second = found.samples.to_pylist()
    assert (first["text_uri"], first["image_uri"]) == (str(tmp_path / "a.srt"), None)
    assert second["audio_uri"] == str(tmp_path / "d/c.wav")
    assert (second["image_uri"], second["text_uri"]) == (str(tmp_path / "a.jpg"), str(tmp_path / "a.srt"))
    assert reasons(found) == {
        "b.mp4": (
            Reason.AMBIGUOUS,
            "m.csv:3: b.srt and b.vtt would both be the text of this sample; "
            "cure: keep one, or leave one out by its name",
        ),
    }
    assert table(tmp_path, {"video": "v"}).samples["text_uri"].null_count == 3


def test_lines_of_csv_are_lines_of_the_file(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav")
    text = '\ufeffp;l\r\nx.wav;"two\r\nlines"\r\n\r\ngone.wav;"a ""b"""\r\n'
    found = from_csv(tmp_path, text, {"audio": "p", "label": "l"}, delimiter=";")
    assert found.samples["label"].to_pylist() == ["two\r\nlines"]
    assert found.rejected[0].message.startswith("m.csv:5: gone.wav: file is not there")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p,l\n", "m.csv: no rows; cure: add one row a sample, or name another manifest"),
        ("", "m.csv: no column 'p' (columns.audio); columns found: none"),
        ("q;l\nx;y\n", "m.csv: no column 'p' (columns.audio); columns found: q;l; cure: is `delimiter` right?"),
        ("pp,l\nx,y\n", "m.csv: no column 'p' (columns.audio); columns found: l, pp; did you mean 'pp'?"),
        ("p,l,p\nx,y,z\n", "m.csv: 2 columns are called 'p'; cure: rename one"),
        ('p,l\nx,y\nx,"y\nz\n', "m.csv:3: not CSV: unexpected end of data; cure: check the quotes of this row"),
        ('p,l\nx,"y"z\n', "m.csv:2: not CSV: ',' expected after '\"'; cure: check the quotes of this row"),
    ],
)
def test_csv_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CatalogError, match="(?m)^" + re.escape(message)):
        from_csv(tmp_path, text, {"audio": "p", "label": "l"})


def test_manifest_that_is_not_utf8_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbfp\nx\xff.wav\n")
    with pytest.raises(CatalogError, match=r"^m\.csv:2: byte 6 of the file is not UTF-8; cure: save it as UTF-8$"):
        table(tmp_path, {"audio": "p"})
    with pytest.raises(
        CatalogError, match=r"^clips: n\.csv below .* cannot be read: .*No such file.*; cure: correct path"
    ):
        table(tmp_path, {"audio": "p"}, path="n.csv")


def test_rows_without_a_split_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav", "y.wav")
    found = from_csv(tmp_path, "p,s\nx.wav,test\ny.wav,\n", {"audio": "p", "split": "s"})
    assert "1 rows have no split in m.csv; they got one from the catalog's shares" in found.notes
    assert found.samples["split"][0].as_py() == "test"


def test_json_lines(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav", "y.wav")
    lines = [
        '{"p": "x.wav", "l": 3, "s": 0.5, "e": 1}',
        "",
        '{"p": "y.wav", "l": true}',
        '{"p": "x.wav", "l": [1]}',
        '{"p": "x.wav", "s": "a", "e": NaN}',
        '{"p": "x.wav", "p": "y.wav"}',
        '["x.wav"]',
        '{"p": "x.wav"',
        '{"p": "\\ud800.wav"}',
        '{"l": 1}',
        "[" * 100_000,
    ]
    (tmp_path / "m.jsonl").write_text("\r\n".join(lines), encoding="utf-8")
    columns = {"audio": "p", "label": "l", "start": "s", "end": "e"}
    found = table(tmp_path, columns, kind="jsonl", path="m.jsonl")
    assert [(row["sample_id"], row["label"], row["start_ns"]) for row in found.samples.to_pylist()] == [
        ("x.wav@0.5", "3", 500_000_000),
        ("y.wav", "true", None),
    ]
    assert {rejected.reason for rejected in found.rejected} == {Reason.INVALID_ROW}
    told = sorted((rejected.message for rejected in found.rejected), key=lambda text: int(text.split(":")[1]))
    assert told[:-1] == [
        "m.jsonl:4: l: got [1], allowed: text or a number",
        "m.jsonl:5: s: got 'a', allowed: seconds from 0, such as 12.5",
        "m.jsonl:6: not JSON: a key stands twice in the object",
        "m.jsonl:7: got a list, allowed: a JSON object",
        "m.jsonl:8: not JSON: Expecting ',' delimiter (column 14)",
        "m.jsonl:9: p: got '\\ud800.wav', allowed: text that UTF-8 can hold",
        "m.jsonl:10: no file is named (columns p), allowed: at least one path below root",
    ]
    assert told[-1].startswith("m.jsonl:11: not JSON: ")


def test_json_lines_without_the_column(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"path": "x.wav"}\n', encoding="utf-8")
    message = "m.jsonl: no column 'pth' (columns.audio); columns found: path; did you mean 'path'?"
    with pytest.raises(CatalogError, match="^" + re.escape(message)):
        table(tmp_path, {"audio": "pth"}, kind="jsonl", path="m.jsonl")


def test_parquet(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav", "y.wav")
    rows = pa.table(
        {
            "p": ["x.wav", "y.wav", None],
            "l": pa.array(["cat", "dog", "cat"]).dictionary_encode(),
            "s": pa.array([0.25, float("nan"), 1.0]),
            "e": pa.array([1, None, 2], pa.int32()),
        }
    )
    pq.write_table(rows, tmp_path / "m.parquet")
    columns = {"audio": "p", "label": "l", "start": "s", "end": "e"}
    found = table(tmp_path, columns, kind="parquet", path="m.parquet")
    assert [(row["sample_id"], row["label"], row["end_ns"]) for row in found.samples.to_pylist()] == [
        ("x.wav@0.25", "cat", 1_000_000_000),
        ("y.wav", "dog", None),
    ]
    assert reasons(found)["m.parquet:3"][0] is Reason.INVALID_ROW
    with pytest.raises(CatalogError, match=r"^m\.parquet: no column 'q' \(columns\.audio\); columns found: e, l, p, s"):
        table(tmp_path, {"audio": "q"}, kind="parquet", path="m.parquet")
    (tmp_path / "m.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        CatalogError, match=r"^m\.parquet: not a Parquet file that can be read: .*; cure: write it anew"
    ):
        table(tmp_path, columns, kind="parquet", path="m.parquet")


def test_decimals_are_exact_and_truth_is_no_time(tmp_path: Path) -> None:
    touch(tmp_path, "x.wav")
    rows = pa.table({"p": ["x.wav"], "s": pa.array([Decimal("0.1234567894")]), "e": pa.array([1])})
    pq.write_table(rows, tmp_path / "m.parquet")
    columns = {"audio": "p", "start": "s", "end": "e"}
    assert ids(table(tmp_path, columns, kind="parquet", path="m.parquet")) == ["x.wav@0.123456789"]
    (tmp_path / "m.jsonl").write_text('{"p": "x.wav", "s": 0, "e": true}\n', encoding="utf-8")
    (rejected,) = table(tmp_path, columns, kind="jsonl", path="m.jsonl").rejected
    assert rejected.message == "m.jsonl:1: e: got true, allowed: seconds from 0, such as 12.5"


def test_root_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> Any:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("pipeline.scan.listing.os.scandir", refuse)
    message = f"clips: root {tmp_path}: . cannot be listed: Permission denied; cure: check its rights"
    with pytest.raises(CatalogError, match="^" + re.escape(message)):
        folder(tmp_path)


# Roots behind a URL


@pytest.fixture
def memory() -> Any:
    fs = fsspec.filesystem("memory")
    fs.rm("/", recursive=True)
    yield fs
    fs.rm("/", recursive=True)


def test_folder_behind_a_url(memory: Any) -> None:
    memory.pipe(
        {"/b/media/a/x.mp4": b"12", "/b/media/a/x.srt": b"1", "/b/media/.h/y.wav": b"", "/b/media/store/z.wav": b""}
    )
    found = scan(data_set("memory://b/media", {"kind": "folder", "label_from": "folder"}, excluded=("store",)))
    (row,) = found.samples.to_pylist()
    assert (row["sample_id"], row["label"], row["video_size"]) == ("a/x", "a", 2)
    assert row["video_uri"] == row["audio_uri"] == "memory:///b/media/a/x.mp4"
    assert row["video_version"]
    with fsspec.open(row["text_uri"], "rb") as stream:
        assert stream.read() == b"1"
    assert "ignored 1 files and folders whose name begins with a dot" in found.notes
    before = row["video_version"]
    memory.pipe("/b/media/a/x.mp4", b"34")
    assert scan(data_set("memory://b/media", {"kind": "folder"})).samples["video_version"][0].as_py() != before


def test_manifest_behind_a_url(memory: Any) -> None:
    text = b"p\nd/x.mp4\ngone.mp4\nd\n"
    memory.pipe({"/b/m.csv": text, "/b/d/x.mp4": b"1", "/b/d/x.vtt": b"1"})
    found = table("memory://b", {"video": "p"}, siblings=True)
    assert ids(found) == ["d/x.mp4"]
    assert found.samples["text_uri"].to_pylist() == ["memory:///b/d/x.vtt"]
    assert reasons(found) == {
        "gone.mp4": (Reason.MISSING_FILE, "m.csv:3: gone.mp4: file is not there (root memory://b)"),
        "d": (Reason.UNREADABLE, "m.csv:4: d: a folder, allowed: a file"),
    }


def test_url_with_nothing_behind_it(memory: Any) -> None:
    with pytest.raises(CatalogError, match=r"^clips: no media files below memory://nope; cure: put media there"):
        folder("memory://nope")
    with pytest.raises(
        CatalogError, match=r"^clips: m\.csv below memory://nope cannot be read: .*; cure: correct path"
    ):
        table("memory://nope", {"video": "p"})


def test_file_system_that_cannot_tell_a_change(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/b/x.wav", b"1")
    monkeypatch.setattr("pipeline.scan.listing._VERSION_KEYS", ())
    with pytest.raises(
        CatalogError, match=r"^root: memory:///b/x\.wav has neither etag nor time of change, or no size, "
    ):
        folder("memory://b")


def test_store_behind_a_url_that_refuses(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Forbidden")

    memory.pipe("/b/m.csv", b"p\nx.wav\n")
    monkeypatch.setattr(type(memory), "ls", refuse)
    with pytest.raises(
        CatalogError, match=r"^root: memory://b/ cannot be listed: .*Forbidden; cure: check the URL and "
    ):
        table("memory://b", {"audio": "p"})
    monkeypatch.setattr(type(memory), "find", refuse)
    with pytest.raises(
        CatalogError, match=r"^root: memory://b cannot be listed: .*Forbidden; cure: check the URL and its"
    ):
        folder("memory://b")


def test_a_local_root_lists_nothing_of_what_is_not_there(tmp_path: Path) -> None:
    root = LocalRoot(str(tmp_path))
    assert root.names("gone") == ()
    assert isinstance(root.stat("gone"), Fault)
