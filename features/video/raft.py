"""RAFT (Teed & Deng 2020, arXiv:2003.12039) as torchvision has it.

This module imports torch: import it inside functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from torch import nn

from features.errors import StateError
from features.types import Device

MODELS = ("raft_small", "raft_large")
MIN_SIDE = 128
"""Both sides of a frame: the network compares features at an eighth of the size, halved three times."""


def weights_name(model: str, weights: str) -> str:
    """Return the full name of torchvision's ``weights`` of ``model``. Raises ``ValueError`` where there are none."""
    names = torchvision.models.get_model_weights(model)
    if weights == "DEFAULT":
        return str(names.DEFAULT.name)
    if weights not in names.__members__:
        allowed = ", ".join(["DEFAULT", *(member.name for member in names), "file:PATH"])
        raise ValueError(f"video.flow: weights: got {weights!r} for {model}, allowed: {allowed}")
    return weights


def network(model: str, state: Mapping[str, Any], device: Device) -> nn.Module:
    """Build ``model`` with the weights in ``state``, in eval mode. Raises ``StateError`` when they do not fit."""
    net: nn.Module = torchvision.models.get_model(model, weights=None)
    tensors = {name: torch.as_tensor(np.asarray(value)) for name, value in state.items()}
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise StateError(
            f"video.flow: weights do not fit {model}: {reason}; cure: give the state_dict of this very model"
        ) from error
    return net.requires_grad_(False).eval().to(device)


def flow(
    net: nn.Module,
    previous: npt.NDArray[np.uint8],
    current: npt.NDArray[np.uint8],
    *,
    iterations: int,
    device: Device,
) -> npt.NDArray[np.float32]:
    """Return the flow from ``previous`` to ``current`` (RGB uint8 ``[H, W, 3]``), float32 ``[H, W, 2]``, in pixels.

    Frames are scaled to -1..1 as torchvision's preset does, and padded on the right and below by repeating the edge to
    multiples of 8.
    """
    height, width = previous.shape[:2]
    pair = torch.from_numpy(np.stack([previous, current])).to(device).permute(0, 3, 1, 2).to(torch.float32)
    pair = nn.functional.pad(pair / 127.5 - 1, (0, -width % 8, 0, -height % 8), mode="replicate")
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        found: torch.Tensor = net(pair[:1], pair[1:], num_flow_updates=iterations)[-1]
    field: npt.NDArray[np.float32] = found[0, :, :height, :width].permute(1, 2, 0).contiguous().cpu().numpy()
    return field
