"""Templates: what one row for prompt or instruction tuning is made of.

A template is a JSON (or YAML) document. In its strings stand placeholders:

    {text}            what the sample's text says, pieces joined with blanks
    {label}           its label            {labels}          all labels of the data set, joined with ", "
    {label_id}        its place in them    {sample_id} {split} {dataset} {snapshot}
    {media:image}     the address of a medium (image, audio, video, text)
    {feature:NAME}    where the numbers of a feature lie: dataset, snapshot, feature, file, row, rows, dim
    {features}        such references to all chosen features, by name; null for one that the sample does not have
    {values:NAME}     the numbers themselves, a list of T lists of D

The last three stand alone in their string and become objects or lists; ``{label_id}`` alone becomes a number.
``{{`` and ``}}`` are braces.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any

from features.errors import StoreError
from features.types import STREAMS

PLAIN = ("text", "label", "label_id", "labels", "sample_id", "split", "dataset", "snapshot")
_ALONE = ("feature", "features", "values")
_WITH = {"media": STREAMS, "feature": None, "values": None}
BUILT_IN: dict[str, Any] = {
    "chat": {
        "messages": [
            {"role": "user", "content": "{text}\n\nWhich of these fits: {labels}?"},
            {"role": "assistant", "content": "{label}"},
        ]
    },
    "instruction": {"instruction": "Which of these fits: {labels}?", "input": "{text}", "output": "{label}"},
    "prompt": {"prompt": "{text}\n\nWhich of these fits: {labels}?\n", "completion": "{label}"},
}
"""Templates by name; each also has the key ``features`` where features are chosen."""

Slot = tuple[str, str]
"""A placeholder: its name, and what stands behind its colon."""


@dataclass(frozen=True)
class Template:
    """A checked template. Raises ``StoreError`` for a placeholder that is not there, or stands where it cannot."""

    document: Any
    source: str = "template"

    def __post_init__(self) -> None:
        for text in _strings(self.document):
            slots = [slot for _, slot in self._parse(text) if slot is not None]
            for name, of in slots:
                self._check(text, name, of)
                if name in _ALONE and not _alone(text):
                    raise self._wrong(text, f"{{{name}...}} with something beside it", "it alone in its string")

    @classmethod
    def load(cls, which: str, features: Collection[str] | None = None) -> Template:
        """A built-in template by name, or the one in a file (.json, .yaml, .yml).

        ``features``: those that are chosen by name; a built-in template then refers to them.
        """
        if which in BUILT_IN:
            return cls(BUILT_IN[which] | ({"features": "{features}"} if features else {}), which)
        path = Path(which)
        if path.suffix not in (".json", ".yaml", ".yml"):
            raise StoreError(f"template: got {which!r}, allowed: {', '.join(BUILT_IN)}, or a .json or .yaml file")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"template: {path} cannot be read: {error}") from error
        return cls(_document(path, text), str(path))

    @property
    def slots(self) -> frozenset[Slot]:
        """Every placeholder."""
        return frozenset(slot for text in _strings(self.document) for _, slot in self._parse(text) if slot is not None)

    @property
    def needs_features(self) -> bool:
        """Whether rows of features are looked up."""
        return any(name in _ALONE for name, _ in self.slots)

    def check(self, features: Collection[str]) -> None:
        """Raise ``StoreError`` where the template names a feature that is not among the chosen ones."""
        for name, of in sorted(self.slots):
            if name in ("feature", "values") and of not in features:
                raise StoreError(f"{self.source}: got feature {of!r}, allowed: those chosen: {', '.join(features)}")

    def fill(self, value: Callable[[Slot], Any]) -> Any:
        """The document with every placeholder replaced by its value: as text, or as it is where it stands alone."""
        return self._filled(self.document, value)

    def _filled(self, node: Any, value: Callable[[Slot], Any]) -> Any:
        if isinstance(node, Mapping):
            return {key: self._filled(item, value) for key, item in node.items()}
        if isinstance(node, list):
            return [self._filled(item, value) for item in node]
        if not isinstance(node, str):
            return node
        pieces = self._parse(node)
        if _alone(node):
            return value(pieces[0][1] or ("", ""))
        return "".join(text + ("" if slot is None else str(value(slot))) for text, slot in pieces)

    def _parse(self, text: str) -> list[tuple[str, Slot | None]]:
        """Pieces of a string: plain text, and the placeholder after it."""
        try:
            found = list(Formatter().parse(text))
        except ValueError as error:
            raise self._wrong(text, str(error), "{name}, with {{ and }} for braces") from error
        if odd := next((conversion for *_, conversion in found if conversion), None):
            raise self._wrong(text, f"!{odd}", "no conversion")
        return [(plain, None if name is None else (name, spec or "")) for plain, name, spec, _ in found]

    def _check(self, text: str, name: str, of: str) -> None:
        if name in _WITH:
            allowed = _WITH[name]
            if not of or (allowed is not None and of not in allowed):
                names = "|".join(allowed) if allowed is not None else "NAME"
                raise self._wrong(text, f"{{{name}{':' + of if of else ''}}}", f"{{{name}:{names}}}")
        elif of or name not in (*PLAIN, "features"):
            known = [f"{{{known}}}" for known in (*PLAIN, "features")] + [f"{{{known}:...}}" for known in _WITH]
            raise self._wrong(text, f"{{{name}{':' + of if of else ''}}}", ", ".join(known))

    def _wrong(self, text: str, got: str, allowed: str) -> StoreError:
        return StoreError(f"{self.source}: in {text[:60]!r}: got {got}, allowed: {allowed}")


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, Mapping):
        for item in node.values():
            yield from _strings(item)
    elif isinstance(node, list):
        for item in node:
            yield from _strings(item)


def _alone(text: str) -> bool:
    """Whether a string is one placeholder and nothing else."""
    found = list(Formatter().parse(text))
    return len(found) == 1 and found[0][0] == "" and found[0][1] is not None


def _document(path: Path, text: str) -> Any:
    import yaml

    try:
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise StoreError(f"template: {path}: {error}") from error
    if not isinstance(found, dict):
        raise StoreError(f"template: {path}: got {type(found).__name__}, allowed: an object of keys and values")
    return found
