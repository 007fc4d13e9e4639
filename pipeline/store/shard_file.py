"""One immutable file of the store, and what its name says."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Any

from features.errors import StoreError
from pipeline.store.shard import DIGEST_BYTES

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


def shard_path(feature: str, shard: int, content: Any) -> str:
    """A fresh, never used path for the rows of one feature and shard, which holds the digest of the file's bytes."""
    return f"feature={feature}/shard-{shard:06d}-{file_digest(content)}-{uuid.uuid4().hex[:8]}.parquet"


def file_digest(content: Any) -> str:
    """BLAKE3 of a file's bytes (16 bytes, as hex): what its name promises."""
    import blake3

    return str(blake3.blake3(memoryview(content)).hexdigest(length=DIGEST_BYTES))
