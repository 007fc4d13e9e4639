"""Gradient descent: one model, trained until its validation loss does not get better any more, resumable at any step.

What happens at a step depends on the seed, the number of the step and the state of model and optimizer alone, so a
training that goes on from what was kept gives the bits that one without interruption gives.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from features.errors import RunFailedError
from pipeline.fusion.encoders import Summaries
from pipeline.fusion.keep import Keeper, Kept
from pipeline.fusion.metrics import score
from pipeline.fusion.models import FusionModel, parameter_groups
from pipeline.fusion.options import TrainOptions
from pipeline.fusion.result import Epoch

_CHUNK = 4096
"""Samples that are judged at a time."""


class Part(NamedTuple):
    """Samples to learn from or to judge by: their summaries, and the truth of each target."""

    summaries: Summaries
    truth: list[Tensor]

    def __len__(self) -> int:
        return len(self.summaries.present)


def derived(seed: int, *names: object) -> int:
    """A seed that follows from another and names."""
    text = json.dumps([seed, *names]).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "little")


def rate(options: TrainOptions, history: Sequence[Epoch]) -> float:
    """What the learning rate is multiplied by in the epoch after ``history``."""
    epoch = len(history)
    if options.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * epoch / options.epochs))
    if options.schedule == "step":
        return 0.1 ** ((2 * epoch >= options.epochs) + (4 * epoch >= 3 * options.epochs))
    if options.schedule == "plateau":
        wait, best, since, factor = max(1, options.patience // 2), math.inf, 0, 1.0
        for one in history:
            loss = one.train_loss if one.validation_loss is None else one.validation_loss
            best, since = (loss, 0) if loss < best else (best, since + 1)
            if since >= wait:
                factor, since = factor / 2, 0
        return factor
    return 1.0


def judge(model: FusionModel, summaries: Summaries) -> Tensor:
    """Logits of all samples, in evaluation mode, without gradients."""
    model.eval()
    count = len(summaries.present)
    with torch.no_grad():
        if count <= _CHUNK:
            return model.classify(summaries)
        index = torch.arange(count, device=summaries.present.device)
        return torch.cat([model.classify(summaries.rows(chunk)) for chunk in torch.split(index, _CHUNK)])


class Descent:
    """The training of one model. ``run`` leaves the best weights in the model and returns the history."""

    def __init__(
        self, model: FusionModel, train: Part, held_out: Part, options: TrainOptions, *, seed: int, name: str
    ) -> None:
        self.model = model
        self.name = name
        self._train, self._held_out = train, held_out
        self._options = options
        self._seed = seed
        groups = parameter_groups(model, options.learning_rate, options.weight_decay)
        self._optimizer: torch.optim.Optimizer = (
            torch.optim.AdamW(groups, fused=True)
            if options.optimizer == "adam"
            else torch.optim.SGD(groups, momentum=0.9, nesterov=True, fused=True)
        )
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._history: list[Epoch] = []
        self._position = 0
        self._loss = torch.zeros((), device=train.summaries.present.device)
        self._best_loss, self._best_epoch = math.inf, 0
        self._best = model.state_dict()

    def run(self, keeper: Keeper, told: Callable[[Epoch], None]) -> tuple[Epoch, ...]:
        """Train; ``told`` hears of every epoch. Raises ``RunFailedError`` when a loss is not finite."""
        if kept := keeper.current(self.name):
            self._go_on(kept)
        while len(self._history) < self._options.epochs and not self._stopped:
            self._epoch(keeper)
            self._close()
            told(self._history[-1])
        self.model.load_state_dict(self._best)
        return tuple(self._history)

    @property
    def _stopped(self) -> bool:
        return len(self._held_out) > 0 and len(self._history) - 1 - self._best_epoch >= self._options.patience

    def _epoch(self, keeper: Keeper) -> None:
        options, epoch, total = self._options, len(self._history), len(self._train)
        factor = rate(options, self._history)
        for group, start in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = start * factor
        random = torch.Generator().manual_seed(derived(self._seed, "order", epoch))
        order = torch.randperm(total, generator=random).to(self._loss.device)
        self.model.train()
        for begin in range(self._position, total, options.batch_size):
            if keeper.due:
                keeper.save(self.name, *self._kept)
            self._own_noise(epoch * total + begin)
            self._step(order[begin : begin + options.batch_size])
            self._position = begin + options.batch_size

    def _own_noise(self, step: int) -> None:
        """Make what is drawn in a step follow from its number: what was drawn before does not matter."""
        seed = (self._seed + 1_000_003 * (step + 1)) % 2**63
        torch.default_generator.manual_seed(seed)
        if self._loss.is_cuda:
            torch.cuda.manual_seed_all(seed)

    def _step(self, index: Tensor) -> None:
        summaries = self._train.summaries.rows(index)
        if self._options.modality_dropout:
            summaries = summaries.without(_dropped(summaries.present, self._options.modality_dropout))
        logits, extra = self.model.learn(summaries)
        loss = self.model.targets.loss(logits, [truth[index] for truth in self._train.truth])
        whole = loss if extra is None else loss + extra
        self._optimizer.zero_grad()
        torch.autograd.backward(whole)
        self._optimizer.step()
        self._loss += loss.detach() * len(index)

    def _close(self) -> None:
        """End an epoch: judge, and remember the best."""
        total, held_out, found = float(self._loss), None, None
        if len(self._held_out):
            targets = self.model.targets
            logits = judge(self.model, self._held_out.summaries)
            held_out = float(targets.loss(logits, self._held_out.truth))
            found = score(targets, [true.cpu().numpy() for true in self._held_out.truth], targets.decide(logits))
        epoch = Epoch(train_loss=total / len(self._train), validation_loss=held_out, validation_score=found)
        self._history.append(epoch)
        self._loss, self._position = torch.zeros_like(self._loss), 0
        if not math.isfinite(total) or (held_out is not None and not math.isfinite(held_out)):
            raise RunFailedError(
                f"train: {self.name}, epoch {len(self._history)}: the loss is not finite; "
                "cure: a lower learning_rate, or look for extreme values in the features"
            )
        if held_out is not None and held_out < self._best_loss:
            self._best_loss, self._best_epoch = held_out, len(self._history) - 1
            self._best = {key: value.clone() for key, value in self.model.state_dict().items()}

    @property
    def _kept(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        optimizer = self._optimizer.state_dict()["state"]
        tensors = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        tensors |= {f"best.{key}": value for key, value in self._best.items()}
        tensors |= {f"optimizer.{k}.{key}": one for k, state in optimizer.items() for key, one in state.items()
                    if isinstance(one, Tensor)}  # fmt: skip
        tensors["loss"] = self._loss
        return tensors, {
            "seed": self._seed,
            "position": self._position,
            "history": [asdict(epoch) for epoch in self._history],
            "best_loss": self._best_loss if math.isfinite(self._best_loss) else None,
            "best_epoch": self._best_epoch,
        }

    def _go_on(self, kept: Kept) -> None:
        device = self._loss.device
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}}
        optimizer: dict[int, dict[str, Tensor]] = {}
        for key, tensor in kept.tensors.items():
            kind, _, rest = key.partition(".")
            if kind == "optimizer":
                number, _, name = rest.partition(".")
                optimizer.setdefault(int(number), {})[name] = tensor.to(tensor.device if name == "step" else device)
            elif kind in parts:
                parts[kind][rest] = tensor.to(device)
        self.model.load_state_dict(parts["model"])
        whole = self._optimizer.state_dict()
        self._optimizer.load_state_dict({**whole, "state": optimizer})
        found = kept.document
        self._loss = kept.tensors["loss"].to(device)
        self._position = found["position"]
        self._history = [Epoch(**epoch) for epoch in found["history"]]
        self._best_loss = math.inf if found["best_loss"] is None else found["best_loss"]
        self._best_epoch = found["best_epoch"]
        # Before a first best epoch, the best weights are the model's own, which go on changing.
        self._best = parts["best"] if found["best_loss"] is not None else self.model.state_dict()


def _dropped(present: Tensor, share: float) -> Tensor:
    """Which modalities are left out, bool ``[B, M]``: each with probability ``share``, but never all that are there."""
    gone = torch.rand(present.shape, device=present.device) < share
    nothing_left = ~(present & ~gone).any(dim=1, keepdim=True)
    return gone & ~nothing_left


def truths_of(truth: Sequence[np.ndarray[Any, Any]], rows: np.ndarray[Any, Any], device: str) -> list[Tensor]:
    """The truth of ``rows`` of each target, on a device."""
    return [torch.from_numpy(np.ascontiguousarray(one[rows])).to(device) for one in truth]
