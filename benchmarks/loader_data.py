"""The data sets of `loader.py`: published stores, and the same numbers as plain files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from features.types import FeatureSequence
from pipeline.execute.task import write_file
from pipeline.store import DatasetStore, ShardFile
from pipeline.store.quarantine import to_table
from pipeline.store.shard import Row, rows_to_table


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is stored: ``features`` name -> D, each sample with ``lengths`` rows (equal for all features)."""

    name: str
    samples: int
    lengths: tuple[int, int]
    features: dict[str, int]
    shard_samples: int
    batch: int
    aligned: bool = False
    peers: bool = True

    def sizes(self) -> np.ndarray:
        return np.random.default_rng(0).integers(self.lengths[0], self.lengths[1] + 1, self.samples)


CASES = [
    Case(name="vectors", samples=120_000, lengths=(1, 1), features={"f": 1280}, shard_samples=1_200, batch=256),
    Case(
        name="vectors, shards of 64",
        samples=120_000,
        lengths=(1, 1),
        features={"f": 1280},
        shard_samples=64,
        batch=256,
        peers=False,
    ),
    Case(name="sequences", samples=7_000, lengths=(500, 1_500), features={"f": 20}, shard_samples=64, batch=32),
    Case(
        name="two aligned",  # ten seconds on a grid of half a second: pictures and sound
        samples=6_000,
        lengths=(20, 20),
        features={"f": 1280, "g": 20},
        shard_samples=64,
        batch=64,
        aligned=True,
        peers=False,
    ),
    Case(
        name="two aligned, narrow",
        samples=50_000,
        lengths=(20, 20),
        features={"f": 128, "g": 20},
        shard_samples=1_200,
        batch=64,
        aligned=True,
        peers=False,
    ),
]


class Data:
    """A case on disk: a store, and the same numbers as plain files."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, folder
        self._maps: dict[str, np.memmap] = {}
        self.lengths = case.sizes()
        self.first = np.cumsum(self.lengths) - self.lengths
        self.store = DatasetStore(str(folder), "grain")
        # samples in order of the store: plain files and the loader's unshuffled order agree row by row
        files = [self._write(name, dim) for name, dim in case.features.items()]
        self._publish([file for made in files for file in made])

    def _write(self, name: str, dim: int) -> list[ShardFile]:
        case, files = self.case, []
        stored = f"aligned.{name}" if case.aligned else name
        with self.plain(name).open("wb") as plain:
            for shard, begin in enumerate(range(0, case.samples, case.shard_samples)):
                rows = []
                random = np.random.default_rng([shard, dim])
                for i in range(begin, min(begin + case.shard_samples, case.samples)):
                    length = int(self.lengths[i])
                    values = random.standard_normal((length, dim), dtype=np.float32)
                    plain.write(values.tobytes())
                    start = np.arange(length, dtype=np.int64)
                    rows.append(
                        Row(
                            sample_id=f"s{i:08d}",
                            split="train",
                            label="day",
                            content=bytes(16),
                            recipe=bytes(16),
                            sequence=FeatureSequence(values=values, start_ns=start, end_ns=start + 1),
                            coverage=np.ones(length, dtype=np.float32) if case.aligned else None,
                        )
                    )
                table = rows_to_table(shard, rows, {"feature": stored, "dim": dim, "aligned": case.aligned})
                files.append(write_file(self.store, stored, shard, table))
        return files

    def _publish(self, files: list[ShardFile]) -> None:
        case, count = self.case, self.case.samples
        shards = np.arange(count) // case.shard_samples
        table = pa.table(
            {
                "sample_id": [f"s{i:08d}" for i in range(count)],
                "split": ["train"] * count,
                "label": ["day"] * count,
                "shard": pa.array(shards.astype(np.int32)),
            }
        )
        info: dict[str, Any] = {"run_id": "bench", "created": "", "dims": case.features}
        info |= {"samples": self.store.write_table("samples", table)}
        info |= {"quarantine": self.store.write_table("quarantine", to_table([]))}
        self.store.commit(run_id="bench", base=None, adds=files, removes=(), info=info)

    def plain(self, name: str) -> Path:
        return self.folder / f"{name}.f32"

    def memmap(self, name: str) -> np.ndarray:
        if name not in self._maps:  # opened once, as the loader is: its pages are in the page table after one epoch
            self._maps[name] = np.memmap(self.plain(name), dtype=np.float32, mode="r")
        return self._maps[name].reshape(-1, self.case.features[name])

    def shards(self, name: str) -> list[str]:
        snapshot = self.store.snapshot()
        assert snapshot is not None
        return [self.store.path(file.path) for file in snapshot.files_of(name)]

    def chunks(self, *, shuffled: bool) -> Iterator[np.ndarray]:
        """Sample numbers of each batch."""
        order = np.random.default_rng(1).permutation(self.case.samples) if shuffled else np.arange(self.case.samples)
        for begin in range(0, self.case.samples, self.case.batch):
            yield order[begin : begin + self.case.batch]
