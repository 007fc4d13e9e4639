"""Where samples stand in the sample table."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


class Places:
    """Where samples stand in the sample table; equal columns of ids, as features have, cost one look-up."""

    def __init__(self, samples: pa.Table) -> None:
        self._among: pa.ChunkedArray = samples["sample_id"]
        self._last: tuple[pa.ChunkedArray, npt.NDArray[np.int64]] | None = None

    def of(self, ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
        """Row of each id in the sample table; -1 where it is not there."""
        if self._last is None or not self._last[0].equals(ids):
            self._last = ids, positions(ids, self._among)
        return self._last[1]


def positions(values: pa.ChunkedArray, among: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Index of each value in ``among``; -1 where it is not there."""
    if values.equals(among):
        return np.arange(len(values), dtype=np.int64)
    found = pc.index_in(values.combine_chunks(), value_set=among.combine_chunks())
    rows: npt.NDArray[np.int64] = pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return rows
