"""What each of many edits aligns anew: exactly the rows that it affects, and what a run from nothing would make."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from made_talk import Talk, talking
from PIL import Image as Pillow

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    with talking(tmp_path) as found:
        yield found


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
