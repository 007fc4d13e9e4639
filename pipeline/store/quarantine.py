"""The table of what failed: one row for each sample and feature, with the reason code and a message for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import ClassVar

import pyarrow as pa
from pydantic import ConfigDict

from pipeline.store.shard import DIGEST_BYTES

_NOTHING = bytes(DIGEST_BYTES)

SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("feature", pa.string(), nullable=False, metadata={"description": "empty: rejected by the scan"}),
        pa.field("stage", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("message", pa.string(), nullable=False),
        pa.field("traceback", pa.string(), nullable=False),
        pa.field("attempt", pa.int32(), nullable=False, metadata={"description": "how often it has failed by now"}),
        pa.field("media", pa.string(), nullable=False, metadata={"description": "the file: its size and looks"}),
        pa.field("content", pa.binary(DIGEST_BYTES), nullable=False),
        pa.field("recipe", pa.binary(DIGEST_BYTES), nullable=False),
        pa.field("run_id", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One sample that failed in one feature (in all of them where ``feature`` is empty)."""

    __pydantic_config__: ClassVar[ConfigDict] = {"ser_json_bytes": "base64", "val_json_bytes": "base64"}

    sample_id: str
    feature: str
    stage: str
    reason: str
    message: str
    traceback: str = ""
    attempt: int = 1
    media: str = ""
    content: bytes = _NOTHING
    recipe: bytes = _NOTHING
    run_id: str = ""


def to_table(failures: Iterable[Failure]) -> pa.Table:
    """The quarantine as a table, sorted by sample and feature."""
    rows = sorted((asdict(failure) for failure in failures), key=lambda row: (row["sample_id"], row["feature"]))
    return pa.Table.from_pylist(rows, schema=SCHEMA)
