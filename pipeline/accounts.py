"""The accounts of a run: what failed, the counts that must add up, and whether it may be published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import Reason, RunFailedError
from pipeline.catalog import DataSet
from pipeline.execute.work import ShardReport
from pipeline.plan import COMPUTED, FeaturePlan, Plan, Status, sample_rows, streamless
from pipeline.record import Counts
from pipeline.scan import Scan
from pipeline.store import Snapshot
from pipeline.store.quarantine import Failure


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """Everything that a run found, planned and did. ``compared`` is the snapshot whose rows could be kept."""

    dataset: DataSet
    run_id: str
    compared: Snapshot | None
    found: Scan
    plan: Plan
    alignment: Mapping[str, FeaturePlan]
    extracted: ShardReport
    aligned: ShardReport

    @cached_property
    def failures(self) -> list[Failure]:
        """Everything in quarantine after this run: new failures, old ones that still stand, and rejected samples."""
        failures = [self._counted(failure) for failure in (*self.extracted.failures, *self.aligned.failures)]
        failures += [
            self._failure(rejected.sample_id, "scan", rejected.reason, rejected.message)
            for rejected in self.found.rejected
        ]
        failures += [
            self._failure(
                row["sample_id"], "plan", Reason.EMPTY, "the sample has none of the streams that the features read"
            )
            for row in sample_rows(self.plan.samples, np.flatnonzero(streamless(self.plan)))
        ]
        if self.compared is not None:
            standing = {
                (sample_id, name)
                for name, feature in {**self.plan.features, **self.alignment}.items()
                for sample_id in self._ids(np.isin(feature.status, (Status.QUARANTINED, Status.DEFERRED)))
            }
            failures += [
                Failure(**row)
                for row in self.compared.quarantine.to_pylist()
                if (row["sample_id"], row["feature"]) in standing
            ]
        return failures

    @cached_property
    def _attempts(self) -> dict[tuple[str, str], int]:
        """How often a sample had failed in a feature before this run."""
        if self.compared is None:
            return {}
        columns = ["sample_id", "feature", "attempt"]
        before = self.compared.quarantine.select(columns).to_pylist()
        return {(row["sample_id"], row["feature"]): row["attempt"] for row in before}

    def _counted(self, failure: Failure) -> Failure:
        before = self._attempts.get((failure.sample_id, failure.feature), 0)
        return replace(failure, attempt=before + 1)

    def _failure(self, sample_id: str, stage: str, reason: Reason, message: str) -> Failure:
        """The failure of a sample in all features."""
        return Failure(
            sample_id=sample_id, feature="", stage=stage, reason=reason.value, message=message, run_id=self.run_id
        )

    def _ids(self, where: npt.NDArray[np.bool_]) -> list[str]:
        ids: list[str] = self.plan.samples["sample_id"].filter(pa.array(where)).to_pylist()
        return ids

    @cached_property
    def reasons(self) -> dict[str, int]:
        """Reason code -> rows in quarantine, the most frequent first."""
        return dict(Counter(failure.reason for failure in self.failures).most_common())

    @cached_property
    def features(self) -> dict[str, Counts]:
        """The counts of each feature. Raises ``RunFailedError`` when they do not add up."""
        failed = Counter(failure.feature for failure in self.failures)
        where = {(failure.sample_id, failure.feature) for failure in self.failures}
        found = {}
        for name, feature in self.plan.features.items():
            found[name] = Counts(
                samples_in=int(feature.wanted.present.sum()),
                done=self.extracted.computed.get(name, 0),
                unchanged=feature.count(Status.UNCHANGED, Status.RELABEL),
                quarantined=failed[name],
                removed=feature.removed,
                deferred=sum((key, name) not in where for key in self._ids(feature.status == Status.DEFERRED)),
            )
            found[name].check(f"{self.dataset.name}.{name}")
        return found

    @cached_property
    def samples(self) -> Counts:
        """The counts of the whole data set. Raises ``RunFailedError`` when they do not add up."""
        ids, rejected = self.plan.samples["sample_id"], len(self.found.rejected)
        quarantined = {failure.sample_id for failure in self.failures if failure.stage != "scan"}
        bad = pc.is_in(ids, value_set=pa.array(sorted(quarantined), pa.string())).to_numpy()
        busy, waiting = np.zeros(len(ids), dtype=bool), np.zeros(len(ids), dtype=bool)
        for feature in self.plan.features.values():
            busy |= np.isin(feature.status, COMPUTED)
            waiting |= feature.status == Status.DEFERRED
        removed = 0
        if self.compared is not None:
            stay = pc.is_in(self.compared.samples["sample_id"], value_set=ids.combine_chunks())
            removed = int(pc.invert(stay).to_numpy().sum())
        counts = Counts(
            samples_in=len(ids) + rejected,
            done=int((busy & ~bad).sum()),
            unchanged=int((~busy & ~bad & ~waiting).sum()),
            quarantined=int(bad.sum()) + rejected,
            removed=removed,
            deferred=int((waiting & ~busy & ~bad).sum()),
        )
        counts.check(self.dataset.name)
        return counts

    def gate(self) -> None:
        """Refuse to publish a run in which too much failed. Raises ``RunFailedError``."""
        unread = int(streamless(self.plan).sum())
        if unread and unread == len(self.plan.samples):
            raise RunFailedError(
                f"datasets.{self.dataset.name}: none of {unread} samples has a stream that the features read; nothing "
                f"was published; cure: name features for the media that are there"
            )
        total = self.samples.samples_in
        failed = self.samples.quarantined - unread  # nothing was tried on those: they are told, but are no failures
        if total and failed / total > self.dataset.max_failed:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.reasons.items())
            raise RunFailedError(
                f"datasets.{self.dataset.name}: {failed} of {total} samples failed ({failed / total:.0%}; {reasons}); "
                f"allowed: max_failed {self.dataset.max_failed:.0%}; nothing was published. "
                f"First: {self._first_failure()}; cure: mend the files, or raise max_failed"
            )
        for name, counts in self.features.items():
            if self.compared is None or name not in self.compared.features:
                continue
            if counts.samples_in and not counts.done + counts.unchanged + counts.deferred:
                raise RunFailedError(
                    f"datasets.{self.dataset.name}.features.{name}: had rows in snapshot {self.compared.version} and "
                    f"would come out empty ({counts.quarantined} of {counts.samples_in} failed); nothing was "
                    f"published. First: {self._first_failure(name)}"
                )

    def _first_failure(self, feature: str | None = None) -> str:
        for failure in self.failures:
            if feature is None or failure.feature == feature:
                return f"{failure.sample_id}: {failure.reason}: {failure.message}"
        return "none"
