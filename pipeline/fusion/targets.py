"""What is learnt: classes, sets of labels, numbers, or several of these at once, read from the label of a sample.

A model gives one row of logits; each target has its own columns of it, in order: ``K`` for classes (softmax), ``K`` for
labels (a sigmoid each), 1 for a number (standardised by the training split).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from features.errors import RunFailedError

if TYPE_CHECKING:
    import torch

Kind: TypeAlias = Literal["classes", "labels", "number"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Truth: TypeAlias = npt.NDArray[Any]
ONLY = "label"
"""What the target is called where there is only one."""


@dataclass(frozen=True, kw_only=True)
class TargetOptions:
    """One target. ``part``: which part of the label it is, from 0, where ``separator`` cuts labels; by default all.

    ``weight``: of its loss beside the other targets'. Raises ``ValueError`` for values that are not allowed.
    """

    kind: Kind = "classes"
    part: int | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"train: targets: kind: got {self.kind!r}, allowed: {', '.join(KINDS)}")
        if self.part is not None and self.part < 0:
            raise ValueError(f"train: targets: part: got {self.part}, allowed: >= 0")
        if not 0 < self.weight < math.inf:
            raise ValueError(f"train: targets: weight: got {self.weight}, allowed: > 0")


@dataclass(frozen=True, kw_only=True)
class Target:
    """One target as the training split has it.

    ``labels``: names of its columns, sorted; of a number none. ``prior``: logits of the training frequencies, which
    answer a sample that has no modality. ``weights``: of each class (or of each label that is true) in the loss.
    ``mean`` and ``scale``: a number is learnt as ``(number - mean) / scale``.
    """

    name: str
    kind: Kind
    weight: float
    labels: tuple[str, ...]
    prior: tuple[float, ...]
    weights: tuple[float, ...] | None
    mean: float = 0.0
    scale: float = 1.0

    @property
    def width(self) -> int:
        """Columns of its logits."""
        return len(self.prior)

    def loss(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """Cross-entropy, binary cross-entropy (mean over labels) or mean squared error (of the standardised number)."""
        from torch.nn import functional

        weights = None if self.weights is None else logits.new_tensor(self.weights)
        if self.kind == "classes":
            return functional.cross_entropy(logits, truth, weight=weights)
        if self.kind == "labels":
            return functional.binary_cross_entropy_with_logits(logits, truth, pos_weight=weights)
        return functional.mse_loss(logits[:, 0], (truth - self.mean) / self.scale)

    def decide(self, logits: torch.Tensor) -> Truth:
        """What the model says, in the form that the truth has: class numbers, flags (above one half) or numbers."""
        if self.kind == "classes":
            return np.asarray(logits.argmax(dim=1).cpu().numpy())
        if self.kind == "labels":
            return np.asarray((logits > 0).float().cpu().numpy())
        return np.asarray((logits[:, 0] * self.scale + self.mean).float().cpu().numpy())

    def average(self, logits: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """The mean of models ``[B, M, width]`` where they are ``present`` ``[B, M]``, as logits ``[B, width]``.

        Of classes the log-probabilities are averaged, of labels the log-odds, of numbers the numbers. Where nothing is
        present the prior is given.
        """
        import torch

        each = logits.log_softmax(dim=2) if self.kind == "classes" else logits
        keep = present.unsqueeze(-1)
        mean = torch.where(keep, each, 0).sum(dim=1) / keep.sum(dim=1).clamp(min=1)
        return torch.where(present.any(dim=1, keepdim=True), mean, logits.new_tensor(self.prior))


@dataclass(frozen=True, kw_only=True)
class Targets:
    """All targets, in the order of their columns."""

    targets: tuple[Target, ...]

    @property
    def width(self) -> int:
        """Columns of the logits."""
        return sum(target.width for target in self.targets)

    @property
    def prior(self) -> list[float]:
        """Logits of the training frequencies, all columns."""
        return [number for target in self.targets for number in target.prior]

    def split(self, logits: torch.Tensor) -> list[torch.Tensor]:
        """The columns of each target; the last dimension is cut."""
        import torch

        return list(torch.split(logits, [target.width for target in self.targets], dim=-1))

    def loss(self, logits: torch.Tensor, truth: Sequence[torch.Tensor]) -> torch.Tensor:
        """The weighted sum of the targets' losses."""
        losses = [
            target.weight * target.loss(part, true)
            for target, part, true in zip(self.targets, self.split(logits), truth, strict=True)
        ]
        return sum(losses[1:], losses[0])

    def decide(self, logits: torch.Tensor) -> list[Truth]:
        """What the model says of each target."""
        return [target.decide(part) for target, part in zip(self.targets, self.split(logits), strict=True)]

    def average(self, logits: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """See ``Target.average``, for each target's columns."""
        import torch

        parts = zip(self.targets, self.split(logits), strict=True)
        return torch.cat([target.average(part, present) for target, part in parts], dim=-1)


def read_targets(
    labels: Sequence[str],
    train: npt.NDArray[np.int64],
    used: npt.NDArray[np.int64],
    options: Mapping[str, TargetOptions],
    *,
    separator: str,
    between: str,
    balanced: bool,
) -> tuple[Targets, list[Truth]]:
    """Learn the targets from the labels of the rows ``train``; return them and the truth of every row.

    Truths: classes int64 ``[N]``, labels float32 ``[N, K]``, numbers float32 ``[N]``. ``separator`` cuts a label into
    parts, ``between`` a part into its labels. Rows that are not ``used`` mean nothing. Raises ``RunFailedError`` for a
    label that cannot be read, that training has not seen, or where there is nothing to tell apart.
    """
    wanted_rows = set(used.tolist())
    readable = [label if row in wanted_rows else labels[train[0]] for row, label in enumerate(labels)]
    targets, truths = [], []
    for name, wanted in options.items():
        texts = [_part(label, wanted.part, separator, name) for label in readable]
        target, truth = _READ[wanted.kind](name, texts, train, wanted.weight, between, balanced)
        targets.append(target)
        truths.append(truth)
    return Targets(targets=tuple(targets)), truths


def encode(target: Target, texts: Sequence[str], between: str) -> Truth:
    """The truth of texts of one target. Raises ``RunFailedError`` for what training has not seen or cannot be read."""
    number = {label: k for k, label in enumerate(target.labels)}
    if target.kind == "number":
        return np.array([_number(text, target.name) for text in texts], dtype=np.float32)
    sets = [[text] if target.kind == "classes" else _items(text, between) for text in texts]
    if unseen := sorted({item for items in sets for item in items} - number.keys()):
        raise RunFailedError(
            f"train: {target.name}: got {', '.join(map(repr, unseen))} outside split 'train' and never in it, "
            "allowed: labels that training has seen; cure: split the data set by label"
        )
    if target.kind == "classes":
        return np.array([number[items[0]] for items in sets], dtype=np.int64)
    flags = np.zeros((len(sets), len(number)), dtype=np.float32)
    for row, items in enumerate(sets):
        flags[row, [number[item] for item in items]] = 1
    return flags


def _part(label: str, part: int | None, separator: str, name: str) -> str:
    if part is None:
        return label
    parts = [piece.strip() for piece in label.split(separator)]
    if part >= len(parts):
        raise RunFailedError(
            f"train: targets.{name}: label {label!r} has {len(parts)} parts (cut at {separator!r}), "
            f"wanted part {part}; cure: another part or separator"
        )
    return parts[part]


def _items(text: str, between: str) -> list[str]:
    return [item.strip() for item in text.split(between) if item.strip()]


def _number(text: str, name: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise RunFailedError(f"train: {name}: got label {text!r}, allowed: a finite number")
    return number


def _few(name: str, found: Sequence[str]) -> None:
    if len(found) < 2:
        got = f"only {found[0]!r}" if found else "none"
        raise RunFailedError(f"train: {name}: labels: got {got} in split 'train', allowed: at least 2 labels")


def _classes(
    name: str, texts: Sequence[str], train: npt.NDArray[np.int64], weight: float, between: str, balanced: bool
) -> tuple[Target, Truth]:
    counted = Counter(texts[row] for row in train)
    labels = sorted(counted)
    _few(name, labels)
    counts = np.array([counted[label] for label in labels], dtype=np.float64)
    target = Target(
        name=name,
        kind="classes",
        weight=weight,
        labels=tuple(labels),
        prior=tuple(np.log(counts / counts.sum()).tolist()),
        weights=tuple((counts.sum() / (len(counts) * counts)).tolist()) if balanced else None,
    )
    return target, encode(target, texts, between)


def _labels(
    name: str, texts: Sequence[str], train: npt.NDArray[np.int64], weight: float, between: str, balanced: bool
) -> tuple[Target, Truth]:
    counted = Counter(item for row in train for item in set(_items(texts[row], between)))
    labels = sorted(counted)
    _few(name, labels)
    share = np.array([counted[label] for label in labels], dtype=np.float64) / len(train)
    inside = share.clip(0.5 / len(train), 1 - 0.5 / len(train))  # one that is always there has finite log-odds too
    target = Target(
        name=name,
        kind="labels",
        weight=weight,
        labels=tuple(labels),
        prior=tuple(np.log(inside / (1 - inside)).tolist()),
        weights=tuple(((1 - inside) / inside).tolist()) if balanced else None,
    )
    return target, encode(target, texts, between)


def _numbers(
    name: str, texts: Sequence[str], train: npt.NDArray[np.int64], weight: float, between: str, balanced: bool
) -> tuple[Target, Truth]:
    del between, balanced
    truth = np.array([_number(text, name) for text in texts], dtype=np.float32)
    mean, scale = float(truth[train].mean()), float(truth[train].std())
    if not scale > 0:
        raise RunFailedError(
            f"train: {name}: got the same number {mean:g} in all of split 'train', allowed: two or more"
        )
    target = Target(
        name=name, kind="number", weight=weight, labels=(), prior=(0.0,), weights=None, mean=mean, scale=scale
    )
    return target, truth


_READ = {"classes": _classes, "labels": _labels, "number": _numbers}
