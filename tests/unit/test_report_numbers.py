"""What a page says in numbers, against plain ways to count the same."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_store import Made

from features.types import AudioClip
from pipeline.catalog import Catalog, Engine
from pipeline.record import Counts, RunReport, Spent
from pipeline.report import charts, draw, facts
from pipeline.report.album import Album
from pipeline.report.material import Material, Shown
from pipeline.report.page import in_bytes, render
from pipeline.report.statistics import (
    BINS,
    FEATURE_BYTES,
    MOVED,
    SHARDS,
    Reader,
    binned,
    chosen_shards,
    drift,
)
from pipeline.store import DatasetStore
from pipeline.store.quarantine import Failure

# -- distributions


def rows(seed: int, shards: int = 3, samples: int = 4, width: int = 2) -> dict[int, dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    return {
        shard: {f"s{shard}{i}": random.normal(5, 2, (random.integers(1, 5), width)) for i in range(samples)}
        for shard in range(shards)
    }


def publish(made: Made, found: dict[int, dict[str, np.ndarray]], **options: object) -> object:
    files = [made.file("words", shard, of, **options) for shard, of in found.items()]  # type: ignore[arg-type]
    base = made.store.snapshot()
    samples = {sample_id: shard for shard, of in found.items() for sample_id in of}
    return made.publish(*files, removes=base.files if base else (), samples=samples)


def test_a_distribution_equals_that_of_all_rows_at_once(tmp_path: Path) -> None:
    made, found = Made(tmp_path), rows(0)
    snapshot = publish(made, found)
    now = Reader().distribution(snapshot, "words", chosen_shards(snapshot, "words"))
    assert now is not None
    steps = np.concatenate([values for of in found.values() for values in of.values()]).astype(np.float32)
    assert (now.samples, now.samples_in_all, now.steps, now.valid) == (12, 12, len(steps), len(steps))
    np.testing.assert_allclose(now.mean, steps.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(now.spread, steps.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(np.sort(now.norms), np.sort(np.linalg.norm(steps, axis=1)), rtol=1e-5)
    assert sorted(now.lengths.tolist()) == sorted(len(values) for of in found.values() for values in of.values())
    assert now.constant.tolist() == []
    assert now.coverage is None


def test_constant_columns_are_found(tmp_path: Path) -> None:
    made, found = Made(tmp_path), rows(1)
    for of in found.values():
        for values in of.values():
            values[:, 1] = 0.1
    snapshot = publish(made, found)
    now = Reader().distribution(snapshot, "words", chosen_shards(snapshot, "words"))
    assert now is not None
    assert now.constant.tolist() == [1]
    assert now.spread[1] == 0


def test_a_shift_is_measured_in_deviations_of_before(tmp_path: Path) -> None:
    made, found = Made(tmp_path), rows(2)
    before_snapshot = publish(made, found)
    for of in found.values():
        for values in of.values():
            values[:, 1] += 3
    snapshot, reader = publish(made, found), Reader()
    shards = chosen_shards(snapshot, "words")
    now, before = (reader.distribution(one, "words", shards) for one in (snapshot, before_snapshot))
    assert now is not None
    assert before is not None
    moved = drift(now, before)
    assert moved is not None
    assert moved.column == 1
    assert moved.shift == pytest.approx(3 / before.spread[1], rel=1e-5)
    assert moved.moved is (moved.shift > MOVED) is True
    still = drift(before, before)
    assert still is not None
    assert (still.norm, still.shift, still.moved) == (0, 0, False)


def test_a_file_of_both_snapshots_is_read_once_and_many_shards_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(tmp_path)
    snapshot = publish(made, rows(3, shards=SHARDS + 20, samples=1))
    shards = chosen_shards(snapshot, "words")
    assert len(shards) == SHARDS
    assert chosen_shards(snapshot, "words") == shards
    opened: list[str] = []
    real = snapshot.store.fs.open
    monkeypatch.setattr(snapshot.store.fs, "open", lambda path, *rest: opened.append(path) or real(path, *rest))
    reader = Reader()
    now = reader.distribution(snapshot, "words", shards)
    again = reader.distribution(snapshot, "words", shards)
    assert now is not None
    assert again is not None
    assert (now.samples, now.samples_in_all, again.samples) == (SHARDS, SHARDS + 20, SHARDS)
    assert len(opened) == len(set(opened)) == SHARDS
    monkeypatch.setattr("pipeline.report.statistics.FEATURE_BYTES", 1)
    few = Reader().distribution(snapshot, "words", shards)
    assert few is not None
    assert few.samples == 1
    assert FEATURE_BYTES <= 64 << 20


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
    st.none() | st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30),
)
def test_bins_hold_everything(now: list[float], before: list[float] | None) -> None:
    shares, shares_before, low, high = binned(np.array(now), None if before is None else np.array(before))
    assert len(shares) == BINS
    assert low < high
    assert shares.sum() == pytest.approx(1)
    assert (shares_before is None) == (before is None)
    assert shares_before is None or shares_before.sum() == pytest.approx(1)


# -- pixels


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 15)), max_size=8).map(sorted), st.integers(1, 50))
def test_the_row_at_a_time_is_the_last_one_that_holds(spans: list[tuple[int, int]], columns: int) -> None:
    start = np.array([begin for begin, _ in spans], dtype=np.int64)
    end = start + np.array([length for _, length in spans], dtype=np.int64)
    edges = np.linspace(0, 60, columns + 1).astype(np.int64)
    found = draw.over_time(np.zeros((len(spans), 1), np.float32), start, end, edges)
    for column, row in enumerate(found.tolist()):
        middle = (edges[column] + (edges[column + 1] - edges[column]) // 2).item()
        begun = [i for i in range(len(spans)) if start[i] <= middle]
        held = begun and max(end[begun[-1]], start[begun[-1]] + 1) > middle
        assert row == (begun[-1] if held else -1)


def test_what_is_masked_is_not_drawn() -> None:
    values = np.array([[0, 5], [1, 5], [2, 5]], dtype=np.float32)
    drawn = draw.feature_strip(values, np.array([0, 0, -1, 2]))
    assert drawn.shape == (2, 4, 4)
    assert drawn[:, :, 3].tolist() == [[255, 255, 0, 255]] * 2
    assert (drawn[0, 0] != drawn[0, 3]).any()
    assert (drawn[1, 0] == drawn[1, 3]).all(), "a number that does not change has one colour"
    one = draw.feature_strip(values[:1], np.array([0, 0]))
    assert (one[0, 0] != one[1, 0]).any(), "where nothing changes, numbers are set against each other"
    assert not draw.feature_strip(np.zeros((0, 3), np.float32), np.array([-1, -1]))[..., 3].any()


@pytest.mark.parametrize(("rate", "hertz"), [(8000, 1000), (16_000, 440), (44_100, 10_000)])
def test_a_tone_of_full_scale_has_0_db_at_its_frequency(rate: int, hertz: int) -> None:
    samples = np.sin(2 * np.pi * hertz * np.arange(rate) / rate).astype(np.float32)[None]
    power = draw.spectrogram_db(AudioClip(samples=samples, sample_rate=rate), 200)
    assert power.shape[1] <= 200
    mean = power.mean(axis=1)
    assert np.argmax(mean) / (len(mean) - 1) * rate / 2 == pytest.approx(hertz, abs=rate / 2 / len(mean))
    assert -1.5 < mean.max() <= 0.1


def test_short_and_silent_sounds_are_drawn() -> None:
    for samples in (np.zeros((2, 0), np.float32), np.zeros((1, 3), np.float32), np.ones((1, 7), np.float32)):
        clip = AudioClip(samples=samples, sample_rate=8000)
        assert np.isfinite(draw.spectrogram_db(clip, 10)).all()
        low, high = draw.envelope(clip, 4)
        assert len(low) == len(high) == min(4, samples.shape[1])
        charts.waveform(low, high, 0.0, "nothing")


def test_flow_to_the_right_is_red_and_stillness_black() -> None:
    field = np.zeros((4, 4, 2), np.float32)
    field[:2, :, 0] = 3
    colours = draw.flow_colours(field, 3)
    assert colours[0, 0].tolist() == [255, 0, 0]
    assert colours[3, 3].tolist() == [0, 0, 0]
    wheel = draw.flow_wheel(33)
    assert wheel[16, 32, :3].tolist() == [255, 0, 0]
    assert (wheel[0, 0, 3], wheel[16, 16, 3]) == (0, 255)
    frame = np.full((4, 4, 3), 100, np.uint8)
    assert draw.flow_over(frame, np.zeros_like(field), 1.0).max() == 100


@pytest.mark.parametrize("shape", [(1, 1), (20_000, 1), (1, 5000), (300, 400)])
def test_thumbnails_are_small_and_never_nothing(shape: tuple[int, int]) -> None:
    small = draw.thumbnail(np.zeros((*shape, 3), np.uint8), 100)
    assert min(small.shape[:2]) >= 1
    assert max(small.shape[:2]) <= 100


# -- charts


def test_charts_are_well_formed_and_escape_their_label() -> None:
    numbers = np.array([0.0, 2.0, -1.0])
    hostile = '"><script>'
    for made in (
        charts.waveform([-1, 0], [1, 0.5], 1.0, hostile),
        charts.histogram(np.array([0.25, 0.75]), np.array([1.0, 0.0]), hostile),
        charts.histogram(np.zeros(3), None, hostile),
        charts.columns(numbers, np.abs(numbers), hostile),
        charts.columns(np.zeros(1), np.zeros(1), hostile),
        charts.columns(np.arange(1000.0), np.ones(1000), hostile),
        charts.history([1.0, None, 3.0], hostile),
        charts.history([], hostile),
        charts.curve([None, 1.0, 2.0, None, 0.0], hostile),
        charts.curve([], hostile),
    ):
        root = ET.fromstring(str(made))
        assert root.attrib["aria-label"] == hostile
        assert "nan" not in str(made)
        assert len(str(made)) < 60_000


# -- the album


def test_pictures_end_with_time_and_with_room() -> None:
    late = Album(0.0)
    assert late.attempt("a face", lambda: 1) is None
    full = Album(60.0, size=100)
    assert full.attempt("one", lambda: full.photo(np.zeros((30, 40, 3), np.uint8), "black")) is not None
    assert full.attempt("two", lambda: 2) is None
    broken = Album(60.0)
    assert broken.attempt("three", lambda: 1 // 0) is None
    assert [(m.what, m.why) for album in (late, full, broken) for m in album.missing] == [
        ("a face", "the 0 s for pictures were over"),
        ("two", "the page is full (0 MiB of pictures)"),
        ("three", "ZeroDivisionError: integer division or modulo by zero"),
    ]


# -- counts and words


def record(run_id: str = "20260102T000000-1", **fields: object) -> RunReport:
    return RunReport(run_id=run_id, dataset="grain", started="2026-01-02T00:00:00+00:00", base=None, **fields)  # type: ignore[arg-type]


def material(tmp_path: Path, of: RunReport, **fields: object) -> Material:
    from pipeline.catalog import DataSet
    from pipeline.catalog.models import FolderSource, Splits, Train

    dataset = DataSet(
        name="grain",
        root=str(tmp_path),
        source=FolderSource(kind="folder"),
        splits=Splits(train=1.0),
        features={},
        align=None,
        train=Train(),
        max_failed=0.1,
        shard_samples=64,
    )
    catalog = Catalog(path=tmp_path / "c.yaml", store=str(tmp_path), engine=Engine(), datasets={"grain": dataset})
    given_fields: dict[str, object] = {"earlier": (), "snapshot": None, "base": None, "samples": None, "failures": ()}
    store = DatasetStore(str(tmp_path), "grain")
    return Material(catalog=catalog, dataset=dataset, store=store, record=of, **(given_fields | fields))  # type: ignore[arg-type]


def table(names: list[str], labels: list[str | None] | None = None) -> pa.Table:
    n = len(names)
    columns = {"sample_id": names, "split": ["train"] * n, "label": pa.array(labels or [None] * n, pa.string())}
    times = {name: pa.nulls(n, pa.int64()) for name in ("start_ns", "end_ns")}
    uris = {f"{stream}_uri": pa.nulls(n, pa.string()) for stream in ("video", "audio", "text")}
    return pa.table({**columns, **times, **uris, "image_uri": [f"/{name}.png" for name in names]})


def names(found: list[Shown]) -> list[str]:
    return [shown.sample_id for shown in found]


def test_samples_are_the_same_every_night_and_labels_take_turns(tmp_path: Path) -> None:
    ids = [f"s{i:03d}" for i in range(100)]
    labels: list[str | None] = ["rare" if i < 3 else "common" for i in range(100)]
    one = material(tmp_path, record(), samples=table(ids, labels))
    shown = one.choose("image", 6)
    assert sorted(shown_.label or "" for shown_ in shown) == ["common"] * 3 + ["rare"] * 3
    order = np.random.default_rng(0).permutation(100).tolist()
    other = material(tmp_path, record(), samples=table([ids[i] for i in order], [labels[i] for i in order]))
    assert names(other.choose("image", 6)) == names(shown)
    bad = [Failure(sample_id=name, feature="f", stage="decode", reason="corrupt", message="m") for name in names(shown)]
    without = material(tmp_path, record(), samples=table(ids, labels), failures=bad)
    assert not set(names(without.choose("image", 6))) & set(names(shown))
    assert one.choose("video", 6) == one.choose("image", 0) == []
    assert names(material(tmp_path, record(), samples=table(["only"])).choose("image", 6)) == ["only"]


def test_new_samples_get_up_to_half_of_the_places(tmp_path: Path) -> None:
    made = Made(tmp_path)
    ids = [f"s{i:03d}" for i in range(50)]
    base = made.publish(made.file("words", 0, {"s000": [[1, 2]]}), samples=dict.fromkeys(ids[:40], 0))
    found = material(tmp_path, record(), samples=table(ids), base=base).choose("image", 6)
    assert [shown.sample_id >= "s040" for shown in found].count(True) == 3
    assert {shown.sample_id for shown in found if shown.fresh} == {name for name in names(found) if name >= "s040"}


def test_an_empty_run_has_a_page(tmp_path: Path) -> None:
    nothing = Counts(samples_in=0, done=0, unchanged=0, quarantined=0)
    for run in (record(status="red", error="no files"), record(samples=nothing, features={"f": nothing}, status="red")):
        assert "The run failed and published nothing; readers have nothing yet." in render(material(tmp_path, run))


def test_the_bottleneck_is_named() -> None:
    run = record(
        seconds={"scan": 1.0, "extract": 8.0, "align": 1.0, "report": 90.0},
        spent={"decode video": Spent(30, 3.0), "extract f": Spent(10, 1.0), "align": Spent(5, 70.0)},
    )
    assert facts.bottleneck(run) == (
        "extract took 8.0 of 10.0 s (80%); of the workers' time, 75% is decode video, at 10.0 a second and worker."
    )
    assert facts.bottleneck(record(seconds={"scan": 3.0, "plan": 1.0})) == "scan took 3.0 of 4.0 s (75%)."
    assert facts.bottleneck(record()) == ""


def test_rates_are_set_against_the_last_run_that_did_the_same(tmp_path: Path) -> None:
    earlier = (
        record("20260101T000003-1"),
        record("20260101T000002-1", spent={"extract f": Spent(100, 5.0), "decode text": Spent(2, 1.0)}),
        record("20260101T000001-1", spent={"extract f": Spent(100, 50.0)}),
    )
    run = record(spent={"extract f": Spent(100, 10.0), "decode text": Spent(100, 1.0), "write f": Spent(100, 0.5)})
    found = {part["name"]: part for part in facts.parts(material(tmp_path, run, earlier=earlier))}
    assert (found["extract f"]["before"], found["extract f"]["ratio"]) == (20.0, 0.5)
    assert (found["decode text"]["before"], found["decode text"]["ratio"]) == (2.0, None), "too few then to compare"
    assert (found["write f"]["before"], found["write f"]["ratio"]) == (None, None)
    assert list(found) == ["extract f", "decode text", "write f"]


def test_sizes_in_words() -> None:
    assert [in_bytes(size) for size in (0, 999, 1000, 3_400_000, 5e12)] == [
        "0 bytes",
        "999 bytes",
        "1.0 kB",
        "3.4 MB",
        "5.0 TB",
    ]
