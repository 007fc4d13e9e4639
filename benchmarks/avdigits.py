"""AV-digits from raw files to the table of models, by the catalog entry in docs/recipes/avdigits.yaml.

    uv run python benchmarks/avdigits.py [--media ../shared/data/avdigits] [--folder FOLDER] [--shift 0.8]

Runs `gristmill run` and `gristmill train` in a folder of its own and prints every model beside the figures of a plain
baseline (one hidden layer on principal components of the mean frame, MFCC statistics and one-hot words; 500 test
segments, 5 seeds). `--shift`: every window that many seconds later (earlier, where the file ends before that): what is
shown and said there has nothing to do with the label, and image and audio must fall to chance. Some four minutes on two
cores, most of it extraction.
"""

from __future__ import annotations

import argparse
import csv
import shutil
import tempfile
from pathlib import Path

from harness import ROOT, emit
from rich.console import Console

from pipeline.catalog import load_catalog
from pipeline.console import drawing
from pipeline.run import run_dataset
from pipeline.train import train_dataset

BASELINE = {"image": 57.2, "audio": 53.5, "text": 54.9, "early": 79.1, "late": 86.4}
NAME = "avdigits"


def shifted(media: Path, target: Path, seconds: float, every: int) -> None:
    """Copy every so manyth video with its captions, and the table of windows, shifted."""
    with (media / "segments.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    kept = sorted({row["video"] for row in rows})[::every]
    rows = [row for row in rows if row["video"] in kept]
    for name in (file for video in kept for file in (video, str(Path(video).with_suffix(".srt")))):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(media / name, target / name)
    for row in rows:
        begin, end = float(row["start"]), float(row["end"])
        by = seconds if end + seconds <= float(row["duration"]) else -seconds
        row["start"], row["end"] = f"{max(0.0, begin + by):.3f}", f"{end + by:.3f}"
    with (target / "segments.csv").open("w", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--media", type=Path, default=ROOT.parent / "shared" / "data" / "avdigits")
    parser.add_argument("--folder", type=Path, help="where the store is made and kept; by default a temporary folder")
    parser.add_argument("--shift", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="with --shift: every Nth video only")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        media = chosen.media.resolve()
        if chosen.shift:
            media = folder / "shifted"
            if not media.exists():
                shifted(chosen.media.resolve(), media, chosen.shift, chosen.every)
        text = (ROOT / "docs" / "recipes" / "avdigits.yaml").read_text()
        catalog_file = folder / "data_catalog.yaml"
        catalog_file.write_text(text.replace("root: ./avdigits", f"root: {media}"))
        catalog = load_catalog(catalog_file)
        with drawing(Console(stderr=True)) as events:
            run_dataset(catalog, NAME, events=events)
            trained = train_dataset(catalog, NAME, events=events)
        rows = [
            {
                "model": row["model"],
                "accuracy %": 100 * row["accuracy"],
                "deviation": 100 * row["accuracy_std"],
                "macro F1 %": 100 * row["f1"],
                "baseline %": BASELINE.get(row["model"], float("nan")),
            }
            for row in trained.rows
        ]
        emit(rows, seeds=trained.rows[0]["runs"], shift=chosen.shift, notes="; ".join(trained.lines))


if __name__ == "__main__":
    main()
