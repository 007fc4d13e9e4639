"""The newcomer's walk, followed literally: every command of docs/walk.md prints what the page says.

The demo alone is not run again here: ``test_demo_run.py`` runs the same corpus, and compares what the page shows of it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import walk


def test_every_command_of_the_walk_prints_what_the_page_says() -> None:
    demo, *found = walk.blocks(walk.PAGE.read_text())
    assert demo[0] == ["gristmill demo"]
    assert sum(len(commands) for commands, _ in found) >= 20
    with tempfile.TemporaryDirectory() as name:  # as short as where the page was made: long paths break lines elsewhere
        folder = Path(name)
        walk.prepare(folder)
        for commands, written in found:
            assert walk.normalised(walk.walk(folder, commands)) == walk.normalised(written), commands
