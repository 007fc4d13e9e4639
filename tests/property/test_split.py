"""Laws of the scan: every candidate is told of once; splits depend on id and seed alone, in the shares asked for."""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from features.errors import Reason
from pipeline.catalog import DataSet, Source, Splits, Train
from pipeline.scan import Scan, scan
from pipeline.scan.splits import HashedSplits


def data_set(root: Path, source: dict[str, Any], splits: Splits) -> DataSet:
    parsed: Source = TypeAdapter(Source).validate_json(json.dumps(source))
    return DataSet(
        name="clips",
        root=str(root),
        source=parsed,
        splits=splits,
        features={},
        align=None,
        train=Train(),
        max_failed=0.1,
        shard_samples=64,
    )


PATHS = st.sampled_from(["a.mp4", "b.mp4", "b.wav", "d/c.srt", "gone.mp4", "d", "../up.mp4", "", "a.mp4 "])
TIMES = st.sampled_from(["", "0", "1", "2.5", "-1", "x"])
IDS = st.sampled_from(["", "i", "j", "J", "k", "é", "l"])
ROWS = st.lists(st.tuples(IDS, PATHS, TIMES, TIMES), min_size=1, max_size=12)
SHARES = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(1, 4))


def make(root: Path) -> None:
    (root / "d").mkdir()
    for name in ("a.mp4", "b.mp4", "b.wav", "d/c.srt"):
        (root / name).write_bytes(b"1")


def scan_rows(root: Path, rows: list[tuple[str, str, str, str]], *, with_id: bool, siblings: bool) -> Scan:
    lines = ["i,p,s,e", *(",".join(row) for row in rows)]
    (root / "m.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    columns = {"video": "p", "start": "s", "end": "e"} | ({"id": "i"} if with_id else {})
    source = {"kind": "csv", "path": "m.csv", "columns": columns, "siblings": siblings}
    return scan(data_set(root, source, Splits(train=0.5, test=0.5)))


@settings(deadline=None, max_examples=150)
@given(ROWS, st.booleans(), st.booleans())
def test_every_row_is_a_sample_or_rejected(
    rows: list[tuple[str, str, str, str]], with_id: bool, siblings: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make(root)
        found = scan_rows(root, rows, with_id=with_id, siblings=siblings)
    accepted = found.samples["sample_id"].to_pylist()
    assert len(accepted) + len(found.rejected) == len(rows)
    assert accepted == sorted(set(accepted))
    if with_id:
        counts = Counter(row[0] for row in rows if row[0])
        twice = sum(count for count in counts.values() if count > 1)
        assert sum(rejected.reason is Reason.DUPLICATE_ID for rejected in found.rejected) == twice
        good = [row for row in rows if counts[row[0]] == 1 and expected_good(row)]
        assert accepted == sorted(row[0] for row in good)


def expected_good(row: tuple[str, str, str, str]) -> bool:
    """The law of one row, written down once more."""
    _, path, start, end = row
    if path not in ("a.mp4", "b.mp4", "b.wav", "d/c.srt"):
        return False
    if start == end == "":
        return True
    times = {"0": 0.0, "1": 1.0, "2.5": 2.5}
    return start in times and end in times and times[start] < times[end]


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.sampled_from(["a.mp4", "a.mkv", "a.srt", "d/a.wav", "d/a.mp3", "d/b.jpg", "x.csv", "y"]), unique=True)
)
def test_every_stem_is_a_sample_or_rejected(names: list[str]) -> None:
    media = [name for name in names if name not in ("x.csv", "y")]
    stems = {name.rpartition(".")[0] for name in media}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "d").mkdir()
        for name in [*names, "always.txt"]:
            (root / name).write_bytes(b"1")
        found = scan(data_set(root, {"kind": "folder"}, Splits(train=1)))
    assert len(found.samples) + len(found.rejected) == len(stems) + 1
    ambiguous = [{"a.mp4", "a.mkv"}, {"d/a.wav", "d/a.mp3"}]
    assert len(found.rejected) == sum(pair <= set(names) for pair in ambiguous)


def splits_of(shares: tuple[int, int, int], seed: int = 0) -> Splits:
    total = sum(shares)
    train, validation, test = (share / total for share in shares)
    return Splits(train=train, validation=validation, test=test, seed=seed)


@settings(deadline=None)
@given(st.sets(st.text(min_size=1), min_size=1), SHARES, st.integers(0, 2**63 - 1))
def test_a_split_is_a_function_of_id_and_seed(names: set[str], shares: tuple[int, int, int], seed: int) -> None:
    names = {name for name in names if name.isprintable()} | {"one"}
    together = HashedSplits(splits_of(shares, seed))
    once = {name: together.split(name) for name in names}
    for name in random.Random(0).sample(sorted(names), len(names)):
        alone = HashedSplits(splits_of(shares, seed)).split(name)
        assert alone == once[name]
        assert getattr(splits_of(shares), alone) > 0


@settings(deadline=None, max_examples=30)
@given(SHARES, st.integers(0, 1000))
def test_shares_are_met(shares: tuple[int, int, int], seed: int) -> None:
    splits = splits_of(shares, seed)
    dealt = HashedSplits(splits)
    counts = Counter(dealt.split(f"sample-{i}") for i in range(4000))
    for name in ("train", "validation", "test"):
        share = getattr(splits, name)
        assert abs(counts[name] / 4000 - share) < 5 * (share * (1 - share) / 4000) ** 0.5 + 1e-12


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 100))
def test_no_sample_leaves_train_when_train_grows(tenths: int, seed: int) -> None:
    small = HashedSplits(Splits(train=tenths / 10, test=1 - tenths / 10, seed=seed))
    large = HashedSplits(Splits(train=(tenths + 1) / 10, test=1 - (tenths + 1) / 10, seed=seed))
    names = [f"sample-{i}" for i in range(200)]
    assert {name for name in names if small.split(name) == "train"} <= {
        name for name in names if large.split(name) == "train"
    }


def test_another_seed_is_another_split() -> None:
    names = [f"sample-{i}" for i in range(200)]
    first, second = (HashedSplits(Splits(train=0.5, test=0.5, seed=seed)) for seed in (0, 1))
    assert 60 < sum(first.split(name) != second.split(name) for name in names) < 140


def test_the_split_of_an_id_never_changes() -> None:
    """BLAKE2b keyed with the seed's digits, 8 bytes, big-endian, against the shares: written out with hashlib."""
    import hashlib

    splits = Splits(train=0.25, validation=0.25, test=0.5, seed=42)
    for name in ("a/x", "é", "clip@1.5", "z" * 300):
        point = int.from_bytes(hashlib.blake2b(name.encode(), key=b"42", digest_size=8).digest(), "big") / 2**64
        expected = "train" if point < 0.25 else "validation" if point < 0.5 else "test"
        assert HashedSplits(splits).split(name) == expected
