"""Splits by hash, for samples whose source declares none."""

from __future__ import annotations

import hashlib
from fractions import Fraction

from pipeline.catalog.models import SPLITS, Splits


class HashedSplits:
    """Deals samples to splits by the hash of their name and the seed alone (BLAKE2b, keyed).

    A sample keeps its split when others come or go; when the share of train grows, no sample leaves train.
    """

    def __init__(self, splits: Splits) -> None:
        shares = [(name, Fraction(getattr(splits, name))) for name in SPLITS if getattr(splits, name) > 0]
        total = sum(share for _, share in shares)
        self._hash = hashlib.blake2b(key=str(splits.seed).encode(), digest_size=8)
        self._edges: list[tuple[int, str]] = []
        reached = Fraction(0)
        for name, share in shares:
            reached += share
            self._edges.append((int(reached / total * 2**64), name))

    def split(self, name: str) -> str:
        """The split of the sample (or file) called ``name``."""
        state = self._hash.copy()
        state.update(name.encode())
        point = int.from_bytes(state.digest(), "big")
        return next(split for edge, split in self._edges if point < edge)
