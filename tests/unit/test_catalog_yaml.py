"""YAML 1.2 with the lines that its values stand on."""

from __future__ import annotations

import pytest
from made_catalog import FOLDER, MINIMAL, Write, problems

from pipeline.catalog import load_catalog
from pipeline.catalog.problems import dotted
from pipeline.catalog.yaml_lines import Document


def test_yaml_reads_the_core_schema_of_1_2() -> None:
    text = """\
on: on
time: 12:30
small: 1e-3
numbers: [1, 0x1F, 0o17, 012, -3, +4, 1., .5]
inf: [.inf, -.INF]
words: [yes, no, 1_000, 2020-01-01, "1", '']
rest: [~, null, true, FALSE]
empty:
tagged: !!str 1
1: key
"""
    document = Document(text)
    assert document.problems == []
    assert document.data == {
        "on": "on",
        "time": "12:30",
        "small": 0.001,
        "numbers": [1, 31, 15, 12, -3, 4, 1.0, 0.5],
        "inf": [float("inf"), float("-inf")],
        "words": ["yes", "no", "1_000", "2020-01-01", "1", ""],
        "rest": [None, None, True, False],
        "empty": None,
        "tagged": "1",
        "1": "key",
    }
    assert document.line(("numbers", 2)) == 4
    assert document.line(("nowhere", "below")) == 1


def test_aliases_stand_for_their_value(write: Write) -> None:
    text = MINIMAL.replace("features: {", "features: &both {") + "  more:\n" + FOLDER + "    features: *both\n"
    catalog = load_catalog(write(text))
    assert catalog.datasets["more"].features == catalog.datasets["clips"].features


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\na: [1\nb: 2", 3, "not YAML: while parsing a flow sequence expected ',' or ']', but got ':'"),
        ("a:\n\tb: 1", 2, "that cannot start any token; cure: indent with spaces"),
        ("a: b: c", 1, "not YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 1", 2, "not YAML: expected a single document in the stream but found another document"),
        ("a: *x", 1, "not YAML: found undefined alias 'x'"),
        ("\na: \x07", 2, "not YAML: the character U+0007 is not allowed; cure: remove it"),
        ("a:\n- !!python/name:os.x", 2, "the tag 'tag:yaml.org,2002:python/name:os.x' is not offered"),
        ("a: !!int x", 1, "got 'x', allowed: int as YAML 1.2 writes it"),
        ("a: 1\nb: 1\na: 2", 3, "duplicate key 'a'; the first is on line 1"),
        ("? [1]\n: 1", 1, "a key is a list or a mapping, allowed: text"),
        ("a: &x [1, *x]", 1, "an alias stands inside what it stands for; cure: write the value out"),
        ("[" * 5000, None, "not read: nested deeper than Python's recursion limit"),
    ],
)
def test_yaml_problem(text: str, line: int | None, message: str) -> None:
    (problem,) = Document(text).problems
    assert problem.line == line
    assert message in problem.message


def test_yaml_problem_is_told_with_its_line(write: Write) -> None:
    (line,) = problems(write("version: 1\nstore: [\n"))
    assert line.startswith("data_catalog.yaml:3: not YAML: while parsing a flow node")


def test_place_is_written_as_people_do() -> None:
    assert dotted(("datasets", "a", "prepare", 0, "x")) == "datasets.a.prepare[0].x"
