"""``gristmill fetch nltk``: where data come from, where they go, and what is said where they cannot be had."""

from __future__ import annotations

from pathlib import Path

import made_nltk
import nltk
import pytest
from typer.testing import CliRunner

from features.base import WeightsRef
from features.errors import StateError
from features.text.tokens import Tokens
from features.types import Text, TextSegment
from pipeline import weights
from pipeline.cli import app
from pipeline.cli.fetch import fetch_nltk


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an index like NLTK's own, on this disk; NLTK's path is empty but for its folder."""
    served = tmp_path / "served"
    served.mkdir()
    base = f"file://{served}"
    made_nltk.served(served, base, tmp_path / "work")
    monkeypatch.setattr(nltk.data, "path", [str(served)])  # NLTK reads files on its path only
    monkeypatch.delenv("NLTK_DATA", raising=False)
    return f"{base}/index.xml"


def test_data_are_fetched_unpacked_and_used(index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "data"
    ran = CliRunner().invoke(app, ["fetch", "nltk", "--to", str(target), "--index", index])
    assert ran.exit_code == 0, ran.output
    assert ran.output.splitlines() == [
        f"punkt_tab: {target}/tokenizers/punkt_tab",
        f"stopwords: {target}/corpora/stopwords",
        f"wordnet: {target}/corpora/wordnet",
        f"NLTK does not look there by itself: set NLTK_DATA={target}",
    ]
    monkeypatch.setattr(nltk.data, "path", [str(target)])
    step = Tokens(tokenizer="punkt_tab", stop_words="drop", lemma="noun")
    assert step.weights_ref is not None
    bound = step.with_state(weights.load(step.weights_ref, Path()))
    (found,) = bound.prepare([Text((TextSegment("Dr. X saw the mice. It left."),))], "cpu")
    assert found.plain == "Dr. X saw mouse . It left ."


def test_what_is_there_is_not_fetched_again(index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "data"
    monkeypatch.setenv("NLTK_DATA", str(target))
    first = list(fetch_nltk(("wordnet",), target, index))
    when = (target / "corpora" / "wordnet.zip").stat().st_mtime_ns
    assert list(fetch_nltk(("wordnet",), target, index)) == first == [f"wordnet: {target}/corpora/wordnet"]
    assert (target / "corpora" / "wordnet.zip").stat().st_mtime_ns == when


def test_a_zip_that_was_left_packed_is_told_and_unpacked(
    index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "data"
    (target / "corpora").mkdir(parents=True)
    (target / "corpora" / "wordnet.zip").write_bytes((tmp_path / "served" / "wordnet.zip").read_bytes())
    monkeypatch.setattr(nltk.data, "path", [str(target), str(tmp_path / "served")])
    ref = WeightsRef(kind="nltk", locator="corpora/wordnet")
    with pytest.raises(StateError, match=rf"'corpora/wordnet' is on none .* \(there is a zip in {target}, which fetch"):
        weights.load(ref, Path())
    list(fetch_nltk(("wordnet",), target, index))
    assert weights.load(ref, Path()) == {"corpora/wordnet": target / "corpora" / "wordnet"}


def test_unknown_names_and_damaged_packages(index: str, tmp_path: Path) -> None:
    with pytest.raises(StateError, match="has no 'wordnot'; the text steps use punkt_tab, stopwords, wordnet"):
        list(fetch_nltk(("wordnot", "stopwords"), tmp_path / "data", index))
    (tmp_path / "served" / "stopwords.zip").write_bytes(b"PK broken")
    with pytest.raises(StateError, match=r"stopwords cannot be fetched from file://.*cure: try again, or copy it into"):
        list(fetch_nltk(("stopwords",), tmp_path / "data", index))
    assert not (tmp_path / "data" / "corpora" / "stopwords").exists()


def test_without_a_network_the_cure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "path", [])
    with pytest.raises(StateError, match=r"the index https://.*index.xml cannot be read .* cure: connect this machine"):
        list(fetch_nltk(("stopwords",), tmp_path / "data", None))


def test_missing_data_are_named_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "path", ["/nowhere"])
    ref = Tokens(tokenizer="punkt_tab", stop_words="drop").weights_ref
    assert ref == WeightsRef(kind="nltk", locator="tokenizers/punkt_tab+corpora/stopwords")
    message = (
        r"'tokenizers/punkt_tab', 'corpora/stopwords' are on none of NLTK's paths \(/nowhere\); "
        "cure: gristmill fetch nltk punkt_tab stopwords, or set NLTK_DATA"
    )
    for ask in (weights.load, weights.digest):
        with pytest.raises(StateError, match=message):
            ask(ref, Path())


def test_the_digest_covers_names_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    made_nltk.unpacked(tmp_path, "stopwords")
    ref = WeightsRef(kind="nltk", locator="corpora/stopwords")
    before = weights.digest(ref, Path())
    assert weights.digest(ref, Path()) == before
    path = tmp_path / "corpora" / "stopwords" / "german"
    path.rename(path.with_name("dutch"))
    renamed = weights.digest(ref, Path())
    path.with_name("dutch").write_text("de\n")
    assert len({before, renamed, weights.digest(ref, Path())}) == 3
