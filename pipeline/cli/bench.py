"""Where the time goes on this machine, and on these data: bench."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import DEFAULT_CATALOG, CatalogOption, DatasetArgument, JsonOption, app, console, emit


@app.command()
def bench(
    dataset: DatasetArgument,
    catalog: CatalogOption = DEFAULT_CATALOG,
    samples: Annotated[
        int, typer.Option("--samples", min=1, help="How many samples to measure, chosen at random.", metavar="N")
    ] = 200,
    seed: Annotated[int, typer.Option("--seed", help="Which samples are chosen.")] = 0,
    check: Annotated[bool, typer.Option("--check", help="Exit with 1 when a floor is missed.")] = False,
    floors: Annotated[
        Path | None, typer.Option("--floors", help="A file of floors instead of Gristmill's own.", metavar="FILE")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure some samples on this machine: where the time goes, and which setting would help.

    Works in a temporary store: nothing is published.

    Example: gristmill bench clips --samples 500 --check
    """
    from pipeline.bench import bench_dataset, read_floors
    from pipeline.catalog import load_catalog
    from pipeline.console import drawing, print_bench

    limits = read_floors(floors)
    loaded = load_catalog(catalog)
    with drawing(console(error=True)) as events:
        found = bench_dataset(loaded, dataset, samples=samples, seed=seed, floors=limits, events=events)
    if as_json:
        emit(found.as_json())
    else:
        print_bench(console(), found)
    if check and not found.passed:
        raise typer.Exit(1)
