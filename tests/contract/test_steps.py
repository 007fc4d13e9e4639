"""What every registered step must keep. A step without a ``Case`` in ``cases.py`` fails."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import pytest
from cases import AUGMENTING, EXTRACTOR, PREPARING, Case, make

from features.registry import AUGMENT, EXTRACTORS, PREPARE

TABLES = {"row": EXTRACTORS, "prepare": PREPARE, "augment": AUGMENT}
STEPS = [(name, EXTRACTORS, EXTRACTOR) for name in sorted(EXTRACTORS)]
STEPS += [(name, PREPARE, PREPARING) for name in sorted(PREPARE)]
STEPS += [(name, AUGMENT, AUGMENTING) for name in sorted(AUGMENT)]
steps = pytest.mark.parametrize(
    ("name", "table", "cases"),
    STEPS,
    ids=[f"{name}-{kind}" for kind, table in TABLES.items() for name in sorted(table)],
)


@steps
def test_options_are_the_repr_the_equality_the_hash_and_the_pickle(
    name: str, table: dict[str, str], cases: dict[str, Case]
) -> None:
    step = make(name, table, cases)
    kind = type(step)
    other = kind(**cases[name].other)
    namespace = {kind.__name__: kind}
    for value in (step, other):
        assert value == eval(repr(value), namespace) == pickle.loads(pickle.dumps(value)) == copy.deepcopy(value)
        assert hash(value) == hash(pickle.loads(pickle.dumps(value)))
    assert step != other
    first = dataclasses.fields(step)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(step, first, getattr(step, first))
    with pytest.raises(TypeError, match="positional argument"):
        kind(1)


def test_no_case_is_left_over() -> None:
    assert EXTRACTOR.keys() == EXTRACTORS.keys()
    assert PREPARING.keys() == PREPARE.keys()
    assert AUGMENTING.keys() == AUGMENT.keys()
