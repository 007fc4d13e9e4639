"""Reading media for a page: small pieces of them, by the readers that the work itself uses."""

from __future__ import annotations

from functools import partial
from typing import Any

from features.base import FrameSelector, NeedsWeights, Prepare
from features.errors import Reason
from features.time import NS_PER_SECOND, Span
from features.types import AudioClip, Device, Image, Stream, Text
from pipeline import weights
from pipeline.chain import Chain
from pipeline.media.audio import read_audio
from pipeline.media.image import read_image
from pipeline.media.source import Limits, Source
from pipeline.media.text import read_text
from pipeline.report.album import Album
from pipeline.report.material import Material, Shown

NOT_OPENED = frozenset({Reason.WORKER_DIED.value, Reason.TIMEOUT.value, Reason.OUT_OF_MEMORY.value})
"""What failed like this may take the process that makes the page with it: its media are not opened."""
_LIMITS = Limits(max_image_pixels=50_000_000, max_image_bytes=128 << 20, max_text_bytes=4 << 20)


def silently(message: str) -> None:
    """Take a note of a reader: the run has told it already."""
    del message


def beginning(sample: Shown, seconds: float) -> Span:
    """The first ``seconds`` of a sample."""
    length = int(seconds * NS_PER_SECOND)
    if sample.span is None:
        return Span(0, length)
    return Span(sample.span.start_ns, min(sample.span.end_ns, sample.span.start_ns + length))


def open_image(sample: Shown) -> Image:
    """The picture of a sample."""
    return read_image(Source(sample.uris["image"]), _LIMITS)


def open_text(sample: Shown) -> Text:
    """The text of a sample."""
    return read_text(Source(sample.uris["text"]), span=sample.span, limits=_LIMITS)


def open_sound(sample: Shown, span: Span) -> AudioClip:
    """The sound of a sample inside ``span``."""
    return read_audio(Source(sample.uris["audio"]), span=span, note=silently)


DEVICE: Device = "cpu"
"""Where the few media of a page are prepared, whatever the run used."""


def prepares(material: Material, stream: Stream) -> list[Chain]:
    """The features of a stream that have prepare steps or augmentations."""
    return [
        chain
        for chain in material.dataset.features.values()
        if chain.stream == stream and (_prepare_steps(chain) or augmentations(chain))
    ]


def _prepare_steps(chain: Chain) -> list[Any]:
    """The prepare steps that come before any frame selector."""
    found = []
    for step in chain.prepare:
        if isinstance(step, FrameSelector) or not isinstance(step, Prepare):
            break
        found.append(step)
    return found


def augmentations(chain: Chain) -> tuple[Any, ...]:
    """The augmentations of a feature; empty where it has none."""
    return tuple(getattr(chain, "augment", ()) or ())


class Preparer:
    """Applies the prepare steps of features to single media; weights are loaded once."""

    def __init__(self, material: Material) -> None:
        self._folder = material.catalog.folder
        self._steps: dict[str, list[Any]] = {}

    def __call__(self, chain: Chain, medium: Any) -> Any:
        """What the feature makes of a medium before it is extracted (or augmented)."""
        if chain.name not in self._steps:
            self._steps[chain.name] = [self._loaded(step) for step in _prepare_steps(chain)]
        for step in self._steps[chain.name]:
            (medium,) = step.prepare([medium], DEVICE)
        return medium

    def augmented(self, chain: Chain, medium: Any, sample_id: str, view: int) -> Any:
        """One view of a sample's medium: the very one that its stored row was made from."""
        medium = self(chain, medium)
        for number, step in enumerate(augmentations(chain)):
            seed = chain.view_seed(sample_id, view, number, 0)
            (medium,) = self._loaded(step).augment([medium], [seed], DEVICE)
        return medium

    def _loaded(self, step: Any) -> Any:
        ref = step.weights_ref if isinstance(step, NeedsWeights) else None
        return step if ref is None else step.with_state(weights.load(ref, self._folder))


def steps_in_words(chain: Chain) -> str:
    """The prepare steps of a feature by name: ``audio.denoise, audio.resample``."""
    return ", ".join(step.name for step in (*_prepare_steps(chain), *augmentations(chain)))


def attempt_open(album: Album, what: str, sample: Shown, opener: Any, *arguments: Any) -> Any:
    """``opener(sample, ...)``; where it fails the album says so and gives ``None``."""
    return album.attempt(f"{what} of {sample.sample_id}", partial(opener, sample, *arguments))
