"""Dask workers and a serial run publish the same bytes, the user's own steps included."""

from __future__ import annotations

import ctypes
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from conftest import SAMPLES
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from features.errors import GristmillError
from pipeline.catalog import Catalog, load_catalog
from pipeline.catalog.models import Engine as Settings
from pipeline.execute.cluster import IN_FLIGHT_PER_WORKER, Cluster
from pipeline.execute.engine import open_engine, resolve_device
from pipeline.run import published, run_dataset

if TYPE_CHECKING:
    from conftest import World


def test_dask_publishes_the_bytes_that_a_serial_run_publishes(world: World) -> None:
    (world.media / "day" / "s01.png").write_bytes(b"broken")
    catalog = load_catalog(world.catalog)
    serial = run_dataset(catalog, "grain", engine="serial")
    first = published(catalog, "grain")
    dask = run_dataset(catalog, "grain", engine="dask", from_nothing=True)
    second = published(catalog, "grain")
    assert serial.computed == dask.computed == 23
    assert serial.quarantine_by_reason == dask.quarantine_by_reason
    assert second.version > first.version
    for feature in ("brightness", "words", "aligned.brightness", "aligned.words"):
        assert {file.digest for file in first.files_of(feature)} == {file.digest for file in second.files_of(feature)}


def rows(world: World, catalog: Catalog) -> dict[tuple[str, str], tuple[bytes, ...]]:
    """(feature, sample) -> its numbers and digests."""
    snapshot = published(catalog, "grain")
    found = {}
    for feature in ("brightness", "words", "aligned.brightness", "aligned.words"):
        for row in snapshot.read(feature).to_pylist():
            parts = (row["values"], row["start_ns"], row["end_ns"], row["valid"])
            found[feature, row["sample_id"]] = (
                *(np.array(part).tobytes() for part in parts),
                row["content"],
                row["recipe"],
            )
    return found


def test_workers_shards_and_their_order_change_no_number_and_no_key(world: World) -> None:
    first = None
    for settings, size in (
        ("{kind: serial, device: cpu}", 4),
        ("{workers: 1, device: cpu}", 64),
        ("{workers: 4, device: cpu, decode_threads: 2}", 3),
        ("{kind: serial, device: cpu, decode_threads: 3}", 1),
    ):
        text = world.catalog.read_text()
        text = re.sub(r"engine: {.*}", f"engine: {settings}", text)
        world.catalog.write_text(re.sub(r"shard_samples: \d+", f"shard_samples: {size}", text))
        shutil.rmtree(world.folder / "store", ignore_errors=True)
        catalog = load_catalog(world.catalog)
        run_dataset(catalog, "grain")
        found = rows(world, catalog)
        first = first or found
        assert len(found) == 4 * SAMPLES
        assert found == first, settings


def certificates(folder: Path) -> None:
    """One authority that signed itself, which is everybody's certificate."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "ca.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A scheduler and two workers, started by themselves, on loopback with TLS."""
    folder = tmp_path / "tls"
    folder.mkdir()
    certificates(folder)
    tls = ["--tls-ca-file", "ca.pem", "--tls-cert", "ca.pem", "--tls-key", "key.pem"]
    quiet = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    python = [sys.executable, "-m"]
    there = ["--protocol", "tls", "--host", "127.0.0.1", "--port", "0"]
    known = folder / "scheduler.json"
    started = [
        subprocess.Popen(
            [*python, "distributed.cli.dask_scheduler", *tls, *there, "--no-dashboard", "--scheduler-file", str(known)],
            **quiet,  # type: ignore[call-overload]
        )
    ]
    try:
        while not (known.exists() and known.read_text().endswith("}")):
            assert started[0].poll() is None
            time.sleep(0.1)
        address = json.loads(known.read_text())["address"]
        worker = [*python, "distributed.cli.dask_worker", *tls, address, "--host", "127.0.0.1", "--nthreads", "1"]
        started += [
            subprocess.Popen([*worker, "--no-dashboard", "--resources", "MILL=1"], **quiet)  # type: ignore[call-overload]
            for _ in range(2)
        ]
        yield address, folder
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()


def test_a_cluster_that_runs_already_gives_the_same_rows_over_tls(
    world: World, scheduler: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = load_catalog(world.catalog)
    run_dataset(catalog, "grain", engine="serial")
    here = rows(world, catalog)
    address, folder = scheduler
    settings = f"{{scheduler: '{address}', resources: {{MILL: 1}}, device: cpu, memory: 3GiB"
    settings += f", tls: {{ca: {folder}/ca.pem, cert: {folder}/ca.pem, key: {folder}/key.pem}}}}"
    world.catalog.write_text(re.sub(r"engine: {.*}", f"engine: {settings}", world.catalog.read_text()))
    catalog = load_catalog(world.catalog)
    for _ in range(300):
        try:
            report = run_dataset(catalog, "grain", from_nothing=True)
            break
        except GristmillError as error:  # until the workers are there
            if "has no workers" not in str(error):
                raise
            time.sleep(0.2)
    assert report.computed == 24
    assert rows(world, catalog) == here
    monkeypatch.setattr("pipeline.execute.cluster.version", lambda library: "0.0")
    with pytest.raises(GristmillError, match=r"worker tls://\S+ has av .*, this machine has 0\.0; rows would not be"):
        run_dataset(catalog, "grain", from_nothing=True)


def test_no_more_than_a_window_of_work_is_made_before_it_is_needed(tmp_path: Path) -> None:
    made = 0

    def pieces(count: int) -> Iterator[Numbered]:
        nonlocal made
        for number in range(count):
            made += 1
            yield Numbered(number)

    with open_engine(Settings(workers=2, device="cpu"), "cpu", tmp_path) as engine:
        for finished, shard in enumerate(engine.map(shard_number, pieces(200))):
            assert shard < 200
            assert made - finished <= 2 * IN_FLIGHT_PER_WORKER + 1
    assert made == 200


def test_few_pieces_start_few_workers_under_the_limits_of_all(tmp_path: Path) -> None:
    settings = Settings(workers=3, device="cpu", memory=6 << 30)
    with open_engine(settings, "cpu", tmp_path, 1) as engine:
        assert isinstance(engine, Cluster)
        assert engine.workers == len(engine.client.scheduler_info(n_workers=-1)["workers"]) == 1
        assert engine.guard is not None
        assert engine.guard.memory == 2 << 30
        assert list(engine.map(shard_number, [Numbered(5)])) == [5]


@dataclass(frozen=True)
class Numbered:
    """Work of next to nothing."""

    shard: int
    roster: Mapping[str, Any] = field(default_factory=dict)


def shard_number(work: Numbered) -> int:
    return work.shard


def test_cuda_that_is_missing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(GristmillError, match="got 'cuda', but torch finds no CUDA device; allowed here: auto, cpu"):
        resolve_device("cuda")
    assert resolve_device("auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: name)  # a driver is there
    assert resolve_device("auto") == resolve_device("cuda") == "cuda"


def test_our_packages_are_the_ones_imported() -> None:
    import features
    import flows
    import pipeline

    root = Path(__file__).resolve().parents[2]
    for package in (features, pipeline, flows):
        assert Path(str(package.__file__)).parent.parent == root
