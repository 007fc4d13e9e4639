"""Seeded randomness that depends on names and numbers alone: not on order, process, device or what was drawn before."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *words: str | int) -> int:
    """A number in [0, 2**63) that ``seed`` and ``words`` decide: another one for every other list of words."""
    state = hashlib.blake2b(seed.to_bytes(8, "little", signed=True), digest_size=8)
    for word in words:
        part = f"{type(word).__name__}:{word}".encode()
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return int.from_bytes(state.digest(), "little") >> 1


def generator(seed: int, *words: str | int) -> np.random.Generator:
    """A generator of its own for ``seed`` and ``words`` (Philox, whose stream NumPy keeps from version to version)."""
    return np.random.Generator(np.random.Philox(derive_seed(seed, *words)))
