"""A page as a reader's program sees it: elements, attributes and text, and nothing that only looks like them."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np

VOID = {"meta", "link", "img", "br", "input", "hr"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, tag: str | None = None, **attributes: str) -> list[Element]:
        """Every element below of this tag that has these attributes (``data_x`` for ``data-x``)."""
        found = []
        for child in self.children:
            if isinstance(child, Element):
                names = {name.replace("_", "-"): value for name, value in attributes.items()}
                if tag in (None, child.tag) and all(child.attributes.get(n) == v for n, v in names.items()):
                    found.append(child)
                found += child.all(tag, **attributes)
        return found

    def one(self, tag: str | None = None, **attributes: str) -> Element:
        (found,) = self.all(tag, **attributes)
        return found


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = Element("", {})
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(made)
        if tag not in VOID:
            self.open.append(made)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(html: str) -> Element:
    """The page as a tree. Fails where an element is not closed, or another one is."""
    builder = _Builder()
    builder.feed(html)
    builder.close()
    assert [element.tag for element in builder.open] == [""]
    return builder.root


def read(page: str) -> Element:
    """The page at this path, checked to be self-contained."""
    root = parse(Path(page).read_text())
    check_self_contained(root)
    return root


def check_self_contained(root: Element) -> None:
    """No element asks the network for anything, nothing is executed, and every picture is one."""
    assert root.all("script") == []
    ids = [element.attributes["id"] for element in root.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    for element in root.all():
        assert not [name for name in element.attributes if name.startswith("on")], element.attributes
        assert "url(" not in element.attributes.get("style", "")
        for name in ("src", "srcset", "poster", "data", "action"):
            assert element.attributes.get(name, "data:").startswith("data:")
        link = element.attributes.get("href", "#")
        assert "//" not in link
        assert ":" not in link.removeprefix("data:,")
    for image in root.all("img"):
        height, width, _ = decoded(image).shape
        assert (str(width), str(height)) == (image.attributes["width"], image.attributes["height"])
        assert image.attributes["alt"]
    assert "@import" not in root.one("style").text
    assert "url(" not in root.one("style").text


def decoded(image: Element) -> np.ndarray[Any, Any]:
    head, _, content = image.attributes["src"].partition(",")
    assert head in ("data:image/jpeg;base64", "data:image/png;base64")
    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(content), np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return np.asarray(pixels)


def counts(root: Element) -> dict[str, dict[str, int]]:
    """The table of counts: feature -> outcome -> number."""
    table = root.one("table", data_table="counts")
    return {
        row.attributes["data-feature"]: {
            cell.attributes["data-count"]: int(cell.text.replace(",", ""))
            for cell in row.all("td")
            if "data-count" in cell.attributes
        }
        for row in table.all("tr")
        if "data-feature" in row.attributes
    }
