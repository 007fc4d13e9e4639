"""What a run is limited to."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.errors import CatalogError
from pipeline.catalog.problems import did_you_mean, listed
from pipeline.store import VIEWS_PREFIX


@dataclass(frozen=True)
class Asked:
    """What a run is limited to: features by name, samples by glob. Empty: all of them.

    ``retry``: only what is in quarantine is computed, though nothing has changed; for one of ``reasons``, where any are
    named. ``nothing``: no feature is computed, only the alignment of what is stored.
    """

    features: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    retry: bool = False
    reasons: tuple[str, ...] = ()
    nothing: bool = False

    def rows(self, feature: str, ids: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """Which samples of a feature may be computed, bool ``[N]``."""
        if self.nothing:
            return np.zeros(len(ids), dtype=bool)
        if self.features and not {feature, feature.removeprefix(VIEWS_PREFIX)} & set(self.features):
            return np.zeros(len(ids), dtype=bool)
        if not self.samples:
            return np.ones(len(ids), dtype=bool)
        matches = re.compile("|".join(fnmatch.translate(glob) for glob in self.samples)).match
        return np.array([matches(sample_id) is not None for sample_id in ids.to_pylist()], dtype=bool)

    def check_features(self, dataset: str, known: Iterable[str]) -> None:
        """Raise ``CatalogError`` where a feature is named that the data set does not have."""
        for name in self.features:
            if name not in (allowed := list(known)):
                near = did_you_mean(name, allowed)
                raise CatalogError([f"datasets.{dataset}: no feature {name!r}; allowed: {listed(allowed)}{near}"])

    def check_samples(self, dataset: str, ids: pa.ChunkedArray) -> None:
        """Raise ``CatalogError`` where a glob matches no sample."""
        for glob in self.samples:
            if not Asked(samples=(glob,)).rows("", ids).any():
                message = (
                    f"datasets.{dataset}: no sample of {len(ids)} matches {glob!r}; allowed: a sample id, or a glob "
                    "with *, ? and [...]; cure: check how the ids are written"
                )
                raise CatalogError([message])


EVERYTHING = Asked()
"""No limit: what every night asks for."""
