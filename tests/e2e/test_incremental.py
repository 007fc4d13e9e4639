"""Only what changed is computed, and the run says why. Each test edits one thing and counts what was computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from features.errors import RunFailedError, StoreError
from pipeline.catalog import load_catalog
from pipeline.run import STAGES, Run, plan_dataset, published

if TYPE_CHECKING:
    from conftest import World


def rows(world: World, feature: str) -> list[dict[str, Any]]:
    table = published(load_catalog(world.catalog), "grain").read(feature)
    return list(table.drop_columns(["shard", "recipe"]).sort_by("sample_id").to_pylist())


def test_the_first_run_computes_all_and_the_second_nothing(world: World) -> None:
    first = world.run()
    assert {name: counts.done for name, counts in first.features.items()} == {"brightness": 12, "words": 12}
    assert first.published
    assert first.aligned_rows_written == 24
    second = world.run()
    assert second.computed == 0
    assert not second.published
    assert second.snapshot == first.snapshot
    assert second.samples is not None
    assert second.samples.unchanged == 12


def test_aligned_modalities_have_equal_rows_and_honest_masks(world: World) -> None:
    world.run()
    snapshot = published(load_catalog(world.catalog), "grain")
    assert snapshot.aligned == ("brightness", "words")
    image, words = snapshot.read("aligned.brightness"), snapshot.read("aligned.words")
    assert image["length"].to_pylist() == words["length"].to_pylist() == [3] * 12
    assert image["sample_id"].equals(words["sample_id"])
    assert set(np.concatenate(words["coverage"].to_pylist())) == {1.0}


def rows_equal_a_rebuild(world: World) -> bool:
    """The published rows are those that a run from nothing makes."""
    names = ("brightness", "aligned.brightness")
    before = {name: rows(world, name) for name in names}
    world.run(from_nothing=True)
    return all(before[name] == rows(world, name) for name in names)


def test_a_new_label_is_stored_without_computing(world: World) -> None:
    world.run()
    for suffix in (".png", ".srt"):
        file = world.media / "day" / f"s01{suffix}"
        (world.media / "dusk").mkdir(exist_ok=True)
        file.rename(world.media / "dusk" / f"s01{suffix}")
    report = world.run()
    assert report.features["brightness"].done == 1, "in a folder source the path is the id: a new sample"
    labels = {row["sample_id"]: row["label"] for row in rows(world, "brightness")}
    assert labels["dusk/s01"] == "dusk"
    assert "day/s01" not in labels


def test_another_split_restamps_rows_without_computing(world: World) -> None:
    world.run()
    world.edit(world.catalog, "seed: 0", "seed: 5")
    report = world.run()
    assert report.computed == 0
    assert report.published
    assert "only split or label changed" in dict(report.reasons["brightness"])
    catalog = load_catalog(world.catalog)
    now = dict(zip(*(published(catalog, "grain").samples[c].to_pylist() for c in ("sample_id", "split")), strict=True))
    for feature in ("brightness", "aligned.words"):
        assert {row["sample_id"]: row["split"] for row in rows(world, feature)} == now


def test_a_broken_file_is_quarantined_counted_and_tried_again_only_when_it_changes(world: World) -> None:
    broken = world.media / "day" / "s01.png"
    good = broken.read_bytes()
    broken.write_bytes(good[: len(good) // 2])
    first = world.run()
    assert first.features["brightness"].quarantined == 1
    assert first.features["words"].done == 12
    assert first.samples is not None
    assert (first.samples.done, first.samples.quarantined) == (11, 1)
    second = world.run()
    assert second.computed == 0
    assert second.features["brightness"].quarantined == 1
    assert not second.published
    aligned = published(load_catalog(world.catalog), "grain").read("aligned.brightness")
    masked = dict(zip(aligned["sample_id"].to_pylist(), aligned["valid"].to_pylist(), strict=True))
    assert masked["day/s01"] == [False] * 3
    broken.write_bytes(good)
    third = world.run()
    assert third.features["brightness"].done == 1
    assert third.features["words"].done == 0
    assert third.features["brightness"].quarantined == 0


def test_too_many_failures_turn_the_run_red_and_publish_nothing(world: World) -> None:
    world.run()
    for i in range(1, 11, 2):
        (world.media / "day" / f"s{i:02d}.png").write_bytes(b"not an image")
    with pytest.raises(RunFailedError, match=r"5 of 12 samples failed \(42%.*allowed: max_failed 30%; nothing was pub"):
        world.run()
    snapshot = published(load_catalog(world.catalog), "grain")
    assert snapshot.version == 1
    assert len(snapshot.read("brightness")) == 12


def test_samples_without_a_wanted_stream_are_told_but_do_not_fail_the_run(world: World) -> None:
    for i in range(6):
        (world.media / f"only-words-{i}.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nwords\n")
    text = world.catalog.read_text()
    world.catalog.write_text("\n".join(line for line in text.splitlines() if ":Words" not in line))
    report = world.run()
    assert report.published
    assert report.samples is not None
    assert (report.samples.samples_in, report.samples.done, report.samples.quarantined) == (18, 12, 6)
    assert report.quarantine_by_reason == {"empty": 6}
    for image in world.media.rglob("*.png"):
        image.unlink()
    with pytest.raises(RunFailedError, match="none of 18 samples has a stream that the features read"):
        world.run()


def test_the_report_is_stored(world: World) -> None:
    report = world.run()
    stored = json.loads((world.folder / f"store/grain/_runs/{report.run_id}/report.json").read_text())
    assert stored["features"]["words"]["samples_in"] == 12
    assert stored["computed"] == 24


def test_a_second_run_is_told_at_its_start_who_is_at_work(world: World) -> None:
    catalog = load_catalog(world.catalog)
    with Run(catalog, "grain", from_nothing=True) as first:
        with pytest.raises(StoreError, match=r"another run \(rebuild, pid \d+ on .*\) is writing this data set"):
            world.run()
        assert plan_dataset(catalog, "grain").planned.to_compute == 24, "a dry run asks for no lease"
        for stage in STAGES:
            getattr(first, stage)()
    assert world.run().computed == 0


def test_a_run_sees_what_was_published_while_it_waited_to_start(world: World) -> None:
    late = Run(load_catalog(world.catalog), "grain")
    world.run()
    with late:
        for stage in STAGES:
            getattr(late, stage)()
    assert late.report.computed == 0
    assert late.report.base == late.report.snapshot == 1


def test_a_run_that_lost_its_lease_publishes_nothing(world: World) -> None:
    with Run(load_catalog(world.catalog), "grain") as run:
        for stage in STAGES[:-1]:
            getattr(run, stage)()
        run.store.fs.rm_file(run.store.path("_lease.json"))
        with pytest.raises(StoreError, match="this run lost its lease: its file is gone"):
            run.publish()
    assert run.store.snapshot() is None
    assert world.run().resumed == 24


def test_two_runs_at_once_publish_one(world: World) -> None:
    first, second = (Run(load_catalog(world.catalog), "grain") for _ in range(2))
    for run in (first, second):
        run.scan()
        run.plan()
        run.fit()
        run.extract()
        run.align()
    first.publish()
    with pytest.raises(StoreError, match="another run published snapshot"):
        second.publish()
    assert len(rows(world, "brightness")) == 12


def test_a_run_that_dies_before_publishing_is_resumed(world: World) -> None:
    killed = Run(load_catalog(world.catalog), "grain")
    killed.scan()
    killed.plan()
    killed.fit()
    killed.extract()
    files = {file.path for file in killed.extracted.files}
    report = world.run()
    assert report.resumed == report.computed == 24
    snapshot = published(load_catalog(world.catalog), "grain")
    assert {file.path for file in snapshot.files if not file.feature.startswith("aligned")} == files
    assert world.run().resumed == 0
    assert rows_equal_a_rebuild(world)


def test_what_a_dead_run_computed_is_not_used_for_other_work(world: World) -> None:
    killed = Run(load_catalog(world.catalog), "grain")
    killed.scan()
    killed.plan()
    killed.fit()
    killed.extract()
    world.edit(world.catalog, ':Brightness"', ':Brightness", options: {gain: 2.0}')
    shard_of_all = world.run()
    assert shard_of_all.resumed == 0
    assert rows_equal_a_rebuild(world)


def test_a_red_run_keeps_its_good_shards_and_tries_the_bad_ones_again(world: World) -> None:
    world.edit(world.catalog, "max_failed: 0.3", "max_failed: 0.05")
    (world.media / "day" / "s01.png").write_bytes(b"not an image")
    with pytest.raises(RunFailedError, match="1 of 12 samples failed"):
        world.run()
    world.edit(world.catalog, "max_failed: 0.05", "max_failed: 0.3")
    report = world.run()
    assert report.published
    assert report.features["brightness"].quarantined == 1
    assert report.computed == 23
    assert report.resumed == 16, "two of three shards, four samples each, two features"


def test_a_damaged_file_of_a_dead_run_is_computed_again(world: World) -> None:
    killed = Run(load_catalog(world.catalog), "grain")
    killed.scan()
    killed.plan()
    killed.fit()
    killed.extract()
    victim = Path(killed.store.path(killed.extracted.files[0].path))
    victim.write_bytes(victim.read_bytes()[:-1])
    report = world.run()
    assert report.published
    assert 0 < report.resumed < 24
    assert rows_equal_a_rebuild(world)
