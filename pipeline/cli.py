"""The command line. Commands that go through Prefect are added by ``flows.cli``, the installed entry point.

Exit codes: 0 done; 1 failed, nothing published; 2 wrong usage or catalog; 3 done, but samples are in quarantine (only
with ``--strict``); 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from features.errors import CatalogError, GristmillError

app = typer.Typer(
    name="gristmill",
    help="Raw video, audio, images and text in; time-aligned, versioned, training-ready features out.",
    epilog="Start with: gristmill demo. Then: gristmill init FOLDER, gristmill plan, gristmill run, gristmill train. "
    "Exit codes: 0 done, 1 failed (nothing published), 2 wrong usage or catalog, 3 quarantine not empty (--strict).",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

CatalogOption = Annotated[Path, typer.Option("--catalog", "-c", help="The catalog file.", metavar="FILE")]
DatasetArgument = Annotated[str, typer.Argument(help="A data set of the catalog.", metavar="DATASET")]
DatasetsArgument = Annotated[
    list[str] | None, typer.Argument(help="Data sets of the catalog; all of them by default.", metavar="[DATASET]...")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of tables.")]
SerialOption = Annotated[bool, typer.Option("--serial", help="Compute in this process, without Dask.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Exit with 3 when any sample is in quarantine.")]
VerifyOption = Annotated[
    bool, typer.Option("--verify-content", help="Read every file again instead of trusting size and time of change.")
]
SnapshotOption = Annotated[int | None, typer.Option("--snapshot", help="A version instead of the last one.")]

DEFAULT_CATALOG = Path("data_catalog.yaml")
QUARANTINED = 3


@app.callback()
def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Take the options that come before every command."""
    # main() reads --debug: it handles the errors


def console(*, error: bool = False) -> Any:
    """The console to draw on: results on standard output, progress on standard error."""
    from rich.console import Console

    return Console(stderr=error, highlight=False)


def emit(document: Any) -> None:
    """Print a JSON document on standard output."""
    sys.stdout.write(json.dumps(document, indent=1, default=str) + "\n")


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The folder with your media.", metavar="FOLDER")],
    catalog: CatalogOption = DEFAULT_CATALOG,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing catalog.")] = False,
) -> None:
    """Look at a folder of media and write a catalog for it.

    Example: gristmill init ~/clips && gristmill plan && gristmill run
    """
    from pipeline.init import propose, write

    proposal = propose(folder)
    write(proposal, catalog, force=force)
    out = console()
    for line in proposal.summary:
        out.print(line, markup=False)
    out.print(f"Wrote {catalog}. Next: gristmill plan --catalog {catalog}", markup=False)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the catalog, for editors that complete and check YAML.

    Example: gristmill schema > gristmill.schema.json
    """
    from pipeline.catalog import catalog_schema

    emit(catalog_schema())


@app.command()
def plan(
    datasets: DatasetsArgument = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    verify_content: VerifyOption = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a run would compute, and why. Computes nothing and publishes nothing.

    Example: gristmill plan clips --json
    """
    from pipeline.catalog import load_catalog
    from pipeline.console import drawing, print_plan
    from pipeline.run import plan_dataset

    loaded = load_catalog(catalog)
    found = {}
    with drawing(console(error=True)) as events:
        for name in datasets or loaded.datasets:
            found[name] = plan_dataset(loaded, name, events=events, verify_content=verify_content).report.reasons
    if as_json:
        emit({name: {feature: dict(why) for feature, why in reasons.items()} for name, reasons in found.items()})
        return
    for name, reasons in found.items():
        print_plan(console(), name, reasons)


@app.command()
def run(
    datasets: DatasetsArgument = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    serial: SerialOption = False,
    verify_content: VerifyOption = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring data sets up to date: compute what changed, align it, publish it.

    Example: gristmill run clips --strict
    """
    from pipeline.run import run_dataset

    _run(run_dataset, datasets, catalog, strict=strict, as_json=as_json, serial=serial, verify_content=verify_content)


@app.command()
def rebuild(
    datasets: DatasetsArgument = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    serial: SerialOption = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compute data sets from nothing and refit what is fitted. The old snapshot serves until the new one is complete.

    Example: gristmill rebuild clips
    """
    from pipeline.run import run_dataset

    _run(run_dataset, datasets, catalog, strict=strict, as_json=as_json, serial=serial, from_nothing=True)


def _run(
    function: Callable[..., Any],
    datasets: Iterable[str] | None,
    catalog: Path,
    *,
    strict: bool,
    as_json: bool,
    serial: bool,
    **options: Any,
) -> None:
    from pipeline.catalog import load_catalog
    from pipeline.console import drawing

    loaded = load_catalog(catalog)
    with drawing(console(error=True)) as events:
        reports = [
            function(loaded, name, events=events, engine="serial" if serial else None, **options)
            for name in datasets or loaded.datasets
        ]
    finish_run(reports, strict=strict, as_json=as_json)


def finish_run(reports: list[Any], *, strict: bool, as_json: bool) -> None:
    """Print reports of runs and end the command with the exit code that they call for."""
    from pipeline.console import print_report

    if as_json:
        emit([report.as_json() for report in reports])
    else:
        for report in reports:
            print_report(console(), report)
    if strict and any(report.samples is not None and report.samples.quarantined for report in reports):
        raise typer.Exit(QUARANTINED)


@app.command()
def train(
    dataset: DatasetArgument,
    catalog: CatalogOption = DEFAULT_CATALOG,
    snapshot: SnapshotOption = None,
    retrain: Annotated[bool, typer.Option("--retrain", help="Train again even if this very model exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train fusion models on a published snapshot, and every single modality beside them.

    Example: gristmill train clips
    """
    from pipeline.catalog import load_catalog
    from pipeline.console import drawing, print_training
    from pipeline.train import train_dataset

    loaded = load_catalog(catalog)
    with drawing(console(error=True)) as events:
        trained = train_dataset(loaded, dataset, version=snapshot, retrain=retrain, events=events)
    if as_json:
        emit(trained.document)
        return
    print_training(console(), trained.title, trained.rows)
    for line in trained.lines:
        console().print(line, markup=False)


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


def main(application: typer.Typer = app) -> None:
    """Run the command line; errors made on purpose are printed without a traceback unless ``--debug`` is given."""
    debug = "--debug" in sys.argv[1:]
    try:
        application()
    except CatalogError as error:
        if debug:
            raise
        _complain(error)
        sys.exit(2)
    except GristmillError as error:
        if debug:
            raise
        _complain(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was published\n")
        sys.exit(130)


def _complain(error: GristmillError) -> None:
    sys.stderr.write(f"error: {error}\n")
