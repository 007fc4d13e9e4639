"""What the columns of a model's logits are told as."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.predictions import columns_of, outputs_of

DOCUMENT = {
    "targets": [
        {"name": "mood", "kind": "classes", "labels": ["calm", "storm"], "mean": 0.0, "scale": 1.0, "weight": 1.0},
        {"name": "seen", "kind": "labels", "labels": ["boat", "gull", "rope"], "mean": 0.0, "scale": 1.0},
        {"name": "wind", "kind": "number", "labels": [], "mean": 10.0, "scale": 4.0},
    ]
}


def test_several_targets_have_columns_of_their_own() -> None:
    logits = torch.tensor([[0.0, np.log(3.0), 2.0, -1.0, 0.5, -0.5], [1.0, 1.0, -1.0, -1.0, -1.0, 0.25]])
    found = {name: column.to_pylist() for name, column in columns_of(outputs_of(DOCUMENT), logits).items()}
    assert found["mood.predicted"] == ["storm", "calm"]
    assert found["mood.p_calm"] == pytest.approx([0.25, 0.5])
    assert found["mood.p_storm"] == pytest.approx([0.75, 0.5])
    assert found["seen.predicted"] == ["boat|rope", ""]
    assert found["seen.p_gull"] == pytest.approx([1 / (1 + np.e)] * 2)
    assert found["wind.predicted"] == pytest.approx([8.0, 11.0])
    assert "wind.p_" not in " ".join(found)


def test_one_target_has_plain_names() -> None:
    found = columns_of(outputs_of({"labels": ["day", "night"]}), torch.tensor([[0.0, 0.0]]))
    assert list(found) == ["predicted", "p_day", "p_night"]
    one = {"targets": DOCUMENT["targets"][2:]}
    assert list(columns_of(outputs_of(one), torch.tensor([[0.0]]))) == ["predicted"]
