"""Commands that tell how things stand: report, status."""

from __future__ import annotations

import posixpath
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.app import DEFAULT_CATALOG, CatalogOption, DatasetsArgument, JsonOption, app, console, emit

if TYPE_CHECKING:
    from pipeline.catalog import Catalog


@app.command()
def report(
    dataset: Annotated[
        str | None, typer.Argument(help="A data set; without it: the list of all runs.", metavar="[DATASET]")
    ] = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    run: Annotated[str | None, typer.Option("--run", help="A run, by its id; the last one by default.")] = None,
    remake: Annotated[
        bool, typer.Option("--remake", help="Make the page anew, such as after training on its snapshot.")
    ] = False,
    opened: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print where the page of a run lies, or open it. Without a data set: the list of the runs of all of them.

    Example: gristmill report clips --open
    """
    from pipeline.catalog import load_catalog

    loaded = load_catalog(catalog)
    found = _page(loaded, dataset, run, remake=remake) if dataset is not None else _index(loaded, run, remake=remake)
    if as_json:
        emit(found)
    else:
        console().print(found["page"], markup=False, soft_wrap=True)
    if opened:
        webbrowser.open(_local(found["page"]))


def _index(catalog: Catalog, run: str | None, *, remake: bool) -> dict[str, Any]:
    from pipeline.report.index import write_store_index

    if run is not None or remake:
        raise typer.BadParameter("--run and --remake need a DATASET")
    return {"page": write_store_index(catalog), "datasets": list(catalog.datasets)}


def _page(catalog: Catalog, dataset: str, run: str | None, *, remake: bool) -> dict[str, Any]:
    from features.errors import StoreError
    from pipeline.report.records import list_runs, page_path
    from pipeline.store import DatasetStore

    store = DatasetStore(catalog.store, catalog.dataset(dataset).name)
    entries = list_runs(store)
    if not entries:
        raise StoreError(f"{store.url}: no run yet; cure: gristmill run {dataset}")
    entry = entries[0] if run is None else next((entry for entry in entries if entry.run_id == run), None)
    if entry is None:
        known = ", ".join(entry.run_id for entry in entries[:5])
        raise StoreError(f"{store.url}: no run {run!r}; the last ones: {known}; cure: gristmill report lists them all")
    if remake:
        from pipeline.report.remake import remake as make

        make(catalog, dataset, entry.run_id)
    elif not entry.has_page:
        raise StoreError(
            f"{store.url}: run {entry.run_id} ({entry.status}) has no page; what is known of it: "
            f"{store.url}/_runs/{entry.run_id}; cure: --run with another one, or run again"
        )
    page = posixpath.join(store.url, page_path(entry.run_id))
    return {"dataset": dataset, "run_id": entry.run_id, "status": entry.status, "page": page}


def _local(page: str) -> str:
    """An address that a browser can open; a page behind a URL that it cannot is copied to a temporary file first."""
    if "://" not in page:
        return Path(page).as_uri()
    if page.startswith(("http://", "https://", "file://")):
        return page
    import tempfile

    from pipeline.store.files import open_files

    files, path = open_files(page)
    with tempfile.NamedTemporaryFile("wb", prefix="gristmill-", suffix=".html", delete=False) as copy:
        copy.write(files.fs.cat_file(path))
    return Path(copy.name).as_uri()


@app.command()
def status(
    datasets: DatasetsArgument = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    as_json: JsonOption = False,
) -> None:
    """Say how the data sets stand: the last and the next run, rows, quarantine, disk, and who is at work now.

    Example: gristmill status
    """
    from pipeline.catalog import load_catalog
    from pipeline.report.status import status as stand

    loaded = load_catalog(catalog)
    found = [stand(loaded, name) for name in datasets or loaded.datasets]
    if as_json:
        emit([one.as_json() for one in found])
        return
    _draw(found)


_COLOURS = {"published": "green", "unchanged": "green", "red": "red", "crashed": "red"}


def _draw(found: list[Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    from pipeline.report.facts import when
    from pipeline.report.page import in_bytes

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("data set")
    for name in ("last run, UTC", "result"):
        table.add_column(name, no_wrap=True)
    for name in ("snapshot", "rows", "quarantine", "disk"):
        table.add_column(name, justify="right")
    out = console()
    for one in found:
        result = "never run" if one.last_status is None else one.last_status
        table.add_row(
            Text(one.dataset),
            "" if one.last_run is None else when(one.last_run)[:16],
            Text(result, style=_COLOURS.get(result, "yellow")),
            "none" if one.snapshot is None else str(one.snapshot),
            f"{one.rows:,}",
            Text(f"{one.quarantined:,}", style="yellow" if one.quarantined else ""),
            in_bytes(one.disk),
        )
    out.print(table)
    for one in found:
        if one.next_run is not None:
            out.print(f"{one.dataset}: next run {one.next_run.replace('T', ' ')}, by gristmill serve", markup=False)
        if one.running is not None:
            out.print(Text(f"{one.dataset}: at work now: {one.running}", style="yellow"))
        if one.last_error:
            out.print(Text(f"{one.dataset}: {one.last_error}", style="red"))
            if one.page:
                out.print(f"    {one.page}", markup=False, soft_wrap=True)
