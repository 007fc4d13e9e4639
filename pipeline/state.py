"""What an extractor works with besides its options: pretrained weights, or state fitted on the corpus."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from features.base import Extractor, NeedsFit, NeedsWeights, State
from pipeline import keys, weights
from pipeline.chain import Chain
from pipeline.store import DatasetStore


@dataclass(frozen=True)
class StateRef:
    """Where a worker finds an extractor's state.

    ``fitted`` is a path inside the data set's store; empty for pretrained weights, which the extractor itself names
    (files relative to ``folder``, the catalog's).
    """

    store: str
    dataset: str
    folder: str
    fitted: str = ""


def needs_fit(chain: Chain) -> bool:
    """Whether the feature's extractor is fitted on the corpus first."""
    return isinstance(chain.extractor, NeedsFit)


def weights_digest(chain: Chain, folder: Path) -> bytes | None:
    """Digest of the extractor's pretrained weights; ``None`` where it has none. May fetch published weights."""
    if not isinstance(chain.extractor, NeedsWeights):
        return None
    return weights.digest(weights.resolve(chain.extractor.weights_ref, folder))


def save_fitted(store: DatasetStore, feature: str, state: State) -> tuple[str, bytes]:
    """Store fitted arrays as safetensors; return the path inside the store and the digest."""
    from safetensors.numpy import save

    content = save(dict(sorted(state.items())))
    digest = keys.digest(content)
    path = f"_fitted/{feature}-{digest.hex()}.safetensors"
    store.write_bytes(path, content)
    return path, digest


@lru_cache(maxsize=32)
def bind(extractor: Any, ref: StateRef | None) -> Extractor:
    """Return the extractor with its state loaded: once in a process, however many shards ask."""
    bound: Extractor = extractor
    if ref is None:
        return bound
    if ref.fitted:
        from safetensors.numpy import load

        store = DatasetStore(ref.store, ref.dataset)
        state: dict[str, Any] = load(store.fs.cat_file(store.path(ref.fitted)))
        if not isinstance(extractor, NeedsFit):
            raise TypeError(f"{extractor.name}: has fitted state but no fit()")
        return extractor.with_state(state)
    if not isinstance(extractor, NeedsWeights):
        raise TypeError(f"{extractor.name}: has a weights reference but no weights_ref")
    return extractor.with_state(weights.load(extractor.weights_ref, Path(ref.folder)))
