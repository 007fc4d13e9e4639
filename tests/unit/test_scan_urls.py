"""The scan of roots behind a URL."""

from __future__ import annotations

from typing import Any

import fsspec
import pytest
from made_scan import data_set, folder, ids, reasons, table

from features.errors import CatalogError, Reason
from pipeline.scan import scan


@pytest.fixture
def memory() -> Any:
    fs = fsspec.filesystem("memory")
    fs.rm("/", recursive=True)
    yield fs
    fs.rm("/", recursive=True)


def test_folder_behind_a_url(memory: Any) -> None:
    memory.pipe(
        {"/b/media/a/x.mp4": b"12", "/b/media/a/x.srt": b"1", "/b/media/.h/y.wav": b"", "/b/media/store/z.wav": b""}
    )
    found = scan(data_set("memory://b/media", {"kind": "folder", "label_from": "folder"}, excluded=("store",)))
    (row,) = found.samples.to_pylist()
    assert (row["sample_id"], row["label"], row["video_size"]) == ("a/x", "a", 2)
    assert row["video_uri"] == row["audio_uri"] == "memory:///b/media/a/x.mp4"
    assert row["video_version"]
    with fsspec.open(row["text_uri"], "rb") as stream:
        assert stream.read() == b"1"
    assert "ignored 1 files and folders whose name begins with a dot" in found.notes
    before = row["video_version"]
    memory.pipe("/b/media/a/x.mp4", b"34")
    assert scan(data_set("memory://b/media", {"kind": "folder"})).samples["video_version"][0].as_py() != before


def test_manifest_behind_a_url(memory: Any) -> None:
    text = b"p\nd/x.mp4\ngone.mp4\nd\n"
    memory.pipe({"/b/m.csv": text, "/b/d/x.mp4": b"1", "/b/d/x.vtt": b"1"})
    found = table("memory://b", {"video": "p"}, siblings=True)
    assert ids(found) == ["d/x.mp4"]
    assert found.samples["text_uri"].to_pylist() == ["memory:///b/d/x.vtt"]
    assert reasons(found) == {
        "gone.mp4": (Reason.MISSING_FILE, "m.csv:3: gone.mp4: file is not there (root memory://b)"),
        "d": (Reason.UNREADABLE, "m.csv:4: d: a folder, allowed: a file"),
    }


def test_url_with_nothing_behind_it(memory: Any) -> None:
    with pytest.raises(CatalogError, match=r"^clips: no media files below memory://nope; cure: put media there"):
        folder("memory://nope")
    with pytest.raises(
        CatalogError, match=r"^clips: m\.csv below memory://nope cannot be read: .*; cure: correct path"
    ):
        table("memory://nope", {"video": "p"})


def test_file_system_that_cannot_tell_a_change(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/b/x.wav", b"1")
    monkeypatch.setattr("pipeline.scan.listing._VERSION_KEYS", ())
    with pytest.raises(
        CatalogError, match=r"^root: memory:///b/x\.wav has neither etag nor time of change, or no size, "
    ):
        folder("memory://b")


def test_store_behind_a_url_that_refuses(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Forbidden")

    memory.pipe("/b/m.csv", b"p\nx.wav\n")
    monkeypatch.setattr(type(memory), "ls", refuse)
    with pytest.raises(
        CatalogError, match=r"^root: memory://b/ cannot be listed: .*Forbidden; cure: check the URL and "
    ):
        table("memory://b", {"audio": "p"})
    monkeypatch.setattr(type(memory), "find", refuse)
    with pytest.raises(
        CatalogError, match=r"^root: memory://b cannot be listed: .*Forbidden; cure: check the URL and its"
    ):
        folder("memory://b")
