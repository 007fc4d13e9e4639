"""Media and features as frozen, checked value types that carry their own times.

Arrays inside are read-only views: a step that wants to change one makes a copy.
"""

from __future__ import annotations

import operator
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from features.time import ALWAYS, NS_PER_SECOND, Span, samples_to_ns

Stream: TypeAlias = Literal["video", "audio", "image", "text"]
STREAMS: tuple[Stream, ...] = ("video", "audio", "image", "text")

Device: TypeAlias = Literal["cpu", "cuda"]
"""What computes a batch, by the name that torch takes. A name, for steps that need nothing else of torch."""


def _checked(what: str, array: Any, dtype: type[np.generic], ndim: tuple[int, ...]) -> npt.NDArray[Any]:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim not in ndim:
        got = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"{what}: got {got}, allowed: {np.dtype(dtype)} with {' or '.join(map(str, ndim))} dimensions")
    view = array.view()
    view.flags.writeable = False
    return view


@dataclass(frozen=True, eq=False, kw_only=True)
class Image:
    """A picture: ``pixels`` uint8 ``[H, W, 3]``, RGB, upright. ``span`` is when it shows (``ALWAYS``: a still)."""

    pixels: npt.NDArray[np.uint8]
    span: Span = ALWAYS

    def __post_init__(self) -> None:
        pixels = _checked("Image.pixels", self.pixels, np.uint8, (3,))
        if pixels.shape[2] != 3 or 0 in pixels.shape:
            raise ValueError(f"Image.pixels: got shape {list(pixels.shape)}, allowed: [H >= 1, W >= 1, 3]")
        object.__setattr__(self, "pixels", pixels)

    def __repr__(self) -> str:
        height, width = self.pixels.shape[:2]
        return f"Image({width}x{height}, {self.span})"


@dataclass(frozen=True, eq=False, kw_only=True)
class AudioClip:
    """A piece of sound: ``samples`` float32 ``[channels, N]``, full scale is ±1, at ``sample_rate`` Hz.

    Sample ``i`` begins ``i / sample_rate`` seconds after ``start_ns``.
    """

    samples: npt.NDArray[np.float32]
    sample_rate: int
    start_ns: int = 0

    def __post_init__(self) -> None:
        samples = _checked("AudioClip.samples", self.samples, np.float32, (2,))
        if samples.shape[0] < 1:
            raise ValueError(f"AudioClip.samples: got {samples.shape[0]} channels, allowed: at least 1")
        if self.sample_rate < 1:
            raise ValueError(f"AudioClip.sample_rate: got {self.sample_rate}, allowed: >= 1")
        object.__setattr__(self, "samples", samples)

    @property
    def span(self) -> Span:
        """From the first sample to the end of the last one."""
        return Span(self.start_ns, self.start_ns + samples_to_ns(self.samples.shape[1], self.sample_rate))

    def __repr__(self) -> str:
        channels, n = self.samples.shape
        return f"AudioClip({channels} x {n} at {self.sample_rate} Hz, {self.span})"


@dataclass(frozen=True, eq=False, kw_only=True)
class VideoClip:
    """Consecutive decoded frames, or a chunk of them.

    ``pixels`` uint8 ``[N, H, W, 3]`` (RGB) or ``[N, H, W]`` (luma); ``start_ns``, ``end_ns`` int64 ``[N]``: each frame
    is shown in ``[start, end)``; starts strictly increase and no frame ends after the next one starts.
    """

    pixels: npt.NDArray[np.uint8]
    start_ns: npt.NDArray[np.int64]
    end_ns: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        object.__setattr__(self, "pixels", _checked("VideoClip.pixels", self.pixels, np.uint8, (3, 4)))
        _check_times("VideoClip", self, len(self.pixels))
        if np.any(self.start_ns[1:] <= self.start_ns[:-1]) or np.any(self.end_ns[:-1] > self.start_ns[1:]):
            raise ValueError("VideoClip: frames overlap or go back in time, allowed: start < end <= next start")

    def __len__(self) -> int:
        return len(self.pixels)

    def __repr__(self) -> str:
        return f"VideoClip({len(self)} frames {list(self.pixels.shape[1:])})"


@dataclass(frozen=True)
class TextSegment:
    """A piece of text and when it holds (``ALWAYS`` for text without times)."""

    text: str
    span: Span = ALWAYS


@dataclass(frozen=True)
class Text:
    """The text of a sample: segments (captions, words, or one segment for plain text) in order of time."""

    segments: tuple[TextSegment, ...]

    @property
    def plain(self) -> str:
        """All segments joined by spaces."""
        return " ".join(segment.text for segment in self.segments)


Media: TypeAlias = Image | AudioClip | VideoClip | Text


def _check_times(what: str, value: Any, rows: int) -> None:
    for name in ("start_ns", "end_ns"):
        array = _checked(f"{what}.{name}", getattr(value, name), np.int64, (1,))
        if len(array) != rows:
            raise ValueError(f"{what}.{name}: got {len(array)} entries, allowed: one for each of {rows} rows")
        object.__setattr__(value, name, array)
    if np.any(value.end_ns < value.start_ns):
        raise ValueError(f"{what}: a row ends before it starts, allowed: start_ns <= end_ns")


_ALL_VALID = np.zeros(0, dtype=np.bool_)
"""The default of ``FeatureSequence.valid``: every row is valid."""


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureSequence:
    """What an extractor makes of one sample: ``T`` rows of width ``D``, each with its time and validity.

    ``values`` float32 ``[T, D]``; ``start_ns``, ``end_ns`` int64 ``[T]``, half-open, ascending by start; ``valid`` bool
    ``[T]``. A row that is not valid holds zeros that mean nothing: absence is the flag, never the number.
    """

    values: npt.NDArray[np.float32]
    start_ns: npt.NDArray[np.int64]
    end_ns: npt.NDArray[np.int64]
    valid: npt.NDArray[np.bool_] = field(default_factory=lambda: _ALL_VALID)

    def __post_init__(self) -> None:
        values = _checked("FeatureSequence.values", self.values, np.float32, (2,))
        object.__setattr__(self, "values", values)
        _check_times("FeatureSequence", self, len(values))
        valid = np.ones(len(values), dtype=np.bool_) if self.valid is _ALL_VALID else self.valid
        valid = _checked("FeatureSequence.valid", valid, np.bool_, (1,))
        if len(valid) != len(values):
            raise ValueError(f"FeatureSequence.valid: got {len(valid)} entries, allowed: {len(values)}, one a row")
        object.__setattr__(self, "valid", valid)
        if np.any(self.start_ns[1:] < self.start_ns[:-1]):
            raise ValueError("FeatureSequence: rows are not in order of start_ns")

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        """For pickle: as bytes, which takes a third of the time of four arrays. What comes back is read-only too."""
        arrays = (self.values, self.start_ns, self.end_ns, self.valid)
        whole = operator.index(protocol) >= 5  # older pickles, and copies, know no buffers
        return _restored, (
            self.dim,
            *(
                pickle.PickleBuffer(each.data) if whole and each.flags.c_contiguous else each.tobytes()
                for each in arrays
            ),
        )

    @property
    def dim(self) -> int:
        """Width D of a row."""
        return int(self.values.shape[1])

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        masked = int(len(self) - np.count_nonzero(self.valid))
        when = ""
        if len(self):
            when = f", {self.start_ns[0] / NS_PER_SECOND:.3f} s .. {self.end_ns[-1] / NS_PER_SECOND:.3f} s"
        return f"FeatureSequence({len(self)} x {self.dim}{when}, {masked} masked)"

    @classmethod
    def from_rows(cls, rows: npt.NDArray[np.float32], spans: Sequence[Span]) -> FeatureSequence:
        """Make a sequence of valid rows from ``rows`` ``[T, D]`` and one span a row."""
        return cls(
            values=rows,
            start_ns=np.array([span.start_ns for span in spans], dtype=np.int64),
            end_ns=np.array([span.end_ns for span in spans], dtype=np.int64),
        )

    @classmethod
    def empty(cls, dim: int) -> FeatureSequence:
        """Zero rows of width ``dim``."""
        nothing = np.zeros(0, dtype=np.int64)
        return cls(values=np.zeros((0, dim), dtype=np.float32), start_ns=nothing, end_ns=nothing)


def _restored(dim: int, values: bytes, start_ns: bytes, end_ns: bytes, valid: bytes) -> FeatureSequence:
    """A sequence from the bytes of a checked one, which may have come in buffers that can be written."""
    sequence = object.__new__(FeatureSequence)
    starts, ends = (np.frombuffer(memoryview(times).toreadonly(), np.int64) for times in (start_ns, end_ns))
    rows = np.frombuffer(memoryview(values).toreadonly(), np.float32).reshape(len(starts), dim)
    flags = np.frombuffer(memoryview(valid).toreadonly(), np.bool_)
    sequence.__dict__.update(values=rows, start_ns=starts, end_ns=ends, valid=flags)
    return sequence
