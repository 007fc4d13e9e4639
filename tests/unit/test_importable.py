"""Folders of the user's own steps on the module path."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.importing import importable


def test_steps_stay_importable_while_any_thread_needs_them(tmp_path: Path) -> None:
    first, second = importable(tmp_path), importable(tmp_path)
    with first:
        second.__enter__()
    assert str(tmp_path) in sys.path
    second.__exit__(None, None, None)
    assert str(tmp_path) not in sys.path
