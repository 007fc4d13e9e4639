"""The networks behind ``image.cnn``: architecture, the preprocessing their weights were trained with, and folding.

EfficientNet-Lite0 comes from the package ``efficientnet_lite_pytorch`` (Tan & Le 2019, arXiv:1905.11946, Lite variant;
preprocessing as in the reference implementation, ``tensorflow/tpu`` ``models/official/efficientnet/lite``); every other
network is one of torchvision's classification models with torchvision's own preset. This module imports torch: import
it inside functions.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from features.errors import StateError
from features.image.layers import Spatial, Trace, ends, tap
from features.types import Device

LITE0 = "efficientnet_lite0"

_NOT_LEARNED = "num_batches_tracked"
_BUILD: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "aux_logits": True, "init_weights": False},
    "inception_v3": {"transform_input": True, "aux_logits": True, "init_weights": False},
}
_OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))$")


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How pictures reach the network: short side to ``resize``, central ``crop`` square, minus ``mean``, by ``std``.

    ``mean`` and ``std`` are per RGB channel on the scale 0 to 255. ``interpolation`` is used where a picture must be
    enlarged; a reduction averages areas.
    """

    resize: int
    crop: int
    interpolation: Literal["bilinear", "bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


_LITE0_PRESET = Preset(
    resize=256, crop=224, interpolation="bicubic", mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)
)


def check_weights(model: str, weights: str) -> str:
    """Return the full name of torchvision's ``weights`` of ``model`` (``DEFAULT`` becomes the name that it stands for).

    Raises ``ValueError`` for an unknown model or weights name.
    """
    import torchvision

    known = torchvision.models.list_models(module=torchvision.models)
    if model not in known:
        near = difflib.get_close_matches(model, [LITE0, *known], n=3)
        cure = f"did you mean {' or '.join(map(repr, near))}?" if near else "see torchvision.models.list_models()"
        raise ValueError(f"image.cnn: model: got {model!r}, allowed: {LITE0!r} or a torchvision classifier; {cure}")
    names = torchvision.models.get_model_weights(model)
    if weights == "DEFAULT":
        return str(names.DEFAULT.name)
    if weights not in names.__members__:
        allowed = ", ".join(["DEFAULT", *(member.name for member in names), "file:PATH"])
        raise ValueError(f"image.cnn: weights: got {weights!r} for {model}, allowed: {allowed}")
    return weights


def preset(model: str, weights: str, image_size: int | None) -> Preset:
    """Return the preprocessing of ``weights`` (a full name), scaled to ``image_size`` pixels where one is given."""
    if model == LITE0:
        own = _LITE0_PRESET
    else:
        import torchvision

        given = torchvision.models.get_model_weights(model)[weights].transforms()
        red, green, blue = ((255 * mean, 255 * std) for mean, std in zip(given.mean, given.std, strict=True))
        own = Preset(
            resize=given.resize_size[0],
            crop=given.crop_size[0],
            interpolation="bicubic" if given.interpolation.value == "bicubic" else "bilinear",
            mean=(red[0], green[0], blue[0]),
            std=(red[1], green[1], blue[1]),
        )
    if image_size is None or image_size == own.crop:
        return own
    return Preset(
        resize=round(image_size * own.resize / own.crop),
        crop=image_size,
        interpolation=own.interpolation,
        mean=own.mean,
        std=own.std,
    )


class _WithoutWeights(TorchFunctionMode):
    """Makes layers allocate their parameters nowhere; arithmetic of the constructors (RegNet's widths) still works."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        del types
        given = kwargs or {}
        if func in (torch.empty, torch.zeros, torch.ones) and given.get("device") is None:
            given = {**given, "device": "meta"}
        return func(*args, **given)


def _architecture(model: str, num_classes: int, image_size: int) -> nn.Module:
    with _WithoutWeights():
        if model == LITE0:
            from efficientnet_lite_pytorch import EfficientNet

            net: nn.Module = EfficientNet.from_name(
                "efficientnet-lite0", num_classes=num_classes, image_size=image_size
            )
        else:
            import torchvision

            options = _BUILD.get(model, {})
            if model.startswith("vit_"):
                options = {"image_size": image_size}
            net = torchvision.models.get_model(model, weights=None, num_classes=num_classes, **options)
    return net.eval().requires_grad_(False).to("meta")


@lru_cache(maxsize=64)
def width(model: str, layers: tuple[str, ...], spatial: Spatial, num_classes: int, image_size: int) -> int:
    """Return the width of a row, found by a pass of shapes without numbers (no weights are needed).

    Raises ``ValueError`` when the network has no such layer or does not take pictures of ``image_size``.
    """
    picture = torch.empty(1, 3, image_size, image_size, device="meta")
    try:
        net = _architecture(model, num_classes, image_size)
        net(picture)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise ValueError(f"image.cnn: image_size: got {image_size}, which {model} does not take: {error}") from error
    return int(_ending(net, model, layers, spatial)(picture).shape[1])


def _ending(net: nn.Module, model: str, layers: tuple[str, ...], spatial: Spatial) -> nn.Module:
    """``net`` with the rows of ``layers`` as its output."""
    return (
        ends(net, model, layers[0])
        if len(layers) == 1 and layers[0] in ("pool", "logits")
        else tap(net, model, layers, spatial)
    )


def _tensor(value: Any) -> torch.Tensor:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    return torch.as_tensor(value).detach()


def fit_state(state: Mapping[str, Any], model: str, num_classes: int, image_size: int) -> dict[str, torch.Tensor]:
    """Return ``state`` as tensors under the names of the architecture.

    Raises ``StateError`` when an entry is missing, unknown or of another shape.
    """
    wanted = _architecture(model, num_classes, image_size).state_dict()
    found = {_OLD_DENSENET.sub(r"\1\2", name): _tensor(value) for name, value in state.items()}
    problems = [f"{name} is missing" for name in wanted if name not in found and not name.endswith(_NOT_LEARNED)]
    problems += [f"{name} is unknown" for name in found if name not in wanted]
    problems += [
        f"{name} has shape {list(found[name].shape)}, allowed: {list(wanted[name].shape)}"
        for name in wanted
        if name in found and found[name].shape != wanted[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise StateError(
            f"image.cnn: weights do not fit {model} with {num_classes} classes: {'; '.join(problems[:3])}{more}; "
            "cure: give the state_dict of this very model, and num_classes when its head is not ImageNet's"
        )
    unused = {name: torch.zeros((), dtype=torch.int64) for name in wanted if name.endswith(_NOT_LEARNED)}
    return unused | found


def fold_batch_norm(net: nn.Module) -> nn.Module:
    """Fold each batch norm in eval mode into the convolution that alone feeds it (Jacob et al. 2018, section 3.2).

    The result is the same function up to rounding. A network without batch norm is returned as it is.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
        return net
    graph = net.graph if isinstance(net, torch.fx.GraphModule) else Trace().trace(net)
    modules = dict(net.named_modules())
    calls = [node.target for node in graph.nodes if node.op == "call_module"]
    for node in list(graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        source = node.args[0]
        if source.op != "call_module" or len(source.users) != 1:
            continue
        conv, norm = modules[source.target], modules[node.target]
        if not isinstance(conv, nn.Conv2d) or calls.count(source.target) != 1 or calls.count(node.target) != 1:
            continue
        conv.weight, conv.bias = nn.utils.fuse_conv_bn_weights(
            conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
        )
        node.replace_all_uses_with(source)
        graph.erase_node(node)
    graph.lint()
    return torch.fx.GraphModule(net, graph)


def _fold_scale(net: nn.Module, scale: torch.Tensor) -> bool:
    """Multiply the weights of the convolution that alone reads the input by ``scale``; tell whether there is one.

    (The mean cannot go into its bias: beyond the border it pads with zeros, which stand for the mean colour.)
    """
    if not isinstance(net, torch.fx.GraphModule):
        return False
    readers = [user for node in net.graph.nodes if node.op == "placeholder" for user in node.users]
    first = net.get_submodule(str(readers[0].target)) if len(readers) == 1 and readers[0].op == "call_module" else None
    if not isinstance(first, nn.Conv2d) or first.groups != 1:
        return False
    first.weight = nn.Parameter(first.weight * scale, requires_grad=False)
    return True


def _fold_padding(net: nn.Module) -> None:
    """Let convolutions pad by themselves where "same" padding is equal on both sides: one pass over memory fewer."""
    for module in net.modules():
        padding = getattr(module, "static_padding", None)
        if isinstance(module, nn.Conv2d) and isinstance(padding, nn.ZeroPad2d):
            left, right, top, bottom = padding.padding
            if left == right and top == bottom:
                module.padding = (top, left)
                module.register_module("static_padding", nn.Identity())


class Network(nn.Module):
    """A classifier with its preprocessing inside: uint8 ``[N, H, W, 3]`` in, float32 ``[N, D]`` out."""

    mean: torch.Tensor
    scale: torch.Tensor

    def __init__(self, body: nn.Module, chosen: Preset, dtype: torch.dtype) -> None:
        super().__init__()
        scale = 1 / torch.tensor(chosen.std).reshape(1, 3, 1, 1)
        self.scales = not _fold_scale(body, scale)
        self.body = body.to(dtype=dtype).to(memory_format=torch.channels_last)
        self.dtype = dtype
        self.register_buffer("mean", torch.tensor(chosen.mean).reshape(1, 3, 1, 1))
        self.register_buffer("scale", scale)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise and run the network. NHWC memory is channels_last already, so nothing is moved."""
        x = pixels.permute(0, 3, 1, 2) - self.mean
        if self.scales:
            x = x.mul_(self.scale)
        out: torch.Tensor = self.body(x.to(self.dtype))
        return out.to(torch.float32)


def network(
    state: Mapping[str, torch.Tensor],
    model: str,
    *,
    layers: tuple[str, ...],
    spatial: Spatial,
    num_classes: int,
    chosen: Preset,
    dtype: torch.dtype,
    device: Device,
) -> Network:
    """Build the network from ``state`` (of ``fit_state``), folded, in eval mode, on ``device``."""
    net = _architecture(model, num_classes, chosen.crop)
    entries = net.state_dict()  # carries the version of its format, which a plain mapping does not
    entries.update(state)
    net.load_state_dict(entries, assign=True)
    net.requires_grad_(False)
    folded = fold_batch_norm(_ending(net, model, layers, spatial))
    _fold_padding(folded)
    return Network(folded, chosen, dtype).eval().to(device)


def compiled(built: Network, pixels: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return ``built`` compiled for batches of the shape and device of ``pixels``, weights packed where they can be.

    Raises ``StateError`` where nothing can be compiled.
    """
    import torch._inductor.config as settings
    from torch._dynamo.exc import TorchDynamoException
    from torch._inductor.exc import InductorError

    found = torch.compile(built, dynamic=False)
    try:
        with torch.inference_mode(), settings.patch(freezing=pixels.device.type == "cpu", compile_threads=1):
            found(pixels)
    except (TorchDynamoException, InductorError, RuntimeError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise StateError(
            f"image.cnn: compile: {reason}; cure: install a C++ compiler (g++), or compile: false"
        ) from error
    return found
