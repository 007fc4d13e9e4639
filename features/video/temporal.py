"""Spatio-temporal vectors: frames at a rate -> a pretrained picture network -> an encoder over windows of time."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from features.base import FrameRequest, State, WeightsRef, run_video
from features.errors import Reason, SampleError, StateError
from features.time import seconds_to_ns
from features.types import Device, FeatureSequence, Stream, VideoClip

if TYPE_CHECKING:
    from torch import nn

Encoder: TypeAlias = Literal["mean", "max", "std", "mean_std", "gru", "lstm"]
Vectors: TypeAlias = npt.NDArray[np.float32]

_LITE0 = "efficientnet_lite0"
_FILE = "file:"
_MIN_IMAGE_SIZE = 32
_BACKBONE, _ENCODER = "backbone.", "encoder."
_RECURRENT = ("gru", "lstm")


@dataclass(frozen=True, kw_only=True)
class Temporal:
    """One vector for each window of a video, from the vectors of its frames.

    ``rate``: frames a second that are looked at. ``model``: the network that makes a vector of each frame, as in
    ``image.cnn``: ``efficientnet_lite0`` (its weights come with an installed package) or a torchvision classifier; what
    enters its last linear layer is the vector. Of a frame, scaled to ``short_side``, it sees the central square;
    ``image_size``: its side in pixels, ``None`` for what the weights were trained with. ``batch_size``: frames in one
    forward pass.

    ``encoder``: "mean", "max", "std" (0 for a single frame) or "mean_std" (both, side by side) over the frames of a
    window need no training; "gru" and "lstm" run over the vectors in order of time, from zeros in each window, and give
    their last hidden state (``hidden`` numbers, of the topmost of ``layers``; torch.nn.GRU and LSTM, one direction).

    ``weights``: for pooling as in ``image.cnn``: ``DEFAULT``, one of torchvision's names, or ``file:PATH`` of the
    model's state_dict. For "gru" and "lstm" ``file:PATH`` of one state_dict that holds both networks: the picture
    network under ``backbone.``, the ``torch.nn`` module under ``encoder.`` (``encoder.weight_ih_l0`` and so on).

    Windows begin every ``hop`` seconds from the first frame on, and hold the frames that begin within ``window``
    seconds; the last is the first one that reaches the last frame. A row's span is its window, cut where the video
    ends. A window in which no frame begins is marked as not valid. Memory: one window of vectors.

    Raises ``ValueError`` for unknown or impossible options; ``SampleError(bad_timestamps)`` when time does not advance.
    Without weights it only describes; ``with_state`` computes.
    """

    name: ClassVar[str] = "video.temporal"
    stream: ClassVar[Stream] = "video"
    numerics: ClassVar[tuple[str, ...]] = ("torch", "torchvision", "opencv-python")

    model: str = _LITE0
    weights: str = "DEFAULT"
    encoder: Encoder = "mean_std"
    hidden: int = 256
    layers: int = 1
    rate: float = 4.0
    window: float = 2.0
    hop: float = 1.0
    short_side: int = 256
    image_size: int | None = None
    batch_size: int = 16

    def __post_init__(self) -> None:
        if self.encoder not in get_args(Encoder):
            allowed = ", ".join(map(repr, get_args(Encoder)))
            raise ValueError(f"video.temporal: encoder: got {self.encoder!r}, allowed: {allowed}")
        for option in ("rate", "window", "hop"):
            value = getattr(self, option)
            if not (math.isfinite(value) and seconds_to_ns(value) > 0):
                raise ValueError(f"video.temporal: {option}: got {value}, allowed: > 0 and finite")
        for option in ("hidden", "layers", "short_side", "batch_size"):
            if getattr(self, option) < 1:
                raise ValueError(f"video.temporal: {option}: got {getattr(self, option)}, allowed: >= 1")
        if self.image_size is not None and self.image_size < _MIN_IMAGE_SIZE:
            raise ValueError(f"video.temporal: image_size: got {self.image_size}, allowed: >= {_MIN_IMAGE_SIZE}")
        if self.encoder in _RECURRENT and not self.weights.startswith(_FILE):
            raise ValueError(
                f"video.temporal: weights: got {self.weights!r} for encoder {self.encoder!r}, allowed: 'file:PATH' of "
                "a trained encoder; cure: train one, or pool ('mean_std'), which needs none"
            )
        _ = self.weights_ref
        _ = self.dim

    @property
    def weights_ref(self) -> WeightsRef:
        """Where the weights lie."""
        from features.video import backbone

        if self.weights.startswith(_FILE):
            return WeightsRef(kind="file", locator=self.weights.removeprefix(_FILE))
        if self.model == _LITE0:
            if self.weights != "DEFAULT":
                raise ValueError(
                    f"video.temporal: weights: got {self.weights!r} for {_LITE0}, allowed: 'DEFAULT', 'file:PATH'"
                )
            return WeightsRef(kind="package", locator=backbone.LITE0_WEIGHTS)
        name = backbone.weights_name(self.model, self.weights)
        return WeightsRef(kind="torchvision", locator=f"{self.model}/{name}")

    @property
    def dim(self) -> int:
        """Width of a row; needs the architecture only, never the weights."""
        from features.video import backbone

        if self.encoder in _RECURRENT:
            return self.hidden
        if self.model != _LITE0:
            backbone.weights_name(self.model, "DEFAULT")
        return backbone.width(self.model) * (2 if self.encoder == "mean_std" else 1)

    @property
    def request(self) -> FrameRequest:
        """Small colour frames at ``rate``."""
        return FrameRequest(short_side=self.short_side, rate=self.rate)

    def with_state(self, state: State) -> BoundTemporal:
        """Return the extractor that uses these weights. Raises ``StateError`` when they do not fit."""
        return BoundTemporal(self, state)

    def open(self, device: Device) -> TemporalSink:
        """Raise ``StateError``: vectors need weights."""
        del device
        raise StateError(f"video.temporal: got no weights; cure: with_state(state of {self.weights_ref})")

    def __call__(self, batch: Sequence[VideoClip], device: Device) -> list[FeatureSequence]:
        """Raise ``StateError`` for any clip: vectors need weights."""
        return run_video(self, batch, device)


class BoundTemporal:
    """``Temporal`` with its weights. The networks are built once for each process and device, and are not pickled."""

    name: ClassVar[str] = Temporal.name
    stream: ClassVar[Stream] = Temporal.stream
    numerics: ClassVar[tuple[str, ...]] = Temporal.numerics

    def __init__(self, options: Temporal, state: State) -> None:

        from features.video import backbone

        self.options = options
        self._state = dict(state)
        name = "DEFAULT" if options.weights.startswith(_FILE) else options.weights
        full = name if options.model == _LITE0 else backbone.weights_name(options.model, name)
        self._preset = backbone.preset(options.model, full, options.image_size)
        self._lock = threading.Lock()
        self._built: dict[str, tuple[nn.Module, nn.Module | None]] = {}
        self._networks("cpu")

    def __reduce__(self) -> tuple[type[BoundTemporal], tuple[Temporal, State]]:
        return (BoundTemporal, (self.options, self._state))

    def __repr__(self) -> str:
        return f"BoundTemporal({self.options!r})"

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self.options.dim

    @property
    def request(self) -> FrameRequest:
        """The frames that this extractor wants."""
        return self.options.request

    def open(self, device: Device) -> TemporalSink:
        """Begin a video."""
        return TemporalSink(self, device)

    def __call__(self, batch: Sequence[VideoClip], device: Device) -> list[FeatureSequence]:
        """Return the rows of each clip."""
        return run_video(self, batch, device)

    def _networks(self, device: Device) -> tuple[nn.Module, nn.Module | None]:
        from features.video import backbone

        with self._lock:
            if device not in self._built:
                recurrent = self.options.encoder in _RECURRENT
                given = _below(self._state, _BACKBONE) if recurrent else self._state
                net = backbone.load(self.options.model, given, self._preset.crop, device)
                encoder = self._encoder(device) if recurrent else None
                self._built[device] = (net, encoder)
            return self._built[device]

    def _encoder(self, device: Device) -> nn.Module:
        import torch

        from features.video import backbone

        kind = torch.nn.GRU if self.options.encoder == "gru" else torch.nn.LSTM
        net: nn.Module = kind(
            backbone.width(self.options.model), self.options.hidden, self.options.layers, batch_first=True
        )
        found = _below(self._state, _ENCODER)
        try:
            net.load_state_dict({name: torch.as_tensor(np.asarray(value)) for name, value in found.items()})
        except RuntimeError as error:
            raise StateError(
                f"video.temporal: weights under {_ENCODER!r} do not fit {self.options.encoder} of "
                f"{self.options.layers} layers and {self.options.hidden} numbers: "
                f"{' '.join(str(error).split())[:300]}; cure: set 'hidden' and 'layers' as it was trained"
            ) from error
        return net.requires_grad_(False).eval().to(device)

    def vectors(self, frames: npt.NDArray[np.uint8], device: Device) -> Vectors:
        """Return the vector of each frame, float32 ``[N, D]``."""
        from features.video import backbone

        return backbone.vectors(self._networks(device)[0], frames, self._preset, device)

    def encode(self, vectors: Vectors, device: Device) -> Vectors:
        """Return the row of one window: float32 ``[dim]`` from ``[N >= 1, D]``."""
        import torch

        match self.options.encoder:
            case "mean":
                return np.asarray(vectors.mean(axis=0), dtype=np.float32)
            case "max":
                return np.asarray(vectors.max(axis=0), dtype=np.float32)
            case "std":
                return np.asarray(vectors.std(axis=0), dtype=np.float32)
            case "mean_std":
                return np.concatenate([vectors.mean(axis=0), vectors.std(axis=0)]).astype(np.float32)
        encoder = self._networks(device)[1]
        if encoder is None:
            raise StateError("video.temporal: got no encoder; cure: with_state")
        with torch.inference_mode():
            output, _ = encoder(torch.from_numpy(vectors)[None].to(device))
        row: Vectors = output[0, -1].cpu().numpy()
        return row


def _below(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    found = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    if not found:
        raise StateError(
            f"video.temporal: the weights hold no entry under {prefix!r}, allowed: one state_dict with "
            f"{_BACKBONE!r} and {_ENCODER!r}; cure: save both networks in one file"
        )
    return found


class TemporalSink:
    """One video on its way. Frames are batched by count alone, so chunks change nothing."""

    def __init__(self, step: BoundTemporal, device: Device) -> None:
        self._step = step
        self._device = device
        self._window_ns, self._hop_ns = seconds_to_ns(step.options.window), seconds_to_ns(step.options.hop)
        self._frames: list[npt.NDArray[np.uint8]] = []
        self._starts: list[int] = []
        self._vectors: list[Vectors] = []
        self._origin_ns: int | None = None
        self._end_ns = self._last_ns = self._done = 0
        self._rows: list[Vectors | None] = []

    def push(self, frames: VideoClip) -> None:
        """Take the next chunk of frames, at the rate that was asked for."""
        if frames.pixels.ndim != 4:
            raise ValueError(
                f"video.temporal: got frames {list(frames.pixels.shape[1:])}, allowed: RGB [H, W, 3]; "
                "cure: decode with pixel_format='rgb24'"
            )
        for pixels, start, end in zip(frames.pixels, frames.start_ns.tolist(), frames.end_ns.tolist(), strict=True):
            if self._origin_ns is None:
                self._origin_ns = start
            elif start <= self._last_ns:
                raise SampleError(
                    Reason.BAD_TIMESTAMPS,
                    f"video.temporal: a frame starts at {start} ns, allowed: after {self._last_ns} ns, the last start",
                )
            self._last_ns, self._end_ns = start, end
            self._frames.append(pixels)
            self._starts.append(start)
            if len(self._frames) == self._step.options.batch_size:
                self._compute()
        self._frames = [pixels.copy() for pixels in self._frames]  # the chunk is let go

    def finish(self) -> FeatureSequence:
        """Return one row for each window."""
        if self._origin_ns is None:
            return FeatureSequence.empty(self._step.dim)
        if self._frames:
            self._compute()
        self._close_windows(last=True)
        starts = self._origin_ns + np.arange(len(self._rows), dtype=np.int64) * self._hop_ns
        nothing = np.zeros(self._step.dim, dtype=np.float32)
        return FeatureSequence(
            values=np.stack([nothing if row is None else row for row in self._rows]),
            start_ns=starts,
            end_ns=np.minimum(starts + self._window_ns, self._end_ns),
            valid=np.array([row is not None for row in self._rows]),
        )

    def _compute(self) -> None:
        self._vectors.extend(self._step.vectors(np.stack(self._frames), self._device))
        self._frames = []
        self._close_windows(last=False)

    def _close_windows(self, *, last: bool) -> None:
        """Make the rows of windows that no later frame can enter, and let go of vectors that none will want."""
        if self._origin_ns is None:
            return
        known_ns = self._starts[len(self._vectors) - 1] if self._vectors else self._origin_ns
        while True:
            begin_ns = self._origin_ns + len(self._rows) * self._hop_ns
            end_ns = begin_ns + self._window_ns
            complete = known_ns >= end_ns
            reached = bool(self._rows) and begin_ns - self._hop_ns + self._window_ns > self._last_ns
            if (not last and not complete) or (last and (reached or begin_ns > self._last_ns)):
                return
            inside = [
                vector for start, vector in zip(self._starts, self._vectors, strict=False) if begin_ns <= start < end_ns
            ]
            self._rows.append(self._step.encode(np.stack(inside), self._device) if inside else None)
            unwanted = sum(start < begin_ns + self._hop_ns for start in self._starts[: len(self._vectors)])
            del self._starts[:unwanted], self._vectors[:unwanted]
