"""Whether this machine can do what a catalog asks for: one finding for each thing that a run rests on.

Nothing is fetched, computed for keeps or published: the store is read, and a few bytes are written and removed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from features.base import WeightsRef
from features.errors import CatalogError, GristmillError, Reason
from pipeline.catalog import Catalog, DataSet, load_catalog
from pipeline.events import SILENT, Events
from pipeline.store.shard import VIEWS_PREFIX

LEAST_DISK = 1 << 30
"""Free bytes below which a store is called full."""
GOLDEN_SAMPLES = 8
"""Made samples besides the two that the corpus breaks on purpose; vectors are fitted to their words."""
DECODERS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mjpeg", "aac", "mp3", "opus", "vorbis", "flac", "pcm_s16le")
_JUDGED = (Reason.LOW_QUALITY, Reason.SILENT)
"""What a step may rightly say of a made sample."""
_INSTALL = "install Gristmill again with its dependencies: pip install --force-reinstall gristmill"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at: its name, whether it is as it should be, what was found, and the cure if not."""

    name: str
    ok: bool
    found: str
    cure: str = ""

    def as_json(self) -> dict[str, Any]:
        """The finding as a JSON document."""
        return asdict(self)


class _IllError(Exception):
    """Something is not as it should be."""

    def __init__(self, found: str, cure: str) -> None:
        self.found, self.cure = found, cure
        super().__init__(found)


def examine(path: Path, *, golden: bool = True, events: Events = SILENT) -> Iterator[Finding]:
    """Look at everything, one finding after the other. Raises nothing of its own: what is wrong is a finding.

    ``golden``: also send a made sample through every feature that the catalog configures, which takes most of the time.
    """
    yield _look("codecs", codecs, _INSTALL)
    yield _look("torch", torch_pair, "install versions that belong together: pip install --upgrade torch torchvision")
    try:
        catalog = load_catalog(path)
    except CatalogError as error:
        yield Finding(name="catalog", ok=False, found=str(error), cure="correct it; keys are told in docs/catalog.md")
        return
    datasets = _count(len(catalog.datasets), "data set")
    features = _count(sum(len(dataset.features) for dataset in catalog.datasets.values()), "feature")
    yield Finding(name="catalog", ok=True, found=f"{datasets}, {features}")
    yield _look("device", lambda: device(catalog), "engine.device: auto")
    if catalog.engine.video_decoder == "nvdec":
        yield _look("video decoder", nvdec, "engine.video_decoder: software")
    yield _look("memory", lambda: memory(catalog), "fewer engine.workers, or more engine.memory")
    yield _look("disk", lambda: disk(catalog), "make room, or move the store")
    yield _look("store", lambda: writable(catalog), "check that the store's address and rights are right")
    if catalog.on_failure:
        yield _look("on_failure", lambda: hook(catalog), "correct the command, and make it executable")
    for name, dataset in catalog.datasets.items():
        yield _look(f"{name}: media", partial(media, dataset), "check the path, and that the disk is mounted")
        yield _look(f"{name}: store", partial(health, catalog, name), f"gristmill verify {name}")
        whole = True
        for finding in _weights(catalog, dataset):
            whole = whole and finding.ok
            yield finding
        if golden and whole:
            yield from _golden(catalog, dataset, events)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _look(name: str, look: Callable[[], str], cure: str) -> Finding:
    try:
        return Finding(name=name, ok=True, found=look())
    except _IllError as ill:
        return Finding(name=name, ok=False, found=ill.found, cure=ill.cure)
    except GristmillError as error:
        found, _, told = str(error).rpartition("; cure: ")
        return Finding(name=name, ok=False, found=found or told, cure=told if found else cure)
    except Exception as error:  # noqa: BLE001  # whatever it is, it is what a doctor is asked for
        return Finding(name=name, ok=False, found=f"{type(error).__name__}: {error}", cure=cure)


def codecs() -> str:
    """Decoders of the usual formats are there, and pictures can be written and read."""
    import av
    import cv2
    import numpy as np
    import soundfile

    missing = [name for name in DECODERS if name not in av.codecs_available]
    if missing:
        raise _IllError(f"PyAV {av.__version__} cannot decode {', '.join(missing)}", "pip install --upgrade av")
    for extension in (".jpg", ".png", ".webp", ".tiff"):
        written, content = cv2.imencode(extension, np.zeros((8, 8, 3), np.uint8))
        if not written or cv2.imdecode(content, cv2.IMREAD_COLOR) is None:
            raise _IllError(f"OpenCV {cv2.__version__} cannot read {extension}", "pip install --upgrade opencv-python")
    sounds = soundfile.available_formats()
    absent = [name for name in ("WAV", "FLAC", "OGG", "MP3") if name not in sounds]
    if absent:
        raise _IllError(f"libsndfile cannot read {', '.join(absent)}", "pip install --upgrade soundfile")
    return f"{len(DECODERS)} decoders of PyAV {av.__version__}, pictures by OpenCV, {len(sounds)} formats of soundfile"


def torch_pair() -> str:
    """Torch and torchvision were built for each other: an operator of torchvision's own runs."""
    import torch
    import torchvision

    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    try:
        kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8]), 0.5)
    except (RuntimeError, AttributeError) as error:
        told = str(error).partition("\n")[0]
        raise _IllError(
            f"{versions} do not belong together ({told})", "pip install --upgrade torch torchvision"
        ) from None
    if kept.tolist() != [0]:
        raise _IllError(f"{versions}: operators give wrong results", "pip install --upgrade torch torchvision")
    return versions


def device(catalog: Catalog) -> str:
    """What the catalog's device means here."""
    import torch

    from pipeline.execute.engine import cores, resolve_device

    found = resolve_device(catalog.engine.device)
    if found == "cuda":
        torch.zeros(1, device="cuda").add_(1).item()
        return f"cuda: {torch.cuda.device_count()} of {torch.cuda.get_device_name(0)}"
    return f"{found}, {cores()} cores"


def nvdec() -> str:
    """A GPU of this machine decodes video."""
    from pipeline.execute.engine import check_decoder
    from pipeline.media.hardware import missing

    check_decoder(missing())
    return "a GPU decodes video, where it gives the same frames as software"


def memory(catalog: Catalog) -> str:
    """Each worker has the memory that it needs."""
    import psutil

    from pipeline.execute.engine import cores

    settings = catalog.engine
    if settings.scheduler is not None:
        return f"is that of the workers of {settings.scheduler}"
    workers = 1 if settings.kind == "serial" else cores() if settings.workers == "auto" else settings.workers
    free = psutil.virtual_memory().available
    wanted = 0 if settings.memory == "auto" else int(settings.memory)
    if free < workers << 30 or wanted > psutil.virtual_memory().total:
        raise _IllError(
            f"{free / 2**30:.1f} GiB free for {_count(workers, 'worker')}, at least 1 GiB each is needed",
            "fewer engine.workers, or end what else takes memory",
        )
    return f"{free / 2**30:.1f} GiB free for {_count(workers, 'worker')}"


def disk(catalog: Catalog) -> str:
    """There is room for the store, and for temporary files."""
    places = {"temporary files": tempfile.gettempdir()}
    if "://" not in catalog.store:
        places["the store"] = str(_existing(Path(catalog.store)))
    found = {what: shutil.disk_usage(place).free for what, place in places.items()}
    for what, free in found.items():
        if free < LEAST_DISK:
            raise _IllError(f"{free / 2**30:.2f} GiB free for {what} ({places[what]})", "gristmill gc, or more room")
    return ", ".join(f"{free / 2**30:.1f} GiB free for {what}" for what, free in found.items())


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def writable(catalog: Catalog) -> str:
    """The store takes a file, gives it back, refuses to replace it unasked, and removes it."""
    from uuid import uuid4

    from pipeline.store import DatasetStore

    store = DatasetStore(catalog.store, f"_doctor-{uuid4().hex[:8]}")
    try:
        if not store.create("probe", b"probe") or store.create("probe", b"other"):
            raise _IllError(f"{catalog.store} replaces a file that is there", "a store with conditional puts")
        found = store.read("probe")
        if found is None or found.content != b"probe":
            raise _IllError(f"{catalog.store} does not give back what was written", "another disk or bucket")
    finally:
        if store.fs.exists(store.root):
            store.fs.rm(store.root, recursive=True)
    return f"{catalog.store} can be written"


def hook(catalog: Catalog) -> str:
    """The command of ``on_failure`` can be started."""
    name = catalog.on_failure[0]
    found = shutil.which(catalog.folder / name if "/" in name else name)
    if found is None:
        raise _IllError(f"{name} is no command", "correct on_failure, or chmod +x it")
    return found


def media(dataset: DataSet) -> str:
    """The samples can be listed."""
    from pipeline.scan import scan

    found = scan(dataset)
    rejected = f", {len(found.rejected)} that cannot be samples" if found.rejected else ""
    if not len(found.samples):
        raise _IllError(f"no sample in {dataset.root}{rejected}", "check root and source of the catalog")
    return f"{len(found.samples)} samples in {dataset.root}{rejected}"


def health(catalog: Catalog, name: str) -> str:
    """Every file of the last snapshot is there with the size that the log says, and nobody died over it."""
    from pipeline.report.records import list_runs
    from pipeline.store import DatasetStore
    from pipeline.store.lease import holder

    store = DatasetStore(catalog.store, name)
    snapshot = store.snapshot()
    if snapshot is None:
        return "no snapshot yet"
    lost = []
    for file in snapshot.files:
        path = store.path(file.path)
        if not store.fs.exists(path) or store.fs.size(path) != file.size:
            lost.append(file.path)
    if lost:
        raise _IllError(
            f"snapshot {snapshot.version}: {len(lost)} of {len(snapshot.files)} files are missing or cut short, "
            f"such as {lost[0]}",
            f"gristmill verify {name}; then restore them from a backup, or gristmill rebuild {name}",
        )
    said = f"snapshot {snapshot.version}, {len(snapshot.files)} files whole in size"
    writer = holder(store)
    if writer is not None:
        return f"{said}; at work now: {writer}"
    last = list_runs(store, 1)
    if last and last[0].status == "crashed":
        return f"{said}; the last run was killed, and the next one goes on where it was"
    return said


def _weights(catalog: Catalog, dataset: DataSet) -> Iterator[Finding]:
    """Each file of weights and data of NLTK that a feature names is there."""
    from pipeline.state import weights_refs

    for name, chain in dataset.features.items():
        if name.startswith(VIEWS_PREFIX):
            continue
        for ref in weights_refs(chain):
            what = "NLTK data" if ref.kind == "nltk" else "weights"
            yield _look(
                f"{dataset.name}: {what} of {name}",
                partial(_lies, ref, catalog.folder),
                "put them where they are named",
            )


def _lies(ref: WeightsRef, folder: Path) -> str:
    from pipeline.weights import nltk_folders, resolve

    if ref.kind == "nltk":
        return ", ".join(str(path) for path in nltk_folders(ref.locator).values())
    return str(resolve(ref, folder, fetch=False))


def _golden(catalog: Catalog, dataset: DataSet, events: Events) -> Iterator[Finding]:
    """A made sample goes through each feature, from the file to the stored row, in a store that is thrown away."""
    from pipeline.catalog.models import FolderSource, Splits
    from pipeline.demo import write_corpus

    with tempfile.TemporaryDirectory(prefix="gristmill-doctor-") as folder:
        corpus = write_corpus(Path(folder), samples=GOLDEN_SAMPLES)
        engine = catalog.engine.model_copy(update={"kind": "serial", "scheduler": None})
        for name, chain in dataset.features.items():
            if name.startswith(VIEWS_PREFIX):
                continue
            alone = replace(
                dataset,
                root=str(corpus.folder / "media"),
                source=FolderSource(kind="folder"),
                splits=Splits(train=1.0, validation=0.0, test=0.0),
                features={name: chain},
                align=None,
                view_splits={},
                max_failed=1.0,
                excluded=(),
                report=dataset.report.model_copy(update={"pictures": 0}),
            )
            trial = replace(
                catalog,
                store=str(Path(folder) / "store"),
                engine=engine,
                datasets={dataset.name: alone},
                metrics=None,
                on_failure=(),
            )
            yield _look(
                f"{dataset.name}: {name}",
                partial(_through, trial, name, corpus.broken, events),
                f"try it on your own data: gristmill run {dataset.name} --feature {name} --sample 'ONE'",
            )


def _through(trial: Catalog, name: str, broken: tuple[str, ...], events: Events) -> str:
    from pipeline.run import published, run_dataset

    dataset = next(iter(trial.datasets))
    report = run_dataset(trial, dataset, events=events)
    found = published(trial, dataset, None)
    failed = [row for row in found.quarantine.to_pylist() if row["sample_id"] not in broken]
    rows = report.features[name].done
    faults = [row for row in failed if row["reason"] not in _JUDGED]
    if faults or not rows:
        first = (faults or failed or [{"reason": "no row came out", "message": ""}])[0]
        raise _IllError(f"a made sample fails: {first['reason']}: {first['message']}", "what the message names")
    judged = f"; {len(failed)} refused by the feature's own checks" if failed else ""
    return f"{rows} made samples stored and read, {found.info['dims'][name]} columns{judged}"
