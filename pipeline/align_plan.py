"""Which samples must be aligned: those whose rows, or whose timeline, changed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.align import recipes_and_contents
from pipeline.align_rows import Setting
from pipeline.plan import COMPUTED, Plan, Wanted, plan_feature
from pipeline.store import ALIGNED_PREFIX
from pipeline.store.quarantine import Failure
from pipeline.timelines import Outside


def plan_alignment(plan: Plan, failures: Iterable[Failure], setting: Setting, outside: Outside | None) -> Plan:
    """The plan of the aligned features, named ``aligned.<feature>``, after ``plan`` was carried out with ``failures``.

    A sample is aligned in every feature as soon as it has rows of one.
    """
    present = _present(plan, failures)
    inputs = {
        name: (present[name], feature.stored_content, feature.stored_recipes)
        for name, feature in plan.originals.items()
    }
    anything = np.logical_or.reduce(list(present.values()))
    aligned = {}
    for name, (recipe, contents) in recipes_and_contents(setting, inputs, outside).items():
        wanted = Wanted(plan.features[name].wanted.chain, recipe, contents, anything)
        stored = ALIGNED_PREFIX + name
        aligned[stored] = plan_feature(stored, plan.base, plan.samples, wanted)
    return Plan(plan.base, plan.samples, aligned)


def _present(plan: Plan, failures: Iterable[Failure]) -> dict[str, npt.NDArray[np.bool_]]:
    """Feature -> which samples have a row after extraction."""
    ids, failures = plan.samples["sample_id"], list(failures)
    present = {}
    for name, feature in plan.originals.items():
        has = feature.kept | np.isin(feature.status, COMPUTED)
        failed = [failure.sample_id for failure in failures if failure.feature == name]
        has[pc.is_in(ids, value_set=pa.array(failed, pa.string())).to_numpy()] = False
        present[name] = has
    return present
