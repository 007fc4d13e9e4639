"""Text: cleaning, tokens and stems against plain NLTK; pooling of word vectors against a Python loop.

    uv run python benchmarks/text.py [--quick]

The text is made: words drawn from a Zipf distribution, so that the cache of stems meets what it meets in real text.
Outputs are compared before times are. CPU seconds, medians of interleaved rounds, one thread.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from harness import emit, figure, interleaved

from features.text.clean import Clean
from features.text.tokens import Tokens
from features.text.vectors import PretrainedVectors, encode_vocabulary, pool
from features.types import Device, Text, TextSegment

CPU: Device = "cpu"


def corpus(texts: int, length: int) -> list[str]:
    """Made texts of ``length`` words each."""
    rng = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlcumwfgypbvk"))
    words = [
        "".join(rng.choice(letters, rng.integers(2, 10))) + rng.choice(["", "ing", "ed", "s"]) for _ in range(20_000)
    ]
    drawn = np.minimum(rng.zipf(1.2, (texts, length)), len(words)) - 1
    return [" ".join(words[index] for index in row) + "." for row in drawn]


def with_nltk(texts: list[str]) -> list[str]:
    """The same by plain NLTK, as tutorials have it."""
    from nltk.stem import SnowballStemmer
    from nltk.tokenize import NLTKWordTokenizer

    stemmer, tokenizer = SnowballStemmer("english"), NLTKWordTokenizer()
    return [" ".join(stemmer.stem(token) for token in tokenizer.tokenize(text.lower())) for text in texts]


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    texts = corpus(50 if options.quick else 300, 400)
    media = [Text((TextSegment(text),)) for text in texts]
    clean, tokens = Clean(), Tokens(stem="snowball")

    def ours() -> list[str]:
        return [text.plain for text in tokens.prepare(clean.prepare(media, CPU), CPU)]

    assert ours() == with_nltk(texts)
    found = interleaved({"ours": ours, "nltk": lambda: with_nltk(texts)}, 5)
    words = len(texts) * 400
    rows: list[dict[str, Any]] = [
        {"work": "clean + tokenize + stem, words/s", "ours": words / found["ours"], "peer": words / found["nltk"]}
    ]
    vocabulary = sorted({word for text in texts for word in text.rstrip(".").split()})
    vectors = np.random.default_rng(1).standard_normal((len(vocabulary), 100)).astype(np.float32)
    state = {"vectors": vectors, "vocabulary": encode_vocabulary(vocabulary)}
    step = PretrainedVectors(path="v.vec", vector_size=100, tokenizer="whitespace", rows="text").with_state(state)
    plain = [Text((TextSegment(text.rstrip(".")),)) for text in texts]
    known = {word: vectors[index] for index, word in enumerate(vocabulary)}

    def loop() -> list[np.ndarray[Any, Any]]:
        return [np.mean([known[word] for word in text.plain.split() if word in known], axis=0) for text in plain]

    def pooled() -> list[np.ndarray[Any, Any]]:
        return [sequence.values[0] for sequence in step(plain, CPU)]

    np.testing.assert_allclose(np.stack(pooled()), np.stack(loop()), atol=1e-5)
    found = interleaved({"ours": pooled, "loop": loop}, 9)
    rows.append({"work": "pool word vectors, words/s", "ours": words / found["ours"], "peer": words / found["loop"]})
    places = {word: index for index, word in enumerate(vocabulary)}
    indices = [[places[word] for word in text.plain.split()] for text in plain]
    table = torch.from_numpy(vectors)
    flat = np.concatenate(indices).astype(np.int64)
    counts = np.array([len(each) for each in indices])
    found = interleaved(
        {
            "ours": lambda: pool(table, flat, counts),
            "loop": lambda: [np.mean([vectors[index] for index in each], axis=0) for each in indices],
        },
        9,
    )
    rows.append(
        {"work": "the same, tokens looked up before", "ours": words / found["ours"], "peer": words / found["loop"]}
    )
    for row in rows:
        row["ratio"] = row["ours"] / row["peer"]
    peers = ("plain NLTK", "loop of np.mean", "loop of np.mean")
    measures = [figure(f"{row['work']} / {peer}", row["ratio"]) for row, peer in zip(rows, peers, strict=True)]
    emit(rows, measures=measures)


if __name__ == "__main__":
    main()
