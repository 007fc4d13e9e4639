"""Settings that would help."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pipeline.bench.result import Bench
from pipeline.catalog import Catalog
from pipeline.chain import Chain

PAYS_BACK = 60_000
"""Pictures after which a compiled network has saved what compiling it cost (measured: ten seconds, 36 % faster)."""


def advise(found: Bench, catalog: Catalog, dataset: str) -> Iterator[str]:
    """Settings that would help, the most useful first."""
    engine, top = catalog.engine, found.bottleneck
    kind, _, what = top.what.partition(" ")
    if kind == "decode":
        yield from _decoding(found, what)
    if kind == "extract":
        yield from _extracting(found, catalog.dataset(dataset).features.get(what), what)
    if kind == "write":
        yield f"writing takes {top.share:.0%}: put the store on a faster disk"
    if engine.workers != "auto" and engine.workers < found.cores and found.device == "cpu":
        yield f"engine.workers: {engine.workers} of {found.cores} cores are used; auto uses all"
    if found.figures["scaling"] < 0.7:
        yield (
            f"{found.workers} workers are only {found.figures['scaling'] * found.workers:.1f} times as fast as one: is "
            "the machine busy with other work, or its disk or memory at its limit?"
        )
    if found.figures["failed"] > 0.05:
        yield f"{found.failed} of {found.samples} samples failed: see gristmill quarantine {dataset} after a run"


def _decoding(found: Bench, stream: str) -> Iterator[str]:
    if found.device == "cuda":
        yield "decoding is what the GPU waits for: raise engine.decode_threads, or run more CPU cores beside each GPU"
    elif "video" in stream:
        yield (
            "decoding video takes most of the time: key frames alone (video.keyframes: {method: container}), a lower "
            "rate (fps) or more features of one pass cost next to nothing more; smaller frames decode faster"
        )
    else:
        yield f"decoding ({stream}) takes most of the time: more cores help; so do files of the size that is needed"


def _extracting(found: Bench, chain: Chain | None, name: str) -> Iterator[str]:
    options = getattr(chain, "extractor", None)
    if found.device == "cpu":
        precision = getattr(options, "precision", None)
        if precision == "float32" and _has_bfloat16():
            yield f"{name}: options: {{precision: bfloat16}} computes in half the width, which this processor can do"
        if getattr(options, "compile", None) is False:
            yield f"{name}: options: {{compile: true}} pays back after some {PAYS_BACK:,} pictures"
        if precision is not None:
            yield f"{name} takes most of the time; on a GPU (engine: {{device: cuda}}) it would not"
        else:
            yield f"{name} takes most of the time: more cores help, or a coarser rate (hop_length, fps, size)"
    else:
        size = getattr(options, "batch_size", None)
        yield f"{name} takes most of the time: a larger batch_size (now {size}) may fill the GPU better"


def _has_bfloat16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
