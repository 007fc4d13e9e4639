"""Text to words: tokens, stop words, lemmas, stems. Each word form is worked out once, whatever the corpus repeats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias, get_args

from features.base import State, WeightsRef
from features.errors import StateError
from features.text import nltk_data
from features.text.nltk_data import PUNKT, STOPWORDS, WORDNET
from features.text.tokenizers import check_choice, tokenize_with
from features.types import Device, Stream, Text, TextSegment

Splitter: TypeAlias = Literal["treebank", "tweet", "regexp", "whitespace", "punkt_tab"]
Lemma: TypeAlias = Literal["none", "noun", "verb", "adjective", "adverb", "any"]

SNOWBALL = (
    *("arabic", "danish", "dutch", "english", "finnish", "french", "german", "hungarian", "italian", "norwegian"),
    *("portuguese", "romanian", "russian", "spanish", "swedish"),
)
"""The languages of NLTK's Snowball stemmers."""

_POS: dict[str, str | None] = {"noun": "n", "verb": "v", "adjective": "a", "adverb": "r", "any": None}
_REMEMBERED = 1_000_000
"""Word forms that a process remembers at most; then it begins anew."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Split every segment into words, and leave the words joined by single spaces; segments and times stay one to one.

    In this order: ``tokenizer`` ("treebank", "tweet", "regexp", "whitespace": see ``tokenize_with``; "punkt_tab":
    sentences by NLTK's Punkt model of ``language``, then Treebank words, which is ``nltk.word_tokenize``);
    ``min_length`` drops shorter tokens; ``stop_words`` "drop" drops those of NLTK's list for ``language``, whatever
    their case; ``lemma`` puts the WordNet lemma (English only), where there is one, of the word taken for a "noun",
    "verb", "adjective" or "adverb", or for the first of these that WordNet knows it as ("any"); ``stem`` puts the stem
    (and lower case) by "snowball" (Porter2 for English) or "porter" (Porter 1980 with NLTK's extensions, English only).

    "punkt_tab", stop words and lemmas need data of NLTK, which ``gristmill fetch nltk`` fetches; without them this is
    a ``StateError``, never another way of splitting.
    """

    name: ClassVar[str] = "text.tokens"
    stream: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = ("nltk",)

    tokenizer: Splitter = "treebank"
    language: str = "english"
    min_length: int = 1
    stop_words: Literal["keep", "drop"] = "keep"
    lemma: Lemma = "none"
    stem: Literal["none", "snowball", "porter"] = "none"

    def __post_init__(self) -> None:
        check_choice(self.name, "tokenizer", self.tokenizer, get_args(Splitter))
        check_choice(self.name, "stop_words", self.stop_words, ("keep", "drop"))
        check_choice(self.name, "lemma", self.lemma, get_args(Lemma))
        check_choice(self.name, "stem", self.stem, ("none", "snowball", "porter"))
        if self.min_length < 1:
            raise ValueError(f"{self.name}: min_length: got {self.min_length!r}, allowed: >= 1")
        if not (self.language.isascii() and self.language.replace("_", "").isalpha()):
            raise ValueError(f"{self.name}: language: got {self.language!r}, allowed: a name such as english")
        if self.stem == "snowball":
            check_choice(self.name, "language", self.language, SNOWBALL)
        if self.language != "english" and (self.stem == "porter" or self.lemma != "none"):
            option = "stem 'porter'" if self.stem == "porter" else f"lemma {self.lemma!r}"
            raise ValueError(f"{self.name}: language: got {self.language!r}, allowed with {option}: english")

    @property
    def _resources(self) -> tuple[str, ...]:
        wanted = ((self.tokenizer == "punkt_tab", PUNKT), (self.stop_words == "drop", STOPWORDS))
        return tuple(name for needed, name in (*wanted, (self.lemma != "none", WORDNET)) if needed)

    @property
    def weights_ref(self) -> WeightsRef | None:
        """The data of NLTK that these options need; ``None`` where they need none."""
        return WeightsRef(kind="nltk", locator="+".join(self._resources)) if self._resources else None

    def with_state(self, state: State) -> BoundTokens:
        """Return the step with its data: ``state`` maps each resource to its folder. Raises ``StateError``."""
        bound = BoundTokens(self, nltk_data.folders(self.name, state, self._resources))
        bound.tokens("")
        return bound

    def prepare(self, batch: Sequence[Text], device: Device) -> list[Text]:
        """Return one text of joined tokens for each of ``batch``. Raises ``StateError`` where data are needed."""
        if self._resources:
            raise StateError(
                f"{self.name}: needs NLTK data {', '.join(self._resources)}; "
                f"{nltk_data.cure(*self._resources)}, then with_state"
            )
        return BoundTokens(self, ()).prepare(batch, device)


@dataclass(frozen=True)
class BoundTokens:
    """``Tokens`` with the folders of its data. What is read from them is read on first use, once in a process."""

    name: ClassVar[str] = Tokens.name
    stream: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = Tokens.numerics

    step: Tokens
    folders: tuple[tuple[str, Path], ...]

    def prepare(self, batch: Sequence[Text], device: Device) -> list[Text]:
        """Return one text of joined tokens for each of ``batch``, with the same segments and spans. Runs on the CPU."""
        del device
        return [
            Text(tuple(TextSegment(" ".join(self.tokens(part.text)), part.span) for part in text.segments))
            for text in batch
        ]

    def tokens(self, text: str) -> list[str]:
        """Return the tokens of ``text``."""
        split, forms = _worker(self)
        return [form for token in split(text) if (form := forms[token])]


class _Forms(dict[str, str]):
    """Token -> what becomes of it (empty: it is dropped), worked out when it is first met."""

    def __init__(self, work_out: Callable[[str], str]) -> None:
        super().__init__()
        self._work_out = work_out

    def __missing__(self, token: str) -> str:
        if len(self) >= _REMEMBERED:
            self.clear()
        self[token] = form = self._work_out(token)
        return form


@lru_cache(maxsize=8)
def _worker(bound: BoundTokens) -> tuple[Callable[[str], list[str]], _Forms]:
    step, folders = bound.step, dict(bound.folders)
    split = _splitter(step, folders)
    stops = nltk_data.stop_words(folders[STOPWORDS], step.language) if step.stop_words == "drop" else frozenset()
    changes = [change for change in (_lemma(step, folders), _stem(step)) if change is not None]

    def form(token: str) -> str:
        token = "".join(token.split())  # "tweet" has tokens such as ". . ."
        if len(token) < step.min_length or token.lower().replace("\u2019", "'") in stops:
            return ""
        for change in changes:
            token = change(token)
        return token

    return split, _Forms(form)


def _splitter(step: Tokens, folders: dict[str, Path]) -> Callable[[str], list[str]]:
    if step.tokenizer != "punkt_tab":
        return tokenize_with(step.tokenizer)
    sentences, words = nltk_data.sentence_splitter(folders[PUNKT], step.language), tokenize_with("treebank")

    def split(text: str) -> list[str]:
        return [word for sentence in sentences.tokenize(text) for word in words(sentence)]

    return split


def _lemma(step: Tokens, folders: dict[str, Path]) -> Callable[[str], str] | None:
    if step.lemma == "none":
        return None
    morphy, pos = nltk_data.wordnet(folders[WORDNET]).morphy, _POS[step.lemma]

    def lemma(token: str) -> str:
        found: str | None = morphy(token.lower(), pos)
        return token if found is None else found

    return lemma


def _stem(step: Tokens) -> Callable[[str], str] | None:
    if step.stem == "none":
        return None
    from nltk.stem import PorterStemmer, SnowballStemmer

    found: Callable[[str], str] = (PorterStemmer() if step.stem == "porter" else SnowballStemmer(step.language)).stem
    return found
