"""What a run tells machines: metrics, the command on failure, and the journal when it cannot be written."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from features.errors import StoreError
from pipeline.catalog import Catalog, Engine
from pipeline.record import Counts, RunReport
from pipeline.report.finish import settings, versions
from pipeline.report.hook import call_for_help
from pipeline.report.journal import MAX_NOTES, Journal
from pipeline.report.metrics import METRICS, metrics_text, write_metrics
from pipeline.report.records import write_record
from pipeline.store import DatasetStore


@dataclass
class Heard:
    notes: list[str] = field(default_factory=list)
    calls: list[tuple[object, ...]] = field(default_factory=list)

    def started(self, stage: str, total: int | None, unit: str) -> None:
        self.calls.append(("started", stage, total, unit))

    def advanced(self, stage: str, n: int = 1) -> None:
        self.calls.append(("advanced", stage, n))

    def finished(self, stage: str, message: str = "") -> None:
        self.calls.append(("finished", stage, message))

    def note(self, message: str) -> None:
        self.notes.append(message)


def report(**fields: object) -> RunReport:
    given: dict[str, object] = {
        "run_id": "20260102T000000-1",
        "dataset": "grain",
        "started": "2026-01-02T00:00:00+00:00",
        "finished": "2026-01-02T00:01:00+00:00",
        "base": 3,
        "status": "red",
        "error": "too much\nfailed",
        "page": "/p/report.html",
    }
    return RunReport(**(given | fields))  # type: ignore[arg-type]


def catalog(folder: Path, *command: str, names: tuple[str, ...] = ("grain",)) -> Catalog:
    return Catalog(
        path=folder / "data_catalog.yaml",
        store=str(folder / "store"),
        engine=Engine(),
        datasets=dict.fromkeys(names),  # type: ignore[arg-type]
        metrics=folder / "out" / "metrics.prom",
        on_failure=command,
    )


def called(folder: Path, *command: str, seconds: float = 30.0) -> list[str]:
    heard = Heard()
    call_for_help(catalog(folder, *command), report(), heard, seconds=seconds)
    return heard.notes


def test_the_command_is_told_what_happened_without_a_shell(tmp_path: Path) -> None:
    script = (
        "import json, os, sys; json.dump([sys.argv[1:], json.load(sys.stdin), dict(os.environ)], open('told', 'w'))"
    )
    assert called(tmp_path, "python3", "-c", script, "$HOME; rm -rf x", "*") == []
    arguments, told, environment = json.loads((tmp_path / "told").read_text())
    assert arguments == ["$HOME; rm -rf x", "*"]
    assert (told["dataset"], told["status"], told["error"], told["base"]) == ("grain", "red", "too much\nfailed", 3)
    assert {name: environment[f"GRISTMILL_{name}"] for name in ("DATASET", "RUN_ID", "STATUS", "ERROR", "REPORT")} == {
        "DATASET": "grain",
        "RUN_ID": "20260102T000000-1",
        "STATUS": "red",
        "ERROR": "too much\nfailed",
        "REPORT": "/p/report.html",
    }


def test_a_command_that_fails_is_told_of(tmp_path: Path) -> None:
    assert called(tmp_path, "sh", "-c", "echo no mail today >&2; exit 7") == [
        "on_failure: sh ended with 7: no mail today"
    ]
    assert called(tmp_path, "no-such-command") == [
        "on_failure: no-such-command cannot be started: No such file or directory"
    ]


def test_a_command_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    (note,) = called(tmp_path, "sh", "-c", "sleep 600 & echo $! > child; wait", seconds=0.5)
    assert note == "on_failure: sh took longer than 0.5 s and was killed"
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
        pytest.fail("the child lives on")


def test_metrics_of_all_data_sets(tmp_path: Path) -> None:
    loaded = catalog(tmp_path, names=("grain", "chaff", "never"))
    counts = Counts(samples_in=10, done=7, unchanged=2, quarantined=1)
    good = report(status="published", snapshot=4, samples=counts, features={"a": counts}, seconds={"scan": 0.25})
    write_record(DatasetStore(loaded.store, "grain"), good)
    bad = report(run_id="20260103T000000-1", dataset="chaff", quarantine_by_reason={'odd"\\\n': 3})
    write_record(DatasetStore(loaded.store, "chaff"), bad)
    write_metrics(loaded)
    assert loaded.metrics is not None
    text = loaded.metrics.read_text()
    assert text == metrics_text(loaded)
    assert [path.name for path in loaded.metrics.parent.iterdir()] == ["metrics.prom"], "no temporary file is left"
    line = re.compile(r'[a-z_]+\{[a-z_]+="(?:[^"\\\n]|\\["\\n])*"(?:,[a-z_]+="(?:[^"\\\n]|\\["\\n])*")*\} -?[0-9.e+-]+')
    for row in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) gristmill_\w+ .+", row) or line.fullmatch(row), row
    for wanted in (
        'gristmill_last_run_success{dataset="grain"} 1',
        'gristmill_last_run_success{dataset="chaff"} 0',
        'gristmill_last_run_timestamp_seconds{dataset="grain"} 1767312060',
        'gristmill_snapshot_version{dataset="grain"} 4',
        'gristmill_samples{dataset="grain",outcome="in"} 10',
        'gristmill_feature_samples{dataset="grain",feature="a",outcome="quarantined"} 1',
        'gristmill_last_run_duration_seconds{dataset="grain",stage="scan"} 0.25',
        r'gristmill_quarantine_rows{dataset="chaff",reason="odd\"\\\n"} 3',
    ):
        assert wanted in text.splitlines()
    assert 'gristmill_last_success_timestamp_seconds{dataset="chaff"}' not in text
    assert "never" not in text
    assert {row.split()[2] for row in text.splitlines() if row.startswith("# TYPE")} <= METRICS.keys()


def test_a_journal_passes_everything_on_and_counts(tmp_path: Path) -> None:
    heard, store = Heard(), DatasetStore(str(tmp_path), "grain")
    journal = Journal(heard)
    journal.started("scan", 2, "files")  # before it is open: passed on, not kept
    journal.finished("scan")
    journal.open(store, report())
    journal.started("extract", 5, "rows")
    journal.advanced("extract", 2)
    journal.advanced("extract")
    journal.finished("extract", "done")
    for i in range(MAX_NOTES + 5):
        journal.note(f"note {i}")
    journal.close(report())
    assert heard.calls[2:] == [
        ("started", "extract", 5, "rows"),
        ("advanced", "extract", 2),
        ("advanced", "extract", 1),
        ("finished", "extract", "done"),
    ]
    assert len(heard.notes) == MAX_NOTES + 5
    text = (tmp_path / "grain/_runs/20260102T000000-1/events.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["event"] for line in lines[:3]] == ["run_started", "stage_started", "stage_finished"]
    assert (lines[2]["done"], lines[2]["total"], lines[2]["message"]) == (3, 5, "done")
    assert lines[-2]["message"] == "5 more notes were not written"
    assert (lines[-1]["status"], lines[-1]["error"]) == ("red", "too much\nfailed")
    assert sum(line["event"] == "note" for line in lines) == MAX_NOTES + 1


def test_a_store_that_cannot_be_written_stops_the_journal_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*arguments: object) -> None:
        raise StoreError("no space left on device")

    monkeypatch.setattr(DatasetStore, "write_bytes", full)
    heard = Heard()
    journal = Journal(heard)
    journal.open(DatasetStore(str(tmp_path), "grain"), report())
    journal.started("scan", None, "files")
    journal.finished("scan")
    assert [call[0] for call in heard.calls] == ["started", "finished"]
    assert [r.message for r in caplog.records] == ["events of the run are not kept any more: no space left on device"]


def test_versions_and_settings_hold_no_password(tmp_path: Path) -> None:
    from pipeline.catalog import load_catalog

    (tmp_path / "media").mkdir()
    (tmp_path / "data_catalog.yaml").write_text(
        "version: 1\nstore: s3://key:secret@bucket/prefix\ndatasets:\n  d:\n    root: ./media\n"
        "    source: {kind: folder}\n    features: {audio.mfcc: {options: {n_mfcc: 13}}}\n"
    )
    loaded = load_catalog(tmp_path / "data_catalog.yaml")
    found = settings(loaded, loaded.dataset("d"))
    assert found["store"] == "s3://…@bucket/prefix"
    assert "secret" not in json.dumps(found)
    assert found["features"]["audio.mfcc"][0]["audio.mfcc"]["n_mfcc"] == 13
    assert {"python", "numpy", "gristmill"} <= versions().keys()
