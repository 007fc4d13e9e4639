"""Whole runs on an object store: a server that speaks S3 on loopback, with media and store both behind ``s3://``."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import fsspec
import pytest

from features.errors import StoreError
from pipeline.catalog import load_catalog
from pipeline.execute.ledger import FOLDER
from pipeline.run import STAGES, Run, plan_dataset, published
from pipeline.store import DatasetStore
from pipeline.store.gc import collect
from pipeline.store.lease import FILE, acquire
from pipeline.store.releases import create_release
from pipeline.store.verify import verify
from pipeline.train import train_dataset

if TYPE_CHECKING:
    from conftest import World

pytest.importorskip("s3fs", reason="the extra s3 is not installed")
pytest.importorskip("moto.server", reason="no S3 server for tests is installed")

BUCKET = "s3://mill"


class Server:
    """The object store, in a process of its own."""

    def __init__(self, address: str) -> None:
        self.address = address

    def lose(self, end: str) -> None:
        """Make the answer to the next put of a path that ends so get lost."""
        with urlopen(Request(f"{self.address}/lose", data=end.encode(), method="PUT")):
            pass

    @property
    def lost(self) -> int:
        """How many answers got lost."""
        with urlopen(f"{self.address}/lost") as answer:
            return int(answer.read())


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    command = [sys.executable, str(Path(__file__).with_name("s3_server.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield Server(f"http://127.0.0.1:{int(process.stdout.readline())}")
        process.terminate()


@pytest.fixture
def s3(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, empty but for a bucket; where it is and who asks is told by the environment alone."""
    for name, value in {
        "AWS_ENDPOINT_URL": server.address,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    fs = fsspec.filesystem("s3")
    fs.invalidate_cache()
    if fs.exists("mill"):
        fs.rm("mill", recursive=True)
    fs.mkdir("mill")
    server.lose("")
    return server


@pytest.fixture
def remote(world: World, s3: Server) -> World:
    """The small data set with its media and its store behind ``s3://``."""
    world.edit(world.catalog, "store: ./store", f"store: {BUCKET}/store")
    world.edit(world.catalog, "root: ./media", f"root: {BUCKET}/media")
    upload(world)
    return world


def upload(world: World) -> None:
    fs = fsspec.filesystem("s3")
    for file in world.media.rglob("*.*"):
        fs.pipe_file(f"mill/media/{file.relative_to(world.media)}", file.read_bytes())


def prepared(world: World) -> Run:
    """A run that has done everything but publish, without the lease that would keep others from it."""
    run = Run(load_catalog(world.catalog), "grain")
    for stage in STAGES[:-1]:
        getattr(run, stage)()
    return run


def values(world: World) -> list[dict[str, Any]]:
    table = published(load_catalog(world.catalog), "grain").read("aligned.brightness")
    rows: list[dict[str, Any]] = table.select(["sample_id", "start_ns", "valid", "values"]).to_pylist()
    return sorted(rows, key=lambda row: str(row["sample_id"]))


def test_a_data_set_lives_at_s3(remote: World) -> None:
    first = remote.run()
    assert first.published
    assert first.computed == 24
    second = remote.run()
    assert (second.computed, second.published) == (0, False)
    fsspec.filesystem("s3").pipe_file("mill/media/day/s01.srt", b"1\n00:00:00,000 --> 00:00:01,500\nother words\n")
    third = remote.run()
    assert {name: counts.done for name, counts in third.features.items()} == {"brightness": 0, "words": 1}
    assert plan_dataset(load_catalog(remote.catalog), "grain").planned.to_compute == 0
    snapshot = published(load_catalog(remote.catalog), "grain")
    assert snapshot.summary()["features"]["words"]["files"][0].startswith(f"{BUCKET}/store/grain/feature=words/shard-0")
    assert published(load_catalog(remote.catalog), "grain", first.snapshot).read("words") != snapshot.read("words")


def test_history_is_kept_checked_and_cleared_at_s3(remote: World) -> None:
    remote.run()
    store = DatasetStore(f"{BUCKET}/store", "grain")
    create_release(store, "first")
    for seed in (1, 2):
        remote.edit(remote.catalog, f"seed: {seed - 1}", f"seed: {seed}")
        remote.run()
    collected = collect(store, keep=1)
    assert (collected.removed, collected.kept) == ((2,), (1, 3))
    assert collected.bytes > 0
    with pytest.raises(StoreError, match="snapshot 2 was removed by gc"):
        store.snapshot(2)
    for version in (1, 3):
        kept = store.snapshot(version)
        assert kept is not None
        assert not verify(kept).faults
    assert remote.run().computed == 0


def test_rows_are_those_of_a_local_store(world: World, s3: Server) -> None:
    world.run()
    local = values(world)
    world.edit(world.catalog, "store: ./store", f"store: {BUCKET}/store")
    world.run()
    assert values(world) == local


def test_workers_of_dask_write_to_s3(remote: World) -> None:
    remote.edit(remote.catalog, "kind: serial", "kind: dask")
    assert remote.run().computed == 24
    assert remote.run().computed == 0


def test_models_are_kept_at_s3(remote: World) -> None:
    for i in range(12, 24):
        remote.add(i)
    upload(remote)
    text = remote.catalog.read_text()
    remote.catalog.write_text(f"{text}    train: {{epochs: 1, seeds: 1}}\n")
    remote.run()
    catalog = load_catalog(remote.catalog)
    trained = train_dataset(catalog, "grain")
    assert trained.fresh
    assert trained.path.startswith(f"{BUCKET}/store/grain/_models/1-")
    assert not train_dataset(catalog, "grain").fresh


def test_what_a_dead_run_finished_is_taken_from_the_ledger(remote: World) -> None:
    dead = prepared(remote)
    assert len(dead.store.fs.ls(dead.store.path(FOLDER))) == 6, "three shards extracted, and aligned"
    report = remote.run()
    assert report.resumed == report.computed == 24
    assert not dead.store.fs.exists(dead.store.path(FOLDER))


def test_of_two_that_publish_one_after_the_other_the_second_is_refused(remote: World) -> None:
    first, second = prepared(remote), prepared(remote)
    first.publish()
    with pytest.raises(StoreError, match="another run published snapshot 1 while this one worked on snapshot None"):
        second.publish()
    assert len(values(remote)) == 12


def test_of_two_that_publish_at_the_same_moment_one_wins(remote: World) -> None:
    remote.run()
    look = DatasetStore.snapshot
    for round_ in range(3):
        remote.edit(remote.catalog, f"seed: {round_}", f"seed: {round_ + 1}")
        runs = [prepared(remote) for _ in range(2)]
        both_have_looked = threading.Barrier(2)

        def look_and_wait(store: DatasetStore, version: int | None = None, barrier: Any = both_have_looked) -> Any:
            found = look(store, version)
            thread = threading.current_thread()
            if thread.name == "publisher":
                thread.name = "has looked"
                barrier.wait()
            return found

        said: list[str] = []

        def publish(run: Run, said: list[str] = said) -> None:
            try:
                run.publish()
                said.append("published")
            except StoreError as error:
                said.append(str(error))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DatasetStore, "snapshot", look_and_wait)
            threads = [threading.Thread(target=publish, args=(run,), name="publisher") for run in runs]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        winner, loser = sorted(said)
        assert winner == "published"
        assert "another run published at the same moment; nothing of this run was published" in loser
        assert len(values(remote)) == 12


def test_a_commit_whose_answer_is_lost_counts_once(remote: World, s3: Server) -> None:
    s3.lose("_delta_log/00000000000000000001.json")
    report = remote.run()
    assert s3.lost == 1
    assert report.published
    assert report.snapshot == 1
    assert remote.run().computed == 0


def test_one_writer_at_a_time(remote: World) -> None:
    catalog = load_catalog(remote.catalog)
    with Run(catalog, "grain"), pytest.raises(StoreError, match=r"another run \(run, pid .* is writing this data set"):
        remote.run()
    assert remote.run().published


def test_small_files_are_created_once_and_swapped(s3: Server) -> None:
    stores = [DatasetStore(f"{BUCKET}/store", "grain") for _ in range(4)]
    start = threading.Barrier(4)
    said: list[bool] = []

    def contend(store: DatasetStore, number: int) -> None:
        start.wait()
        said.append(store.create("entry.json", b"%d" % number))
        done = 0
        while done < 10:
            found = store.read("counter")
            if found is None:
                done += store.create("counter", b"1")
            else:
                done += store.swap("counter", b"%d" % (int(found.content) + 1), found.stamp)

    threads = [threading.Thread(target=contend, args=(store, i)) for i, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == [False, False, False, True]
    counted = stores[0].read("counter")
    assert counted is not None
    assert counted.content == b"40"
    assert not stores[0].swap("absent", b"", "stamp")


def test_a_lease_whose_answer_was_lost_is_held_all_the_same(s3: Server) -> None:
    store = DatasetStore(f"{BUCKET}/store", "grain")
    s3.lose(FILE)
    with acquire(store, "run") as held:
        held.check()
    assert s3.lost == 1


def test_a_bucket_that_is_not_there_is_told_before_anything_is_computed(remote: World) -> None:
    remote.edit(remote.catalog, f"store: {BUCKET}/store", "store: s3://nowhere/store")
    with pytest.raises(
        StoreError, match=r"nowhere/store/grain/_lease.json: cannot be written: .*bucket does not exist"
    ):
        remote.run()


def test_missing_credentials_are_told(tmp_path: Path, s3: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    fsspec.filesystem("s3").clear_instance_cache()
    with pytest.raises(
        StoreError, match=r"cannot be read: Unable to locate credentials; cure: .* credentials that the en"
    ):
        DatasetStore(f"{BUCKET}/store", "grain").snapshot()
    fsspec.filesystem("s3").clear_instance_cache()
