"""What training costs beside the same model in a plain loop over tensors in memory.

    uv run python benchmarks/fusion.py [--quick]

100,000 samples x three features (128, 64 and 20 numbers, 8 rows each, one in ten missing), 10 labels.
*Gristmill*: early fusion by `pipeline.fusion` (masks, validation after each epoch, a seed for each step, what is needed
to resume). *Plain*: the same network and the same AdamW on one tensor of the summaries, permuted anew each
epoch, nothing else.
Seconds of an epoch, batches of 256, medians of interleaved rounds; and once, what is done before the first epoch:
tables to padded arrays, and statistics over time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from harness import emit, figure

from pipeline.fusion.data import FusionData
from pipeline.fusion.keep import Keeper
from pipeline.fusion.models import parameter_groups
from pipeline.fusion.options import TrainOptions
from pipeline.fusion.setup import Setup
from pipeline.fusion.targets import read_targets
from pipeline.store.shard import METADATA_KEY

FEATURES = {"image": 128, "text": 64, "audio": 20}
ROWS, LABELS, BATCH = 8, 10, 256


def tables(samples: int) -> dict[str, pa.Table]:
    random = np.random.default_rng(0)
    label = random.integers(0, LABELS, samples)
    split = np.where(
        np.arange(samples) % 10 == 0, "test", np.where(np.arange(samples) % 10 == 1, "validation", "train")
    )
    found = {}
    for name, dim in FEATURES.items():
        values = random.standard_normal((samples, ROWS, dim), dtype=np.float32)
        values[:, :, 0] += label[:, None]
        valid = np.repeat(random.random(samples) > 0.1, ROWS)
        begin = pa.array(np.arange(samples + 1) * ROWS, pa.int32())
        starts = np.tile(np.arange(ROWS), samples)
        wide = pa.array(np.arange(samples + 1) * ROWS * dim, pa.int32())
        found[name] = pa.table(
            {
                "sample_id": [f"s{k:06d}" for k in range(samples)],
                "view": pa.array(np.zeros(samples), pa.int16()),
                "split": split,
                "label": label.astype(str),
                "length": pa.array(np.full(samples, ROWS), pa.int32()),
                "start_ns": pa.ListArray.from_arrays(begin, pa.array(starts)),
                "valid": pa.ListArray.from_arrays(begin, pa.array(valid)),
                "values": pa.ListArray.from_arrays(wide, pa.array(values.ravel())),
            }
        ).replace_schema_metadata({METADATA_KEY: json.dumps({"dim": dim})})
    return found


def plain(setup: Setup, options: TrainOptions, epochs: int) -> list[float]:
    """Seconds of each epoch of a loop with nothing but the model."""
    model = setup.make("early", list(FEATURES), 0)
    summaries, (truth,) = setup.part(model, "train")
    joined = [
        torch.cat([value, summaries.present[:, k : k + 1].float()], 1) for k, value in enumerate(summaries.values)
    ]
    whole, widths = torch.cat(joined, dim=1), [one.shape[1] for one in joined]
    optimizer = torch.optim.AdamW(parameter_groups(model, options.learning_rate, options.weight_decay))
    encoders, found = model.encoders(), []
    model.train()
    for _ in range(epochs):
        begun = time.perf_counter()
        order = torch.randperm(len(truth))
        for begin in range(0, len(order), BATCH):
            index = order[begin : begin + BATCH]
            parts = whole[index].split(widths, dim=1)
            embedded = [
                encoder.layers(part[:, :-1]) * part[:, -1:] for encoder, part in zip(encoders, parts, strict=True)
            ]
            flags = torch.cat([part[:, -1:] for part in parts], dim=1)
            loss = torch.nn.functional.cross_entropy(model.head(torch.cat([*embedded, flags], dim=1)), truth[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(time.perf_counter() - begun)
    return found


def trained(setup: Setup) -> list[float]:
    """Seconds of each epoch but the first, as Gristmill trains."""
    ends: list[float] = []
    descent = setup.descent(setup.make("early", list(FEATURES), 0), "early", 0, "early")
    descent.run(Keeper(), lambda _: ends.append(time.perf_counter()))
    return np.diff(ends).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="5,000 samples")
    samples = 5_000 if parser.parse_args().quick else 100_000
    torch.set_num_threads(1)
    options = TrainOptions(methods=("early",), epochs=2, patience=3, batch_size=BATCH, device="cpu")
    found: dict[str, Any] = {"samples": samples}
    made = tables(samples)
    begun = time.perf_counter()
    data = FusionData.from_tables(made)
    found["tables to arrays s"] = time.perf_counter() - begun
    rows = data.rows("train")
    targets, truth = read_targets(
        data.labels, rows, np.arange(samples), options.targets, separator="/", between=",", balanced=False
    )
    setup = Setup(data, targets, truth, options, "cpu")
    model = setup.make("early", list(FEATURES), 0)
    begun = time.perf_counter()
    for split in ("train", "validation", "test"):
        setup.part(model, split)
    found["statistics over time s"] = time.perf_counter() - begun
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(5):
        theirs += plain(setup, options, 2)[1:]
        ours += trained(setup)
    found["plain epoch s"] = statistics.median(theirs)
    found["gristmill epoch s"] = statistics.median(ours)
    found["gristmill / plain"] = found["gristmill epoch s"] / found["plain epoch s"]
    what = "epoch: time / plain loop over tensors in memory"
    emit([found], measures=[figure(what, found["gristmill / plain"], at_most=True)])


if __name__ == "__main__":
    main()
