"""Late fusion: classifiers that were each trained on one modality, and how their answers become one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.fusion.encoders import Encoder, Summaries
from pipeline.fusion.models import Encoded, FusionModel
from pipeline.fusion.targets import Target


class LateFusion(FusionModel):
    """The mean of the log-probabilities (of labels: log-odds; of numbers: the numbers) where a modality is present."""

    def __init__(self, classifiers: Sequence[Encoded]) -> None:
        super().__init__()
        self.names = tuple(name for classifier in classifiers for name in classifier.names)
        self.targets = classifiers[0].targets
        self._classifiers = nn.ModuleList(classifiers)

    def singles(self) -> list[Encoded]:
        """The classifier of each modality."""
        return [classifier for classifier in self._classifiers if isinstance(classifier, Encoded)]

    def encoders(self) -> list[Encoder]:
        """The encoder of each modality."""
        return [encoder for single in self.singles() for encoder in single.encoders()]

    def answers(self, summaries: Summaries) -> Tensor:
        """Logits of each classifier, ``[B, M, K]``."""
        return torch.stack([single.classify(summaries.of(k)) for k, single in enumerate(self.singles())], dim=1)

    def classify(self, summaries: Summaries) -> Tensor:
        """Return logits ``[B, K]``."""
        return self.combine(self.answers(summaries), summaries.present)

    def combine(self, answers: Tensor, present: Tensor) -> Tensor:
        """Make one answer of ``[B, M, K]``."""
        return self.targets.average(answers, present)


class Vote(LateFusion):
    """What most modalities say; between equals, the mean probability decides. Of numbers, the median."""

    def combine(self, answers: Tensor, present: Tensor) -> Tensor:
        """Make one answer of ``[B, M, K]``."""
        mean = self.targets.split(self.targets.average(answers, present))
        parts = zip(self.targets.targets, self.targets.split(answers), mean, strict=True)
        return torch.cat([_votes(target, part, one, present) for target, part, one in parts], dim=1)


def _votes(target: Target, answers: Tensor, mean: Tensor, present: Tensor) -> Tensor:
    nobody = ~present.any(dim=1, keepdim=True)
    if target.kind == "number":
        median = torch.where(present.unsqueeze(-1), answers, torch.nan).nanmedian(dim=1).values
        return torch.where(nobody, mean, median)
    if target.kind == "classes":
        said = nn.functional.one_hot(answers.argmax(dim=2), answers.shape[2])
        share = _share(said, present) + 1e-3 * mean.softmax(dim=1)
        return torch.where(nobody, mean, share.clamp(min=1e-9).log())
    share = _share(answers > 0, present)
    tilted = (0.999 * share + 0.001 * mean.sigmoid()).clamp(1e-9, 1 - 1e-6)
    return torch.where(nobody, mean, tilted.logit())


def _share(said: Tensor, present: Tensor) -> Tensor:
    keep = present.unsqueeze(-1)
    return (said * keep).sum(dim=1) / keep.sum(dim=1).clamp(min=1)


class Stacking(LateFusion):
    """A linear layer on the answers of the classifiers (stacked generalisation, Wolpert 1992).

    It is learnt from answers of classifiers that had not seen the samples (see ``fit``). It begins, and is held, near
    what independent modalities call for: the sum of their log-probabilities above the prior's.
    """

    def __init__(self, classifiers: Sequence[Encoded]) -> None:
        super().__init__(classifiers)
        width, modalities = self.targets.width, len(self.names)
        self.change = nn.Linear(modalities * (width + 1), width)
        nn.init.zeros_(self.change.weight)
        nn.init.zeros_(self.change.bias)

    def combine(self, answers: Tensor, present: Tensor) -> Tensor:
        """Make one answer of ``[B, M, K]``."""
        prior = answers.new_tensor(self.targets.prior)
        parts = zip(self.targets.targets, self.targets.split(answers), strict=True)
        known = torch.cat([part.log_softmax(dim=2) if one.kind == "classes" else part for one, part in parts], dim=2)
        told = torch.where(present.unsqueeze(-1), known - prior, 0)
        start = [
            part.mean(dim=1) if one.kind == "number" else part.sum(dim=1)
            for one, part in zip(self.targets.targets, self.targets.split(told), strict=True)
        ]
        change = self.change(torch.cat([told.flatten(1), present.to(told.dtype)], dim=1))
        logits = prior + torch.cat(start, dim=1) + change
        return torch.where(present.any(dim=1, keepdim=True), logits, prior)

    def fit(self, answers: Tensor, present: Tensor, truth: Sequence[Tensor], decay: float = 0.01) -> None:
        """Learn from ``[N, M, K]``: the minimum of the loss plus ``decay`` times the squares of the change (L-BFGS)."""
        optimizer = torch.optim.LBFGS(self.change.parameters(), max_iter=200, line_search_fn="strong_wolfe")

        def closure() -> float:
            optimizer.zero_grad()
            loss = self.targets.loss(self.combine(answers, present), truth)
            loss = loss + decay * self.change.weight.square().sum()
            torch.autograd.backward(loss)
            return float(loss.detach())

        step: Any = optimizer.step  # untyped in torch
        step(closure)
