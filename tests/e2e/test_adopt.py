"""After a refactoring: rows are kept when some of them, computed again, are what is stored, and not otherwise."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from features.errors import RunFailedError, StoreError
from pipeline.adopt import adopt
from pipeline.catalog import load_catalog
from pipeline.plan import Asked
from pipeline.run import plan_dataset, published, run_dataset

if TYPE_CHECKING:
    from conftest import World

    from pipeline.adopt import Adopted

EVERY = ("brightness", "words", "aligned.brightness", "aligned.words")


def adopt_in(world: World, feature: str = "brightness", **options: Any) -> Adopted:
    return adopt(load_catalog(world.catalog), "grain", feature, **options)


def rows(world: World) -> dict[str, list[dict[str, Any]]]:
    snapshot = published(load_catalog(world.catalog), "grain")
    return {name: snapshot.read(name).drop_columns(["shard"]).sort_by("sample_id").to_pylist() for name in EVERY}


def numbers(world: World) -> dict[str, list[dict[str, Any]]]:
    keys = ("recipe", "content")
    return {
        name: [{k: v for k, v in row.items() if k not in keys} for row in found] for name, found in rows(world).items()
    }


def to_compute(world: World) -> int:
    return plan_dataset(load_catalog(world.catalog), "grain").planned.to_compute


def helper(world: World, before: str, after: str) -> None:
    world.edit(world.folder / f"{world.helper}.py", before, after)


def refactor(world: World) -> None:
    helper(world, "return np.float32(x)", "scaled = np.float32(x)\n    return scaled")


def test_a_refactoring_that_changes_no_number_computes_nothing(world: World) -> None:
    world.run()
    before = numbers(world)
    refactor(world)
    assert to_compute(world) == 24
    proof = adopt_in(world, rows=5)
    assert (proof.rows, len(proof.sampled), proof.largest, proof.snapshot) == (12, 5, None, 2)
    assert proof.aligned_rows == 24, "both modalities of each sample read the new recipe"
    assert to_compute(world) == 12, "words are stale, too: they were not adopted"
    adopt_in(world, "words")
    assert to_compute(world) == 0
    report = world.run()
    assert (report.computed, report.aligned_rows_written, report.published) == (0, 0, False)
    assert numbers(world) == before
    adopted = rows(world)
    world.run(from_nothing=True)
    assert rows(world) == adopted, "keys included"


def test_the_sample_is_seeded_and_takes_rows_of_every_shard(world: World) -> None:
    world.run()
    refactor(world)
    first, second = (adopt_in(world, rows=3, dry_run=True).sampled for _ in range(2))
    assert first == second
    samples = published(load_catalog(world.catalog), "grain").samples.to_pylist()
    assert {row["shard"] for row in samples if row["sample_id"] in first} == {0, 1, 2}
    assert len(adopt_in(world, rows=100, dry_run=True).sampled) == 12
    assert published(load_catalog(world.catalog), "grain").version == 1, "a dry run publishes nothing"


def test_other_numbers_are_refused_with_the_largest_difference(world: World) -> None:
    world.run()
    before = rows(world)
    helper(world, "np.float32(x)", "np.float32(x) + np.float32([0, 0.5, 0.25])")
    with pytest.raises(
        RunFailedError,
        match=r"brightness: the code as it is now gives other numbers; the largest difference in 12 rows is 0\.5 in "
        r"sample (day|night)/s\d\d, row 0, column 1 \(stored .*, computed .*\); allowed: 0; nothing was adopted; cure",
    ):
        adopt_in(world)
    with pytest.raises(RunFailedError, match=r"allowed: 0\.49"):
        adopt_in(world, tolerance=0.49)
    assert rows(world) == before
    assert published(load_catalog(world.catalog), "grain").version == 1


def test_a_tolerance_is_recorded_with_the_largest_difference(world: World) -> None:
    world.run()
    helper(world, "np.float32(x)", "np.float32(x) + np.float32(0.5)")
    proof = adopt_in(world, tolerance=0.5)
    assert proof.largest is not None
    assert proof.largest.amount == 0.5
    info = published(load_catalog(world.catalog), "grain").info["adopted"]
    assert (info["tolerance"], info["largest_difference"], info["sampled"], info["rows"]) == (0.5, 0.5, 12, 12)
    assert info["feature"] == "brightness"
    (old,) = info["from"]
    assert old != info["to"]
    world.run()
    assert "adopted" not in published(load_catalog(world.catalog), "grain").info


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (
            [("[image.span])", "[type(image.span)(image.span.start_ns + 1, image.span.end_ns)])")],
            "gives another start_ns for sample",
        ),
        (
            [("dim: ClassVar[int] = 3", "dim: ClassVar[int] = 2"), ("[None])", "[None, :2])")],
            "the stored rows are 3 wide, the code as it is now makes 2",
        ),
        (
            [("np.float32(self.gain)", "np.float32('x')")],
            "has a stored row, but now it fails: extractor_error: ValueError",
        ),
    ],
)
def test_other_shapes_times_and_failures_are_refused(world: World, edits: list[tuple[str, str]], message: str) -> None:
    world.run()
    for before, after in edits:
        world.edit(world.steps, before, after)
    with pytest.raises(RunFailedError, match=message):
        adopt_in(world)


def test_more_than_code_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import keys

    world.edit(
        world.steps,
        "numerics: ClassVar[tuple[str, ...]] = ()\n    gain",
        'numerics: ClassVar[tuple[str, ...]] = ("numpy",)\n    gain',
    )
    world.run()
    with pytest.raises(RunFailedError, match="no stored row is stale because of its recipe alone; nothing was adopted"):
        adopt_in(world)
    refactor(world)
    monkeypatch.setattr(keys, "version", lambda name: "99")
    with pytest.raises(
        RunFailedError,
        match=r"differs by: brightness runs on numpy .* -> 99, brightness code changed; all"
        r"owed: code; nothing was adopted; cure: gristmill run grain, or gristmill adopt --libraries",
    ):
        adopt_in(world)
    assert adopt_in(world, libraries=True).rows == 12
    world.edit(world.catalog, ':Brightness"', ':Brightness", options: {gain: 2.0}')
    with pytest.raises(RunFailedError, match=r"differs by: brightness gain 1\.0 -> 2\.0; allowed: code and versions"):
        adopt_in(world, libraries=True)


def test_rows_that_are_stale_for_other_reasons_are_left_to_the_next_run(world: World) -> None:
    world.run()
    refactor(world)
    cv2.imwrite(str(world.media / "day" / "s01.png"), np.zeros((8, 12, 3), dtype=np.uint8))
    world.add(40)
    proof = adopt_in(world)
    assert proof.rows == 11
    assert "day/s01" not in proof.sampled
    assert world.computed() == {"brightness": 2, "words": 13}
    kept = rows(world)
    world.run(from_nothing=True)
    assert rows(world) == kept


def test_rows_of_several_old_recipes_are_adopted_together(world: World) -> None:
    world.run()
    refactor(world)
    run_dataset(load_catalog(world.catalog), "grain", asked=Asked(("brightness",), ("day/*",)))
    helper(world, "scaled", "result")
    assert adopt_in(world).rows == 12
    info = published(load_catalog(world.catalog), "grain").info
    assert len(info["adopted"]["from"]) == 2
    assert world.computed() == {"brightness": 0, "words": 12}


def test_adopting_is_writing(world: World) -> None:
    from pipeline.run import Run

    world.run()
    refactor(world)
    with Run(load_catalog(world.catalog), "grain"), pytest.raises(StoreError, match="is writing"):
        adopt_in(world)


def test_the_command(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.cli import app

    world.run()
    refactor(world)
    command = ["adopt", "grain", "brightness", "--catalog", str(world.catalog), "--rows", "4"]
    app([*command, "--dry-run"], standalone_mode=False)
    assert "Dry run: 12 rows would be adopted; nothing was published." in capsys.readouterr().out
    app([*command, "--json"], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["aligned_rows"], found["snapshot"], len(found["sampled"])) == (12, 24, 2, 4)
    refactored = ["adopt", "grain", "words", "--catalog", str(world.catalog)]
    app(refactored, standalone_mode=False)
    out = " ".join(capsys.readouterr().out.split())
    assert "12 rows of words were computed again and are equal." in out
    assert "Published snapshot 3: 12 rows of words and 24 aligned rows adopted, none computed." in out
