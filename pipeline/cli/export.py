"""Commands that hand a snapshot on: export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.app import (
    DEFAULT_CATALOG,
    CatalogOption,
    DatasetArgument,
    JsonOption,
    SnapshotOption,
    app,
    console,
    emit,
)


@app.command()
def export(
    dataset: DatasetArgument,
    to: Annotated[str, typer.Option("--to", help="huggingface, webdataset, numpy, npz or jsonl.", metavar="FORMAT")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder that is made.", metavar="FOLDER")],
    catalog: CatalogOption = DEFAULT_CATALOG,
    snapshot: SnapshotOption = None,
    features: Annotated[
        list[str] | None, typer.Option("--feature", help="Only this feature (may be given again).", metavar="NAME")
    ] = None,
    aligned: Annotated[bool, typer.Option("--aligned", help="Rows on the common timeline.")] = False,
    splits: Annotated[
        list[str] | None, typer.Option("--split", help="Only this split (may be given again).", metavar="NAME")
    ] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", help="Only this label (may be given again).", metavar="NAME")
    ] = None,
    complete: Annotated[
        bool, typer.Option("--complete", help="Only samples that have every one of the features.")
    ] = False,
    template: Annotated[
        str | None,
        typer.Option(
            "--template", help="For jsonl: chat, instruction, prompt, or a .json or .yaml file.", metavar="WHICH"
        ),
    ] = None,
    file_mb: Annotated[int, typer.Option("--file-mb", min=1, help="How large a file of values becomes.")] = 500,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export in FOLDER.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a snapshot for other tools: Hugging Face datasets, WebDataset, NumPy, or rows for instruction tuning.

    manifest.json in the folder says what was written, and how many samples were left out and why.

    Example: gristmill export clips --to huggingface --split train --out clips-hf
    """
    from pipeline.catalog import load_catalog
    from pipeline.console import drawing
    from pipeline.export import FORMATS, Choice, export_dataset
    from pipeline.export.template import Template
    from pipeline.loader import open_store

    if to not in FORMATS:
        raise typer.BadParameter(f"got {to!r}, allowed: {', '.join(FORMATS)}", param_hint="--to")
    if (template is None) == (to == "jsonl"):
        raise typer.BadParameter("goes with --to jsonl, which needs it", param_hint="--template")
    choice = Choice(
        features=tuple(features) if features else None,
        aligned=aligned,
        splits=tuple(splits) if splits else None,
        labels=tuple(labels) if labels else None,
        complete=complete,
    )
    reader = open_store(load_catalog(catalog), dataset, snapshot)
    with drawing(console(error=True)) as events:
        exported = export_dataset(
            reader,
            out,
            to,
            choice,
            template=None if template is None else Template.load(template, features),
            file_bytes=file_mb << 20,
            overwrite=overwrite,
            events=events,
        )
    if as_json:
        emit({"folder": str(exported.folder), **exported.manifest})
        return
    for line in exported.lines:
        console().print(line, markup=False, soft_wrap=True)
