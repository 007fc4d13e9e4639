"""The networks behind ``audio.cnn``: image classifiers on the spectrogram as a picture, and a small one made for it.

This module imports torch: import it inside functions.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn

from features.audio.cnn import LITE0, SMALL
from features.errors import StateError

_FAMILIES = (
    "convnext_", "efficientnet_", "mnasnet", "mobilenet_", "resnet", "resnext", "shufflenet_", "vgg", "wide_resnet"
)  # fmt: skip
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_LITE0_SCALE = ((127 / 255,) * 3, (128 / 255,) * 3)
_NOT_LEARNED = "num_batches_tracked"


class SmallCnn(nn.Module):
    """A small classifier of log-mel spectrograms: ``[N, 1, bands, frames]`` in [0, 1] in, class scores ``[N, C]`` out.

    Four blocks of 3x3 convolution, batch norm, ReLU and halving (16, 32, 64, 128 channels), the mean over bands, then
    mean plus maximum over time (as Kong et al., "PANNs", 2020, do), and one linear layer, ``head``. At least 16 bands
    and 16 frames. Train it, save its ``state_dict``, and name that file.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        widths = (1, 16, 32, 64, 128)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Conv2d(before, after, 3, padding=1, bias=False),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                    nn.MaxPool2d(2),
                )
                for before, after in pairwise(widths)
            )
        )
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return class scores."""
        rows = self.blocks(pictures).mean(dim=2)
        found: torch.Tensor = self.head(rows.mean(dim=2) + rows.amax(dim=2))
        return found


def check_model(model: str) -> None:
    """Raise ``ValueError`` unless ``model`` is one of torchvision's that fit."""
    import torchvision

    known = [name for name in torchvision.models.list_models(module=torchvision.models) if name.startswith(_FAMILIES)]
    if model not in known:
        near = difflib.get_close_matches(model, [SMALL, LITE0, *known], n=3)
        cure = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
        families = ", ".join(family.rstrip("_") for family in _FAMILIES)
        raise ValueError(
            f"audio.cnn: model: got {model!r}, allowed: {SMALL!r}, {LITE0!r}, or one of torchvision's {families}{cure}"
        )


def check_weights(model: str, weights: str) -> str:
    """Return the full name of torchvision's ``weights``. Raises ``ValueError`` where there are none of that name."""
    import torchvision

    names = torchvision.models.get_model_weights(model)
    if weights == "DEFAULT":
        return str(names.DEFAULT.name)
    if weights not in names.__members__:
        allowed = ", ".join(["DEFAULT", *(member.name for member in names), "file:PATH"])
        raise ValueError(f"audio.cnn: weights: got {weights!r} for {model}, allowed: {allowed}")
    return weights


def _build(model: str, num_classes: int) -> nn.Module:
    """Architecture without numbers."""
    with torch.device("meta"):
        if model == SMALL:
            return SmallCnn(num_classes).eval()
        if model == LITE0:
            from efficientnet_lite_pytorch import EfficientNet

            lite: nn.Module = EfficientNet.from_name("efficientnet-lite0", num_classes=num_classes)
            return lite.eval()
        import torchvision

        net: nn.Module = torchvision.models.get_model(model, weights=None, num_classes=num_classes)
        return net.eval()


def _head(net: nn.Module) -> tuple[nn.Module, str, nn.Linear]:
    """The last linear layer: its parent, its name there, itself."""
    name, layer = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear)][-1]
    parent, _, leaf = name.rpartition(".")
    return net.get_submodule(parent), leaf, layer


@lru_cache(maxsize=32)
def pool_width(model: str) -> int:
    """Width of what enters the last linear layer."""
    return int(_head(_build(model, 2))[2].in_features)


def fit_state(state: Mapping[str, Any], model: str, num_classes: int) -> dict[str, torch.Tensor]:
    """Return the entries of ``state`` that ``model`` learns. Raises ``StateError`` where they do not fit."""
    wanted = {name: entry.shape for name, entry in _build(model, num_classes).state_dict().items()}
    wanted = {name: shape for name, shape in wanted.items() if not name.endswith(_NOT_LEARNED)}
    given = {name: torch.as_tensor(np.asarray(value)) for name, value in state.items()}
    given = {name: value for name, value in given.items() if not name.endswith(_NOT_LEARNED)}
    odd = [
        f"{name} {list(given[name].shape) if name in given else 'missing'} for {list(shape)}"
        for name, shape in wanted.items()
        if name not in given or given[name].shape != shape
    ]
    odd += [f"{name} unknown" for name in given if name not in wanted]
    if odd:
        raise StateError(
            f"audio.cnn: {len(odd)} entries of the weights do not fit {model} with {num_classes} classes ("
            f"{'; '.join(odd[:3])}); cure: the weights of this model, or another model or num_classes"
        )
    return {name: value.to(torch.float32) for name, value in given.items()}


class Network(nn.Module):
    """Spectrogram pictures float32 ``[N, bands, frames]`` in [0, 1] in, vectors ``[N, D]`` out."""

    def __init__(self, state: Mapping[str, torch.Tensor], model: str, layer: str, num_classes: int, side: int) -> None:
        super().__init__()
        net = _build(model, num_classes)
        counters = {name: torch.zeros((), dtype=torch.long) for name in net.state_dict() if name.endswith(_NOT_LEARNED)}
        net.load_state_dict({**state, **counters}, assign=True)
        if layer == "pool":
            parent, leaf, _ = _head(net)
            setattr(parent, leaf, nn.Identity())
        self.body = net.requires_grad_(False)
        self.side = 0 if model == SMALL else side
        mean, scale = _LITE0_SCALE if model == LITE0 else _IMAGENET
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(scale).reshape(1, 3, 1, 1), persistent=False)

    mean: torch.Tensor
    scale: torch.Tensor

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return one vector for each picture; low bands lie at its bottom."""
        x = pictures.unsqueeze(1)
        if self.side:
            x = nn.functional.interpolate(x.flip(2), (self.side, self.side), mode="bilinear", antialias=True)
            x = (x.expand(-1, 3, -1, -1) - self.mean) / self.scale
        found: torch.Tensor = self.body(x)
        return found
