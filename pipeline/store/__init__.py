"""The store: immutable Parquet shards under an atomic log, and the tables that belong to a snapshot."""

from pipeline.store.dataset import DatasetStore
from pipeline.store.shard import ALIGNED_PREFIX, VIEWS_PREFIX
from pipeline.store.shard_file import ShardFile, shard_path
from pipeline.store.snapshot import Snapshot

__all__ = ["ALIGNED_PREFIX", "VIEWS_PREFIX", "DatasetStore", "ShardFile", "Snapshot", "shard_path"]
