"""The scan of manifests: rows that are samples, and what is wrong with those that are not."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_scan import from_csv, ids, reasons, table, touch

from features.errors import CatalogError, Reason

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
