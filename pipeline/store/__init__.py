"""The store: immutable Parquet shards under an atomic log, and the tables that belong to a snapshot."""

from pipeline.store.snapshot import ALIGNED_PREFIX, DatasetStore, ShardFile, Snapshot, shard_path

__all__ = ["ALIGNED_PREFIX", "DatasetStore", "ShardFile", "Snapshot", "shard_path"]
