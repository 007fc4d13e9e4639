"""What each of many edits computes anew: exactly the rows that it affects, and what a run from nothing would make.

Every case starts from one published data set of eight samples (image and caption, from a manifest), copied to a folder
of its own, and makes one edit. The plan must then name the expected samples and no others, the run must compute them,
the next plan must find nothing to do, and the published rows must equal those of a rebuild.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest
from made_bench import SAMPLES, Bench, forget_modules
from safetensors.numpy import save_file

from pipeline.catalog import load_catalog
from pipeline.run import plan_dataset, published

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def published_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edits") / "made"
    Bench(folder).make()
    return folder


@pytest.fixture
def bench(published_once: Path, tmp_path: Path) -> Iterator[Bench]:
    """The data set in another folder than the one it was made in: a moved checkout, in every test.

    The first run there reads the files again, and publishes where they lie now; it computes nothing.
    """
    shutil.copytree(published_once, tmp_path / "moved")
    moved = Bench(tmp_path / "moved")
    report = moved.run()
    assert (report.computed, report.aligned_rows_written) == (0, 0)
    yield moved
    forget_modules()


@dataclass(frozen=True)
class Edit:
    """An edit and its consequences. ``computed``: feature -> samples; ``refits``: a rebuild would fit other state."""

    what: str
    do: Callable[[Bench], None]
    computed: Mapping[str, set[str]] = field(default_factory=dict)
    aligned: int = 0
    publishes: bool = False
    reason: str = ""
    refits: bool = False


ALL = set(SAMPLES)
IMAGE_OF_S1 = {"brightness": {"s1"}, "tint": {"s1"}}
TEXT_OF_S1 = {"words": {"s1"}, "level": {"s1"}}


def all_of(sample_id: str) -> dict[str, set[str]]:
    return {feature: {sample_id} for feature in ("brightness", "tint", "words", "level")}


def option(bench: Bench) -> None:
    bench.replace("data_catalog.yaml", "gain: 1.0", "gain: 3.0")


def option_order(bench: Bench) -> None:
    bench.replace("data_catalog.yaml", "{gain: 1.0}", "{offset: 0.0, gain: 1.0}")


def own_code(bench: Bench) -> None:
    bench.replace("edit_steps.py", "mean((0, 1))", "max((0, 1))")


def far_helper(bench: Bench) -> None:
    bench.replace("edit_far.py", "return 2", "return 4")


def lazy_helper(bench: Bench) -> None:
    bench.replace("edit_lazy.py", "len(text.split())", "len(text.split()) + 1")


def comment(bench: Bench) -> None:
    bench.replace("edit_steps.py", "# one row an image", "# a row for each image")
    bench.replace("edit_far.py", "    return", "    # the same\n    return")


def docstring(bench: Bench) -> None:
    bench.replace("edit_steps.py", "Mean of each channel.", "The mean of each colour channel.")
    bench.replace("edit_far.py", "    return", '    """The factor."""\n    return')


def layout(bench: Bench) -> None:
    bench.replace("edit_steps.py", "[None]) *", "[None])  \\\n            *")
    bench.replace("edit_near.py", "'f4'", '"f4"')
    bench.replace("edit_words.py", "@dataclass(", "\n\n\n@dataclass(\n    ")


def unrelated_module(bench: Bench) -> None:
    bench.replace("edit_other.py", "1", "2")
    (bench.folder / "edit_other.py").rename(bench.folder / "edit_another.py")


def weights(bench: Bench) -> None:
    save_file({"mix": np.ones((3, 2), dtype=np.float32)}, bench.folder / "tint.safetensors")


def weights_touched(bench: Bench) -> None:
    os.utime(bench.folder / "tint.safetensors", ns=(1, 10**18))


def weights_moved(bench: Bench) -> None:
    (bench.folder / "tint.safetensors").rename(bench.folder / "other.safetensors")
    bench.replace("data_catalog.yaml", '"edit_tint:Tint"', '"edit_tint:Tint", options: {weights: other.safetensors}')


def byte_of_an_image(bench: Bench) -> None:
    pixels = cv2.imread(str(bench.media / "s1.png"))
    assert pixels is not None
    pixels[0, 0, 0] ^= 1
    cv2.imwrite(str(bench.media / "s1.png"), pixels)


def image_touched(bench: Bench) -> None:
    os.utime(bench.media / "s1.png", ns=(1, 10**18))


def image_written_again(bench: Bench) -> None:
    content = (bench.media / "s1.png").read_bytes()
    (bench.media / "s1.png").unlink()
    (bench.media / "s1.png").write_bytes(content)


def image_renamed(bench: Bench) -> None:
    (bench.media / "s1.png").rename(bench.media / "renamed.png")
    bench.row("s1", image="renamed.png")


def caption_in_other_encoding(bench: Bench) -> None:
    caption = bench.media / "s1.srt"
    caption.write_bytes(caption.read_text().encode("utf-16"))


def window(bench: Bench) -> None:
    bench.row("s1", start="0", end="1")


def label(bench: Bench) -> None:
    bench.row("s1", label="c")


def split_seed(bench: Bench) -> None:
    bench.replace("data_catalog.yaml", "seed: 0", "seed: 3")


def sample_removed(bench: Bench) -> None:
    kept = [line for line in bench.manifest.read_text().splitlines(keepends=True) if '"s1"' not in line]
    bench.manifest.write_text("".join(kept))


def sample_added(bench: Bench) -> None:
    bench.add("s8", 8)


def sample_renamed(bench: Bench) -> None:
    bench.row("s1", id="t1")


def manifest_reordered(bench: Bench) -> None:
    bench.manifest.write_text("".join(reversed(bench.manifest.read_text().splitlines(keepends=True))))


def catalog_comment(bench: Bench) -> None:
    bench.replace("data_catalog.yaml", "version: 1", "# every night\nversion:   1")


def feature_renamed(bench: Bench) -> None:
    bench.replace("data_catalog.yaml", "      words:", "      count:")


def feature_added(bench: Bench) -> None:
    line = '      twice: {extractor: "edit_steps:Brightness", options: {gain: 2.0}}\n'
    bench.replace("data_catalog.yaml", "      tint:", f"{line}      tint:")


def feature_removed(bench: Bench) -> None:
    bench.replace("data_catalog.yaml", '      words: {extractor: "edit_words:Words"}\n', "")


def prepare_step_added(bench: Bench) -> None:
    before = '"edit_steps:Brightness", '
    bench.replace("data_catalog.yaml", before, f'{before}prepare: ["edit_invert:Invert"], ')


def grid(bench: Bench) -> None:
    bench.replace("data_catalog.yaml", "grid: 0.5", "grid: 0.25")


def policy(bench: Bench) -> None:
    bench.replace("data_catalog.yaml", "{grid: 0.5}", "{grid: 0.5, policies: {words: max}}")


def no_alignment(bench: Bench) -> None:
    bench.replace("data_catalog.yaml", "    align: {grid: 0.5}\n", "")


def max_failed(bench: Bench) -> None:
    bench.replace("data_catalog.yaml", "max_failed: 0.3", "max_failed: 0.2")


def engine(bench: Bench) -> None:
    bench.replace("data_catalog.yaml", "kind: serial, workers: 1", "kind: dask, workers: 2")


def shard_samples(bench: Bench) -> None:
    bench.replace("data_catalog.yaml", "shard_samples: 3", "shard_samples: 5")


def code_that_is_fitted(bench: Bench) -> None:
    bench.replace("edit_level.py", "np.mean(", "np.max(")


EDITS = [
    Edit("an option", option, {"brightness": ALL}, 32, True, "brightness gain 1.0 -> 3.0"),
    Edit("a default option written out, in another order", option_order),
    Edit("the step's own code", own_code, {"brightness": ALL}, 32, True, "brightness code changed"),
    Edit("a helper two imports away", far_helper, {"brightness": ALL}, 32, True, "brightness code changed"),
    Edit("a helper imported inside a function", lazy_helper, {"words": ALL}, 32, True, "words code changed"),
    Edit("a comment", comment),
    Edit("a docstring", docstring),
    Edit("layout, quotes and blank lines", layout),
    Edit("an unrelated module changed and renamed", unrelated_module),
    Edit("weights", weights, {"tint": ALL}, 32, True, "weights changed"),
    Edit("weights touched", weights_touched),
    Edit("weights of another name", weights_moved, {"tint": ALL}, 32, True, 'weights "tint.safetensors" -> "other'),
    Edit("a byte of one image", byte_of_an_image, IMAGE_OF_S1, 4, True, "bytes or window changed"),
    Edit("an image touched", image_touched),
    Edit("an image written again with the same bytes", image_written_again),
    Edit("an image renamed", image_renamed, publishes=True),
    Edit("a caption in another encoding", caption_in_other_encoding, TEXT_OF_S1, 4, True, "bytes or window changed"),
    Edit("the window of one sample", window, all_of("s1"), 4, True, "bytes or window changed", refits=True),
    Edit("a label", label, publishes=True, reason="only split or label changed"),
    Edit("another split", split_seed, publishes=True, reason="only split or label changed", refits=True),
    Edit("a sample removed", sample_removed, publishes=True, reason="removed", refits=True),
    Edit("a sample added", sample_added, all_of("s8"), 4, True, "new", refits=True),
    Edit("a sample renamed", sample_renamed, all_of("t1"), 4, True, "new", refits=True),
    Edit("the manifest in another order", manifest_reordered),
    Edit("a comment in the catalog", catalog_comment),
    Edit("a feature renamed", feature_renamed, {"count": ALL}, 32, True, "new"),
    Edit("a feature added", feature_added, {"twice": ALL}, 40, True, "new"),
    Edit("a feature removed", feature_removed, aligned=24, publishes=True),
    Edit("a prepare step added", prepare_step_added, {"brightness": ALL}, 32, True, "steps brightness -> invert + "),
    Edit("another grid", grid, aligned=32, publishes=True),
    Edit("the policy of one feature", policy, aligned=8, publishes=True),
    Edit("no alignment any more", no_alignment, publishes=True),
    Edit("max_failed", max_failed),
    Edit("another engine", engine),
    Edit("another shard size", shard_samples),
    Edit("code that is fitted", code_that_is_fitted, {"level": ALL}, 32, True, "must be fitted first"),
]


@pytest.mark.parametrize("edit", EDITS, ids=[edit.what for edit in EDITS])
def test_an_edit_computes_exactly_what_it_affects(bench: Bench, edit: Edit) -> None:
    edit.do(bench)
    assert bench.to_compute() == edit.computed
    report = bench.run()
    done = {name: counts.done for name, counts in report.features.items() if counts.done}
    assert done == {name: len(samples) for name, samples in edit.computed.items()}
    assert report.aligned_rows_written == edit.aligned
    assert report.published == edit.publishes
    reasons = {reason for found in report.reasons.values() for reason, _ in found}
    assert any(edit.reason in reason for reason in reasons), reasons
    again = bench.run()
    assert (again.computed, again.aligned_rows_written, again.published) == (0, 0, False)
    kept = bench.rows()
    bench.run(from_nothing=True, engine="serial")
    made = bench.rows()
    if edit.refits:  # the state is frozen between nights: rows of the fitted feature are those of the old state
        for rows in (kept, made):
            del rows["level"], rows["aligned.level"]
    assert kept == made


def test_the_table_is_the_one_of_the_documentation() -> None:
    page = (REPOSITORY / "docs/keys.md").read_text()
    table = re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE)[1:]
    told = {what: not computed.startswith("nothing") for what, computed in table}
    assert told == {edit.what: bool(edit.computed) for edit in EDITS}
    assert len(EDITS) >= 20


def test_changed_bytes_of_the_same_size_and_time_are_seen_by_verify_content_only(bench: Bench) -> None:
    caption = bench.media / "s1.srt"
    before = caption.stat()
    caption.write_text(caption.read_text().replace("word", "bird"))
    os.utime(caption, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert bench.to_compute() == {}
    assert bench.to_compute(verify_content=True) == TEXT_OF_S1
    assert bench.run(verify_content=True).computed == 2
    assert bench.to_compute() == {}


def test_another_version_of_a_library_that_decides_the_numbers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import keys

    monkeypatch.setattr(keys, "version", lambda name: "99.0" if name == "numpy" else "1")
    assert bench.to_compute() == {"brightness": ALL}
    reasons = dict(plan_dataset(load_catalog(bench.catalog), "grain").report.reasons["brightness"])
    assert any(reason.startswith("brightness runs on numpy") and reason.endswith("-> 99.0") for reason in reasons)


def test_keys_do_not_depend_on_the_hash_seed_of_python(bench: Bench) -> None:
    code = (
        "from pathlib import Path\n"
        "from pipeline.catalog import load_catalog\n"
        "from pipeline.run import plan_dataset\n"
        f"print(plan_dataset(load_catalog(Path({str(bench.catalog)!r})), 'grain').planned.to_compute)"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY)}
        found = subprocess.run(  # our own code
            [sys.executable, "-c", code], env=environment, cwd=bench.folder, capture_output=True, text=True, check=True
        )
        assert found.stdout == "0\n"


def test_fitted_state_is_frozen_until_a_rebuild(bench: Bench) -> None:
    catalog = load_catalog(bench.catalog)
    before = published(catalog, "grain").info["fitted"]["level"]
    samples = published(catalog, "grain").samples.to_pylist()
    training = next(row["sample_id"] for row in samples if row["split"] == "train")
    (bench.media / f"{training}.srt").write_text("1\n00:00:00,000 --> 00:00:01,500\n" + "many words " * 20 + "\n")
    assert bench.run().features["level"].done == 1
    assert published(catalog, "grain").info["fitted"]["level"] == before
    report = bench.run(from_nothing=True)
    assert {name: counts.done for name, counts in report.features.items()} == dict.fromkeys(report.features, 8)
    assert published(catalog, "grain").info["fitted"]["level"]["digest"] != before["digest"]
