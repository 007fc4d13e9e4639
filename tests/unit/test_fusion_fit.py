"""Training: what is learnt, what is refused, and what is saved."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from features.errors import GristmillError, RunFailedError, StoreError
from pipeline.fusion.data import FusionData, Modality
from pipeline.fusion.fit import train
from pipeline.fusion.options import TrainOptions
from pipeline.fusion.result import TrainResult

QUICK = TrainOptions(epochs=30, learning_rate=5e-3, patience=30, device="cpu")
LENGTH = 5


class Recorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.lines: list[str] = []
        self.total = 0
        self.done = 0
        self.ended = False

    def started(self, stage: str, total: int | None, unit: str) -> None:
        assert (stage, unit) == ("train", "models")
        self.total = total or 0

    def advanced(self, stage: str, n: int = 1) -> None:
        self.done += n

    def said(self, stage: str, message: str) -> None:
        self.lines.append(message)

    def finished(self, stage: str, message: str = "") -> None:
        self.ended = True

    def note(self, message: str) -> None:
        self.notes.append(message)


def two_bits(label: str, *, missing: bool = False, validation: bool = True, count: int = 200) -> FusionData:
    """Modality "a" tells one bit and "b" another; the label is both of them ("pair") or whether they differ ("xor").

    With ``missing``, half of the test samples have no "b".
    """
    random = np.random.default_rng(7)
    bits = np.stack([np.arange(count) % 2, np.arange(count) // 2 % 2], axis=1)

    def modality(bit: np.ndarray, dim: int) -> Modality:
        values = random.normal(size=(count, LENGTH, dim)).astype(np.float32) * 0.3
        values[:, :, 0] += np.where(bit == 1, 3.0, 1.0)[:, None].astype(np.float32)
        mask = np.ones((count, LENGTH), dtype=np.bool_)
        mask[::3, -2:] = False
        values[~mask] = 0
        return Modality(values=values, mask=mask)

    a, b = modality(bits[:, 0], 3), modality(bits[:, 1], 4)
    fifth = np.arange(count) // 4 % 5
    splits = np.where(fifth == 0, "test", np.where((fifth == 1) & validation, "validation", "train"))
    if missing:
        gone = (splits == "test") & (np.arange(count) % 40 < 20)
        b.values[gone] = 0
        b.mask[gone] = False
    names = [f"{x}{y}" if label == "pair" else str(x ^ y) for x, y in bits.tolist()]
    return FusionData(
        sample_ids=tuple(f"s{k:03d}" for k in range(count)),
        splits=tuple(splits.tolist()),
        labels=tuple(names),
        modalities={"a": a, "b": b},
    )


def tensors(data: FusionData, rows: np.ndarray) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    return (
        {name: torch.from_numpy(one.values[rows]) for name, one in data.modalities.items()},
        {name: torch.from_numpy(one.mask[rows]) for name, one in data.modalities.items()},
    )


@pytest.fixture(scope="module")
def pair() -> TrainResult:
    return train(two_bits("pair"), QUICK)


def test_a_label_that_needs_two_modalities_is_learnt_by_fusion_only(pair: TrainResult) -> None:
    accuracy = {name: result.mean["accuracy"] for name, result in pair.models.items()}
    assert set(accuracy) == {"a", "b", "early", "late", "majority", "linear"}
    assert 0.35 <= accuracy["a"] <= 0.65
    assert 0.35 <= accuracy["b"] <= 0.65
    assert accuracy["early"] >= 0.97
    assert accuracy["late"] >= 0.97
    assert accuracy["majority"] == 0.25
    assert pair.gain["early"] == accuracy["early"] - max(accuracy["a"], accuracy["b"])
    assert pair.samples == {"train": 120, "validation": 40, "test": 40}
    assert pair.labels == ("00", "01", "10", "11")


def test_whether_two_bits_differ_is_learnt_by_early_fusion_and_beyond_late_fusion() -> None:
    models = train(two_bits("xor"), QUICK).models
    assert models["early"].mean["accuracy"] >= 0.97
    assert models["late"].mean["accuracy"] <= 0.75


def test_a_wide_modality_is_not_memorised_before_a_narrow_one_is_learnt() -> None:
    data = two_bits("pair")
    still = np.random.default_rng(1).normal(size=(len(data.labels), 1, 2000)).astype(np.float32)
    noise = np.repeat(still, LENGTH, axis=1)
    wide = Modality(values=noise, mask=np.ones(noise.shape[:2], dtype=np.bool_))
    models = train(replace(data, modalities={**data.modalities, "wide": wide}), TrainOptions(device="cpu")).models
    assert models["wide"].mean["accuracy"] <= 0.5
    assert models["early"].mean["accuracy"] >= 0.9


def test_confusion_counts_every_test_sample_by_its_true_label(pair: TrainResult) -> None:
    for result in pair.models.values():
        assert np.array(result.confusion).sum(axis=1).tolist() == [10, 10, 10, 10]
        assert np.trace(np.array(result.confusion)) / 40 == pytest.approx(result.mean["accuracy"])


def test_a_modality_that_is_missing_at_test_contributes_nothing() -> None:
    data = two_bits("pair", missing=True)
    result = train(data, QUICK)
    assert 0.6 <= result.models["late"].mean["accuracy"] <= 0.9
    assert result.models["early"].mean["accuracy"] >= 0.5
    rows = data.rows("test")
    values, masks = tensors(data, rows)
    gone = ~masks["b"].any(dim=1)
    assert int(gone.sum()) == 20
    other = {**values, "b": torch.where(masks["b"].unsqueeze(-1), values["b"], torch.tensor(1e6))}
    for name in ("early", "late"):
        model = result.trained[name]
        assert torch.equal(model(values, masks), model(other, masks))
    alone = result.trained["a"](values, masks)[gone].log_softmax(dim=1)
    torch.testing.assert_close(result.trained["late"](values, masks)[gone], alone)


def test_a_sample_without_any_modality_is_answered_with_the_training_frequencies(pair: TrainResult) -> None:
    values = {"a": torch.ones(1, 2, 3), "b": torch.ones(1, 2, 4)}
    masks = {name: torch.zeros(1, 2, dtype=torch.bool) for name in values}
    for model in pair.trained.values():
        assert model(values, masks).exp().tolist() == [pytest.approx([0.25] * 4)]


def test_two_runs_give_the_same_bits(pair: TrainResult) -> None:
    again = train(two_bits("pair"), QUICK)
    assert again.models == pair.models
    for name, model in pair.trained.items():
        for mine, theirs in zip(model.state_dict().values(), again.trained[name].state_dict().values(), strict=True):
            assert torch.equal(mine, theirs)


def test_a_model_does_not_depend_on_what_is_trained_beside_it_nor_on_the_global_seed(pair: TrainResult) -> None:
    data = two_bits("pair")
    torch.manual_seed(99)
    before = torch.random.get_rng_state()
    alone = train(replace(data, modalities={"b": data.modalities["b"]}), replace(QUICK, methods=("late",)))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert alone.models["b"] == pair.models["b"]


def test_seeds_are_averaged() -> None:
    result = train(two_bits("pair"), replace(QUICK, epochs=2, seeds=3, methods=("early",), learning_rate=1e-4))
    early = result.models["early"]
    accuracies = [run["accuracy"] for run in early.runs]
    assert len(early.runs) == 3
    assert early.mean["accuracy"] == pytest.approx(sum(accuracies) / 3)
    assert early.std["accuracy"] == pytest.approx(np.std(accuracies))
    assert np.array(early.confusion).sum() == 3 * 40
    assert early.epochs == (2, 2, 2)


def test_every_seed_gives_a_model_of_its_own() -> None:
    first, second, again = (
        train(two_bits("pair"), replace(QUICK, epochs=1, seed=seed, methods=("early",))).trained["early"].state_dict()
        for seed in (0, 1, 0)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_training_stops_when_validation_does_not_get_better_and_keeps_the_best_weights() -> None:
    data = two_bits("pair")
    random = np.random.default_rng(0)
    # Labels that have nothing to do with the inputs: all that can be learnt is noise.
    labels = tuple(random.choice(["x", "y"], size=len(data.labels)).tolist())
    options = replace(QUICK, epochs=200, patience=3, methods=("early",), learning_rate=1e-2)
    result = train(replace(data, labels=labels), options)
    history = result.models["early"].history
    losses = [epoch.validation_loss for epoch in history]
    assert len(history) < 200
    assert len(history) - 1 - int(np.argmin(losses)) == 3
    rows = data.rows("validation")
    target = torch.tensor([result.labels.index(labels[row]) for row in rows])
    kept = torch.nn.functional.cross_entropy(result.trained["early"](*tensors(data, rows)).detach(), target)
    assert float(kept) == pytest.approx(min(losses), rel=1e-5)


def test_without_validation_all_epochs_are_run_and_that_is_noted() -> None:
    recorder = Recorder()
    data = two_bits("pair", validation=False)
    result = train(data, replace(QUICK, epochs=4, patience=1), recorder)
    assert result.models["early"].epochs == (4,)
    assert result.models["early"].history[0].validation_loss is None
    assert result.notes == ("there is no validation split: no early stopping, the weights of the last epoch are kept",)
    assert recorder.notes == list(result.notes)
    assert recorder.done == recorder.total == 3
    assert recorder.ended


def test_notes_say_what_is_left_out() -> None:
    data = two_bits("pair")
    labels = ("rare", *data.labels[1:])
    splits = ("train", "train", "extra", *data.splits[3:])
    notes = train(
        replace(data, labels=labels, splits=splits, unlabelled=2, extra_views=3), replace(QUICK, epochs=1)
    ).notes
    assert notes == (
        "2 samples have no label and are left out",
        "3 augmented views outside split 'train' are left out",
        "samples in other splits are not used: 1 in 'extra'",
        "labels with a single training sample: 'rare'",
    )


def test_balanced_loss_finds_a_rare_label() -> None:
    data = two_bits("pair")
    labels = tuple("yes" if label == "11" else "no" for label in data.labels)
    options = replace(QUICK, methods=("early",), epochs=6, learning_rate=2e-3)
    data = replace(data, labels=labels, modalities={"b": data.modalities["b"]})
    plain, balanced = (train(data, replace(options, balanced=flag)).models["b"] for flag in (False, True))
    assert np.array(balanced.confusion)[1, 1] > np.array(plain.confusion)[1, 1]


def test_a_saved_model_gives_the_same_logits(pair: TrainResult, tmp_path: Path) -> None:
    pair.save(tmp_path / "run", "snapshot-12")
    data = two_bits("pair")
    values, masks = tensors(data, data.rows("test"))
    for name in ("a", "b", "early", "late"):
        loaded = TrainResult.load_model(tmp_path / "run", name)
        assert not loaded.training
        assert torch.equal(loaded(values, masks), pair.trained[name](values, masks))
    document = json.loads((tmp_path / "run" / "result.json").read_text())
    assert document["snapshot"] == "snapshot-12"
    assert document["labels"] == ["00", "01", "10", "11"]
    assert document["dims"] == [["a", 3], ["b", 4]]
    assert document["options"]["hidden"] == 64
    assert document["models"]["early"]["mean"]["accuracy"] == pair.models["early"].mean["accuracy"]
    assert {path.suffix for path in (tmp_path / "run").iterdir()} == {".safetensors", ".json"}


def test_predictions_of_the_loaded_model_are_the_measured_ones(pair: TrainResult, tmp_path: Path) -> None:
    pair.save(tmp_path, "s")
    data = two_bits("pair")
    rows = data.rows("test")
    for name in pair.trained:
        predicted = TrainResult.load_model(tmp_path, name)(*tensors(data, rows)).argmax(dim=1).tolist()
        truth = [pair.labels.index(data.labels[row]) for row in rows]
        assert np.mean(np.array(predicted) == truth) == pytest.approx(pair.models[name].mean["accuracy"])


def test_loading_says_what_is_wrong(pair: TrainResult, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no result\.json, so no complete training result; cure: train again"):
        TrainResult.load_model(tmp_path, "early")
    pair.save(tmp_path, "s")
    with pytest.raises(StoreError, match=r"model: got 'majority', allowed: a, b, early, late"):
        TrainResult.load_model(tmp_path, "majority")
    (tmp_path / "early.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes())
    with pytest.raises(StoreError, match=r"early\.safetensors: not the weights of 'early'"):
        TrainResult.load_model(tmp_path, "early")
    (tmp_path / "late.safetensors").write_bytes(b"nonsense")
    with pytest.raises(StoreError, match=r"late\.safetensors: not the weights of 'late'"):
        TrainResult.load_model(tmp_path, "late")


def _without(split: str) -> FusionData:
    data = two_bits("pair")
    return replace(data, splits=tuple("extra" if found == split else found for found in data.splits))


def _masked() -> FusionData:
    data = two_bits("pair")
    b = data.modalities["b"]
    return replace(data, modalities={**data.modalities, "b": replace(b, mask=np.zeros_like(b.mask))})


def _relabelled(split: str, label: str) -> FusionData:
    data = two_bits("pair")
    labels = [label if found == split else old for found, old in zip(data.splits, data.labels, strict=True)]
    return replace(data, labels=tuple(labels))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_without("train"), r"split 'train': got no labelled sample.*40 in 'test', 40 in 'validation'; cure: declare"),
        (_without("test"), r"split 'test': got no labelled sample, allowed: at least one; .*120 in 'train'"),
        (_relabelled("train", "same"), r"labels: got only 'same' in split 'train', allowed: at least 2 labels"),
        (_relabelled("test", "new"), r"label: got 'new' outside split 'train' and never in it, allowed: labels that"),
        (_relabelled("validation", "new"), r"label: got 'new' outside split 'train' and never in it"),
        (_masked(), r"train: b: got no valid row in split 'train', allowed: at least one; cure: leave the feature out"),
        (
            replace(two_bits("pair"), modalities={"late": two_bits("pair").modalities["a"]}),
            r"modality: got the name 'late', allowed: a name that is no fusion method",
        ),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(data: FusionData, message: str) -> None:
    with pytest.raises(RunFailedError, match=message):
        train(data, QUICK)


def test_a_loss_that_is_not_finite_stops_training() -> None:
    data = two_bits("pair")
    values = data.modalities["a"].values.copy()
    values[data.rows("validation")[0], 0, 0] = 3e38
    values[data.rows("validation")[0], 1, 0] = -3e38
    modalities = {"a": replace(data.modalities["a"], values=values)}
    with pytest.raises(RunFailedError, match=r"train: a, seed 0, epoch 1: the loss is not finite; cure: a lower"):
        train(replace(data, modalities=modalities), QUICK)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the error is for machines without CUDA")
def test_cuda_that_is_missing_is_an_error() -> None:
    with pytest.raises(GristmillError, match=r"got 'cuda', but torch finds no CUDA device"):
        train(two_bits("pair"), replace(QUICK, device="cuda"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("early", "median")}, r"train: methods: got 'median', allowed: early, average, "),
        ({"epochs": 0}, r"train: epochs: got 0, allowed: >= 1"),
        ({"patience": 0}, r"train: patience: got 0, allowed: >= 1"),
        ({"learning_rate": 0.0}, r"train: learning_rate: got 0\.0, allowed: > 0"),
        ({"weight_decay": -1.0}, r"train: weight_decay: got -1\.0, allowed: >= 0"),
        ({"dropout": 1.0}, r"train: dropout: got 1\.0, allowed: 0 <= dropout < 1"),
        ({"seed": -1}, r"train: seed: got -1, allowed: >= 0"),
        ({"optimizer": "lion"}, r"train: optimizer: got 'lion', allowed: adam, sgd"),
        ({"schedule": "warm"}, r"train: schedule: got 'warm', allowed: constant, cosine, step, plateau"),
        ({"folds": 1}, r"train: folds: got 1, allowed: 0, or >= 2"),
        ({"modality_dropout": 1.0}, r"train: modality_dropout: got 1\.0, allowed: 0 <= modality_dropout < 1"),
        ({"targets": {}}, r"train: targets: got none, allowed: at least one"),
        ({"between": ""}, r"train: separator, between: got an empty text"),
    ],
)
def test_options_that_are_not_allowed_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainOptions(**options)  # type: ignore[arg-type]  # wrong on purpose


def test_importing_the_options_does_not_import_torch() -> None:
    code = "import sys, pipeline.fusion.fit; sys.exit(bool({'torch', 'sklearn'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
