"""``text.augment``: each operation does what the paper says; times and what stands between words stay."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_nltk
import nltk
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.base import Augment, WeightsRef
from features.errors import StateError
from features.text.augment import Eda
from features.text.vector_files import parse_vectors
from features.time import Span
from features.types import Device, Text, TextSegment

CPU: Device = "cpu"
NONE = {"alpha_sr": 0.0, "alpha_ri": 0.0, "alpha_rs": 0.0, "p_rd": 0.0}
SENTENCE = "one two three, four five six; seven eight nine ten!"


def views(step: Any, text: str, count: int = 40) -> list[str]:
    texts = [Text((TextSegment(text),))] * count
    return [found.plain for found in step.augment(texts, range(count), CPU)]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    return made_nltk.unpacked(tmp_path, "wordnet", "stopwords")


def only(**options: Any) -> Eda:
    return Eda(**NONE | options)


def test_swap_exchanges_n_pairs_of_words_and_nothing_else() -> None:
    step = only(alpha_rs=0.1)
    assert step.weights_ref is None
    for found in views(step, SENTENCE):
        assert sorted(words(found)) == sorted(words(SENTENCE))
        assert sum(a != b for a, b in zip(words(found), words(SENTENCE), strict=True)) == 2
        assert re.sub(r"\w+", "", found) == re.sub(r"\w+", "", SENTENCE)
    assert len(set(views(only(alpha_rs=0.5), SENTENCE))) > 30
    assert views(step, "alone") == ["alone"] * 40


def test_deletion_drops_words_with_the_probability_and_leaves_one() -> None:
    lengths = Counter(len(words(found)) for found in views(only(p_rd=0.3), SENTENCE, 600))
    mean = sum(length * count for length, count in lengths.items()) / 600
    assert abs(mean - 7) < 0.25  # 10 words, deviation of the mean 0.06
    assert {len(words(found)) for found in views(only(p_rd=1.0), SENTENCE)} == {1}
    assert len({found.strip() for found in views(only(p_rd=1.0), SENTENCE)}) > 5
    assert views(only(p_rd=1.0), "alone") == ["alone"] * 40
    assert all("  " not in found for found in views(only(p_rd=0.5), "a b c d e f g"))


def test_wordnet_synonyms_replace_a_word_wherever_it_stands(data: dict[str, Path]) -> None:
    step = only(alpha_sr=0.01)
    assert step.weights_ref == WeightsRef(kind="nltk", locator="corpora/wordnet+corpora/stopwords")
    found = set(views(step.with_state(data), "the Mill and the mill, x y"))
    synonyms = ("grinder", "factory", "manufacturing plant", "grind")
    assert found == {f"the {word} and the {word}, x y" for word in synonyms}


def test_stop_words_and_words_without_synonyms_stay(data: dict[str, Path]) -> None:
    bound = only(alpha_sr=1.0).with_state(data)
    assert set(views(bound, "the and of xyz")) == {"the and of xyz"}
    assert all(found.startswith("the xyz ") for found in views(bound, "the xyz mouse dog"))
    assert {found.split()[3] for found in views(bound, "the xyz mouse dog")} == {"domestic"}


def test_insertion_puts_synonyms_in_random_places(data: dict[str, Path]) -> None:
    bound = only(alpha_ri=0.5).with_state(data)
    found = views(bound, "the dog ran. Away")
    synonym = r"(domestic dog|race|run) "  # run: as in the paper, only the word itself is no synonym of it
    for text in found:
        assert re.sub(synonym, "", text) == "the dog ran. Away"
        assert len(re.findall(synonym, text)) == 2
    assert len(set(found)) > 10
    assert set(views(bound, "nothing known here")) == {"nothing known here"}


def vectors(**options: Any) -> Any:
    table = b"wheat 1 0.1\nrye 1 0.12\nbarley 0.9 0.2\nbyte 0 1\ndisk 0.1 1\n\xe7\xa8\xbb 0.9 0.15\n"
    step = Eda(synonyms="vectors", path="v.vec", stop_words="none", **NONE | options)
    assert step.weights_ref == WeightsRef(kind="file", locator="v.vec")
    return step.with_state(parse_vectors(table))


def test_the_nearest_vectors_are_synonyms() -> None:
    assert set(views(vectors(alpha_sr=0.1, neighbours=1), "wheat x")) == {"rye x"}
    assert set(views(vectors(alpha_sr=0.1, neighbours=3), "wheat x")) == {"rye x", "barley x", "稻 x"}
    assert set(views(vectors(alpha_sr=0.1, min_similarity=0.9), "byte x")) == {"disk x"}
    assert set(views(vectors(alpha_sr=0.1, min_similarity=0.9999), "byte x")) == {"byte x"}
    assert set(views(vectors(alpha_sr=0.1, candidates=2), "barley x")) == {"wheat x", "rye x"}


def test_chinese_goes_character_by_character() -> None:
    swapped = views(only(alpha_rs=0.1), "我爱吃米饭\uff0c很好")
    assert all(sorted(found) == sorted("我爱吃米饭\uff0c很好") and found[5] == "\uff0c" for found in swapped)
    deleted = views(only(p_rd=0.5), "我爱吃米饭")
    assert all(set(found) <= set("我爱吃米饭") and found for found in deleted)
    inserted = views(vectors(alpha_ri=0.1, neighbours=5), "稻好")
    assert all(" " not in found.replace("wheat ", "").replace("rye ", "").replace("barley ", "") for found in inserted)


def test_segments_and_times_stay_and_scope_bounds_the_swap() -> None:
    parts = tuple(TextSegment(text, Span(k, k + 1)) for k, text in enumerate(["a b", "", "c d e", "f"]))
    texts = [Text(parts)] * 60
    for scope in ("text", "segment"):
        found = only(alpha_rs=0.5, scope=scope).augment(texts, range(60), CPU)
        assert all([part.span for part in one.segments] == [part.span for part in parts] for one in found)
        assert all([len(words(part.text)) for part in one.segments] == [2, 0, 3, 1] for one in found)
        kept = [set(words(one.segments[0].text)) == {"a", "b"} for one in found]
        assert all(kept) == (scope == "segment")


@settings(deadline=None, max_examples=50)
@given(st.text(), st.integers(0, 2**63 - 1))
def test_a_seed_says_everything(text: str, seed: int) -> None:
    step = only(alpha_rs=0.3, p_rd=0.3)
    texts = [Text((TextSegment(text),))] * 3
    one, other, third = step.augment(texts, [seed, seed ^ 1, seed], CPU)
    assert one == third
    assert not Counter(other.plain) - Counter(text)


def test_an_operation_of_zero_is_never_drawn_and_the_others_about_alike() -> None:
    step = only(alpha_rs=0.1, p_rd=0.9999)
    swapped = sum(len(words(found)) == 10 for found in views(step, SENTENCE, 400))
    assert 150 < swapped < 250  # 200, deviation 10


def test_without_state_synonyms_are_refused() -> None:
    assert isinstance(Eda(), Augment)
    with pytest.raises(StateError, match=r"text.augment: needs corpora/wordnet\+corpora/stopwords; cure: gristmill fe"):
        Eda().augment([Text(())], [1], CPU)
    with pytest.raises(StateError, match=r"needs v\.vec; cure: the file v\.vec, then with_state"):
        Eda(synonyms="vectors", path="v.vec", stop_words="none").augment([Text(())], [1], CPU)
    with pytest.raises(StateError, match="NLTK data: got no corpora/stopwords; cure: gristmill fetch nltk stopwords"):
        Eda().with_state({"corpora/wordnet": "x"})
    with pytest.raises(StateError, match=r"text\.augment: vectors: got"):
        Eda(synonyms="vectors", path="v.vec", stop_words="none").with_state(
            {"vectors": np.zeros((0, 2), np.float32), "vocabulary": np.zeros(0, np.uint8)}
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha_sr": 1.5}, "alpha_sr: got 1.5, allowed: 0 to 1"),
        (NONE, "alpha_sr: got 0 for every operation, allowed: one above 0"),
        ({"synonyms": "x"}, "synonyms: got 'x', allowed: wordnet, vectors"),
        ({"path": "v"}, "path: got 'v', allowed: none with synonyms 'wordnet'"),
        ({"synonyms": "vectors"}, "path: got '', allowed: the path of a vectors file"),
        ({"synonyms": "vectors", "path": "v"}, "stop_words: got 'nltk', allowed with synonyms 'vectors': scikit-learn"),
        ({"language": "german"}, "language: got 'german', allowed with WordNet"),
        ({"scope": "x"}, "scope: got 'x', allowed: text, segment"),
        ({"neighbours": 0}, "neighbours, candidates, min_similarity: got 0, 50000, 0.5, allowed: >= 1, >= 2, -1 to 1"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], message: str) -> None:
    make: Callable[..., object] = Eda
    with pytest.raises(ValueError, match=f"text.augment: {message}"):
        make(**options)
