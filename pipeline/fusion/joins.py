"""How embeddings of modalities become one: ``[B, M, H]`` and which are ``present``, bool ``[B, M]`` -> ``[B, width]``.

A modality that is not present changes nothing, whatever its embedding holds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

_HEADS = 4


class Join(nn.Module, ABC):
    """The contract. ``width``: of what comes out."""

    width: int

    def __init__(self, modalities: int, hidden: int) -> None:
        super().__init__()
        self.modalities = modalities
        self.width = hidden

    @abstractmethod
    def forward(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """Make one of them."""


class Concatenation(Join):
    """All of them side by side, zeros where one is not present, and a flag each that says so."""

    def __init__(self, modalities: int, hidden: int) -> None:
        super().__init__(modalities, hidden)
        self.width = modalities * (hidden + 1)

    def forward(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """Make one of them."""
        kept = torch.where(present.unsqueeze(-1), embeddings, 0)
        return torch.cat([kept.flatten(1), present.to(embeddings.dtype)], dim=1)


class Average(Join):
    """Their plain mean."""

    def forward(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """Make one of them."""
        return masked_mean(embeddings, present)


class Weighted(Join):
    """Their mean with a weight for each modality, which is learnt (a softmax over those that are present)."""

    def __init__(self, modalities: int, hidden: int) -> None:
        super().__init__(modalities, hidden)
        self.score = nn.Parameter(torch.zeros(modalities))

    def forward(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """Make one of them."""
        weight = masked_softmax(self.score.expand(len(embeddings), -1), present)
        return (weight.unsqueeze(-1) * torch.where(present.unsqueeze(-1), embeddings, 0)).sum(dim=1)


class Maximum(Join):
    """The largest of each number."""

    def forward(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """Make one of them."""
        kept = torch.where(present.unsqueeze(-1), embeddings, -torch.inf).amax(dim=1)
        return torch.where(present.any(dim=1, keepdim=True), kept, 0)


class Attention(Join):
    """Each modality looks at all that are present (multi-head attention, Vaswani et al. 2017); then their mean."""

    def __init__(self, modalities: int, hidden: int) -> None:
        super().__init__(modalities, hidden)
        self.kind = nn.Parameter(torch.randn(modalities, hidden) * 0.1)
        self.attention = nn.MultiheadAttention(hidden, _HEADS if hidden % _HEADS == 0 else 1, batch_first=True)
        self.norm = nn.LayerNorm(hidden)

    def forward(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """Make one of them."""
        tokens = torch.where(present.unsqueeze(-1), embeddings, 0) + self.kind
        nobody = ~present.any(dim=1, keepdim=True)  # a softmax over nothing is not a number
        seen = self.attention(tokens, tokens, tokens, key_padding_mask=~(present | nobody), need_weights=False)[0]
        return masked_mean(self.norm(tokens + seen), present)


class Gated(Join):
    """A gated multimodal unit (Arevalo et al. 2017).

    For each number, a softmax over the modalities that are present, computed from all of them, says how much of each
    is taken.
    """

    def __init__(self, modalities: int, hidden: int) -> None:
        super().__init__(modalities, hidden)
        self.inner = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(modalities))
        self.gate = nn.Linear(modalities * (hidden + 1), modalities * hidden)

    def forward(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """Make one of them."""
        kept = torch.where(present.unsqueeze(-1), embeddings, 0)
        gates = self.gate(torch.cat([kept.flatten(1), present.to(kept.dtype)], dim=1)).view_as(kept)
        share = masked_softmax(gates.transpose(1, 2), present.unsqueeze(1)).transpose(1, 2)
        inner = torch.stack([layer(kept[:, k]).tanh() for k, layer in enumerate(self.inner)], dim=1)
        return (share * inner).sum(dim=1)


class Cascade(Join):
    """One modality after the other, in their order: each adds to what was made of those before it.

    ``state + relu(layer([state, embedding]))``; one that is not present leaves the state as it is.
    """

    def __init__(self, modalities: int, hidden: int) -> None:
        super().__init__(modalities, hidden)
        self.stages = nn.ModuleList(nn.Linear(2 * hidden, hidden) for _ in range(modalities))

    def forward(self, embeddings: Tensor, present: Tensor) -> Tensor:
        """Make one of them."""
        state = torch.zeros_like(embeddings[:, 0])
        for k, stage in enumerate(self.stages):
            after = state + stage(torch.cat([state, embeddings[:, k]], dim=1)).relu()
            state = torch.where(present[:, k : k + 1], after, state)
        return state


def masked_mean(embeddings: Tensor, present: Tensor) -> Tensor:
    """The mean of those that are present; zeros where none is."""
    keep = present.unsqueeze(-1)
    return torch.where(keep, embeddings, 0).sum(dim=1) / keep.sum(dim=1).clamp(min=1)


def masked_softmax(scores: Tensor, present: Tensor) -> Tensor:
    """Softmax of the last dimension over what is present, zeros elsewhere (everywhere, where nothing is)."""
    anything = present.any(dim=-1, keepdim=True)
    masked = torch.where(present | ~anything, scores, -torch.inf)
    return torch.where(present, masked.softmax(dim=-1), 0)


JOINS: dict[str, type[Join]] = {
    "early": Concatenation,
    "average": Average,
    "weighted": Weighted,
    "maximum": Maximum,
    "attention": Attention,
    "gated": Gated,
    "cascade": Cascade,
}
"""Method -> how it joins embeddings."""
