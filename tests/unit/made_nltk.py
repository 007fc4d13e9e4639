"""Small data of NLTK in its own formats, made here: a sentence model, stop words, a WordNet of a few words."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

STOPS = {"english": "the\na\nand\nof\nit's\ndon't\n", "german": "der\ndie\nund\n"}
_LEXNAMES = {"noun": 3, "verb": 29, "adj": 0, "adv": 2}
_SYNSETS = {
    "noun": [("mill", "grinder"), ("mill", "factory", "manufacturing_plant"), ("mouse",), ("dog", "domestic_dog")],
    "verb": [("grind", "mash"), ("run", "race"), ("mill", "grind")],
    "adj": [("good", "full"), ("old",)],
    "adv": [("well", "good")],
}
_EXCEPTIONS = {
    "noun": ["mice mouse"],
    "verb": ["ground grind", "ran run"],
    "adj": ["better good", "elder old"],
    "adv": ["better well"],
}
_HEADER = "  1 WordNet 3.0 Copyright: in name only, made for tests\n"
_LETTER = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}


def punkt(folder: Path) -> None:
    """A Punkt model of English that knows one abbreviation."""
    language = folder / "punkt_tab" / "english"
    language.mkdir(parents=True)
    (language / "abbrev_types.txt").write_text("dr")
    (language / "collocations.tab").write_text("")
    (language / "sent_starters.txt").write_text("")
    (language / "ortho_context.tab").write_text("")


def stopwords(folder: Path) -> None:
    """Stop words of two languages."""
    (folder / "stopwords").mkdir(parents=True)
    for language, words in STOPS.items():
        (folder / "stopwords" / language).write_text(words)


def wordnet(folder: Path) -> None:
    """A WordNet database (wndb(5WN)) of a few synsets."""
    target = folder / "wordnet"
    target.mkdir(parents=True)
    names = {number: f"{pos}.some" for pos, number in _LEXNAMES.items()}
    lines = (f"{number:02d}\t{names.get(number, f'none.{number}')}\t1\n" for number in range(45))
    (target / "lexnames").write_text("".join(lines))
    senses = []
    for kind, (pos, synsets) in enumerate(_SYNSETS.items(), start=1):
        data, index = _HEADER, {}
        for words in synsets:
            for word in words:
                index.setdefault(word, []).append(len(data))
                sense = len(index[word])
                senses.append(f"{word}%{kind}:{_LEXNAMES[pos]:02d}:{sense:02d}:: {len(data):08d} {sense} 0\n")
            listed = " ".join(f"{word} 0" for word in words)
            frames = " 01 + 08 00" if pos == "verb" else ""
            data += (
                f"{len(data):08d} {_LEXNAMES[pos]:02d} {_LETTER[pos]} {len(words):02x} {listed} 000{frames} | some\n"
            )
        (target / f"data.{pos}").write_text(data)
        entries = [
            f"{word} {_LETTER[pos]} {len(at)} 0 {len(at)} 0 {' '.join(f'{offset:08d}' for offset in at)}  \n"
            for word, at in sorted(index.items())
        ]
        (target / f"index.{pos}").write_text(_HEADER + "".join(entries))
        (target / "index.sense").write_text("".join(sorted(senses)))
        (target / f"{pos}.exc").write_text("".join(f"{line}\n" for line in _EXCEPTIONS[pos]))


MAKERS = {"punkt_tab": ("tokenizers", punkt), "stopwords": ("corpora", stopwords), "wordnet": ("corpora", wordnet)}


def unpacked(folder: Path, *names: str) -> dict[str, Path]:
    """Make data as NLTK's folder has them; return resource -> folder."""
    found = {}
    for name in names or MAKERS:
        kind, make = MAKERS[name]
        make(folder / kind)
        found[f"{kind}/{name}"] = folder / kind / name
    return found


def served(folder: Path, base: str, work: Path) -> None:
    """Make a server's folder: zips of all data and ``index.xml``. Only wordnet is not to be unpacked, as at NLTK's."""
    entries = []
    for name, (kind, make) in MAKERS.items():
        make(work / kind)
        packed = folder / f"{name}.zip"
        with zipfile.ZipFile(packed, "w") as archive:
            for path in sorted((work / kind / name).rglob("*")):
                archive.write(path, path.relative_to(work / kind))
        content = packed.read_bytes()
        size = sum(path.stat().st_size for path in (work / kind / name).rglob("*") if path.is_file())
        entries.append(
            f'<package id="{name}" name="{name}" subdir="{kind}" url="{base}/{name}.zip" size="{len(content)}" '
            f'unzipped_size="{size}" checksum="{hashlib.md5(content).hexdigest()}" '
            f'sha256_checksum="{hashlib.sha256(content).hexdigest()}" unzip="{int(name != "wordnet")}"/>'
        )
    (folder / "index.xml").write_text(
        f"<?xml version='1.0'?><nltk_data><packages>{''.join(entries)}</packages><collections/></nltk_data>"
    )
