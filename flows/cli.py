"""The installed command: ``pipeline``'s commands, and those that go through Prefect."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli import app, run, store
from pipeline.cli.app import (
    DEFAULT_CATALOG,
    CatalogOption,
    DatasetsArgument,
    JsonOption,
    StrictOption,
    console,
)
from pipeline.cli.app import main as run_application

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "INFO",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "ERROR",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}
"""Prefect's settings unless the environment says otherwise: no telemetry, no chatter on the terminal (the server keeps
the log of a flow run), patience on slow machines."""


def _quiet() -> None:
    """Set Prefect's settings before it is imported."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


@app.command()
def nightly(
    datasets: DatasetsArgument = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring data sets up to date as a Prefect flow, seen and kept by the Prefect server where one is configured.

    Example: PREFECT_API_URL=http://127.0.0.1:4200/api gristmill nightly
    """
    _quiet()
    from flows.nightly import nightly as flow
    from flows.observe import drawn_by
    from pipeline.console import drawing

    with drawing(console(error=True)) as events, drawn_by(events):
        reports = flow(catalog.resolve(), datasets)
    run.finish_run(reports, strict=strict, as_json=as_json)


@app.command()
def serve(
    catalog: CatalogOption = DEFAULT_CATALOG,
    port: Annotated[int, typer.Option(help="Port of Prefect's server and pages, on this machine only.")] = 4200,
    reports_port: Annotated[int, typer.Option(help="Port of the reports of runs, on this machine only.")] = 4201,
) -> None:
    """Run the night shift: Prefect's server and pages on loopback, and the schedules of the catalog, until interrupted.

    A data set's `schedule` says when it is brought up to date; a night that was missed is caught up once. With
    PREFECT_API_URL set, that server is used instead of starting one.

    Example: gristmill serve --port 4200
    """
    _quiet()
    from flows.serve import serve_catalog

    out = console()
    serve_catalog(catalog.resolve(), port, reports_port, lambda line: out.print(line, markup=False))


@app.command()
def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo is made.", metavar="FOLDER")] = Path("gristmill-demo"),
    samples: Annotated[int, typer.Option(min=24, help="How many synthetic samples.")] = 96,
) -> None:
    """Make a small synthetic corpus, extract, align and publish it, and train fusion models on it.

    Two files are broken on purpose, to show the quarantine. A second run computes nothing and says so.

    Example: gristmill demo --folder /tmp/demo
    """
    from pipeline.console import drawing
    from pipeline.demo import DATASET, write_corpus

    out = console()
    out.print(
        f"A synthetic corpus of {samples} labelled samples in {folder} (made by code, two files broken on purpose)"
    )
    with drawing(console(error=True)) as events:
        corpus = write_corpus(folder, samples=samples, events=events)
    nightly(None, corpus.catalog)
    store.quarantine(DATASET, corpus.catalog)
    run.train(DATASET, corpus.catalog)
    out.print(f"\nLook around: gristmill show {DATASET} --catalog {corpus.catalog}", markup=False)


def main() -> None:
    """Run the command line."""
    run_application(app)
