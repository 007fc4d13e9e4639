"""The store: Parquet shards under an atomic log.

One Delta Lake table per data set is the commit log. A run writes immutable files under fresh names and makes them
visible with one transaction of adds and removes, so it is seen whole or not at all. What a snapshot needs besides
feature rows (the samples, the quarantine, the recipes, the fitted state) is named in the commit's own metadata.

    <store>/<dataset>/_delta_log/                          versions; a snapshot is a version
    <store>/<dataset>/feature=<name>/shard-000123-<digest>-<unique>.parquet
    <store>/<dataset>/feature=aligned.<name>/...           the same samples on the common timeline
    <store>/<dataset>/_tables/{samples,quarantine}-<uuid>.parquet
    <store>/<dataset>/_fitted/<feature>-<digest>.safetensors
    <store>/<dataset>/_ledger/<work>.json                  finished shards of runs that have not published yet
    <store>/<dataset>/_runs/<run_id>/report.json
    <store>/<dataset>/_cache/content.parquet               digests of files already read
"""

from __future__ import annotations

import json
import posixpath
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import StoreError
from pipeline.store.shard import ALIGNED_SCHEMA, DIGEST_BYTES

ALIGNED_PREFIX = "aligned."
_INFO = "gristmill"
_FILE = re.compile(
    r"^feature=(?P<feature>[^/]+)/shard-(?P<shard>\d{6,})-(?P<digest>[0-9a-f]{32})-[0-9a-f]{8}\.parquet$"
)


@dataclass(frozen=True)
class ShardFile:
    """One immutable Parquet file of the store: ``path`` is relative to the data set's folder."""

    path: str
    size: int
    rows: int

    @property
    def feature(self) -> str:
        """The feature whose rows it holds."""
        return self._match["feature"]

    @property
    def shard(self) -> int:
        """The shard whose samples it holds."""
        return int(self._match["shard"])

    @property
    def digest(self) -> str:
        """The digest that its bytes had when it was written (``file_digest``)."""
        return self._match["digest"]

    @property
    def _match(self) -> re.Match[str]:
        match = _FILE.match(self.path)
        if match is None:
            raise StoreError(
                f"{self.path}: not the name of a shard file; allowed: feature=<name>/shard-<n>-<digest>-<id>.parquet"
            )
        return match


@dataclass(frozen=True)
class Snapshot:
    """A published, immutable state of a data set."""

    store: DatasetStore
    version: int
    files: tuple[ShardFile, ...]
    info: Mapping[str, Any]

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features that have rows, aligned ones left out."""
        return tuple(sorted({f.feature for f in self.files if not f.feature.startswith(ALIGNED_PREFIX)}))

    @property
    def aligned(self) -> tuple[str, ...]:
        """Names of the features that are aligned on the common timeline."""
        names = {f.feature for f in self.files if f.feature.startswith(ALIGNED_PREFIX)}
        return tuple(sorted(name[len(ALIGNED_PREFIX) :] for name in names))

    def files_of(self, feature: str) -> tuple[ShardFile, ...]:
        """The files of one feature, by shard."""
        return tuple(sorted((f for f in self.files if f.feature == feature), key=lambda f: f.shard))

    def read(self, feature: str, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of a feature in order of (shard, sample_id), perhaps only some columns.

        Aligned rows are read as ``aligned.<feature>``. Raises ``StoreError`` for a feature without rows.
        """
        files = self.files_of(feature)
        if not files:
            known = ", ".join(sorted({f.feature for f in self.files})) or "none"
            raise StoreError(f"{self.store.url}: no rows of {feature!r} in snapshot {self.version}; it has: {known}")
        tables = [self.store.read_file(f.path, columns) for f in files]
        return pa.concat_tables(table.replace_schema_metadata(tables[0].schema.metadata) for table in tables)

    def summary(self) -> dict[str, Any]:
        """What the snapshot holds, as a JSON document: features with rows, bytes and files, samples, quarantine."""
        features = {}
        for name in sorted({file.feature for file in self.files}):
            files = self.files_of(name)
            features[name] = {
                "rows": sum(file.rows for file in files),
                "dim": self.info["dims"].get(name.removeprefix(ALIGNED_PREFIX)),
                "bytes": sum(file.size for file in files),
                "files": [self.store.path(file.path) for file in files],
            }
        return {
            "dataset": posixpath.basename(self.store.url),
            "snapshot": self.version,
            "created": self.info["created"],
            "run_id": self.info["run_id"],
            "samples": len(self.samples),
            "quarantined": len(set(self.quarantine["sample_id"].to_pylist())),
            "features": features,
        }

    @cached_property
    def samples(self) -> pa.Table:
        """The samples of this snapshot: what was scanned, and each sample's shard."""
        return self.store.read_file(self.info["samples"])

    @cached_property
    def quarantine(self) -> pa.Table:
        """The samples that failed in this snapshot, one row for each feature they failed in."""
        return self.store.read_file(self.info["quarantine"])


class DatasetStore:
    """The store of one data set, below ``url`` (a local folder or any fsspec URL)."""

    def __init__(self, store: str, dataset: str) -> None:
        self.url = posixpath.join(store, dataset)
        self.fs, self.root = fsspec.core.url_to_fs(self.url)

    def path(self, *parts: str) -> str:
        """A path on ``fs`` below the data set's folder."""
        return posixpath.join(self.root, *parts)

    def snapshot(self, version: int | None = None) -> Snapshot | None:
        """The snapshot of a version, by default the last one; ``None`` where nothing was published yet."""
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        if not self.fs.exists(self.path("_delta_log")):
            return None
        try:
            table = DeltaTable(self.url, version=version)
        except DeltaError as error:
            raise StoreError(f"{self.url}: cannot open snapshot {version}: {error}") from error
        info = next((json.loads(commit[_INFO]) for commit in table.history() if _INFO in commit), None)
        if info is None:
            return None
        actions = table.get_add_actions(flatten=True)
        paths, sizes, rows = (actions.column(name).to_pylist() for name in ("path", "size_bytes", "num_records"))
        files = tuple(ShardFile(*found) for found in zip(paths, sizes, rows, strict=True))
        return Snapshot(self, table.version(), files, info)

    def read_file(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Read one Parquet file of the store, as it is (no partition columns are added)."""
        names = None if columns is None else list(columns)
        with self.fs.open(self.path(path), "rb") as stream, pq.ParquetFile(stream, pre_buffer=False) as file:
            # one thread: Arrow's own would still be at work on the stream when a short-lived process ends
            return file.read(columns=names, use_threads=False)

    def write_table(self, kind: str, table: pa.Table) -> str:
        """Write a side table (samples, quarantine) under a fresh name; return its path."""
        path = f"_tables/{kind}-{uuid.uuid4().hex}.parquet"
        self._write(path, table)
        return path

    def read_cache(self, schema: pa.Schema) -> pa.Table:
        """The content digests remembered from earlier runs."""
        if not self.fs.exists(self.path("_cache/content.parquet")):
            return schema.empty_table()
        return self.read_file("_cache/content.parquet").cast(schema)

    def write_cache(self, table: pa.Table) -> None:
        """Remember content digests. The file is replaced whole, so a reader never sees half of it."""
        fresh = f"_cache/content-{uuid.uuid4().hex}.parquet"
        self._write(fresh, table)
        self.fs.mv(self.path(fresh), self.path("_cache/content.parquet"))

    def has(self, file: ShardFile) -> bool:
        """Whether a shard file is there and has its size."""
        try:
            return int(self.fs.size(self.path(file.path))) == file.size
        except FileNotFoundError:
            return False

    def create(self, path: str, content: bytes) -> bool:
        """Write a small file if there is none of that name, atomically; say whether it was written."""
        self.fs.makedirs(posixpath.dirname(self.path(path)), exist_ok=True)
        try:
            self.fs.pipe_file(self.path(path), content, mode="create")
        except FileExistsError:
            return False
        return True

    def write_bytes(self, path: str, content: Any) -> None:
        """Write a file whole; ``content`` is bytes or a buffer."""
        self.fs.makedirs(posixpath.dirname(self.path(path)), exist_ok=True)
        self.fs.pipe_file(self.path(path), content)

    def _write(self, path: str, table: pa.Table) -> None:
        self.fs.makedirs(posixpath.dirname(self.path(path)), exist_ok=True)
        with self.fs.open(self.path(path), "wb") as sink:
            pq.write_table(table, sink, compression="zstd")

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
        since ``base``, or a file is not what it should be; nothing is visible then.
        """
        from deltalake import DeltaTable, Schema
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import AddAction, CommitProperties, RemoveAction, Transaction

        for file in adds:
            self._check(file)
        schema = Schema.from_arrow(_delta_schema())
        if not self.fs.exists(self.path("_delta_log")):
            DeltaTable.create(
                self.url,
                schema=schema,
                mode="ignore",
                partition_by=["feature"],
                configuration={"delta.enableExpiredLogCleanup": "false"},
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
            custom_metadata={_INFO: json.dumps(dict(info), sort_keys=True)},
            max_commit_retries=0,
            app_transactions=[Transaction(f"run/{run_id}", 1), Transaction("publish", now)],
        )
        table = DeltaTable(self.url)
        try:
            table.create_write_transaction(actions, "append", schema, ["feature"], commit_properties=properties)
        except CommitFailedError as error:
            raise StoreError(
                f"{self.url}: another run published at the same moment; nothing of this run was published; "
                f"cure: run again ({error})"
            ) from error
        return int(DeltaTable(self.url).version())

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


def shard_path(feature: str, shard: int, content: Any) -> str:
    """A fresh, never used path for the rows of one feature and shard, which holds the digest of the file's bytes."""
    return f"feature={feature}/shard-{shard:06d}-{file_digest(content)}-{uuid.uuid4().hex[:8]}.parquet"


def file_digest(content: Any) -> str:
    """BLAKE3 of a file's bytes (16 bytes, as hex): what its name promises."""
    import blake3

    return str(blake3.blake3(memoryview(content)).hexdigest(length=DIGEST_BYTES))
