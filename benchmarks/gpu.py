"""What a GPU does for each feature: the same samples through `gristmill bench` on the CPU and on the GPU.

    uv run python benchmarks/gpu.py [--quick] [--samples 200]

For every part of the work (decoding, each feature, writing): how many a second of each device; which part holds the run
up; and how busy the GPU is meanwhile, as `nvidia-smi` tells once a second. Needs a CUDA device: without one nothing is
measured, and `run.py --all` leaves it out and says so. `--device cpu` measures the CPU twice, to try the script.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from check import CATALOG, bench
from corpora import jpegs, videos
from harness import emit, figure

from pipeline.demo import write_corpus

DATA_SETS = ("demo", "photographs", "films")


def device_name() -> str:
    """The GPU. Exits where torch finds none."""
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here: nothing is measured")
    return torch.cuda.get_device_name()


@contextmanager
def utilization() -> Iterator[list[float]]:
    """The share of each second in which the GPU is at work, 0 to 1; empty where there is no `nvidia-smi`."""
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop=1", "--id=0"]
    found: list[float] = []
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        yield found
        return
    try:
        yield found
    finally:
        process.terminate()
        said, _ = process.communicate()
        found += [float(line) / 100 for line in said.splitlines() if line.strip().isdigit()]


def rows(one: dict[str, Any], other: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts of the work, those that take most on the GPU first."""
    rates = {part["what"]: part["rate"] for part in one["parts"]}
    for part in sorted(other["parts"], key=lambda part: -part["share"]):
        if part["what"] in rates:
            both = {"CPU a second": rates[part["what"]], "GPU a second": part["rate"]}
            times = part["rate"] / rates[part["what"]]
            yield {"data set": other["dataset"], "part": part["what"], **both, "times": times, "share": part["share"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the files, few samples")
    parser.add_argument("--samples", type=int, default=200, help="how many samples of each are measured")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="what the CPU is compared with")
    options = parser.parse_args()
    name = device_name() if options.device == "cuda" else "the CPU again"
    scale, samples = (10, 20) if options.quick else (1, options.samples)
    table, busy, bottlenecks = [], {}, {}
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as place:
        folder = Path(place)
        write_corpus(folder / "demo", samples=96)
        jpegs(folder / "photographs", 1_000 // scale)
        videos(folder / "films", 100 // scale, seconds=4)
        for device in ("cpu", options.device):
            engine = f"engine: {{device: {device}}}\n"
            (folder / f"{device}.yaml").write_text(CATALOG.replace("store: store\n", f"store: store\n{engine}"))
        for dataset in DATA_SETS:
            before = bench(folder, dataset, samples, "cpu.yaml")
            with utilization() as seconds:
                after = bench(folder, dataset, samples, f"{options.device}.yaml")
            table += rows(before, after)
            if seconds:
                busy[dataset] = statistics.fmean(seconds)
            bottlenecks[dataset] = {"CPU": before["bottleneck"], "GPU": after["bottleneck"]}
    computed = [row for row in table if row["part"].startswith("extract")]
    emit(
        table,
        measures=[
            *(figure(f"{row['data set']}, {row['part']}: speed / CPU", row["times"]) for row in computed),
            *(figure(f"{each}: share of the time the GPU is busy", share) for each, share in busy.items()),
        ],
        device=name,
        busy=busy,
        bottlenecks=bottlenecks,
    )


if __name__ == "__main__":
    main()
