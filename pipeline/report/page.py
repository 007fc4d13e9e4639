"""The page of a run: one HTML file that needs nothing else, made from the templates beside this module."""

from __future__ import annotations

import posixpath
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.importing import importable
from pipeline.report import charts, facts
from pipeline.report.album import Album
from pipeline.report.material import Material
from pipeline.report.models import models
from pipeline.report.records import page_path
from pipeline.report.statistics import MOVED, Reader, binned, chosen_shards, drift, features_of

TEMPLATES = Path(__file__).parent / "templates"
PICTURE_SECONDS = (10.0, 60.0)
"""Pictures take a fifth of what the run took, within these bounds."""
_SHARE = 0.2
_SHOWN_CONSTANT = 12


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Templates with every value escaped; a name that is not there is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"when": facts.when, "number": lambda value: f"{value:,}", "bytes": in_bytes}
    made.filters |= {"beginning": facts.beginning, "ending": facts.ending}
    return made


def in_bytes(size: float) -> str:
    """A size for people: ``3.4 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def write_page(material: Material) -> str:
    """Make the page of a run and write it beside its record; return where it lies."""
    path = page_path(material.record.run_id)
    material.store.write_bytes(path, render(material).encode())
    return posixpath.join(material.store.url, path)


def render(material: Material) -> str:
    """The page of a run as HTML. What cannot be shown is named at its end; nothing of it raises.

    An unchanged run has a short page: no media are opened and no shard is read.
    """
    record, count = material.record, material.dataset.report.pictures
    low, high = PICTURE_SECONDS
    album = Album(min(high, max(low, _SHARE * facts.seconds_of(record))))
    failed = facts.quarantine(material)
    page: dict[str, Any] = {
        "record": record,
        "headline": facts.headline(record),
        "seconds": facts.seconds_of(record),
        "counts": facts.count_rows(record),
        "changes": facts.changes(material),
        "stages": facts.stages(record),
        "parts": facts.parts(material),
        "bottleneck": facts.bottleneck(record),
        "previous": material.previous,
        "comparison": facts.comparison(material),
        "trends": facts.trends(material),
        "quarantine": failed,
        "shown_failures": facts.SHOWN_FAILURES,
        "notices": record.notices[: facts.SHOWN_NOTICES],
        "more_notices": max(0, len(record.notices) - facts.SHOWN_NOTICES),
        "settings": yaml.safe_dump(record.settings, sort_keys=False, allow_unicode=True, width=100),
        "bytes": None if material.snapshot is None else sum(file.size for file in material.snapshot.files),
        "made_by": _maker(material),
        "moved": MOVED,
        "pictures": count,
        "faces": {},
        "images": None,
        "videos": None,
        "sounds": None,
        "texts": None,
        "alignment": None,
        "models": None,
    }
    with importable(material.catalog.folder):
        if count and record.status != "unchanged":
            page |= _faces(material, album, failed)
        page |= _of_snapshot(material, album, count)
    return environment().get_template("page.html").render(**page, missing=album.missing)


def _maker(material: Material) -> str | None:
    """The run that made the snapshot which an unchanged run leaves standing; ``None`` for other runs."""
    if material.record.status != "unchanged" or material.base is None:
        return None
    found: str = material.base.info["run_id"]
    return found


def _faces(material: Material, album: Album, failed: dict[str, Any]) -> dict[str, Any]:
    from pipeline.report.stills import faces

    return {"faces": album.attempt("samples in quarantine", partial(faces, material, album, failed["reasons"])) or {}}


def _of_snapshot(material: Material, album: Album, count: int) -> dict[str, Any]:
    """What is told of a snapshot that was published: numbers first, for pictures may run out of time."""
    found: dict[str, Any] = {"features": _features(material, album)}
    if material.snapshot is None:
        return found
    found["models"] = album.attempt("results of training", partial(models, material.store, material.snapshot.version))
    if not count:
        return found
    from pipeline.report.moving import videos
    from pipeline.report.sound import sounds
    from pipeline.report.stills import images, texts
    from pipeline.report.strips import alignment

    makers = {"texts": texts, "images": images, "sounds": sounds, "alignment": alignment, "videos": videos}
    for name, make in makers.items():
        found[name] = album.attempt(f"the section of {name}", partial(make, material, album, count))
    return found


def _features(material: Material, album: Album) -> list[dict[str, Any]]:
    """One row a feature: its distribution, and how far it moved since the snapshot before."""
    snapshot, reader, rows = material.snapshot, Reader(), []
    if snapshot is None:
        return []
    for name in features_of(snapshot, aligned=False):
        row = album.attempt(f"the distribution of {name}", partial(_feature, material, reader, name))
        if row is not None:
            rows.append(row)
    return rows


def _feature(material: Material, reader: Reader, name: str) -> dict[str, Any] | None:
    snapshot, base = material.snapshot, material.base
    if snapshot is None:
        return None
    shards = chosen_shards(snapshot, name)
    now = reader.distribution(snapshot, name, shards)
    if now is None:
        return None
    before = None if base is None else reader.distribution(base, name, shards)
    norms, norms_before, low, high = binned(now.norms, None if before is None else before.norms)
    return {
        "name": name,
        "now": now,
        "before": before,
        "drift": None if before is None else drift(now, before),
        "widths": None if before is None else (len(before.mean), len(now.mean)),
        "lengths": [int(value) for value in (now.lengths.min(), _median(now.lengths), now.lengths.max())],
        "constant": now.constant[:_SHOWN_CONSTANT].tolist(),
        "histogram": charts.histogram(norms, norms_before, f"norms of {name}"),
        "low": low,
        "high": high,
        "columns": charts.columns(now.mean, now.spread, f"mean and deviation of the columns of {name}"),
    }


def _median(lengths: Any) -> int:
    ordered = sorted(lengths.tolist())
    return int(ordered[len(ordered) // 2])
