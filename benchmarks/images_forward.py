"""The network of ``image.cnn`` by itself: batches, precisions, compiled or not, and beside OpenVINO where it is there.

    uv run python benchmarks/images_forward.py [--quick]
    uv run --no-dev --group peers python benchmarks/images_forward.py           # the same beside OpenVINO

One thread, CPU seconds, with the allocator set as for our workers. Vectors are compared with those of torch in float32.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from harness import emit, figure, with_allocator
from images import BATCH, bound, one_thread


def rate(work: Callable[[], object], count: int, seconds: float) -> float:
    """Pictures a second: the median of passes over ``count`` pictures, for so many seconds."""
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 3:
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return count / statistics.median(times)


def openvino_model(network: Any, batch: int, precision: str) -> Callable[[Any], object] | None:
    """The same network by OpenVINO, one thread; ``None`` where it is not installed."""
    try:
        import openvino
    except ImportError:
        return None
    import torch

    example = torch.zeros(batch, 224, 224, 3, dtype=torch.uint8)
    model = openvino.convert_model(network, example_input=example, input=[example.shape])
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    request = compiled.create_infer_request()
    return lambda pixels: request.infer([pixels.numpy()])[compiled.output(0)]


def forward(seconds: float, batches: Iterable[int]) -> None:
    """Batches, precisions, compiled or not, and OpenVINO; one thread, CPU seconds."""
    import torch

    one_thread()
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    wanted: dict[str, Any] = {}
    works: list[tuple[str, int, Callable[[Any], object]]] = [
        ("torch float32", batch, bound(batch_size=batch).network("cpu")) for batch in batches
    ]
    for precision in ("float32", "bfloat16"):
        for compile_it in (False, True):
            if (precision, compile_it) != ("float32", False):
                name = f"torch {precision}{', compiled' if compile_it else ''}"
                step = bound(precision=precision, compile=compile_it, batch_size=BATCH)
                works.append((name, BATCH, step.network("cpu")))
        theirs = openvino_model(bound().network("cpu"), BATCH, {"float32": "f32", "bfloat16": "bf16"}[precision])
        if theirs is not None:
            works.append((f"OpenVINO {precision}", BATCH, theirs))
    for name, batch, work in works:
        pixels = torch.from_numpy(rng.integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8))
        with torch.inference_mode():
            fixed = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8))
            found = np.asarray(work(fixed))[:1]
            wanted.setdefault("vector", found)
            cosine = float((found * wanted["vector"]).sum() / np.linalg.norm(found) / np.linalg.norm(wanted["vector"]))
            rows.append(
                {
                    "network": name,
                    "batch": batch,
                    "images / CPU s": rate(lambda work=work, pixels=pixels: work(pixels), batch, seconds),
                    "cosine": cosine,
                }
            )
    base = next(row["images / CPU s"] for row in rows if row["network"] == "torch float32" and row["batch"] == BATCH)
    for row in rows:
        row["ratio"] = row["images / CPU s"] / base
    rates = {row["network"]: row["images / CPU s"] for row in rows if row["batch"] == BATCH}
    measures = [
        figure(
            f"forward pass, {precision}: torch (the faster of eager and compiled) / OpenVINO",
            max(rates[f"torch {precision}"], rates[f"torch {precision}, compiled"]) / rates[f"OpenVINO {precision}"],
            0.7,
        )
        for precision in ("float32", "bfloat16")
        if f"OpenVINO {precision}" in rates
    ]
    emit(rows, measures=measures)


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with_allocator()
    forward(1.0 if options.quick else 4.0, (1, 4, 8, 16, 32, 64))


if __name__ == "__main__":
    main()
