"""Lists of runs as HTML: one for each data set (``_runs/index.html``), and one for a whole store."""

from __future__ import annotations

import posixpath

from pipeline.catalog import Catalog
from pipeline.report.facts import seconds_of
from pipeline.report.page import environment
from pipeline.report.records import FOLDER, INDEX, LISTED, PAGE, RunEntry, list_runs
from pipeline.store import DatasetStore
from pipeline.store.files import open_files

STORE_INDEX = "reports.html"


def write_index(store: DatasetStore) -> str:
    """Write the list of a data set's runs; return where it lies."""
    name = posixpath.basename(store.url)
    html = (
        environment()
        .get_template("index.html")
        .render(
            title=name,
            datasets=[{"name": name, "folder": "", "runs": rows(list_runs(store))}],
            listed=LISTED,
            whole=False,
        )
    )
    store.write_bytes(f"{FOLDER}/{INDEX}", html.encode())
    return posixpath.join(store.url, FOLDER, INDEX)


def write_store_index(catalog: Catalog, limit: int = 10) -> str:
    """Write the list of the last runs of every data set of the catalog; return where it lies."""
    files, root = open_files(catalog.store)
    files.write(posixpath.join(root, STORE_INDEX), store_index(catalog, limit).encode())
    return posixpath.join(catalog.store, STORE_INDEX)


def store_index(catalog: Catalog, limit: int = 10) -> str:
    """The list of the last runs of every data set as HTML, with links relative to the store."""
    datasets = [
        {"name": name, "folder": f"{name}/{FOLDER}/", "runs": rows(list_runs(DatasetStore(catalog.store, name), limit))}
        for name in catalog.datasets
    ]
    html: str = (
        environment().get_template("index.html").render(title="Runs", datasets=datasets, listed=limit, whole=True)
    )
    return html


def rows(entries: list[RunEntry]) -> list[dict[str, object]]:
    """What a list says of each run."""
    return [
        {
            "run_id": entry.run_id,
            "status": entry.status,
            "started": entry.started,
            "page": f"{entry.run_id}/{PAGE}" if entry.has_page else "",
            "snapshot": None if entry.record is None else entry.record.snapshot,
            "computed": None if entry.record is None else entry.record.computed,
            "quarantined": None
            if entry.record is None or entry.record.samples is None
            else entry.record.samples.quarantined,
            "seconds": None if entry.record is None else seconds_of(entry.record),
        }
        for entry in entries
    ]
