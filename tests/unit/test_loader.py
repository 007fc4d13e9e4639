"""The loader gives what was stored: chosen samples, their sequences, masks and labels, mapped or decoded."""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from loader_store import Feature, Grain

from features.errors import StoreError
from pipeline.loader import UNLABELLED, NoSamplesError, Samples, collate, open_store
from pipeline.store.shard import write_shard

FEATURES = {
    "sound": Feature(dim=3, lengths=(0, 9), absent=5, invalid=True),
    "picture": Feature(dim=4, absent=7),
    "aligned.sound": Feature(dim=3, lengths=(1, 5), invalid=True),
    "aligned.picture": Feature(dim=4, lengths=(1, 5)),
}
CLASSES = ("barley", "oats", "rye")


def nullable(table: pa.Table, sink: Any) -> None:
    """The same numbers in columns that may hold nulls, as other tools write them."""
    kinds = {"values": pa.float32(), "valid": pa.bool_(), "start_ns": pa.int64(), "end_ns": pa.int64()}
    for name, kind in kinds.items():
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.list_(kind)))
    pq.write_table(table, sink)


WRITERS: dict[str, Callable[[pa.Table, Any], None]] = {
    "mapped": write_shard,
    "Arrow's default": pq.write_table,
    "zstd": lambda table, sink: pq.write_table(table, sink, compression="zstd", use_dictionary=False),
    "pages of version 2": lambda table, sink: pq.write_table(
        table, sink, compression="none", use_dictionary=False, data_page_version="2.0"
    ),
    "row groups of 2": lambda table, sink: pq.write_table(
        table, sink, compression="none", use_dictionary=False, row_group_size=2
    ),
    "nulls allowed": nullable,
}


@pytest.fixture(scope="module", params=list(WRITERS))
def grain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Grain:
    folder = tmp_path_factory.mktemp("loader")
    made = Grain(folder, FEATURES, write=WRITERS[request.param])
    made.publish()
    return made


def wanted(grain: Grain, **options: Any) -> Samples:
    return open_store(grain.folder, "grain").samples(**options)


def test_every_sequence_is_what_was_stored(grain: Grain) -> None:
    for aligned in (False, True):
        samples = wanted(grain, aligned=aligned, times=True)
        order = sorted(range(grain.count), key=lambda i: (grain.shard(i), grain.ids[i]))
        names = ("sound", "picture")
        stored = {name: f"aligned.{name}" if aligned else name for name in names}
        order = [i for i in order if any((stored[n], grain.ids[i], 0) in grain.sequences for n in names)]
        assert samples.sample_ids == [grain.ids[i] for i in order]
        found = samples.__getitems__(range(len(samples)))
        for i, sample in zip(order, found, strict=True):
            label = grain.label(i)
            assert sample["label"] == (UNLABELLED if label is None else CLASSES.index(label))
            for name in names:
                sequence = grain.sequences.get((stored[name], grain.ids[i], 0))
                assert bool(sample["present"][name]) == (sequence is not None)
                if sequence is None:
                    assert tuple(sample["values"][name].shape) == (0, samples.dims[name])
                    continue
                np.testing.assert_array_equal(sample["values"][name].numpy(), sequence.values)
                np.testing.assert_array_equal(sample["valid"][name].numpy(), sequence.valid)
                np.testing.assert_array_equal(sample["start_ns"][name].numpy(), sequence.start_ns)
                np.testing.assert_array_equal(sample["end_ns"][name].numpy(), sequence.end_ns)


@pytest.mark.parametrize("layout", ["pad", "pack"])
def test_a_batch_is_its_samples_collated(grain: Grain, layout: Any) -> None:
    samples = wanted(grain, times=True)
    at = np.random.default_rng(0).permutation(len(samples))[:11]
    got, by_one = samples.batch(at, layout=layout), collate([samples[int(i)] for i in at], layout=layout)
    assert got.keys() == by_one.keys()
    assert got["sample_id"] == by_one["sample_id"]
    for key in got.keys() - {"sample_id"}:
        a, b = got[key], by_one[key]  # type: ignore[literal-required]
        pairs = [(a[name], b[name]) for name in a] if isinstance(a, dict) else [(a, b)]
        for one, other in pairs:
            assert one.dtype == other.dtype
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_masks_leave_out_what_is_not_there_or_not_valid(grain: Grain) -> None:
    samples = wanted(grain)
    batch = samples.batch(range(len(samples)))
    for k, sample_id in enumerate(batch["sample_id"]):
        sequence = grain.sequences.get(("sound", sample_id, 0))
        flags = np.zeros(batch["mask"]["sound"].shape[1], np.bool_)
        if sequence is not None:
            flags[: len(sequence)] = sequence.valid
        np.testing.assert_array_equal(batch["mask"]["sound"][k].numpy(), flags)
        assert int(batch["lengths"]["sound"][k]) == (0 if sequence is None else len(sequence))
        assert not batch["values"]["sound"][k][len(flags[: 0 if sequence is None else len(sequence)]) :].any()


def test_what_is_not_mapped_is_told(grain: Grain, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    samples = wanted(grain, features=["sound"])
    assert samples.mapped == {"sound": 1.0 if grain.write is write_shard or not samples.notices else 0.0}
    for notice in samples.notices:
        assert "row groups are decoded by pyarrow, not mapped: " in notice
        assert notice in caplog.text


def test_batches_are_made_ahead_where_something_is_decoded(grain: Grain) -> None:
    samples = wanted(grain)
    decoded = any(share < 1.0 for share in samples.mapped.values())
    assert samples.batches(4).prefetch == (4 if decoded else 0)
    assert samples.batches(4, prefetch=2).prefetch == 2
    for _ in samples.batches(1):
        threads = [thread for thread in threading.enumerate() if thread.name == "gristmill-prefetch"]
        assert len(threads) == (1 if decoded else 0)
        break


def test_decoded_groups_are_forgotten_when_they_take_too_much(grain: Grain) -> None:
    most = 600
    samples = wanted(grain, features=["sound"], cache_bytes=most)
    feature = samples._features["sound"]
    for i in range(len(samples)):
        samples.batch([i])
        assert feature.open_bytes <= most or len(feature._open) == 1
    whole = wanted(grain, features=["sound"]).batch(range(len(samples)))
    again = samples.batch(range(len(samples)))
    torch.testing.assert_close(whole["values"]["sound"], again["values"]["sound"], rtol=0, atol=0)


def test_samples_go_to_another_process_as_a_pickle(grain: Grain) -> None:
    samples = wanted(grain)
    samples.batch([0, 1])
    copy: Samples = pickle.loads(pickle.dumps(samples))
    assert copy.digest == samples.digest
    torch.testing.assert_close(copy.batch([0, 5])["values"], samples.batch([0, 5])["values"], rtol=0, atol=0)


# Choice: the layout of the files makes no difference


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Grain:
    made = Grain(tmp_path_factory.mktemp("plain"), FEATURES)
    made.publish()
    return made


def test_our_own_files_are_mapped(plain: Grain) -> None:
    samples = wanted(plain)
    assert samples.mapped == {"picture": 1.0, "sound": 1.0}
    assert samples.notices == ()


def test_samples_are_chosen_by_split_label_and_predicate(plain: Grain) -> None:
    reader = open_store(plain.folder, "grain")
    index = {name: i for i, name in enumerate(plain.ids)}

    def chosen(**options: Any) -> set[int]:
        return {index[name] for name in reader.samples(**options).sample_ids}

    any_of = {i for i in range(40) if i % 5 or i % 7}
    assert chosen() == any_of
    assert chosen(complete=True) == {i for i in range(40) if i % 5 and i % 7}
    assert chosen(split="test") == {i for i in any_of if plain.split(i) == "test"}
    assert chosen(split=["train", "test"]) == {i for i in any_of if plain.split(i) != "validation"}
    assert chosen(labels=["oats"]) == {i for i in any_of if plain.label(i) == "oats"}
    assert chosen(where=pc.field("sample_id") < "s0010") == {i for i in any_of if i < 10}
    assert chosen(where=lambda table: pc.ends_with(table["text_uri"], "7.txt").to_numpy()) == {7, 17, 27, 37}
    assert chosen(split="train", where=pc.field("label") == "rye") == {
        i for i in any_of if plain.split(i) == "train" and plain.label(i) == "rye"
    }


def test_labels_are_places_in_the_classes_or_what_target_makes_of_them(plain: Grain) -> None:
    reader = open_store(plain.folder, "grain")
    only = reader.samples(labels=["rye"])
    assert only.classes == CLASSES
    assert set(only.labels.tolist()) == {2}
    made = reader.samples(target=lambda label: [len(label or ""), 0.5]).batch([0])
    assert made["label"].dtype == torch.float32
    assert tuple(made["label"].shape) == (1, 2)


def test_a_pinned_snapshot_stays_what_it_was(tmp_path: Path) -> None:
    grain = Grain(tmp_path, {"picture": Feature(dim=4)}, count=12)
    first = grain.publish()
    pinned = open_store(tmp_path, "grain", first.version)
    before = pinned.samples().batch(range(12))
    later = Grain(tmp_path, {"picture": Feature(dim=4)}, count=20)
    second = later.publish()
    assert len(open_store(tmp_path, "grain").samples()) == 20
    for reader in (
        pinned,
        open_store(tmp_path, "grain", first.version),
        open_store(tmp_path, "grain", str(first.version)),
    ):
        samples = reader.samples()
        assert samples.snapshot == first.version != second.version
        torch.testing.assert_close(samples.batch(range(12))["values"], before["values"], rtol=0, atol=0)


def test_opening_again_reads_no_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Grain(tmp_path, {"picture": Feature(dim=4)}, count=12).publish()
    before = open_store(tmp_path, "grain").samples().batch(range(12))

    def never(*args: Any) -> Any:
        raise AssertionError("a shard was indexed again")

    monkeypatch.setattr("pipeline.loader.index.index_file", never)
    again = open_store(tmp_path, "grain").samples().batch(range(12))
    torch.testing.assert_close(again["values"], before["values"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": ["taste"]}, r"got feature 'taste', allowed: picture, sound \(not aligned\)"),
        ({"features": []}, r"got no features, allowed: picture, sound"),
        ({"features": ["sound", "sound"]}, "got features sound, sound, allowed: each once"),
        ({"split": "exam"}, r"got split \['exam'\], allowed: some of \['test', 'train', 'validation'\]"),
        ({"labels": "rye"}, r"got label 'rye', allowed: some of"),
    ],
)
def test_what_is_not_there_is_refused(plain: Grain, options: dict[str, Any], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        wanted(plain, **options)


def test_nothing_left_is_an_error_of_its_own(plain: Grain) -> None:
    with pytest.raises(NoSamplesError, match="no sample is left: 0 are chosen, and none has any of picture, sound"):
        wanted(plain, where=pc.field("sample_id") == "nobody")
    with pytest.raises(ValueError, match=r"where: got int64 \[3\], allowed: bool, one for each of 40 rows"):
        wanted(plain, where=lambda table: np.arange(3))
    with pytest.raises(StoreError, match="nothing is published there; cure: gristmill run rice"):
        open_store(plain.folder, "rice")


def test_a_file_that_is_gone_or_cut_is_told(tmp_path: Path) -> None:
    grain = Grain(tmp_path, {"picture": Feature(dim=4)}, count=12)
    snapshot = grain.publish()
    samples = open_store(tmp_path, "grain").samples()
    path = Path(snapshot.store.path(snapshot.files[0].path))
    content = path.read_bytes()
    path.write_bytes(content[:-9])
    with pytest.raises(
        StoreError, match=rf"got {len(content) - 9} bytes, allowed: {len(content)}; cure: gristmill verify"
    ):
        samples.batch(range(12))
    path.unlink()
    with pytest.raises(StoreError, match="is not there; cure: open the store again"):
        samples.batch(range(12))
