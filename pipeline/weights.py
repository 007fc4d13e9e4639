"""Pretrained weights on disk: found, fetched once, digested for the key, and read without ever running a pickle."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from blake3 import blake3

from features.base import State, WeightsRef
from features.errors import StateError
from pipeline.models import HUB, files, from_hub, load_folder
from pipeline.store.shard import DIGEST_BYTES
from pipeline.vectors import READERS, load_vectors

_log = logging.getLogger(__name__)


def resolve(ref: WeightsRef, base: Path, *, fetch: bool = True) -> Path:
    """Return the file or folder that ``ref`` means. ``base`` is the catalog's folder, which paths are relative to.

    Weights that torchvision publishes are looked for in torch's cache (``TORCH_HOME``), and downloaded there once,
    checked against the digest in their name; a "file" ``hub:OWNER/NAME`` is found as ``from_hub`` does. Raises
    ``StateError`` when there is no such file and none can be had, or it would have to be downloaded and ``fetch`` is
    not allowed.
    """
    if ref.kind == "package":
        return _in_package(ref.locator)
    if ref.kind == "torchvision":
        return _from_torchvision(ref.locator, fetch=fetch)
    if ref.locator.startswith(HUB):
        return from_hub(ref.locator, fetch=fetch)
    path = base / ref.locator
    if not path.exists():
        raise StateError(f"weights: got {ref.locator!r}, but {path} is no file; cure: put it there or change 'weights'")
    return path


def _in_package(locator: str) -> Path:
    package, _, inside = locator.partition(":")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    if not folders:
        raise StateError(f"weights: package {package!r} of {locator!r} is not installed; cure: install it with pip")
    path = Path(folders[0]) / inside
    if not path.exists():
        raise StateError(f"weights: package {package!r} has no file {inside!r}; cure: reinstall it")
    return path


def _from_torchvision(locator: str, *, fetch: bool) -> Path:
    import torch
    import torchvision

    model, _, name = locator.partition("/")
    try:
        url: str = torchvision.models.get_model_weights(model)[name].url
    except (KeyError, ValueError) as error:
        raise StateError(
            f"weights: torchvision {torchvision.__version__} has no {locator!r}; allowed: MODEL/NAME such as "
            "'resnet18/IMAGENET1K_V1'"
        ) from error
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not path.is_file():
        if not fetch:
            raise StateError(
                f"weights: {path} is not there yet; cure: a run fetches it from {url}, or download it elsewhere and "
                "place it there"
            )
        download(url, path)
    return path


def download(url: str, path: Path) -> None:
    """Fetch ``url`` into ``path``, whole or not at all.

    Its SHA-256 must begin with the digits in the name, if there are any (``resnet18-f37072fd.pth``). Raises
    ``StateError`` when the network fails, the disk refuses, or the digest differs.
    """
    import torch

    prefix = torch.hub.HASH_REGEX.search(path.name)
    cure = f"cure: download it elsewhere and place it at {path}"
    _log.info("downloading %s to %s", url, path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(
            url, str(path), hash_prefix=prefix.group(1) if prefix else None, progress=sys.stderr.isatty()
        )
    except OSError as error:
        raise StateError(f"weights: {url} cannot be fetched to {path} ({error}); {cure}") from error
    except RuntimeError as error:
        raise StateError(f"weights: {url} is not what was published or was blocked ({error}); {cure}") from error


def digest(ref: WeightsRef, base: Path) -> bytes:
    """BLAKE3 digest of what ``ref`` means, 16 bytes: of a file's bytes; of names and bytes where it is folders."""
    state = blake3()
    if ref.kind == "nltk":
        for name, folder in sorted(nltk_folders(ref.locator).items()):
            _digest_folder(state, name, folder, sorted(path for path in folder.rglob("*") if path.is_file()))
        return state.digest(length=DIGEST_BYTES)
    path = resolve(ref, base)
    if path.is_dir():
        _digest_folder(state, "", path, files(path))
    else:
        state.update_mmap(path)
    return state.digest(length=DIGEST_BYTES)


def _digest_folder(state: blake3, name: str, folder: Path, paths: list[Path]) -> None:
    for path in paths:
        state.update(f"{name}\0{path.relative_to(folder)}\0{path.stat().st_size}\0".encode())
        state.update_mmap(path)


def nltk_folders(locator: str) -> dict[str, Path]:
    """Resource -> its folder, found on NLTK's own path. Raises ``StateError`` where some are missing: all of them."""
    import nltk

    found, missing, packed = {}, [], []
    for resource in locator.split("+"):
        try:
            found[resource] = Path(str(nltk.data.find(resource)))
        except LookupError:
            missing.append(resource)
            packed += [entry for entry in nltk.data.path if (Path(entry) / f"{resource}.zip").is_file()]
    if missing:
        names = " ".join(resource.rpartition("/")[2] for resource in missing)
        zipped = f" (there is a zip in {', '.join(packed)}, which fetch unpacks)" if packed else ""
        raise StateError(
            f"NLTK data: {', '.join(map(repr, missing))} {'is' if len(missing) == 1 else 'are'} on none of NLTK's "
            f"paths ({', '.join(nltk.data.path)}){zipped}; cure: gristmill fetch nltk {names}, or set NLTK_DATA"
        )
    return found


def _safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise StateError(f"weights: {path} is not a whole safetensors file ({error}); cure: copy it again") from error


def _torch(path: Path) -> State:
    from pickle import UnpicklingError

    import torch

    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise StateError(
            f"weights: {path} is no plain state_dict: reading it would run a pickle, which is never done; "
            "cure: save model.state_dict(), best as .safetensors"
        ) from error
    except (RuntimeError, EOFError, ValueError, LookupError, AssertionError, OSError) as error:
        raise StateError(f"weights: {path} is damaged or no torch file ({error!r}); cure: copy it again") from error
    if not isinstance(found, dict) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        keys = ", ".join(map(repr, list(found)[:5])) if isinstance(found, dict) else type(found).__name__
        raise StateError(f"weights: {path} holds {keys}, allowed: names with tensors; cure: save model.state_dict()")
    return found


_READERS: dict[str, Callable[[Path], State]] = {
    ".pth": _torch,
    ".pt": _torch,
    ".safetensors": _safetensors,
    **dict.fromkeys(READERS, load_vectors),
}


def load(ref: WeightsRef, base: Path) -> State:
    """Read the weights that ``ref`` means, by the file's extension; for NLTK's data, find their folders.

    ``.pth``, ``.pt`` (tensors only, never a pickle) and ``.safetensors`` give tensors by name; ``.txt``, ``.vec``,
    ``.glove`` and ``.bin`` are word vectors (``pipeline.vectors``); a folder is a transformer model
    (``pipeline.models``). Raises ``StateError`` when it is missing, damaged or of another kind.
    """
    if ref.kind == "nltk":
        return nltk_folders(ref.locator)
    path = resolve(ref, base)
    if path.is_dir():
        return load_folder(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise StateError(f"weights: got {path}, allowed: a file that ends in {', '.join(_READERS)}")
    return reader(path)
