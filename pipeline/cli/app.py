"""The command line. Commands that go through Prefect are added by ``flows.cli``, the installed entry point.

Exit codes: 0 done; 1 failed, nothing published; 2 wrong usage or catalog; 3 done, but samples are in quarantine (only
with ``--strict``); 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import typer.core

from features.errors import CatalogError, GristmillError

if TYPE_CHECKING:
    from pipeline.catalog import Catalog

ORDER = (
    *("demo", "init", "schema", "doctor", "plan", "run", "retry", "align", "rebuild", "train", "predict"),
    *(
        "status",
        "report",
        "show",
        "pictures",
        "quarantine",
        "log",
        "diff",
        "release",
        "adopt",
        "verify",
        "gc",
        "bench",
        "export",
    ),
    *("nightly", "serve", "fetch"),
)
"""Commands in the order in which people need them; others follow."""


class _InOrder(typer.core.TyperGroup):
    """Lists commands as ``ORDER`` does, whatever module they come from."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]  # typer carries click's types
        """Return the names of the commands."""
        known = super().list_commands(ctx)
        return sorted(known, key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))


app = typer.Typer(
    name="gristmill",
    cls=_InOrder,
    help="Raw video, audio, images and text in; time-aligned, versioned, training-ready features out.",
    epilog="Start with: gristmill demo. Then: gristmill init FOLDER, gristmill plan, gristmill run, gristmill train. "
    "Exit codes: 0 done, 1 failed (nothing published), 2 wrong usage or catalog, 3 quarantine not empty (--strict).",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _known(context: typer.Context, incomplete: str) -> list[str]:
    """Names of data sets that begin with ``incomplete``, for the shell's completion. Reads the YAML, checks nothing."""
    import yaml

    try:
        found = yaml.safe_load(Path(context.params.get("catalog") or DEFAULT_CATALOG).read_text(encoding="utf-8"))
        return sorted(name for name in found["datasets"] if name.startswith(incomplete))
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError):
        return []  # in the middle of a line the shell has no place for a complaint


DEFAULT_CATALOG = Path("data_catalog.yaml")
CatalogOption = Annotated[Path, typer.Option("--catalog", "-c", help="The catalog file.", metavar="FILE")]
DatasetArgument = Annotated[
    str, typer.Argument(help="A data set of the catalog.", metavar="DATASET", autocompletion=_known)
]
DatasetsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Data sets of the catalog; all of them by default.", metavar="[DATASET]...", autocompletion=_known
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of tables.")]
SerialOption = Annotated[bool, typer.Option("--serial", help="Compute in this process, without Dask.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Exit with 3 when any sample is in quarantine.")]
VerifyOption = Annotated[
    bool, typer.Option("--verify-content", help="Read every file again instead of trusting size and time of change.")
]
FeaturesOption = Annotated[
    list[str] | None,
    typer.Option("--feature", help="Compute only this feature (may be given again).", metavar="NAME"),
]
SamplesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--sample", help="Compute only samples whose id matches this glob (may be given again).", metavar="GLOB"
    ),
]
SnapshotOption = Annotated[
    str | None,
    typer.Option("--snapshot", help="A version or the name of a release, instead of the last.", metavar="SNAPSHOT"),
]

QUARANTINED = 3
T = TypeVar("T")


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


def emit_line(row: dict[str, Any] | str) -> None:
    """Print one line on standard output: text as it is, a JSON document in the form of JSON Lines."""
    sys.stdout.write((row if isinstance(row, str) else json.dumps(row)) + "\n")


def for_each(catalog: Catalog, names: Iterable[str] | None, work: Callable[[str], T]) -> tuple[list[T], int]:
    """Do something for each data set (``None``: all of them). Of several, one that fails is told and the others go on.

    Returns what came out, and the exit code that the first failure calls for, else 0.
    """
    chosen = [catalog.dataset(name).name for name in names or catalog.datasets]
    if len(chosen) == 1 or _debugging():
        return [work(name) for name in chosen], 0
    results, code = [], 0
    for name in chosen:
        try:
            results.append(work(name))
        except GristmillError as error:
            _complain(f"{name}: {error}")
            code = code or _exit_code(error)
    return results, code


def _debugging() -> bool:
    return "--debug" in sys.argv[1:]


def _exit_code(error: GristmillError) -> int:
    return 2 if isinstance(error, CatalogError) else 1


def main(application: typer.Typer = app) -> None:
    """Run the command line; errors made on purpose are printed without a traceback unless ``--debug`` is given."""
    debug = _debugging()
    try:
        application()
    except GristmillError as error:
        if debug:
            raise
        _complain(error)
        sys.exit(_exit_code(error))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; nothing was published\n")
        sys.exit(130)
    except BrokenPipeError:  # of `gristmill ... | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        _complain(f"{type(error).__name__}: {error}; gristmill --debug COMMAND shows where")
        sys.exit(1)


def _complain(error: object) -> None:
    sys.stderr.write(f"error: {error}\n")
