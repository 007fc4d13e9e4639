"""The errors of the project, one tree.

GristmillError
├── CatalogError            the catalog is wrong: nothing was run (carries every problem found, with file:line)
├── StateError              fitted state or weights are missing or do not fit the extractor
├── RunFailedError          a run turned red: nothing was published
├── StoreError              the store cannot be read, or refuses what is asked of it
└── SampleError             one sample failed, with a reason code; its neighbours go on
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a sample is in quarantine. These codes are data: they are stored, counted and never reworded."""

    DUPLICATE_ID = "duplicate_id"
    AMBIGUOUS = "ambiguous"
    INVALID_ROW = "invalid_row"
    MISSING_FILE = "missing_file"
    UNREADABLE = "unreadable"
    EMPTY = "empty"
    UNSUPPORTED_FORMAT = "unsupported_format"
    CORRUPT = "corrupt"
    TOO_LARGE = "too_large"
    NO_VIDEO_TRACK = "no_video_track"
    NO_AUDIO_TRACK = "no_audio_track"
    BAD_TIMESTAMPS = "bad_timestamps"
    STREAMS_DISAGREE = "streams_disagree"
    BAD_ENCODING = "bad_encoding"
    SILENT = "silent"
    LOW_QUALITY = "low_quality"
    NO_OVERLAP = "no_overlap"
    NON_FINITE = "non_finite"
    WRONG_WIDTH = "wrong_width"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    WORKER_DIED = "worker_died"
    EXTRACTOR_ERROR = "extractor_error"


class GristmillError(Exception):
    """Base of every error raised on purpose. The text says where, what, got, allowed, cure."""


class CatalogError(GristmillError):
    """The catalog is wrong. ``problems`` holds every finding, one line each, with ``file:line`` where known."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class StateError(GristmillError):
    """Fitted state or weights are missing, or do not fit the extractor that asked for them."""


class RunFailedError(GristmillError):
    """A run turned red; nothing was published and the last snapshot stands."""


class StoreError(GristmillError):
    """The store cannot be read, or refuses what is asked of it."""


class SampleError(GristmillError):
    """One sample cannot be used. ``reason`` is the code that quarantine counts; ``message`` is for people."""

    def __init__(self, reason: Reason, message: str) -> None:
        self.reason = reason
        self.message = message
        super().__init__(f"{reason.value}: {message}")

    def __reduce__(self) -> tuple[type[SampleError], tuple[Reason, str]]:
        return (SampleError, (self.reason, self.message))
