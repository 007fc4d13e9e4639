"""What an extractor works with besides its options: pretrained weights, or state fitted on the corpus."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from features.base import NeedsFit, NeedsWeights, State, WeightsRef
from pipeline import keys, weights
from pipeline.chain import Chain
from pipeline.store import DatasetStore


@dataclass(frozen=True)
class StateRef:
    """Where a worker finds the state of a feature's steps.

    Pretrained weights are named by the steps themselves (files relative to ``folder``, the catalog's). ``fitted`` is a
    path inside the data set's store; empty where the extractor is not fitted.
    """

    store: str
    dataset: str
    folder: str
    fitted: str = ""


def needs_fit(chain: Chain) -> bool:
    """Whether the feature's extractor is fitted on the corpus first."""
    return isinstance(chain.extractor, NeedsFit)


def weights_digests(chain: Chain, folder: Path) -> list[bytes | None]:
    """For each step the digest of its pretrained weights; ``None`` where it has none. May fetch published weights."""
    refs = [_weights_ref(step) for step in chain.steps]
    return [None if ref is None else weights.digest(ref, folder) for ref in refs]


def _weights_ref(step: Any) -> WeightsRef | None:
    return step.weights_ref if isinstance(step, NeedsWeights) else None


def save_fitted(store: DatasetStore, feature: str, state: State) -> tuple[str, bytes]:
    """Store fitted arrays as safetensors; return the path inside the store and the digest."""
    from safetensors.numpy import save

    content = save(dict(sorted(state.items())))
    digest = keys.digest(content)
    path = f"_fitted/{feature}-{digest.hex()}.safetensors"
    store.write_bytes(path, content)
    return path, digest


@lru_cache(maxsize=32)
def bind(chain: Chain, ref: StateRef | None) -> Chain:
    """Return the chain with the state of its steps loaded: once in a process, however many shards ask."""
    if ref is None:
        return chain
    if not ref.fitted:
        return with_weights(chain, ref)
    from safetensors.numpy import load

    store = DatasetStore(ref.store, ref.dataset)
    state: dict[str, Any] = load(store.fs.cat_file(store.path(ref.fitted)))
    if not isinstance(chain.extractor, NeedsFit):
        raise TypeError(f"{chain.extractor.name}: has fitted state but no fit()")
    return with_weights(replace(chain, extractor=chain.extractor.with_state(state)), ref)


def with_weights(chain: Chain, ref: StateRef) -> Chain:
    """Return the chain with the pretrained weights of its steps loaded; what it is fitted to is not."""
    steps = [_loaded(step, Path(ref.folder)) for step in chain.steps]
    first = len(chain.prepare)
    return replace(chain, prepare=tuple(steps[:first]), augment=tuple(steps[first:-1]), extractor=steps[-1])


def _loaded(step: Any, folder: Path) -> Any:
    ref = _weights_ref(step)
    return step if ref is None else step.with_state(weights.load(ref, folder))
