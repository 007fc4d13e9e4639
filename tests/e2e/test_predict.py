"""From training to predictions, and no further than the features that the model knows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from features.errors import StoreError
from pipeline.catalog import load_catalog
from pipeline.cli import app
from pipeline.fusion.data import FusionData
from pipeline.fusion.result import TrainResult
from pipeline.predict import predict_dataset
from pipeline.run import published, run_dataset
from pipeline.train import train_dataset

if TYPE_CHECKING:
    from conftest import World

pytestmark = pytest.mark.e2e
NEW = """\
  fresh:
    root: ./fresh
    source: {{kind: folder}}
    splits: {{test: 1.0}}
    features:
      brightness: {{extractor: "{module}:Brightness"{more}}}
      words: {{extractor: "{module}:Words"}}
    align: {{grid: {grid}}}
"""


def fresh(world: World, *, more: str = "", grid: float = 0.5) -> None:
    """A second data set of other pictures without labels."""
    text = world.catalog.read_text().partition("  fresh:")[0]
    world.catalog.write_text(text + NEW.format(module=world.module, more=more, grid=grid))
    folder = world.folder / "fresh"
    if not folder.exists():
        folder.mkdir()
        for i, path in enumerate(sorted(world.media.rglob("*.png"))[:5]):
            (folder / f"new{i}.png").write_bytes(path.read_bytes())
            (folder / f"new{i}.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nsome words\n")
        (folder / "new4.srt").unlink()


def test_predictions_are_what_the_model_says(world: World) -> None:
    for i in range(12, 24):
        world.add(i)
    world.run()
    catalog = load_catalog(world.catalog)
    trained = train_dataset(catalog, "grain")
    runner = CliRunner()

    def asked(*options: str) -> Any:
        done = runner.invoke(app, ["predict", *options, "--catalog", str(world.catalog)], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done

    # of the same data set: the accuracy in testing is found again, for every model that was saved
    for name in trained.document["trained"]:
        found = predict_dataset(catalog, "grain", name=name, splits=["test"])
        right, known = found.right
        assert known == trained.document["samples"]["test"]
        assert right / known == pytest.approx(trained.document["models"][name]["runs"][0]["accuracy"])

    # the same numbers as the model gives on what it was trained from, whatever the form of the table
    snapshot = published(catalog, "grain")
    data = FusionData.from_tables({name: snapshot.read(f"aligned.{name}") for name in snapshot.aligned})
    import torch

    model = TrainResult.load_model(trained.path, "early")
    with torch.no_grad():
        logits = model(
            {name: torch.from_numpy(one.values) for name, one in data.modalities.items()},
            {name: torch.from_numpy(one.mask) for name, one in data.modalities.items()},
        )
    wanted = dict(zip(data.sample_ids, logits.softmax(dim=1).numpy(), strict=True))
    for suffix in ("csv", "parquet", "json"):
        asked("grain", "--method", "early", "--out", str(world.folder / f"out.{suffix}"))
    with (world.folder / "out.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    document = json.loads((world.folder / "out.json").read_text())
    table = pq.read_table(world.folder / "out.parquet")
    assert document["samples"] == {"in": 24, "predicted": 24}
    assert json.loads(table.schema.metadata[b"gristmill"])["model"]["name"] == "early"
    assert len(rows) == len(document["predictions"]) == len(table) == 24
    for by_csv, by_json, by_parquet in zip(rows, document["predictions"], table.to_pylist(), strict=True):
        found_p = [float(by_csv[f"p_{label}"]) for label in ("day", "night")]
        np.testing.assert_allclose(found_p, wanted[by_csv["sample_id"]], atol=1e-6)
        assert by_csv["predicted"] == ("day", "night")[int(np.argmax(found_p))]
        assert by_json == by_parquet
        assert by_csv["label"] == by_json["label"]

    # of new samples: computed first, with --run
    fresh(world)
    with pytest.raises(StoreError, match="nothing is published yet; cure: gristmill run fresh"):
        predict_dataset(load_catalog(world.catalog), "fresh", model_of="grain")
    out = world.folder / "deep" / "new.csv"
    said = asked("fresh", "--model-of", "grain", "--run", "--serial", "--out", str(out)).output
    assert "5 samples = 5 predicted" in said.replace("\n", " ")
    with out.open() as stream:
        new = {row["sample_id"]: row for row in csv.DictReader(stream)}
    assert sorted(new) == [f"new{i}" for i in range(5)]
    assert (new["new4"]["missing"], new["new0"]["missing"], new["new0"]["label"]) == ("words", "", "")

    # of features that are made otherwise: refused, and told which
    fresh(world, more=", options: {gain: 2.0}")
    other = load_catalog(world.catalog)
    run_dataset(other, "fresh", engine="serial")
    with pytest.raises(StoreError, match=r"brightness: brightness gain 1\.0 -> 2\.0; cure: the same steps and options"):
        predict_dataset(other, "fresh", model_of="grain")
    fresh(world, grid=0.25)
    other = load_catalog(world.catalog)
    run_dataset(other, "fresh", engine="serial")
    with pytest.raises(StoreError, match=r"aligned\.brightness: align timeline .*; aligned\.words: align timeline"):
        predict_dataset(other, "fresh", model_of="grain")


def test_what_is_not_there_is_told(world: World, tmp_path: Path) -> None:
    world.run()
    catalog = load_catalog(world.catalog)
    with pytest.raises(StoreError, match="no model was trained; cure: gristmill train grain"):
        predict_dataset(catalog, "grain")
    done = CliRunner().invoke(app, ["predict", "grain", "--catalog", str(world.catalog), "--out", "table.xlsx"])
    assert isinstance(done.exception, StoreError)
    assert str(done.exception) == "table.xlsx: got '.xlsx', allowed: .csv, .parquet, .json"
