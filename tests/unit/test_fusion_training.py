"""What training can do beside early and late fusion of classes: methods and targets, folds, ablation, resuming."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_fusion_fit import QUICK, two_bits

from features.errors import RunFailedError
from pipeline.fusion.data import FusionData, Modality
from pipeline.fusion.descend import _dropped as dropped
from pipeline.fusion.descend import rate
from pipeline.fusion.fit import train
from pipeline.fusion.folds import file_of, folds
from pipeline.fusion.keep import Keeper
from pipeline.fusion.options import METHODS, EncoderOptions, TrainOptions
from pipeline.fusion.result import Epoch, TrainResult
from pipeline.fusion.targets import TargetOptions

SHORT = replace(QUICK, epochs=2, patience=2)


@pytest.fixture(scope="module")
def everything() -> TrainResult:
    return train(two_bits("pair"), replace(QUICK, methods=METHODS, epochs=40))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_better_than_any_single_modality(everything: TrainResult, method: str) -> None:
    # A vote can only give what some modality says by itself: here the truth is among that three times in four.
    assert everything.gain[method] > (0.1 if method == "vote" else 0.25)
    assert everything.models["linear"].mean["accuracy"] > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_what_is_lost_without_a_modality_is_what_the_other_one_cannot_tell(
    everything: TrainResult, method: str
) -> None:
    assert set(everything.missing[method]) == {"a", "b"}
    assert all(0.2 <= score <= 0.75 for score in everything.missing[method].values())


def test_every_method_is_saved_and_gives_the_same_logits(everything: TrainResult, tmp_path) -> None:
    data = two_bits("pair")
    rows = data.rows("test")
    values = {name: torch.from_numpy(one.values[rows]) for name, one in data.modalities.items()}
    masks = {name: torch.from_numpy(one.mask[rows]) for name, one in data.modalities.items()}
    everything.save(tmp_path, "7", {"dataset": "bits"})
    for method in METHODS:
        loaded = TrainResult.load_model(tmp_path, method)
        assert torch.equal(loaded(values, masks), everything.trained[method](values, masks))


def test_a_shared_space_tells_how_often_partners_are_found(everything: TrainResult) -> None:
    assert set(everything.retrieval) == {"contrastive", "l2"}
    pairs = everything.retrieval["contrastive"]
    assert [(pair["from"], pair["to"]) for pair in pairs] == [("a", "b"), ("b", "a")]
    assert all(pair["recall@1"] <= pair["recall@5"] <= pair["recall@10"] for pair in pairs)
    assert pairs[0]["chance@1"] == 1 / 40


def test_a_number_is_learnt() -> None:
    data = two_bits("pair")
    numbers = tuple(str(10 + 4 * int(label[0]) + 2 * int(label[1])) for label in data.labels)
    options = replace(
        QUICK, targets={"height": TargetOptions(kind="number")}, methods=("early", "late", "vote", "stacking")
    )
    result = train(replace(data, labels=numbers), options)
    assert result.score == "r2"
    assert result.models["early"].mean["r2"] > 0.9
    assert result.models["linear"].mean["r2"] > 0.8
    assert result.models["majority"].mean["r2"] == pytest.approx(0, abs=0.05)
    assert result.models["early"].confusion == ()
    assert result.gain["early"] > 0.1


def test_sets_of_labels_are_learnt() -> None:
    data = two_bits("pair")
    sets = tuple(",".join(["x"] * int(label[0]) + ["y"] * int(label[1])) for label in data.labels)
    options = replace(
        QUICK, targets={"tags": TargetOptions(kind="labels")}, methods=("early", "late", "vote", "stacking")
    )
    result = train(replace(data, labels=sets), options)
    assert result.score == "f1"
    assert {name: result.models[name].mean["f1"] > 0.9 for name in ("early", "stacking", "linear")} == {
        "early": True,
        "stacking": True,
        "linear": True,
    }
    assert result.models["early"].mean["accuracy"] > 0.9


def test_several_targets_are_learnt_from_the_parts_of_a_label() -> None:
    data = two_bits("pair")
    labels = tuple(f"{label[0]}/{3 * int(label[1])}" for label in data.labels)
    targets = {"first": TargetOptions(part=0), "second": TargetOptions(kind="number", part=1, weight=0.5)}
    result = train(replace(data, labels=labels), replace(QUICK, targets=targets, methods=("early", "late")))
    mean = result.models["early"].mean
    assert mean["first.accuracy"] > 0.95
    assert mean["second.r2"] > 0.8
    assert mean["score"] == pytest.approx((mean["first.accuracy"] + mean["second.r2"]) / 2)
    assert result.labels == ("0", "1")
    assert np.array(result.models["early"].confusion).sum() == 40


@pytest.mark.parametrize(
    ("labels", "target", "message"),
    [
        ("soon", TargetOptions(kind="number"), r"train: t: got label 'soon', allowed: a finite number"),
        ("inf", TargetOptions(kind="number"), r"train: t: got label 'inf', allowed: a finite number"),
        ("3", TargetOptions(kind="number"), r"train: t: got the same number 3 in all of split 'train', allowed"),
        ("x", TargetOptions(part=1), r"train: targets\.t: label 'x' has 1 parts \(cut at '/'\), wanted part 1; cure"),
        ("x", TargetOptions(kind="labels"), r"train: t: labels: got only 'x' in split 'train', allowed: at least 2"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(labels: str, target: TargetOptions, message: str) -> None:
    data = two_bits("pair")
    with pytest.raises(RunFailedError, match=message):
        train(replace(data, labels=(labels,) * len(data.labels)), replace(SHORT, targets={"t": target}))


def test_an_encoder_of_a_feature_that_is_not_there_is_refused() -> None:
    with pytest.raises(RunFailedError, match=r"train: encoders: got 'c', allowed: the aligned features a, b"):
        train(two_bits("pair"), replace(SHORT, encoders={"c": EncoderOptions()}))


def test_order_in_time_is_seen_by_parts_and_recurrent_encoders_only() -> None:
    count, random = 160, np.random.default_rng(5)
    up = np.arange(count) % 2 == 1
    ramp = np.linspace(-1, 1, 8)[None, :, None] * np.where(up, 1, -1)[:, None, None]
    values = (ramp + 0.3 * random.normal(size=(count, 8, 1))).astype(np.float32)
    data = FusionData(
        sample_ids=tuple(map(str, range(count))),
        splits=tuple("test" if k % 4 < 2 else "train" for k in range(count)),
        labels=tuple("up" if one else "down" for one in up),
        modalities={"m": Modality(values=values, mask=np.ones((count, 8), dtype=np.bool_))},
    )
    found = {
        kind: train(data, replace(QUICK, methods=("late",), encoders={"m": options})).models["m"].mean["accuracy"]
        for kind, options in {
            "statistics": EncoderOptions(),
            "parts": EncoderOptions(parts=2),
            "gru": EncoderOptions(kind="gru"),
            "lstm": EncoderOptions(kind="lstm"),
        }.items()
    }
    assert found["statistics"] < 0.75
    assert min(found["parts"], found["gru"], found["lstm"]) > 0.95, found


def test_a_share_of_training_is_held_out_where_there_is_no_validation_split() -> None:
    data = two_bits("pair", validation=False)
    result = train(data, replace(SHORT, validation=0.25))
    assert result.samples["train"] + result.samples["validation"] == 160
    assert 20 <= result.samples["validation"] <= 60
    assert result.models["early"].history[0].validation_loss is not None
    assert result.notes == ()
    with_one = two_bits("pair")
    assert next(folds(with_one, replace(SHORT, validation=0.25))) is with_one


def test_folds_test_every_sample_once_and_windows_of_one_file_stay_together() -> None:
    data = two_bits("pair")
    ids = tuple(f"film-{k // 4}.mp4@{k % 4}.5" for k in range(200))
    data = replace(data, sample_ids=ids)
    tested: list[str] = []
    for part in folds(data, replace(SHORT, folds=4)):
        split = dict(zip(part.sample_ids, part.splits, strict=True))
        here = [name for name, found in split.items() if found == "test"]
        assert not {file_of(name) for name in here} & {file_of(name) for name in split if split[name] != "test"}
        assert {"train", "validation"} <= set(split.values())
        tested += here
    assert sorted(tested) == sorted(ids)
    result = train(data, replace(SHORT, folds=4, seeds=2))
    assert len(result.models["early"].runs) == 8
    assert np.array(result.models["early"].confusion).sum() == 2 * 200
    assert result.notes[0] == "4-fold cross-validation: every labelled sample is tested on once a seed"


def test_views_of_samples_are_trained_on_and_never_tested_on_in_folds() -> None:
    data = two_bits("pair")
    ids = tuple(f"s{k // 2}" for k in range(200))  # the second of each pair is a view
    for part in folds(replace(data, sample_ids=ids, splits=("train",) * 200), replace(SHORT, folds=3)):
        splits = np.array(part.splits).reshape(-1, 2)
        assert {tuple(pair) for pair in splits.tolist()} == {
            ("test", "left out"),
            ("validation", "left out"),
            ("train", "train"),
        }


def test_ablation_trains_early_fusion_without_each_modality() -> None:
    result = train(two_bits("pair"), replace(QUICK, ablation=True, methods=("early",)))
    assert set(result.without) == {"a", "b"}
    assert all(score <= 0.65 for score in result.without.values())
    assert result.without["a"] == result.models["b"].mean["accuracy"]


def test_modality_dropout_leaves_out_a_share_but_never_everything() -> None:
    torch.manual_seed(0)
    present = torch.rand(4000, 3) < 0.7
    gone = dropped(present, 0.4)
    assert (present & ~gone).any(dim=1).equal(present.any(dim=1))
    assert 0.2 < float(gone.float().mean()) < 0.45


def test_modality_dropout_is_a_cure_for_what_is_missing_in_testing() -> None:
    data = two_bits("pair")
    both = {"a": data.modalities["a"], "b": replace_bit(data, "a", 5)}
    same = replace(data, modalities=both, labels=tuple(label[0] for label in data.labels))
    plain, cured = (
        train(same, replace(QUICK, epochs=20, methods=("early",), modality_dropout=share)).missing["early"]
        for share in (0.0, 0.4)
    )
    assert min(cured.values()) >= max(0.9, min(plain.values()))


def replace_bit(data: FusionData, name: str, dim: int) -> Modality:
    """Another modality that tells the same as ``name``."""
    random = np.random.default_rng(11)
    twin = data.modalities[name]
    values = random.normal(size=(*twin.mask.shape, dim)).astype(np.float32)
    values[:, :, 0] = twin.values[:, :, 0]
    return Modality(values=values, mask=twin.mask)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("cosine", [1, 0.853553, 0.5, 0.146447]),
        ("step", [1, 1, 0.1, 0.01]),
        ("plateau", [1, 1, 1, 0.5]),
    ],
)
def test_schedules(schedule: str, expected: list[float]) -> None:
    options = TrainOptions(schedule=schedule, epochs=4, patience=4)  # type: ignore[arg-type]
    history = [Epoch(train_loss=1.0, validation_loss=loss) for loss in (0.5, 0.6, 0.7)]
    assert [rate(options, history[:k]) for k in range(4)] == pytest.approx(expected, abs=1e-6)


def test_sgd_learns_too() -> None:
    options = replace(QUICK, optimizer="sgd", learning_rate=0.05, schedule="cosine", methods=("early",))
    assert train(two_bits("pair"), options).models["early"].mean["accuracy"] > 0.9


class KilledError(Exception):
    """Stands for a kill."""


class Memory:
    """Blobs in memory; the training is killed after so many writes."""

    def __init__(self, left: int | None = None) -> None:
        self.content: dict[str, bytes] = {}
        self.left = left

    def read(self, name: str) -> bytes | None:
        return self.content.get(name)

    def write(self, name: str, content: bytes) -> None:
        self.content[name] = content
        if self.left is not None:
            self.left -= 1
            if not self.left:
                raise KilledError


OPTIONS = TrainOptions(
    methods=("early", "gru", "stacking"), epochs=3, patience=1, hidden=8, device="cpu", modality_dropout=0.2, seeds=2,
    schedule="cosine",
)  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed() -> TrainResult:
    return train(two_bits("pair", count=100), OPTIONS)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("kills", [(1,), (2, 3), (9, 1, 30), (60,)])
def test_a_training_that_was_killed_goes_on_to_the_same_bits(
    kills: tuple[int, ...], optimizer: str, undisturbed: TrainResult
) -> None:
    data, options = two_bits("pair", count=100), replace(OPTIONS, optimizer=optimizer)
    expected = undisturbed if optimizer == "adam" else train(data, options)
    memory = Memory()
    for left in kills:
        memory.left = left
        with pytest.raises(KilledError):
            train(data, options, keeper=Keeper(memory, seconds=0))  # saved before every step, so killed within an epoch
    memory.left = None
    result = train(data, options, keeper=Keeper(memory, seconds=1e9))
    assert result.models == expected.models
    for name, model in expected.trained.items():
        for mine, theirs in zip(model.state_dict().values(), result.trained[name].state_dict().values(), strict=True):
            assert torch.equal(mine, theirs)


def test_what_cannot_be_read_of_a_killed_training_is_told_and_trained_anew(
    undisturbed: TrainResult, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory(40)
    data = two_bits("pair", count=100)
    with pytest.raises(KilledError):
        train(data, OPTIONS, keeper=Keeper(memory, seconds=0))
    memory.content = {name: content[:-7] for name, content in memory.content.items()}
    memory.left = None
    assert train(data, OPTIONS, keeper=Keeper(memory, seconds=1e9)).models == undisturbed.models
    assert "what was kept of a training cannot be read" in caplog.text
