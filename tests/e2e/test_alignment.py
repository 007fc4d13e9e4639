"""Timelines on whole runs: sound, pictures and captions of six samples, with steps of a user."""

from __future__ import annotations

import pickle
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_talk import SAMPLES, Talk, talking
from pages import read

from features.errors import CatalogError
from pipeline import align as alignment
from pipeline.loader.reader import open_store
from pipeline.store.shard import descriptions
from pipeline.store.verify import verify

DOCS = Path(__file__).resolve().parents[2] / "docs"
MS = 1_000_000


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    with talking(tmp_path) as found:
        yield found


@pytest.mark.parametrize(
    ("entry", "times", "words"),
    [
        ("text: segments", [(0.25, 0.75), (1.0, 1.5)], "the segments of the sample's text"),
        ("text: words", [(0.25, 0.75), (1.0, 1.5)], "the words of the sample's text"),
        ("text: sentences", [(0.25, 0.75), (1.0, 1.5)], "the sentences of the sample's text"),
        ("rows_of: length", [(0.25, 0.75), (1.0, 1.5)], "the rows of length"),
        ("intervals: {path: marks.csv}", [(0.0, 1.0), (0.5, 0.7)], "the intervals of marks.csv"),
        ("grid: 0.8", [(0.0, 0.8), (0.8, 1.6), (1.6, 2.0)], "windows of 0.8 s"),
        (
            "grid: {length: 1, hop: 0.5, phase: 0.25}",
            [(0.25, 1.25), (0.75, 1.75), (1.25, 2.0)],
            "windows of 1 s, one every 0.5 s, the first +0.25 s from where the sample begins",
        ),
        (
            "text: segments, clocks: {text: {offset: 0.1, drift_ppm: 1000}}",
            [(0.35025, 0.85075), (1.101, 1.6015)],
            "the segments of the sample's text",
        ),
    ],
)
def test_every_timeline_gives_every_feature_the_same_rows(
    talk: Talk, entry: str, times: list[tuple[float, float]], words: str
) -> None:
    talk.align(entry)
    report = talk.run()
    assert talk.times("a") == times
    rows = {feature: talk.aligned(feature) for feature in ("level", "length", "shade")}
    for sample in SAMPLES:
        for name in ("start_ns", "end_ns"):
            assert len({tuple(rows[feature][sample][name]) for feature in rows}) == 1
    assert not any(rows["shade"]["f"]["valid"])
    assert set(rows["shade"]["f"]["coverage"]) <= {0.0}
    assert rows["shade"]["b"]["values"] == [10.0] * len(rows["shade"]["b"]["start_ns"])
    assert verify(talk.snapshot).faults == ()
    empty = entry.startswith("intervals")
    assert (rows["level"]["f"]["length"] == 0) == empty
    told = "f: nothing to make the timeline of (intervals): the aligned rows are empty"
    assert report.notices.count(told) == empty
    page = read(report.page)
    assert page.all(id="missing") == []
    shown = page.one("section", id="alignment")
    assert shown.one("span", id="timeline").text == words
    lanes = shown.all("div", **{"class": "lane"})
    assert any(lane.text.strip().startswith("level, aligned") for lane in lanes)
    assert any("moved by +0.100 s and +1000 ppm" in lane.text for lane in lanes) == ("clocks" in entry)
    assert (talk.run().aligned_rows_written, talk.run().published) == (0, False)


def test_pooling_to_its_own_rows_is_the_identity(talk: Talk) -> None:
    talk.align("rows_of: level")
    talk.run()
    plain = {row["sample_id"]: row for row in talk.snapshot.read("level").to_pylist()}
    for sample, row in talk.aligned("level").items():
        for name in ("start_ns", "end_ns", "values", "valid"):
            assert row[name] == plain[sample][name]
        assert set(row["coverage"]) == {1.0}


def test_a_table_of_intervals_may_be_parquet_and_in_any_order(talk: Talk) -> None:
    rows = {"who": ["b", "a", "a"], "from": [1.0, 0.5, 0.0], "to": [1.5, 0.5, 2.0]}
    pq.write_table(pa.table(rows), talk.media / "marks.parquet")
    talk.align("intervals: {path: marks.parquet, id: who, start: from, end: to}")
    talk.run()
    assert talk.times("a") == [(0.0, 2.0), (0.5, 0.5)]
    assert talk.aligned("level")["a"]["values"][2] == pytest.approx(0.5 * 0.55 / 2, rel=1e-3), "the row at 0.5 s"


def test_a_faulty_row_of_the_table_costs_its_sample_only(talk: Talk) -> None:
    talk.align("intervals: {path: marks.csv}")
    talk.table("a,0,1\nb,1,0.5\nc,x,1\nd,0,1\ne,0,1\nf,0,1\nz,0,1\n")
    report = talk.run()
    rows = {row["sample_id"]: row for row in talk.snapshot.quarantine.to_pylist()}
    assert {sample: row["reason"] for sample, row in rows.items()} == {"b": "invalid_row", "c": "invalid_row"}
    assert rows["b"]["message"] == "marks.csv: row 2: ends before it starts, allowed: start <= end"
    assert rows["c"]["message"] == "marks.csv: row 3: start: got 'x', allowed: seconds"
    assert set(talk.aligned("level")) == set("adef")
    assert report.notices[-1] == "marks.csv: intervals of 1 ids that no sample has; the first: 'z'"
    assert verify(talk.snapshot).faults == ()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("id,start,end\n", r"marks.csv: no column 'sample_id' \(align.intervals.id\); columns found: end, id, start"),
        ("sample_id,start,end\na,1\n", "marks.csv: not CSV that can be read: .*Expected 3 columns, got 2"),
    ],
)
def test_a_table_that_cannot_be_read_stops_the_run(talk: Talk, table: str, message: str) -> None:
    talk.align("intervals: {path: marks.csv}")
    (talk.media / "marks.csv").write_text(table)
    with pytest.raises(CatalogError, match=message):
        talk.run()


def test_captions_are_no_words_and_a_sample_without_text_has_no_rows(talk: Talk) -> None:
    talk.align("text: words")
    talk.caption("b", (0, 1, "two words"))
    (talk.media / "c.srt").unlink()
    report = talk.run()
    (reason,) = {row["reason"] for row in talk.snapshot.quarantine.to_pylist()}
    assert reason == "bad_timestamps"
    assert set(talk.aligned("level")) == set("acdef")
    assert talk.aligned("level")["c"]["length"] == 0
    assert "c: nothing to make the timeline of (text): the aligned rows are empty" in report.notices


def test_every_policy_of_the_catalog_makes_the_rows_that_it_says(talk: Talk) -> None:
    """Rows of 100 ms that grow: what becomes of them in (0.25, 0.75) and (1, 1.5) can be said row by row."""
    talk.align("text: segments")
    talk.run()
    level = np.reshape(
        {row["sample_id"]: row for row in talk.snapshot.read("level").to_pylist()}["a"]["values"], (20, 2)
    )
    weights = np.zeros((2, 20))
    weights[0, 2:8] = [0.5, 1, 1, 1, 1, 0.5]
    weights[1, 10:15] = 1
    expected = {
        "mean": weights @ level / 5,
        "sum": weights @ level,
        "max": level[[7, 14]],
        "first": level[[2, 10]],
        "last": level[[7, 14]],
        "nearest": level[[4, 12]],
        "linear": [(level[4] + level[5]) / 2, level[12]],
        "histogram": [[0, 6], [0, 5]],
        "{policy: nearest, tolerance: 0.2}": level[[4, 12]],
        "{policy: histogram, bins: [0, 0.1, 0.3]}": [[2, 4, 0, 4], [0, 2, 0, 0]],
    }
    for policy, values in expected.items():
        talk.align(f"text: segments, policies: {{level: {policy}}}")
        report = talk.run()
        assert report.aligned_rows_written == (0 if policy == "mean" else 6)
        row = talk.aligned("level")["a"]
        np.testing.assert_allclose(np.ravel(row["values"]), np.ravel(values), rtol=1e-6, err_msg=policy)
        assert row["valid"] == [True, True]


def test_bins_make_wider_rows_that_a_snapshot_knows_of(talk: Talk) -> None:
    talk.align("grid: 1, policies: {level: {policy: histogram, bins: [0, 0.2, 0.4, 2]}, length: histogram}")
    report = talk.run()
    assert talk.aligned("level")["a"]["values"] == [8, 2, 0, 4, 4, 2, 0, 6, 4, 0, 0, 10]
    assert talk.aligned("length")["a"]["values"] == [1.0, 1.0]
    assert (talk.snapshot.dim("level"), talk.snapshot.dim("aligned.level")) == (2, 6)
    assert talk.snapshot.summary()["features"]["aligned.level"]["dim"] == 6
    page = read(report.page)
    assert page.all(id="missing") == []
    assert page.one("section", id="alignment").all("div", **{"class": "lane"}) != []
    loaded = open_store(talk.folder / "store", "talk").samples(aligned=True)
    assert loaded.dims == {"level": 6, "length": 1, "shade": 1}
    assert verify(talk.snapshot).faults == ()


def test_workers_write_the_bytes_that_this_process_writes(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    talk.run()
    monkeypatch.setattr(alignment, "WORTH_WORKERS", 0)
    opened: list[str] = []
    engine = sys.modules["pipeline.run"].open_engine
    monkeypatch.setattr("pipeline.run.open_engine", lambda s, *rest: opened.append(s.kind) or engine(s, *rest))
    talk.align("rows_of: level")
    assert talk.run(engine="dask").aligned_rows_written == 18
    assert opened == ["dask"], "nothing is to be extracted"
    spread = {file.digest for file in talk.snapshot.files}
    talk.run(from_nothing=True)
    assert {file.digest for file in talk.snapshot.files} == spread


def test_shards_that_were_aligned_before_a_crash_are_not_aligned_again(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[int] = []
    plain = alignment.align_shard

    def crash(work: alignment.AlignWork) -> Any:
        if done:
            raise KeyboardInterrupt
        done.append(work.shard)
        return plain(pickle.loads(pickle.dumps(work)))

    monkeypatch.setattr(alignment, "align_shard", crash)
    with pytest.raises(KeyboardInterrupt):
        talk.run()
    again: list[int] = []
    monkeypatch.setattr(alignment, "align_shard", lambda work: again.append(work.shard) or plain(work))
    assert talk.run().aligned_rows_written == 18
    assert (len(done), len(again)) == (1, 1)
    assert done != again


def test_the_columns_explain_themselves(talk: Talk) -> None:
    talk.run()
    (file, *_) = talk.snapshot.files_of("aligned.level")
    schema = pq.read_schema(talk.folder / "store" / "talk" / file.path)
    told = descriptions(schema)
    assert list(told) == schema.names
    assert all(told.values())
    assert told["coverage"] == "per interval: share of it, 0 to 1, in which the feature has a valid row"
    plain = pq.read_schema(talk.folder / "store" / "talk" / talk.snapshot.files_of("level")[0].path)
    assert descriptions(plain)["length"] == "T: rows of the sequence"


@pytest.mark.parametrize("tool", ["pandas", "polars"])
def test_what_the_documentation_shows_reads_the_aligned_rows(talk: Talk, tool: str) -> None:
    talk.run()
    (talk.media / "f.srt").unlink()
    assert talk.run().aligned_rows_written == 3, "f has no captions: rows of length 0"
    blocks = dict(re.findall(r"```\w+ title=(\S+)\n(.*?)```", (DOCS / "alignment.md").read_text(), re.DOTALL))
    names: dict[str, Any] = {"folder": str(talk.folder / "store" / "talk"), "feature": "level"}
    exec(blocks[tool], names)  # the page's own code
    frame = names["frame"]
    rows = frame.rows(named=True) if tool == "polars" else frame.to_dict("records")
    assert len(rows) == 10
    expected = talk.aligned("level")
    for k, found in enumerate(rows):
        own, place = expected[found["sample_id"]], k % 2
        assert found["start_ns"] == own["start_ns"][place]
        assert found["coverage"] == own["coverage"][place]
        assert list(found["values"]) == own["values"][2 * place : 2 * place + 2]
    assert names["notes"]["coverage"].startswith("per interval: share")
    assert names["said"]["timeline"] == {"text": "segments"}
