"""An error as the quarantine row of a sample: its reason, and where it happened."""

from __future__ import annotations

import sys
import traceback

from features.errors import Reason, SampleError
from pipeline.execute.work import FeatureWork, ShardWork
from pipeline.store.quarantine import Failure


def failure_of(error: Exception, work: ShardWork, feature: FeatureWork, sample_id: str, stage: str) -> Failure:
    """The quarantine row of a sample that failed in one feature."""
    expected = isinstance(error, SampleError)
    return Failure(
        sample_id=sample_id,
        feature=feature.chain.name,
        stage=stage,
        reason=_reason_of(error).value,
        message=error.message if isinstance(error, SampleError) else f"{type(error).__name__}: {error}",
        traceback="" if expected else "".join(traceback.format_exception(error)),
        content=feature.compute[sample_id],
        recipe=feature.recipe,
        run_id=work.run_id,
    )


def _reason_of(error: Exception) -> Reason:
    if isinstance(error, SampleError):
        return error.reason
    return Reason.OUT_OF_MEMORY if _is_out_of_memory(error) else Reason.EXTRACTOR_ERROR


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out; torch and OpenCV say so in words and codes of their own."""
    if isinstance(error, MemoryError) or device_is_full(error):
        return True
    words = ("can't allocate memory", "not enough memory", "Insufficient memory", "Cannot allocate memory")
    speaks = isinstance(error, (RuntimeError, OSError)) or type(error).__module__ == "cv2"
    return speaks and any(word in str(error) for word in words)


def device_is_full(error: Exception) -> bool:
    """Whether the memory of a GPU ran out: a smaller batch may still do."""
    full = getattr(sys.modules.get("torch"), "OutOfMemoryError", ())  # whoever raised it has imported torch
    return isinstance(error, full)
