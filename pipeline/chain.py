"""A feature as it is computed: prepare steps, perhaps a frame selector, then one extractor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from features.base import Augment, Extractor, FrameSelector, NeedsFit, NeedsReference, Prepare
from features.random import derive_seed
from features.types import Stream

REFERENCES: frozenset[Stream] = frozenset(("image", "text"))
"""What frames can be compared with (``NeedsReference``): decoded whole, before the first frame."""


class ChainError(ValueError):
    """The steps do not fit together."""


@dataclass(frozen=True)
class Chain:
    """A named feature. Equal chains compute equal rows.

    Steps read from left to right: each ``Prepare`` keeps the kind of media, one ``FrameSelector`` may turn video into
    images, and the extractor ends the chain. With ``augment`` the chain gives ``count`` views of each sample, seeded by
    ``seed``, instead of the sample itself; augmentations come after the prepare steps. Raises ``ChainError`` when a
    step cannot take what the one before gives.
    """

    name: str
    prepare: tuple[Any, ...]
    extractor: Extractor
    augment: tuple[Any, ...] = ()
    count: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if bool(self.augment) != bool(self.count):
            raise ChainError("views and augmentations come together; allowed: both or neither")
        kind: Stream | None = None
        for step in self.prepare:
            if not isinstance(step, (Prepare, FrameSelector)):
                raise ChainError(f"{step.name} is not a prepare step; allowed: prepare steps and frame selectors")
            self._fits(kind, step)
            kind = "image" if isinstance(step, FrameSelector) else step.stream
        for step in self.augment:
            if not isinstance(step, Augment):
                raise ChainError(f"{step.name} is not an augmentation")
            self._fits(kind, step)
            kind = step.stream
        if self.augment and kind == "video":
            raise ChainError(f"{self.augment[0].name}: augmentations of whole video are not offered")
        if self.prepare and isinstance(self.prepare[0], Prepare) and self.prepare[0].stream == "video":
            raise ChainError(f"{self.prepare[0].name}: prepare steps on whole video are not offered")
        self._fits(kind, self.extractor)
        if isinstance(self.extractor, NeedsReference) and self.extractor.reference not in REFERENCES:
            raise ChainError(
                f"{self.extractor.name}: reference: got {self.extractor.reference!r}, allowed: "
                f"{', '.join(sorted(REFERENCES))}, which are read whole before the frames"
            )
        if isinstance(self.extractor, NeedsFit) and self.extractor.stream == "video":
            raise ChainError(f"{self.extractor.name}: extractors that are fitted on whole video are not offered")

    def _fits(self, kind: Stream | None, step: Any) -> None:
        if kind is not None and step.stream != kind:
            raise ChainError(f"{step.name} takes {step.stream}, but the step before it gives {kind}")

    @property
    def stream(self) -> Stream:
        """The stream of the sample that the first step reads."""
        first: Stream = self.steps[0].stream
        return first

    @property
    def streams(self) -> tuple[Stream, ...]:
        """All streams that are read: ``stream``, and what the extractor compares it with."""
        if isinstance(self.extractor, NeedsReference):
            return (self.stream, self.extractor.reference)
        return (self.stream,)

    @property
    def steps(self) -> tuple[Any, ...]:
        """All steps in order, the extractor last."""
        return (*self.prepare, *self.augment, self.extractor)

    @property
    def views(self) -> tuple[int, ...]:
        """The views that are computed of each sample: 0, the sample itself, where nothing is augmented."""
        return tuple(range(1, self.count + 1)) or (0,)

    def view_seed(self, sample_id: str, view: int, step: int, index: int) -> int:
        """The seed that the augmentation number ``step`` has for the ``index``-th medium of a sample, in one view."""
        return derive_seed(self.seed, sample_id, view, step, index)
