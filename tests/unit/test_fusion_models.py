"""Statistics over time and the contract of the models: every method in the table is held to it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.fusion.build import LATE, build, joint
from pipeline.fusion.encoders import part_means, statistics
from pipeline.fusion.joins import JOINS, masked_softmax
from pipeline.fusion.late import LateFusion, Stacking, Vote
from pipeline.fusion.models import FusionModel, parameter_groups
from pipeline.fusion.options import METHODS, EncoderOptions, TrainOptions
from pipeline.fusion.shared import SharedSpace, recall_at
from pipeline.fusion.targets import Target, Targets

DIMS = {"image.cnn": 3, "audio.mfcc": 2, "text": 4}
NAMES = list(DIMS)


def target(kind: str = "classes", width: int = 3) -> Target:
    labels = () if kind == "number" else tuple("abcd"[:width])
    prior = (0.0,) if kind == "number" else tuple(np.log([0.5, 0.3, 0.2])[:width].tolist())
    return Target(name=kind, kind=kind, weight=1.0, labels=labels, prior=prior, weights=None)  # type: ignore[arg-type]


TARGETS = Targets(targets=(target(),))
MIXED = Targets(targets=(target(), target("labels", 2), target("number")))
OPTIONS = TrainOptions(hidden=8, dropout=0.5)


def batch(count: int = 4, length: int = 6) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    random = torch.Generator().manual_seed(3)
    values = {name: torch.randn(count, length, dim, generator=random) for name, dim in DIMS.items()}
    masks = {name: torch.rand(count, length, generator=random) > 0.4 for name in DIMS}
    for mask in masks.values():
        mask[:, 0] = True
    return values, masks


def made(method: str, targets: Targets = TARGETS, options: TrainOptions = OPTIONS) -> FusionModel:
    torch.manual_seed(1)
    model = build(method, NAMES, DIMS, targets, options)
    for parameter in model.parameters():  # some begin at zero, and would hide what they do
        torch.nn.init.normal_(parameter, std=0.4) if parameter.ndim else None
    return model.eval()


def test_statistics_are_mean_and_deviation_of_the_valid_rows() -> None:
    values, masks = batch()
    pooled = statistics(values["image.cnn"], masks["image.cnn"]).numpy()
    for k in range(4):
        rows = values["image.cnn"][k][masks["image.cnn"][k]].numpy()
        np.testing.assert_allclose(pooled[k], [*rows.mean(axis=0), *rows.std(axis=0)], rtol=1e-5, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(valid=st.lists(st.booleans(), min_size=1, max_size=12), parts=st.integers(1, 7))
def test_means_of_parts_are_those_of_rows_repeated_until_they_divide(valid: list[bool], parts: int) -> None:
    rows = np.random.default_rng(len(valid)).normal(size=(len(valid), 2)).astype(np.float32)
    found = part_means(torch.from_numpy(rows)[None], torch.tensor([valid]), parts)[0].numpy()
    kept = rows[np.array(valid)]
    expected = np.zeros(2 * parts)
    if len(kept):  # every row as often as there are parts: then each part is a whole number of rows
        expected = np.repeat(kept, parts, axis=0).reshape(parts, len(kept), 2).mean(axis=1).ravel()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("targets", [TARGETS, MIXED], ids=["one target", "three targets"])
@pytest.mark.parametrize("method", METHODS)
def test_padding_and_its_contents_change_nothing(method: str, targets: Targets) -> None:
    values, masks = batch()
    longer = {
        name: torch.cat([value, torch.full((4, 3, value.shape[2]), torch.nan)], dim=1) for name, value in values.items()
    }
    wider = {name: torch.cat([mask, torch.zeros(4, 3, dtype=torch.bool)], dim=1) for name, mask in masks.items()}
    model = made(method, targets)
    logits = model(values, masks)
    assert logits.shape == (4, targets.width)
    assert logits.isfinite().all()
    torch.testing.assert_close(model(longer, wider), logits)


@pytest.mark.parametrize("method", METHODS)
def test_rows_of_a_batch_do_not_depend_on_each_other(method: str) -> None:
    values, masks = batch()
    model = made(method)
    whole = model(values, masks)
    for k in range(4):
        one = model({n: v[k : k + 1] for n, v in values.items()}, {n: m[k : k + 1] for n, m in masks.items()})
        torch.testing.assert_close(one[0], whole[k], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("targets", [TARGETS, MIXED], ids=["one target", "three targets"])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_not_present_contributes_nothing(method: str, targets: Targets) -> None:
    values, masks = batch()
    masks["audio.mfcc"][2] = False
    for mask in masks.values():
        mask[3] = False
    model = made(method, targets)
    before = model(values, masks)
    values["audio.mfcc"][2] = 1e4
    values["text"][3] = -1e4
    torch.testing.assert_close(model(values, masks), before)
    torch.testing.assert_close(before[3], torch.tensor(targets.prior))
    assert not torch.allclose(before[0], torch.tensor(targets.prior))


@pytest.mark.parametrize("method", METHODS)
def test_every_modality_that_is_present_says_something(method: str) -> None:
    values, masks = batch()
    model = made(method)
    before = model(values, masks)
    for name in NAMES:
        other = {**values, name: torch.randn(values[name].shape, generator=torch.Generator().manual_seed(8)) * 9}
        assert not torch.equal(model(other, masks), before), name


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_recurrent_encoders_read_the_valid_rows_in_order(kind: str) -> None:
    options = replace(OPTIONS, encoders={name: EncoderOptions(kind=kind) for name in NAMES})  # type: ignore[arg-type]
    model = made("early", options=options)
    values, masks = batch()
    before = model(values, masks)
    gaps = {name: value.masked_fill(~masks[name].unsqueeze(-1), torch.nan) for name, value in values.items()}
    torch.testing.assert_close(model(gaps, masks), before)
    assert not torch.allclose(
        model({n: v.flip(1) for n, v in values.items()}, {n: m.flip(1) for n, m in masks.items()}), before
    )


@pytest.mark.parametrize("join", JOINS)
def test_joins_give_their_width_and_no_numbers_from_nothing(join: str) -> None:
    torch.manual_seed(0)
    module = JOINS[join](3, 8)
    embeddings = torch.randn(5, 3, 8, requires_grad=True)
    present = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1], [0, 0, 0], [0, 0, 1]]).bool()
    joined = module(embeddings, present)
    assert joined.shape == (5, module.width)
    assert joined.isfinite().all()
    joined.sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad[~present].abs().sum() == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_a_softmax_over_nothing_is_nothing() -> None:
    found = masked_softmax(torch.zeros(3, 2), torch.tensor([[1, 1], [1, 0], [0, 0]]).bool())
    assert found.tolist() == [[0.5, 0.5], [1, 0], [0, 0]]


def singles(targets: Targets = TARGETS) -> list:
    torch.manual_seed(1)
    return [joint("early", {name: dim}, targets, replace(OPTIONS, dropout=0.0)) for name, dim in DIMS.items()]


def test_late_fusion_is_the_mean_log_probability_of_the_modalities_that_are_present() -> None:
    values, masks = batch()
    masks["audio.mfcc"][2] = False
    classifiers = singles()
    each = [single(values, masks).log_softmax(dim=1) for single in classifiers]
    expected = sum(each) / 3
    expected[2] = (each[0][2] + each[2][2]) / 2
    torch.testing.assert_close(LateFusion(classifiers).eval()(values, masks), expected)


def test_a_vote_is_what_most_say_and_between_equals_the_mean_probability_decides() -> None:
    vote = Vote(singles())
    answers = torch.tensor([[[9.0, 0, 0], [9, 0, 0], [0, 0, 99]], [[9.0, 0, 0], [0, 0, 5], [0, 4, 0]]])
    present = torch.ones(2, 3, dtype=torch.bool)
    assert vote.combine(answers, present).argmax(dim=1).tolist() == [0, 0]
    present[0, 1] = False
    assert vote.combine(answers, present).argmax(dim=1).tolist() == [2, 0]


def test_a_vote_on_sets_and_numbers() -> None:
    targets = Targets(targets=(target("labels", 2), target("number")))
    answers = torch.tensor([[[1.0, -9, 2], [1, 9, 3], [-9, -1, 70]]])
    said = Vote(singles(targets)).combine(answers, torch.ones(1, 3, dtype=torch.bool))[0]
    assert (said[:2] > 0).tolist() == [True, False]
    assert float(said[2]) == 3


def test_stacking_begins_with_what_independent_modalities_call_for() -> None:
    classifiers = singles()
    values, masks = batch()
    each = torch.stack([single(values, masks).log_softmax(dim=1) for single in classifiers])
    prior = torch.tensor(TARGETS.prior)
    torch.testing.assert_close(Stacking(classifiers).eval()(values, masks), prior + (each - prior).sum(dim=0))


def test_stacking_learns_whom_to_believe() -> None:
    model = Stacking(singles())
    random = torch.Generator().manual_seed(2)
    truth = torch.randint(0, 3, (300,), generator=random)
    liar = 4 * torch.nn.functional.one_hot((truth + 1) % 3, 3).float()
    honest = 2 * torch.nn.functional.one_hot(truth, 3).float()
    answers = torch.stack([liar, honest, torch.randn(300, 3, generator=random)], dim=1)
    present = torch.ones(300, 3, dtype=torch.bool)
    assert float((model.combine(answers, present).argmax(dim=1) == truth).float().mean()) < 0.3
    model.fit(answers, present, [truth])
    assert float((model.combine(answers, present).argmax(dim=1) == truth).float().mean()) > 0.95


def test_recall_counts_partners_among_the_nearest() -> None:
    places = torch.eye(4)
    swapped = places[[1, 0, 2, 3]]
    assert recall_at(places, places, (1,)) == {"recall@1": 1.0}
    assert recall_at(places, swapped, (1, 4)) == {"recall@1": 0.5, "recall@4": 1.0}
    assert recall_at(torch.ones(4, 2), torch.ones(4, 2), (1, 4)) == {"recall@1": 0.0, "recall@4": 1.0}


@pytest.mark.parametrize("closeness", ["contrastive", "l2"])
def test_a_shared_space_brings_partners_close(closeness: str) -> None:
    values, masks = batch(count=24)
    values["text"][:, :, :2] = values["audio.mfcc"]
    values["image.cnn"][:, :, :2] = values["audio.mfcc"]
    for name in NAMES:
        masks[name] = masks["audio.mfcc"]
    torch.manual_seed(1)
    model = joint(closeness, DIMS, TARGETS, replace(OPTIONS, dropout=0.0))
    assert isinstance(model, SharedSpace)
    summaries = model.summarise(values, masks)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        extra = model.learn(summaries)[1]
        assert extra is not None
        extra.backward()
        optimizer.step()
        losses.append(float(extra.detach()))
    assert losses[-1] < 0.5 * losses[0]
    if closeness == "contrastive":  # l2 alone may put everything in one place; the labels keep it apart
        places = model.project(summaries)
        assert recall_at(places[:, 0], places[:, 1])["recall@1"] > 0.5


@pytest.mark.parametrize(
    "method", [method for method in METHODS if method not in LATE and method not in ("gru", "lstm")]
)
def test_gradients_reach_only_the_encoders_of_modalities_that_are_present(method: str) -> None:
    values, masks = batch()
    masks["audio.mfcc"][:] = False
    model = made(method)
    model(values, masks).square().sum().backward()
    image, audio, _ = ([p.grad.abs().sum() for p in encoder.parameters()] for encoder in model.encoders())
    assert all(grad > 0 for grad in image)
    assert all(grad == 0 for grad in audio)


@pytest.mark.parametrize("width", [1, 2, 64, 2560])
def test_one_step_moves_what_a_layer_gives_equally_far_whatever_its_width(width: int) -> None:
    layer = torch.nn.Linear(width, 3)
    signs = torch.where(torch.arange(width) % 2 == 0, 1.0, -1.0)
    optimizer = torch.optim.AdamW(parameter_groups(layer, 1e-3, 0.0))
    before = layer(signs)
    before.sum().backward()
    optimizer.step()
    # Adam's first step is the rate times the sign of the gradient: 64 inputs at 0.001 each, and the bias at 0.001.
    torch.testing.assert_close(before - layer(signs), torch.full((3,), 0.065), rtol=0, atol=2e-6)


def test_one_step_takes_the_same_share_off_every_weight_and_every_parameter_is_learnt() -> None:
    model = joint("early", {"wide": 500, "narrow": 1}, TARGETS, TrainOptions(hidden=8, dropout=0.0))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.AdamW(parameter_groups(model, 1e-2, 0.1)).step()
    for old, new in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old * (1 - 1e-3))
