"""A sample that kills its process costs one row in the quarantine: its neighbours are kept, and it is named."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pipeline.catalog import load_catalog
from pipeline.execute.isolate import find_killers
from pipeline.run import Run, published, run_dataset
from pipeline.state import StateRef

if TYPE_CHECKING:
    from conftest import World

POISON = """
        import ctypes, os, signal
        for text in batch:
            if "poison" in text.plain:
                os.kill(os.getpid(), signal.SIGKILL)
            if "segfault" in text.plain:
                ctypes.string_at(0)
        return ["""


def test_samples_that_kill_their_process_are_found_and_quarantined(world: World) -> None:
    steps = world.steps.read_text()
    head, tail = steps.split("class Words")
    world.steps.write_text(head + "class Words" + tail.replace("\n        return [", POISON, 1))
    for number, word in ((3, "poison"), (8, "segfault")):
        folder = "day" if number % 2 else "night"
        caption = world.media / folder / f"s{number:02d}.srt"
        caption.write_text(caption.read_text().replace("word", word))
    catalog = load_catalog(world.catalog)
    report = run_dataset(catalog, "grain", engine="dask")
    assert report.samples is not None
    assert (report.samples.done, report.samples.quarantined) == (10, 2)
    assert report.features["words"].done == 10
    failed = {row["sample_id"]: row for row in published(catalog, "grain").quarantine.to_pylist()}
    assert set(failed) == {"day/s03", "night/s08"}
    assert {row["reason"] for row in failed.values()} == {"worker_died"}
    assert "killed by SIGKILL" in failed["day/s03"]["message"]
    assert "killed by SIGSEGV" in failed["night/s08"]["message"]
    again = run_dataset(catalog, "grain", engine="dask")
    assert again.computed == 0
    assert not again.published


def test_an_error_of_the_run_is_not_blamed_on_samples(world: World) -> None:
    catalog = load_catalog(world.catalog)
    run = Run(catalog, "grain")
    run.scan()
    run.plan()
    work = next(run._shard_work(run.planned.shards_to_write))
    missing = StateRef(catalog.store, "grain", str(catalog.folder), "_fitted/not-there.safetensors")
    broken = replace(work, features=tuple(replace(feature, state=missing) for feature in work.features))
    assert find_killers(broken, catalog.folder, {}) == {}
