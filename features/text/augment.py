"""Easy data augmentation of text (EDA): a few words replaced, inserted, swapped or deleted."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from features.base import State, WeightsRef
from features.errors import StateError
from features.random import generator
from features.text import nltk_data
from features.text.nltk_data import STOPWORDS, WORDNET
from features.text.tokenizers import WORD, check_choice
from features.text.words import WordTable
from features.types import Device, Stream, Text, TextSegment

_WORD = re.compile(f"({WORD})")
_HAN_END = re.compile("[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")

Synonyms: TypeAlias = Callable[[str], tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class Eda:
    """Alter a few words of a text by one operation that the seed draws; segments and their times stay one to one.

    Wei and Zou, "EDA: Easy Data Augmentation Techniques" (2019). A text has L words; n = max(1, floor(alpha * L)):

    - synonym replacement (``alpha_sr``): n different words that are no stop words, everywhere they stand, by a synonym;
    - random insertion (``alpha_ri``): n times a synonym of a random word at a random place;
    - random swap (``alpha_rs``): n times two words change places;
    - random deletion (``p_rd``): each word with this probability; one is always left.

    An operation whose number is 0 is never drawn. ``synonyms`` come from "wordnet" (data of NLTK, English) or are the
    ``neighbours`` nearest words, by cosine of at least ``min_similarity``, among the first (most frequent)
    ``candidates`` of a vectors file at ``path`` ("vectors"; formats as in ``text.pretrained_vectors``). ``stop_words``
    are never replaced or drawn for insertion: "nltk" (its list for ``language``; with WordNet only), "scikit-learn"
    (English) or "none". ``scope``: the words of the whole "text" are one list, or those of each "segment" by itself.

    Words are letters and digits, a Han character by itself; what stands between them stays. A text in which the drawn
    operation finds nothing to do is left as it is.
    """

    name: ClassVar[str] = "text.augment"
    stream: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = ("nltk",)

    alpha_sr: float = 0.1
    alpha_ri: float = 0.1
    alpha_rs: float = 0.1
    p_rd: float = 0.1
    synonyms: Literal["wordnet", "vectors"] = "wordnet"
    path: str = ""
    neighbours: int = 10
    min_similarity: float = 0.5
    candidates: int = 50_000
    stop_words: Literal["nltk", "scikit-learn", "none"] = "nltk"
    language: str = "english"
    scope: Literal["text", "segment"] = "text"

    def __post_init__(self) -> None:
        for option in ("alpha_sr", "alpha_ri", "alpha_rs", "p_rd"):
            if not 0 <= getattr(self, option) <= 1:
                raise ValueError(f"{self.name}: {option}: got {getattr(self, option)!r}, allowed: 0 to 1")
        if not self.operations:
            raise ValueError(f"{self.name}: alpha_sr: got 0 for every operation, allowed: one above 0")
        check_choice(self.name, "synonyms", self.synonyms, ("wordnet", "vectors"))
        check_choice(self.name, "stop_words", self.stop_words, ("nltk", "scikit-learn", "none"))
        check_choice(self.name, "scope", self.scope, ("text", "segment"))
        if bool(self.path) != (self.synonyms == "vectors"):
            allowed = "the path of a vectors file" if self.synonyms == "vectors" else "none with synonyms 'wordnet'"
            raise ValueError(f"{self.name}: path: got {self.path!r}, allowed: {allowed}")
        if self.synonyms == "vectors" and self.stop_words == "nltk":
            raise ValueError(
                f"{self.name}: stop_words: got 'nltk', allowed with synonyms 'vectors': scikit-learn, none"
            )
        english = self.synonyms == "wordnet" or self.stop_words == "scikit-learn"
        if self._needs_synonyms and english and self.language != "english":
            raise ValueError(
                f"{self.name}: language: got {self.language!r}, allowed with WordNet or stop_words 'scikit-learn': "
                "english; cure: synonyms 'vectors' with stop_words 'none'"
            )
        if self.neighbours < 1 or self.candidates < 2 or not -1 <= self.min_similarity <= 1:
            raise ValueError(
                f"{self.name}: neighbours, candidates, min_similarity: got {self.neighbours}, {self.candidates}, "
                f"{self.min_similarity}, allowed: >= 1, >= 2, -1 to 1"
            )

    @property
    def operations(self) -> tuple[str, ...]:
        """The options of the operations that may be drawn."""
        return tuple(option for option in ("alpha_sr", "alpha_ri", "alpha_rs", "p_rd") if getattr(self, option))

    @property
    def _needs_synonyms(self) -> bool:
        return self.alpha_sr > 0 or self.alpha_ri > 0

    @property
    def _resources(self) -> tuple[str, ...]:
        return (WORDNET, STOPWORDS) if self.stop_words == "nltk" else (WORDNET,)

    @property
    def weights_ref(self) -> WeightsRef | None:
        """Data of NLTK or the vectors file; ``None`` where no operation needs synonyms."""
        if not self._needs_synonyms:
            return None
        if self.synonyms == "vectors":
            return WeightsRef(kind="file", locator=self.path)
        return WeightsRef(kind="nltk", locator="+".join(self._resources))

    def with_state(self, state: State) -> BoundEda:
        """Return the step with its synonyms. Raises ``StateError`` when the state does not fit."""
        if self.synonyms == "wordnet":
            return BoundEda(self, nltk_data.folders(self.name, state, self._resources), None)
        shape = np.shape(state.get("vectors", ()))
        return BoundEda(self, (), WordTable.of_state(self.name, state, shape[1] if len(shape) == 2 else 0))

    def augment(self, batch: Sequence[Text], seeds: Sequence[int], device: Device) -> list[Text]:
        """Return one altered text for each of ``batch``. Raises ``StateError`` where synonyms are needed."""
        if self.weights_ref is not None:
            cure = nltk_data.cure(*self._resources) if self.synonyms == "wordnet" else f"cure: the file {self.path}"
            raise StateError(f"{self.name}: needs {self.weights_ref.locator}; {cure}, then with_state")
        return BoundEda(self, (), None).augment(batch, seeds, device)


@dataclass(frozen=True, eq=False)
class BoundEda:
    """``Eda`` with where its synonyms come from."""

    name: ClassVar[str] = Eda.name
    stream: ClassVar[Stream] = "text"
    numerics: ClassVar[tuple[str, ...]] = Eda.numerics

    step: Eda
    folders: tuple[tuple[str, Path], ...]
    table: WordTable | None

    def augment(self, batch: Sequence[Text], seeds: Sequence[int], device: Device) -> list[Text]:
        """Return one altered text for each of ``batch``. Runs on the CPU."""
        del device
        return [self._altered(text, generator(seed)) for text, seed in zip(batch, seeds, strict=True)]

    def _altered(self, text: Text, rng: np.random.Generator) -> Text:
        pieces = [_WORD.split(segment.text) for segment in text.segments]
        for group in [pieces] if self.step.scope == "text" else [[one] for one in pieces]:
            self._alter(group, rng)
        return Text(
            tuple(
                TextSegment("".join(parts), segment.span) for parts, segment in zip(pieces, text.segments, strict=True)
            )
        )

    def _alter(self, pieces: list[list[str]], rng: np.random.Generator) -> None:
        """Alter lists of text and words in turn (words have odd places)."""
        places = [(k, place) for k, parts in enumerate(pieces) for place in range(1, len(parts), 2)]
        operations = self.step.operations
        drawn = operations[int(rng.integers(len(operations)))]
        if not places:
            return
        share: float = getattr(self.step, drawn)
        count = max(1, int(share * len(places)))
        if drawn == "alpha_sr":
            self._replace(pieces, places, count, rng)
        elif drawn == "alpha_ri":
            self._insert(pieces, places, count, rng)
        elif drawn == "alpha_rs":
            _swap(pieces, places, count, rng)
        else:
            _delete(pieces, places, share, rng)

    def _replace(
        self, pieces: list[list[str]], places: list[tuple[int, int]], n: int, rng: np.random.Generator
    ) -> None:
        types = list(dict.fromkeys(pieces[k][place].lower() for k, place in places))
        chosen: dict[str, str] = {}
        for number in rng.permutation(len(types)).tolist():
            found = self._synonyms(types[number])
            if found and len(chosen) < n:
                chosen[types[number]] = found[int(rng.integers(len(found)))]
        for k, place in places:
            pieces[k][place] = chosen.get(pieces[k][place].lower(), pieces[k][place])

    def _insert(self, pieces: list[list[str]], places: list[tuple[int, int]], n: int, rng: np.random.Generator) -> None:
        types = [pieces[k][place].lower() for k, place in places]
        known = [found for word in types if (found := self._synonyms(word))]
        for _ in range(n if known else 0):
            found = known[int(rng.integers(len(known)))]
            word = found[int(rng.integers(len(found)))]
            k, place = places[int(rng.integers(len(places)))]
            after = pieces[k][place]
            space = "" if _HAN_END.match(word[-1]) and _HAN_END.match(after[0]) else " "
            pieces[k][place] = word + space + after

    def _synonyms(self, word: str) -> tuple[str, ...]:
        return _synonyms(self, word)


def _swap(pieces: list[list[str]], places: list[tuple[int, int]], n: int, rng: np.random.Generator) -> None:
    for _ in range(n if len(places) > 1 else 0):
        first, second = (places[number] for number in rng.choice(len(places), 2, replace=False).tolist())
        one, other = pieces[first[0]][first[1]], pieces[second[0]][second[1]]
        pieces[first[0]][first[1]], pieces[second[0]][second[1]] = other, one


def _delete(pieces: list[list[str]], places: list[tuple[int, int]], p: float, rng: np.random.Generator) -> None:
    gone = rng.random(len(places)) < p
    spared = int(rng.integers(len(places)))
    if gone.all():
        gone[spared] = False
    for (k, place), drop in zip(places, gone.tolist(), strict=True):
        if not drop:
            continue
        pieces[k][place] = ""
        before, after = pieces[k][place - 1], pieces[k][place + 1]
        if after[:1].isspace() and (not before or before[-1].isspace()):
            pieces[k][place + 1] = after[1:]


@lru_cache(maxsize=100_000)
def _synonyms(bound: BoundEda, word: str) -> tuple[str, ...]:
    """Synonyms of a word, in an order that is always the same; none of a stop word."""
    if word in _stops(bound):
        return ()
    return _near(bound, word) if bound.table is not None else _wordnet(bound, word)


@lru_cache(maxsize=8)
def _stops(bound: BoundEda) -> frozenset[str]:
    if bound.step.stop_words == "nltk":
        return nltk_data.stop_words(dict(bound.folders)[STOPWORDS], bound.step.language)
    if bound.step.stop_words == "none":
        return frozenset()
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)


def _wordnet(bound: BoundEda, word: str) -> tuple[str, ...]:
    reader = nltk_data.wordnet(dict(bound.folders)[WORDNET])
    names = {name.replace("_", " ").lower() for found in reader.synsets(word) for name in found.lemma_names()}
    return tuple(sorted(names - {word}))


def _near(bound: BoundEda, word: str) -> tuple[str, ...]:
    table, step = bound.table, bound.step
    row = -1 if table is None else int(table.find([word])[0])
    if table is None or row < 0:
        return ()
    unit = _units(bound)
    vector = np.asarray(table.vectors[row], dtype=np.float32)
    length = float(np.linalg.norm(vector))
    # a product and a sum in one fixed order, where a matrix product would round by address and thread
    cosines = (unit * (vector / (length or 1))).sum(axis=1).astype(np.float64).round(5)
    cosines[cosines < step.min_similarity] = -np.inf
    if row < len(cosines):
        cosines[row] = -np.inf
    best = np.lexsort((np.arange(len(cosines)), -cosines))[: step.neighbours + 1]
    words = [table.word(number) for number in best.tolist() if cosines[number] > -np.inf]
    return tuple([near for near in words if near.lower() != word][: step.neighbours])


@lru_cache(maxsize=2)
def _units(bound: BoundEda) -> Any:
    if bound.table is None:
        raise StateError(f"{bound.name}: got no vectors")
    vectors = np.array(bound.table.vectors[: bound.step.candidates], dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
