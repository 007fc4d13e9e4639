"""From text to tokens: NLTK's tokenizers that need no data."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal, TypeAlias

Tokenizer: TypeAlias = Literal["treebank", "tweet", "regexp", "whitespace"]
TOKENIZERS: tuple[Tokenizer, ...] = ("treebank", "tweet", "regexp", "whitespace")

_HAN = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
WORD = f"[{_HAN}]|[^\\W_{_HAN}]+(?:['\u2019][^\\W_{_HAN}]+)*"
"""Pattern of a word: letters and digits with apostrophes inside, or one Han character."""


@lru_cache(maxsize=len(TOKENIZERS))
def tokenize_with(tokenizer: Tokenizer) -> Callable[[str], list[str]]:
    """Return the function from text to tokens. Three are NLTK's, and none needs data files.

    "treebank": Penn Treebank words and punctuation, as ``nltk.word_tokenize`` within a sentence; "tweet": keeps
    emoticons, hashtags and handles whole; "regexp": words without punctuation, and each Han character by itself (the
    others split Chinese only at spaces); "whitespace": what stands between spaces, which is right after
    ``text.tokens``. Time is linear in the length of the text.
    """
    from nltk.tokenize import NLTKWordTokenizer, RegexpTokenizer, TweetTokenizer

    if tokenizer == "treebank":
        found: Callable[[str], list[str]] = NLTKWordTokenizer().tokenize
    elif tokenizer == "tweet":
        found = TweetTokenizer().tokenize
    elif tokenizer == "regexp":
        found = RegexpTokenizer(WORD).tokenize
    elif tokenizer == "whitespace":
        found = str.split
    else:
        raise ValueError(f"tokenizer: got {tokenizer!r}, allowed: {', '.join(TOKENIZERS)}")
    return found


def check_choice(step: str, option: str, got: object, allowed: tuple[object, ...]) -> None:
    """Raise ``ValueError`` where an option is none of the ``allowed`` values."""
    if got not in allowed:
        raise ValueError(f"{step}: {option}: got {got!r}, allowed: {', '.join(map(str, allowed))}")
