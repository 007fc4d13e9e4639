"""Folders of transformer models: what is read of one, and how one that the hub publishes is found."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from features.base import State
from features.errors import StateError

_log = logging.getLogger(__name__)

HUB = "hub:"
_WANTED = ("*.json", "*.safetensors", "*/config.json")


def from_hub(locator: str, *, fetch: bool = True) -> Path:
    """Return the folder of ``hub:OWNER/NAME`` or ``hub:OWNER/NAME@REVISION`` on Hugging Face's hub.

    It is looked for in the hub's cache (``HF_HOME``), and downloaded there only where it is not, which happens because
    the catalog names it. Raises ``StateError`` where it is not there and cannot be had, or ``fetch`` is not allowed.
    """
    from huggingface_hub import snapshot_download

    name, _, revision = locator.removeprefix(HUB).partition("@")
    cure = "cure: download it elsewhere (hf download), and give the folder instead"
    try:
        return Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except (OSError, ValueError) as error:
        if not fetch:
            raise StateError(f"weights: {locator} is not in the hub's cache yet; a run fetches it; {cure}") from error
        _log.info("%s is not in the hub's cache (%s): downloading it", name, error)
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(_WANTED)))
    except (OSError, ValueError, RuntimeError) as error:
        raise StateError(f"weights: {locator} cannot be fetched ({error}); {cure}") from error


def files(folder: Path) -> list[Path]:
    """The files of a model's folder that its digest covers and that are read, in order of their names."""
    found = {path for pattern in _WANTED for path in folder.glob(pattern) if path.is_file()}
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def load_folder(folder: Path) -> State:
    """Read a model's folder: ``files`` maps the names of its JSON files to their bytes, ``tensors`` its weights.

    Weights are read from ``.safetensors`` only, never from a pickle. Raises ``StateError`` where there are none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found = files(folder)
    weights = [path for path in found if path.suffix == ".safetensors"]
    if not weights:
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        raise StateError(
            f"weights: {folder} has no .safetensors"
            + (f", only {', '.join(pickled)}, which is a pickle and is never read" if pickled else "")
            + "; cure: save the model with save_pretrained(folder, safe_serialization=True)"
        )
    tensors: dict[str, Any] = {}
    for path in weights:
        try:
            tensors |= load_file(path)
        except SafetensorError as error:
            raise StateError(
                f"weights: {path} is not a whole safetensors file ({error}); cure: copy it again"
            ) from error
    documents = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found if path.suffix == ".json"}
    for name, content in documents.items():
        try:
            json.loads(content)
        except ValueError as error:
            raise StateError(f"weights: {folder / name} is not JSON ({error}); cure: copy it again") from error
    return {"files": documents, "tensors": tensors}
