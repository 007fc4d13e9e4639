"""The models of one fold: trained, put together, judged, and asked what happens when a modality is missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from typing import Any

import numpy as np
import torch

from pipeline.events import Events
from pipeline.fusion import baselines
from pipeline.fusion.build import LATE
from pipeline.fusion.data import FusionData
from pipeline.fusion.descend import Part, judge
from pipeline.fusion.encoders import Summaries
from pipeline.fusion.folds import file_of
from pipeline.fusion.keep import Keeper
from pipeline.fusion.late import Stacking
from pipeline.fusion.metrics import measure_all, score
from pipeline.fusion.models import Encoded, FusionModel
from pipeline.fusion.options import TrainOptions
from pipeline.fusion.result import LINEAR, MAJORITY, Epoch, Judged
from pipeline.fusion.setup import Setup
from pipeline.fusion.shared import SharedSpace, recall_at
from pipeline.fusion.targets import Targets, Truth

STACKING_FOLDS = 3
"""Parts of the training split; the classifiers that answer for one have not seen it."""


class Trial:
    """Makes the models of a fold. ``models``: how many are trained or put together for a seed."""

    def __init__(
        self,
        data: FusionData,
        targets: Targets,
        truth: Sequence[Truth],
        options: TrainOptions,
        device: str,
        events: Events,
        keeper: Keeper,
        fold: int,
    ) -> None:
        self.setup = Setup(data, targets, truth, options, device)
        self._options = options
        self._events = events
        self._keeper = keeper
        self._fold = fold
        names, methods = len(data.modalities), set(options.methods)
        ablated = names if options.ablation and names > 1 else 0
        self.models = names + len(methods - set(LATE)) + ablated + STACKING_FOLDS * names * ("stacking" in methods)

    def fit(self, method: str, names: Sequence[str], seed: int, *, as_method: bool = True) -> Judged:
        """Train one model, unless it was kept, and judge it."""
        whole = as_method and (method != "early" or len(names) > 1)
        title = method if whole else " + ".join(names)
        model, history = self._trained(method, names, seed, title)
        return self._judged(model, history, whole=whole)

    def late(self, method: str, singles: Sequence[Encoded], seed: int) -> Judged:
        """Put the classifiers of the single modalities together."""
        model = LATE[method](singles).to(self.setup.device)
        if isinstance(model, Stacking):
            with _own_randomness(self.setup.device):
                model.fit(*self._unseen(singles, seed))
        return self._judged(model, (), whole=True)

    def baselines(self, notes: list[str]) -> dict[str, list[Judged]]:
        """The baselines: they depend on no seed, so each counts as often as there are seeds."""
        found = {MAJORITY: baselines.most_frequent(self.setup)}
        if self._options.linear:
            with _own_randomness(self.setup.device):
                found[LINEAR] = baselines.linear(self.setup, notes)
        truth, targets = self.setup.truth["test"], self.setup.targets
        return {
            name: [Judged(said=said, metrics=measure_all(targets, truth, said))] * self._options.seeds
            for name, said in found.items()
        }

    def _trained(
        self, method: str, names: Sequence[str], seed: int, title: str, left_out: Truth | None = None
    ) -> tuple[Encoded, tuple[Epoch, ...]]:
        name = f"{title}, seed {seed}" + (f", fold {self._fold + 1}" if self._options.folds else "")
        with _own_randomness(self.setup.device):
            model = self.setup.make(method, names, seed)
            if kept := self._keeper.finished(name):
                model.load_state_dict(kept.tensors)
                history = tuple(Epoch(**epoch) for epoch in kept.document["history"])
            else:
                descent = self.setup.descent(model, method, seed, name, left_out)
                history = descent.run(self._keeper, lambda epoch: self._events.said("train", _line(name, epoch)))
                self._keeper.finish(name, model.state_dict(), {"history": [vars(epoch) for epoch in history]})
        self._events.advanced("train")
        return model, history

    def _unseen(self, singles: Sequence[Encoded], seed: int) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Answers to the training samples of classifiers that have not seen them, what is present, and the truth."""
        rows = self.setup.rows["train"]
        group = {name: k for k, name in enumerate(sorted({file_of(self.setup.data.sample_ids[row]) for row in rows}))}
        fold = np.array([group[file_of(self.setup.data.sample_ids[row])] for row in rows]) % STACKING_FOLDS
        answers, present, truth = [], [], self.setup.part(singles[0], "train").truth
        for single in singles:
            (name,) = single.names
            part = self.setup.part(single, "train")
            found = torch.zeros((len(rows), self.setup.targets.width), device=self.setup.device)
            for k in range(STACKING_FOLDS):
                left_out = np.flatnonzero(fold == k)
                if not len(left_out) or len(left_out) == len(rows):
                    continue
                model = self._trained("early", [name], seed, f"{name} for stacking, part {k + 1}", left_out)[0]
                index = torch.from_numpy(left_out).to(self.setup.device)
                found[index] = judge(model, part.summaries.rows(index))
            answers.append(found)
            present.append(part.summaries.present[:, 0])
        return torch.stack(answers, dim=1), torch.stack(present, dim=1), truth

    def _judged(self, model: FusionModel, history: tuple[Epoch, ...], *, whole: bool) -> Judged:
        part = self.setup.part(model, "test")
        targets, truth = self.setup.targets, self.setup.truth["test"]
        said = targets.decide(judge(model, part.summaries))
        return Judged(
            said=said,
            metrics=measure_all(targets, truth, said),
            model=model,
            history=history,
            missing=self._missing(model, part) if whole else {},
            retrieval=_retrieval(model, part.summaries) if isinstance(model, SharedSpace) else [],
        )

    def _missing(self, model: FusionModel, part: Part) -> dict[str, float]:
        found = {}
        for k, name in enumerate(model.names):
            gone = torch.zeros_like(part.summaries.present)
            gone[:, k] = True
            said = self.setup.targets.decide(judge(model, part.summaries.without(gone)))
            found[name] = score(self.setup.targets, self.setup.truth["test"], said)
        return found


def _retrieval(model: SharedSpace, summaries: Summaries) -> list[dict[str, Any]]:
    """How well the partner is found, for each ordered pair of modalities, among the test samples that have both."""
    model.eval()
    with torch.no_grad():
        places = model.project(summaries)
    found = []
    for one, other in permutations(range(len(model.names)), 2):
        both = summaries.present[:, one] & summaries.present[:, other]
        if count := int(both.sum()):
            recall = recall_at(places[both, one], places[both, other])
            found.append({"from": model.names[one], "to": model.names[other], **recall, "chance@1": 1 / count})
    return found


def _line(name: str, epoch: Epoch) -> str:
    judged = (
        ""
        if epoch.validation_loss is None or epoch.validation_score is None
        else f", validation {epoch.validation_loss:.3f}, score {epoch.validation_score:.3f}"
    )
    return f"{name}: loss {epoch.train_loss:.3f}{judged}"


@contextmanager
def _own_randomness(device: str) -> Iterator[None]:
    """Leave torch's own random state as it was."""
    cuda = list(range(torch.cuda.device_count())) if device == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        yield
