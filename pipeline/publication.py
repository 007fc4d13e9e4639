"""What a run makes visible: files that come and go, and what its snapshot says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from pipeline.catalog import DataSet
from pipeline.execute.work import ShardReport
from pipeline.plan import FeaturePlan, Plan
from pipeline.record import RunReport
from pipeline.store import ALIGNED_PREFIX, DatasetStore, ShardFile, Snapshot
from pipeline.store.quarantine import Failure, to_table


@dataclass(frozen=True, kw_only=True)
class Publication:
    """One run's changes on top of ``base``; ``from_nothing`` replaces all of it. ``fitted`` as snapshots hold it."""

    dataset: DataSet
    store: DatasetStore
    base: Snapshot | None
    from_nothing: bool
    report: RunReport
    plan: Plan
    alignment: Mapping[str, FeaturePlan]
    extracted: ShardReport
    aligned: ShardReport
    failures: list[Failure]
    fitted: Mapping[str, Any]

    @property
    def adds(self) -> list[ShardFile]:
        """The files that the run has written."""
        return [*self.extracted.files, *self.aligned.files]

    @cached_property
    def removes(self) -> list[ShardFile]:
        """The files of ``base`` that are replaced, or whose feature is gone."""
        if self.base is None:
            return []
        if self.from_nothing:
            return list(self.base.files)
        names = set(self.plan.features)
        if self.dataset.align is not None:
            names |= {ALIGNED_PREFIX + name for name in self.plan.originals}
        gone = [file for file in self.base.files if file.feature not in names]
        return [*self.extracted.removed, *self.aligned.removed, *gone]

    @property
    def changes_anything(self) -> bool:
        """Whether there is anything to publish."""
        if self.adds or self.removes or self.base is None or self.from_nothing:
            return True
        if self.fitted != self.base.info["fitted"]:  # fitted again, with the same result
            return True
        columns = ["sample_id", "feature", "stage", "reason", "message", "attempt", "content", "recipe"]
        if not to_table(self.failures).select(columns).equals(self.base.quarantine.select(columns)):
            return True
        kept = [name for name in self.plan.samples.column_names if not name.endswith(("_size", "_version"))]
        return not self.plan.samples.select(kept).equals(self.base.samples.select(kept))

    def commit(self) -> int:
        """Make everything visible with one transaction; return the new version. See ``DatasetStore.commit``."""
        run_id = self.report.run_id
        failures = [replace(failure, run_id=failure.run_id or run_id) for failure in self.failures]
        features = self.plan.features
        info = {
            "run_id": run_id,
            "created": self.report.started,
            "samples": self.store.write_table("samples", self.plan.samples),
            "quarantine": self.store.write_table("quarantine", to_table(failures)),
            "recipes": {name: self._recipes(name, feature) for name, feature in {**features, **self.alignment}.items()},
            "fitted": self.fitted,
            "dims": {name: chain.extractor.dim for name, chain in self.dataset.features.items()} | self._aligned_dims,
            "timeline": None if self.dataset.align is None else self.dataset.align.timeline,
            "views": {
                name: {"count": self.dataset.features[name].count, "splits": list(splits)}
                for name, splits in self.dataset.view_splits.items()
            },
            "streams": {name: chain.stream for name, chain in self.dataset.features.items()},
            "counts": {
                "samples": len(self.plan.samples),
                "quarantined": len({failure.sample_id for failure in failures}),
                "deferred": {name: counts.deferred for name, counts in self.report.features.items()},
            },
            "changes": {name: feature.reasons(standing=False) for name, feature in features.items()},
            "rebuilt": self.from_nothing and self.base is not None,
        }
        return self.store.commit(run_id=run_id, base=self.base, adds=self.adds, removes=self.removes, info=info)

    def _recipes(self, name: str, feature: FeaturePlan) -> dict[str, Any]:
        """The documents of every recipe that rows of a feature have after this run, by digest."""
        found = {} if feature.wanted.recipe is None else {feature.recipe_digest.hex(): feature.wanted.recipe}
        if self.base is not None and not self.from_nothing:
            before = self.base.info["recipes"].get(name, {})
            stale = {row.tobytes().hex() for row in np.unique(feature.standing.recipe, axis=0)}
            found |= {digest: before[digest] for digest in sorted(stale) if digest in before}
        return found

    @property
    def _aligned_dims(self) -> dict[str, int]:
        """Width of the aligned rows of each feature."""
        align = self.dataset.align
        if align is None:
            return {}
        return {
            ALIGNED_PREFIX + name: align.pooling(name).width(self.dataset.features[name].extractor.dim)
            for name in self.plan.originals
        }
