"""What the features of a run are fitted to: the state of the last snapshot, or state that is fitted now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.base import Example, NeedsFit
from pipeline import keys
from pipeline.catalog import Catalog, DataSet
from pipeline.chain import Chain
from pipeline.corpus import examples, training_rows
from pipeline.events import Events
from pipeline.plan import FeaturePlan
from pipeline.record import RunReport
from pipeline.state import StateRef, needs_fit, save_fitted, weights_digests, with_weights
from pipeline.store import VIEWS_PREFIX, DatasetStore, Snapshot


class Fitting:
    """Fitted state of one run, by feature. Views are extracted with what their feature was fitted to."""

    def __init__(self, catalog: Catalog, dataset: DataSet, store: DatasetStore, report: RunReport) -> None:
        self._catalog, self._dataset, self._store, self._report = catalog, dataset, store, report
        self.fitted: dict[str, dict[str, Any]] = {}
        """Feature -> where its state lies, its digest, and when and from what it was fitted."""

    def recipe(self, name: str, chain: Chain, base: Snapshot | None) -> dict[str, Any] | None:
        """The recipe of a feature; ``None`` where it must be fitted first. State of ``base`` is kept while it fits."""
        weights = weights_digests(chain, self._catalog.folder)
        if not needs_fit(chain):
            return keys.recipe(chain, weights=weights)
        name = name.removeprefix(VIEWS_PREFIX)
        if name not in self.fitted and base is not None:
            known = base.info["fitted"].get(name)
            if known is not None and known["recipe"] == _fit_recipe(chain) and not self._outdated(known):
                self.fitted[name] = known
        fitted = self.fitted.get(name)
        return None if fitted is None else keys.recipe(chain, weights=weights, state=bytes.fromhex(fitted["digest"]))

    def _outdated(self, fitted: Mapping[str, Any]) -> bool:
        """Whether the catalog wants this state fitted again because of its age."""
        days = self._dataset.fit.every_days
        if days is None:
            return False
        age = datetime.fromisoformat(self._report.started) - datetime.fromisoformat(fitted["created"])
        return age >= timedelta(days=days)

    def fit(self, name: str, samples: pa.Table, events: Events) -> None:
        """Fit one feature on the training split of ``samples`` and keep its state in the store."""
        chain = self._dataset.features[name]
        rows = training_rows(samples, self._dataset.name, chain)
        assert isinstance(chain.extractor, NeedsFit)  # noqa: S101  # narrowed for mypy: needs_fit() has said so
        stage = f"fit {name}"
        events.started(stage, len(rows), "samples")
        state = chain.extractor.fit(self._corpus(chain, samples, rows, stage, events))
        path, digest = save_fitted(self._store, name, state)
        self.fitted[name] = {
            "path": path,
            "digest": digest.hex(),
            "recipe": _fit_recipe(chain),
            "samples": len(rows),
            "run_id": self._report.run_id,
            "created": self._report.started,
        }
        events.finished(stage)

    def _corpus(
        self, chain: Chain, samples: pa.Table, rows: npt.NDArray[np.int64], stage: str, events: Events
    ) -> Iterator[Example]:
        for found in examples(samples, rows, chain, with_weights(chain, self._reference()).prepare):
            events.advanced(stage)
            yield from found

    def reference(self, name: str, feature: FeaturePlan) -> StateRef | None:
        """Where workers find the weights and the fitted state of a feature; ``None`` where it has neither."""
        recipe = feature.wanted.recipe or {}
        weights = any(step["weights"] is not None for step in recipe.get("steps", ()))
        if recipe.get("state") is None and not weights:
            return None
        fitted = self.fitted[name.removeprefix(VIEWS_PREFIX)]["path"] if recipe.get("state") is not None else ""
        return self._reference(fitted)

    def _reference(self, fitted: str = "") -> StateRef:
        return StateRef(self._catalog.store, self._dataset.name, str(self._catalog.folder), fitted)

    def published(self, base: Snapshot | None, features: Iterable[str]) -> dict[str, Any]:
        """What a snapshot says of fitted state: also what stale rows of ``base`` were made with, which stay."""
        before = {} if base is None else base.info["fitted"]
        return {name: before[name] for name in features if name in before} | self.fitted


def _fit_recipe(chain: Chain) -> str:
    return keys.digest_json(keys.recipe(chain)).hex()
