"""The one table of steps: name -> ``module:Class``. Anything else is named in the catalog as ``module:Class``.

Nothing is imported until it is asked for, and nothing registers itself: a worker process that imports only this
module knows every step.
"""

from __future__ import annotations

import importlib
from typing import Any

EXTRACTORS: dict[str, str] = {
    "audio.mfcc": "features.audio.mfcc:Mfcc",
    "image.cnn": "features.image.cnn:Cnn",
    "text.pretrained_vectors": "features.text.vectors:PretrainedVectors",
    "text.word2vec": "features.text.vectors:Word2Vec",
    "video.flow": "features.video.flow:Flow",
    "video.flow_field": "features.video.flow:FlowField",
    "video.keyframes": "features.video.keyframes:KeyframeScores",
    "video.temporal": "features.video.temporal:Temporal",
}

PREPARE: dict[str, str] = {
    "audio.denoise": "features.audio.denoise:Denoise",
    "image.denoise": "features.image.denoise:Denoise",
    "text.clean": "features.text.clean:Clean",
    "video.keyframes": "features.video.keyframes:Keyframes",
}

AUGMENT: dict[str, str] = {}


class UnknownStepError(LookupError):
    """No such step. ``known`` holds the names that exist."""

    def __init__(self, message: str, known: tuple[str, ...]) -> None:
        self.known = known
        super().__init__(message)


def resolve(name: str, table: dict[str, str]) -> type[Any]:
    """Return the step class that ``name`` means: an entry of ``table``, or ``module:Class``.

    Raises ``UnknownStepError`` when there is no such entry, module or class, or it is not a frozen dataclass.
    """
    target = name if ":" in name else table.get(name)
    if target is None:
        raise UnknownStepError(f"unknown step {name!r}", tuple(sorted(table)))
    module_name, _, class_name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name + ".").startswith(error.name + "."):
            raise UnknownStepError(f"{name!r}: no module named {error.name!r}", ()) from error
        raise
    step = getattr(module, class_name, None)
    if step is None:
        classes = tuple(sorted(key for key, value in vars(module).items() if isinstance(value, type)))
        raise UnknownStepError(f"{name!r}: module {module_name!r} has no class {class_name!r}", classes)
    parameters = getattr(step, "__dataclass_params__", None)
    if not (isinstance(step, type) and parameters is not None and parameters.frozen):
        message = f"{name!r}: a step must be a frozen dataclass (@dataclass(frozen=True, kw_only=True))"
        raise UnknownStepError(message, ())
    return step
