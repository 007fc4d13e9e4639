"""Pages of earlier runs, made anew or brought up to date from what the store has of them."""

from __future__ import annotations

import logging
import posixpath

from pipeline.catalog import Catalog
from pipeline.report.index import write_index
from pipeline.report.material import of_record
from pipeline.report.models import models
from pipeline.report.page import environment, write_page
from pipeline.report.records import list_runs, page_path, write_record
from pipeline.store import DatasetStore

_logger = logging.getLogger(__name__)


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


def show_models(store: DatasetStore, snapshot: int) -> str:
    """Put what was trained on a snapshot into the page of the run that published it; return where that lies.

    The rest of the page stays as it is. Empty where there is no such page, or it could not be changed: the models are
    trained all the same.
    """
    try:
        for entry in list_runs(store):
            if entry.has_page and entry.status == "published" and entry.record and entry.record.snapshot == snapshot:
                return _put_models(store, entry.run_id, snapshot)
    except Exception:
        _logger.warning("the page of snapshot %d does not show what was trained", snapshot, exc_info=True)
    return ""


def _put_models(store: DatasetStore, run_id: str, snapshot: int) -> str:
    path = page_path(run_id)
    page = store.read(path)
    if page is None:
        return ""
    section = environment().get_template("models.html").render(models=models(store, snapshot))
    html = page.content.decode()
    for place, text in (("models", section), ("models-link", '<a href="#models">Models</a>')):
        before, _, rest = html.partition(f"<!--{place}-->")
        _, mark, after = rest.partition(f"<!--/{place}-->")
        if mark:
            html = f"{before}<!--{place}-->{text}{mark}{after}"
    store.write_bytes(path, html.encode())
    return posixpath.join(store.url, path)
