"""The store: immutable Parquet shards under an atomic log, and the tables that belong to a snapshot."""

from pipeline.store.shard import ALIGNED_PREFIX, VIEWS_PREFIX
from pipeline.store.snapshot import DatasetStore, ShardFile, Snapshot, shard_path

__all__ = ["ALIGNED_PREFIX", "VIEWS_PREFIX", "DatasetStore", "ShardFile", "Snapshot", "shard_path"]
