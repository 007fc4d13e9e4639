"""The pretrained EfficientNet-Lite0 on photographs: what they show, and an independent way of computing it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from sklearn.datasets import load_sample_image

from features.image.cnn import BoundCnn, Cnn
from features.types import Device, Image
from pipeline import weights

CPU: Device = "cpu"

# Indices of ImageNet's 1,000 classes.
CATS = range(281, 286)
PALACES = {663, 698, 832}  # monastery, palace, stupa
ESPRESSO = {504, 550, 967, 968}  # coffee mug, espresso maker, espresso, cup
ROCKETS = {657, 744, 812}  # missile, projectile, space shuttle


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return dict(weights.load(Cnn().weights_ref, Path()))


@pytest.fixture(scope="module")
def classifier(state: dict[str, torch.Tensor]) -> BoundCnn:
    return Cnn(layer="logits").with_state(state)


def _top(classifier: BoundCnn, pixels: np.ndarray, count: int = 5) -> list[int]:
    scores = classifier([Image(pixels=np.ascontiguousarray(pixels))], CPU)[0].values[0]
    return [int(index) for index in np.argsort(-scores)[:count]]


def test_a_palace(classifier: BoundCnn) -> None:
    assert set(_top(classifier, load_sample_image("china.jpg"))) & PALACES


@pytest.mark.parametrize(
    ("name", "classes", "within"),
    [("chelsea.png", CATS, 1), ("coffee.png", ESPRESSO, 1), ("rocket.jpg", ROCKETS, 1), ("china.jpg", PALACES, 5)],
)
def test_photographs(real_media: Path, classifier: BoundCnn, name: str, classes: range, within: int) -> None:
    picture = cv2.imread(str(real_media / "image" / name), cv2.IMREAD_COLOR_RGB)
    assert set(_top(classifier, picture, within)) & set(classes)


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
def test_agrees_with_the_reference_network_and_pillows_resampling(
    name: str, state: dict[str, torch.Tensor], classifier: BoundCnn
) -> None:
    """The package's own network, not folded, on a picture that Pillow has cut and scaled."""
    from efficientnet_lite_pytorch import EfficientNet

    pixels = load_sample_image(name)
    side = round(min(pixels.shape[:2]) * 0.875)
    left, top = (pixels.shape[1] - side) / 2, (pixels.shape[0] - side) / 2
    scaled = PIL.Image.fromarray(pixels).resize(
        (224, 224), PIL.Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
    )
    reference = EfficientNet.from_name("efficientnet-lite0").eval()
    reference.load_state_dict(state)
    tensor = (torch.from_numpy(np.array(scaled, dtype=np.float32)).permute(2, 0, 1)[None] - 127) / 128
    with torch.inference_mode():
        wanted = reference(tensor)[0].numpy()
    found = classifier([Image(pixels=pixels)], CPU)[0].values[0]
    assert np.argmax(found) == np.argmax(wanted)
    assert np.corrcoef(found, wanted)[0, 1] > 0.97
