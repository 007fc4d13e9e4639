"""``gristmill init`` in a folder with a manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_folder import Make, accept, files, maker, written

from pipeline.init import propose
from pipeline.scan import scan

CSV = "clip_id,path,split,label,begin,end,note\n"


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return maker(tmp_path)


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
