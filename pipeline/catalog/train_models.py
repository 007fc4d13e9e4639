"""How the models of a data set are trained, as it is written in the catalog."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from pipeline.catalog.base import Count, Model, Text
from pipeline.fusion.options import (
    DEFAULT_METHODS,
    EncoderKind,
    EncoderOptions,
    Method,
    Optimizer,
    Schedule,
    TrainOptions,
)
from pipeline.fusion.targets import ONLY, Kind, TargetOptions

Fraction = Annotated[float, Field(ge=0, lt=1)]


class Encoder(Model):
    """How a feature is encoded before features meet."""

    kind: EncoderKind = Field(
        default="statistics",
        description="statistics: of the rows, into one layer; gru, lstm: a recurrent network over the rows",
    )
    parts: Count = Field(
        default=1, description="statistics: the mean of each of so many equal parts of the rows, in their order"
    )
    deviation: bool = Field(default=True, description="statistics: the standard deviation over all rows, too")


class TargetSpec(Model):
    """What is learnt of a label."""

    kind: Kind = Field(
        default="classes", description="classes: one of several; labels: any number of several; number: regression"
    )
    part: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="which part of the label, from 0, where `separator` cuts it; null: all of it"
    )
    weight: Annotated[float, Field(gt=0)] = Field(default=1.0, description="of its loss beside the other targets'")


class Train(Model):
    """How the fusion models are trained."""

    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = Field(
        default=DEFAULT_METHODS, description="fusion methods, each trained beside every feature alone"
    )
    encoders: Mapping[str, Encoder] = Field(
        default_factory=dict, description="feature -> how it is encoded, where not by mean and deviation"
    )
    targets: Annotated[Mapping[Text, TargetSpec], Field(min_length=1)] = Field(
        default={ONLY: TargetSpec()}, description="name -> what is learnt of a label; several are learnt together"
    )
    separator: Text = Field(default="/", description="what stands between the parts of a label")
    between: Text = Field(default=",", description="what stands between several labels, for targets of kind labels")
    epochs: Count = Field(default=60, description="passes over the training split, at most")
    hidden: Count = Field(default=64, description="width of the hidden layers")
    optimizer: Optimizer = Field(default="adam", description="adam: AdamW; sgd: with Nesterov momentum 0.9")
    learning_rate: Annotated[float, Field(gt=0)] = Field(default=0.001, description="for a layer of 64 inputs")
    schedule: Schedule = Field(
        default="constant",
        description="of the rate: constant; cosine (to 0); step (a tenth after 1/2 and 3/4 of the epochs); plateau",
    )
    batch_size: Count = Field(default=32, description="samples a step")
    seeds: Count = Field(default=1, description="how many times everything is trained; metrics give mean and deviation")
    patience: Count = Field(default=10, description="epochs without a better validation loss before training stops")
    validation: Fraction = Field(
        default=0.0, description="share of the training split held out to stop by, where there is no validation split"
    )
    folds: Annotated[int, Field(ge=0)] = Field(
        default=0, description="k: k-fold cross-validation over all labelled samples; 0: the splits as they are"
    )
    dropout: Fraction = Field(default=0.2, description="share of activations dropped in training")
    modality_dropout: Fraction = Field(
        default=0.0, description="share of features that are left out of a sample in training, never all of them"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(default=0.0001, description="for a layer of 64 inputs")
    closeness_weight: Annotated[float, Field(ge=0)] = Field(
        default=0.5, description="methods contrastive and l2: weight of the loss that brings features close"
    )
    balanced: bool = Field(default=False, description="weigh labels in the loss by the inverse of their frequency")
    ablation: bool = Field(default=False, description="train early fusion without each feature, too")

    linear: bool = Field(default=True, description="fit a linear model of all features as a baseline")

    @field_validator("methods")
    @classmethod
    def _once(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(methods)) < len(methods):
            raise ValueError(f"got {list(methods)}, allowed: each method once")
        return methods

    @model_validator(mode="after")
    def _sense(self) -> Train:
        self.options()
        return self

    def options(self, **others: Any) -> TrainOptions:
        """The same for ``pipeline.fusion``; ``others``: what does not stand in the catalog."""
        own = {name: getattr(self, name) for name in type(self).model_fields}
        own["encoders"] = {name: EncoderOptions(**one.model_dump()) for name, one in self.encoders.items()}
        own["targets"] = {name: TargetOptions(**one.model_dump()) for name, one in self.targets.items()}
        return TrainOptions(**own, **others)
