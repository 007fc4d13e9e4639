"""A training that is killed (SIGKILL) within an epoch goes on to what an undisturbed one comes to."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.catalog import load_catalog
from pipeline.train import train_dataset

if TYPE_CHECKING:
    from conftest import World

KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.catalog import load_catalog
from pipeline.fusion.keep import Keeper
from pipeline.train import train_dataset

save, left = Keeper.save, int(sys.argv[2])

def saved(self, model, tensors, document):
    global left
    save(self, model, tensors, document)
    left -= 1
    if left == 0:
        assert document["position"] > 0, "in the midst of an epoch"
        os.kill(os.getpid(), signal.SIGKILL)

Keeper.save = saved
train_dataset(load_catalog(Path(sys.argv[1])), "grain", keep_seconds=0)
"""


@pytest.mark.e2e
def test_losses_are_those_of_an_undisturbed_training(world: World) -> None:
    world.edit(world.catalog, "test: 0.2, seed: 0", "test: 0.2, seed: 3")  # five train: three batches an epoch
    world.edit(world.catalog, "    max_failed", "    train: {epochs: 3, batch_size: 2}\n    max_failed")
    world.run()
    catalog = load_catalog(world.catalog)
    for saves in ("2", "8"):
        done = subprocess.run([sys.executable, "-c", KILLED, str(world.catalog), saves], check=False)
        assert done.returncode == -signal.SIGKILL
    models = world.folder / "store" / "grain" / "_models"
    (partial,) = models.iterdir()
    assert partial.name.endswith(".partial")
    assert (partial / "current.safetensors").is_file()
    resumed = train_dataset(catalog, "grain")
    assert not partial.exists()
    undisturbed = train_dataset(catalog, "grain", retrain=True)
    assert resumed.fresh
    assert undisturbed.fresh
    assert _learnt(resumed.document) == _learnt(undisturbed.document)
    assert resumed.document["models"]["brightness"]["history"][2]["train_loss"] > 0
    assert json.loads((Path(resumed.path) / "result.json").read_text()) == undisturbed.document


def _learnt(document: dict[str, Any]) -> dict[str, Any]:
    return {key: document[key] for key in ("models", "gain", "missing")}
