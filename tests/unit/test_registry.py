"""The table of steps, and how a name becomes a class."""

from __future__ import annotations

import subprocess
import sys
import types
from dataclasses import dataclass

import pytest

from features.errors import GristmillError
from features.registry import EXTRACTORS, PREPARE, UnknownStepError, resolve
from features.types import STREAMS


@pytest.mark.parametrize("table", [EXTRACTORS, PREPARE], ids=["extractors", "prepare"])
def test_every_entry_is_a_step_of_that_name(table: dict[str, str]) -> None:
    assert list(table) == sorted(table)
    for name, target in table.items():
        step = resolve(name, table)
        assert (step.name, f"{step.__module__}:{step.__qualname__}") == (name, target)
        assert step.stream in STREAMS
        assert all(isinstance(library, str) for library in step.numerics)
        assert step.__doc__
        assert step.__dataclass_params__.eq


def test_module_and_class_name_a_step_of_one_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Mine:
        name = "mine"

    module = types.ModuleType("somebody_elses_steps")
    vars(module).update(Mine=Mine, Loose=type("Loose", (), {}), Thawed=dataclass(type("Thawed", (), {})), number=3)
    monkeypatch.setitem(sys.modules, "somebody_elses_steps", module)
    assert resolve("somebody_elses_steps:Mine", EXTRACTORS) is Mine
    for wrong in ("Loose", "Thawed", "number"):
        with pytest.raises(UnknownStepError, match="a step must be a frozen dataclass"):
            resolve(f"somebody_elses_steps:{wrong}", EXTRACTORS)
    with pytest.raises(UnknownStepError, match="module 'somebody_elses_steps' has no class 'Mien'") as caught:
        resolve("somebody_elses_steps:Mien", EXTRACTORS)
    assert "Mine" in caught.value.known


def test_unknown_names() -> None:
    with pytest.raises(UnknownStepError, match=r"unknown step 'audio\.mfc'") as caught:
        resolve("audio.mfc", EXTRACTORS)
    assert caught.value.known == tuple(sorted(EXTRACTORS))
    with pytest.raises(UnknownStepError, match=r"'no_such\.module:X': no module named 'no_such'"):
        resolve("no_such.module:X", EXTRACTORS)
    assert not isinstance(caught.value, GristmillError)


def test_an_import_that_fails_inside_the_module_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("steps")
    (folder / "broken_steps.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(ModuleNotFoundError, match="a_library_that_is_not_there"):
        resolve("broken_steps:X", EXTRACTORS)


def test_the_table_imports_nothing() -> None:
    code = (
        "import sys, features.registry; steps = [name for name in sys.modules if name.count('.') > 1 and "
        "name.startswith('features.')]; sys.exit(bool(steps) or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
