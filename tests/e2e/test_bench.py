"""Where the time goes: what ``gristmill bench`` measures, advises and checks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from features.errors import GristmillError
from pipeline.bench import Bench, Floor, Part, bench_dataset, read_floors
from pipeline.bench.choice import choose_work
from pipeline.bench.floors import hold
from pipeline.catalog import load_catalog
from pipeline.cli import app
from pipeline.events import SILENT

if TYPE_CHECKING:
    from conftest import World


def test_every_part_of_the_work_is_counted(world: World) -> None:
    world.edit(world.catalog, "engine: {kind: serial, workers: 1, device: cpu}", "engine: {workers: 1, device: cpu}")
    (world.media / "day" / "s01.png").write_bytes(b"broken")
    floors = [
        Floor(figure="failed", most=0.0, why="none may fail"),
        Floor(figure="guard", least=0.0),
        Floor(figure="scaling", least=1e9),
    ]
    found = bench_dataset(load_catalog(world.catalog), "grain", floors=floors)
    assert (found.samples, found.failed, found.workers, found.device) == (12, 1, 1, "cpu")
    counts = {part.what: part.count for part in found.parts}
    assert counts["extract brightness"] == counts["extract words"] == counts["decode image"] == 11
    assert sum(part.share for part in found.parts) == pytest.approx(1.0)
    assert found.bottleneck.seconds == max(part.seconds for part in found.parts)
    assert found.figures["failed"] == pytest.approx(1 / 12)
    assert [check.passed for check in found.checks] == [False, True, False]
    assert not found.passed
    assert any("1 of 12 samples failed" in line for line in found.advice)
    assert not (world.folder / "store").exists(), "nothing is published"


def test_what_is_not_fitted_yet_is_named(world: World) -> None:
    text = 'words: {extractor: "' + world.module + ':Words"}'
    world.edit(world.catalog, text, "text.word2vec: {}")
    work, skipped = choose_work(load_catalog(world.catalog), "grain", 3, 0, "cpu", str(world.folder), SILENT)
    assert skipped == ["text.word2vec: not fitted yet; cure: gristmill run grain, then bench again"]
    assert sum(len(piece.samples) for piece in work) == 3
    assert {feature.chain.name for piece in work for feature in piece.features} == {"brightness"}


@pytest.mark.parametrize(("samples", "sizes"), [(12, [3, 3, 3, 3]), (3, [1, 1, 1])])
def test_a_few_samples_are_work_for_all_workers(
    world: World, monkeypatch: pytest.MonkeyPatch, samples: int, sizes: list[int]
) -> None:
    monkeypatch.setattr("pipeline.bench.choice.cores", lambda: 2)
    catalog = load_catalog(world.catalog)
    work, _ = choose_work(catalog, "grain", samples, 0, "cpu", str(world.folder), SILENT)
    assert [len(piece.samples) for piece in work] == sizes


def test_a_missed_floor_is_told_and_is_the_exit_code(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(catalog: object, dataset: str, *, floors: list[Floor], **options: object) -> Bench:
        assert (dataset, options["samples"], options["seed"]) == ("grain", 2, 7)
        return Bench(
            dataset=dataset,
            samples=2,
            failed=0,
            device="cpu",
            workers=1,
            cores=2,
            parts=[Part(what="decode image", count=2, seconds=3.0, share=1.0)],
            seconds={"all": 1.0},
            checks=hold({"scaling": 0.9}, floors),
        )

    monkeypatch.setattr("pipeline.bench.bench_dataset", measured)
    floors = world.folder / "floors.toml"
    floors.write_text('[scaling]\nleast = 1000\nwhy = "impossible"\n')
    arguments = ["bench", "grain", "-c", str(world.catalog), "--samples", "2", "--seed", "7", "--floors", str(floors)]
    told = CliRunner().invoke(app, [*arguments, "--check"])
    assert told.exit_code == 1, told.output
    assert "MISSED" in told.output
    assert "scaling 0.90 (floor >= 1000): impossible" in told.output
    assert "Bottleneck: decode image. All workers together: 2.0 samples a second." in told.output
    assert CliRunner().invoke(app, arguments).exit_code == 0, "without --check it only tells"


def test_floors_that_cannot_be_read_say_so(world: World, tmp_path: Path) -> None:
    assert {floor.figure for floor in read_floors()} == {"guard", "scaling", "reading", "writing", "between", "failed"}
    with pytest.raises(GristmillError, match=r"nowhere\.toml: not a file of floors .*least or most"):
        read_floors(tmp_path / "nowhere.toml")
    with pytest.raises(
        GristmillError, match=r"floors: got 'speed', allowed: guard, scaling, reading, writing, between, failed"
    ):
        bench_dataset(load_catalog(world.catalog), "grain", samples=1, floors=[Floor(figure="speed", least=1)])


def test_a_cluster_elsewhere_is_not_this_machine(world: World) -> None:
    world.edit(world.catalog, "{kind: serial, workers: 1, device: cpu}", "{scheduler: 'tcp://127.0.0.1:1'}")
    with pytest.raises(GristmillError, match=r"got tcp://127\.0\.0\.1:1, allowed here: none, for this machine"):
        bench_dataset(load_catalog(world.catalog), "grain")
