"""What a model says of samples: a table, and how it is told and written."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.errors import StoreError

if TYPE_CHECKING:
    import torch

SUFFIXES = (".csv", ".parquet", ".json")
_BETWEEN = "|"


@dataclass(frozen=True, kw_only=True)
class Output:
    """One thing that a model says, from columns of its logits.

    ``kind``: ``classes`` (softmax over ``labels``), ``labels`` (a sigmoid for each) or ``number`` (one column, of a
    number that was standardised by ``mean`` and ``scale``).
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    mean: float = 0.0
    scale: float = 1.0

    @property
    def width(self) -> int:
        """Columns of its logits."""
        return len(self.labels) or 1

    def columns(self, logits: torch.Tensor, prefix: str) -> dict[str, pa.Array]:
        """``predicted`` and, but for a number, ``p_<label>`` float32 for each label: its probability."""
        if self.kind == "number":
            numbers = logits[:, 0].double() * self.scale + self.mean
            return {f"{prefix}predicted": pa.array(numbers.numpy())}
        classes = self.kind == "classes"
        found = (logits.softmax(dim=1) if classes else logits.sigmoid()).numpy()
        if classes:
            said = [self.labels[k] for k in found.argmax(axis=1)]
        else:
            over = (logits > 0).tolist()
            said = [_BETWEEN.join(name for name, is_so in zip(self.labels, row, strict=True) if is_so) for row in over]
        each = {f"{prefix}p_{label}": pa.array(found[:, k]) for k, label in enumerate(self.labels)}
        return {f"{prefix}predicted": pa.array(said, pa.string()), **each}


def outputs_of(document: Mapping[str, Any]) -> tuple[Output, ...]:
    """What a training result's models say, in the order of their columns."""
    targets = document.get("targets")
    if targets is None:
        return (Output(name="label", kind="classes", labels=tuple(document["labels"])),)
    names = ("name", "kind", "mean", "scale")
    return tuple(Output(**{name: one[name] for name in names}, labels=tuple(one["labels"])) for one in targets)


def columns_of(outputs: Sequence[Output], logits: torch.Tensor) -> dict[str, pa.Array]:
    """The columns of all outputs; where there are several, their names come first: ``<name>.predicted``."""
    import torch

    found: dict[str, pa.Array] = {}
    for output, part in zip(outputs, torch.split(logits, [output.width for output in outputs], dim=1), strict=True):
        found |= output.columns(part, f"{output.name}." if len(outputs) > 1 else "")
    return found


@dataclass(frozen=True, kw_only=True)
class Used:
    """The model that was asked: where it lies, its name, and the data set and snapshot that it was trained on."""

    path: str
    name: str
    dataset: str
    snapshot: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions:
    """What a model says of samples. ``table``: see ``predict``; ``left_out``: why samples are not in it."""

    model: Used
    dataset: str
    snapshot: int
    table: pa.Table = field(repr=False)
    left_out: Mapping[str, int]
    notes: tuple[str, ...]
    classes: bool = True

    @property
    def right(self) -> tuple[int, int]:
        """How many of the samples that have a label were predicted right, and how many have one.

        Zeros where the model says something else than one of some classes.
        """
        if not self.classes:
            return 0, 0
        known = self.table.filter(pc.is_valid(self.table["label"]))
        return int(pc.sum(pc.equal(known["label"], known["predicted"])).as_py() or 0), len(known)

    @property
    def metadata(self) -> dict[str, Any]:
        """What was predicted, with what, and how many samples were left out and why."""
        right, known = self.right
        return {
            "gristmill": version("gristmill"),
            "dataset": self.dataset,
            "snapshot": self.snapshot,
            "model": asdict(self.model),
            "samples": {"in": len(self.table) + sum(self.left_out.values()), "predicted": len(self.table)},
            "left_out": dict(self.left_out),
            "labelled": known,
            "right": right,
            "notes": list(self.notes),
        }

    @property
    def lines(self) -> list[str]:
        """What to tell a person."""
        right, known = self.right
        said = [f"Model {self.model.name} of {self.model.path}"]
        said += [f"note: {note}" for note in self.notes]
        others = "".join(f" + {count:,} {reason}" for reason, count in self.left_out.items())
        total = len(self.table) + sum(self.left_out.values())
        said.append(f"{total:,} samples = {len(self.table):,} predicted{others}")
        if known:
            said.append(f"Of {known:,} that have a label, {right:,} are predicted so ({right / known:.1%})")
        return said

    def write(self, path: Path) -> None:
        """Write the table as its suffix says: .csv, .parquet, or .json (with the metadata).

        Raises ``StoreError`` for another suffix, or a place that cannot be written.
        """
        check_suffix(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.partial")
            if path.suffix == ".parquet":
                table = self.table.replace_schema_metadata({"gristmill": json.dumps(self.metadata)})
                pq.write_table(table, partial)
            elif path.suffix == ".csv":
                with partial.open("w", newline="", encoding="utf-8") as stream:
                    rows = csv.writer(stream)
                    rows.writerow(self.table.column_names)
                    rows.writerows(zip(*(column.to_pylist() for column in self.table.columns), strict=True))
            else:
                document = {**self.metadata, "predictions": self.table.to_pylist()}
                partial.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            partial.replace(path)
        except OSError as error:
            raise StoreError(f"{path}: cannot be written: {error}") from error


def check_suffix(path: Path) -> None:
    """Raise ``StoreError`` for a file that predictions are not written as."""
    if path.suffix not in SUFFIXES:
        raise StoreError(f"{path}: got {path.suffix or 'no suffix'!r}, allowed: {', '.join(SUFFIXES)}")
