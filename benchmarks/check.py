"""`gristmill bench --check` on data as people have it: the demo, 10,000 photographs and 1,000 films.

    uv run python benchmarks/check.py [--quick] [--samples 400]

Media are written into a temporary folder (some 2 GB). Of each data set the command measures samples chosen at random,
names the bottleneck and holds the figures against the floors that come with Gristmill.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from corpora import jpegs, videos
from harness import emit, figure

from pipeline.demo import write_corpus

CATALOG = """
version: 1
store: store
datasets:
  demo: {root: demo/media, source: {kind: folder, label_from: folder}, features: {image.cnn: {}, audio.mfcc: {},
         video.flow: {}, scenes: {prepare: [video.keyframes], extractor: image.cnn}}}
  photographs: {root: photographs, source: {kind: folder}, features: {image.cnn: {}}}
  films: {root: films, source: {kind: folder}, features: {video.flow: {}, video.keyframes: {}, audio.mfcc: {}}}
"""


def bench(folder: Path, dataset: str, samples: int, catalog: str = "data_catalog.yaml") -> dict[str, Any]:
    """What the command prints, and its exit code."""
    code = "from flows.cli import main; main()"
    command = [sys.executable, "-c", code, "bench", dataset, "-c", catalog, "--check", "--json"]
    command += ["--samples", str(samples)]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 1) or not done.stdout:
        raise SystemExit(f"{dataset}: gristmill bench ended with exit code {done.returncode}")
    found: dict[str, Any] = json.loads(done.stdout)
    return {**found, "exit": done.returncode}


def rows(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The parts of the work, those that take most first."""
    for part in sorted(found["parts"], key=lambda part: -part["share"]):
        yield {"data set": found["dataset"], "part": part["what"], "a second": part["rate"], "share": part["share"]}


def measures(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The figures with their floors."""
    for check in found["checks"]:
        sign, _, limit = check["allowed"].partition(" ")
        yield figure(f"{found['dataset']}: {check['figure']}", check["got"], float(limit), at_most=sign == "<=")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a hundredth of the files, few samples")
    parser.add_argument("--samples", type=int, default=400, help="how many samples of each are measured")
    options = parser.parse_args()
    scale, samples = (100, 20) if options.quick else (1, options.samples)
    with tempfile.TemporaryDirectory(prefix="bench-check-") as place:
        folder = Path(place)
        write_corpus(folder / "demo", samples=96)
        jpegs(folder / "photographs", 10_000 // scale)
        videos(folder / "films", 1_000 // scale, seconds=4)
        (folder / "data_catalog.yaml").write_text(CATALOG)
        found = [bench(folder, name, samples) for name in ("demo", "photographs", "films")]
    emit(
        [row for one in found for row in rows(one)],
        measures=[measure for one in found for measure in measures(one)],
        exits={one["dataset"]: one["exit"] for one in found},
        bottlenecks={one["dataset"]: one["bottleneck"] for one in found},
        advice={one["dataset"]: one["advice"] for one in found},
    )


if __name__ == "__main__":
    main()
