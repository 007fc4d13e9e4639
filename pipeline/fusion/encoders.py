"""What becomes of one modality before modalities meet: rows ``[B, n, D]`` and a mask -> an embedding ``[B, hidden]``.

An encoder works in two halves: ``summarise`` has nothing to learn, so training calls it once; ``forward`` is learnt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.fusion.options import EncoderOptions


class Summaries(NamedTuple):
    """Modalities, summarised.

    ``values``: each ``[B, S]`` or ``[B, n, D]``; ``masks``: each bool ``[B, n]``; ``present``: bool ``[B, M]``, which
    modalities have a valid row.
    """

    values: list[Tensor]
    masks: list[Tensor]
    present: Tensor

    def rows(self, index: Tensor) -> Summaries:
        """The samples ``index``."""
        return Summaries([one[index] for one in self.values], [mask[index] for mask in self.masks], self.present[index])

    def of(self, modality: int) -> Summaries:
        """One modality alone."""
        return Summaries([self.values[modality]], [self.masks[modality]], self.present[:, modality : modality + 1])

    def without(self, gone: Tensor) -> Summaries:
        """The same with the modalities ``gone`` (bool ``[B, M]``) missing."""
        masks = [mask & ~gone[:, k : k + 1] for k, mask in enumerate(self.masks)]
        return Summaries(self.values, masks, self.present & ~gone)


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


def part_means(values: Tensor, mask: Tensor, parts: int) -> Tensor:
    """Means of ``parts`` equal parts of the valid rows, in order: ``[B, n, D]``, bool ``[B, n]`` -> ``[B, parts D]``.

    Of ``v`` valid rows part ``p`` is those from ``p v / parts`` to ``(p + 1) v / parts``; a row that lies in two parts
    counts in each by its share. So what is long and what is short is described by the same number of numbers, in order.
    """
    rank = mask.cumsum(dim=1) - 1
    edges = torch.arange(parts + 1, device=values.device) / parts * mask.sum(dim=1, keepdim=True)  # [B, parts + 1]
    low, high = edges[:, :-1, None], edges[:, 1:, None]
    row = rank.unsqueeze(1)  # [B, 1, n]
    share = (torch.minimum(row + 1, high) - torch.maximum(row, low)).clamp(min=0) * mask.unsqueeze(1)
    share = share / share.sum(dim=2, keepdim=True).clamp(min=1e-6)
    means = torch.bmm(share.to(values.dtype), torch.where(mask.unsqueeze(-1), values, 0))
    return means.flatten(1)


class Encoder(nn.Module, ABC):
    """One modality of width ``dim``. ``mean`` and ``scale`` ``[D]``: of the training split, to standardise by."""

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))

    def summarise(self, values: Tensor, mask: Tensor) -> Tensor:
        """Standardise, and do what there is nothing to learn about."""
        return self.pool((values - self.mean) / self.scale, mask)

    @property
    @abstractmethod
    def pooling(self) -> str:
        """Tells ways of pooling apart: encoders of one modality with the same one share their summaries."""

    @abstractmethod
    def pool(self, values: Tensor, mask: Tensor) -> Tensor:
        """What ``forward`` takes, of standardised values."""

    @abstractmethod
    def forward(self, summary: Tensor, mask: Tensor) -> Tensor:
        """Embed a summary: ``[B, hidden]``. A sample without a valid row gets numbers that mean nothing."""


class Statistics(Encoder):
    """Statistics over time into one hidden layer."""

    def __init__(self, dim: int, hidden: int, dropout: float, options: EncoderOptions) -> None:
        super().__init__(dim)
        self.options = options
        width = dim * (options.parts + options.deviation)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout))

    @property
    def pooling(self) -> str:
        """What is pooled."""
        return f"{self.options.parts} parts, deviation {self.options.deviation}"

    def pool(self, values: Tensor, mask: Tensor) -> Tensor:
        """Statistics of the valid rows: ``[B, parts D]``, or ``[B, (parts + 1) D]`` with the deviation."""
        whole = statistics(values, mask)
        dim = values.shape[2]
        means = whole[:, :dim] if self.options.parts == 1 else part_means(values, mask, self.options.parts)
        return torch.cat([means, whole[:, dim:]], dim=1) if self.options.deviation else means

    def forward(self, summary: Tensor, mask: Tensor) -> Tensor:
        """Embed a summary."""
        del mask
        embedding: Tensor = self.layers(summary)
        return embedding


class Recurrent(Encoder):
    """A recurrent network over the valid rows, in order; the embedding is its last state."""

    def __init__(self, dim: int, hidden: int, dropout: float, options: EncoderOptions) -> None:
        super().__init__(dim)
        self.cell = RECURRENT[options.kind](dim, hidden, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    @property
    def pooling(self) -> str:
        """Nothing is pooled."""
        return "rows"

    def pool(self, values: Tensor, mask: Tensor) -> Tensor:
        """The rows themselves; zeros behind the mask."""
        return torch.where(mask.unsqueeze(-1), values, 0)

    def forward(self, summary: Tensor, mask: Tensor) -> Tensor:
        """Embed the valid rows."""
        embedding: Tensor = self.dropout(last_state(self.cell, summary, mask))
        return embedding


RECURRENT: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}


def last_state(cell: nn.Module, rows: Tensor, mask: Tensor) -> Tensor:
    """What a GRU or LSTM gives at the last valid row: ``[B, n, D]``, bool ``[B, n]`` -> ``[B, hidden]``.

    Rows that are not valid are taken out first, so that gaps and padding change nothing. Without a valid row: zeros.
    """
    count = mask.sum(dim=1)
    order = (~mask).to(torch.int8).sort(dim=1, stable=True).indices  # valid rows first, in order
    packed = rows.gather(1, order.unsqueeze(-1).expand_as(rows))
    longest = max(1, int(count.max())) if len(count) else 1
    states: Tensor = cell(packed[:, :longest])[0]  # later rows cannot change earlier states
    last = (count - 1).clamp(min=0)
    found = states[torch.arange(len(rows), device=rows.device), last]
    return torch.where((count > 0).unsqueeze(-1), found, 0)


def make_encoder(dim: int, hidden: int, dropout: float, options: EncoderOptions) -> Encoder:
    """The encoder that is asked for, untrained."""
    made = Statistics if options.kind == "statistics" else Recurrent
    return made(dim, hidden, dropout, options)
