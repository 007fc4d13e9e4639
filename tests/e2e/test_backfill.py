"""Runs that are limited to some features or samples: what was not asked for stays as it is, and is not forgotten."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from features.errors import CatalogError
from pipeline.catalog import load_catalog
from pipeline.plan import Asked
from pipeline.run import Run, plan_dataset, published, run_dataset

if TYPE_CHECKING:
    from conftest import World

    from pipeline.record import RunReport
    from pipeline.store import Snapshot


def backfill(world: World, *, features: tuple[str, ...] = (), samples: tuple[str, ...] = ()) -> RunReport:
    return run_dataset(load_catalog(world.catalog), "grain", asked=Asked(features, samples))


def snapshot(world: World) -> Snapshot:
    return published(load_catalog(world.catalog), "grain")


def files(world: World, feature: str) -> set[str]:
    return {file.path for file in snapshot(world).files if file.feature == feature}


def recipes(world: World, feature: str) -> dict[str, bytes]:
    table = snapshot(world).read(feature)
    return dict(zip(table["sample_id"].to_pylist(), table["recipe"].to_pylist(), strict=True))


def equals_a_rebuild(world: World) -> bool:
    def rows() -> list[object]:
        names = ("brightness", "words", "aligned.brightness", "aligned.words")
        return [snapshot(world).read(name).drop_columns(["shard"]).sort_by("sample_id").to_pylist() for name in names]

    before = rows()
    world.run(from_nothing=True)
    return before == rows()


def change_both(world: World) -> None:
    """Edit the helper that both features import, directly or not: every row is stale."""
    world.edit(world.folder / f"{world.helper}.py", "np.float32(x)", "np.float32(x) + np.float32(1)")


def test_one_feature_leaves_the_files_of_the_others_alone(world: World) -> None:
    world.run()
    words, aligned_words = files(world, "words"), files(world, "aligned.words")
    change_both(world)
    report = backfill(world, features=("brightness",))
    assert (report.features["brightness"].done, report.features["brightness"].deferred) == (12, 0)
    counts = report.features["words"]
    assert (counts.samples_in, counts.done, counts.unchanged, counts.deferred) == (12, 0, 0, 12)
    assert files(world, "words") == words
    assert files(world, "aligned.words") != aligned_words, "they depend on the rows of both"
    reasons = plan_dataset(load_catalog(world.catalog), "grain").report.reasons
    assert reasons["words"] == [("words code changed", 12)]
    assert reasons["brightness"] == [("unchanged", 12)]
    assert world.computed() == {"brightness": 0, "words": 12}
    assert equals_a_rebuild(world)


def test_some_samples_of_one_feature(world: World) -> None:
    world.run()
    old = recipes(world, "brightness")
    aligned = snapshot(world).read("aligned.brightness").sort_by("sample_id")
    change_both(world)
    report = backfill(world, features=("brightness",), samples=("day/s01", "night/s0[02]"))
    assert (report.features["brightness"].done, report.features["brightness"].deferred) == (3, 9)
    assert report.samples is not None
    assert (report.samples.done, report.samples.unchanged, report.samples.deferred) == (3, 0, 9)
    assert report.aligned_rows_written == 6, "of three samples, in both modalities"
    changed = {"day/s01", "night/s00", "night/s02"}
    now = recipes(world, "brightness")
    assert {sample_id for sample_id in old if old[sample_id] != now[sample_id]} == changed
    again = snapshot(world).read("aligned.brightness").sort_by("sample_id")
    pairs = zip(aligned.to_pylist(), again.to_pylist(), strict=True)
    assert {after["sample_id"] for before, after in pairs if before != after} == changed
    documents = snapshot(world).info["recipes"]["brightness"]
    assert set(documents) == {recipe.hex() for recipe in now.values()}, "of old rows too, so that the plan can explain"
    assert dict(plan_dataset(load_catalog(world.catalog), "grain").report.reasons["brightness"]) == {
        "brightness code changed": 9,
        "unchanged": 3,
    }
    assert world.computed() == {"brightness": 9, "words": 12}
    assert equals_a_rebuild(world)


def test_a_new_feature_or_sample_may_be_left_for_later(world: World) -> None:
    first = backfill(world, features=("words",))
    assert (first.features["brightness"].deferred, first.features["words"].done) == (12, 12)
    assert snapshot(world).features == ("words",)
    masks = snapshot(world).read("aligned.brightness")["valid"].to_pylist()
    assert not any(any(mask) for mask in masks), "absent is a mask"
    world.add(40)
    second = backfill(world, samples=("night/*",))
    assert second.features["words"].done == 1, "the new sample is one of the night"
    assert (second.features["brightness"].done, second.features["brightness"].deferred) == (7, 6)
    assert world.computed() == {"brightness": 6, "words": 0}
    assert equals_a_rebuild(world)


def test_splits_and_removed_samples_are_brought_up_to_date_in_rows_that_stay_stale(world: World) -> None:
    world.run()
    change_both(world)
    world.edit(world.catalog, "seed: 0", "seed: 5")
    for suffix in (".png", ".srt"):
        (world.media / "day" / f"s01{suffix}").unlink()
    report = backfill(world, features=("words",))
    assert (report.features["brightness"].deferred, report.features["brightness"].removed) == (11, 1)
    split = {row["sample_id"]: row["split"] for row in snapshot(world).samples.to_pylist()}
    for feature in ("brightness", "words", "aligned.brightness"):
        assert {row["sample_id"]: row["split"] for row in snapshot(world).read(feature).to_pylist()} == split
    assert world.computed() == {"brightness": 11, "words": 0}
    assert equals_a_rebuild(world)


def test_a_failure_that_is_not_tried_again_stays_in_quarantine(world: World) -> None:
    broken = world.media / "day" / "s01.png"
    good = broken.read_bytes()
    broken.write_bytes(b"not an image")
    world.run()
    broken.write_bytes(good)
    report = backfill(world, features=("words",))
    counts = report.features["brightness"]
    assert (counts.unchanged, counts.quarantined, counts.deferred) == (11, 1, 0)
    assert snapshot(world).quarantine["sample_id"].to_pylist() == ["day/s01"]
    assert world.computed() == {"brightness": 1, "words": 0}
    assert len(snapshot(world).quarantine) == 0


def test_nothing_to_do_for_what_was_asked_publishes_nothing(world: World) -> None:
    world.run()
    world.edit(world.catalog, ':Brightness"', ':Brightness", options: {gain: 2.0}')
    report = backfill(world, features=("words",))
    assert not report.published
    assert report.features["brightness"].deferred == 12


def test_what_does_not_exist_is_refused(world: World) -> None:
    with pytest.raises(CatalogError, match=r"no feature 'word'; allowed: brightness, words; did you mean 'words'\?"):
        backfill(world, features=("word",))
    with pytest.raises(CatalogError, match=r"no sample of 12 matches 'dusk/\*'; allowed: a sample id, or a glob"):
        backfill(world, samples=("day/*", "dusk/*"))
    with pytest.raises(ValueError, match="from_nothing: got a limit as well"):
        Run(load_catalog(world.catalog), "grain", from_nothing=True, asked=Asked(("words",)))


def test_the_commands_take_the_same_limits(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.cli import app

    limits = ["--catalog", str(world.catalog), "--feature", "brightness", "--sample", "day/*"]
    app(["plan", "grain", *limits], standalone_mode=False)
    assert "but not asked for" in capsys.readouterr().out
    app(["run", "grain", "--serial", "--json", *limits], standalone_mode=False)
    (report,) = json.loads(capsys.readouterr().out)
    assert report["features"]["brightness"]["done"] == report["features"]["brightness"]["deferred"] == 6
    assert report["features"]["words"]["deferred"] == 12
