"""Time travel on the command line: log, diff, release, verify and gc over real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from features.errors import StoreError
from pipeline.catalog import load_catalog
from pipeline.cli import app
from pipeline.run import Run, published

if TYPE_CHECKING:
    from conftest import World


def call(world: World, command: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, [command, "grain", *arguments, "--catalog", str(world.catalog)])


def told(world: World, command: str, *arguments: str) -> Any:
    result = call(world, command, *arguments, "--json")
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def error(world: World, command: str, *arguments: str) -> str:
    result = call(world, command, *arguments)
    assert isinstance(result.exception, StoreError)
    return str(result.exception)


@pytest.fixture
def nights(world: World) -> World:
    """1: all; 2: one sample more, one less, another damaged; 3: another option; 4: rebuilt."""
    world.run()
    world.add(40)
    for suffix in (".png", ".srt"):
        (world.media / "day" / f"s01{suffix}").unlink()
    (world.media / "day" / "s03.png").write_bytes(b"no image")
    world.run()
    world.edit(world.catalog, ':Brightness"', ':Brightness", options: {gain: -1.0}')
    world.run()
    world.run(from_nothing=True)
    return world


def test_log_diff_release_verify_and_gc(nights: World) -> None:
    log = told(nights, "log")
    assert [(entry["version"], entry["samples"], entry["quarantined"]) for entry in log] == [
        (4, 12, 1),
        (3, 12, 1),
        (2, 12, 1),
        (1, 12, 0),
    ]
    assert log[3]["changed"] == "brightness: new (12); words: new (12)"
    assert log[2]["changed"] == (
        "brightness: new (1), bytes or window changed (1), removed (1); words: new (1), removed (1)"
    )
    assert "brightness gain 1.0 -> -1.0 (11)" in log[1]["changed"]
    assert log[0]["changed"].startswith("rebuilt: brightness: new (12)")
    assert log[1]["rows"] == {"aligned.brightness": 12, "aligned.words": 12, "brightness": 11, "words": 12}

    first = told(nights, "diff", "1", "2")
    kinds = ("added", "removed", "changed", "relabelled", "unchanged")
    assert [first["features"]["brightness"][kind] for kind in kinds] == [1, 2, 0, 0, 10]
    assert [first["features"]["words"][kind] for kind in kinds] == [1, 1, 0, 0, 11]
    assert first["samples"] == {"added": 1, "removed": 1, "relabelled": 0, "unchanged": 11}
    assert [entry[:2] for entry in first["entered"]] == [["day/s03", "brightness"]]

    second = told(nights, "diff", "2", "3")["features"]
    assert second["brightness"]["recipes"] == {"brightness gain 1.0 -> -1.0": 11}
    assert second["brightness"]["shift"]["mean"] == pytest.approx(2), "the opposite direction"
    assert [second["words"][kind] for kind in kinds] == [0, 0, 0, 0, 12]
    aligned = second["aligned.words"]
    assert (aligned["changed"], aligned["same_bytes"]) == (11, 11), "aligned anew beside another input, to the same"

    assert told(nights, "diff", "3")["features"]["brightness"]["unchanged"] == 11, "a rebuild makes the same rows"

    assert "paper is snapshot 2." in call(nights, "release", "paper", "--snapshot", "2").stdout
    assert told(nights, "log")[2]["releases"] == ["paper"]
    for version in ("1", "paper", "3", "4"):
        assert told(nights, "verify", "--snapshot", version)["faults"] == []

    would = told(nights, "gc", "--keep", "1", "--dry-run")
    did = told(nights, "gc", "--keep", "1")
    assert {**would, "dry_run": False} == did
    assert (did["kept"], did["removed"], did["resumable"]) == ([2, 4], [1, 3], 0)
    assert did["bytes"] > 0
    assert [entry["removed"] for entry in told(nights, "log")] == [False, True, False, True]
    for version in ("paper", "4"):
        assert told(nights, "verify", "--snapshot", version)["faults"] == []
    assert told(nights, "show", "--snapshot", "paper")["features"]["brightness"]["rows"] == 11
    assert [row["sample_id"] for row in told(nights, "quarantine", "--snapshot", "paper")] == ["day/s03"]
    gone = "snapshot 3 was removed by gc (kept: 2, 4; releases: paper = 2)"
    for command in (("show", "--snapshot", "3"), ("diff", "3", "4"), ("train", "--snapshot", "3")):
        assert gone in error(nights, *command)
    assert nights.run().computed == 0
    assert "paper is no release any more." in call(nights, "release", "paper", "--delete").stdout
    assert told(nights, "gc", "--keep", "1")["removed"] == [2]


def test_what_people_read(nights: World) -> None:
    log = call(nights, "log").stdout
    assert "snapshot 4" in log.splitlines()[0]
    assert "12 samples, 1 in quarantine; rows: brightness 11, words 12" in log
    compared = call(nights, "diff", "2", "3").stdout
    assert "brightness: brightness gain 1.0 -> -1.0 (11)" in compared
    assert "brightness: 1 - cosine: 2 on average, at most 2" in compared
    assert "aligned.words: 11 of 11 changed rows hold the same numbers" in compared
    assert "Into quarantine: day/s03, brightness" in call(nights, "diff", "1", "2").stdout
    assert "all as it must be" in call(nights, "verify").stdout
    would = call(nights, "gc", "--keep", "2", "--dry-run").stdout
    assert "Snapshots that would go: 1, 2." in would
    assert "Kept: 3, 4." in would


def test_verify_exits_with_1_and_names_the_file(world: World) -> None:
    world.run()
    file = published(load_catalog(world.catalog), "grain").files_of("words")[0]
    path = Path(world.folder, "store", "grain", file.path)
    path.write_bytes(path.read_bytes()[:-9])
    result = call(world, "verify")
    assert result.exit_code == 1
    assert file.path in "".join(result.stdout.splitlines())
    assert "1 faults; cure: gristmill rebuild grain" in " ".join(result.stdout.split())


def test_gc_keeps_what_a_dead_run_finished_and_the_next_run_uses_it(world: World) -> None:
    world.run()
    world.edit(world.catalog, ':Brightness"', ':Brightness", options: {gain: 2.0}')
    killed = Run(load_catalog(world.catalog), "grain")
    killed.scan()
    killed.plan()
    killed.fit()
    killed.extract()
    assert told(world, "gc", "--keep", "1")["resumable"] == 3
    report = world.run()
    assert (report.computed, report.resumed) == (12, 12)
    assert told(world, "verify")["faults"] == []


def test_rows_that_were_not_asked_for_are_no_fault(world: World) -> None:
    world.run()
    world.add(40)
    world.edit(world.catalog, ':Brightness"', ':Brightness", options: {gain: 2.0}')
    assert CliRunner().invoke(app, ["run", "grain", "--feature", "words", "-c", str(world.catalog)]).exit_code == 0
    assert told(world, "verify")["faults"] == []
    found = told(world, "diff", "1", "2")["features"]
    assert (found["words"]["added"], found["brightness"]["added"]) == (1, 0)
    assert told(world, "log")[0]["changed"] == "words: new (1)"
