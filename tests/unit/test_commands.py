"""One look and feel: every command has an example, a place in the list, and errors without a traceback."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

import flows.cli
from pipeline.cli.app import ORDER, _known, app, main


def commands() -> dict[str, Any]:
    assert flows.cli.main
    group: Any = typer.main.get_command(app)
    found = dict(group.commands)
    return found | {f"fetch {name}": one for name, one in found.pop("fetch").commands.items()}


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_command_has_an_example_and_help_for_every_option(name: str) -> None:
    command = commands()[name]
    assert f"Example: gristmill {name.partition(' ')[0]}" in command.help or f" gristmill {name}" in command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{name}: {parameter.name}"


def test_the_list_has_a_place_for_every_command() -> None:
    assert set(ORDER) == {name.partition(" ")[0] for name in commands()}
    designed = "init plan run rebuild retry align train status report show verify diff adopt gc serve doctor demo"
    assert set(designed.split()) <= set(ORDER)


def test_shells_complete_the_names_of_data_sets(tmp_path: Path) -> None:
    catalog = tmp_path / "data_catalog.yaml"
    catalog.write_text("datasets: {clips: {}, clocks: {}, talks: {}}\n")
    context: Any = SimpleNamespace(params={"catalog": catalog})
    assert _known(context, "cl") == ["clips", "clocks"]
    catalog.write_text("datasets: [")
    assert _known(context, "") == []
    catalog.unlink()
    assert _known(context, "") == []


def test_what_nobody_expected_is_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken: Any = lambda: 1 / 0  # noqa: E731  # an application in a line
    monkeypatch.setattr(sys, "argv", ["gristmill", "run"])
    with pytest.raises(SystemExit) as ended:
        main(broken)
    assert ended.value.code == 1
    told = capsys.readouterr().err
    assert told == "error: ZeroDivisionError: division by zero; gristmill --debug COMMAND shows where\n"
    monkeypatch.setattr(sys, "argv", ["gristmill", "--debug", "run"])
    with pytest.raises(ZeroDivisionError):
        main(broken)
