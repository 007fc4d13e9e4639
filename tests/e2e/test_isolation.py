"""A sample that crashes, hangs or eats memory costs one row in the quarantine: its neighbours are kept, once each."""

from __future__ import annotations

import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pipeline.catalog import load_catalog
from pipeline.execute.guard import compute_guarded
from pipeline.execute.work import Guard
from pipeline.run import Run, published, run_dataset
from pipeline.state import StateRef

if TYPE_CHECKING:
    from conftest import World

EVIL = {
    "segfault": "worker_died",
    "endless": "out_of_memory",
    "sleep": "timeout",
    "raise": "extractor_error",
    "nan": "non_finite",
    "wide": "wrong_width",
}

STEP = """
    import ctypes, os, time
    from dataclasses import dataclass
    from pathlib import Path

    import numpy as np

    from features.time import ALWAYS
    from features.types import FeatureSequence

    @dataclass(frozen=True, kw_only=True)
    class Length:
        name = "evil"
        stream = "text"
        numerics = ()
        counter: str
        batch_size = 1
        dim = 1

        def __call__(self, batch, device):
            return [self._one(text.plain) for text in batch]

        def _one(self, text):
            if text == "segfault":
                ctypes.string_at(0)
            hoard = []
            while text == "endless":
                hoard.append(np.ones(8 << 20))
            if text == "sleep":
                time.sleep(3600)
            if text == "raise":
                raise RuntimeError("no")
            number = float("nan") if text == "nan" else float(len(text))
            values = np.full((1, 2 if text == "wide" else 1), number, np.float32)
            with open(self.counter, "a") as out:
                out.write(text + "\\n")
            return FeatureSequence.from_rows(values, [ALWAYS])
    """


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """500 good texts and six that must not be computed, in shards of 64."""
    media = tmp_path / "media"
    media.mkdir()
    for number in range(500):
        (media / f"good{number:03d}.txt").write_text(f"good {number}")
    for name in EVIL:
        (media / f"evil-{name}.txt").write_text(name)
    (tmp_path / "evil_steps.py").write_text(textwrap.dedent(STEP))
    (tmp_path / "data_catalog.yaml").write_text(
        textwrap.dedent(
            f"""
            version: 1
            store: store
            engine: {{workers: 2, device: cpu, memory: 3GiB, sample_seconds: 10}}
            datasets:
              texts:
                root: media
                source: {{kind: folder}}
                features:
                  length: {{extractor: "evil_steps:Length", options: {{counter: "{tmp_path}/computed"}}}}
                max_failed: 0.05
            """
        )
    )
    return tmp_path


def test_six_killers_among_500_cost_six_rows_and_nothing_is_computed_twice(corpus: Path) -> None:
    catalog = load_catalog(corpus / "data_catalog.yaml")
    report = run_dataset(catalog, "texts")
    assert report.samples is not None
    assert (report.samples.samples_in, report.samples.done, report.samples.quarantined) == (506, 500, 6)
    failed = {row["sample_id"]: row for row in published(catalog, "texts").quarantine.to_pylist()}
    assert {name: failed[f"evil-{name}"]["reason"] for name in EVIL} == EVIL
    assert len(failed) == 6
    assert "SIGSEGV" in failed["evil-segfault"]["message"]
    assert "Segmentation fault" in failed["evil-segfault"]["traceback"]
    assert "_one" in failed["evil-segfault"]["traceback"], "where it crashed"
    assert "10 s" in failed["evil-sleep"]["message"]
    computed = Counter((corpus / "computed").read_text().splitlines())
    assert {text: times for text, times in computed.items() if text.startswith("good") and times != 1} == {}
    assert sum(text.startswith("good") for text in computed) == 500
    again = run_dataset(catalog, "texts")
    assert again.computed == 0
    assert not again.published


def test_a_dying_decoder_is_blamed_on_its_stream_alone(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = world.steps.read_text()
    head, tail = steps.split("class Words")
    poison = """
        import os, signal
        for text in batch:
            if "poison" in text.plain:
                os.kill(os.getpid(), signal.SIGKILL)
        return ["""
    world.steps.write_text(head + "class Words" + tail.replace("\n        return [", poison, 1))
    caption = world.media / "night" / "s08.srt"
    caption.write_text(caption.read_text().replace("word", "poison"))
    catalog = load_catalog(world.catalog)
    report = run_dataset(catalog, "grain", engine="dask")
    assert report.features["words"].quarantined == 1
    assert sum(counts.quarantined for counts in report.features.values()) == 1, "its other features are kept"
    (row,) = published(catalog, "grain").quarantine.to_pylist()
    assert (row["sample_id"], row["feature"], row["reason"]) == ("night/s08", "words", "worker_died")
    assert "killed by SIGKILL" in row["message"]


def test_an_error_of_the_run_is_raised_and_not_blamed_on_samples(world: World) -> None:
    catalog = load_catalog(world.catalog)
    run = Run(catalog, "grain")
    run.scan()
    run.plan()
    guard = Guard(folder=str(catalog.folder), environment={}, sample_seconds=60.0, memory=2 << 30)
    with run._open_engine(0) as engine:
        work = next(run._shard_work(run.planned.shards_to_write, engine))
    missing = StateRef(catalog.store, "grain", str(catalog.folder), "_fitted/not-there.safetensors")
    broken = replace(work, features=tuple(replace(feature, state=missing) for feature in work.features))
    with pytest.raises(FileNotFoundError, match="not-there"):
        compute_guarded(broken, guard)
