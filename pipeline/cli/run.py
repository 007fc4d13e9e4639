"""Commands that make snapshots, and train on them: init, schema, plan, run, retry, align, rebuild, train."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.app import (
    DEFAULT_CATALOG,
    QUARANTINED,
    CatalogOption,
    DatasetArgument,
    DatasetsArgument,
    FeaturesOption,
    JsonOption,
    SamplesOption,
    SerialOption,
    SnapshotOption,
    StrictOption,
    VerifyOption,
    app,
    console,
    emit,
    emit_line,
    for_each,
)


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="The folder with your media.", metavar="FOLDER")],
    catalog: CatalogOption = DEFAULT_CATALOG,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing catalog.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look at a folder of media and write a catalog for it, or add it to one.

    Example: gristmill init ~/clips && gristmill plan && gristmill run
    """
    from pipeline.init import propose, write

    proposal = propose(folder)
    added = write(proposal, catalog, force=force)
    if as_json:
        emit({"catalog": str(catalog), "dataset": proposal.name, "added": added, "summary": proposal.summary})
        return
    out = console()
    for line in proposal.summary:
        out.print(line, markup=False)
    done = f"Added data set {proposal.name} to {catalog}" if added else f"Wrote {catalog}"
    out.print(f"{done}. Next: gristmill plan --catalog {catalog}", markup=False)


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
    features: FeaturesOption = None,
    samples: SamplesOption = None,
    listed: Annotated[bool, typer.Option("--samples", help="List every row to compute, with its reason.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a run would compute, why, and what it will cost. Computes nothing and publishes nothing.

    With --samples: one line for each row that is computed, written again or dropped (with --json, JSON Lines).

    Example: gristmill plan clips --samples
    """
    from pipeline.catalog import load_catalog
    from pipeline.console import drawing, print_plan
    from pipeline.plan import Asked
    from pipeline.run import plan_dataset

    asked = Asked(tuple(features or ()), tuple(samples or ()))

    loaded = load_catalog(catalog)
    documents = {}

    def one(name: str) -> None:
        with drawing(console(error=True)) as events:
            run = plan_dataset(loaded, name, events=events, verify_content=verify_content, asked=asked)
        if listed:
            for sample_id, feature, reason in run.planned.listing():
                row = {"dataset": name, "sample_id": sample_id, "feature": feature, "reason": reason}
                emit_line(row if as_json else "\t".join(row.values()))
            return
        costs = run.estimate()
        if as_json:
            documents[name] = {"reasons": {what: dict(why) for what, why in run.report.reasons.items()}}
            documents[name] |= {"estimate": costs.as_json()}
        else:
            print_plan(console(), name, run.report.reasons, costs)

    _, code = for_each(loaded, datasets, one)
    if as_json and not listed:
        emit(documents)
    if code:
        raise typer.Exit(code)


@app.command()
def run(
    datasets: DatasetsArgument = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    serial: SerialOption = False,
    verify_content: VerifyOption = False,
    features: FeaturesOption = None,
    samples: SamplesOption = None,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Bring data sets up to date: compute what changed, align it, publish it.

    With --feature or --sample only those rows are computed; others that are stale stay as they are, and are told as
    deferred.

    Example: gristmill run clips --feature audio.mfcc --sample 'day/*'
    """
    from pipeline.plan import Asked
    from pipeline.run import run_dataset

    limits: dict[str, Any] = {"asked": Asked(tuple(features or ()), tuple(samples or ()))}
    limits["verify_content"] = verify_content
    _run(run_dataset, datasets, catalog, strict=strict, as_json=as_json, serial=serial, **limits)


@app.command()
def retry(
    datasets: DatasetsArgument = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    reasons: Annotated[
        list[str] | None, typer.Option("--reason", help="Only what failed for this reason. May be given several times.")
    ] = None,
    features: FeaturesOption = None,
    samples: SamplesOption = None,
    serial: SerialOption = False,
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compute again what is in quarantine, though nothing has changed: after a repair of the machine, say.

    Files, options and code that changed need no retry: the next run computes them anyway.

    Example: gristmill retry clips --reason timeout
    """
    from features.errors import Reason
    from pipeline.catalog.problems import did_you_mean, listed
    from pipeline.plan import Asked
    from pipeline.run import run_dataset

    known = [reason.value for reason in Reason]
    for reason in reasons or ():
        if reason not in known:
            message = f"got {reason!r}, allowed: {listed(known)}{did_you_mean(reason, known)}"
            raise typer.BadParameter(message, param_hint="--reason")
    asked = Asked(tuple(features or ()), tuple(samples or ()), retry=True, reasons=tuple(reasons or ()))
    _run(run_dataset, datasets, catalog, strict=strict, as_json=as_json, serial=serial, asked=asked)


@app.command()
def align(
    datasets: DatasetsArgument = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    serial: SerialOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put the rows that are stored on the timeline of the catalog, and publish: after an edit of `align`, say.

    Reads no media of features and computes none: what is new or changed waits for the next run, and is told as
    deferred. A run aligns too; this is for trying timelines.

    Example: gristmill align clips
    """
    from features.errors import CatalogError
    from pipeline.catalog import load_catalog
    from pipeline.plan import Asked
    from pipeline.run import published, run_dataset

    loaded = load_catalog(catalog)
    for name in datasets or loaded.datasets:
        if loaded.dataset(name).align is None:
            raise CatalogError([f"datasets.{name}: has no 'align'; cure: add one, such as align: {{grid: 0.5}}"])
        published(loaded, name)
    _run(run_dataset, datasets, catalog, strict=False, as_json=as_json, serial=serial, asked=Asked(nothing=True))


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

        def one(name: str) -> Any:
            return function(loaded, name, events=events, engine="serial" if serial else None, **options)

        reports, code = for_each(loaded, datasets, one)
    finish_run(reports, strict=strict, as_json=as_json, code=code)


def finish_run(reports: list[Any], *, strict: bool, as_json: bool, code: int = 0) -> None:
    """Print reports of runs and end the command with the exit code that they call for, or ``code`` if that is not 0."""
    from pipeline.console import print_report

    if as_json:
        emit([report.as_json() for report in reports])
    else:
        for report in reports:
            print_report(console(), report)
            if report.page:
                console().print(f"Report: {report.page}", markup=False, soft_wrap=True)
    if code:
        raise typer.Exit(code)
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
    from pipeline.report.remake import show_models
    from pipeline.store import DatasetStore
    from pipeline.train import train_dataset

    loaded = load_catalog(catalog)
    with drawing(console(error=True)) as events:
        trained = train_dataset(loaded, dataset, which=snapshot, retrain=retrain, events=events)
    page = show_models(DatasetStore(loaded.store, dataset), int(trained.document["snapshot"]))
    if as_json:
        emit(trained.document)
        return
    print_training(console(), trained.title, trained.rows)
    for line in trained.lines:
        console().print(line, markup=False)
    if page:
        console().print(f"Report: {page}", markup=False, soft_wrap=True)
