"""The data of one fold on the device, with what there is nothing to learn about done once for all models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch

from pipeline.fusion.build import joint
from pipeline.fusion.data import FusionData, Modality, Split
from pipeline.fusion.descend import Descent, Part, derived, truths_of
from pipeline.fusion.encoders import Encoder, Summaries, statistics
from pipeline.fusion.models import Encoded, FusionModel
from pipeline.fusion.options import TrainOptions
from pipeline.fusion.targets import Targets, Truth

if TYPE_CHECKING:
    import numpy.typing as npt

_CHUNK = 256
"""Samples that are summarised at a time."""


class Setup:
    """What all models of a fold share. ``parts``: the samples of each split, by modalities and how they are pooled."""

    def __init__(
        self, data: FusionData, targets: Targets, truth: Sequence[Truth], options: TrainOptions, device: str
    ) -> None:
        self.data = data
        self.targets = targets
        self.options = options
        self.device = device
        self.rows = {split: data.rows(split) for split in get_args(Split)}
        self.truth = {split: [one[rows] for one in truth] for split, rows in self.rows.items()}
        self._on_device = {split: truths_of(truth, rows, device) for split, rows in self.rows.items()}
        self._standard = {
            name: _standard(modality.values[self.rows["train"]], modality.mask[self.rows["train"]])
            for name, modality in data.modalities.items()
        }
        self._pooled: dict[tuple[str, str], torch.Tensor] = {}
        self._masks: dict[str, torch.Tensor] = {}

    def make(self, method: str, names: Sequence[str], seed: int) -> Encoded:
        """An untrained model on the device. Its weights follow from the seed, the method and its modalities alone."""
        torch.manual_seed(self.seed_of(method, names, seed))
        model = joint(method, {name: self.data.dims[name] for name in names}, self.targets, self.options)
        return self.standardise(model).to(self.device)

    def seed_of(self, method: str, names: Sequence[str], seed: int) -> int:
        """The seed of a model: the same whatever else is trained beside it."""
        return derived(seed, *([] if method == "early" else [method]), *names)

    def descent(self, model: Encoded, method: str, seed: int, name: str, left_out: Truth | None = None) -> Descent:
        """The training of a model; ``left_out``: numbers of training samples that it is not to see."""
        train = self.part(model, "train")
        if left_out is not None:
            kept = torch.from_numpy(np.setdiff1d(np.arange(len(train)), left_out)).to(self.device)
            train = Part(train.summaries.rows(kept), [one[kept] for one in train.truth])
        seed = self.seed_of(method, model.names, seed)
        return Descent(model, train, self.part(model, "validation"), self.options, seed=seed, name=name)

    def standardise(self, model: Encoded) -> Encoded:
        """Tell each encoder the mean and scale of its modality in the training split."""
        for name, encoder in zip(model.names, model.encoders(), strict=True):
            mean, scale = self._standard[name]
            encoder.mean.copy_(torch.from_numpy(mean))
            encoder.scale.copy_(torch.from_numpy(scale))
        return model

    def part(self, model: FusionModel, split: str) -> Part:
        """The samples of a split, as a model takes them."""
        values, masks = [], []
        for name, encoder in zip(model.names, model.encoders(), strict=True):
            values.append(self._pool(name, encoder, split))
            masks.append(self._mask(name, split))
        present = torch.stack([mask.any(dim=1) for mask in masks], dim=1)
        return Part(Summaries(values, masks, present), self._on_device[split])

    def flat(self, split: str) -> npt.NDArray[Any]:
        """All modalities as one vector a sample, with a flag for each that is there: what a linear model takes."""
        parts: list[torch.Tensor] = []
        for name, modality in self.data.modalities.items():
            model = self.standardise(joint("early", {name: modality.dim}, self.targets, self.options))
            pooled, mask = self._pool(name, model.encoders()[0], split), self._mask(name, split)
            parts.append(pooled if pooled.ndim == 2 else statistics(pooled, mask))
            parts.append(mask.any(dim=1, keepdim=True).float())
        return np.asarray(torch.cat(parts, dim=1).cpu().numpy())

    def _mask(self, name: str, split: str) -> torch.Tensor:
        key = f"{split}/{name}"
        if key not in self._masks:
            self._masks[key] = torch.from_numpy(self.data.modalities[name].mask[self.rows[split]]).to(self.device)
        return self._masks[key]

    def _pool(self, name: str, encoder: Encoder, split: str) -> torch.Tensor:
        key = (f"{split}/{name}", encoder.pooling)
        if key not in self._pooled:
            self._pooled[key] = self._summarise(encoder, self.data.modalities[name], self.rows[split])
        return self._pooled[key]

    def _summarise(self, encoder: Encoder, modality: Modality, rows: npt.NDArray[np.int64]) -> torch.Tensor:
        where = encoder.mean.device
        parts = []
        for begin in range(0, max(1, len(rows)), _CHUNK):
            chunk = rows[begin : begin + _CHUNK]
            values = torch.from_numpy(modality.values[chunk]).to(where)
            mask = torch.from_numpy(modality.mask[chunk]).to(where)
            parts.append(encoder.summarise(values, mask).to(self.device))
        return torch.cat(parts)


def _standard(
    values: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Mean and standard deviation of each dimension over the valid rows; 1 for a dimension that is constant."""
    rows = values[mask]
    mean = rows.mean(axis=0, dtype=np.float64)
    std = rows.std(axis=0, dtype=np.float64).astype(np.float32)
    constant = std <= 1e-6 * np.abs(mean)  # below what float32 tells apart: rounding, not variation
    return mean.astype(np.float32), np.where(constant, 1.0, std).astype(np.float32)
