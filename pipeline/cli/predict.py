"""Commands that use trained models: predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import (
    DEFAULT_CATALOG,
    CatalogOption,
    DatasetArgument,
    JsonOption,
    SerialOption,
    SnapshotOption,
    app,
    console,
    emit,
)


@app.command()
def predict(
    dataset: DatasetArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="A .csv, .parquet or .json file.", metavar="FILE")],
    catalog: CatalogOption = DEFAULT_CATALOG,
    model_of: Annotated[
        str | None,
        typer.Option(
            "--model-of", help="The data set that the model was trained on; the same by default.", metavar="DATASET"
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", help="A fusion method, or a feature: its own model. The best one by default."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="A folder in the store's _models; the last trained by default.")
    ] = None,
    splits: Annotated[
        list[str] | None, typer.Option("--split", help="Only this split (may be given again).", metavar="NAME")
    ] = None,
    snapshot: SnapshotOption = None,
    run: Annotated[bool, typer.Option("--run", help="First bring DATASET up to date, as gristmill run does.")] = False,
    serial: SerialOption = False,
    as_json: JsonOption = False,
) -> None:
    """Ask a trained model about samples: a table of predictions with the probability of every label.

    New samples are a data set of their own with the same features, or lie in the same one without a label. Features
    that are made otherwise than those that the model was trained on are refused.

    Example: gristmill predict new-clips --model-of clips --run --out predictions.csv
    """
    from pipeline.catalog import load_catalog
    from pipeline.console import drawing
    from pipeline.predict import predict_dataset
    from pipeline.predictions import check_suffix
    from pipeline.run import run_dataset

    check_suffix(out)
    if run and snapshot is not None:
        raise typer.BadParameter("got both, allowed: one of them", param_hint="--run and --snapshot")
    loaded = load_catalog(catalog)
    with drawing(console(error=True)) as events:
        if run:
            report = run_dataset(loaded, dataset, events=events, engine="serial" if serial else None)
            events.note(f"{dataset}: snapshot {report.snapshot}, {report.computed:,} rows computed")
        found = predict_dataset(
            loaded,
            dataset,
            model_of=model_of,
            name=method,
            which_model=model,
            snapshot=snapshot,
            splits=splits,
            events=events,
        )
    found.write(out)
    if as_json:
        emit(found.metadata)
        return
    for line in [*found.lines, f"Predictions: {out}"]:
        console().print(line, markup=False, soft_wrap=True)
