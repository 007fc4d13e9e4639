"""From catalog to snapshot, and back out to training. The only code that touches files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.loader import open_store

__all__ = ["open_store"]


def __getattr__(name: str) -> Any:
    if name == "open_store":  # it imports torch, which most of the pipeline does without
        from pipeline.loader import open_store

        return open_store
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
