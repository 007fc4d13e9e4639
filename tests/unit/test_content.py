"""Content digests: each file is read once, remembered by uri, size and version, and agrees with BLAKE3 of its bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import blake3
import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import align, content
from pipeline.content import CACHE_SCHEMA, Digests, stream_digests, windowed

NOTHING = CACHE_SCHEMA.empty_table()


def table(files: list[tuple[Path, str] | None], *, stream: str = "text") -> pa.Table:
    return pa.table(
        {
            f"{stream}_uri": pa.array([None if file is None else str(file[0]) for file in files], pa.string()),
            f"{stream}_size": pa.array([None if file is None else 3 for file in files], pa.int64()),
            f"{stream}_version": pa.array([None if file is None else file[1] for file in files], pa.string()),
        }
    )


def counting(monkeypatch: Any) -> list[str]:
    read: list[str] = []
    original: Callable[[str], bytes] = content.file_digest

    def file_digest(uri: str) -> bytes:
        read.append(Path(uri).name)
        return original(uri)

    monkeypatch.setattr(content, "file_digest", file_digest)
    return read


def expected(path: Path) -> list[int]:
    return list(blake3.blake3(path.read_bytes()).digest(length=16))


def test_only_new_and_touched_files_are_read(tmp_path: Path, monkeypatch: Any) -> None:
    paths = [tmp_path / name for name in "abcd"]
    for path in paths:
        path.write_text(path.name * 3)
    read = counting(monkeypatch)
    first = [(path, "1") for path in paths[:3]]
    digests, cache = stream_digests(table([first[0], None, first[1], first[2], first[1]]), "text", NOTHING)
    assert sorted(read) == ["a", "b", "c"], "a file of two samples is read once"
    assert digests.tolist() == [expected(paths[0]), [0] * 16, *(expected(paths[i]) for i in (1, 2, 1))]

    again, same = stream_digests(table([first[0], None, first[1], first[2]]), "text", cache)
    assert len(read) == 3
    assert again.tolist() == digests[:4].tolist()
    assert same.equals(cache)

    paths[1].write_text("new")
    found, known = stream_digests(table([(paths[3], "1"), (paths[1], "2"), first[2]]), "text", cache)
    assert sorted(read[3:]) == ["b", "d"]
    assert found.tolist() == [expected(paths[i]) for i in (3, 1, 2)]
    assert known["uri"].to_pylist() == [str(paths[i]) for i in (3, 1, 2)], "files that are gone are forgotten"

    stream_digests(table(first), "text", known, verify=True)
    assert len(read) == 8


def test_a_file_of_two_streams_is_read_once(tmp_path: Path, monkeypatch: Any) -> None:
    path = tmp_path / "clip"
    path.write_text("mp4")
    read = counting(monkeypatch)
    sound, known = stream_digests(table([(path, "1")], stream="audio"), "audio", NOTHING)
    video, _ = stream_digests(table([(path, "1")], stream="video"), "video", NOTHING, shared=known, verify=True)
    assert read == ["clip"]
    assert sound.tolist() == video.tolist()


def test_windows_of_a_file_are_told_apart() -> None:
    whole: Digests = np.full((4, 16), 7, np.uint8)
    edges: list[int | None] = [None, 0, 0, 1]
    ends: list[int | None] = [None, 5, 6, 5]
    samples = pa.table({"start_ns": pa.array(edges, pa.int64()), "end_ns": pa.array(ends, pa.int64())})
    found = windowed(whole, samples)
    assert found[0].tolist() == whole[0].tolist()
    assert len({row.tobytes() for row in found}) == 4
    assert windowed(whole, samples.slice(3))[0].tolist() == found[3].tolist(), "neighbours do not matter"


@given(
    present=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=12), seed=st.integers(0, 9)
)
@settings(deadline=None, max_examples=60)
def test_what_alignment_reads_is_digested_row_by_row(present: list[list[bool]], seed: int) -> None:
    random = np.random.default_rng(seed)
    has = np.array(present)
    parts = random.integers(0, 2, (3, 2, len(has), 16), dtype=np.uint8) * 255

    def digests(rows: Any) -> list[bytes]:
        inputs = {f"f{i}": (has[rows, i], parts[i, 0][rows], parts[i, 1][rows]) for i in range(3)}
        return [row.tobytes() for row in align.contents(inputs)]

    every = digests(np.arange(len(has)))
    assert every[::-1] == digests(np.arange(len(has))[::-1]), "neighbours and order do not matter"
    read = [tuple((i, parts[i, :, row].tobytes()) for i in range(3) if has[row, i]) for row in range(len(has))]
    assert all((every[a] == every[b]) == (read[a] == read[b]) for a in range(len(has)) for b in range(len(has)))
