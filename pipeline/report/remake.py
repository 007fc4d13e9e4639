"""Making the page of an earlier run anew, from what the store has of it."""

from __future__ import annotations

from pipeline.catalog import Catalog
from pipeline.report.index import write_index
from pipeline.report.material import of_record
from pipeline.report.page import write_page
from pipeline.report.records import list_runs, write_record
from pipeline.store import DatasetStore


def remake(catalog: Catalog, dataset: str, run_id: str) -> str:
    """Make the page of a run anew; return where it lies.

    Its counts, times and settings are those of its record; samples are drawn from its snapshot, and media are read as
    they are now. Raises ``StoreError`` where the run is not known, failed, or its snapshot is not there any more.
    """
    material = of_record(catalog, dataset, run_id)
    material.record.page = write_page(material)
    write_record(material.store, material.record)
    write_index(material.store)
    return material.record.page


def after_training(catalog: Catalog, dataset: str, version: int) -> str:
    """Make the page of the run that published a snapshot anew, now that models are trained on it.

    Empty where that run has left no page.
    """
    store = DatasetStore(catalog.store, dataset)
    for entry in list_runs(store):
        record = entry.record
        if record is not None and record.published and record.snapshot == version and record.page:
            return remake(catalog, dataset, entry.run_id)
    return ""
