"""Strict YAML: the core schema of YAML 1.2, duplicate keys are problems, and every value knows its line.

PyYAML alone reads YAML 1.1: ``on`` becomes ``True``, ``12:30`` becomes 750, ``1e-3`` stays text, and of duplicate keys
the last one wins. Here only ``true``/``false``, ``null``/``~``, decimal, octal (``0o17``) and hexadecimal integers, and
floats are anything but text; https://yaml.org/spec/1.2.2/#103-core-schema.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from pipeline.catalog.problems import Place, Problem

_CORE: tuple[tuple[str, str, str], ...] = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)
_TAG = "tag:yaml.org,2002:"


class _Composer(yaml.SafeLoader):
    """Composes nodes with the core schema's tags; nothing is constructed by PyYAML."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own attribute


for _name, _pattern, _first in _CORE:
    _expression = re.compile(rf"(?:{_pattern})\Z")
    _Composer.add_implicit_resolver(_TAG + _name, _expression, [*_first, *([""] if _name == "null" else [])])


class Document:
    """A parsed file: ``data`` in dicts, lists, str, int, float, bool and None; ``problems`` found on the way.

    ``data`` is complete also when there are problems (of duplicate keys the first one stands), so that everything
    wrong with a file can be told at once.
    """

    def __init__(self, text: str) -> None:
        self.problems: list[Problem] = []
        self._open: list[int] = []
        self._text = text
        self._root = self._compose(text)
        self.data: Any = None if self._root is None else self._value(self._root, ())

    def line(self, place: Sequence[str | int]) -> int | None:
        """Return the 1-based line of the key (or list item) at ``place``, or of the nearest thing above it."""
        node, found = self._root, None if self._root is None else self._root.start_mark.line + 1
        for part in place:
            if isinstance(node, yaml.MappingNode):
                pair = next(((key, value) for key, value in node.value if key.value == part), None)
                if pair is None:
                    break
                found, node = pair[0].start_mark.line + 1, pair[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = node.value[part]
                found = node.start_mark.line + 1
            else:
                break
        return found

    def end(self, key: str) -> tuple[int, int] | None:
        """Where the lines of a key end whose value is a block mapping: characters before, and the mapping's indent."""
        pairs = self._root.value if isinstance(self._root, yaml.MappingNode) else []
        node = next((value for name, value in pairs if name.value == key), None)
        if not isinstance(node, yaml.MappingNode) or node.flow_style or not node.value:
            return None
        last: yaml.Node = node
        indent, mark = node.value[0][0].start_mark.column, node.end_mark
        while isinstance(last, yaml.CollectionNode) and not last.flow_style and last.value:
            key_node, last = last.value[-1] if isinstance(last, yaml.MappingNode) else (None, last.value[-1])
            mark = last.end_mark  # of a literal block: the beginning of the next line
            if key_node is not None and last.start_mark.index < key_node.start_mark.index:  # an alias
                mark = key_node.end_mark
                break
        if not mark.column:
            return mark.index, indent
        return self._text.find("\n", mark.index) + 1 or len(self._text), indent

    def _compose(self, text: str) -> yaml.Node | None:
        try:
            composer = _Composer(text)
            try:
                node: yaml.Node | None = composer.get_single_node()
            finally:
                composer.dispose()
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self.problems.append(
                Problem(line, (), f"not YAML: the character U+{error.character:04X} is not allowed; cure: remove it")
            )
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            said = " ".join(part for part in (error.context, error.problem) if part)
            hint = "; cure: indent with spaces" if mark and "'\\t'" in said else ""
            self.problems.append(Problem(mark.line + 1 if mark else None, (), f"not YAML: {said}{hint}"))
        except RecursionError:
            self.problems.append(Problem(None, (), "not read: nested deeper than Python's recursion limit"))
        else:
            return node
        return None

    def _problem(self, node: yaml.Node, place: Place, message: str) -> None:
        self.problems.append(Problem(node.start_mark.line + 1, place, message))

    def _value(self, node: yaml.Node, place: Place) -> Any:
        if id(node) in self._open:
            self._problem(node, place, "an alias stands inside what it stands for; cure: write the value out")
            return None
        self._open.append(id(node))
        try:
            if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
                return self._mapping(node, place)
            if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
                return [self._value(item, (*place, index)) for index, item in enumerate(node.value)]
            return self._scalar(node, place)
        finally:
            self._open.pop()

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        result: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._problem(key, place, "a key is a list or a mapping, allowed: text")
                continue
            name = str(key.value)
            if name in result:
                self._problem(key, (*place, name), f"duplicate key {name!r}; the first is on line {lines[name]}")
                continue
            lines[name] = key.start_mark.line + 1
            result[name] = self._value(value, (*place, name))
        return result

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        text, tag = node.value, node.tag.removeprefix(_TAG)
        try:
            match tag:
                case "str":
                    return text
                case "null":
                    return None
                case "bool":
                    return {"true": True, "false": False}[text.lower()]
                case "int":
                    return int(text, {"0o": 8, "0x": 16}.get(text[:2].lower(), 10))
                case "float":
                    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        except (ValueError, KeyError, AttributeError, TypeError):
            self._problem(node, place, f"got {str(text)[:40]!r}, allowed: {tag} as YAML 1.2 writes it")
            return None
        self._problem(node, place, f"the tag {node.tag!r} is not offered, allowed: plain values, lists and mappings")
        return None
