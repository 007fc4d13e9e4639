"""The end of every run, whatever became of it: its record, its page, its events, metrics, and the call for help."""

from __future__ import annotations

import logging
import platform
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from pipeline.catalog import Catalog, DataSet
from pipeline.keys import options
from pipeline.record import RunReport, RunStatus
from pipeline.report.hook import call_for_help
from pipeline.report.metrics import write_metrics
from pipeline.report.records import write_record

if TYPE_CHECKING:
    from pipeline.run import Run

LIBRARIES = (
    "gristmill",
    "av",
    "dask",
    "deltalake",
    "librosa",
    "nltk",
    "numba",
    "numpy",
    "opencv-python",
    "pillow",
    "pyarrow",
    "scikit-learn",
    "soundfile",
    "torch",
    "torchvision",
)
_PASSWORD = re.compile(r"(?<=://)[^/@]*@")
_logger = logging.getLogger(__name__)


def finish(run: Run, error: BaseException | None) -> None:
    """Leave what people and scripts need to know of a run that has ended; ``error``: what ended it, if anything did.

    The record comes first, so that the rest may fail: what does is told as a note, and changes nothing of the run. A
    run that someone stops leaves no page: nobody waits for it. Raises nothing.
    """
    report = run.report
    report.finished = datetime.now(UTC).isoformat(timespec="seconds")
    report.status = _status(report, error)
    if error is not None:
        report.error = str(error) or type(error).__name__
    if not report.published:
        report.snapshot = report.base
    report.settings, report.versions = settings(run.catalog, run.dataset), versions()

    def tell(what: str, act: Callable[[], object]) -> None:
        try:
            act()
        except Exception as problem:  # the run is over: nothing here may undo it
            _logger.debug("%s", what, exc_info=True)
            run.events.note(f"{what} could not be made: {str(problem) or type(problem).__name__}")

    tell("the record of the run", lambda: write_record(run.store, report))
    if report.status != "interrupted":
        tell("the page of the run", lambda: _page(run))
    run.journal.close(report)
    if run.catalog.metrics is not None:
        tell("metrics", lambda: write_metrics(run.catalog))
    if report.status == "red" and run.catalog.on_failure:
        tell("the call of on_failure", lambda: call_for_help(run.catalog, report, run.events))


def _status(report: RunReport, error: BaseException | None) -> RunStatus:
    if report.published:
        return "published"
    if isinstance(error, Exception):
        return "red"
    return "interrupted" if error is not None or report.snapshot is None else "unchanged"


def _page(run: Run) -> None:
    from pipeline.report.index import write_index
    from pipeline.report.material import of_run
    from pipeline.report.page import write_page

    begun = time.perf_counter()
    report = run.report
    report.page = write_page(of_run(run))
    report.seconds["report"] = time.perf_counter() - begun
    write_record(run.store, report)
    write_index(run.store)
    if report.status == "red":
        run.events.note(f"what failed, sample by sample: {report.page}")


def settings(catalog: Catalog, dataset: DataSet) -> dict[str, Any]:
    """The catalog's entry as it was understood, defaults included, as a JSON document; no passwords."""
    document = {
        "root": dataset.root,
        "source": dataset.source.model_dump(mode="json"),
        "splits": dataset.splits.model_dump(mode="json"),
        "features": {
            name: [{step.name: options(step)} for step in chain.steps] for name, chain in dataset.features.items()
        },
        "align": None if dataset.align is None else dataset.align.model_dump(mode="json"),
        "fit": dataset.fit.model_dump(mode="json"),
        "train": dataset.train.model_dump(mode="json"),
        "max_failed": dataset.max_failed,
        "shard_samples": dataset.shard_samples,
        "report": dataset.report.model_dump(mode="json"),
    }
    return {"store": _clean(catalog.store), "engine": catalog.engine.model_dump(mode="json"), **_clean(document)}


def _clean(value: Any) -> Any:
    """The same without what stands before ``@`` in URLs."""
    if isinstance(value, str):
        return _PASSWORD.sub("…@", value)
    if isinstance(value, dict):
        return {key: _clean(inside) for key, inside in value.items()}
    return [_clean(inside) for inside in value] if isinstance(value, list) else value


def versions() -> dict[str, str]:
    """Python, the system, and the libraries that the work rests on."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
