"""Reading ahead changes when things are read, never what or in which order."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pipeline.execute.decode import ahead


def counted(name: str, length: int, log: list[str]) -> Iterator[str]:
    for number in range(length):
        log.append(f"{name}{number}")
        yield f"{name}{number}"


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_the_same_items_in_the_same_order(threads: int) -> None:
    log: list[str] = []
    sources = (counted(name, length, log) for name, length in (("a", 20), ("b", 0), ("c", 1), ("d", 9)))
    found = [list(items) for items in ahead(sources, threads, depth=4)]
    assert [len(items) for items in found] == [20, 0, 1, 9]
    assert [item for items in found for item in items] == [
        f"{n}{k}" for n, m in zip("acd", (20, 1, 9), strict=True) for k in range(m)
    ]
    assert sorted(log) == sorted(item for items in found for item in items)


def test_no_more_is_read_ahead_than_allowed() -> None:
    log: list[str] = []
    reading = ahead((counted(name, 1000, log) for name in "abcdef"), 2, depth=3)
    first = iter(next(reading))
    assert next(first) == "a0"
    threading.Event().wait(0.3)
    assert {item[0] for item in log} == {"a", "b"}, "two sources are open"
    assert len(log) <= 2 * (3 + 1) + 1, "their queues are full"
    reading.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_an_error_comes_where_it_happened() -> None:
    def broken() -> Iterator[str]:
        yield "one"
        raise OSError("lost")

    (items,) = ahead(iter([broken()]), 1)
    found = iter(items)
    assert next(found) == "one"
    with pytest.raises(OSError, match="lost"):
        next(found)
