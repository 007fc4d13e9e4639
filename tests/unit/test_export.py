"""An export holds what the snapshot holds, says what it left out, and is there whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loader_store import Feature, Grain

from features.errors import StoreError
from pipeline.export import FORMATS, Choice, export_dataset
from pipeline.export.template import Template
from pipeline.loader import StoreReader

FEATURES = {
    "sound": Feature(dim=3, lengths=(0, 6), absent=5, invalid=True, views=1),
    "picture": Feature(dim=4, absent=7),
    "aligned.sound": Feature(dim=3, lengths=(2, 4)),
}
SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def grain(tmp_path_factory: pytest.TempPathFactory) -> Grain:
    folder = tmp_path_factory.mktemp("export")
    made = Grain(folder, FEATURES)
    for name in made.ids:
        (folder / f"{name}.txt").write_text(f"  the text of {name} ")
    (folder / "s0003.txt").write_bytes(b"\xff\xfe\xff")
    made.publish()
    return made


@pytest.fixture(scope="module")
def reader(grain: Grain) -> StoreReader:
    from pipeline.loader import open_store

    return open_store(grain.folder, "grain")


def members(grain: Grain, split: str, names: tuple[str, ...] = ("sound", "picture")) -> list[int]:
    """Samples of a split that have any of the features, in order of (shard, id)."""
    kept = [
        i
        for i in range(grain.count)
        if grain.split(i) == split and any((name, grain.ids[i], 0) in grain.sequences for name in names)
    ]
    return sorted(kept, key=lambda i: (grain.shard(i), grain.ids[i]))


def check_manifest(folder: Path, grain: Grain) -> dict[str, Any]:
    """The manifest's counts add up, and its digests are those of the files."""
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    counts = found["samples"]
    assert counts["in_snapshot"] == grain.count
    assert grain.count == counts["written"] + sum(counts["left_out"].values()) + sum(counts["not_asked"].values())
    assert counts["written"] == sum(part["samples"] for part in found["splits"].values())
    assert counts["written"] == sum(file["samples"] for file in found["files"])
    for file in found["files"]:
        content = (folder / file["path"]).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    held = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert held - {file["path"] for file in found["files"]} <= {"manifest.json", "README.md"}
    return found


def test_hugging_face_opens_it_with_the_right_features(
    grain: Grain, reader: StoreReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    export_dataset(reader, tmp_path / "hf", "huggingface", file_bytes=200)
    found = check_manifest(tmp_path / "hf", grain)
    assert found["features"]["sound"]["dim"] == 3
    assert found["notes"] == ["sound: 11 augmented views are not exported"]
    opened = datasets.load_dataset(str(tmp_path / "hf"), cache_dir=str(tmp_path / "cache"))
    assert list(opened) == list(SPLITS)
    of = opened["train"].features
    assert of["label"].names == ["barley", "oats", "rye"]
    row = datasets.Sequence(datasets.Value("float32"), length=4)
    assert of["picture"] == row
    assert of["sound"] == datasets.Sequence(datasets.Sequence(datasets.Value("float32"), length=3))
    assert (of["picture.valid"], of["picture.start_ns"]) == (datasets.Value("bool"), datasets.Value("int64"))
    for split in SPLITS:
        wanted = members(grain, split)
        assert opened[split]["sample_id"][:] == [grain.ids[i] for i in wanted]
        for i, got in zip(wanted, opened[split], strict=True):
            label = grain.label(i)
            assert got["label"] == (None if label is None else of["label"].str2int(label))
            for name in ("sound", "picture"):
                sequence = grain.sequences.get((name, grain.ids[i], 0))
                if sequence is None:
                    assert [got[name], got[f"{name}.valid"], got[f"{name}.end_ns"]] == [None] * 3
                    continue
                values = np.array(got[name], np.float32).reshape(sequence.values.shape)
                np.testing.assert_array_equal(values, sequence.values)
                for part in ("valid", "start_ns", "end_ns"):
                    assert np.atleast_1d(got[f"{name}.{part}"]).tolist() == getattr(sequence, part).tolist()


def test_webdataset_members_are_the_samples(grain: Grain, reader: StoreReader, tmp_path: Path) -> None:
    export_dataset(reader, tmp_path / "wds", "webdataset", file_bytes=300)
    found = check_manifest(tmp_path / "wds", grain)
    assert sum(file["path"].startswith("train-") for file in found["files"]) > 1
    for split in SPLITS:
        samples: dict[str, dict[str, Any]] = defaultdict(dict)
        for path in sorted((tmp_path / "wds").glob(f"{split}-*.tar")):
            with tarfile.open(path) as archive:
                for member in archive:
                    # how webdataset takes a name apart (tariterators.base_plus_ext)
                    match = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", member.name)
                    stream = archive.extractfile(member)
                    assert match is not None
                    assert stream is not None
                    content = stream.read()
                    samples[match[1]][match[2]] = np.load(io.BytesIO(content)) if match[2].endswith("npy") else content
        wanted = members(grain, split)
        assert list(samples) == [grain.ids[i] for i in wanted]
        for i, got in zip(wanted, samples.values(), strict=True):
            assert json.loads(got["json"]) == {"sample_id": grain.ids[i], "split": split, "label": grain.label(i)}
            classes = ["barley", "oats", "rye"]
            assert (classes[int(got["cls"])] if "cls" in got else None) == grain.label(i)
            for name in ("sound", "picture"):
                sequence = grain.sequences.get((name, grain.ids[i], 0))
                assert (f"{name}.npy" in got) == (sequence is not None)
                if sequence is not None:
                    np.testing.assert_array_equal(got[f"{name}.npy"], sequence.values)
                    np.testing.assert_array_equal(got[f"{name}.valid.npy"], sequence.valid)


def test_keys_hold_no_dot_or_slash() -> None:
    from pipeline.export.tar import key

    assert key("talks/day.1 ~é") == "talks%2Fday%2E1%20%7E%C3%A9"


@pytest.mark.parametrize("form", ["numpy", "npz"])
def test_numpy_arrays_hold_the_sequences(form: str, grain: Grain, reader: StoreReader, tmp_path: Path) -> None:
    export_dataset(reader, tmp_path / "out", form)  # type: ignore[arg-type]
    check_manifest(tmp_path / "out", grain)
    for split in SPLITS:
        found: Any
        if form == "npz":
            found = np.load(tmp_path / "out" / f"{split}.npz")
        else:
            found = {path.stem: np.load(path) for path in (tmp_path / "out" / split).iterdir()}
        wanted = members(grain, split)
        assert found["sample_ids"].tolist() == [grain.ids[i] for i in wanted]
        classes = ["barley", "oats", "rye"]
        assert [None if k < 0 else classes[k] for k in found["labels"]] == [grain.label(i) for i in wanted]
        for name in ("sound", "picture"):
            offsets = found[f"{name}.offsets"]
            for place, i in enumerate(wanted):
                sequence = grain.sequences.get((name, grain.ids[i], 0))
                assert found[f"{name}.present"][place] == (sequence is not None)
                rows = slice(*offsets[place : place + 2])
                if sequence is None:
                    assert rows.start == rows.stop
                    continue
                for part in ("values", "valid", "start_ns", "end_ns"):
                    np.testing.assert_array_equal(found[f"{name}.{part}"][rows], getattr(sequence, part))


def test_what_is_chosen_is_what_is_written(grain: Grain, reader: StoreReader, tmp_path: Path) -> None:
    choice = Choice(features=("sound", "picture"), splits=("train",), labels=("oats", "rye"), complete=True)
    exported = export_dataset(reader, tmp_path / "out", "npz", choice)
    check_manifest(tmp_path / "out", grain)
    asked = [i for i in range(grain.count) if grain.split(i) == "train" and grain.label(i) in ("oats", "rye")]
    whole = [i for i in asked if i % 5 and i % 7]
    with np.load(tmp_path / "out" / "train.npz") as found:
        assert sorted(found["sample_ids"]) == [grain.ids[i] for i in whole]
    counts = exported.manifest["samples"]
    assert counts["not_asked"] == {"another label": 24 - len(asked), "another split": 16}
    lacking = {
        "no row of any of sound, picture": sum(i % 35 == 0 for i in asked),
        "no row of sound": sum(i % 5 == 0 and i % 7 != 0 for i in asked),
        "no row of picture": sum(i % 5 != 0 and i % 7 == 0 for i in asked),
    }
    assert counts["left_out"] == {reason: count for reason, count in lacking.items() if count}
    (line,) = [line for line in exported.lines if line.startswith("grain, snapshot")]
    assert f"40 samples = {len(whole)} written + " in line


def test_aligned_rows_are_exported_by_their_name(grain: Grain, reader: StoreReader, tmp_path: Path) -> None:
    export_dataset(reader, tmp_path / "out", "npz", Choice(aligned=True, splits=("test",)))
    found = check_manifest(tmp_path / "out", grain)
    assert found["features"]["sound"]["stored"] == "aligned.sound"
    with np.load(tmp_path / "out" / "test.npz") as arrays:
        first = grain.sequences["aligned.sound", str(arrays["sample_ids"][0]), 0]
        np.testing.assert_array_equal(arrays["sound.values"][: len(first)], first.values)


def test_rows_for_tuning_are_filled_and_what_lacks_is_counted(
    grain: Grain, reader: StoreReader, tmp_path: Path
) -> None:
    document = {
        "id": "{sample_id}",
        "say": ["{text} {{of}} {dataset}@{snapshot}, {split}", {"answer": "{label}", "number": "{label_id}"}],
        "heard": "{feature:sound}",
        "seen": "{values:picture}",
        "all": "{features}",
        "file": "{media:text}",
        "weight": 1.5,
        "of": "{labels}",
    }
    export_dataset(reader, tmp_path / "out", "jsonl", template=Template(document))
    found = check_manifest(tmp_path / "out", grain)
    assert found["template"] == document
    written = {}
    for split in SPLITS:
        for line in (tmp_path / "out" / f"{split}.jsonl").read_text().splitlines():
            row = json.loads(line)
            written[row["id"]] = (split, row)
    have = [i for i in range(grain.count) if i % 5 and i % 7 and grain.label(i) is not None and i != 3]
    assert sorted(written) == [grain.ids[i] for i in have]
    left_out = found["samples"]["left_out"]
    assert left_out["text: bad_encoding"] == 1 or left_out["text: corrupt"] == 1
    i = have[4]
    name = grain.ids[i]
    split, row = written[name]
    assert row["say"] == [
        f"the text of {name} {{of}} grain@{reader.snapshot.version}, {split}",
        {"answer": grain.label(i), "number": ["barley", "oats", "rye"].index(str(grain.label(i)))},
    ]
    assert (row["weight"], row["of"], row["file"]) == (1.5, "barley, oats, rye", f"{grain.folder}/{name}.txt")
    np.testing.assert_array_equal(np.array(row["seen"], np.float32), grain.sequences["picture", name, 0].values)
    assert row["all"]["sound"] == row["heard"]
    assert row["heard"]["feature"] == "sound"
    import pyarrow.parquet as pq

    stored = pq.read_table(row["heard"]["file"], partitioning=None).to_pylist()[row["heard"]["row"]]
    assert stored["sample_id"] == name
    np.testing.assert_array_equal(
        np.array(stored["values"], np.float32), grain.sequences["sound", name, 0].values.ravel()
    )


def test_a_template_without_features_takes_every_sample(grain: Grain, reader: StoreReader, tmp_path: Path) -> None:
    exported = export_dataset(reader, tmp_path / "out", "jsonl", template=Template.load("chat"))
    check_manifest(tmp_path / "out", grain)
    labelled = [i for i in range(grain.count) if grain.label(i) is not None]
    assert exported.manifest["samples"]["left_out"]["no label"] == grain.count - len(labelled) - 1  # s0003: its text
    assert exported.manifest["samples"]["written"] == len(labelled)
    row = json.loads((tmp_path / "out" / "train.jsonl").read_text().splitlines()[0])
    assert [message["role"] for message in row["messages"]] == ["user", "assistant"]
    assert "Which of these fits: barley, oats, rye?" in row["messages"][0]["content"]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"a": "{txet}"}, r"in '\{txet\}': got \{txet\}, allowed: \{text\}, \{label\}"),
        ({"a": ["see {feature:sound}"]}, r"got \{feature...\} with something beside it, allowed: it alone"),
        ({"a": "{feature}"}, r"got \{feature\}, allowed: \{feature:NAME\}"),
        ({"a": "{media:smell}"}, r"got \{media:smell\}, allowed: \{media:video\|audio\|image\|text\}"),
        ({"a": "{text"}, "allowed: {name}, with {{ and }} for braces"),
        ({"a": "{text!r}"}, "got !r, allowed: no conversion"),
    ],
)
def test_a_template_is_checked_before_anything_is_read(document: Any, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        Template(document)


def test_templates_are_files_or_names(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("prompt: '{text}'\ncompletion: '{label}'\n")
    assert Template.load(str(tmp_path / "mine.yaml")).document == {"prompt": "{text}", "completion": "{label}"}
    assert Template.load("instruction", ["sound"]).document["features"] == "{features}"
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(StoreError, match="got list, allowed: an object of keys and values"):
        Template.load(str(tmp_path / "list.json"))
    with pytest.raises(StoreError, match="got 'nothing', allowed: chat, instruction, prompt, or a"):
        Template.load("nothing")


def test_what_is_not_there_is_refused(reader: StoreReader, tmp_path: Path) -> None:
    for choice, message in (
        (Choice(features=("taste",)), r"got feature 'taste', allowed: picture, sound \(not aligned\)"),
        (Choice(splits=("exam",)), r"got split \['exam'\], allowed: some of \['test', 'train', 'validation'\]"),
        (Choice(labels=("wheat",)), r"got label \['wheat'\], allowed: some of \['barley', 'oats', 'rye'\]"),
    ):
        with pytest.raises(StoreError, match=message):
            export_dataset(reader, tmp_path / "out", "npz", choice)
    with pytest.raises(StoreError, match="got feature 'taste', allowed: those chosen: picture, sound"):
        export_dataset(reader, tmp_path / "out", "jsonl", template=Template({"a": "{values:taste}"}))
    with pytest.raises(ValueError, match=f"format: got 'csv', allowed: {', '.join(FORMATS)}"):
        export_dataset(reader, tmp_path / "out", "csv")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="allowed: with jsonl, and only there"):
        export_dataset(reader, tmp_path / "out", "jsonl")
    assert not list(tmp_path.iterdir())


def test_only_an_export_is_replaced_and_only_when_asked(reader: StoreReader, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_dataset(reader, out, "npz")
    with pytest.raises(StoreError, match="holds an export; cure: --overwrite"):
        export_dataset(reader, out, "webdataset")
    export_dataset(reader, out, "webdataset", overwrite=True)
    assert not list(out.glob("*.npz"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(StoreError, match="is there and is no export; allowed: a folder that is not there"):
        export_dataset(reader, tmp_path / "mine", "npz", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_an_export_that_cannot_be_moved_in_leaves_the_earlier_one(
    reader: StoreReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export_dataset(reader, out, "npz")
    before = sorted((path.name, path.read_bytes()) for path in out.iterdir())
    rename = Path.rename

    def full(self: Path, target: Path) -> Path:
        if target == out and not self.name.endswith("-old"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(StoreError, match=r"No space left on device; nothing was exported"):
        export_dataset(reader, out, "webdataset", overwrite=True)
    assert sorted((path.name, path.read_bytes()) for path in out.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []


def test_nothing_is_left_of_an_export_that_fails(
    reader: StoreReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.export.manifest.document", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export_dataset(reader, tmp_path / "out", "npz")
    assert not list(tmp_path.iterdir())


def test_the_same_snapshot_gives_the_same_bytes(reader: StoreReader, tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        made = export_dataset(reader, tmp_path / name, "webdataset").manifest
        digests.append([file["sha256"] for file in made["files"]])
    assert digests[0] == digests[1]
