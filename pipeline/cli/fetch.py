"""Commands that fetch what others publish: data of NLTK. Nothing else in the project asks the network for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.app import app, console

NLTK_NAMES = ("punkt_tab", "stopwords", "wordnet")
"""The data that the text steps can use."""

fetch = typer.Typer(help="Fetch data that others publish.", no_args_is_help=True)
app.add_typer(fetch, name="fetch")


@fetch.callback()
def _root() -> None:
    """Fetch data that others publish."""


@fetch.command()
def nltk(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Data by NLTK's names; by default all that text steps can use.", metavar="[NAME]..."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="The folder; by default the first that NLTK looks in and may write.", metavar="DIR"),
    ] = None,
    index: Annotated[
        str | None, typer.Option("--index", help="Address of another index than NLTK's own.", metavar="URL")
    ] = None,
) -> None:
    """Fetch data of NLTK (sentence models, stop words, WordNet) and unpack them where NLTK looks for them.

    Example: gristmill fetch nltk punkt_tab stopwords wordnet
    """
    for line in fetch_nltk(tuple(names or NLTK_NAMES), to, index):
        console().print(line, markup=False, soft_wrap=True)


def fetch_nltk(names: tuple[str, ...], to: Path | None, index: str | None) -> Iterator[str]:
    """Fetch packages of NLTK's index into ``to``, unpack them, and say of each where it lies.

    One that is there and whole is not fetched again. Raises ``StateError`` where the index or a package cannot be
    had, a name is unknown, or the folder cannot be written.
    """
    from nltk.downloader import Downloader

    from features.errors import StateError

    source = Downloader(server_index_url=index)
    folder = Path(to or source.default_download_dir()).expanduser().absolute()
    try:
        known = {package.id: package for package in source.packages()}
    except (OSError, ValueError) as error:
        raise StateError(
            f"NLTK data: the index {source.url} cannot be read ({error}); cure: connect this machine to the network, "
            "or run this command on one that is, with --to DIR, and copy DIR here (NLTK_DATA=DIR)"
        ) from error
    unknown = [name for name in names if name not in known]
    if unknown:
        raise StateError(
            f"NLTK data: the index {source.url} has no {', '.join(map(repr, unknown))}; "
            f"the text steps use {', '.join(NLTK_NAMES)}"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            yield f"{name}: {_install(source, known[name], folder)}"
    except OSError as error:
        raise StateError(f"NLTK data: {folder} cannot be written ({error}); cure: give another --to DIR") from error
    yield from _hint(folder)


def _install(source: Any, package: Any, folder: Path) -> Path:
    """Fetch and unpack one package; return where it lies."""
    from nltk.downloader import ErrorMessage, unzip

    from features.errors import StateError

    for message in source.incr_download(package, str(folder)):
        if isinstance(message, ErrorMessage):
            raise StateError(
                f"NLTK data: {package.id} cannot be fetched from {package.url} ({message.message}); cure: try again, "
                f"or copy it into {folder / package.subdir}"
            )
    packed, target = folder / package.filename, folder / package.subdir / package.id
    if packed.suffix == ".zip" and not target.is_dir():  # the index leaves some packed, and nothing else unpacks them
        try:
            unzip(str(packed), str(packed.parent), verbose=False)
        except Exception as error:  # NLTK raises nothing narrower
            raise StateError(f"NLTK data: {packed} cannot be unpacked ({error}); cure: delete it, try again") from error
    return target if target.is_dir() else Path(packed)


def _hint(folder: Path) -> Iterator[str]:
    import os

    import nltk

    # NLTK's downloader puts the folder on the path of this process, so its own list says nothing about the next one
    given = [entry for entry in os.environ.get("NLTK_DATA", "").split(os.pathsep) if entry]
    usual = [entry for entry in map(str, nltk.data.path) if Path(entry).name == "nltk_data"]
    if folder not in [Path(entry).expanduser().absolute() for entry in given + usual]:
        yield f"NLTK does not look there by itself: set NLTK_DATA={folder}"
