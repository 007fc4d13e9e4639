"""What a process was at work on can be read when it is dead, whatever moment it died at."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import IO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.execute.board import SLOT, Board, Diary, Note


@pytest.fixture
def file() -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as opened:
        yield opened


def test_nothing_is_at_work_before_the_first_note(file: IO[bytes]) -> None:
    assert Board(file.fileno()).read() == Note()
    assert Note().seconds == 0


def test_the_last_note_counts_and_names_of_any_alphabet_come_back(file: IO[bytes]) -> None:
    writer, reader = Board(file.fileno()), Board(file.fileno())
    notes = [
        Note("flow", ("a", "b"), 1.5, 0.25),
        Note("", ("été/\udcff",), 2.0, 0.0),
        Note("", ("a\0b", "", "c\n"), 2.0, 0.0),
        Note("cnn", tuple(f"s{i}" for i in range(5_000)), 3.0, 1.0),
        Note(),
    ]
    for note in notes:
        writer.write(note)
        assert reader.read() == note


@given(st.data())
def test_a_note_that_was_cut_short_is_none_and_the_one_before_counts(data: st.DataObject) -> None:
    with tempfile.TemporaryFile() as file:
        board = Board(file.fileno())
        board.write(Note("first", ("a",), 1.0, 0.0))
        before = [bytes(board._memory[at : at + 200]) for at in (0, SLOT)]
        board.write(Note("second", ("b", "c"), 2.0, 0.0))
        slot = 0 if bytes(board._memory[:200]) != before[0] else 1
        new, old = bytes(board._memory[slot * SLOT : slot * SLOT + 200]), before[slot]
        length = len(new.rstrip(b"\0"))
        head = data.draw(st.integers(0, 8))
        cut = data.draw(st.integers(8, length - 1))
        torn = new[:head] + old[head:8] + new[8:cut] + old[cut:]
        board._memory[slot * SLOT : slot * SLOT + 200] = torn
        assert board.read().feature == "first"


def test_a_reader_never_meets_half_a_note(file: IO[bytes]) -> None:
    code = (
        "import sys\n"
        "from pipeline.execute.board import Board, Note\n"
        "board, number = Board(int(sys.argv[1])), 0\n"
        "while True:\n"
        "    number += 1\n"
        "    board.write(Note(str(number), (str(number),) * (number % 50), 0.0, 0.0))\n"
    )
    reader = Board(file.fileno())
    writer = subprocess.Popen([sys.executable, "-c", code, str(file.fileno())], pass_fds=[file.fileno()])
    try:
        last, until = 0, time.monotonic() + 60
        while last < 20_000 and time.monotonic() < until:
            note = reader.read()
            number = int(note.feature or 0)
            assert note.sample_ids == (str(number),) * (number % 50)
            last = max(last, number)
    finally:
        writer.kill()
        writer.wait()
    assert last >= 20_000


def test_ids_that_have_no_room_are_refused(file: IO[bytes]) -> None:
    board = Board(file.fileno())
    with pytest.raises(ValueError, match=r"batch of 20 samples: got \d+ bytes of ids, allowed: less than 16777216"):
        board.write(Note("f", ("x" * 1_000_000,) * 20, 0.0, 0.0))
    assert board.read() == Note()


def test_seconds_of_the_same_samples_add_up(file: IO[bytes]) -> None:
    diary, reader = Diary(Board(file.fileno())), Board(file.fileno())
    for _ in range(2):
        diary.begin("flow", ["film"])
        time.sleep(0.05)
        diary.end()
        assert reader.read() == Note()
    diary.begin("flow", ["film"])
    note = reader.read()
    assert (note.feature, note.sample_ids) == ("flow", ("film",))
    assert note.used >= 0.1
    assert note.seconds >= note.used
    diary.end()
    diary.begin("cnn", ["film"])
    assert reader.read().used == 0


def test_what_a_dead_process_was_at_work_on_can_be_read(file: IO[bytes]) -> None:
    code = (
        "import os, signal, sys\n"
        "from pipeline.execute.board import Board, Note\n"
        "Board(int(sys.argv[1])).write(Note('flow', ('film',), 1.0, 0.0))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    reader = Board(file.fileno())
    command = [sys.executable, "-c", code, str(file.fileno())]
    assert subprocess.run(command, pass_fds=[file.fileno()], check=False).returncode < 0
    assert reader.read() == Note("flow", ("film",), 1.0, 0.0)
