"""What can be chosen in training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from pipeline.fusion.targets import ONLY, TargetOptions

Method: TypeAlias = Literal[
    "early",
    "average",
    "weighted",
    "maximum",
    "attention",
    "gated",
    "parallel",
    "cascade",
    "gru",
    "lstm",
    "contrastive",
    "l2",
    "late",
    "vote",
    "stacking",
]
METHODS: tuple[Method, ...] = get_args(Method)
DEFAULT_METHODS: tuple[Method, ...] = ("early", "late")
Schedule: TypeAlias = Literal["constant", "cosine", "step", "plateau"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
Optimizer: TypeAlias = Literal["adam", "sgd"]
OPTIMIZERS: tuple[Optimizer, ...] = get_args(Optimizer)
EncoderKind: TypeAlias = Literal["statistics", "gru", "lstm"]
ENCODERS: tuple[EncoderKind, ...] = get_args(EncoderKind)


@dataclass(frozen=True, kw_only=True)
class EncoderOptions:
    """How a modality is encoded, see ``pipeline.fusion.encoders``.

    ``statistics``: the mean of the valid rows in each of ``parts`` equal parts of them and, with ``deviation``, their
    standard deviation over all, into one hidden layer. ``gru``, ``lstm``: a recurrent network over the valid rows.
    """

    kind: EncoderKind = "statistics"
    parts: int = 1
    deviation: bool = True

    def __post_init__(self) -> None:
        if self.kind not in ENCODERS:
            raise ValueError(f"train: encoders: kind: got {self.kind!r}, allowed: {', '.join(ENCODERS)}")
        if self.parts < 1:
            raise ValueError(f"train: encoders: parts: got {self.parts}, allowed: >= 1")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How the models are trained.

    ``methods``: fusion methods, beside every modality alone. ``encoders``: how a modality is encoded, where it is not
    by mean and deviation. ``targets``: what is learnt of a label (see ``targets``), by default its class;
    ``separator`` cuts a label into parts, ``between`` a part into several labels. ``epochs``: passes over the
    training split, at most; ``patience``: epochs without a lower validation loss before training stops.
    ``validation``: share of the training split that is held out for that where there is no validation split.
    ``folds``: 0: the splits as they are; k: k-fold cross-validation over all of them. ``hidden``: width of the hidden
    layers. ``seeds``: everything is trained this many times, with seeds ``seed``, ``seed + 1``, ...
    ``optimizer``: AdamW, or SGD with Nesterov momentum 0.9. ``learning_rate`` and ``weight_decay`` are for a layer of
    64 inputs; ``pipeline.fusion.models.parameter_groups`` adapts them to the width of each. ``schedule``: of the rate:
    constant, cosine (to 0), step (a tenth after half and again after three quarters of the epochs), or plateau (half
    whenever ``patience // 2`` epochs passed without a lower validation loss). ``modality_dropout``: share of modalities
    that are left out of a sample in training, never all of them. ``closeness_weight``: of the shared space's loss.
    ``balanced``: weigh labels in the loss by the inverse of their frequency. ``ablation``: train early fusion without
    each modality too. ``linear``: fit a linear model of all modalities as a baseline. ``device``: "auto" is CUDA where
    there is one. Raises ``ValueError`` for values that are not allowed.
    """

    methods: tuple[Method, ...] = DEFAULT_METHODS
    encoders: Mapping[str, EncoderOptions] = field(default_factory=dict)
    targets: Mapping[str, TargetOptions] = field(default_factory=lambda: {ONLY: TargetOptions()})
    separator: str = "/"
    between: str = ","
    epochs: int = 60
    hidden: int = 64
    optimizer: Optimizer = "adam"
    learning_rate: float = 1e-3
    schedule: Schedule = "constant"
    batch_size: int = 32
    seeds: int = 1
    seed: int = 0
    patience: int = 10
    validation: float = 0.0
    folds: int = 0
    dropout: float = 0.2
    modality_dropout: float = 0.0
    weight_decay: float = 1e-4
    closeness_weight: float = 0.5
    balanced: bool = False
    ablation: bool = False
    linear: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        if unknown := [method for method in self.methods if method not in METHODS]:
            raise ValueError(f"train: methods: got {unknown[0]!r}, allowed: {', '.join(METHODS)}")
        for name, allowed in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"train: {name}: got {getattr(self, name)!r}, allowed: {', '.join(allowed)}")
        for name in ("epochs", "hidden", "batch_size", "seeds", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"train: {name}: got {getattr(self, name)}, allowed: >= 1")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"train: learning_rate: got {self.learning_rate}, allowed: > 0")
        for name in ("weight_decay", "closeness_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"train: {name}: got {getattr(self, name)}, allowed: >= 0")
        for name in ("dropout", "modality_dropout", "validation"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"train: {name}: got {getattr(self, name)}, allowed: 0 <= {name} < 1")
        if self.seed < 0:
            raise ValueError(f"train: seed: got {self.seed}, allowed: >= 0")
        if self.folds < 0 or self.folds == 1:
            raise ValueError(f"train: folds: got {self.folds}, allowed: 0, or >= 2")
        if not self.targets:
            raise ValueError("train: targets: got none, allowed: at least one")
        if not self.separator or not self.between:
            raise ValueError("train: separator, between: got an empty text, allowed: one character or more")

    def encoder(self, modality: str) -> EncoderOptions:
        """How a modality is encoded."""
        return self.encoders.get(modality, EncoderOptions())
