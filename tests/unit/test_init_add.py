"""``gristmill init`` where there is a catalog: what a person has written is kept to the letter."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_folder import Make, files, maker

from features.errors import CatalogError
from pipeline.catalog import load_catalog
from pipeline.init import propose, write


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return maker(tmp_path)


def test_a_catalog_is_never_overwritten_without_force(make: Make, tmp_path: Path) -> None:
    proposal, target = propose(make(files("a.wav"))), tmp_path / "data_catalog.yaml"
    target.write_text("mine")
    with pytest.raises(CatalogError, match=r"no data set can be added to it; it is left as it is; cure: .*--force"):
        write(proposal, target)
    assert target.read_text() == "mine"
    assert not write(proposal, target, force=True)
    assert load_catalog(target).datasets.keys() == {"things"}
    with pytest.raises(CatalogError, match=r"got a folder, allowed: a file; cure: --catalog .*data_catalog.yaml"):
        write(proposal, tmp_path)


CATALOGS = {
    "as init writes it": """\
version: 1
store: ./store

datasets:
  old:
    root: ./old
    source: {kind: folder}
    features:
      audio.mfcc: {options: {n_mfcc: 13}}
    max_failed: 0.2  # of my own
""",
    "keys after it, comments, deeper": """\
# mine
version: 1
datasets:
    old:    # the first
        root: ./old
        source:
            kind: folder
            include:
                - "*.wav"
        features: {audio.mfcc: }
    # what comes next

engine: {kind: serial}
store: ./store
""",
    "an alias at the end, no last line break": """\
version: 1
store: ./store
datasets:
  first:
    root: ./old
    source: {kind: folder}
    features: &all
      audio.mfcc: {}
  old:
    root: ./old
    source: {kind: folder}
    features: *all""",
    "lines that end as on Windows": """\
version: 1\r
store: ./store\r
datasets:\r
  old:\r
    root: ./old\r
    source: {kind: folder}\r
    features: {audio.mfcc: {}}\r
engine: {kind: serial}\r
""",
    "text over lines": """\
version: 1
store: ./store
datasets:
  old:
    source: {kind: folder}
    features: {audio.mfcc: {}}
    root: |-
      ./old
on_failure: [./tell]
""",
}


@pytest.mark.parametrize("layout", list(CATALOGS))
def test_a_data_set_is_added_to_a_catalog_which_is_kept_to_the_letter(make: Make, tmp_path: Path, layout: str) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "tell").write_text("#!/bin/sh\n")
    (tmp_path / "tell").chmod(0o755)
    target = tmp_path / "data_catalog.yaml"
    written = CATALOGS[layout].encode()
    target.write_bytes(written)
    before = load_catalog(target)
    proposal = propose(make(files("a.wav")))
    assert write(proposal, target)
    after = load_catalog(target)
    assert list(after.datasets) == [*before.datasets, "things"]
    assert {name: after.datasets[name] for name in before.datasets} == dict(before.datasets)
    alone = tmp_path / "alone.yaml"
    write(proposal, alone)
    assert after.datasets["things"] == load_catalog(alone).datasets["things"]
    found = target.read_bytes()
    same = next((at for at, pair in enumerate(zip(written, found, strict=False)) if pair[0] != pair[1]), len(written))
    assert found.endswith(written[same:]), "what stood there stands there, to the byte"

    text = target.read_text()
    with pytest.raises(CatalogError, match=r"data set 'things' is there already; it is left as it is; cure: another"):
        write(proposal, target)
    assert target.read_text() == text


def test_nothing_is_added_to_data_sets_in_braces(make: Make, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    target = tmp_path / "data_catalog.yaml"
    text = (
        "version: 1\nstore: ./store\n"
        "datasets: {old: {root: ./old, source: {kind: folder}, features: {audio.mfcc: {}}}}\n"
    )
    target.write_text(text)
    with pytest.raises(CatalogError, match="datasets is written in braces, which nothing can be added to"):
        write(propose(make(files("a.wav"))), target)
    assert target.read_text() == text
    assert sorted(path.name for path in tmp_path.glob("data_catalog*")) == ["data_catalog.yaml"]
