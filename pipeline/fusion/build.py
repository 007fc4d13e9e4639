"""The table of methods, and models made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pipeline.fusion.joins import JOINS
from pipeline.fusion.late import LateFusion, Stacking, Vote
from pipeline.fusion.models import Encoded, FusionModel, JointFusion, ParallelFusion, RecurrentFusion, Shape
from pipeline.fusion.options import TrainOptions
from pipeline.fusion.shared import CLOSENESS, SharedSpace
from pipeline.fusion.targets import Targets

LATE: dict[str, type[LateFusion]] = {"late": LateFusion, "vote": Vote, "stacking": Stacking}
"""Methods that put the classifiers of single modalities together."""


def joint(method: str, dims: Mapping[str, int], targets: Targets, options: TrainOptions) -> Encoded:
    """An untrained model of a method that is trained as a whole (of one modality and ``early``: its classifier)."""
    shape = Shape(
        dims=dims,
        targets=targets,
        hidden=options.hidden,
        dropout=options.dropout,
        encoders={name: options.encoder(name) for name in dims},
    )
    if method in JOINS:
        return JointFusion(shape, method)
    if method == "parallel":
        return ParallelFusion(shape)
    if method in CLOSENESS:
        return SharedSpace(shape, closeness=method, weight=options.closeness_weight)
    return RecurrentFusion(shape, method)


def build(
    method: str, names: Sequence[str], dims: Mapping[str, int], targets: Targets, options: TrainOptions
) -> FusionModel:
    """An untrained model of the modalities ``names``."""
    if method not in LATE:
        return joint(method, {name: dims[name] for name in names}, targets, options)
    return LATE[method]([joint("early", {name: dims[name]}, targets, options) for name in names])
