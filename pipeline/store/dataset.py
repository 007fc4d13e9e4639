"""The store of one data set: Parquet shards under an atomic log.

A Delta Lake table is the commit log. A run writes immutable files under fresh names and makes them visible with one
transaction of adds and removes, so it is seen whole or not at all. What a snapshot needs besides feature rows (the
samples, the quarantine, the recipes, the fitted state) is named in the commit's own metadata. docs/architecture.md
lists the folders.
"""

from __future__ import annotations

import json
import posixpath
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import StoreError
from pipeline.store.files import Stamped, open_files
from pipeline.store.shard import ALIGNED_PREFIX, ALIGNED_SCHEMA
from pipeline.store.shard_file import ShardFile
from pipeline.store.snapshot import Snapshot

if TYPE_CHECKING:
    from deltalake import DeltaTable

REMOVED = "_gc"
_READERS = 8
_LOG_BLOCK = 1 << 18
"""Bytes of a version's log that are asked for at a time, where it is behind a URL."""
_INFO = "gristmill"
_FIRST_VERSION = "_delta_log/00000000000000000000.json"  # kept for ever: the log is never cleaned up


class DatasetStore:
    """The store of one data set, below ``url`` (a local folder or any fsspec URL)."""

    def __init__(self, store: str, dataset: str) -> None:
        self.url = posixpath.join(store, dataset)
        self._files, self.root = open_files(self.url)
        self.fs = self._files.fs

    def path(self, *parts: str) -> str:
        """A path on ``fs`` below the data set's folder."""
        return posixpath.join(self.root, *parts)

    def snapshot(self, version: int | None = None) -> Snapshot | None:
        """The snapshot of a version, by default the last one; ``None`` where nothing was published yet.

        Raises ``StoreError`` for a version that is not there, or whose files ``gc`` has removed.
        """
        if version is not None and version in self.removed():
            from pipeline.store.releases import kept_in_words

            raise StoreError(f"{self.url}: snapshot {version} was removed by gc ({kept_in_words(self)})")
        return self.at(version)

    def commits(self) -> list[tuple[int, Mapping[str, Any]]]:
        """Every version that was published, the newest first, with what its commit says of it."""
        if not self._files.exists(self.path(_FIRST_VERSION)):
            return []
        versions = range(int(self._log().version()), -1, -1)
        with ThreadPoolExecutor(max_workers=_READERS) as pool:
            found = zip(versions, pool.map(self._committed, versions), strict=True)
            return [(version, info) for version, info in found if info is not None]

    def _committed(self, version: int) -> Mapping[str, Any] | None:
        """What the commit of a version says of it; ``None`` where another tool has made it.

        Read from the log itself: the history that deltalake gives for an old version is that of the newest one. The
        commit speaks of itself in its first line, and names its files (hundreds of thousands) in those that follow.
        """
        path = self.path(f"_delta_log/{version:020d}.json")
        try:
            with self.fs.open(path, "rb", block_size=_LOG_BLOCK) as lines:
                for line in lines:
                    if line.startswith(b'{"commitInfo"'):
                        said = json.loads(line)["commitInfo"].get(_INFO)
                        return None if said is None else dict(json.loads(said))
        except FileNotFoundError as error:
            raise StoreError(f"{path}: not there; the log of a data set must not be cleaned up") from error
        return None

    def removed(self) -> frozenset[int]:
        """The versions that ``gc`` has removed: they stay in the log, but their files may be gone."""
        if not self.fs.exists(self.path(REMOVED)):
            return frozenset()
        found = (str(path).rpartition("/")[2] for path in self.fs.ls(self.path(REMOVED), detail=False))
        return frozenset(int(name.removesuffix(".json")) for name in found if name.endswith(".json"))

    def at(self, version: int | None) -> Snapshot | None:
        """The snapshot of a version, even of one that ``gc`` has removed: only its log can be relied on then."""
        if not self._files.exists(self.path(_FIRST_VERSION)):
            return None
        table = self._log(version)
        commits = (self._committed(older) for older in range(table.version(), -1, -1))
        info = next((found for found in commits if found is not None), None)
        if info is None:
            return None
        actions = table.get_add_actions(flatten=True)
        paths, sizes, rows = (actions.column(name).to_pylist() for name in ("path", "size_bytes", "num_records"))
        files = tuple(ShardFile(*found) for found in zip(paths, sizes, rows, strict=True))
        return Snapshot(self, table.version(), files, info)

    def read_file(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one Parquet file of the store, as it is (no partition columns are added)."""
        names = None if columns is None else list(columns)
        try:
            with self.fs.open(self.path(path), "rb") as stream, pq.ParquetFile(stream, pre_buffer=False) as file:
                # one thread: Arrow's own would still be at work on the stream when a short-lived process ends
                return file.read(columns=names, use_threads=False)
        except FileNotFoundError as error:
            raise StoreError(
                f"{self.url}: {path} is not there; cure: read again (gc may have removed this very snapshot "
                "meanwhile); if it is still not there, gristmill verify says what else is missing"
            ) from error

    def read_files(self, paths: Sequence[str], columns: Sequence[str] | None = None) -> list[pa.Table]:
        """Read Parquet files of the store, several at a time; the tables are in the order of ``paths``."""
        with ThreadPoolExecutor(max_workers=_READERS) as pool:
            return list(pool.map(lambda path: self.read_file(path, columns), paths))

    def write_table(self, kind: str, table: pa.Table) -> str:
        """Write a side table (samples, quarantine) under a fresh name; return its path."""
        path = f"_tables/{kind}-{uuid.uuid4().hex}.parquet"
        self._write(path, table)
        return path

    def read_cache(self, name: str, schema: pa.Schema) -> pa.Table:
        """What was remembered as ``content-<stream>``, digests of media, or ``keys-<feature>``, keys of rows."""
        path = f"_cache/{name}.parquet"
        if not self.fs.exists(self.path(path)):
            return schema.empty_table()
        return self.read_file(path).cast(schema)

    def write_cache(self, name: str, table: pa.Table) -> None:
        """Remember a table. The file is replaced whole, so a reader never sees half of it."""
        self._write(f"_cache/{name}.parquet", table)

    def has(self, file: ShardFile) -> bool:
        """Whether a shard file is there and has its size."""
        try:
            return int(self.fs.size(self.path(file.path))) == file.size
        except FileNotFoundError:
            return False

    def create(self, path: str, content: bytes) -> bool:
        """Write a small file if there is none of that name, atomically; say whether it was written."""
        return self._files.create(self.path(path), content)

    def read(self, path: str) -> Stamped | None:
        """A small file and what tells its state from any other; ``None`` where there is none."""
        return self._files.read(self.path(path))

    def swap(self, path: str, content: bytes, stamp: str) -> bool:
        """Replace a small file that is still in the state ``stamp``; say whether it was. See ``files`` for how."""
        return self._files.swap(self.path(path), content, stamp)

    def write_bytes(self, path: str, content: Any) -> None:
        """Write a file whole, or replace it; ``content`` is bytes or a buffer."""
        self._files.write(self.path(path), content)

    def _write(self, path: str, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        self.write_bytes(path, sink.getvalue())

    def _log(self, version: int | None = None) -> DeltaTable:
        """The log at a version. Raises ``StoreError`` where there is no such version, or it cannot be read."""
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        try:
            with self._files.reading(self.url):
                return DeltaTable(self.url, version=version, storage_options=self._files.log_options)
        except DeltaError as error:
            raise StoreError(f"{self.url}: cannot open snapshot {version}: {error}") from error

    def commit(
        self,
        *,
        run_id: str,
        base: Snapshot | None,
        adds: Sequence[ShardFile],
        removes: Iterable[ShardFile],
        info: Mapping[str, Any],
    ) -> int:
        """Publish a run: one transaction of adds and removes on top of ``base``. Returns the new version.

        Every added file is checked first (Delta checks nothing). Raises ``StoreError`` when another run has published
        since ``base``, or a file is not what it should be; nothing is visible then. The rows of each feature are added
        to ``info`` as ``rows``.
        """
        from deltalake import DeltaTable, Schema
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

        removes = list(removes)
        self.check(adds)
        rows: Counter[str] = Counter()
        for file in {*(() if base is None else base.files), *adds} - set(removes):
            rows[file.feature] += file.rows
        schema = Schema.from_arrow(_delta_schema())
        if not self._files.exists(self.path(_FIRST_VERSION)):
            with self._files.writing(self.url):
                DeltaTable.create(
                    self.url,
                    schema=schema,
                    mode="ignore",
                    partition_by=["feature"],
                    configuration={"delta.enableExpiredLogCleanup": "false"},
                    storage_options=self._files.log_options,
                )
        current = self.snapshot()
        expected = None if base is None else base.version
        if (None if current is None else current.version) != expected:
            raise StoreError(
                f"{self.url}: another run published snapshot {current and current.version} while this one worked on "
                f"snapshot {expected}; nothing of this run was published; cure: run again (what did not change is kept)"
            )
        now = int(time.time() * 1000)
        actions: list[Any] = [
            AddAction(f.path, f.size, {"feature": f.feature}, now, True, json.dumps({"numRecords": f.rows}))
            for f in adds
        ]
        actions += [
            RemoveAction(f.path, True, now, size=f.size, partition_values={"feature": f.feature}) for f in removes
        ]
        properties = CommitProperties(
            custom_metadata={_INFO: json.dumps({**info, "rows": rows}, sort_keys=True)},
            max_commit_retries=0,
            app_transactions=[Transaction(f"run/{run_id}", 1), Transaction("publish", now)],
        )
        table = self._log()
        try:
            with self._files.writing(self.url):
                table.create_write_transaction(actions, "append", schema, ["feature"], commit_properties=properties)
        except CommitFailedError as error:
            last = self.snapshot()
            if last is not None and last.info["run_id"] == run_id:
                return last.version  # it was this one: the store's first answer was lost, and the second try refused
            raise StoreError(
                f"{self.url}: another run published at the same moment; nothing of this run was published; "
                f"cure: run again ({error})"
            ) from error
        return int(self._log().version())

    def check(self, files: Iterable[ShardFile]) -> None:
        """Raise ``StoreError`` where a shard file is not there, or not of the size, rows and columns it should have."""
        with ThreadPoolExecutor(max_workers=_READERS) as pool:
            for _ in pool.map(self._check, files):
                pass

    def _check(self, file: ShardFile) -> None:
        try:
            with self.fs.open(self.path(file.path), "rb") as stream:
                found = pq.ParquetFile(stream)
                size, rows, names = (
                    self.fs.size(self.path(file.path)),
                    found.metadata.num_rows,
                    found.schema_arrow.names,
                )
        except (OSError, pa.ArrowInvalid) as error:
            raise StoreError(f"{file.path}: cannot be published: {error}") from error
        allowed = ALIGNED_SCHEMA.names if file.feature.startswith(ALIGNED_PREFIX) else ALIGNED_SCHEMA.names[:-1]
        if (size, rows, names) != (file.size, file.rows, allowed):
            raise StoreError(
                f"{file.path}: cannot be published: got {size} bytes, {rows} rows, columns {names}; "
                f"allowed: {file.size} bytes, {file.rows} rows, columns {allowed}"
            )


def _delta_schema() -> pa.Schema:
    """The log's schema: fixed-size binaries are plain binary there, and the partition column comes first."""
    fields = [pa.field("feature", pa.string(), nullable=False)]
    for field in ALIGNED_SCHEMA:
        kind = pa.binary() if pa.types.is_fixed_size_binary(field.type) else field.type
        fields.append(pa.field(field.name, kind, nullable=field.nullable, metadata=field.metadata))
    return pa.schema(fields)
