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


def weights_refs(chain: Chain) -> list[WeightsRef]:
    """What the steps of a feature have pretrained weights or language data in."""
    return [ref for ref in map(_weights_ref, chain.steps) if ref is not None]


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


@dataclass(frozen=True)
class Bound:
    """The steps of a chain with their state."""

    prepare: tuple[Any, ...]
    augment: tuple[Any, ...]
    extractor: Any


@lru_cache(maxsize=32)
def bind(chain: Chain, ref: StateRef | None) -> Bound:
    """Load the state of a chain's steps: once in a process, however many shards ask."""
    if ref is None:
        return Bound(chain.prepare, chain.augment, chain.extractor)
    bound = with_weights(chain, ref)
    if not ref.fitted:
        return bound
    from safetensors.numpy import load

    store = DatasetStore(ref.store, ref.dataset)
    state: dict[str, Any] = load(store.fs.cat_file(store.path(ref.fitted)))
    if not isinstance(bound.extractor, NeedsFit):
        raise TypeError(f"{chain.extractor.name}: has fitted state but no fit()")
    return replace(bound, extractor=bound.extractor.with_state(state))


def with_weights(chain: Chain, ref: StateRef) -> Bound:
    """Load the pretrained weights of a chain's steps; what it is fitted to is not."""
    steps = [_loaded(step, Path(ref.folder)) for step in chain.steps]
    first = len(chain.prepare)
    return Bound(tuple(steps[:first]), tuple(steps[first:-1]), steps[-1])


def _loaded(step: Any, folder: Path) -> Any:
    ref = _weights_ref(step)
    return step if ref is None else step.with_state(weights.load(ref, folder))
