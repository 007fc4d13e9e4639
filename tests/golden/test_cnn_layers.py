"""Layers of ``image.cnn`` against torchvision's own feature extraction; their rows in any arrangement."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from features.image.cnn import Cnn, model_input
from features.types import Device, Image
from pipeline import weights

CPU: Device = "cpu"
SIZE = 64
PICTURES = [Image(pixels=np.random.default_rng(k).integers(0, 256, (80, 70 + k, 3), dtype=np.uint8)) for k in range(2)]


@lru_cache(maxsize=4)
def net(model: str) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = torchvision.models.get_model(model, weights=None)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias, 0, 0.1)
    return made.eval()


def ours(model: str, **options: Any) -> np.ndarray:
    step = Cnn(model=model, image_size=SIZE, **options)
    rows = np.vstack([found.values for found in step.with_state(net(model).state_dict())(PICTURES, CPU)])
    assert rows.shape == (2, step.dim)
    return rows


def theirs(model: str, *layers: str) -> list[np.ndarray]:
    """What torchvision's extractor gives for each layer, on the same normalised pictures."""
    chosen = Cnn(model=model, image_size=SIZE).preset()
    pixels = torch.from_numpy(model_input(PICTURES, chosen)).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(value).reshape(1, 3, 1, 1) for value in (chosen.mean, chosen.std))
    extractor = create_feature_extractor(net(model), return_nodes={layer: layer for layer in layers})
    with torch.inference_mode():
        found = extractor((pixels - mean) / std)
    return [found[layer].numpy() for layer in layers]


def close(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_allclose(found, wanted, atol=2e-4 * max(1.0, float(np.abs(wanted).max())))


def test_a_layer_s_map_its_mean_and_its_maximum() -> None:
    (maps,) = theirs("resnet18", "layer3")
    assert maps.shape == (2, 256, 4, 4)
    close(ours("resnet18", layer="layer3", spatial="map"), maps.reshape(2, -1))
    close(ours("resnet18", layer="layer3", spatial="mean"), maps.mean(axis=(2, 3)))
    close(ours("resnet18", layer="layer3", spatial="max"), maps.max(axis=(2, 3)))


def test_several_layers_stand_side_by_side_in_the_order_given() -> None:
    first, last, pooled = theirs("resnet18", "layer1", "layer4", "flatten")
    wanted = np.hstack([last.mean(axis=(2, 3)), pooled, first.mean(axis=(2, 3))])
    close(ours("resnet18", layer=("layer4", "pool", "layer1")), wanted)


def test_a_layer_whose_output_is_overwritten_in_place_is_taken_before() -> None:
    (before,) = theirs("resnet18", "bn1")  # the relu after it works in place
    found = ours("resnet18", layer=("bn1", "logits"))
    assert before.min() < 0
    close(found[:, :64], before.mean(axis=(2, 3)))
    (scores,) = theirs("resnet18", "fc")
    close(found[:, 64:], scores)


def test_maps_with_channels_last() -> None:
    (maps,) = theirs("swin_t", "features.3")
    assert maps.shape[-1] == 192, "channels last"
    close(ours("swin_t", layer="features.3"), maps.mean(axis=(1, 2)))
    close(ours("swin_t", layer="features.3", spatial="map"), maps.transpose(0, 3, 1, 2).reshape(2, -1))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layer9", r"layer: got 'layer9', allowed: 'pool', 'logits' or a layer of resnet18; did you mean"),
        (("pool", "pool"), "layer: got .*, allowed: names, each once"),
        ((), "layer: got .*, allowed: names, each once"),
    ],
)
def test_layers_that_do_not_exist_are_refused(layer: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cnn(model="resnet18", image_size=SIZE, layer=layer)


def test_other_weights_are_another_digest(tmp_path: Path) -> None:
    step = Cnn(model="resnet18", weights="file:own.pth", image_size=SIZE)
    digests = set()
    for seed in range(2):
        torch.manual_seed(seed)
        torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "own.pth")
        digests.add(weights.digest(step.weights_ref, tmp_path))
    assert len(digests) == 2
