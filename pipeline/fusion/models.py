"""Fusion models: one contract, ``forward(values, masks) -> logits``.

``values[name]`` float32 ``[B, n, D]`` and ``masks[name]`` bool ``[B, n]`` for each modality; logits ``[B, K]``. A
modality is present in a sample when a row of it is valid. One that is not present contributes nothing; a sample with
no modality at all is answered with the label frequencies of the training split.

Every model works in two halves: ``summarise`` has nothing to learn, so training calls it once; ``classify`` is learnt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

BASE_WIDTH = 64
"""Inputs of the layer that learns at ``learning_rate`` itself; wider ones have a lower rate, narrower ones a higher."""


class Summaries(NamedTuple):
    """What is left of time: for each modality ``[B, 2 D]``, and which are ``present``, bool ``[B, M]``."""

    statistics: list[Tensor]
    present: Tensor

    def rows(self, index: Tensor) -> Summaries:
        """Return the samples ``index``."""
        return Summaries([one[index] for one in self.statistics], self.present[index])

    def of(self, modality: int) -> Summaries:
        """Return one modality alone."""
        return Summaries([self.statistics[modality]], self.present[:, modality : modality + 1])


def statistics(values: Tensor, mask: Tensor) -> Tensor:
    """Mean and population standard deviation over the valid rows: ``[B, n, D]``, bool ``[B, n]`` -> ``[B, 2 D]``.

    Statistics pooling as in x-vectors (Snyder et al., 2018). A sample without a valid row gets zeros; it is for the
    caller to leave them out.
    """
    keep = mask.unsqueeze(-1)
    count = keep.sum(dim=1).clamp(min=1)
    mean = torch.where(keep, values, 0).sum(dim=1) / count
    squares = torch.where(keep, values - mean.unsqueeze(1), 0).square()
    return torch.cat([mean, (squares.sum(dim=1) / count).sqrt()], dim=1)


class Encoder(nn.Module):
    """One modality: standardised rows -> statistics over time -> an embedding ``[B, hidden]``."""

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.layers = nn.Sequential(nn.Linear(2 * dim, hidden), nn.ReLU(), nn.Dropout(dropout))

    def summarise(self, values: Tensor, mask: Tensor) -> Tensor:
        """Standardise with the training statistics and pool over time."""
        return statistics((values - self.mean) / self.scale, mask)

    def forward(self, summary: Tensor) -> Tensor:
        """Embed a summary ``[B, 2 D]``."""
        embedding: Tensor = self.layers(summary)
        return embedding


class FusionModel(nn.Module, ABC):
    """The contract. ``names`` are the modalities in the order that the model has them."""

    names: tuple[str, ...]

    def summarise(self, values: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Summaries:
        """Take time out of the modalities."""
        encoders = self.encoders()
        pooled = [
            encoder.summarise(values[name], masks[name]) for name, encoder in zip(self.names, encoders, strict=True)
        ]
        return Summaries(pooled, torch.stack([masks[name].any(dim=1) for name in self.names], dim=1))

    @abstractmethod
    def encoders(self) -> list[Encoder]:
        """The encoder of each modality."""

    @abstractmethod
    def classify(self, summaries: Summaries) -> Tensor:
        """Return logits ``[B, K]``."""

    def forward(self, values: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tensor:
        """Return logits ``[B, K]``."""
        return self.classify(self.summarise(values, masks))


class EarlyFusion(FusionModel):
    """Embeddings of all modalities, concatenated with a flag each for presence, into one small network.

    With one modality it is the classifier of that modality.
    """

    prior: Tensor

    def __init__(self, dims: Mapping[str, int], n_labels: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.names = tuple(dims)
        self._encoders = nn.ModuleList(Encoder(dim, hidden, dropout) for dim in dims.values())
        self.head = nn.Sequential(
            nn.Linear(len(dims) * (hidden + 1), hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, n_labels)
        )
        self.register_buffer("prior", torch.zeros(n_labels))

    def encoders(self) -> list[Encoder]:
        """The encoder of each modality."""
        return [encoder for encoder in self._encoders if isinstance(encoder, Encoder)]

    def classify(self, summaries: Summaries) -> Tensor:
        """Return logits ``[B, K]``; where nothing is present, the logarithm of the training frequencies."""
        present = summaries.present
        embeddings = [
            torch.where(present[:, k : k + 1], encoder(summaries.statistics[k]), 0)
            for k, encoder in enumerate(self.encoders())
        ]
        logits = self.head(torch.cat([*embeddings, present.to(embeddings[0].dtype)], dim=1))
        return torch.where(present.any(dim=1, keepdim=True), logits, self.prior)


class LateFusion(FusionModel):
    """The mean of the log-probabilities of classifiers that were each trained on one modality, where it is present."""

    def __init__(self, classifiers: Sequence[EarlyFusion]) -> None:
        super().__init__()
        self.names = tuple(name for classifier in classifiers for name in classifier.names)
        self._classifiers = nn.ModuleList(classifiers)

    def _singles(self) -> list[EarlyFusion]:
        return [classifier for classifier in self._classifiers if isinstance(classifier, EarlyFusion)]

    def encoders(self) -> list[Encoder]:
        """The encoder of each modality."""
        return [encoder for single in self._singles() for encoder in single.encoders()]

    def classify(self, summaries: Summaries) -> Tensor:
        """Return mean log-probabilities ``[B, K]``; where nothing is present, the training frequencies'."""
        singles = self._singles()
        each = torch.stack(
            [single.classify(summaries.of(k)).log_softmax(dim=1) for k, single in enumerate(singles)], dim=1
        )
        weight = summaries.present.unsqueeze(-1)
        mean = torch.where(weight, each, 0).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
        return torch.where(summaries.present.any(dim=1, keepdim=True), mean, singles[0].prior)


def build(
    names: Sequence[str], dims: Mapping[str, int], *, late: bool, n_labels: int, hidden: int, dropout: float
) -> FusionModel:
    """Make an untrained model of the modalities ``names``: late fusion, or early (of one modality: its classifier)."""

    def early(some: Sequence[str]) -> EarlyFusion:
        return EarlyFusion({name: dims[name] for name in some}, n_labels, hidden, dropout)

    return LateFusion([early([name]) for name in names]) if late else early(names)


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
