"""What the night shift decides without a server: what was missed, what is dead, what is overtaken, what is shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import cv2
import numpy as np
import pytest
from prefect import runtime

from features.errors import CatalogError
from flows.nightly import nightly
from flows.pages import find, serve_pages
from flows.recover import missed, settle, superseded
from pipeline.catalog import Catalog, load_catalog
from pipeline.record import RunReport
from pipeline.report.records import page_path, write_record
from pipeline.report.sheet import contact_sheet
from pipeline.report.status import status
from pipeline.store import DatasetStore
from pipeline.store.lease import acquire

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
DUE = datetime(2026, 11, 28, 1, 0, tzinfo=UTC)  # 02:00 in Berlin, in winter
CATALOG = """\
version: 1
store: ./store
datasets:
  clips:
    root: ./media
    source: {kind: folder}
    features: {image.histogram: {}}
    schedule: {cron: "0 2 * * *", timezone: Europe/Berlin}
"""


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    (tmp_path / "media").mkdir()
    path = tmp_path / "data_catalog.yaml"
    path.write_text(CATALOG)
    return load_catalog(path)


def store_of(catalog: Catalog) -> DatasetStore:
    return DatasetStore(catalog.store, "clips")


def leave(catalog: Catalog, begun: datetime, *, ended: bool = True) -> str:
    """What a run that began then leaves behind: its record, or only its events where it was killed."""
    run_id = f"{begun:%Y%m%dT%H%M%S}-000000abcd"
    if ended:
        report = RunReport(run_id=run_id, dataset="clips", started=begun.isoformat(), base=None, status="unchanged")
        write_record(store_of(catalog), report)
    else:
        store_of(catalog).write_bytes(f"_runs/{run_id}/events.jsonl", b"{}\n")
    return run_id


def test_a_night_is_missed_when_no_run_that_began_after_it_has_ended(catalog: Catalog) -> None:
    assert missed(catalog, NOW) == [], "a data set that never ran waits for its first night"
    leave(catalog, DUE - timedelta(days=3))
    assert missed(catalog, NOW) == ["clips"]
    leave(catalog, DUE + timedelta(minutes=1), ended=False)
    assert missed(catalog, NOW) == ["clips"], "one that was killed has done nothing for readers"
    leave(catalog, DUE + timedelta(minutes=2))
    assert missed(catalog, NOW) == []


@pytest.mark.parametrize(
    ("tags", "begun", "expected"),
    [
        (["auto-scheduled"], DUE - timedelta(seconds=1), False),
        (["auto-scheduled"], DUE + timedelta(seconds=1), True),
        ([], DUE + timedelta(seconds=1), False),
    ],
)
def test_a_scheduled_run_is_overtaken_by_one_that_began_after_it_was_due(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch, tags: list[str], begun: datetime, expected: bool
) -> None:
    leave(catalog, begun)
    run = SimpleNamespace(tags=tags, scheduled_start_time=DUE)
    monkeypatch.setattr(runtime, "flow_run", run)
    assert superseded(catalog, "clips") is expected


class Client:
    """As much of Prefect's client as ``settle`` asks for."""

    def __init__(self, *runs: Any) -> None:
        self.runs, self.states = runs, {}

    def read_flow_runs(self, **_: Any) -> tuple[Any, ...]:
        return self.runs

    def set_flow_run_state(self, name: str, state: Any, *, force: bool) -> None:
        assert force
        self.states[name] = state.name


def flow_run(catalog: Catalog, name: str, kind: str, *, path: Path | None = None, age: float = 0) -> Any:
    from prefect.client.schemas.objects import StateType

    state = SimpleNamespace(type=StateType[kind], timestamp=datetime.now(UTC) - timedelta(seconds=age))
    return SimpleNamespace(
        id=name, state=state, parameters={"catalog": str(path or catalog.path), "datasets": ["clips"]}
    )


def test_runs_whose_process_is_gone_are_ended_and_no_others(catalog: Catalog) -> None:
    runs = [flow_run(catalog, kind, kind) for kind in ("PENDING", "RUNNING", "CANCELLING")]
    strange = flow_run(catalog, "of another catalog", "RUNNING", path=Path("/elsewhere/data_catalog.yaml"))
    client: Any = Client(*runs, strange)
    assert settle(client, catalog, alone=True) == 3
    assert client.states == {"PENDING": "Crashed", "RUNNING": "Crashed", "CANCELLING": "Cancelled"}
    with acquire(store_of(catalog), "run"):
        assert settle(Client(*runs), catalog, alone=True) == 0, "one that holds the lease lives"  # type: ignore[arg-type]
    young, old = flow_run(catalog, "young", "PENDING"), flow_run(catalog, "old", "PENDING", age=3600)
    client = Client(young, old)
    assert settle(client, catalog, alone=False) == 1
    assert client.states == {"old": "Crashed"}, "on a shared server one that is young may still be starting"


def test_flows_refuse_data_sets_that_the_catalog_does_not_know(catalog: Catalog) -> None:
    from flows.nightly import _named

    with pytest.raises(CatalogError, match=r"no data set 'clip'; allowed: clips; did you mean 'clips'\?"):
        _named(catalog, ["clip"])
    assert _named(catalog, None) == ["clips"]
    with pytest.raises(Exception, match="datasets"):
        nightly.validate_parameters({"catalog": "x.yaml", "datasets": 7})


def test_pages_of_runs_are_served_on_loopback_and_nothing_else(catalog: Catalog) -> None:
    run_id = leave(catalog, DUE)
    report = RunReport(run_id=run_id, dataset="clips", started=DUE.isoformat(), base=None, status="unchanged")
    write_record(store_of(catalog), replace(report, page="there"))
    store_of(catalog).write_bytes(page_path(run_id), b"<p>a page</p>")
    store_of(catalog).write_bytes("_lease.json", b"{}")
    with serve_pages(catalog, 0) as url:
        assert url.startswith("http://127.0.0.1:")
        with urlopen(f"{url}/") as answer:
            index = answer.read().decode()
        assert f"clips/_runs/{run_id}/report.html" in index
        with urlopen(f"{url}/clips/{page_path(run_id)}") as answer:
            assert answer.read() == b"<p>a page</p>"
            assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        stranger = Request(f"{url}/", headers={"Host": "evil.example:80"})
        for wanted in (f"{url}/clips/_lease.json", f"{url}/clips/_runs/../_lease.json", stranger):
            with pytest.raises(HTTPError, match="404"):
                urlopen(wanted)
    assert find(catalog, "/others/_runs/index.html") is None


def test_a_contact_sheet_holds_the_first_pictures_of_a_page() -> None:
    import base64

    _, content = cv2.imencode(".png", np.full((60, 40, 3), 255, np.uint8))
    picture = f'<img src="data:image/png;base64,{base64.b64encode(bytes(content)).decode()}">'
    sheet = contact_sheet(picture * 5)
    assert sheet is not None
    pixels = cv2.imdecode(np.frombuffer(sheet, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape == (240, 640, 3)
    assert pixels[60, 80].min() > 240, "the middle of the first cell is the picture"
    assert pixels[180, 400].max() < 60, "the sixth cell is empty"
    assert contact_sheet("<p>nothing to see</p>") is None


def test_the_status_tells_when_the_next_run_is_due_in_the_zone_of_the_schedule(catalog: Catalog) -> None:
    told = status(catalog, "clips").next_run
    assert told is not None
    due = datetime.fromisoformat(told)
    assert (due.hour, due.minute) == (2, 0)
    assert timedelta(0) < due - datetime.now(UTC) <= timedelta(days=1, hours=1)
