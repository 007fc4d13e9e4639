"""Opening a published snapshot for training: what it holds, and the choice of samples and features."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import StoreError
from pipeline.loader.index import VIEWS_PREFIX, FeatureIndex, Keys, index_feature
from pipeline.loader.rows import CACHE_BYTES, FeatureRows
from pipeline.loader.samples import UNLABELLED, Samples
from pipeline.store import ALIGNED_PREFIX, DatasetStore, Snapshot
from pipeline.store.releases import open_snapshot

if TYPE_CHECKING:
    from pipeline.catalog import Catalog


def open_store(place: str | Path | Catalog, dataset: str, snapshot: str | int | None = None) -> StoreReader:
    """Open what is published of a data set.

    ``place``: a catalog (``data_catalog.yaml``, or one that is loaded), or the store itself (a folder or URL).
    ``snapshot``: a version or the name of a release; by default the last one, as it is now: what is published later is
    not seen. Raises ``StoreError`` where there is no such snapshot, ``CatalogError`` for a catalog that is wrong.
    """
    if not isinstance(place, str | Path):
        store = DatasetStore(place.store, place.dataset(dataset).name)
    elif str(place).endswith((".yaml", ".yml")):
        from pipeline.catalog import load_catalog

        return open_store(load_catalog(Path(place)), dataset, snapshot)
    else:
        store = DatasetStore(str(place), dataset)
    found = open_snapshot(store, snapshot)
    if found is None:
        raise StoreError(f"{store.url}: nothing is published there; cure: gristmill run {dataset}, or another place")
    return StoreReader(found)


class NoSamplesError(StoreError):
    """Nothing is left of what was chosen."""


class StoreReader:
    """One snapshot of a data set, to read from. ``snapshot`` has its version, files and tables."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._indexed: dict[str, tuple[FeatureIndex, Keys]] = {}
        self._table: pa.Table | None = None

    def __repr__(self) -> str:
        return f"StoreReader({self.snapshot.store.url}, snapshot {self.snapshot.version})"

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features, aligned ones and views left out."""
        return tuple(name for name in self.snapshot.features if not name.startswith(VIEWS_PREFIX))

    @property
    def aligned(self) -> tuple[str, ...]:
        """Names of the features that are aligned on the common timeline."""
        return self.snapshot.aligned

    @property
    def table(self) -> pa.Table:
        """The table of samples, in order of (shard, sample id): what ``where`` chooses from."""
        if self._table is None:
            self._table = self.snapshot.samples.sort_by([("shard", "ascending"), ("sample_id", "ascending")])
        return self._table

    @property
    def classes(self) -> tuple[str, ...]:
        """Every label of the data set, sorted: a sample's label is its place here, whatever was chosen."""
        return tuple(sorted(label for label in pc.unique(self.table["label"]).to_pylist() if label is not None))

    def samples(
        self,
        features: Sequence[str] | None = None,
        *,
        aligned: bool = False,
        split: str | Sequence[str] | None = None,
        labels: Sequence[str] | None = None,
        where: pc.Expression | Callable[[pa.Table], Any] | None = None,
        complete: bool = False,
        times: bool = False,
        target: Callable[[str | None], Any] | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> Samples:
        """Choose samples and features.

        ``features``: by default all. ``aligned``: their rows on the common timeline, the same number for every feature
        of a sample. ``split``, ``labels``: one or several. ``where``: an Arrow expression on the columns of ``table``
        (``pc.field("image_size") < 1_000_000``), or a function that takes ``table`` and returns a mask of its rows.
        ``complete``: only samples that have every one of the features; otherwise those that have any, and what is
        missing is marked as not present. ``times``: also read when each row begins and ends. ``target``: what a
        sample's label text becomes instead of its place in ``classes`` (a number, or an array of one shape; called with
        ``None`` where there is no label). ``cache_bytes``: see ``rows``.

        Raises ``StoreError`` for features, splits or labels that are not there, ``NoSamplesError`` when no sample is
        left.
        """
        names = self.names(features, aligned=aligned)
        table = self._chosen(split, labels, where)
        rows, found = {}, {}
        for name in names:
            index, keys = self._index(ALIGNED_PREFIX + name if aligned else name)
            rows[name] = _places(table["sample_id"], keys)
            store = self.snapshot.store
            found[name] = FeatureRows(*posixpath.split(store.url), index, cache_bytes)
        there = np.stack([places[0] >= 0 for places in rows.values()])
        kept = np.flatnonzero(there.all(axis=0) if complete else there.any(axis=0))
        if not len(kept):
            raise NoSamplesError(
                f"{self!r}: no sample is left: {len(table)} are chosen, and none has "
                f"{'all' if complete else 'any'} of {', '.join(names)}"
            )
        table = table.take(pa.array(kept))
        return Samples(
            snapshot=self.snapshot.version,
            ids=table["sample_id"].to_pylist(),
            shard=table["shard"].to_numpy().astype(np.int64),
            label=self._labels(table["label"], target),
            classes=self.classes,
            features=found,
            rows={name: np.ascontiguousarray(places[:, kept]) for name, places in rows.items()},
            times=times,
        )

    def names(self, features: Sequence[str] | None = None, *, aligned: bool = False) -> list[str]:
        """Check names of features; by default all. Raises ``StoreError`` for one that is not there, or for none."""
        known = self.aligned if aligned else self.features
        names = list(known if features is None else features)
        if not names:
            raise StoreError(f"{self!r}: got no features, allowed: {self._has(aligned)}")
        for name in names:
            if name not in known:
                raise StoreError(f"{self!r}: got feature {name!r}, allowed: {self._has(aligned)}")
        if len(set(names)) < len(names):
            raise StoreError(f"{self!r}: got features {', '.join(names)}, allowed: each once")
        return names

    def check_values(self, column: str, wanted: Sequence[str]) -> None:
        """Raise ``StoreError`` for values that no sample has in a column of ``table``, or where there are none."""
        known = {value for value in pc.unique(self.table[column]).to_pylist() if value is not None}
        if isinstance(wanted, str) or not wanted or (odd := [value for value in wanted if value not in known]):
            got = wanted if isinstance(wanted, str) or not wanted else odd
            raise StoreError(f"{self!r}: got {column} {got!r}, allowed: some of {sorted(known)}")

    def _has(self, aligned: bool) -> str:
        names = ", ".join(self.aligned if aligned else self.features) or "none"
        return f"{names} ({'aligned' if aligned else 'not aligned'})"

    def _index(self, stored: str) -> tuple[FeatureIndex, Keys]:
        if stored not in self._indexed:
            self._indexed[stored] = index_feature(self.snapshot, stored)
        return self._indexed[stored]

    def _chosen(
        self,
        split: str | Sequence[str] | None,
        labels: Sequence[str] | None,
        where: pc.Expression | Callable[[pa.Table], Any] | None,
    ) -> pa.Table:
        table = self.table
        for column, wanted in (("split", [split] if isinstance(split, str) else split), ("label", labels)):
            if wanted is None:
                continue
            self.check_values(column, wanted)
            table = table.filter(pc.is_in(table[column], value_set=pa.array(list(wanted), pa.string())))
        if isinstance(where, pc.Expression):
            table = table.filter(where)
        elif where is not None:
            mask = np.asarray(where(table))
            if mask.dtype != np.bool_ or mask.shape != (len(table),):
                raise ValueError(
                    f"where: got {mask.dtype} {list(mask.shape)}, allowed: bool, one for each of {len(table)} rows"
                )
            table = table.filter(pa.array(mask))
        return table

    def _labels(self, column: pa.ChunkedArray, target: Callable[[str | None], Any] | None) -> npt.NDArray[Any]:
        if target is not None:
            made = np.stack([np.asarray(target(label)) for label in column.to_pylist()])
            return made.astype(np.float32) if made.dtype == np.float64 else made
        codes = pc.index_in(column, value_set=pa.array(self.classes, pa.string()), skip_nulls=True)
        return np.asarray(pc.fill_null(codes, UNLABELLED).to_numpy(), dtype=np.int64)


def _places(sample_ids: pa.ChunkedArray, keys: Keys) -> npt.NDArray[np.int64]:
    """Where the rows of samples stand in an index, int64 ``[1 + views, N]``; -1 where there is none."""
    at = pc.index_in(keys.sample_id, value_set=sample_ids.combine_chunks())
    sample = pc.fill_null(at, -1).to_numpy()
    wanted = np.flatnonzero(sample >= 0)
    views = int(keys.view.max(initial=0))
    found = np.full((1 + views, len(sample_ids)), -1, dtype=np.int64)
    found[keys.view[wanted], sample[wanted]] = wanted
    if np.count_nonzero(found >= 0) != len(wanted):
        raise StoreError("a sample has two rows of one view, allowed: one; cure: gristmill verify")
    return found
