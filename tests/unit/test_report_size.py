"""A page stays small however large the data set and its quarantine, and says what it leaves out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from made_store import Made
from test_report_numbers import material, names, record, rows, table

from features.errors import Reason
from pipeline.record import Counts
from pipeline.report import facts
from pipeline.report.page import render
from pipeline.store.quarantine import Failure

SAMPLES, FAILED = 1_000_000, 50_000
REASONS = list(Reason)
TRACEBACK = "Traceback (most recent call last)\n" + "  in a deep library\n" * 1_000 + "the end of it"


def failures() -> list[Failure]:
    """Failures for every reason there is, a few with a message and a traceback that do not end."""
    return [
        Failure(
            sample_id=f"s{i:07d}",
            feature="words",
            stage="decode",
            reason=REASONS[i % len(REASONS)],
            message="m" * (60 if i % 3 else 100_000),
            traceback=TRACEBACK if REASONS[i % len(REASONS)] is Reason.EXTRACTOR_ERROR else "",
        )
        for i in range(FAILED)
    ]


@pytest.mark.parametrize("status", ["published", "red"])
def test_a_page_of_a_million_samples_is_small_and_says_what_it_leaves_out(tmp_path: Path, status: str) -> None:
    made, found = Made(tmp_path), rows(0, shards=8, samples=100)
    files = [made.file("words", shard, of) for shard, of in found.items()]  # type: ignore[arg-type]
    base = made.publish(*files, samples={f"s{i:07d}": i % 8 for i in range(0, SAMPLES, 100)})
    counts = Counts(samples_in=SAMPLES, done=SAMPLES - FAILED, unchanged=0, quarantined=FAILED)
    failed = failures()
    run = record(
        samples=counts,
        features={"words": counts},
        quarantine_by_reason={reason.value: FAILED // len(REASONS) for reason in REASONS},
        status=status,
        published=status == "published",
        error="" if status == "published" else "e" * 100_000,
        notices=["n" * 5_000] * 100_000,
    )
    ids = pa.array(np.char.add("s", np.char.zfill(np.arange(SAMPLES).astype("U7"), 7)))
    samples = table(["x"]).take(pa.array(np.zeros(SAMPLES, np.int64))).set_column(0, "sample_id", ids)
    huge = material(
        tmp_path,
        run,
        samples=samples,
        failures=failed,
        base=base,
        snapshot=base if status == "published" else None,
    )
    page = render(huge)
    assert len(page.encode()) < 3_000_000
    assert "1,000,000" in page
    assert "99,950 more are in report.json" in page
    assert page.count('class="trouble"') == facts.SHOWN_FAILURES * len(REASONS)
    assert page.count(f"{len(failed[0 :: len(REASONS)]) - 4:,} more, 196 of them here") >= 1
    assert page.count("the end of it</pre>") == 4
    assert "(99,000 characters more)" in page
    assert "(99,700 characters more)" in page
    assert "(4,000 characters more)" in page
    assert ("told here alone" in page) is (status == "red")
    chosen = names(huge.choose("image", 12))
    assert len(chosen) == 12
    assert min(chosen) >= f"s{FAILED:07d}"
