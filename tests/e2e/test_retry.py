"""What is in quarantine is tried again when something changed, or when somebody asks for it; and is counted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from typer.testing import CliRunner

from flows.cli import app
from pipeline.catalog import load_catalog
from pipeline.record import RunReport
from pipeline.run import published, run_dataset

if TYPE_CHECKING:
    from conftest import World

FLAKY = """
        from pathlib import Path
        from features.errors import Reason, SampleError
        for text in batch:
            if "flaky" in text.plain and Path("{flag}").exists():
                raise SampleError(Reason.TIMEOUT, "the disk was slow")
            if "odd" in text.plain and Path("{flag}").exists():
                raise RuntimeError("no licence")
        return ["""


def retry(world: World, *arguments: str) -> tuple[int, str]:
    ran = CliRunner().invoke(app, ["retry", "grain", "--serial", "--catalog", str(world.catalog), *arguments])
    return ran.exit_code, ran.output


def prepare(world: World) -> None:
    head, tail = world.steps.read_text().split("class Words")
    flaky = FLAKY.format(flag=world.folder / "flag")
    world.steps.write_text(head + "class Words" + tail.replace("\n        return [", flaky, 1))
    for name, word in (("day/s03", "flaky"), ("night/s08", "odd")):
        caption = world.media / f"{name}.srt"
        caption.write_text(caption.read_text().replace("word", word))
    (world.folder / "flag").touch()


def quarantine(world: World) -> dict[str, tuple[str, int]]:
    rows = published(load_catalog(world.catalog), "grain").quarantine.to_pylist()
    assert all(row["media"].endswith("looks like plain text") for row in rows)
    return {row["sample_id"]: (row["reason"], row["attempt"]) for row in rows}


def run(world: World) -> RunReport:
    return run_dataset(load_catalog(world.catalog), "grain")


def test_retry_computes_what_failed_for_a_reason_and_counts_attempts(world: World) -> None:
    prepare(world)
    assert run(world).computed == 22
    assert quarantine(world) == {"day/s03": ("timeout", 1), "night/s08": ("extractor_error", 1)}
    assert run(world).computed == 0, "nothing has changed"
    code, output = retry(world)
    assert code == 0
    assert quarantine(world) == {"day/s03": ("timeout", 2), "night/s08": ("extractor_error", 2)}
    (world.folder / "flag").unlink()
    assert run(world).computed == 0, "a repaired machine is no change of the sample"
    code, output = retry(world, "--reason", "timeout", "--json")
    assert code == 0
    (report,) = json.loads(output[output.index("[") :])
    assert report["computed"] == 1
    assert quarantine(world) == {"night/s08": ("extractor_error", 2)}
    code, output = retry(world, "--sample", "night/*")
    assert code == 0
    assert quarantine(world) == {}
    words = published(load_catalog(world.catalog), "grain").read("words")
    assert len(words) == 12
    assert run(world).computed == 0


def test_a_reason_that_does_not_exist_is_refused(world: World) -> None:
    code, output = retry(world, "--reason", "timout")
    assert code == 2
    assert "did you mean 'timeout'" in " ".join(output.split())
