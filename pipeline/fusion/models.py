"""Fusion models: one contract, ``forward(values, masks) -> logits``.

``values[name]`` float32 ``[B, n, D]`` and ``masks[name]`` bool ``[B, n]`` for each modality; logits ``[B, K]``, whose
columns are those of the targets. A modality is present in a sample when a row of it is valid. One that is not present
contributes nothing; a sample with no modality at all is answered with the label frequencies of the training split.

Every model works in two halves: ``summarise`` has nothing to learn, so training calls it once; ``classify`` is learnt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.fusion.encoders import RECURRENT, Encoder, Summaries, last_state, make_encoder
from pipeline.fusion.joins import JOINS, Concatenation
from pipeline.fusion.options import EncoderOptions
from pipeline.fusion.targets import Targets

BASE_WIDTH = 64
"""Inputs of the layer that learns at ``learning_rate`` itself; wider ones have a lower rate, narrower ones a higher."""


class FusionModel(nn.Module, ABC):
    """The contract. ``names`` are the modalities in the order that the model has them."""

    names: tuple[str, ...]
    targets: Targets

    def summarise(self, values: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Summaries:
        """Do what there is nothing to learn about."""
        encoders = self.encoders()
        pooled = [
            encoder.summarise(values[name], masks[name]) for name, encoder in zip(self.names, encoders, strict=True)
        ]
        present = torch.stack([masks[name].any(dim=1) for name in self.names], dim=1)
        return Summaries(pooled, [masks[name] for name in self.names], present)

    @abstractmethod
    def encoders(self) -> list[Encoder]:
        """The encoder of each modality."""

    @abstractmethod
    def classify(self, summaries: Summaries) -> Tensor:
        """Return logits ``[B, K]``."""

    def learn(self, summaries: Summaries) -> tuple[Tensor, Tensor | None]:
        """Return logits ``[B, K]`` and what is added to their loss, if anything."""
        return self.classify(summaries), None

    def forward(self, values: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """Return logits ``[B, K]``."""
        return self.classify(self.summarise(values, masks))


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a model is made for. ``dims``: modality -> width D; ``encoders``: modality -> options of its encoder."""

    dims: Mapping[str, int]
    targets: Targets
    hidden: int
    dropout: float
    encoders: Mapping[str, EncoderOptions]

    def encoder(self, name: str) -> Encoder:
        """An untrained encoder of a modality."""
        return make_encoder(self.dims[name], self.hidden, self.dropout, self.encoders[name])

    def head(self, inputs: int) -> nn.Sequential:
        """A hidden layer that all targets share, and the outputs of each side by side."""
        return nn.Sequential(
            nn.Linear(inputs, self.hidden),
            nn.ReLU(),
            nn.Dropout(self.dropout),
            nn.Linear(self.hidden, self.targets.width),
        )


class Encoded(FusionModel):
    """What models with an encoder for each modality have in common. ``prior``: logits of the training frequencies."""

    prior: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.names = tuple(shape.dims)
        self.targets = shape.targets
        self._encoders = nn.ModuleList(self._encoder(shape, name) for name in shape.dims)
        self.register_buffer("prior", torch.tensor(shape.targets.prior))

    def _encoder(self, shape: Shape, name: str) -> Encoder:
        return shape.encoder(name)

    def encoders(self) -> list[Encoder]:
        """The encoder of each modality."""
        return [encoder for encoder in self._encoders if isinstance(encoder, Encoder)]

    def embed(self, summaries: Summaries) -> Tensor:
        """Embeddings ``[B, M, hidden]``; of a modality that is not present, zeros."""
        parts = zip(self.encoders(), summaries.values, summaries.masks, strict=True)
        embeddings = torch.stack([encoder(value, mask) for encoder, value, mask in parts], dim=1)
        return torch.where(summaries.present.unsqueeze(-1), embeddings, 0)

    def answer(self, logits: Tensor, present: Tensor) -> Tensor:
        """Put the prior where nothing is present."""
        return torch.where(present.any(dim=1, keepdim=True), logits, self.prior)


class JointFusion(Encoded):
    """Embeddings of all modalities, joined, into one small network: the trunk, and a head for each target.

    ``join``: one of ``JOINS``. With one modality and ``early`` it is the classifier of that modality.
    """

    def __init__(self, shape: Shape, join: str) -> None:
        super().__init__(shape)
        self.join = JOINS[join](len(shape.dims), shape.hidden)
        self.head = shape.head(self.join.width)

    def classify(self, summaries: Summaries) -> Tensor:
        """Return logits ``[B, K]``."""
        joined = self.join(self.embed(summaries), summaries.present)
        return self.answer(self.head(joined), summaries.present)


class ParallelFusion(Encoded):
    """A branch for each modality and one for all together, side by side, trained at once; the mean of their logits."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.branches = nn.ModuleList(shape.head(shape.hidden) for _ in shape.dims)
        self.join = Concatenation(len(shape.dims), shape.hidden)
        self.head = shape.head(self.join.width)

    def classify(self, summaries: Summaries) -> Tensor:
        """Return logits ``[B, K]``."""
        embeddings, present = self.embed(summaries), summaries.present
        each = [branch(embeddings[:, k]) for k, branch in enumerate(self.branches)]
        each.append(self.head(self.join(embeddings, present)))
        weight = torch.cat([present, present.any(dim=1, keepdim=True)], dim=1).unsqueeze(-1)
        mean = torch.where(weight, torch.stack(each, dim=1), 0).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
        return self.answer(mean, present)


class RecurrentFusion(Encoded):
    """A GRU or LSTM over the rows of the common timeline, all modalities of a moment together.

    A row of a modality becomes ``hidden`` numbers, zeros where it is not valid, and a flag that says so.
    """

    def __init__(self, shape: Shape, cell: str) -> None:
        super().__init__(shape)
        self.cell = RECURRENT[cell](len(shape.dims) * (shape.hidden + 1), shape.hidden, batch_first=True)
        self.head = shape.head(shape.hidden)

    def _encoder(self, shape: Shape, name: str) -> Encoder:
        return Rows(shape.dims[name], shape.hidden, shape.dropout)

    def classify(self, summaries: Summaries) -> Tensor:
        """Return logits ``[B, K]``."""
        parts = zip(self.encoders(), summaries.values, summaries.masks, strict=True)
        columns = [
            column
            for encoder, value, mask in parts
            for column in (torch.where(mask.unsqueeze(-1), encoder(value, mask), 0), mask.unsqueeze(-1).float())
        ]
        anything = torch.stack(summaries.masks).any(dim=0)
        return self.answer(self.head(last_state(self.cell, torch.cat(columns, dim=2), anything)), summaries.present)


class Rows(Encoder):
    """Every row by itself: ``[B, n, D]`` -> ``[B, n, hidden]``."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__(dim)
        self.layers = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(dropout))

    @property
    def pooling(self) -> str:
        """Nothing is pooled."""
        return "rows"

    def pool(self, values: Tensor, mask: Tensor) -> Tensor:
        """The rows themselves; zeros behind the mask."""
        return torch.where(mask.unsqueeze(-1), values, 0)

    def forward(self, summary: Tensor, mask: Tensor) -> Tensor:
        """Embed every row."""
        del mask
        embedding: Tensor = self.layers(summary)
        return embedding


def parameter_groups(model: nn.Module, learning_rate: float, weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups, such that all layers learn equally fast, whatever the width of their inputs.

    Adam moves every weight by about its rate, so one step moves what a layer gives by about rate x inputs: at one rate
    for all, a modality of 1,280 numbers is memorised before one of 13 has said anything. A weight matrix has therefore
    the rate ``learning_rate * BASE_WIDTH / inputs``; biases have ``learning_rate``. This is how maximal update
    parametrisation scales Adam (Yang et al., Tensor Programs V, 2022, table 3; Yang, Simon & Bernstein, A Spectral
    Condition for Feature Learning, 2023); the same ``learning_rate`` then suits any width of the hidden layers too.
    Decay is divided by the factor that the rate is multiplied by: its share of a weight in a step is the same for all.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        factor = BASE_WIDTH / parameter.shape[1] if parameter.ndim == 2 else 1.0
        groups.setdefault(factor, []).append(parameter)
    return [
        {"params": parameters, "lr": learning_rate * factor, "weight_decay": weight_decay / factor}
        for factor, parameters in groups.items()
    ]
