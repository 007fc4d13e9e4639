"""What a stored row is the result of: its content (what was read) and its recipe (what was done to it).

A row is current when both digests equal those that would be computed today. The recipe covers every step's name,
options and code, the versions of the libraries that a step names as deciding its numbers, the weights and the fitted
state. Code means the syntax tree, without comments, docstrings and layout, of the module that defines the step and of
every first-party module that it imports, however indirectly. An import made by a computed name
(``import_module(variable)``) cannot be followed.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.chain import Chain
from pipeline.store.shard import DIGEST_BYTES

_OURS = ("features", "pipeline")
_INSTALLED = tuple(
    Path(sysconfig.get_paths()[name]).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


def digest(*parts: bytes) -> bytes:
    """BLAKE2b of the parts, each preceded by its length, so that no two lists of parts run into one another."""
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.digest()


def digest_rows(rows: npt.NDArray[np.uint8], *, of: bytes) -> npt.NDArray[np.uint8]:
    """BLAKE2b of each row of bytes, uint8 ``[N, W]`` to ``[N, 16]``; ``of`` (up to 64 bytes) says what the rows are."""
    flat, width = np.ascontiguousarray(rows).tobytes(), rows.shape[1]
    found = b"".join(
        hashlib.blake2b(flat[start : start + width], digest_size=DIGEST_BYTES, key=of).digest()
        for start in range(0, len(flat), width)
    )
    return np.frombuffer(found, dtype=np.uint8).reshape(len(rows), DIGEST_BYTES)


def digest_json(document: Any) -> bytes:
    """Digest of a JSON document, independent of the order of its keys."""
    return digest(json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def options(step: Any) -> dict[str, Any]:
    """A step's options by name, as JSON holds them."""
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(step)))
    return found


def recipe(
    chain: Chain, *, weights: Sequence[bytes | None] | None = None, state: bytes | None = None
) -> dict[str, Any]:
    """Everything but the sample that decides a row's numbers, as a JSON document whose digest is half the key.

    ``weights`` holds for each step the digest of its pretrained weights, ``None`` where it has none; ``state`` is the
    digest of what the extractor was fitted to.
    The feature's name is left out: renaming a feature changes no number.
    """
    views = {"count": chain.count, "seed": chain.seed} if chain.augment else {}
    return views | {
        "steps": [
            {
                "step": step.name,
                "options": options(step),
                "code": code_digest(type(step).__module__).hex(),
                "libraries": {library: _version(library) for library in sorted(step.numerics)},
                "weights": None if found is None else found.hex(),
            }
            for step, found in zip(chain.steps, weights or [None] * len(chain.steps), strict=True)
        ],
        "state": state.hex() if state else None,
    }


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError as error:
        raise LookupError(f"numerics: no installed distribution is called {library!r}") from error


def explain(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Say in a few words what differs between two recipes: ``audio.mfcc n_mfcc 13 -> 20``."""
    differences: list[str] = []
    differences += [
        f"views {part} {old.get(part)} -> {new.get(part)}"
        for part in ("count", "seed")
        if old.get(part) != new.get(part)
    ]
    old_names = [step["step"] for step in old["steps"]]
    new_names = [step["step"] for step in new["steps"]]
    if old_names != new_names:
        differences.append(f"steps {' + '.join(old_names)} -> {' + '.join(new_names)}")
    else:
        for before, after in zip(old["steps"], new["steps"], strict=True):
            differences.extend(_explain_step(before, after))
    if old["state"] != new["state"]:
        differences.append("state changed")
    return ", ".join(differences) or "nothing"


def _explain_step(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    name = after["step"]
    for option in sorted(before["options"].keys() | after["options"].keys()):
        old, new = before["options"].get(option), after["options"].get(option)
        if old != new:
            yield f"{name} {option} {json.dumps(old)} -> {json.dumps(new)}"
    for library in sorted(before["libraries"].keys() | after["libraries"].keys()):
        old, new = before["libraries"].get(library), after["libraries"].get(library)
        if old != new:
            yield f"{name} runs on {library} {old} -> {new}"
    if before.get("weights") != after.get("weights"):
        yield f"{name} weights changed"
    if before["code"] != after["code"]:
        yield f"{name} code changed"


def code_digest(module: str) -> bytes:
    """Digest of the normalised source of ``module`` and of all first-party modules that it imports, transitively.

    Raises ``LookupError`` when the module's source cannot be found.
    """
    origin = _origin(module)
    if origin is None:
        raise LookupError(f"{module}: no Python source found; allowed: steps defined in .py files")
    seen: dict[str, Path] = {}
    todo = [module, *_parents(module)]
    while todo:
        name = todo.pop()
        path = _origin(name)
        if name in seen or path is None or not _first_party(name, path):
            continue
        seen[name] = path
        for imported in _imports(path, name, path.stat().st_mtime_ns):
            if _is_installed(imported.partition(".")[0]):
                continue
            todo.extend((imported, *_parents(imported)))
    parts = [f"{name}\0{_normalised(path, path.stat().st_mtime_ns)}".encode() for name, path in sorted(seen.items())]
    return digest(*parts)


@lru_cache(maxsize=4096)
def _is_installed(top: str) -> bool:
    """Whether a top-level module is of the standard library or an installed package."""
    if top in _OURS:
        return False
    path = _origin(top)
    return top in sys.stdlib_module_names or (path is not None and not _first_party(top, path))


def _parents(module: str) -> list[str]:
    names = module.split(".")
    return [".".join(names[:end]) for end in range(1, len(names))]


def _origin(module: str) -> Path | None:
    """The source file of a module, found without importing it or anything else."""
    spec = _find(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).resolve()


def _find(module: str) -> ModuleSpec | None:
    if module in sys.modules:
        return sys.modules[module].__spec__
    parent, _, _ = module.rpartition(".")
    if not parent:
        return PathFinder.find_spec(module)
    package = _find(parent)
    if package is None or package.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(module, list(package.submodule_search_locations))


def _first_party(module: str, path: Path) -> bool:
    """Whether a module is the project's or the user's own: not of the standard library, not installed."""
    top = module.partition(".")[0]
    return top in _OURS or not any(path.is_relative_to(folder) for folder in _INSTALLED)


@lru_cache(maxsize=4096)
def _tree(path: Path, mtime_ns: int) -> ast.Module:
    del mtime_ns  # part of the cache key: an edited module is read again
    return ast.parse(path.read_bytes(), filename=path.name)


@lru_cache(maxsize=4096)
def _normalised(path: Path, mtime_ns: int) -> str:
    tree = ast.parse(ast.unparse(_tree(path, mtime_ns)))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = [
                statement
                for statement in node.body
                if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
            ] or [ast.Pass()]
    return ast.unparse(tree)


@lru_cache(maxsize=4096)
def _imports(path: Path, module: str, mtime_ns: int) -> tuple[str, ...]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: list[str] = []
    for node in ast.walk(_tree(path, mtime_ns)):
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            found.append(base)
            found.extend(f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.Call) and isinstance(node.func, (ast.Attribute, ast.Name)):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if called == "import_module" and node.args and isinstance(node.args[0], ast.Constant):
                found.append(str(node.args[0].value))
    return tuple(dict.fromkeys(name for name in found if name))


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    names = package.split(".")
    base = ".".join(names[: len(names) - node.level + 1])
    return f"{base}.{node.module}" if node.module else base
