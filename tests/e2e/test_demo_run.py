"""The demo corpus from raw files to trained fusion models: what a newcomer sees first."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import walk
from rich.console import Console

from pipeline.catalog import load_catalog
from pipeline.console import print_quarantine, print_report, print_training
from pipeline.demo import DATASET, write_corpus
from pipeline.run import published, run_dataset
from pipeline.train import train_dataset


@pytest.mark.e2e
def test_the_demo(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "demo", samples=96)
    catalog = load_catalog(corpus.catalog)
    report = run_dataset(catalog, DATASET, engine="dask")
    assert report.samples is not None
    assert (report.samples.samples_in, report.samples.done, report.samples.quarantined) == (98, 96, 2)
    assert report.quarantine_by_reason == {"corrupt": 4}
    snapshot = published(catalog, DATASET)
    broken = {row["sample_id"].rpartition("/")[2]: row["feature"] for row in snapshot.quarantine.to_pylist()}
    assert set(broken) == {"broken-video", "broken-image"}

    aligned = {name: snapshot.read(f"aligned.{name}", ["sample_id", "length", "coverage"]) for name in snapshot.aligned}
    assert set(aligned) == {"image.cnn", "scenes", "video.flow", "audio.mfcc", "text.word2vec"}
    lengths = {name: table.column("length").to_pylist() for name, table in aligned.items()}
    assert len(set(map(tuple, lengths.values()))) == 1, "every modality of a sample has the same number of rows"
    covered = np.concatenate(aligned["video.flow"].column("coverage").to_pylist())
    assert (covered > 0.9).mean() > 0.7

    again = run_dataset(catalog, DATASET, engine="dask")
    assert again.computed == 0
    assert not again.published

    trained = train_dataset(catalog, DATASET)
    accuracy = {row["model"]: row["accuracy"] for row in trained.rows}
    singles = [accuracy[name] for name in snapshot.aligned]
    assert max(accuracy["early"], accuracy["late"]) > max(singles) + 0.15, "labels need more than one modality"
    assert not train_dataset(catalog, DATASET).fresh

    drawn = Console(file=io.StringIO(), width=100, highlight=False)
    print_report(drawn, report)
    print_quarantine(drawn, snapshot.quarantine.to_pylist())
    print_training(drawn, trained.title, trained.rows)
    shown = walk.normalised(walk.blocks(walk.PAGE.read_text())[0][1])
    told = "\n".join(line for line in drawn.file.getvalue().splitlines() if not line.startswith("  "))  # type: ignore[attr-defined]
    assert [line for line in walk.normalised(told) if line not in shown] == []
