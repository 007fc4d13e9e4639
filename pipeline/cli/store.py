"""Commands that look at what is published: show, quarantine."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.app import (
    DEFAULT_CATALOG,
    CatalogOption,
    DatasetArgument,
    JsonOption,
    SnapshotOption,
    app,
    console,
    emit,
)


@app.command()
def quarantine(
    dataset: DatasetArgument,
    catalog: CatalogOption = DEFAULT_CATALOG,
    reason: Annotated[str | None, typer.Option("--reason", help="Only this reason code.")] = None,
    snapshot: SnapshotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the samples that failed, and why.

    Example: gristmill quarantine clips --reason corrupt
    """
    from pipeline.catalog import load_catalog
    from pipeline.console import print_quarantine
    from pipeline.run import published

    rows = published(load_catalog(catalog), dataset, snapshot).quarantine.to_pylist()
    rows = [row for row in rows if reason is None or row["reason"] == reason]
    if as_json:
        emit([row | {name: row[name].hex() for name in ("content", "recipe")} for row in rows])
    else:
        print_quarantine(console(), rows)


@app.command()
def show(
    dataset: DatasetArgument,
    catalog: CatalogOption = DEFAULT_CATALOG,
    snapshot: SnapshotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a snapshot holds: features, rows, widths, sizes, and where the files lie.

    Example: gristmill show clips --snapshot 3
    """
    from pipeline.catalog import load_catalog
    from pipeline.console import print_snapshot
    from pipeline.run import published

    found = published(load_catalog(catalog), dataset, snapshot)
    if as_json:
        emit(found.summary())
    else:
        print_snapshot(console(), found.summary())
