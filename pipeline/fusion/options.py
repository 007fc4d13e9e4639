"""What can be chosen in training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Method: TypeAlias = Literal["early", "late"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How the models are trained.

    ``methods``: fusion methods, beside every modality alone. ``epochs``: passes over the training split, at most;
    ``patience``: epochs without a lower validation loss before training stops. ``hidden``: width of the hidden layers.
    ``seeds``: everything is trained this many times, with seeds ``seed``, ``seed + 1``, ... ``learning_rate`` and
    ``weight_decay`` are AdamW's for a layer of 64 inputs; ``pipeline.fusion.models.parameter_groups`` adapts them to
    the width of each. ``balanced``: weigh labels in the loss by the inverse of their frequency. ``device``: "auto" is
    CUDA where there is one. Raises ``ValueError`` for values that are not allowed.
    """

    methods: tuple[Method, ...] = METHODS
    epochs: int = 60
    hidden: int = 64
    learning_rate: float = 1e-3
    batch_size: int = 32
    seeds: int = 1
    seed: int = 0
    patience: int = 10
    dropout: float = 0.2
    weight_decay: float = 1e-4
    balanced: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        if unknown := [method for method in self.methods if method not in METHODS]:
            raise ValueError(f"train: methods: got {unknown[0]!r}, allowed: {', '.join(METHODS)}")
        for name in ("epochs", "hidden", "batch_size", "seeds", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"train: {name}: got {getattr(self, name)}, allowed: >= 1")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"train: learning_rate: got {self.learning_rate}, allowed: > 0")
        if not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"train: weight_decay: got {self.weight_decay}, allowed: >= 0")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"train: dropout: got {self.dropout}, allowed: 0 <= dropout < 1")
        if self.seed < 0:
            raise ValueError(f"train: seed: got {self.seed}, allowed: >= 0")
