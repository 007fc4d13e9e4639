"""Folders of files, and the catalogs that ``init`` proposes for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.catalog import DataSet, load_catalog
from pipeline.init import Proposal, write

Tree = Mapping[str, str | bytes]
Make = Callable[[Tree], Path]


def maker(tmp_path: Path) -> Make:
    """Write files (path -> content) into a new folder called ``things``."""

    def _make(tree: Tree) -> Path:
        folder = tmp_path / "things"
        for name, content in tree.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    return _make


def files(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "x")


def accept(proposal: Proposal, target: Path) -> DataSet:
    """Write a proposal and load it: it must be a catalog without problems."""
    write(proposal, target)
    catalog = load_catalog(target)
    assert list(catalog.datasets) == [proposal.name]
    return catalog.dataset(proposal.name)


def written(proposal: Proposal, target: Path) -> dict[str, Any]:
    entry: dict[str, Any] = yaml.safe_load(proposal.text(target))["datasets"][proposal.name]
    return entry
