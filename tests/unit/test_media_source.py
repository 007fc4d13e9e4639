import os

import fsspec
import pytest

from features.errors import Reason, SampleError
from pipeline.media.source import Source, looks_like


def refused(reason, text, call):
    with pytest.raises(SampleError, match=text) as caught:
        call()
    assert caught.value.reason is reason


def test_local_path_and_file_url_are_the_same_file(tmp_path):
    path = tmp_path / "ünï cödé .TXT"
    path.write_bytes(b"abc")
    for uri in (str(path), f"file://{path}"):
        source = Source(uri)
        assert source.local_path == path
        assert source.name == path.name
        assert source.suffix == ".txt"
        assert source.read_bytes(3) == b"abc"
        assert source.read_head(2) == b"ab"


def test_any_fsspec_url_is_read():
    with fsspec.open("memory://box/clip.wav", "wb") as file:
        file.write(b"12345")
    source = Source("memory://box/clip.wav")
    assert source.local_path is None
    assert source.name == "clip.wav"
    assert source.read_bytes(5) == b"12345"


def test_a_relative_path_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match=r"got 'a/b\.wav', allowed: an absolute path or a URL"):
        Source("a/b.wav")


def test_what_cannot_be_opened_says_why(tmp_path):
    refused(Reason.MISSING_FILE, "no such file; cure: restore", Source(str(tmp_path / "none.wav")).open)
    refused(Reason.MISSING_FILE, "no such file", Source("memory://box/none.wav").open)
    refused(Reason.UNREADABLE, "got a folder, allowed: a file", Source(str(tmp_path)).open)
    refused(Reason.UNREADABLE, "fsspec refuses", Source("nosuchprotocol://x/y.wav").open)
    (tmp_path / "empty.wav").touch()
    refused(Reason.EMPTY, "got 0 bytes", Source(str(tmp_path / "empty.wav")).open)


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    refused(Reason.UNREADABLE, "pipe or socket, allowed: a regular file", Source(str(tmp_path / "pipe.wav")).open)


def test_a_large_file_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "sparse.txt"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    refused(Reason.TOO_LARGE, "got 1099511627776 bytes, allowed: 1024", lambda: Source(str(path)).read_bytes(1024))


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\xff\xd8\xff\xe0", "a JPEG image"),
        (b"RIFF\0\0\0\0WAVE", "WAV audio"),
        (b"\0\0\0\x18ftypisom", "MP4 or QuickTime media"),
        (b"\n<!DOCTYPE html>", "an HTML page"),
        (b"hello there", "plain text"),
        (b"\x01\x02\x03\xf0", "unknown binary data"),
    ],
)
def test_looks_like(head, words):
    assert looks_like(head) == words
