"""Statistics over time and the contract of the models."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.fusion.models import EarlyFusion, LateFusion, build, parameter_groups, statistics

DIMS = {"image.cnn": 3, "audio.mfcc": 2}


def batch(count: int = 4, length: int = 6) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    random = torch.Generator().manual_seed(3)
    values = {name: torch.randn(count, length, dim, generator=random) for name, dim in DIMS.items()}
    masks = {name: torch.rand(count, length, generator=random) > 0.4 for name in DIMS}
    for mask in masks.values():
        mask[:, 0] = True
    return values, masks


def test_statistics_are_mean_and_deviation_of_the_valid_rows() -> None:
    values, masks = batch()
    pooled = statistics(values["image.cnn"], masks["image.cnn"]).numpy()
    for k in range(4):
        rows = values["image.cnn"][k][masks["image.cnn"][k]].numpy()
        np.testing.assert_allclose(pooled[k], [*rows.mean(axis=0), *rows.std(axis=0)], rtol=1e-5, atol=1e-6)


def test_padding_and_its_contents_change_nothing() -> None:
    values, masks = batch()
    longer = {
        name: torch.cat([value, torch.full((4, 3, value.shape[2]), torch.nan)], dim=1) for name, value in values.items()
    }
    wider = {name: torch.cat([mask, torch.zeros(4, 3, dtype=torch.bool)], dim=1) for name, mask in masks.items()}
    for late in (False, True):
        torch.manual_seed(1)
        model = build(list(DIMS), DIMS, late=late, n_labels=3, hidden=8, dropout=0.5).eval()
        torch.testing.assert_close(model(longer, wider), model(values, masks))


def test_rows_of_a_batch_do_not_depend_on_each_other() -> None:
    values, masks = batch()
    torch.manual_seed(1)
    model = build(list(DIMS), DIMS, late=False, n_labels=3, hidden=8, dropout=0.5).eval()
    whole = model(values, masks)
    for k in range(4):
        one = model({n: v[k : k + 1] for n, v in values.items()}, {n: m[k : k + 1] for n, m in masks.items()})
        torch.testing.assert_close(one[0], whole[k])


def test_late_fusion_is_the_mean_log_probability_of_the_modalities_that_are_present() -> None:
    values, masks = batch()
    masks["audio.mfcc"][2] = False
    torch.manual_seed(1)
    singles = [EarlyFusion({name: dim}, 3, 8, 0.0) for name, dim in DIMS.items()]
    late = LateFusion(singles).eval()
    each = [single(values, masks).log_softmax(dim=1) for single in singles]
    expected = (each[0] + each[1]) / 2
    expected[2] = each[0][2]
    torch.testing.assert_close(late(values, masks), expected)


def test_gradients_reach_only_the_encoders_of_modalities_that_are_present() -> None:
    values, masks = batch()
    masks["audio.mfcc"][:] = False
    model = build(list(DIMS), DIMS, late=False, n_labels=3, hidden=8, dropout=0.0)
    model(values, masks).sum().backward()
    image, audio = ([p.grad.abs().sum() for p in encoder.parameters()] for encoder in model.encoders())
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
    model = build(["wide", "narrow"], {"wide": 500, "narrow": 1}, late=False, n_labels=3, hidden=8, dropout=0.0)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    torch.optim.AdamW(parameter_groups(model, 1e-2, 0.1)).step()
    for old, new in zip(before, model.parameters(), strict=True):
        torch.testing.assert_close(new.detach(), old * (1 - 1e-3))
