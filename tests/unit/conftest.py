"""What the files of tests of the catalog have in common."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_catalog import Write


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes the text of a catalog, beside an empty folder ``media``."""
    (tmp_path / "media").mkdir()

    def _write(text: str) -> Path:
        path = tmp_path / "data_catalog.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return _write
