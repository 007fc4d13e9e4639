"""The demo corpus on disk: its files, its catalog, and a marker that says which files are ours."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blake3 import blake3

from features.errors import GristmillError
from pipeline.demo.captions import srt
from pipeline.demo.pictures import jpeg
from pipeline.demo.truth import FRAME_RATE, TIMES, WEATHERS, Truth, make_truth
from pipeline.demo.video import mp4
from pipeline.events import SILENT, Events

DATASET = "demo"
MARKER = "demo.json"
CATALOG = "data_catalog.yaml"

_CATALOG_TEXT = """\
# What to make of the demo corpus. Every key is explained in docs/catalog.md.
version: 1
store: ./store                       # features, their versions and the quarantine are kept here

datasets:
  demo:
    root: ./media
    source:
      kind: folder                   # files of the same name make one sample: clip-0000.mp4 + .jpg + .srt
      label_from: folder             # media/calm-day/clip-0000.mp4 has the label calm-day
    splits: {train: 0.6, validation: 0.15, test: 0.25, seed: 0}
    features:
      image.cnn: {}                  # what the picture shows: a vector of a pretrained network
      scenes:                        # the same network on one keyframe of each shot of the video
        prepare: [video.keyframes]
        extractor: image.cnn
      video.flow: {}                 # how the picture moves
      audio.mfcc:                    # how it sounds, noise taken out before
        prepare: [audio.denoise]
      text.word2vec:                 # what the captions say, by vectors trained on this corpus
        prepare: [text.clean]
    align: {grid: 0.5, default: mean}  # one row every half second, the same rows for every feature
    train: {methods: [early, late], epochs: 60}
    max_failed: 0.1                  # two files are broken on purpose; above a tenth, a run publishes nothing
    shard_samples: 16                # small shards, so that every core has some
"""


@dataclass(frozen=True, kw_only=True)
class DemoCorpus:
    """A demo corpus on disk. ``written`` counts the files that this call wrote: 0 when it was there already."""

    folder: Path
    catalog: Path
    samples: tuple[Truth, ...]
    written: int

    @property
    def broken(self) -> tuple[str, ...]:
        """Ids of the samples that have a file broken on purpose."""
        return tuple(t.sample_id for t in self.samples if "broken" in (t.image, t.video))


def write_corpus(folder: Path, *, samples: int = 96, seed: int = 0, events: Events = SILENT) -> DemoCorpus:
    """Write the corpus and its catalog below ``folder``: ``samples`` whole samples and two with a broken file.

    The same ``samples`` and ``seed`` give the same bytes on the same machine. Files that are there already with the
    right content are not touched; a catalog that is there is kept, edited or not.

    Raises ``ValueError`` for fewer than 4 samples (one of each class), and ``GristmillError`` when ``folder`` holds
    something else than a demo corpus or PyAV has no H.264 encoder.
    """
    if samples < len(WEATHERS) * len(TIMES):
        raise ValueError(f"samples: got {samples}, allowed: 4 (one of each class) or more")
    parameters = {"samples": samples, "seed": seed, "code": _code()}
    known = _read_marker(folder)
    truths = make_truth(samples, seed)
    folder.mkdir(parents=True, exist_ok=True)
    same = known.get("parameters") == parameters
    intact = _intact(folder, known.get("files", {})) if same else {}
    if not same:  # say what may come to lie here, so that a run that is cut short leaves nothing unknown behind
        planned = [name for truth in truths for name in _names(truth)]
        _write_marker(folder, parameters, dict.fromkeys([*known.get("files", {}), *planned], ""))

    events.started("demo corpus", len(truths), "samples")
    files: dict[str, str] = {}
    written = 0
    for truth in truths:
        names = _names(truth)
        if all(name in intact for name in names):
            files.update((name, intact[name]) for name in names)
        else:
            for name, content in zip(names, (mp4(truth, seed), jpeg(truth, seed), srt(truth, seed)), strict=True):
                files[name] = blake3(content).hexdigest()
                written += _write(folder / name, content)
        events.advanced("demo corpus")
    table = _truth_csv(truths)
    files["truth.csv"] = blake3(table).hexdigest()
    written += _write(folder / "truth.csv", table)
    for name in sorted(known.get("files", {}).keys() - files.keys()):
        (folder / name).unlink(missing_ok=True)
    if files != known.get("files") or not same:
        _write_marker(folder, parameters, files)
    catalog = folder / CATALOG
    if not catalog.exists():
        written += _write(catalog, _CATALOG_TEXT.encode())
    said = f"{written} files written" if written else "there already with the same content; nothing written"
    events.finished("demo corpus", f"{folder}: {said}")
    return DemoCorpus(folder=folder, catalog=catalog, samples=truths, written=written)


def _code() -> str:
    """A digest of the code that makes the files: an older corpus is made again."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return blake3(b"".join(source.read_bytes() for source in sources)).hexdigest()


def _names(truth: Truth) -> list[str]:
    return [f"media/{truth.sample_id}{suffix}" for suffix in (".mp4", ".jpg", ".srt")]


def _truth_csv(truths: tuple[Truth, ...]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["sample_id", "label", "weather", "time", "image", "video", "audio", "text", "duration_s", "second_shot_s"]
    )
    for t in truths:
        seconds = f"{float(t.duration):.2f}", f"{float(t.cut / FRAME_RATE):.2f}"
        writer.writerow([t.sample_id, t.label, t.weather, t.time, t.image, t.video, t.audio, t.text, *seconds])
    return text.getvalue().encode()


def _read_marker(folder: Path) -> dict[str, Any]:
    """Return what ``demo.json`` says; empty for a folder that does not exist or is empty."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return {}
    try:
        found = json.loads((folder / MARKER).read_bytes())
        if isinstance(found["parameters"], dict) and all(_below(folder, name) for name in found["files"]):
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise GristmillError(
        f"{folder}: got {'a folder' if folder.is_dir() else 'a file'} that is not a demo corpus (no {MARKER} of its "
        "own inside), allowed: a new or empty folder, or an earlier demo corpus; cure: name another folder"
    )


def _below(folder: Path, name: str) -> bool:
    return (folder / name).resolve().is_relative_to(folder.resolve())


def _intact(folder: Path, files: dict[str, str]) -> dict[str, str]:
    return {
        name: digest
        for name, digest in files.items()
        if (folder / name).is_file() and blake3((folder / name).read_bytes()).hexdigest() == digest
    }


def _write_marker(folder: Path, parameters: dict[str, Any], files: dict[str, str]) -> None:
    content = {"made_by": "gristmill demo", "parameters": parameters, "files": files}
    _write(folder / MARKER, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def _write(path: Path, content: bytes) -> bool:
    """Put ``content`` at ``path``, whole or not at all; return whether the file had to be written."""
    if path.is_file() and path.read_bytes() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
    return True
