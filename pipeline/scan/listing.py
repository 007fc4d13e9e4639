"""The files below the root of a data set, on this machine or behind a URL, with what tells that they changed.

Nothing outside the root is ever given: a symbolic link that leads out of it is a fault, and folders that are symbolic
links are not entered. Files and folders whose name begins with a dot are not samples.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from features.errors import CatalogError, Reason

_VERSION_KEYS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "modified", "updated", "created")


class File(NamedTuple):
    """A file: absolute path or URL, size in bytes, and a text that changes when it does (mtime in ns, or etag)."""

    uri: str
    size: int
    version: str


class Fault(NamedTuple):
    """Why a path cannot be used."""

    reason: Reason
    message: str


@dataclass
class Skipped:
    """What a walk passed by: names that begin with a dot, and folders that are symbolic links."""

    hidden: int = 0
    linked: list[str] = field(default_factory=list)


class Root(Protocol):
    """The root of a data set. Paths are relative to it, with forward slashes."""

    def walk(self, excluded: tuple[str, ...], skipped: Skipped) -> Iterator[tuple[str, File | Fault]]:
        """Every file below the root, outside the folders ``excluded``. A folder that cannot be listed is a fault."""
        ...

    def stat(self, path: str) -> File | Fault:
        """The file at ``path``."""
        ...

    def names(self, folder: str) -> tuple[str, ...]:
        """Names of what lies in ``folder`` (empty where there is no such folder), in order."""
        ...

    def read(self, path: str) -> bytes:
        """The bytes of a file. Raises ``FileNotFoundError`` and other ``OSError``."""
        ...


def open_root(root: str) -> Root:
    """Return the root at an absolute path or URL. Raises ``CatalogError`` when it is not there."""
    return RemoteRoot(root) if "://" in root else LocalRoot(root)


class LocalRoot:
    """A folder of this machine."""

    def __init__(self, root: str) -> None:
        if not Path(root).is_dir():
            raise CatalogError([f"root: no such folder: {root}; cure: make or mount it, or correct the catalog"])
        self._root = os.path.realpath(root).rstrip("/")
        self._inside = {"": True}
        self._names: dict[str, tuple[str, ...]] = {}

    def walk(self, excluded: tuple[str, ...], skipped: Skipped) -> Iterator[tuple[str, File | Fault]]:
        """Every file below the root; see ``Root``."""
        waiting = [""]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(f"{self._root}/{folder}") as entries:
                    found = list(entries)
            except OSError as error:
                yield folder, Fault(Reason.UNREADABLE, f"{folder or '.'} cannot be listed: {error.strerror}")
                continue
            for entry in found:
                path = f"{folder}{entry.name}"
                if entry.name.startswith("."):
                    skipped.hidden += 1
                elif entry.is_symlink() and entry.is_dir():
                    skipped.linked.append(path)
                elif not entry.is_dir(follow_symlinks=False):
                    yield path, self.stat(path)
                elif path not in excluded:
                    waiting.append(path + "/")

    def stat(self, path: str) -> File | Fault:
        """The file at ``path``; see ``Root``."""
        full = f"{self._root}/{path}"
        try:
            info = os.lstat(full)
            if not self._is_inside(posixpath.dirname(path)):
                return self._leads_out(path, os.path.realpath(full))
            if stat.S_ISLNK(info.st_mode):
                real = os.path.realpath(full)
                if not real.startswith(self._root + "/"):
                    return self._leads_out(path, real)
                info = Path(full).stat()
        except FileNotFoundError:
            what = f"a symbolic link to {os.path.realpath(full)}, which is" if Path(full).is_symlink() else "file is"
            hint = "; cure: write the path with forward slashes" if "\\" in path else ""
            return Fault(Reason.MISSING_FILE, f"{path}: {what} not there (root {self._root}){hint}")
        except NotADirectoryError:
            return Fault(Reason.MISSING_FILE, f"{path}: a part of the path is a file, not a folder (root {self._root})")
        except ValueError as error:
            return Fault(Reason.INVALID_ROW, f"{path!r} is no path: {error}")
        except OSError as error:
            return Fault(Reason.UNREADABLE, f"{path}: {error.strerror}")
        if not stat.S_ISREG(info.st_mode):
            what = "a folder" if stat.S_ISDIR(info.st_mode) else "neither a file nor a folder"
            return Fault(Reason.UNREADABLE, f"{path}: {what}, allowed: a file")
        return File(full, info.st_size, str(info.st_mtime_ns))

    def _is_inside(self, folder: str) -> bool:
        known = self._inside.get(folder)
        if known is None:
            real = os.path.realpath(f"{self._root}/{folder}")
            known = self._inside[folder] = (real + "/").startswith(self._root + "/")
        return known

    def _leads_out(self, path: str, real: str) -> Fault:
        return Fault(Reason.INVALID_ROW, f"{path} leads to {real}, allowed: files below root ({self._root})")

    def names(self, folder: str) -> tuple[str, ...]:
        """Names of what lies in ``folder``; see ``Root``."""
        if folder not in self._names:
            try:
                self._names[folder] = tuple(sorted(entry.name for entry in os.scandir(f"{self._root}/{folder}")))
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = ()
        return self._names[folder]

    def read(self, path: str) -> bytes:
        """The bytes of a file; see ``Root``."""
        return Path(self._root, path).read_bytes()


class RemoteRoot:
    """A folder behind a URL that fsspec reads. Folders are listed once."""

    def __init__(self, root: str) -> None:
        from fsspec.core import url_to_fs

        self._fs, base = url_to_fs(root)
        self._fs.invalidate_cache()
        self._url = root
        self._base = base.rstrip("/") + "/"
        self._folders: dict[str, dict[str, dict[str, Any]]] = {}

    def walk(self, excluded: tuple[str, ...], skipped: Skipped) -> Iterator[tuple[str, File | Fault]]:
        """Every file below the root; see ``Root``."""
        try:
            found: dict[str, dict[str, Any]] = self._fs.find(self._base, detail=True)
        except OSError as error:
            raise CatalogError(
                [f"root: {self._url} cannot be listed: {error}; cure: check the URL and its rights"]
            ) from error
        for name, info in found.items():
            path = name.removeprefix(self._base)
            if any(path.startswith(folder + "/") for folder in excluded) or info["type"] != "file":
                continue
            if any(part.startswith(".") for part in path.split("/")):
                skipped.hidden += 1
            else:
                yield path, self._file(name, info)

    def stat(self, path: str) -> File | Fault:
        """The file at ``path``; see ``Root``."""
        folder, _, name = path.rpartition("/")
        info = self._listing(folder).get(name)
        if info is None:
            return Fault(Reason.MISSING_FILE, f"{path}: file is not there (root {self._url})")
        if info["type"] != "file":
            return Fault(Reason.UNREADABLE, f"{path}: a folder, allowed: a file")
        return self._file(self._base + path, info)

    def names(self, folder: str) -> tuple[str, ...]:
        """Names of what lies in ``folder``; see ``Root``."""
        return tuple(sorted(self._listing(folder)))

    def read(self, path: str) -> bytes:
        """The bytes of a file; see ``Root``."""
        data: bytes = self._fs.cat_file(self._base + path)
        return data

    def _listing(self, folder: str) -> dict[str, dict[str, Any]]:
        if folder not in self._folders:
            try:
                entries = self._fs.ls(self._base + folder, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                entries = []
            except OSError as error:
                message = f"root: {self._url}/{folder} cannot be listed: {error}; cure: check the URL and its rights"
                raise CatalogError([message]) from error
            self._folders[folder] = {posixpath.basename(entry["name"].rstrip("/")): entry for entry in entries}
        return self._folders[folder]

    def _file(self, name: str, info: dict[str, Any]) -> File:
        uri: str = self._fs.unstrip_protocol(name)
        version = next((str(info[key]) for key in _VERSION_KEYS if info.get(key) is not None), None)
        if version is None or info["size"] is None:
            message = (
                f"root: {uri} has neither etag nor time of change, or no size, so that a change could not be seen; "
                "cure: copy the files to a store that tells them"
            )
            raise CatalogError([message])
        return File(uri, int(info["size"]), version)
