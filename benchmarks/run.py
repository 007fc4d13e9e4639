"""All benchmarks, one after the other: one file of results each, one table, one chart.

    uv run python benchmarks/run.py --all [--quick]
    uv run python benchmarks/run.py plan loader
    uv run python benchmarks/run.py --table          # table and chart again, from results that lie there

Each script runs in a process of its own and prints one JSON document as its last line (`harness.emit`): machine, rows,
and `measures`, the figures that have a target. Those that need peers run in an environment of their own (`.venv-peers`,
made by uv on first use). One that fails does not stop the others. Leave the machine alone meanwhile: the load at the
start is written into each result, and the commit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ROOT

from pipeline.execute.engine import may_have_gpu

RESULTS = ROOT / "benchmarks" / "results"
PEERS = ROOT / ".venv-peers"


@dataclass(frozen=True)
class Benchmark:
    """A script of this folder. ``peers``: it needs the dependency group of that name; ``gpu``: a GPU."""

    script: str
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] = ("--quick",)
    """More arguments, for small sizes and few rounds."""
    peers: bool = False
    gpu: bool = False


BENCHMARKS = {
    "align": Benchmark("align.py"),
    "audio": Benchmark("audio.py"),
    "check": Benchmark("check.py"),
    "denoise": Benchmark("denoise.py", peers=True),
    "engine": Benchmark("engine.py"),
    "fusion": Benchmark("fusion.py"),
    "gpu": Benchmark("gpu.py", gpu=True),
    "images": Benchmark("images.py", ("--images", "240"), peers=True),
    "images-forward": Benchmark("images_forward.py", peers=True),
    "loader": Benchmark("loader.py", ("--share", "0.25"), peers=True),
    "long_video": Benchmark("long_video.py"),
    "mfcc": Benchmark("mfcc.py"),
    "peers-images": Benchmark("peers.py", ("--job", "images", "--rounds", "1"), peers=True),
    "peers-sounds": Benchmark("peers.py", ("--job", "sounds", "--rounds", "1"), peers=True),
    "plan": Benchmark("plan.py"),
    "publish": Benchmark("publish.py"),
    "scale": Benchmark("scale.py"),
    "store_write": Benchmark("store_write.py"),
    "text": Benchmark("text.py"),
    "throughput": Benchmark("throughput.py"),
    "video-flow": Benchmark("video.py", ("flow",), quick=("--rounds", "1")),
    "video-passes": Benchmark("video.py", ("passes",), quick=("--rounds", "1")),
    "video-speed": Benchmark("video.py", ("speed",), quick=("--rounds", "1")),
    "video_shots": Benchmark("video_shots.py", quick=("--films", "1", "--rounds", "1"), peers=True),
}


def run(name: str, quick: bool) -> dict[str, Any]:
    """Run one benchmark; what it prints is shown, its last line is the result."""
    benchmark = BENCHMARKS[name]
    script = str(ROOT / "benchmarks" / benchmark.script)
    arguments = [script, *benchmark.arguments, *(benchmark.quick if quick else ())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if benchmark.peers:
        environment["UV_PROJECT_ENVIRONMENT"] = str(PEERS)
        command = ["uv", "run", "--no-dev", "--group", "peers", "python", *arguments]
    else:
        command = [sys.executable, *arguments]
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=ROOT)
    assert process.stdout is not None
    last = ""
    for line in process.stdout:
        if line.strip():
            last = line
        if not line.startswith('{"machine"'):
            sys.stdout.write(line)
            sys.stdout.flush()
    if process.wait():
        raise ChildProcessError(f"{name}: {benchmark.script} ended with exit code {process.returncode}")
    found: dict[str, Any] = json.loads(last)
    taken = round(time.perf_counter() - begun, 1)
    return {"benchmark": name, "revision": revision(), "quick": quick, "seconds": taken, **found}


def revision() -> str:
    """The commit that was measured; ``-dirty`` where files differ from it (those of results do not count)."""
    git = ("git", "-C", str(ROOT))
    commit = subprocess.run((*git, "rev-parse", "--short", "HEAD"), check=False, capture_output=True, text=True)
    if commit.returncode:
        return "unknown"
    aside = f":!{RESULTS.relative_to(ROOT)}"
    changed = subprocess.run((*git, "status", "--porcelain", "--", ".", aside), check=True, capture_output=True)
    return commit.stdout.strip() + ("-dirty" if changed.stdout else "")


def measures(results: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Every figure, with its benchmark; the ones that have a target say whether it is met."""
    for result in results:
        for measure in result.get("measures", ()):
            target, at_most = measure.get("target"), measure.get("at_most", False)
            met = None if target is None else measure["ratio"] <= target if at_most else measure["ratio"] >= target
            yield {"benchmark": result["benchmark"], "met": met, **measure}


def table(found: list[dict[str, Any]], results: Iterable[dict[str, Any]]) -> str:
    """The figures as a page of Markdown, below the machines and the commits that they are of."""
    measured = {
        f"{each['machine'].partition('; load')[0]}; commit {each.get('revision', 'unknown')}" for each in results
    }
    lines = ["# Results", "", *(f"- {each}" for each in sorted(measured)), ""]
    lines += ["| benchmark | figure | ratio | target | met |", "|---|---|---:|---:|---|"]
    for row in found:
        sign = "≤" if row.get("at_most") else "≥"
        target = "" if row.get("target") is None else f"{sign} {row['target']:g}"
        met = "" if row["met"] is None else "yes" if row["met"] else "**no**"
        lines.append(f"| {row['benchmark']} | {row['what']} | {row['ratio']:.3g} | {target} | {met} |")
    return "\n".join(lines) + "\n"


def chart(found: list[dict[str, Any]], path: Path) -> None:
    """How far each figure is above its target (1: just met; 100 at most), as bars on a logarithmic scale."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = [row for row in found if row["met"] is not None]
    shares = [
        row["target"] / max(row["ratio"], row["target"] / 100) if row.get("at_most") else row["ratio"] / row["target"]
        for row in rows
    ]
    figure, axes = plt.subplots(figsize=(9, 0.6 + 0.28 * len(rows)), layout="constrained")
    colours = ["#2b8a5b" if share >= 1 else "#c2452d" for share in shares]
    axes.barh(
        [f"{row['benchmark']}: {row['what']}" for row in rows], [share - 1 for share in shares], left=1, color=colours
    )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("figure / target (right of the line: met)")
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run what is asked for, then draw the table and the chart of all results that lie there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--all", action="store_true", help="all of them (hours)")
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds: do they run?")
    parser.add_argument("--table", action="store_true", help="only the table and the chart")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of results")
    options = parser.parse_args()
    names = list(BENCHMARKS) if options.all else options.names
    if options.all and not may_have_gpu():
        left_out = [name for name in names if BENCHMARKS[name].gpu]
        print(f"no driver of a GPU is installed here; left out: {', '.join(left_out)}", flush=True)
        names = [name for name in names if name not in left_out]
    if not names and not options.table:
        parser.error("name some benchmarks, or --all")
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        try:
            result = run(name, options.quick)
        except ChildProcessError as error:
            print(error, flush=True)
            failed.append(name)
            continue
        (options.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    results = [json.loads(path.read_text()) for path in sorted(options.out.glob("*.json"))]
    found = list(measures(results))
    (options.out / "README.md").write_text(table(found, results))
    if any(row["met"] is not None for row in found):
        chart(found, options.out / "results.png")
    print(options.out / "README.md")
    if failed:
        raise SystemExit(f"failed, so that their results are those of before, if any: {', '.join(failed)}")


if __name__ == "__main__":
    main()
