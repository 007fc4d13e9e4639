"""Commands about what is published: show, quarantine, log, diff, release, verify, gc."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.app import (
    DEFAULT_CATALOG,
    QUARANTINED,
    CatalogOption,
    DatasetArgument,
    JsonOption,
    SnapshotOption,
    app,
    console,
    emit,
)

if TYPE_CHECKING:
    from pipeline.store import DatasetStore


def _open(catalog: Path, dataset: str) -> DatasetStore:
    from pipeline.catalog import load_catalog
    from pipeline.store import DatasetStore

    loaded = load_catalog(catalog)
    return DatasetStore(loaded.store, loaded.dataset(dataset).name)


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
def adopt(
    dataset: DatasetArgument,
    feature: Annotated[str, typer.Argument(help="A feature whose code changed.", metavar="FEATURE")],
    catalog: CatalogOption = DEFAULT_CATALOG,
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many rows to compute again as proof.")] = 20,
    tolerance: Annotated[
        float, typer.Option("--tolerance", min=0, help="How far a value may be from the stored one; it is recorded.")
    ] = 0.0,
    libraries: Annotated[
        bool, typer.Option("--libraries", help="Also adopt rows made with other versions of libraries.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Prove, but publish nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Keep the rows of a feature whose code changed but not its numbers: some are computed again to prove it.

    Exit code 1, and nothing changed, where the numbers differ or more than code does.

    Example: gristmill adopt clips audio.mfcc --rows 50
    """
    from pipeline.adopt import adopt as adopt_rows
    from pipeline.catalog import load_catalog
    from pipeline.console import drawing, print_adopted

    loaded = load_catalog(catalog)
    with drawing(console(error=True)) as events:
        adopted = adopt_rows(
            loaded,
            dataset,
            feature,
            rows=rows,
            tolerance=tolerance,
            libraries=libraries,
            dry_run=dry_run,
            events=events,
        )
    if as_json:
        emit(adopted.as_json())
    else:
        print_adopted(console(), adopted)


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


@app.command()
def pictures(
    dataset: DatasetArgument,
    feature: Annotated[str, typer.Argument(help="A feature that chooses frames of a video.", metavar="FEATURE")],
    catalog: CatalogOption = DEFAULT_CATALOG,
    snapshot: SnapshotOption = None,
    quality: Annotated[int, typer.Option("--quality", min=1, max=100, help="Of the JPEG files.")] = 90,
    as_json: JsonOption = False,
) -> None:
    """Keep the pictures of keyframes in the store, as JPEG in one Parquet file a snapshot.

    Exit code 3: some samples have none, because their files are gone or have changed; which ones is told.

    Example: gristmill pictures clips scenes
    """
    from pipeline.catalog import load_catalog
    from pipeline.console import drawing
    from pipeline.importing import importable
    from pipeline.keep import keep_pictures

    loaded = load_catalog(catalog)
    with importable(loaded.folder), drawing(console(error=True)) as events:
        kept = keep_pictures(loaded, dataset, feature, which=snapshot, quality=quality, events=events)
    if as_json:
        found = {"path": kept.path, "samples": kept.samples, "pictures": kept.pictures, "bytes": kept.size}
        emit(found | {"missed": kept.missed})
    else:
        out = console()
        told = f"{kept.pictures} pictures of {kept.samples} samples, {kept.size / 1e6:.1f} MB: {kept.path}"
        out.print(told, markup=False)
        for sample_id, why in kept.missed.items():
            out.print(f"no pictures of {sample_id}: {why}", markup=False)
    if kept.missed:
        raise typer.Exit(QUARANTINED)


@app.command()
def log(
    dataset: DatasetArgument,
    catalog: CatalogOption = DEFAULT_CATALOG,
    as_json: JsonOption = False,
) -> None:
    """List every snapshot that was published, the newest first: what it holds, and what changed in it.

    Example: gristmill log clips
    """
    from pipeline.console import print_log
    from pipeline.store.history import history

    entries = history(_open(catalog, dataset))
    if as_json:
        emit([entry.as_json() for entry in entries])
    else:
        print_log(console(), entries)


@app.command()
def diff(
    dataset: DatasetArgument,
    before: Annotated[str, typer.Argument(help="A version or the name of a release.", metavar="A")],
    after: Annotated[str | None, typer.Argument(help="The same; by default the last snapshot.", metavar="[B]")] = None,
    catalog: CatalogOption = DEFAULT_CATALOG,
    as_json: JsonOption = False,
) -> None:
    """Compare two snapshots: rows added, removed and changed, and how far the values of changed rows moved.

    Example: gristmill diff clips 3 4
    """
    from pipeline.catalog import load_catalog
    from pipeline.console import print_diff
    from pipeline.run import published
    from pipeline.store.diff import diff as compare

    loaded = load_catalog(catalog)
    found = compare(published(loaded, dataset, before), published(loaded, dataset, after))
    if as_json:
        emit(found.as_json())
    else:
        print_diff(console(), found)


@app.command()
def release(
    dataset: DatasetArgument,
    name: Annotated[str, typer.Argument(help="The name, such as paper-1.", metavar="NAME")],
    catalog: CatalogOption = DEFAULT_CATALOG,
    snapshot: SnapshotOption = None,
    delete: Annotated[bool, typer.Option("--delete", help="Forget the name instead.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Name a snapshot: it can be read by that name, and gc keeps it.

    Example: gristmill release clips paper-1 --snapshot 12
    """
    from pipeline.store.releases import create_release, delete_release

    store = _open(catalog, dataset)
    if delete:
        delete_release(store, name)
        document: dict[str, Any] = {"release": name, "snapshot": None}
        said = f"{name} is no release any more."
    else:
        made = create_release(store, name, snapshot)
        document = {"release": made.name, "snapshot": made.version}
        said = f"{made.name} is snapshot {made.version}."
    if as_json:
        emit(document)
    else:
        console().print(said, markup=False)


@app.command()
def verify(
    dataset: DatasetArgument,
    catalog: CatalogOption = DEFAULT_CATALOG,
    snapshot: SnapshotOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read every byte of a snapshot and check it: digests, rows, and that the counts add up. Exits with 1 on a fault.

    Example: gristmill verify clips
    """
    from pipeline.catalog import load_catalog
    from pipeline.console import drawing, print_verified
    from pipeline.run import published
    from pipeline.store.verify import verify as check

    found = published(load_catalog(catalog), dataset, snapshot)
    with drawing(console(error=True)) as events:
        verified = check(found, events)
    if as_json:
        emit(verified.as_json())
    else:
        print_verified(console(), verified)
    if verified.faults:
        raise typer.Exit(1)


@app.command()
def gc(
    dataset: DatasetArgument,
    catalog: CatalogOption = DEFAULT_CATALOG,
    keep: Annotated[int, typer.Option("--keep", min=1, help="How many snapshots to keep besides releases.")] = 10,
    ledger_days: Annotated[
        float, typer.Option("--ledger-days", min=0, help="For how long a run that did not publish can be resumed.")
    ] = 7.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove the files that no kept snapshot needs: kept are the last ones, every release, and what can be resumed.

    Example: gristmill gc clips --keep 5 --dry-run
    """
    from pipeline.console import drawing, print_collected
    from pipeline.store.gc import collect

    store = _open(catalog, dataset)
    with drawing(console(error=True)) as events:
        found = collect(store, keep=keep, ledger_days=ledger_days, dry_run=dry_run, events=events)
    if as_json:
        emit(found.as_json())
    else:
        print_collected(console(), found)
