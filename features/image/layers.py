"""Where a network ends: at its pooled vector, its scores, or any of its layers by name. Imports torch."""

from __future__ import annotations

import difflib
import re
from typing import Any, Literal, TypeAlias

import torch
from torch import fx, nn

Spatial: TypeAlias = Literal["mean", "max", "map"]

_INSIDE = {"convnext": re.compile(r"\.block\."), "maxvit": re.compile(r"_attention")}
"""Families of networks -> names of layers whose output is no map of the picture [N, C, h, w]."""


class Trace(fx.Tracer):
    """Records a network's graph, and the output of each of its layers.

    Convolutions and batch norms stay whole, subclasses too, so that they can be folded into each other.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, Any] = {}
        self.inputs: dict[str, Any] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Tell whether a layer is one node of the graph."""
        return isinstance(m, (nn.Conv2d, nn.BatchNorm2d)) or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note what goes into a layer and what comes out."""
        found = super().call_module(m, forward, args, kwargs)
        path = self.path_of_module(m)
        self.inputs[path], self.outputs[path] = args[0] if args else None, found
        return found


class Reduce(nn.Module):
    """One row of what a layer gives: ``[N, C]``, a map ``[N, C, h, w]`` (or channels last) or tokens ``[N, T, C]``."""

    def __init__(self, spatial: Spatial, *, channels_last: bool) -> None:
        super().__init__()
        self.spatial, self.channels_last = spatial, channels_last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return ``[N, D]`` of float32, in memory of its own: what follows may work in place."""
        if x.ndim == 4 and self.channels_last:
            x = x.permute(0, 3, 1, 2)
        if x.ndim == 2 or self.spatial == "map":
            return x.flatten(1).to(torch.float32, copy=True)
        axes = (1,) if x.ndim == 3 else (2, 3)
        return x.to(torch.float32).mean(axes) if self.spatial == "mean" else x.amax(axes).to(torch.float32)


def _classifier(net: nn.Module, model: str) -> str:
    """The name of the last linear layer."""
    linear = [name for name, module in net.named_modules() if isinstance(module, nn.Linear)]
    if not linear or "attn" in linear[-1]:
        raise ValueError(f"image.cnn: layer: got 'pool' for {model}, which has no linear classifier; allowed: 'logits'")
    return str(linear[-1])


def ends(net: nn.Module, model: str, layer: str) -> nn.Module:
    """Return ``net`` ending at "logits", or at "pool": what enters its last linear layer."""
    if layer == "pool":
        parent, _, name = _classifier(net, model).rpartition(".")
        setattr(net.get_submodule(parent), name, nn.Identity())
    return net


def tap(net: nn.Module, model: str, layers: tuple[str, ...], spatial: Spatial) -> nn.Module:
    """Return ``net`` with one row of each of ``layers``, side by side, as its output; what comes after is left out.

    Raises ``ValueError`` for a layer that does not exist, is not used, or gives no map, tokens or vector.
    """
    known = [name for name, _ in net.named_modules() if name]
    family = next((pattern for prefix, pattern in _INSIDE.items() if model.startswith(prefix)), None)
    for layer in layers:
        if layer in ("pool", "logits"):
            continue
        if layer not in known:
            near = difflib.get_close_matches(layer, known, n=3)
            cure = f"did you mean {' or '.join(map(repr, near))}?" if near else f"its blocks: {', '.join(_blocks(net))}"
            raise ValueError(
                f"image.cnn: layer: got {layer!r}, allowed: 'pool', 'logits' or a layer of {model}; {cure}"
            )
        if family is not None and family.search(layer):
            raise ValueError(
                f"image.cnn: layer: got {layer!r}, which is inside a block of {model}; allowed: whole blocks"
            )
    trace = Trace()
    graph = trace.trace(net)
    (output,) = (node for node in graph.nodes if node.op == "output")
    found = {"logits": fx.Proxy(output.args[0]), **trace.outputs}
    if "pool" in layers:
        found["pool"] = trace.inputs[_classifier(net, model)]
    rows = []
    for index, layer in enumerate(layers):
        proxy = found.get(layer)
        if not isinstance(proxy, fx.Proxy):
            what = "is not used" if proxy is None else "does not give one tensor"
            raise ValueError(f"image.cnn: layer: got {layer!r} of {model}, which {what}; allowed: a layer around it")
        reduce = f"_reduce_{index}"
        net.add_module(reduce, Reduce(spatial, channels_last=_channels_last(model, layer)))
        with graph.inserting_after(proxy.node):  # before anything that works in place on it
            rows.append(graph.call_module(reduce, (proxy.node,)))
    graph.erase_node(output)
    graph.output(graph.call_function(torch.cat, (rows, 1)))
    made = fx.GraphModule(net, graph)
    made.graph.eliminate_dead_code()
    made.graph.lint()
    made.recompile()
    return made


def _channels_last(model: str, layer: str) -> bool:
    """Swin transformers keep channels last from their first permutation to their last."""
    return model.startswith("swin") and (layer == "norm" or layer.startswith("features.")) and layer != "features.0.0"


def _blocks(net: nn.Module) -> list[str]:
    """Names of the layers of the first two levels, without those of attention and the like."""
    return [
        name for name, module in net.named_modules() if name and name.count(".") < 2 and next(module.children(), None)
    ]
