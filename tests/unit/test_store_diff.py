"""Comparing snapshots: every row is added, removed, changed, relabelled or unchanged, and shifts are cosines."""

from __future__ import annotations

import math
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from made_store import Made

from pipeline.store import diff as module
from pipeline.store.diff import FeatureDiff, cosine_shift, diff
from pipeline.store.quarantine import Failure


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def counts(found: FeatureDiff) -> dict[str, int]:
    return {name: getattr(found, name) for name in ("added", "removed", "changed", "relabelled", "unchanged")}


def test_every_row_is_counted_once(made: Made) -> None:
    keep = made.file("f", 0, {"same": [[1, 1]], "same2": [[1, 2]]})
    old = made.file("f", 1, {"bytes": [[1, 0], [3, 0]], "gone": [[1, 1]], "label": [[2, 2]]})
    before = made.publish(keep, old, samples={"same": 0, "same2": 0, "bytes": 1, "gone": 1, "label": 1})
    moved = made.file("f", 1, {"bytes": [[0, 5]]}, content="other")
    kept = made.file("f", 3, {"label": [[2, 2]]}, labels={"label": "day"})
    new = made.file("f", 2, {"new": [[1, 1]]})
    samples = {"same": 0, "same2": 0, "bytes": 1, "new": 2, "label": 3}
    after = made.publish(moved, kept, new, removes=[old], samples=samples, labels={"label": "day"})
    found = diff(before, after)
    feature = found.features["f"]
    assert counts(feature) == {"added": 1, "removed": 1, "changed": 1, "relabelled": 1, "unchanged": 2}
    assert feature.samples == {"added": ["new"], "removed": ["gone"], "changed": ["bytes"], "relabelled": ["label"]}
    assert (feature.content, feature.recipe, feature.same_bytes) == (1, 0, 0)
    assert feature.shift is not None
    assert (feature.shift.mean, feature.shift.max, feature.shift.sample_id) == (1.0, 1.0, "bytes"), "a right angle"
    assert found.samples == {"added": 1, "removed": 1, "relabelled": 1, "unchanged": 3}
    back = diff(after, before).features["f"]
    assert counts(back) == {"added": 1, "removed": 1, "changed": 1, "relabelled": 1, "unchanged": 2}
    none = diff(after, after).features["f"]
    assert counts(none) == {"added": 0, "removed": 0, "changed": 0, "relabelled": 0, "unchanged": 5}


def test_recipes_are_explained_and_equal_numbers_are_counted(made: Made) -> None:
    old = made.file("f", 0, {"a": [[1, 0]], "b": [[0, 1]], "c": [[2, 0]]})
    before = made.publish(old, samples={"a": 0, "b": 0, "c": 0})
    new = made.file("f", 0, {"a": [[1, 0]], "b": [[0, 1]], "c": [[2, 2]]}, gain=2)
    after = made.publish(new, removes=[old], samples={"a": 0, "b": 0, "c": 0}, gains=(2,))
    feature = diff(before, after).features["f"]
    assert feature.recipes == {"mill gain 1 -> 2": 3}
    assert (feature.content, feature.recipe, feature.same_bytes) == (0, 3, 2)
    assert feature.shift is not None
    assert feature.shift.max == pytest.approx(1 - math.cos(math.pi / 4))
    assert feature.shift.mean == pytest.approx((1 - math.cos(math.pi / 4)) / 3)
    assert (feature.shift.sample_id, feature.shift.rows) == ("c", 3)


@pytest.mark.parametrize("block", [1 << 20, 1])
def test_after_a_rebuild_rows_are_found_in_other_shards(
    made: Made, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BLOCK_BYTES", block)
    angles = {f"s{i}": i / 10 for i in range(12)}
    ids = sorted(angles)
    old = [made.file("f", i, {key: [[1, 0]] for key in ids[i::3]}) for i in range(3)]
    before = made.publish(*old, samples={key: i for i in range(3) for key in ids[i::3]})
    turned = {key: [[math.cos(angle), math.sin(angle)]] for key, angle in angles.items()}
    new = [made.file("f", i, {key: turned[key] for key in ids[4 * i : 4 * i + 4]}, gain=2) for i in range(3)]
    after = made.publish(*new, removes=old, samples={key: i // 4 for i, key in enumerate(ids)}, gains=(2,))
    feature = diff(before, after).features["f"]
    assert counts(feature) == {"added": 0, "removed": 0, "changed": 12, "relabelled": 0, "unchanged": 0}
    assert feature.same_bytes == 1, "the angle of s0 is 0"
    assert feature.shift is not None
    assert feature.shift.sample_id == "s11"
    assert feature.shift.max == pytest.approx(1 - math.cos(1.1), abs=1e-6)
    assert feature.shift.mean == pytest.approx(np.mean([1 - math.cos(a) for a in angles.values()]), abs=1e-6)


def test_another_width_has_no_shift(made: Made) -> None:
    old = made.file("f", 0, {"a": [[1, 0]]})
    before = made.publish(old, samples={"a": 0})
    new = made.file("f", 0, {"a": [[1, 0, 0]]}, gain=2)
    after = made.publish(new, removes=[old], samples={"a": 0}, gains=(2,), width=3)
    feature = diff(before, after).features["f"]
    assert (feature.changed, feature.widths, feature.shift, feature.same_bytes) == (1, (2, 3), None, 0)


def test_rows_without_direction_are_left_out_of_the_shift(made: Made) -> None:
    old = made.file("f", 0, {"a": [[0, 0]], "b": [[1, 0]]})
    before = made.publish(old, samples={"a": 0, "b": 0})
    new = made.file("f", 0, {"a": [[1, 0]], "b": [[-1, 0]]}, content="other")
    after = made.publish(new, removes=[old], samples={"a": 0, "b": 0})
    shift = diff(before, after).features["f"].shift
    assert shift is not None
    assert (shift.rows, shift.max, shift.sample_id) == (1, 2.0, "b")


def test_features_and_quarantine_that_come_and_go(made: Made) -> None:
    old = made.file("f", 0, {"a": [[1, 0]]})
    bad = Failure(sample_id="b", feature="f", stage="decode", reason="corrupt", message="no")
    before = made.publish(old, samples={"a": 0, "b": 0}, quarantine=[bad])
    silent = Failure(sample_id="a", feature="g", stage="extract", reason="silent", message="no")
    after = made.publish(
        made.file("g", 0, {"b": [[1, 1]]}), removes=[old], samples={"a": 0, "b": 0}, quarantine=[silent]
    )
    found = diff(before, after)
    assert counts(found.features["f"])["removed"] == 1
    assert counts(found.features["g"])["added"] == 1
    assert found.features["g"].widths == (None, 2)
    assert found.entered == (("a", "g", "silent"),)
    assert found.left == (("b", "f", "corrupt"),)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_a_shift_is_symmetric_and_blind_to_scale(seed: int, scale: float) -> None:
    one, other = np.random.default_rng(seed).normal(size=(2, 5, 4))
    shift = cosine_shift(one, other)
    assert ((shift >= 0) & (shift <= 2)).all()
    np.testing.assert_allclose(shift, cosine_shift(other, one), atol=1e-12)
    np.testing.assert_allclose(shift, cosine_shift(one * scale, other), atol=1e-12)
    np.testing.assert_allclose(cosine_shift(one, -one), 2)
