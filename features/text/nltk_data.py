"""What NLTK reads from its data: sentence models, stop words, WordNet. Each is read once in a process."""

from __future__ import annotations

import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

from features.base import State
from features.errors import StateError

PUNKT, STOPWORDS, WORDNET = "tokenizers/punkt_tab", "corpora/stopwords", "corpora/wordnet"


def cure(*resources: str) -> str:
    """The command that fetches ``resources``."""
    return f"cure: gristmill fetch nltk {' '.join(resource.rpartition('/')[2] for resource in resources)}"


def folders(step: str, state: State, resources: tuple[str, ...]) -> tuple[tuple[str, Path], ...]:
    """The folder of each resource, out of a step's state. Raises ``StateError`` where one is missing."""
    missing = [resource for resource in resources if resource not in state]
    if missing:
        raise StateError(f"{step}: NLTK data: got no {', '.join(missing)}; {cure(*missing)}")
    return tuple((resource, Path(state[resource])) for resource in resources)


@lru_cache(maxsize=8)
def sentence_splitter(folder: Path, language: str) -> Any:
    """NLTK's Punkt model of a language. Raises ``StateError`` where the data have no such language."""
    from nltk.data import FileSystemPathPointer
    from nltk.tokenize.punkt import PunktSentenceTokenizer, load_punkt_params

    try:
        return PunktSentenceTokenizer(load_punkt_params(FileSystemPathPointer(str(folder / language))))
    except (OSError, LookupError) as error:
        raise StateError(
            f"NLTK data: {PUNKT} in {folder} has no whole model for language {language!r} ({error}); "
            f"{cure(PUNKT)}, or set another language"
        ) from error


@lru_cache(maxsize=8)
def stop_words(folder: Path, language: str) -> frozenset[str]:
    """NLTK's stop words of a language, lower-case. Raises ``StateError`` where the data have no such language."""
    from nltk.corpus.reader import WordListCorpusReader

    try:
        return frozenset(word.lower() for word in WordListCorpusReader(str(folder), [language]).words())
    except OSError as error:
        raise StateError(
            f"NLTK data: {STOPWORDS} in {folder} has no language {language!r} ({error}); "
            f"{cure(STOPWORDS)}, or set another language"
        ) from error


@lru_cache(maxsize=2)
def wordnet(folder: Path) -> Any:
    """NLTK's reader of the English WordNet. Raises ``StateError`` where the data are not whole."""
    from nltk.corpus.reader import WordNetCorpusReader

    class EnglishWordNet(WordNetCorpusReader):  # type: ignore[misc]  # NLTK has no types
        """Without the maps to the WordNets of other languages, which take seconds and look at NLTK's path again."""

        def map_wn(self, version: str = "wordnet") -> None:
            del version

        def __del__(self) -> None:
            for opened in (*self._data_file_map.values(), self._key_count_file, self._key_synset_file):
                if opened is not None:
                    opened.close()

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that other languages need other data
            return EnglishWordNet(str(folder), None)
    except (OSError, LookupError, ValueError, AssertionError) as error:
        raise StateError(f"NLTK data: {WORDNET} in {folder} is not whole ({error!r}); {cure(WORDNET)}") from error
