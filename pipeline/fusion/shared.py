"""A shared space: projections in which the modalities of one sample lie close, and a classifier on top of them."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.fusion.encoders import Summaries
from pipeline.fusion.joins import masked_mean
from pipeline.fusion.models import Encoded, Shape

TEMPERATURE = 0.1
CLOSENESS = ("contrastive", "l2")


class SharedSpace(Encoded):
    """Each modality is projected onto one unit sphere; the mean of those that are present is classified.

    What is added to the loss, ``weight`` times, for each two modalities of the samples that have both:
    ``contrastive``: cross-entropy of finding the partner among all of the batch, both ways (InfoNCE; van den Oord et
    al. 2018, as in CLIP, Radford et al. 2021), at temperature 0.1; ``l2``: the mean squared distance of partners.
    """

    def __init__(self, shape: Shape, *, closeness: str, weight: float) -> None:
        super().__init__(shape)
        self.closeness = _contrastive if closeness == "contrastive" else _distance
        self.weight = weight
        self.projections = nn.ModuleList(nn.Linear(shape.hidden, shape.hidden) for _ in shape.dims)
        self.head = shape.head(shape.hidden)

    def project(self, summaries: Summaries) -> Tensor:
        """Where each modality lies: unit vectors ``[B, M, hidden]``."""
        embeddings = self.embed(summaries)
        placed = [projection(embeddings[:, k]) for k, projection in enumerate(self.projections)]
        return functional.normalize(torch.stack(placed, dim=1), dim=2)

    def classify(self, summaries: Summaries) -> Tensor:
        """Return logits ``[B, K]``."""
        return self._of(self.project(summaries), summaries.present)

    def _of(self, places: Tensor, present: Tensor) -> Tensor:
        scaled = masked_mean(places, present) * places.shape[2] ** 0.5  # numbers of about 1, as other layers have
        return self.answer(self.head(scaled), present)

    def learn(self, summaries: Summaries) -> tuple[Tensor, Tensor | None]:
        """Return logits ``[B, K]`` and the weighted loss of closeness."""
        places, present = self.project(summaries), summaries.present
        losses = []
        for one, other in combinations(range(len(self.names)), 2):
            both = present[:, one] & present[:, other]
            if int(both.sum()) > 1:
                losses.append(self.closeness(places[both, one], places[both, other]))
        extra = self.weight * torch.stack(losses).mean() if losses else None
        return self._of(places, present), extra


def _contrastive(one: Tensor, other: Tensor) -> Tensor:
    scores = one @ other.T / TEMPERATURE
    partner = torch.arange(len(one), device=one.device)
    return (functional.cross_entropy(scores, partner) + functional.cross_entropy(scores.T, partner)) / 2


def _distance(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().sum(dim=1).mean()


def recall_at(one: Tensor, other: Tensor, ks: tuple[int, ...] = (1, 5, 10)) -> dict[str, float]:
    """Share of rows of ``one`` ``[N, H]`` whose partner is among the ``k`` nearest rows of ``other``, for each ``k``.

    Rows that are as near as the partner come before it.
    """
    scores = one @ other.T
    rank = (scores >= scores.diagonal().unsqueeze(1)).sum(dim=1)
    return {f"recall@{k}": float((rank <= k).float().mean()) for k in ks}
