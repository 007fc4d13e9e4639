"""Word vectors: fitted the same everywhere, read from files, pooled by segment."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.base import Example, Extractor, NeedsFit, NeedsWeights, WeightsRef, WordCounts
from features.errors import SampleError, StateError
from features.text.tokenizers import tokenize_with
from features.text.vector_files import parse_vectors
from features.text.vectors import PretrainedVectors, Word2Vec
from features.text.words import decode_vocabulary, encode_vocabulary
from features.time import ALWAYS, Span
from features.types import Device, Text, TextSegment

CPU: Device = "cpu"


def plain(*texts: str) -> list[Text]:
    return [Text((TextSegment(text),)) for text in texts]


PARSED = parse_vectors(b"a 1 0 0\nb 0 2 0\nc 0 0 4\n")
TINY = {name: PARSED[name] for name in ("vectors", "vocabulary")}  # as Word2Vec stores them: without an index


def tiny(**options: Any) -> Extractor:
    return PretrainedVectors(path="tiny.vec", vector_size=3, **options).with_state(TINY)


def test_kinds_of_steps() -> None:
    assert isinstance(Word2Vec(), NeedsFit)
    assert not isinstance(Word2Vec(), NeedsWeights)
    pretrained = PretrainedVectors(path="v.txt", vector_size=3)
    assert isinstance(pretrained, NeedsWeights)
    assert not isinstance(pretrained, NeedsFit)
    assert pretrained.weights_ref == WeightsRef(kind="file", locator="v.txt")
    assert isinstance(tiny(), Extractor)


@pytest.mark.parametrize(
    ("tokenizer", "text", "tokens"),
    [
        ("treebank", "Don't stop, now.", ["Do", "n't", "stop", ",", "now", "."]),
        ("tweet", "@ann #nice :-) don't", ["@ann", "#nice", ":-)", "don't"]),
        ("regexp", "Don't stop, it\u2019s 3.5_x!", ["Don't", "stop", "it\u2019s", "3", "5", "x"]),
        ("regexp", "我爱NLP\uff0c很 好", ["我", "爱", "NLP", "很", "好"]),
        ("treebank", "我爱 你", ["我爱", "你"]),
        ("regexp", "", []),
    ],
)
def test_tokenizers(tokenizer: Any, text: str, tokens: list[str]) -> None:
    assert tokenize_with(tokenizer)(text) == tokens


def test_a_row_is_the_mean_of_the_known_tokens_of_its_segment() -> None:
    words = Text(
        (TextSegment("a b", Span(0, 5)), TextSegment("nothing", Span(5, 6)), TextSegment("c a c x", Span(8, 9)))
    )
    timed, untimed, none = tiny()([words, *plain("b b b a"), Text(())], CPU)
    np.testing.assert_allclose(timed.values, [[0.5, 1, 0], [0, 0, 0], [1 / 3, 0, 8 / 3]], rtol=1e-6)
    assert timed.valid.tolist() == [True, False, True]
    assert (timed.start_ns.tolist(), timed.end_ns.tolist()) == ([0, 5, 8], [5, 6, 9])
    np.testing.assert_allclose(untimed.values, [[0.25, 1.5, 0]], rtol=1e-6)
    assert Span(int(untimed.start_ns[0]), int(untimed.end_ns[0])) == ALWAYS
    assert (len(none), none.dim) == (0, 3)


def test_empty_batches_and_batches_without_a_known_word() -> None:
    assert tiny()([], CPU) == []
    assert [len(found) for found in tiny()([Text(()), Text(())], CPU)] == [0, 0]
    (found,) = tiny()(plain("nothing here"), CPU)
    assert not found.valid.any()
    assert not found.values.any()


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from("abcxy "), max_size=12).map(" ".join), max_size=8))
def test_pooling_agrees_with_a_plain_loop(segments: list[str]) -> None:
    text = Text(tuple(TextSegment(segment, Span(k, k + 1)) for k, segment in enumerate(segments)))
    (found,) = tiny()([text], CPU)
    table = dict(zip("abc", TINY["vectors"], strict=True))
    for row, ok, segment in zip(found.values, found.valid, segments, strict=True):
        known = [table[token] for token in segment.split() if token in table]
        assert ok == bool(known)
        np.testing.assert_allclose(row, np.mean(known, axis=0) if known else np.zeros(3), rtol=1e-6)


def test_words_outside_the_vocabulary_are_counted_with_the_most_frequent_first() -> None:
    rows, words = tiny().counted(plain("a zz b zz", "yy a zz", ""), CPU)
    assert [found.valid.tolist() for found in rows] == [[True], [True], [False]]
    assert (words.words, words.unknown, list(words.examples.items())) == (7, 4, [("zz", 3), ("yy", 1)])
    words += WordCounts(words=2, unknown=1, examples={"yy": 5})
    assert (words.words, words.unknown, list(words.examples.items())) == (9, 5, [("yy", 6), ("zz", 3)])


@pytest.mark.filterwarnings("error")
def test_a_read_only_table_is_pooled_without_a_copy_or_a_warning() -> None:
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    vectors.flags.writeable = False
    step = PretrainedVectors(path="v", vector_size=3, tokenizer="whitespace")
    bound = step.with_state({"vectors": vectors, "vocabulary": np.frombuffer(b"a\nb", np.uint8)})
    assert bound(plain("a b b"), CPU)[0].values.tolist() == [[2.0, 3.0, 4.0]]


def test_segments_that_go_back_in_time_are_refused() -> None:
    text = Text((TextSegment("a", Span(5, 6)), TextSegment("b", Span(4, 6))))
    with pytest.raises(SampleError, match=r"bad_timestamps: text: segment 2 of 2 starts before the one ahead of it"):
        tiny()([text], CPU)


def examples(texts: Iterable[Text]) -> list[Example]:
    return [Example(text) for text in texts]


CORPUS = plain(*("the cat sat on the mat", "a dog ate the cat food", "dogs and cats are friends") * 5)


@pytest.mark.parametrize("architecture", ["skip-gram", "cbow"])
def test_fitting_gives_a_vector_for_every_frequent_word(architecture: Any) -> None:
    step = Word2Vec(vector_size=8, min_count=10, epochs=2, architecture=architecture)
    state = step.fit(examples(CORPUS))
    assert set(decode_vocabulary(state["vocabulary"])) == {"the", "cat"}
    assert decode_vocabulary(state["vocabulary"])[0] == "the", "most frequent first"
    assert state["vectors"].shape == (2, 8)
    assert state["vectors"].dtype == np.float32
    (found,) = step.with_state(state)(plain("the cat"), CPU)
    np.testing.assert_allclose(found.values[0], state["vectors"].mean(axis=0), rtol=1e-5)


def test_what_is_learnt_does_not_depend_on_the_process() -> None:
    code = (
        "import hashlib, sys\n"
        "from features.base import Example\n"
        "from features.text.vectors import Word2Vec\n"
        "from features.types import Text, TextSegment\n"
        "corpus = [Text((TextSegment(line),)) for line in sys.stdin.read().splitlines()]\n"
        "state = Word2Vec(vector_size=8, epochs=3).fit(Example(text) for text in corpus)\n"
        "print(hashlib.sha256(b''.join(state[name].tobytes() for name in sorted(state))).hexdigest())\n"
    )
    digests = set()
    for seed in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-c", code],
            input="\n".join(text.plain for text in CORPUS),
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(ran.stdout.strip())
    assert digests == {digest(Word2Vec(vector_size=8, epochs=3).fit(examples(CORPUS)))}


def digest(state: dict[str, Any]) -> str:
    return hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state))).hexdigest()


def test_the_seed_and_the_corpus_change_what_is_learnt() -> None:
    one = Word2Vec(vector_size=8, epochs=1).fit(examples(CORPUS))
    assert digest(one) != digest(Word2Vec(vector_size=8, epochs=1, seed=1).fit(examples(CORPUS)))
    assert digest(one) != digest(Word2Vec(vector_size=8, epochs=1).fit(examples(CORPUS[1:])))


def test_words_used_alike_come_out_alike() -> None:
    rng = np.random.default_rng(0)
    topics = (["wheat", "rye", "flour", "mill"], ["bit", "byte", "disk", "core"])
    corpus = plain(*(" ".join(rng.choice(topics[k % 2], 12)) for k in range(200)))
    step = Word2Vec(vector_size=16, epochs=40)
    state = step.fit(examples(corpus))
    index = {word: row for row, word in enumerate(decode_vocabulary(state["vocabulary"]))}
    unit = state["vectors"] / np.linalg.norm(state["vectors"], axis=1, keepdims=True)
    assert unit[index["wheat"]] @ unit[index["rye"]] > unit[index["wheat"]] @ unit[index["byte"]] + 0.3


def test_words_of_a_timed_text_are_each_other_s_context() -> None:
    # a segment a word: were each segment a sentence, no word would have a context, and nothing would be learnt
    timed = [
        Text(tuple(TextSegment(word, Span(k, k + 1)) for k, word in enumerate(text.plain.split()))) for text in CORPUS
    ]
    step = Word2Vec(vector_size=8, epochs=2)
    assert digest(step.fit(examples(timed))) == digest(step.fit(examples(CORPUS)))


def test_a_text_longer_than_gensim_s_limit_is_learnt_to_its_end() -> None:
    words = ["early"] * 10_000 + ["late", "later"] * 500
    step = Word2Vec(vector_size=4, epochs=1)
    long = step.fit(examples(plain(" ".join(words))))
    split = step.fit(examples(plain(" ".join(words[:10_000]), " ".join(words[10_000:]))))
    assert digest(long) == digest(split)


@pytest.mark.parametrize("corpus", [[], [Text(())], plain("", "  ")])
def test_nothing_to_learn_is_an_error(corpus: list[Text]) -> None:
    with pytest.raises(StateError, match=r"no word of \d texts \(0 tokens\) occurs min_count \(1\) times; cure: lower"):
        Word2Vec().fit(examples(corpus))
    with pytest.raises(StateError, match=r"no word of 1 texts \(2 tokens\) occurs min_count \(5\) times"):
        Word2Vec(min_count=5).fit(examples(plain("a b")))


@pytest.mark.parametrize("step", [Word2Vec(), PretrainedVectors(path="v.vec", vector_size=3)])
def test_without_state_nothing_is_extracted(step: Any) -> None:
    with pytest.raises(StateError, match=rf"{step.name}: got a batch of 1 for cpu but .*; cure: with_state\("):
        step(plain("a"), CPU)


def test_bound_extractors_pickle() -> None:
    again = pickle.loads(pickle.dumps(tiny()))
    assert (again.name, again.stream, again.dim) == ("text.pretrained_vectors", "text", 3)
    assert again(plain("a c"), CPU)[0].values.tobytes() == tiny()(plain("a c"), CPU)[0].values.tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vectors": None}, "state has no vectors; cure: fit it"),
        ({"vectors": np.zeros((3, 4), np.float32)}, r"got float32 \[3, 4\], allowed: float32 \[V >= 1, 3\]"),
        ({"vectors": np.zeros((3, 3))}, r"vectors: got float64 \[3, 3\]"),
        ({"vectors": np.zeros((0, 3), np.float32)}, r"vectors: got float32 \[0, 3\]"),
        ({"vocabulary": np.zeros(3)}, r"vocabulary: got float64 \[3\], allowed: uint8"),
        ({"vocabulary": encode_vocabulary("ab")}, "got 2 words, 2 of them different, allowed: 3"),
        ({"vocabulary": encode_vocabulary("aba")}, "got 3 words, 2 of them different, allowed: 3"),
    ],
)  # fmt: skip
def test_state_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    state = {name: array for name, array in (TINY | change).items() if array is not None}
    with pytest.raises(StateError, match=message):
        PretrainedVectors(path="v", vector_size=3).with_state(state)


def test_state_may_be_tensors_and_read_only() -> None:
    vectors = TINY["vectors"].copy()
    vectors.flags.writeable = False
    step = PretrainedVectors(path="v", vector_size=3)
    for state in ({**TINY, "vectors": vectors}, {name: torch.from_numpy(array.copy()) for name, array in TINY.items()}):
        assert step.with_state(state)(plain("b"), CPU)[0].values.tolist() == [[0, 2, 0]]


@given(st.lists(st.text(st.characters(exclude_characters="\n")), min_size=1))
def test_vocabularies_survive(words: list[str]) -> None:
    assert decode_vocabulary(encode_vocabulary(words)) == words


def test_files_in_text() -> None:
    glove = parse_vectors(b"die 1 2\nat name@x 3 4\n. 5e-1 -6")
    assert decode_vocabulary(glove["vocabulary"]) == ["die", "at name@x", "."]
    assert glove["vectors"].tolist() == [[1, 2], [3, 4], [0.5, -6]]
    word2vec = parse_vectors("2 3\nkorn 1 2 3 \n你\u00a0好 4 5 6 \r\n".encode())
    assert decode_vocabulary(word2vec["vocabulary"]) == ["korn", "你\u00a0好"]
    assert word2vec["vectors"].dtype == np.float32


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "the file is empty; allowed: GloVe or word2vec text format"),
        (["0 3", ""], "the file has no vectors; allowed: GloVe or word2vec text format"),
        (["2 3", "a 1 2 3"], "line 1 declares 2 words, got 1; cure: fetch the file anew"),
        (["a 1 2", "b 1"], "line 2: got 2 fields, allowed: a word and 2 numbers"),
        (["a 1 2", "", "b 1 2"], "line 2: got 1 fields, allowed: a word and 2 numbers"),
        (["alone"], "line 1: got 1 fields, allowed: a word and 1 numbers"),
        (["a 1 2", "b x 2"], r"line 2: .*; allowed: a word, then 2 numbers"),
        (["a 1 2", "b nan 2"], "line 2: 'b' has NaN or infinity, allowed: finite numbers"),
        (["a 1 2", "b 1 2", "a 3 4"], "'a' is word 1 and word 3; cure: keep one"),
    ],
)
def test_files_that_are_wrong_are_refused(lines: list[str], message: str) -> None:
    with pytest.raises(StateError, match=f"word vectors[,:].*{message}"):
        parse_vectors("\n".join(lines).encode())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Word2Vec(vector_size=0), "text.word2vec: vector_size: got 0, allowed: >= 1"),
        (lambda: Word2Vec(negative=0), "negative: got 0, allowed: >= 1"),
        (lambda: Word2Vec(seed=-1), r"seed: got -1, allowed: 0 to 2\*\*32 - 1"),
        (lambda: Word2Vec(architecture="glove"), "architecture: got 'glove', allowed: skip-gram, cbow"),
        (lambda: Word2Vec(tokenizer="spaces"), "tokenizer: got 'spaces', allowed: treebank, tweet, regexp, whitespace"),
        (lambda: PretrainedVectors(path="", vector_size=3), "path: got '', allowed: the path of a vectors file"),
        (lambda: PretrainedVectors(path="x", vector_size=0), "vector_size: got 0, allowed: >= 1"),
        (lambda: PretrainedVectors(path="x", vector_size=1, tokenizer="x"), "tokenizer: got 'x', allowed"),
    ],
)
def test_options_that_do_not_fit_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
