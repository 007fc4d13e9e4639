"""The command that looks at the machine: doctor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.app import DEFAULT_CATALOG, CatalogOption, JsonOption, app, console, emit

if TYPE_CHECKING:
    from pipeline.doctor import Finding


@app.command()
def doctor(
    catalog: CatalogOption = DEFAULT_CATALOG,
    quick: Annotated[
        bool, typer.Option("--quick", help="Send no made sample through the features, which takes most of the time.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Look whether this machine can do what the catalog asks for: a line for each thing, with the cure where it is red.

    Codecs, torch, device, memory, disk, store, media, weights, NLTK data, and a made sample through every feature.
    Fetches and publishes nothing. Exit code 1 where a line is red.

    Example: gristmill doctor --quick
    """
    from pipeline.doctor import examine

    out = console()
    found = []
    for finding in examine(catalog, golden=not quick):
        found.append(finding)
        if not as_json:
            _draw(out, finding)
    ill = sum(not finding.ok for finding in found)
    if as_json:
        emit({"ok": not ill, "findings": [finding.as_json() for finding in found]})
    else:
        out.print(f"{ill} of {len(found)} things need a cure." if ill else f"All {len(found)} things are well.")
    if ill:
        raise typer.Exit(1)


def _draw(out: Any, finding: Finding) -> None:
    from rich.text import Text

    mark = Text("ok  ", style="green") if finding.ok else Text("BAD ", style="bold red")
    out.print(mark + Text(f"{finding.name}: {finding.found}", style=""), soft_wrap=True)
    if not finding.ok:
        out.print(Text(f"    cure: {finding.cure}", style="yellow"), soft_wrap=True)
