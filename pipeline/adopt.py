"""Adopting rows after a refactoring: proof by computing some of them again, then new digests instead of new numbers.

A change of code makes every row that depends on it stale, even when it only moves lines about. ``adopt`` computes a
seeded sample of these rows with the code as it is now. If they are what is stored, all stale rows of the feature get
the new recipe's digest, and aligned rows that were made from them the digest of their new inputs; no value is touched.
Rows whose options, weights or fitted state differ are never adopted: those are meant to change numbers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.errors import RunFailedError
from features.types import FeatureSequence
from pipeline import align as alignment
from pipeline.align_rows import Setting
from pipeline.catalog import Catalog
from pipeline.content import Digests
from pipeline.events import SILENT, Events
from pipeline.execute.task import run_shard, write_file
from pipeline.keys import explain
from pipeline.plan import Asked, FeaturePlan, Plan, Standing, Status, Wanted, plan_feature
from pipeline.run import Run
from pipeline.store import ALIGNED_PREFIX, DatasetStore, ShardFile, Snapshot
from pipeline.store.shard import DIGEST_BYTES, METADATA_KEY, sequence_at, table_metadata

SAMPLED_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The largest difference seen: of which sample, row and column, and both numbers."""

    sample_id: str
    row: int
    column: int
    stored: float
    computed: float

    @property
    def amount(self) -> float:
        """How far apart they are."""
        return abs(self.computed - self.stored)

    def __str__(self) -> str:
        """Where it is, for people."""
        return (
            f"{self.amount:.6g} in sample {self.sample_id}, row {self.row}, column {self.column} "
            f"(stored {self.stored:.9g}, computed {self.computed:.9g})"
        )


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """What was proved and what got new digests. ``snapshot`` is ``None`` where nothing was published."""

    dataset: str
    feature: str
    rows: int
    aligned_rows: int
    sampled: tuple[str, ...]
    tolerance: float
    largest: Difference | None
    snapshot: int | None

    def as_json(self) -> dict[str, Any]:
        """The result as a JSON document."""
        return asdict(self)


def adopt(
    catalog: Catalog,
    dataset: str,
    feature: str,
    *,
    rows: int = SAMPLED_ROWS,
    tolerance: float = 0.0,
    libraries: bool = False,
    dry_run: bool = False,
    events: Events = SILENT,
) -> Adopted:
    """Prove on ``rows`` stale rows that the new code gives the stored numbers, and give all of them the new digest.

    ``tolerance``: how far a value may be from the stored one (absolute; 0: equal); times and validity must be equal in
    any case. ``libraries``: other versions of libraries may have made the rows, too. ``dry_run``: prove, but publish
    nothing. Raises ``RunFailedError`` where there is nothing to adopt, something else than code differs, a sample
    fails, or the numbers differ.
    """
    if rows < 1 or not tolerance >= 0:
        raise ValueError(f"adopt: got rows={rows}, tolerance={tolerance}; allowed: at least 1 row, a tolerance >= 0")
    run = _Adoption(catalog, dataset, feature, events=events)
    with nullcontext() if dry_run else run:
        run.scan()
        run.plan()
        stale = run.find_stale(libraries=libraries)
        sampled, largest = run.prove(stale, rows, tolerance)
        aligned, snapshot = 0, None
        if not dry_run:
            aligned, snapshot = run.stamp(stale, {"tolerance": tolerance, "sampled": len(sampled)}, largest)
    return Adopted(
        dataset=dataset,
        feature=feature,
        rows=len(stale.rows),
        aligned_rows=aligned,
        sampled=sampled,
        tolerance=tolerance,
        largest=largest,
        snapshot=snapshot,
    )


class _Adoption(Run):
    """A run that scans and plans as every night, and then stamps instead of computing."""

    def __init__(self, catalog: Catalog, dataset: str, feature: str, *, events: Events) -> None:
        super().__init__(catalog, dataset, events=events, asked=Asked((feature,)))
        if feature in self.dataset.view_splits:
            raise RunFailedError(
                f"datasets.{dataset}.features.{feature}: got augmented views, allowed: a feature; nothing was adopted; "
                f"cure: gristmill run {dataset} computes them again"
            )
        self._name = feature
        self._where = f"datasets.{dataset}.features.{feature}"

    @property
    def _feature(self) -> FeaturePlan:
        return self.planned.features[self._name]

    @property
    def _published(self) -> Snapshot:
        if self.base is None:
            raise RunFailedError(f"{self._where}: nothing is published yet; cure: gristmill run {self.dataset.name}")
        return self.base

    def find_stale(self, *, libraries: bool) -> Standing:
        """The stored rows whose recipe differs in code only (and versions of libraries)."""
        documents = self._published.info["recipes"].get(self._name, {})
        if self._feature.wanted.recipe is None:
            raise RunFailedError(
                f"{self._where}: it must be fitted again, and other state gives other numbers; nothing was adopted; "
                f"cure: gristmill run {self.dataset.name}"
            )
        stored = self._standing(self._name)
        chosen = self._feature.status[stored.rows] == Status.RECIPE
        if not chosen.any():
            raise RunFailedError(
                f"{self._where}: no stored row is stale because of its recipe alone; nothing was adopted; "
                f"cure: gristmill plan {self.dataset.name} says what is to be done"
            )
        for recipe in np.unique(stored.recipe[chosen], axis=0):
            old, new = documents.get(recipe.tobytes().hex()), self._feature.wanted.recipe
            if old is None or _without(old, libraries=libraries) != _without(new, libraries=libraries):
                only_libraries = old is not None and _without(old, libraries=True) == _without(new, libraries=True)
                raise RunFailedError(
                    f"{self._where}: got rows whose recipe differs by: "
                    f"{'an unknown recipe' if old is None else explain(old, new)}; allowed: code"
                    f"{' and versions of libraries' if libraries else ''}; nothing was adopted; cure: gristmill run "
                    f"{self.dataset.name}{', or gristmill adopt --libraries' if only_libraries else ''}"
                )
        return Standing(*(part[chosen] for part in (stored.rows, stored.content, stored.recipe, stored.moved)))

    def _standing(self, name: str) -> Standing:
        """All stale stored rows of a feature."""
        want = self.planned.features[name].wanted
        nobody = np.zeros(len(self.planned.samples), dtype=bool)
        return plan_feature(name, self.base, self.planned.samples, replace(want, asked=nobody)).standing

    def prove(self, stale: Standing, count: int, tolerance: float) -> tuple[tuple[str, ...], Difference | None]:
        """Compute some rows again; return their samples and the largest difference from what is stored."""
        status = np.full(len(self.planned.samples), Status.ABSENT, dtype=np.int8)
        status[self._choose(stale.rows, count)] = Status.RECIPE
        chosen = replace(self._feature, status=status, removed_shards=frozenset(), standing=Standing())
        before, files = self.planned, self.planned.base_files
        self.planned = Plan(self.base, before.samples, {self._name: chosen})
        sampled: list[str] = []
        largest: Difference | None = None
        with TemporaryDirectory(prefix="gristmill-adopt-") as folder, self._open_engine(0) as engine:
            self.events.started("prove", int((status == Status.RECIPE).sum()), "rows")
            work = (
                replace(piece, store=folder, features=(replace(piece.features[0], base=None, keep=frozenset()),))
                for piece in self._shard_work(self.planned.shards_to_write, engine)
            )
            for report in engine.map(run_shard, work):
                if report.failures:
                    first = report.failures[0]
                    raise RunFailedError(
                        f"{self._where}: sample {first.sample_id} has a stored row, but now it fails: {first.reason}: "
                        f"{first.message}; nothing was adopted; cure: mend the code, or gristmill run"
                    )
                (made,) = report.files
                fresh = DatasetStore(folder, self.dataset.name).read_file(made.path)
                stored = self.store.read_file(files[self._name, made.shard].path)
                for sample_id, difference in self._differences(stored, fresh):
                    sampled.append(sample_id)
                    if difference is not None and (largest is None or difference.amount > largest.amount):
                        largest = difference
                self.events.advanced("prove", len(fresh))
            self.events.finished("prove")
        self.planned = before
        if largest is not None and not largest.amount <= tolerance:
            raise RunFailedError(
                f"{self._where}: the code as it is now gives other numbers; the largest difference in {len(sampled)} "
                f"rows is {largest}; allowed: {tolerance:g}; nothing was adopted; cure: gristmill run "
                f"{self.dataset.name}, or a --tolerance that you can stand by"
            )
        return tuple(sorted(sampled)), largest

    def _choose(self, rows: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
        """A seeded sample of rows that takes from as many shards as it can."""
        seed = int.from_bytes(self._feature.recipe_digest, "big")
        mixed = np.random.default_rng(seed).permutation(rows)
        shards = self.planned.samples["shard"].to_numpy()[mixed]
        turn = np.zeros(len(mixed), dtype=np.int64)
        for shard in np.unique(shards):
            turn[shards == shard] = np.arange(np.count_nonzero(shards == shard))
        chosen: npt.NDArray[np.int64] = mixed[np.argsort(turn, kind="stable")[:count]]
        return chosen

    def _differences(self, stored: pa.Table, fresh: pa.Table) -> Iterator[tuple[str, Difference | None]]:
        """(sample, its largest difference) for every row of ``fresh``; ``None`` where all numbers are equal."""
        dims = [table_metadata(table)["dim"] for table in (stored, fresh)]
        if dims[0] != dims[1]:
            raise RunFailedError(
                f"{self._where}: the stored rows are {dims[0]} wide, the code as it is now makes {dims[1]}; nothing "
                f"was adopted; cure: gristmill run {self.dataset.name}"
            )
        at = {sample_id: row for row, sample_id in enumerate(stored["sample_id"].to_pylist())}
        for row, sample_id in enumerate(fresh["sample_id"].to_pylist()):
            old, new = sequence_at(stored, at[sample_id], dims[0]), sequence_at(fresh, row, dims[1])
            for name in ("start_ns", "end_ns", "valid"):
                if not np.array_equal(getattr(old, name), getattr(new, name)):
                    raise RunFailedError(
                        f"{self._where}: the code as it is now gives another {name} for sample {sample_id} "
                        f"({len(old)} rows stored, {len(new)} computed); nothing was adopted; cure: gristmill run "
                        f"{self.dataset.name}"
                    )
            yield sample_id, _largest(sample_id, old, new)

    def stamp(self, stale: Standing, proof: Mapping[str, Any], largest: Difference | None) -> tuple[int, int]:
        """Write the rows again under the new recipe, and aligned rows that were current under their new inputs."""
        new = np.frombuffer(self._feature.recipe_digest, dtype=np.uint8)
        recipes = np.broadcast_to(new, (len(stale.rows), DIGEST_BYTES))
        files = [self._stamped(self._name, stale.rows, "recipe", recipes)]
        aligned = 0
        for name, rows, contents in self._aligned(stale):
            files.append(self._stamped(name, rows, "content", contents))
            aligned += len(rows)
        if self._lease is not None:
            self._lease.check()
        adds, removes = ([file for pair in files for file in pair[side]] for side in (1, 0))
        return aligned, self.store.commit(
            run_id=self.report.run_id,
            base=self.base,
            adds=adds,
            removes=removes,
            info=self._info(stale, proof, largest),
        )

    def _stamped(
        self, name: str, rows: npt.NDArray[np.int64], column: str, digests: Digests
    ) -> tuple[list[ShardFile], list[ShardFile]]:
        """Write the shards of some rows with other digests in ``column``; return the files before and after."""
        ids = self.planned.samples["sample_id"].take(pa.array(rows)).to_pylist()
        stamps = {sample_id: digest.tobytes() for sample_id, digest in zip(ids, digests, strict=True)}
        before, after = [], []
        files = {file.shard: file for file in self._published.files_of(name)}
        for shard in np.unique(self.planned.samples["shard"].to_numpy()[rows]).tolist():
            table = self.store.read_file(files[shard].path)
            pairs = zip(table["sample_id"].to_pylist(), table[column].to_pylist(), strict=True)
            values = [stamps.get(sample_id, digest) for sample_id, digest in pairs]
            place = table.schema.get_field_index(column)
            table = table.set_column(place, table.schema.field(place), pa.array(values, pa.binary(DIGEST_BYTES)))
            if column == "recipe":
                metadata = table_metadata(table) | {"recipe": self._feature.recipe_digest.hex()}
                table = table.replace_schema_metadata({METADATA_KEY: json.dumps(metadata, sort_keys=True).encode()})
            before.append(files[shard])
            after.append(write_file(self.store, name, shard, table))
        return before, after

    def _aligned(self, stale: Standing) -> Iterator[tuple[str, npt.NDArray[np.int64], Digests]]:
        """(aligned feature, its rows that are current, their content under the new digests)."""
        if self.dataset.align is None:
            return
        setting, outside = Setting.of(self.dataset.align, self.dataset.features), self._outside()
        inputs, present = {}, {}
        for name, feature in self.planned.originals.items():
            frozen = replace(feature, standing=self._standing(name))
            has = np.isin(feature.status, (Status.UNCHANGED, Status.RELABEL))
            has[frozen.standing.rows] = True
            present[name] = has
            inputs[name] = (has, frozen.stored_content, frozen.stored_recipes)
        was = alignment.recipes_and_contents(setting, inputs, outside)
        has, contents, recipes = inputs[self._name]
        recipes = recipes.copy()
        recipes[stale.rows] = np.frombuffer(self._feature.recipe_digest, dtype=np.uint8)
        will = alignment.recipes_and_contents(setting, inputs | {self._name: (has, contents, recipes)}, outside)
        anything = np.logical_or.reduce(list(present.values()))
        for name, feature in self.planned.originals.items():
            (recipe, before), (_, after) = was[name], will[name]
            wanted = Wanted(feature.wanted.chain, recipe, before, anything)
            stored = ALIGNED_PREFIX + name
            plan = plan_feature(stored, self.base, self.planned.samples, wanted)
            current = np.isin(plan.status, (Status.UNCHANGED, Status.RELABEL))
            rows = np.flatnonzero(current & (before != after).any(axis=1))
            if len(rows):
                yield stored, rows, after[rows]

    def _info(self, stale: Standing, proof: Mapping[str, Any], largest: Difference | None) -> dict[str, Any]:
        """The last snapshot's own, but for the feature's recipes and what was done here."""
        info = dict(self._published.info)
        feature = self._feature
        documents = dict(info["recipes"][self._name])
        documents[feature.recipe_digest.hex()] = feature.wanted.recipe
        replaced = sorted({digest.tobytes().hex() for digest in np.unique(stale.recipe, axis=0)})
        return info | {
            "run_id": self.report.run_id,
            "created": self.report.started,
            "recipes": info["recipes"] | {self._name: documents},
            "changes": {self._name: [("adopted: equal with the code as it is now", len(stale.rows))]},
            "rebuilt": False,
            "adopted": {
                "feature": self._name,
                "rows": len(stale.rows),
                "from": replaced,
                "to": feature.recipe_digest.hex(),
                **proof,
                "largest_difference": 0.0 if largest is None else largest.amount,
            },
        }


def _without(recipe: Mapping[str, Any], *, libraries: bool) -> dict[str, Any]:
    """A recipe but for its code (and versions of libraries)."""
    ignored = {"code", "libraries"} if libraries else {"code"}
    return {**recipe, "steps": [{k: v for k, v in step.items() if k not in ignored} for step in recipe["steps"]]}


def _largest(sample_id: str, old: FeatureSequence, new: FeatureSequence) -> Difference | None:
    """The largest difference in the valid rows; ``None`` where all are equal."""
    apart = np.abs(new.values.astype(np.float64) - old.values.astype(np.float64))
    apart[~old.valid] = 0.0  # their values mean nothing
    if not apart.any():
        return None
    row, column = (int(index) for index in np.unravel_index(int(apart.argmax()), apart.shape))
    return Difference(
        sample_id=sample_id,
        row=row,
        column=column,
        stored=float(old.values[row, column]),
        computed=float(new.values[row, column]),
    )
