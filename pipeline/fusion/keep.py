"""What a training that is going on keeps, so that one that was killed goes on where it was, to the same bits."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import quote

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)
_CURRENT = "current"
_DOCUMENT = "document"


class Blobs(Protocol):
    """Where it is kept. A blob is replaced whole, or not at all."""

    def read(self, name: str) -> bytes | None:
        """The content of a blob; ``None`` where there is none."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a blob, or replace it."""
        ...


class Kept(NamedTuple):
    """Tensors and a JSON document: a model that is trained, or one in the midst of it."""

    tensors: dict[str, torch.Tensor]
    document: dict[str, Any]


class Keeper:
    """Keeps finished models, and every ``seconds`` the one that is being trained; without ``blobs`` nothing."""

    def __init__(self, blobs: Blobs | None = None, seconds: float = 20.0) -> None:
        self._blobs = blobs
        self._seconds = seconds
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time to save the model that is being trained."""
        return self._blobs is not None and time.monotonic() - self._last >= self._seconds

    def finished(self, model: str) -> Kept | None:
        """A model that was finished."""
        return self._read(f"model-{quote(model, safe='')}")

    def finish(self, model: str, tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]) -> None:
        """Keep a finished model."""
        self._write(f"model-{quote(model, safe='')}", tensors, document)

    def current(self, model: str) -> Kept | None:
        """How far a model had come, if it is the one that was being trained."""
        kept = self._read(_CURRENT)
        return kept if kept is not None and kept.document["model"] == model else None

    def save(self, model: str, tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]) -> None:
        """Keep how far a model has come."""
        self._write(_CURRENT, tensors, {**document, "model": model})
        self._last = time.monotonic()

    def _read(self, name: str) -> Kept | None:
        content = None if self._blobs is None else self._blobs.read(f"{name}.safetensors")
        if content is None:
            return None
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            size = int.from_bytes(content[:8], "little")
            header = json.loads(content[8 : 8 + size])
            return Kept(load(content), json.loads(header["__metadata__"][_DOCUMENT]))
        except (SafetensorError, ValueError, KeyError) as error:
            _log.warning(
                "what was kept of a training cannot be read, so that model is trained anew: %s: %s", name, error
            )
            return None

    def _write(self, name: str, tensors: Mapping[str, torch.Tensor], document: Mapping[str, Any]) -> None:
        if self._blobs is None:
            return
        from safetensors.torch import save

        whole = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
        self._blobs.write(f"{name}.safetensors", save(whole, {_DOCUMENT: json.dumps(dict(document))}))
