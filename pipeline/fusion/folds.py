"""Which samples train, stop and test: the splits as they are, a held-out share of training, or k-fold.

Windows of one file (``a.mp4@1.5``) stay together: what the network has seen of a file must not help it in testing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

from pipeline.fusion.data import FusionData, Split
from pipeline.fusion.options import TrainOptions

_WINDOW = re.compile(r"@[0-9.]+$")


def file_of(sample_id: str) -> str:
    """What a sample is a window of: its id without ``@start``."""
    return _WINDOW.sub("", sample_id)


def _place(sample_id: str, *salt: object) -> float:
    """A number in [0, 1) that follows from the file of a sample."""
    text = "\n".join(map(str, (*salt, file_of(sample_id))))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / 2**48


def held_out(data: FusionData, share: float, seed: int) -> FusionData:
    """Make ``share`` of the training split the validation split, where there is none."""
    if not share or "validation" in data.splits:
        return data
    return replace(
        data,
        splits=tuple(
            "validation" if split == "train" and _place(name, "validation", seed) < share else split
            for name, split in zip(data.sample_ids, data.splits, strict=True)
        ),
    )


def folds(data: FusionData, options: TrainOptions) -> Iterator[FusionData]:
    """The data, with the splits of each fold. Augmented views come into training only, and after their sample."""
    if not options.folds:
        yield held_out(data, options.validation, options.seed)
        return
    known = get_args(Split)
    view = [name == before for name, before in zip(data.sample_ids, ("", *data.sample_ids), strict=False)]
    share = options.validation or 1 / options.folds
    for fold in range(options.folds):
        splits = []
        for name, split, is_view in zip(data.sample_ids, data.splits, view, strict=True):
            tested = int(_place(name, "fold", options.seed) * options.folds) == fold
            stops = _place(name, "validation", options.seed, fold) < share
            if split not in known:
                splits.append(split)
            elif is_view:
                splits.append("left out" if tested or stops else "train")
            else:
                splits.append("test" if tested else "validation" if stops else "train")
        yield replace(data, splits=tuple(splits))
