"""Timelines, clocks and their keys on whole runs: sound, pictures and captions of six samples, with steps of a user."""

from __future__ import annotations

import os
import pickle
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from pages import read
from PIL import Image as Pillow

from features.errors import CatalogError
from pipeline import align as alignment
from pipeline.catalog import load_catalog
from pipeline.drift import disagreeing, drift
from pipeline.loader.reader import open_store
from pipeline.record import RunReport
from pipeline.run import published, run_dataset
from pipeline.store import Snapshot
from pipeline.store.shard import descriptions
from pipeline.store.verify import verify

DOCS = Path(__file__).resolve().parents[2] / "docs"
MS = 1_000_000
SAMPLES = tuple("abcdef")
STEPS = '''\
"""Steps of a user."""
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from features.types import FeatureSequence


@dataclass(frozen=True, kw_only=True)
class Level:
    """Mean absolute amplitude, and twice that."""

    name: ClassVar[str] = "level"
    stream: ClassVar[str] = "audio"
    numerics: ClassVar[tuple[str, ...]] = ()
    columns: ClassVar[tuple[str, ...]] = ("amplitude", "double")
    dim: ClassVar[int] = 2
    milliseconds: int = 100

    def __call__(self, batch, device):
        found = []
        for clip in batch:
            step = clip.sample_rate * self.milliseconds // 1000
            count = clip.samples.shape[1] // step
            level = np.abs(clip.samples[0, : count * step]).reshape(count, step).mean(1).astype("f4")
            start = clip.start_ns + np.arange(count) * self.milliseconds * 1_000_000
            values = np.stack([level, 2 * level], 1)
            end = start + self.milliseconds * 1_000_000
            found.append(FeatureSequence(values=values, start_ns=start, end_ns=end))
        return found


@dataclass(frozen=True, kw_only=True)
class Length:
    """Letters of each caption."""

    name: ClassVar[str] = "length"
    stream: ClassVar[str] = "text"
    numerics: ClassVar[tuple[str, ...]] = ()
    dim: ClassVar[int] = 1

    def __call__(self, batch, device):
        return [
            FeatureSequence.from_rows(
                np.array([[len(s.text)] for s in text.segments], "f4").reshape(-1, 1), [s.span for s in text.segments]
            )
            for text in batch
        ]


@dataclass(frozen=True, kw_only=True)
class Shade:
    """Mean of a picture."""

    name: ClassVar[str] = "shade"
    stream: ClassVar[str] = "image"
    numerics: ClassVar[tuple[str, ...]] = ()
    dim: ClassVar[int] = 1

    def __call__(self, batch, device):
        return [FeatureSequence.from_rows(x.pixels.mean()[None, None].astype("f4"), [x.span]) for x in batch]
'''
CATALOG = """\
version: 1
store: ./store
engine: {kind: serial, workers: 2, device: cpu}
datasets:
  talk:
    root: ./media
    source: {kind: folder}
    features:
      level: {extractor: "talk_steps:Level"}
      length: {extractor: "talk_steps:Length"}
      shade: {extractor: "talk_steps:Shade"}
    align: {text: segments}
    max_failed: 0.5
    shard_samples: 4
"""


def cues(*lines: tuple[float, float, str]) -> str:
    def clock(seconds: float) -> str:
        return f"00:00:{seconds:06.3f}".replace(".", ",")

    return "".join(f"{n}\n{clock(b)} --> {clock(e)}\n{text}\n\n" for n, (b, e, text) in enumerate(lines, 1))


class Talk:
    """Two seconds of sound that grows louder, two captions and a picture for each sample; ``f`` has no picture."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.media, self.catalog = folder, folder / "media", folder / "data_catalog.yaml"
        self.media.mkdir(parents=True)
        self.catalog.write_text(CATALOG)
        (folder / "talk_steps.py").write_text(STEPS)
        for i, name in enumerate(SAMPLES):
            soundfile.write(self.media / f"{name}.wav", np.linspace(0, 0.5, 16_000), 8_000)
            self.caption(name, (0.25, 0.75, "one."), (1.0, 1.5 + i / 100, "two"))
            if name != "f":
                Pillow.new("L", (8, 6), 10 * i).save(self.media / f"{name}.png")
        self.table("a,0,1\na,0.5,0.7\n" + "".join(f"{name},0.5,{1 + i / 10}\n" for i, name in enumerate("bcde")))

    def caption(self, name: str, *lines: tuple[float, float, str]) -> None:
        self.write(self.media / f"{name}.srt", cues(*lines))

    def table(self, rows: str) -> None:
        self.write(self.media / "marks.csv", "sample_id,start,end\n" + rows)

    def align(self, entry: str) -> None:
        text = self.catalog.read_text()
        self.catalog.write_text(re.sub(r"align: .*", f"align: {{{entry}}}", text))

    def write(self, path: Path, text: str) -> None:
        before = path.stat().st_mtime_ns if path.exists() else None
        path.write_text(text)
        if before is not None:
            os.utime(path, ns=(before, before + 1_000_000))

    def run(self, **options: Any) -> RunReport:
        sys.modules.pop("talk_steps", None)
        return run_dataset(load_catalog(self.catalog), "talk", **options)

    @property
    def snapshot(self) -> Snapshot:
        return published(load_catalog(self.catalog), "talk")

    def aligned(self, feature: str) -> dict[str, dict[str, Any]]:
        return {row["sample_id"]: row for row in self.snapshot.read(f"aligned.{feature}").to_pylist()}

    def times(self, sample: str, feature: str = "level") -> list[tuple[float, float]]:
        row = self.aligned(feature)[sample]
        return [(b / 1e9, e / 1e9) for b, e in zip(row["start_ns"], row["end_ns"], strict=True)]


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    before = list(sys.path)
    yield Talk(tmp_path / "talk")
    sys.path[:] = before
    sys.modules.pop("talk_steps", None)


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


@dataclass(frozen=True)
class Edit:
    """An edit and how many aligned rows (a row a sample and feature) it computes again; ``text: segments`` before."""

    what: str
    do: Callable[[Talk], None]
    aligned: int
    before: str = "text: segments"


def edit(entry: str) -> Callable[[Talk], None]:
    return lambda talk: talk.align(entry)


def picture(talk: Talk) -> None:
    Pillow.new("L", (8, 6), 99).save(talk.media / "b.png")


def captions(talk: Talk) -> None:
    talk.caption("b", (0.25, 0.75, "one."), (1.0, 1.9, "two"))


def row(talk: Talk) -> None:
    talk.write(talk.media / "marks.csv", (talk.media / "marks.csv").read_text().replace("b,0.5", "b,0.4"))


def order(talk: Talk) -> None:
    header, *rows = (talk.media / "marks.csv").read_text().splitlines()
    talk.write(talk.media / "marks.csv", "\n".join([header, *reversed(rows)]) + "\n")


TABLE, GRID = "intervals: {path: marks.csv}", "grid: 0.5"
EDITS = [
    Edit("another timeline", edit("grid: 0.5"), 18),
    Edit("another hop of a grid", edit("grid: {length: 0.5, hop: 0.25}"), 18, GRID),
    Edit("the hop of a grid written out", edit("grid: {length: 0.5}"), 0, GRID),
    Edit("the policy of one feature", edit("text: segments, policies: {level: max}"), 6),
    Edit(
        "a tolerance",
        edit("text: segments, default: {policy: nearest, tolerance: 1}"),
        18,
        "text: segments, default: nearest",
    ),
    Edit("the default policy written out", edit("text: segments, default: mean"), 0),
    Edit("the captions of one sample, which are the timeline", captions, 3),
    Edit("the captions of one sample, on a grid", captions, 3, GRID),
    Edit("the captions of one sample, on a table's timeline", captions, 1, TABLE),
    Edit("a picture of one sample, on the captions' timeline", picture, 1),
    Edit("a picture of one sample, on a grid", picture, 3, GRID),
    Edit("a row of the table", row, 3, TABLE),
    Edit("the rows of the table in another order", order, 0, TABLE),
    Edit("the offset of a clock", edit("text: segments, clocks: {audio: {offset: 0.1}}"), 18),
    Edit("what is flagged", edit("text: segments, durations: {tolerance: 9}"), 0),
    Edit("what is put into quarantine", edit("text: segments, durations: {then: quarantine}"), 18),
]


@pytest.mark.parametrize("case", EDITS, ids=[case.what for case in EDITS])
def test_an_edit_aligns_exactly_what_it_affects(talk: Talk, case: Edit) -> None:
    talk.align(case.before)
    assert talk.run().aligned_rows_written == 18
    case.do(talk)
    report = talk.run()
    assert report.aligned_rows_written == case.aligned
    kept = {name: talk.aligned(name) for name in ("level", "length", "shade")}
    talk.run(from_nothing=True)
    for name, rows in kept.items():
        made = talk.aligned(name)
        for found in (*rows.values(), *made.values()):
            del found["shard"]
        assert rows == made
    assert talk.run().aligned_rows_written == 0


def test_the_table_of_edits_is_the_one_of_the_documentation() -> None:
    page = (DOCS / "alignment.md").read_text()
    part = page.partition("## What is aligned again")[2].partition("\n## ")[0]
    table = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", part, re.MULTILINE)[1:]
    told = dict(table)
    meant = {0: "nothing", 1: "that feature of that sample", 3: "that sample", 6: "that feature", 18: "everything"}
    assert told == {case.what: meant[case.aligned] for case in EDITS}


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


# Clocks


def film(path: Path, *, late: float, seconds: float = 8.0, sound: float | None = None) -> None:
    """A picture that jumps at irregular times, and a click at each of them, ``late`` seconds later."""
    jumps = np.cumsum(np.random.default_rng(5).uniform(0.45, 1.1, 30))
    jumps = jumps[jumps < seconds - 1]
    rng = np.random.default_rng(1)
    base = rng.integers(0, 255, (12, 16)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        audio = out.add_stream("aac", rate=16_000, layout="mono")
        for k in range(round(seconds * 25)):
            moved = 3 * int(np.searchsorted(jumps, k / 25 + 1e-9, side="right"))
            rgb = np.roll(base, moved, axis=1)[..., None].repeat(3, 2)
            out.mux(video.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        out.mux(video.encode(None))
        noise = 0.001 * rng.standard_normal(round((sound or seconds) * 16_000))
        for jump in jumps:
            first = round((jump + late) * 16_000)
            part = noise[first : first + 1600]
            part += 0.5 * rng.standard_normal(len(part)) * np.exp(-np.arange(len(part)) / 400)
        frame = av.AudioFrame.from_ndarray(noise[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = 16_000, Fraction(1, 16_000), 0
        out.mux(audio.encode(frame))
        out.mux(audio.encode(None))


FILMS = """\
version: 1
store: ./store
engine: {kind: serial, device: cpu}
datasets:
  talk:
    root: ./media
    source: {kind: folder}
    features:
      level: {extractor: "talk_steps:Level", options: {milliseconds: 20}}
      video.flow: {options: {rate: 25}}
    align: {grid: 0.5}
"""


def test_offsets_are_estimated_with_their_confidence_and_applied(talk: Talk) -> None:
    for path in talk.media.iterdir():
        path.unlink()
    lateness = {"early": -0.12, "late": 0.3, "true": 0.0}
    for name, late in lateness.items():
        film(talk.media / f"{name}.mp4", late=late)
    rng = np.random.default_rng(0)
    soundfile.write(talk.media / "unsure.wav", 0.1 * rng.standard_normal(128_000), 16_000)
    film(talk.media / "unsure.mp4", late=0.0)
    talk.catalog.write_text(FILMS)
    talk.run()
    before = {row["sample_id"]: row for row in drift(talk.snapshot).to_pylist()}
    assert {row["audio_offset"] for row in before.values()} == {0.0}
    estimate = "estimate: {from: [level/amplitude, video.flow/mean_speed]}"
    talk.align(f"grid: 0.5, clocks: {{audio: {{{estimate}}}}}")
    report = talk.run()
    assert report.aligned_rows_written == 8
    found = {row["sample_id"]: row for row in drift(talk.snapshot).to_pylist()}
    for name, late in lateness.items():
        assert found[name]["audio_offset"] == pytest.approx(-late, abs=0.06), "frames of 40 ms against rows of 20 ms"
        assert found[name]["audio_confidence"] >= 0.4
        shift = found[name]["start_offset"] - before[name]["start_offset"]
        assert shift == pytest.approx(found[name]["audio_offset"], abs=1e-6)
    assert (found["unsure"]["audio_offset"], found["unsure"]["audio_confidence"] < 0.4) == (0.0, True)
    audio, video = read(report.page).one("table", id="clocks").all("tr")[1:]
    assert [cell.text for cell in audio.all("td")[1:2]] == ["4"]
    assert re.match(r"[+-]0\.\d{3} s \([+-]0\.\d{3}\)", " ".join(audio.all("td")[5].text.split()))
    assert video.all("td")[5].text == "as it is"
    told = "unsure: the offset of audio is not sure enough (confidence below 0.4): the clock is left as it is"
    assert report.notices[-1] == told
    assert verify(talk.snapshot).faults == ()


def test_streams_that_disagree_are_flagged_or_put_into_quarantine(talk: Talk) -> None:
    for path in talk.media.iterdir():
        path.unlink()
    for name, sound in (("same", None), ("short", 3.0)):
        film(talk.media / f"{name}.mp4", late=0.0, seconds=5.0, sound=sound)
    talk.catalog.write_text(FILMS)
    report = talk.run()
    told = report.notices[-1]
    assert re.fullmatch(r"short: the sound lasts 3.0\d\d s and the picture 4.960 s; allowed: a difference of 1 s", told)
    page = read(report.page).one("section", id="alignment")
    assert [row.all("td")[0].text for row in page.one("table", id="clocks").all("tr")[1:]] == ["audio", "video"]
    assert "1 sample by more than 1 s" in page.one("p", id="beside").text
    assert re.fullmatch(
        r"short: sound 3.0\d\d s, picture 4.960 s", page.one("ul", id="disagree").one("li").text.strip()
    )
    table = drift(talk.snapshot)
    assert disagreeing(table)["sample_id"].to_pylist() == ["short"]
    row = table.to_pylist()[1]
    assert row["duration_difference"] == pytest.approx(-1.9, abs=0.1)
    assert (row["video_gaps"], row["audio_start"], row["text_start"]) == (0.0, 0.0, None)
    assert all(descriptions(table.schema).values())
    talk.align("grid: 0.5, durations: {tolerance: 0.5, then: quarantine}")
    talk.catalog.write_text(talk.catalog.read_text() + "    max_failed: 0.5\n")
    report = talk.run()
    assert report.quarantine_by_reason == {"streams_disagree": 2}
    assert set(talk.aligned("level")) == {"same"}
    assert verify(talk.snapshot).faults == ()
    assert (talk.run().published, talk.run().quarantine_by_reason) == (False, {"streams_disagree": 2})
