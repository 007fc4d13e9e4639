"""What runs leave for people: pages that say what the records say, whatever became of the run."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from pages import counts, decoded, read
from typer.testing import CliRunner, Result

from features.errors import RunFailedError, StoreError
from pipeline.catalog import load_catalog
from pipeline.cli import app
from pipeline.record import RunReport
from pipeline.report.records import before, list_runs, read_record
from pipeline.run import STAGES, Run, run_dataset
from pipeline.store import DatasetStore

if TYPE_CHECKING:
    from conftest import World


def store_of(world: World) -> DatasetStore:
    return DatasetStore(str(world.folder / "store"), "grain")


def last(world: World) -> RunReport:
    """The record of the last run, as the store has it."""
    record = list_runs(store_of(world))[0].record
    assert record is not None
    return record


def break_images(world: World, *numbers: int) -> None:
    for number in numbers:
        folder = "day" if number % 2 else "night"
        (world.media / folder / f"s{number:02d}.png").write_bytes(b"no picture")


def call(world: World, *arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments, "--catalog", str(world.catalog)])


def assert_counts(root: Any, report: RunReport) -> None:
    shown = counts(root)
    assert report.samples is not None
    wanted = {**report.features, "all samples": report.samples}
    assert shown.keys() == wanted.keys()
    for name, found in shown.items():
        assert found.items() <= asdict(wanted[name]).items()
        assert {"samples_in", "done", "unchanged", "quarantined"} <= found.keys()
        assert found["samples_in"] == sum(
            found.get(outcome, 0) for outcome in ("done", "unchanged", "quarantined", "deferred")
        )


def test_a_first_run(world: World) -> None:
    report = world.run()
    assert report.page == str(world.folder / f"store/grain/_runs/{report.run_id}/report.html")
    root = read(report.page)
    assert_counts(root, report)
    assert root.one(id="headline").text.startswith("Published snapshot 1: 24 rows computed in ")
    assert root.one("h1").text == "grain"
    assert "This is the first run of this data set." in root.one(id="changes").text
    assert "max_failed: 0.3" in root.one(id="settings").text
    assert "numpy" in root.one(id="settings").text
    pictures = root.one(id="images").all("img")
    assert [picture.attributes["alt"] for picture in pictures] == [
        f"picture of {folder}/s{n:02d}" for folder, first in (("day", 1), ("night", 0)) for n in range(first, 12, 2)
    ]
    assert decoded(pictures[0]).shape == (8, 12, 3)
    assert "word number 3" in root.one(id="texts").text
    lanes = root.one(id="alignment").all("div", **{"class": "lane"})
    assert any(lane.text.strip().startswith("words, aligned") for lane in lanes)
    assert [feature.attributes["data-feature"] for feature in root.all("div", **{"class": "feature"})] == [
        "brightness",
        "words",
    ]
    assert root.all(id="quarantine") == root.all(id="missing") == root.all(id="before") == []
    assert last(world).as_json() == report.as_json(), "the record is what was returned"


def test_one_sample_is_enough(world: World) -> None:
    for path in [*world.media.rglob("*.png"), *world.media.rglob("*.srt")]:
        path.unlink()
    world.add(0)
    root = read(world.run().page)
    assert {name: found["samples_in"] for name, found in counts(root).items()} == {
        "brightness": 1,
        "words": 1,
        "all samples": 1,
    }
    assert root.one(id="headline").text.startswith("Published snapshot 1: 2 rows computed in ")
    assert [picture.attributes["alt"] for picture in root.one(id="images").all("img")] == ["picture of night/s00"]
    assert "word number 0" in root.one(id="texts").text
    assert root.all(id="missing") == []


def test_what_changed_since_the_run_before(world: World) -> None:
    first = world.run()
    world.add(40)
    (world.media / "day/s01.png").unlink()
    (world.media / "day/s01.srt").unlink()
    break_images(world, 3)
    world.edit(world.catalog, ':Brightness"', ':Brightness", options: {gain: 3.0}')
    report = world.run()
    root = read(report.page)
    assert_counts(root, report)
    changes = " ".join(root.one(id="changes").text.split())
    assert "Since snapshot 1: 1 sample came, 1 sample went." in changes
    assert "10 because brightness gain 1.0 -> 3.0" in changes
    assert "1 because bytes or window changed" in changes
    compared = {
        row.all("td")[0].text: [cell.text for cell in row.all("td")[1:]] for row in root.one(id="before").all("tr")[1:]
    }
    assert compared["samples in"] == ["12", "12", ""]
    assert compared["samples in quarantine"] == ["1", "0", "+1"]
    assert compared["rows computed"] == [str(report.computed), "24", f"{report.computed - 24:+d}"]
    assert compared["quarantine: unsupported_format"] == ["1", "0", "+1"]
    assert f"../{first.run_id}/report.html" in [link.attributes["href"] for link in root.one(id="before").all("a")]
    trouble = root.one(id="quarantine").one("div", data_sample="day/s03")
    assert "no picture" not in trouble.text
    assert "plain text" in trouble.text
    assert "new" in trouble.text
    assert "word number 3" in trouble.text, "what of it can be read is shown"
    moved = root.one("div", data_feature="brightness")
    assert "moved" in moved.one("h3").text, "the gain moved every number"
    assert "moved" not in root.one("div", data_feature="words").one("h3").text
    assert "new" in next(f for f in root.one(id="images").all("figure") if "night/s40" in f.text).text


def test_an_unchanged_run_has_a_short_page_that_leads_to_the_whole_one(world: World) -> None:
    first = world.run()
    report = world.run()
    assert (report.status, report.snapshot) == ("unchanged", first.snapshot)
    root = read(report.page)
    assert_counts(root, report)
    assert root.all("img") == []
    assert f"../{first.run_id}/report.html" in [link.attributes["href"] for link in root.all("a")]
    assert root.one(id="headline").text.startswith("Nothing changed, nothing computed: snapshot 1 stands.")


def test_a_red_run_publishes_nothing_but_tells_why_and_calls_for_help(world: World) -> None:
    world.edit(
        world.catalog,
        "datasets:",
        "metrics: ./out/metrics.prom\n"
        'on_failure: [sh, -c, "cat > told.json; echo $GRISTMILL_REPORT > page.txt"]\n'
        "datasets:",
    )
    first = world.run()
    assert not (world.folder / "told.json").exists()
    metrics = world.folder / "out/metrics.prom"
    assert 'gristmill_last_run_success{dataset="grain"} 1\n' in metrics.read_text()
    break_images(world, 1, 3, 5, 7)
    with pytest.raises(RunFailedError, match="4 of 12 samples failed"):
        world.run()
    report = last(world)
    assert (report.status, report.published, report.snapshot, report.base) == ("red", False, 1, 1)
    assert "4 of 12 samples failed (33%; 4 unsupported_format)" in report.error
    root = read(report.page)
    assert_counts(root, report)
    assert report.error in root.one(id="error").text
    assert root.one(id="headline").text == "The run failed and published nothing; readers still have snapshot 1."
    assert len(root.one(id="quarantine").all("div", **{"class": "trouble"})) == 4
    assert root.all(id="features") == []
    told = json.loads((world.folder / "told.json").read_text())
    assert (told["status"], told["run_id"], told["samples"]["quarantined"]) == ("red", report.run_id, 4)
    assert (world.folder / "page.txt").read_text().strip() == report.page
    text = metrics.read_text()
    assert 'gristmill_last_run_success{dataset="grain"} 0\n' in text
    assert 'gristmill_quarantine_rows{dataset="grain",reason="unsupported_format"} 4\n' in text
    assert [run.run_id for run in before(store_of(world), report.run_id)] == [first.run_id]


def test_a_run_that_finds_no_samples_has_a_page(world: World) -> None:
    shutil.rmtree(world.media)
    world.media.mkdir()
    with pytest.raises(Exception, match="no media files"):
        world.run()
    root = read(last(world).page)
    assert root.all("table", data_table="counts") == []
    assert last(world).error in root.one(id="error").text


def test_nothing_in_the_media_becomes_part_of_the_page(world: World) -> None:
    hostile = '<img src=x onerror=alert(1)>"{{7*7}}'
    world.add(50, hostile)
    (world.media / hostile / "s50.srt").write_text(
        "1\n00:00:00,000 --> 00:00:01,000\n<script>alert(2)</script></style>\n"
    )
    world.add(51, "<script>")
    (world.media / "<script>" / "s51.png").write_bytes(b"<script>alert(3)</script>")
    report = world.run()
    root = read(report.page)  # reads every element: there is no script, no handler, no picture but ours
    assert f"{hostile}/s50" in root.one(id="images").text
    trouble = root.one(id="quarantine").one("div", **{"class": "trouble"})
    assert trouble.attributes["data-sample"] == "<script>/s51"
    index = read(str(Path(report.page).parents[1] / "index.html"))
    assert [row.attributes["data-run"] for row in index.all("tr") if "data-run" in row.attributes] == [report.run_id]


def test_pictures_can_be_turned_off(world: World) -> None:
    world.edit(world.catalog, "shard_samples: 4", "shard_samples: 4\n    report: {pictures: 0}")
    break_images(world, 3)
    root = read(world.run().page)
    assert root.all("img") == []
    assert root.all("div", data_feature="words")
    assert root.one("div", data_sample="day/s03")


def test_a_picture_that_cannot_be_made_is_told_and_harms_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("the brush is broken")

    monkeypatch.setattr("pipeline.report.stills.read_image", fail, raising=False)
    monkeypatch.setattr("pipeline.report.media.read_image", fail)
    report = world.run()
    assert report.published
    root = read(report.page)
    assert root.all(id="images") == []
    assert "the picture of day/s01: OSError: the brush is broken" in root.one(id="missing").text


def test_a_page_that_cannot_be_made_harms_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("no ink")

    monkeypatch.setattr("pipeline.report.page.render", fail)
    report = world.run()
    assert (report.published, report.page, last(world).status) == (True, "", "published")
    (note,) = [event["message"] for event in events(world, report) if event["event"] == "note"]
    assert note == "the page of the run could not be made: no ink"


def events(world: World, report: RunReport) -> list[dict[str, Any]]:
    path = world.folder / f"store/grain/_runs/{report.run_id}/events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_events_are_kept_as_lines(world: World) -> None:
    report = world.run()
    lines = events(world, report)
    assert (lines[0]["event"], lines[-1]["event"]) == ("run_started", "run_finished")
    assert {(line["run_id"], line["dataset"]) for line in lines} == {(report.run_id, "grain")}
    assert [line["time"] for line in lines] == sorted(line["time"] for line in lines)
    begun = [line["stage"] for line in lines if line["event"] == "stage_started"]
    ended = {line["stage"]: line for line in lines if line["event"] == "stage_finished"}
    assert {"scan", "extract", "align"} <= set(begun) == set(ended)
    assert (ended["extract"]["done"], ended["extract"]["total"], ended["extract"]["unit"]) == (24, 24, "rows")
    assert (lines[-1]["status"], lines[-1]["computed"], lines[-1]["snapshot"]) == ("published", 24, 1)


def test_a_run_that_is_stopped_leaves_a_record_and_no_page(world: World) -> None:
    run = Run(load_catalog(world.catalog), "grain")
    run.plan = Mock(side_effect=KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), run:
        run.plan()
    record = last(world)
    assert (record.status, record.page, record.error) == ("interrupted", "", "KeyboardInterrupt")
    assert events(world, record)[-1]["status"] == "interrupted"


def test_a_killed_run_is_listed_as_crashed(world: World) -> None:
    published = world.run()
    run = Run(load_catalog(world.catalog), "grain")
    run.report.run_id = "29990101T000000-0badcafe"
    with run:
        run.scan()
        assert [entry.status for entry in list_runs(store_of(world))] == ["running", "published"]
        (world.folder / "copy").mkdir()
        shutil.copy(world.folder / f"store/grain/_runs/{run.report.run_id}/events.jsonl", world.folder / "copy")
    shutil.rmtree(world.folder / f"store/grain/_runs/{run.report.run_id}")
    (world.folder / "copy").rename(world.folder / f"store/grain/_runs/{run.report.run_id}")  # as after a SIGKILL
    entries = list_runs(store_of(world))
    assert [(entry.status, entry.has_page) for entry in entries] == [("crashed", False), ("published", True)]
    assert entries[0].started == "2999-01-01T00:00:00+00:00"
    result = call(world, "report", "grain")
    assert isinstance(result.exception, StoreError)
    assert "(crashed) has no page" in str(result.exception)
    found = call(world, "report", "grain", "--run", published.run_id, "--json")
    assert json.loads(found.stdout)["page"] == published.page
    (status,) = json.loads(call(world, "status", "--json").stdout)
    assert (status["last_status"], status["snapshot"]) == ("crashed", 1)


def test_the_commands(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address))
    (status,) = json.loads(call(world, "status", "--json").stdout)
    assert (status["last_status"], status["snapshot"], status["rows"], status["disk"]) == (None, None, 0, 0)
    assert "never run" in call(world, "status").stdout
    assert "no run yet" in str(call(world, "report", "grain").exception)
    first, second = world.run(), world.run()
    assert call(world, "report", "grain").stdout == f"{second.page}\n"
    found = call(world, "report", "grain", "--run", first.run_id, "--open")
    assert (found.stdout, opened) == (f"{first.page}\n", [Path(first.page).as_uri()])
    result = call(world, "report", "grain", "--run", "1999")
    assert f"no run '1999'; the last ones: {second.run_id}, {first.run_id}" in str(result.exception)
    index = call(world, "report", "--json")
    root = read(json.loads(index.stdout)["page"])
    links = [link.attributes["href"] for link in root.all("a")]
    assert links == [f"grain/_runs/{run.run_id}/report.html" for run in (second, first)]
    assert all((world.folder / "store" / link).is_file() for link in links)
    assert call(world, "report", "--run", "1").exit_code == 2
    break_images(world, 3)
    world.run()
    (status,) = json.loads(call(world, "status", "grain", "--json").stdout)
    assert status == {
        **status,
        "dataset": "grain",
        "last_status": "published",
        "snapshot": 2,
        "samples": 12,
        "rows": 23,
        "quarantined": 1,
        "running": None,
    }
    assert status["disk"] == sum(
        path.stat().st_size for path in (world.folder / "store/grain").rglob("*") if path.is_file()
    )
    with Run(load_catalog(world.catalog), "grain"):
        shown = call(world, "status").stdout
    assert "grain: at work now: run, pid" in shown
    assert f"\nReport: {world.folder}/store/grain/_runs/" in call(world, "run", "grain").stdout


def test_a_page_is_made_anew_from_the_store(world: World) -> None:
    report = world.run()
    whole = counts(read(report.page))
    Path(report.page).unlink()
    assert call(world, "report", "grain", "--remake").stdout == f"{report.page}\n"
    root = read(report.page)
    assert counts(root) == whole
    assert len(root.one(id="images").all("img")) == 12
    break_images(world, 1, 3, 5, 7)
    with pytest.raises(RunFailedError):
        world.run()
    assert "is red; only pages of runs that did not fail" in str(call(world, "report", "grain", "--remake").exception)


def test_what_was_trained_comes_to_the_page(world: World) -> None:
    world.edit(world.catalog, "shard_samples: 4", "shard_samples: 4\n    train: {epochs: 2}")
    report = world.run()
    pictures = len(read(report.page).all("img"))
    assert read(report.page).all(id="models") == []
    trained = call(world, "train", "grain")
    assert f"Report: {report.page}" in trained.stdout
    root = read(report.page)
    assert len(root.all("img")) == pictures
    models = root.one(id="models")
    assert "Trained on snapshot 1;" in models.text
    assert {row.one("span", **{"class": "mono"}).text for row in models.all("div", **{"class": "model"})} == {
        "majority",
        "linear",
        "brightness",
        "words",
    }
    assert "#models" in [link.attributes["href"] for link in root.one("nav").all("a")]
    call(world, "train", "grain")
    assert len(read(report.page).all(id="models")) == 1
    world.add(40)
    assert "an earlier one" in read(world.run().page).one(id="models").text


def test_records_of_older_versions_are_read(world: World) -> None:
    report = world.run()
    document = report.as_json()
    for name in ("status", "finished", "error", "page", "settings", "versions"):
        del document[name]
    store = store_of(world)
    store.write_bytes("_runs/20200101T000000-00000000/report.json", json.dumps(document).encode())
    store.write_bytes("_runs/20200101T000001-00000000/report.json", b"{")
    old = read_record(store, "20200101T000000-00000000")
    assert old is not None
    assert (old.status, old.features) == ("published", report.features)
    assert read_record(store, "20200101T000001-00000000") is None
    assert len(list_runs(store)) == 3


def test_every_stage_may_fail(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for stage in STAGES:
        with monkeypatch.context() as patch:

            def fail(run: Run, at: str = stage) -> None:
                raise RuntimeError(f"broken at {at}")

            patch.setattr(Run, stage, fail)
            with pytest.raises(RuntimeError, match=f"broken at {stage}"):
                run_dataset(load_catalog(world.catalog), "grain")
        record = last(world)
        assert (record.status, record.error) == ("red", f"broken at {stage}")
        assert record.error in read(record.page).one(id="error").text
