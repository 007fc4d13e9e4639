"""Small files of a store, written whole or not at all, on a disk or behind a URL.

What must hold, and by what means:

    operation   on this machine                        at s3://                       behind other URLs
    write       temporary name, then rename            one put                        one put
    create      temporary name, then hard link         put, If-None-Match: *          exclusive create of fsspec
    swap        compare and rename under a file lock   put, If-Match: <etag>          compare, then put: NOT atomic

``create`` and ``swap`` say whether they have written. Everything raises ``StoreError`` where the store cannot be
reached.
"""

from __future__ import annotations

import posixpath
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from features.errors import StoreError

_REFUSED = ("PreconditionFailed", "412", "NoSuchKey", "404")
_CONFLICT = ("ConditionalRequestConflict", "OperationAborted", "409")
_ATTEMPTS = 8


class Stamped(NamedTuple):
    """A file's bytes, and what tells this state of it from any other (etag or digest)."""

    content: bytes
    stamp: str


class Files:
    """Files behind a URL that fsspec knows; ``fs`` keeps no listings, so that nobody sees an old state."""

    def __init__(self, fs: Any) -> None:
        self.fs = fs

    def write(self, path: str, content: Any) -> None:
        """Write a file, or replace it whole. ``content`` is bytes or a buffer."""
        with self.writing(path):
            self.fs.pipe_file(path, bytes(content))

    def create(self, path: str, content: bytes) -> bool:
        """Write a file where there is none of that name."""
        with self.writing(path):
            try:
                self.fs.pipe_file(path, content, mode="create")
            except FileExistsError:
                return False
            return True

    def read(self, path: str) -> Stamped | None:
        """A small file and its stamp; ``None`` where there is none."""
        with self.reading(path):
            try:
                content: bytes = self.fs.cat_file(path)
            except FileNotFoundError:
                return None
            return Stamped(content, _digest(content))

    def swap(self, path: str, content: bytes, stamp: str) -> bool:
        """Replace a file that is still in the state ``stamp``."""
        found = self.read(path)
        if found is None or found.stamp != stamp:
            return False
        self.write(path, content)
        return True

    def exists(self, path: str) -> bool:
        """Whether there is a file or folder of that name."""
        with self.reading(path):
            return bool(self.fs.exists(path))

    @property
    def log_options(self) -> dict[str, str]:
        """What the log (deltalake) must be told about this place."""
        return {}

    @contextmanager
    def writing(self, path: str) -> Iterator[None]:
        """What cannot be written (a full disk, a missing permission) is told as a ``StoreError``."""
        try:
            yield
        except self._faults as error:
            raise StoreError(
                f"{path}: cannot be written: {_in_words(error)}; nothing of this run was published, finished shards "
                "are kept; cure: make room or mend the permissions, and run again"
            ) from error

    @contextmanager
    def reading(self, path: str) -> Iterator[None]:
        """What cannot be read is told as a ``StoreError``."""
        try:
            yield
        except self._faults as error:
            raise StoreError(
                f"{path}: cannot be read: {_in_words(error)}; cure: check the address, and the permissions or "
                "credentials that the environment gives"
            ) from error

    @property
    def _faults(self) -> tuple[type[Exception], ...]:
        return (OSError,)


class LocalFiles(Files):
    """Files on a disk of this machine, or on one that it mounts."""

    def write(self, path: str, content: Any) -> None:
        """Write a file, or replace it whole; see ``Files``."""
        with self.writing(path), _beside(path, content) as fresh:
            fresh.replace(path)

    def create(self, path: str, content: bytes) -> bool:
        """Write a file where there is none of that name; see ``Files``. The disk must know hard links."""
        with self.writing(path), _beside(path, content) as fresh:
            try:
                Path(path).hardlink_to(fresh)
            except FileExistsError:
                return False
            return True

    def swap(self, path: str, content: bytes, stamp: str) -> bool:
        """Replace a file that is still in the state ``stamp``; see ``Files``."""
        import fcntl

        if not Path(path).exists():
            return False
        with self.writing(path), Path(f"{path}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return super().swap(path, content, stamp)


class S3Files(Files):
    """Objects at ``s3://``: a put is atomic, and may have a condition."""

    def create(self, path: str, content: bytes) -> bool:
        """Write an object where there is none of that name; see ``Files``."""
        return self._put_if(path, content, IfNoneMatch="*")

    def read(self, path: str) -> Stamped | None:
        """A small object and its etag; see ``Files``."""
        with self.reading(path):
            try:
                # the etag first: if the object changes in between, the etag is of the past, and swap refuses it
                stamp = str(self.fs.info(path)["ETag"])
                return Stamped(self.fs.cat_file(path), stamp)
            except FileNotFoundError:
                return None

    def swap(self, path: str, content: bytes, stamp: str) -> bool:
        """Replace an object that still has the etag ``stamp``; see ``Files``."""
        return self._put_if(path, content, IfMatch=stamp)

    def _put_if(self, path: str, content: bytes, **condition: str) -> bool:
        bucket, key, _ = self.fs.split_path(path)
        with self.writing(path):
            for _ in range(_ATTEMPTS):
                try:
                    self.fs.call_s3("put_object", Bucket=bucket, Key=key, Body=content, **condition)
                except OSError as error:
                    code = _code(error)
                    if code in _REFUSED:
                        return False
                    if code not in _CONFLICT:
                        raise
                else:
                    return True
        raise StoreError(f"{path}: others write it without end ({_ATTEMPTS} conflicts); cure: run again")

    @property
    def log_options(self) -> dict[str, str]:
        """What the log (deltalake) must be told: a version is a put with If-None-Match."""
        return {"aws_conditional_put": "etag"}

    @property
    def _faults(self) -> tuple[type[Exception], ...]:
        from botocore.exceptions import BotoCoreError

        return (OSError, BotoCoreError)


def open_files(url: str) -> tuple[Files, str]:
    """The files behind ``url`` (a local folder or any URL that fsspec knows), and the path of ``url`` among them."""
    try:
        fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except ImportError as error:
        cure = "pip install 'gristmill[s3]'" if url.startswith("s3") else "install that package"
        raise StoreError(f"{url}: cannot be opened here: {error}; cure: {cure}") from error
    if isinstance(fs, LocalFileSystem):
        return LocalFiles(fs), root
    if "s3" in fs.protocol:
        return S3Files(fs), root
    return Files(fs), root


@contextmanager
def _beside(path: str, content: Any) -> Iterator[Path]:
    """A whole file with ``content`` in the folder of ``path``, of another name: all that a killed process can leave."""
    folder, name = posixpath.split(path)
    Path(folder).mkdir(parents=True, exist_ok=True)
    fresh = Path(folder, f".{name}.{uuid.uuid4().hex}.part")
    try:
        fresh.write_bytes(content)
        yield fresh
    finally:
        fresh.unlink(missing_ok=True)


def _in_words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _digest(content: bytes) -> str:
    import blake3

    return str(blake3.blake3(content).hexdigest())


def _code(error: OSError) -> str:
    """S3's code of an error that s3fs has translated."""
    response: dict[str, Any] = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
