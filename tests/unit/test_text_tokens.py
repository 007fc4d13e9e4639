"""``text.tokens``: each option, against NLTK called plainly; data that are missing are an error."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_nltk
import nltk
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.stem import PorterStemmer, SnowballStemmer
from nltk.tokenize import NLTKWordTokenizer, TweetTokenizer

from features.base import NeedsWeights, Prepare, WeightsRef
from features.errors import StateError
from features.text import tokens as tokens_module
from features.text.tokens import SNOWBALL, Tokens
from features.time import Span
from features.types import Device, Text, TextSegment

CPU: Device = "cpu"
TEXT = "Don't you say the mills (Dr. Müller's) were grinding 3.5 tons of wheat; it's :-) #fun @ann."


def words(step: Any, text: str) -> str:
    (found,) = step.prepare([Text((TextSegment(text),))], CPU)
    return str(found.plain)


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])  # NLTK reads files on its path only
    return made_nltk.unpacked(tmp_path)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, NLTKWordTokenizer().tokenize(TEXT)),
        ({"tokenizer": "tweet"}, TweetTokenizer().tokenize(TEXT)),
        ({"tokenizer": "whitespace"}, TEXT.split()),
        ({"min_length": 3}, [token for token in NLTKWordTokenizer().tokenize(TEXT) if len(token) > 2]),
        ({"stem": "porter"}, [PorterStemmer().stem(token) for token in NLTKWordTokenizer().tokenize(TEXT)]),
        ({"stem": "snowball"}, [SnowballStemmer("english").stem(word) for word in NLTKWordTokenizer().tokenize(TEXT)]),
        (
            {"stem": "snowball", "language": "german", "tokenizer": "tweet"},
            [SnowballStemmer("german").stem(token) for token in TweetTokenizer().tokenize(TEXT)],
        ),
    ],
)  # fmt: skip
def test_without_data_the_tokens_are_nltk_s(options: dict[str, Any], expected: list[str]) -> None:
    step = Tokens(**options)
    assert step.weights_ref is None
    assert words(step, TEXT) == " ".join(expected)


def test_chinese_is_split_by_regexp_and_left_whole_by_the_others() -> None:
    text = "我爱NLP\uff0c很好"
    assert words(Tokens(tokenizer="regexp", stem="snowball"), text) == "我 爱 nlp 很 好"
    for tokenizer in ("treebank", "whitespace"):
        assert words(Tokens(tokenizer=tokenizer), text) == text  # type: ignore[arg-type]


def test_no_token_holds_a_space() -> None:
    assert words(Tokens(tokenizer="tweet"), "so . . . +1 (800) 123-4567") == "so ... +1(800)123-4567"


def test_segments_and_times_stay_one_to_one() -> None:
    parts = (TextSegment("Running mills", Span(1, 5)), TextSegment(" ", Span(5, 5)), TextSegment("x", Span(7, 9)))
    step = Tokens(stem="snowball", min_length=2)
    first, second = step.prepare([Text(parts), Text(())], CPU)
    assert [part.text for part in first.segments] == ["run mill", "", ""]
    assert [part.span for part in first.segments] == [part.span for part in parts]
    assert second == Text(())


def test_punkt_splits_sentences_as_word_tokenize_does(data: dict[str, Path]) -> None:
    bound = Tokens(tokenizer="punkt_tab").with_state(data)
    text = "Dr. Smith left. He ran! Did he?"
    assert words(bound, text).split() == nltk.word_tokenize(text)
    assert words(bound, text) == "Dr. Smith left . He ran ! Did he ?"
    assert words(Tokens(), text) == "Dr. Smith left. He ran ! Did he ?", "one sentence: only its last dot is a token"


def test_stop_words_go_whatever_their_case(data: dict[str, Path]) -> None:
    bound = Tokens(tokenizer="whitespace", stop_words="drop").with_state(data)
    assert words(bound, "The mill AND it\u2019s wheel don't Of") == "mill wheel"
    german = Tokens(tokenizer="whitespace", stop_words="drop", language="german").with_state(data)
    assert words(german, "Die Mühle und the rest") == "Mühle the rest"


@pytest.mark.parametrize(
    ("lemma", "expected"),
    [
        ("noun", "mouse ground Factories mill better zzz"),
        ("verb", "mice grind Factories mill better zzz"),
        ("adjective", "mice ground Factories mills good zzz"),
        ("adverb", "mice ground Factories mills well zzz"),
        ("any", "mouse grind Factories mill good zzz"),
    ],
)
def test_lemmas_are_wordnet_s(lemma: Any, expected: str, data: dict[str, Path]) -> None:
    bound = Tokens(tokenizer="whitespace", lemma=lemma).with_state(data)
    found = words(bound, "mice ground Factories mills better zzz")
    assert found == expected.replace("Factories", "factory" if lemma in ("noun", "any") else "Factories")


def test_a_lemma_is_stemmed_when_both_are_asked_for(data: dict[str, Path]) -> None:
    bound = Tokens(tokenizer="whitespace", lemma="noun", stem="porter").with_state(data)
    assert words(bound, "Factories") == PorterStemmer().stem("factory")


@pytest.mark.parametrize(
    ("options", "resources"),
    [
        ({"tokenizer": "punkt_tab"}, ["tokenizers/punkt_tab"]),
        ({"stop_words": "drop", "lemma": "any"}, ["corpora/stopwords", "corpora/wordnet"]),
    ],
)
def test_data_that_are_missing_are_named_with_the_cure(options: dict[str, Any], resources: list[str]) -> None:
    step = Tokens(**options)
    assert isinstance(step, NeedsWeights)
    assert step.weights_ref == WeightsRef(kind="nltk", locator="+".join(resources))
    cure = f"cure: gristmill fetch nltk {' '.join(name.split('/')[1] for name in resources)}"
    for ask in (lambda: step.prepare([Text(())], CPU), lambda: step.with_state({})):
        with pytest.raises(StateError, match=rf"text.tokens: .*{resources[0]}.*; {cure}"):
            ask()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokenizer": "punkt_tab", "language": "dutch"}, "has no whole model for language 'dutch'"),
        ({"stop_words": "drop", "language": "dutch"}, "has no language 'dutch'"),
    ],
)
def test_a_language_that_the_data_lack_is_an_error(
    options: dict[str, Any], message: str, data: dict[str, Path]
) -> None:
    with pytest.raises(StateError, match=rf"NLTK data: .*{message}.*cure: gristmill fetch nltk .*another language"):
        Tokens(**options).with_state(data)


def test_damaged_wordnet_is_an_error(data: dict[str, Path]) -> None:
    (data["corpora/wordnet"] / "index.noun").unlink()
    with pytest.raises(StateError, match=r"corpora/wordnet in .* is not whole .*; cure: gristmill fetch nltk wordnet"):
        Tokens(lemma="noun").with_state(data)


def test_a_bound_step_travels(data: dict[str, Path]) -> None:
    bound = pickle.loads(pickle.dumps(Tokens(tokenizer="punkt_tab", lemma="verb").with_state(data)))
    assert isinstance(bound, Prepare)
    assert words(bound, "It ran. They ran.") == "It run . They run ."


def test_the_memory_of_forms_is_bounded_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "_REMEMBERED", 3)
    step = Tokens(tokenizer="whitespace", stem="porter", min_length=2)
    forms = tokens_module._worker(tokens_module.BoundTokens(step, ()))[1]
    text = "running runs ran runner running mills milling mill a running"
    assert words(step, text) == " ".join(PorterStemmer().stem(token) for token in text.split() if token != "a")
    assert len(forms) <= 3


@settings(deadline=None, max_examples=50)
@given(st.text(), st.sampled_from(["treebank", "tweet", "regexp", "whitespace"]))
def test_any_text_can_be_split(text: str, tokenizer: Any) -> None:
    once = words(Tokens(tokenizer=tokenizer), text)
    assert "  " not in once
    assert once == once.strip()


def test_the_languages_are_those_of_nltk_s_stemmers() -> None:
    assert {*SNOWBALL, "porter"} == set(SnowballStemmer.languages)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tokens(tokenizer="spaces"), "tokenizer: got 'spaces', allowed: treebank, tweet, regexp, whitespace"),
        (lambda: Tokens(stop_words="no"), "stop_words: got 'no', allowed: keep, drop"),
        (lambda: Tokens(lemma="x"), "lemma: got 'x', allowed: none, noun, verb, adjective, adverb, any"),
        (lambda: Tokens(stem="x"), "stem: got 'x', allowed: none, snowball, porter"),
        (lambda: Tokens(min_length=0), "min_length: got 0, allowed: >= 1"),
        (lambda: Tokens(language="../x"), r"language: got '\.\./x', allowed: a name such as english"),
        (lambda: Tokens(stem="snowball", language="klingon"), "language: got 'klingon', allowed: arabic, danish"),
        (lambda: Tokens(stem="porter", language="german"), "language: got 'german', allowed with stem 'porter': engl"),
        (lambda: Tokens(lemma="noun", language="german"), "language: got 'german', allowed with lemma 'noun': english"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"text.tokens: {message}"):
        make()
