"""What a step must offer. Steps are frozen dataclasses: fields are the options, the repr, the equality and the key.

These kinds of step make a feature:

- a **prepare step** (``Prepare``): a batch of media in, the same number of media of the same kind out;
- an **augmentation** (``Augment``): the same with one seed for each medium; it makes the views of training samples;
- a **frame selector** (``FrameSelector``): the frames of one video in, a few timed images out, so that an image
  extractor can follow;
- an **extractor** (``Extractor``): a batch of media in, one ``FeatureSequence`` each out.

An extractor that works on video is fed chunk by chunk (``VideoExtractor``), so that an hour of video needs no more
memory than a second of it and one decode pass can feed many extractors.

State (pretrained weights, data of NLTK, vectors trained on the corpus) is never read from files here: the pipeline
finds it, digests it for the key, and hands it over as a mapping of name to array with ``with_state``. Any step may need
weights; only an extractor is fitted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

from features.types import Device, FeatureSequence, Image, Stream, VideoClip

State: TypeAlias = Mapping[str, Any]
"""Name -> numpy array or torch tensor."""


@dataclass(frozen=True, kw_only=True)
class WeightsRef:
    """Where pretrained weights lie: a file inside an installed package, a torchvision name, a path, or data of NLTK.

    ``kind`` "package": ``locator`` is ``package:relative/path``; "torchvision": ``<model>/<WEIGHTS NAME>``
    (``resnet18/IMAGENET1K_V1``); "file": a path of a file or folder, relative to the catalog; "nltk": one or more
    resources on NLTK's own path, joined by ``+`` (``tokenizers/punkt_tab+corpora/stopwords``). The state of the last
    kind maps each resource to its folder (a ``pathlib.Path``), which NLTK itself reads.
    """

    kind: Literal["package", "torchvision", "file", "nltk"]
    locator: str


@dataclass(frozen=True, kw_only=True)
class FrameRequest:
    """How a video step wants its frames, so that the decoder makes nothing larger than needed.

    ``pixel_format``: "rgb24" gives ``[N, H, W, 3]``, "gray" gives luma ``[N, H, W]``. ``short_side``: scale so that the
    shorter side has this many pixels, keeping the aspect ratio (never enlarged); ``None`` keeps the size. ``rate``: at
    most this many frames a second, chosen by timestamp; ``None`` gives every frame. ``keyframes_only``: only the frames
    that the container marks as key frames; where nothing else is asked for, no other frame is even decoded.
    ``until_next``: a frame lasts until the next one that is given, and the last one until the video ends, so that the
    frames given tile the video; without it each lasts until the next frame of the video.
    """

    pixel_format: Literal["rgb24", "gray"] = "rgb24"
    short_side: int | None = None
    rate: float | Fraction | None = None
    keyframes_only: bool = False
    until_next: bool = False


class Step(Protocol):
    """What every step has. ``numerics`` names the libraries whose version decides the numbers (they enter the key)."""

    name: ClassVar[str]
    stream: ClassVar[Stream]
    numerics: ClassVar[tuple[str, ...]]

    def __hash__(self) -> int:
        """Equal steps hash alike, as frozen dataclasses do."""
        ...


@runtime_checkable
class Prepare(Step, Protocol):
    """Media in, as many media of the same kind out, in the same order and with the same clock."""

    def prepare(self, batch: Sequence[Any], device: Device) -> list[Any]:
        """Return one new medium for each of ``batch``."""
        ...


@runtime_checkable
class Augment(Step, Protocol):
    """Media in, as many altered media of the same kind out. Only the seed decides how a medium is altered.

    Equal seeds alter equal media equally, whatever else is in the batch, in any process and on any device; draw from
    ``features.random.generator``.
    """

    def augment(self, batch: Sequence[Any], seeds: Sequence[int], device: Device) -> list[Any]:
        """Return one altered medium for each of ``batch``; ``seeds``: one number in [0, 2**63) for each."""
        ...


class ImageSink(Protocol):
    """A frame selector at work on one video."""

    def push(self, frames: VideoClip) -> None:
        """Take the next chunk of frames."""
        ...

    def finish(self) -> list[Image]:
        """Return the chosen frames, each with the span that it stands for, in order of time."""
        ...


@runtime_checkable
class FrameSelector(Step, Protocol):
    """Frames of a video in, a few timed images out."""

    @property
    def request(self) -> FrameRequest:
        """The frames that this selector wants."""
        ...

    def select(self) -> ImageSink:
        """Begin a video."""
        ...


@runtime_checkable
class Extractor(Step, Protocol):
    """A batch of media in, one ``FeatureSequence`` of width ``dim`` each out. The same code runs on CPU and GPU."""

    @property
    def dim(self) -> int:
        """Width of a row."""
        ...

    def __call__(self, batch: Sequence[Any], device: Device) -> list[FeatureSequence]:
        """Return one sequence for each of ``batch``, in order. Results do not depend on what else is in the batch."""
        ...


class FeatureSink(Protocol):
    """A video extractor at work on one video."""

    def push(self, frames: VideoClip) -> None:
        """Take the next chunk of frames."""
        ...

    def finish(self) -> FeatureSequence:
        """Return the rows of the whole video."""
        ...


@runtime_checkable
class VideoExtractor(Extractor, Protocol):
    """An extractor that is fed a video chunk by chunk. ``__call__`` on whole clips gives the same rows."""

    @property
    def request(self) -> FrameRequest:
        """The frames that this extractor wants."""
        ...

    def open(self, device: Device) -> FeatureSink:
        """Begin a video."""
        ...


@runtime_checkable
class NeedsReference(Protocol):
    """A video extractor that compares the frames with another medium of the same sample, which is read whole."""

    reference: ClassVar[Stream]

    def with_reference(self, medium: Any) -> VideoExtractor:
        """Return the extractor for one sample. Raises ``SampleError`` when ``medium`` cannot be used."""
        ...


@runtime_checkable
class NeedsWeights(Protocol):
    """A step, of any kind, that works with pretrained weights or data."""

    @property
    def weights_ref(self) -> WeightsRef | None:
        """Where the weights lie; ``None`` where these options need none."""
        ...

    def with_state(self, state: State) -> Any:
        """Return the same step with these weights. Raises ``StateError`` when they do not fit."""
        ...


@runtime_checkable
class Flags(Step, Protocol):
    """A prepare step that has something to say of media that it lets pass."""

    def flags(self, batch: Sequence[Any]) -> list[str]:
        """Return for each of ``batch`` what a person should know of it; empty where there is nothing."""
        ...


_EXAMPLES = 100


@dataclass
class WordCounts:
    """Words (terms, tokens) that an extractor looked up: how many in all, and how many it does not know.

    ``examples``: some of those that it does not know, with how often they were met. Counts of parts add up with
    ``+=``; of the examples the hundred most frequent are kept.
    """

    words: int = 0
    unknown: int = 0
    examples: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, words: int, unknown: Iterable[str] | Mapping[str, int]) -> WordCounts:
        """Counts of ``words`` looked up, of which these were ``unknown``: each as often as it was met, or counted."""
        missing = Counter(unknown)
        return cls(words, missing.total(), dict(missing.most_common(_EXAMPLES)))

    def __iadd__(self, other: WordCounts) -> WordCounts:
        """Take in the counts of another part."""
        self.words += other.words
        self.unknown += other.unknown
        self.examples = dict((Counter(self.examples) + Counter(other.examples)).most_common(_EXAMPLES))
        return self


@runtime_checkable
class CountsWords(Step, Protocol):
    """An extractor with a vocabulary. Words outside it do not count towards its rows, and are counted here."""

    def counted(self, batch: Sequence[Any], device: Device) -> tuple[list[FeatureSequence], WordCounts]:
        """Return what ``__call__`` does, and what was looked up for it."""
        ...


@dataclass(frozen=True)
class Example:
    """What an extractor is fitted on: one prepared medium of the training split, and its sample's label."""

    medium: Any
    label: str | None = None


@runtime_checkable
class NeedsFit(Protocol):
    """An extractor that is fitted on the training split before it can extract."""

    def fit(self, corpus: Iterable[Example]) -> dict[str, Any]:
        """Learn from the corpus; the same corpus in the same order gives the same bytes."""
        ...

    def with_state(self, state: State) -> Extractor:
        """Return an extractor that uses this state. Raises ``StateError`` when it does not fit."""
        ...


def run_video(extractor: VideoExtractor, batch: Sequence[VideoClip], device: Device) -> list[FeatureSequence]:
    """``__call__`` of a video extractor in terms of ``open``: each clip in one push."""
    results = []
    for clip in batch:
        sink = extractor.open(device)
        sink.push(clip)
        results.append(sink.finish())
    return results
