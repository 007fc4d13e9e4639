"""The command line as a user meets it: what it prints, and the exit codes that scripts rely on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import World

ROOT = Path(__file__).resolve().parents[2]


def gristmill(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, timeout=120)


def test_plan_run_show_quarantine(world: World) -> None:
    (world.media / "day" / "s01.png").write_bytes(b"GIF89a, so to say")
    planned = gristmill("plan", "grain", "--json", folder=world.folder)
    assert planned.returncode == 0, planned.stderr
    document = json.loads(planned.stdout)["grain"]
    assert document["reasons"] == {"brightness": {"new": 12}, "words": {"new": 12}}
    assert document["estimate"]["seconds"] is document["estimate"]["bytes"] is None, "nothing was ever measured"

    run = gristmill("run", folder=world.folder)
    assert run.returncode == 0, run.stderr
    assert "Published snapshot 1: 23 rows computed." in run.stdout
    assert "Quarantine: 1 " in run.stdout

    strict = gristmill("run", "--strict", "--json", folder=world.folder)
    assert strict.returncode == 3
    (report,) = json.loads(strict.stdout)
    assert report["computed"] == 0
    counts = {"samples_in": 12, "done": 0, "unchanged": 11, "quarantined": 1, "removed": 0, "deferred": 0}
    assert report["samples"] == counts

    shown = gristmill("show", "grain", "--json", folder=world.folder)
    found = json.loads(shown.stdout)
    assert found["features"]["brightness"]["rows"] == 11
    assert found["features"]["aligned.words"]["rows"] == 12
    assert all(Path(file).is_file() for file in found["features"]["brightness"]["files"])

    quarantine = gristmill("quarantine", "grain", folder=world.folder)
    assert "day/s01" in quarantine.stdout
    (row,) = json.loads(gristmill("quarantine", "grain", "--json", folder=world.folder).stdout)
    assert row["feature"] == "brightness"
    assert gristmill("quarantine", "grain", "--reason", "silent", folder=world.folder).stdout.startswith("The quarant")


def test_a_plan_says_what_it_will_cost_and_lists_it(world: World) -> None:
    (world.media / "day" / "s01.png").write_bytes(b"GIF89a, so to say")
    assert gristmill("run", "--serial", folder=world.folder).returncode == 0
    idle = gristmill("plan", folder=world.folder)
    assert "Nothing to compute." in idle.stdout
    assert gristmill("plan", "--samples", folder=world.folder).stdout == ""
    world.edit(world.catalog, ':Brightness"', ':Brightness", options: {gain: 2.0}')
    planned = gristmill("plan", "grain", "--json", folder=world.folder)
    costs = json.loads(planned.stdout)["grain"]["estimate"]
    assert costs["features"]["brightness"]["count"] == costs["decode"]["image"]["count"] == 12
    assert costs["features"]["words"] == {"count": 0, "seconds": 0.0, "bytes": 0}
    assert 0 < costs["seconds"] < 60
    assert costs["bytes"] > 1000
    listed = gristmill("plan", "grain", "--samples", "--json", folder=world.folder)
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert {row["feature"] for row in rows} == {"brightness"}
    reasons = {row["sample_id"]: row["reason"] for row in rows}
    assert reasons.pop("day/s01") == "failed before, and the recipe changed"
    assert set(reasons.values()) == {"brightness gain 1.0 -> 2.0"}
    assert len(reasons) == 11


def test_a_red_run_exits_with_1_and_no_traceback(world: World) -> None:
    for i in range(1, 11, 2):
        (world.media / "day" / f"s{i:02d}.png").write_bytes(b"nothing")
    red = gristmill("run", folder=world.folder)
    assert red.returncode == 1
    assert "5 of 12 samples failed" in red.stderr
    assert "Traceback" not in red.stderr
    debug = gristmill("--debug", "run", folder=world.folder)
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("plan",), 2, "gristmill init DIR"),
        (("run", "--catalog", "."), 2, "a folder, allowed: a catalog file"),
        (("plam",), 2, "No such command 'plam'"),
        (("init", "missing"), 2, "missing"),
        (("init", "."), 2, "no media"),
    ],
)
def test_wrong_usage_exits_with_2(tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    done = gristmill(*arguments, folder=tmp_path)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_reading_before_anything_is_published(world: World) -> None:
    for command in ("show", "quarantine", "train"):
        done = gristmill(command, "grain", folder=world.folder)
        assert done.returncode == 1
        assert "nothing is published yet; cure: gristmill run grain" in done.stderr
    unknown = gristmill("show", "grian", folder=world.folder)
    assert unknown.returncode == 2
    assert "did you mean 'grain'?" in unknown.stderr


def test_schema_is_json(tmp_path: Path) -> None:
    found: dict[str, Any] = json.loads(gristmill("schema", folder=tmp_path).stdout)
    assert found["title"]


def test_train_prints_every_model_and_trains_once(world: World) -> None:
    world.edit(world.catalog, "0.6, validation: 0.2, test: 0.2, seed: 0", "0.5, validation: 0.0, test: 0.5, seed: 1")
    world.edit(world.catalog, "    max_failed", "    train: {epochs: 2}\n    max_failed")
    assert gristmill("run", folder=world.folder).returncode == 0
    first = gristmill("train", "grain", "--json", folder=world.folder)
    assert first.returncode == 0, first.stderr
    assert set(json.loads(first.stdout)["models"]) == {"brightness", "words", "early", "late", "linear", "majority"}
    second = gristmill("train", "grain", folder=world.folder)
    assert "Nothing computed: these very models were trained before" in second.stdout
