"""The one table of steps: name -> ``module:Class``. Anything else is named in the catalog as ``module:Class``.

Nothing is imported until it is asked for, and nothing registers itself: a worker process that imports only this
module knows every step.
"""

from __future__ import annotations

import importlib
from typing import Any

EXTRACTORS: dict[str, str] = {
    "align.spatial": "features.align.spatial:Spatial",
    "audio.chroma": "features.audio.spectrogram:Chroma",
    "audio.cnn": "features.audio.cnn:Cnn",
    "audio.mel": "features.audio.mel:Mel",
    "audio.mfcc": "features.audio.mfcc:Mfcc",
    "audio.prosody": "features.audio.prosody:Prosody",
    "audio.stft": "features.audio.spectrogram:Stft",
    "image.cnn": "features.image.cnn:Cnn",
    "image.histogram": "features.image.histogram:Histogram",
    "image.hog": "features.image.hog:Hog",
    "image.pixels": "features.image.pixels:Pixels",
    "image.quality": "features.image.quality:Quality",
    "image.standardized_pixels": "features.image.pixels:StandardizedPixels",
    "text.bow": "features.text.bag:Bow",
    "text.class_probabilities": "features.text.classify:ClassProbabilities",
    "text.pretrained_vectors": "features.text.vectors:PretrainedVectors",
    "text.tfidf": "features.text.bag:Tfidf",
    "text.transformer": "features.text.transformer:Transformer",
    "text.word2vec": "features.text.vectors:Word2Vec",
    "video.flow": "features.video.flow:Flow",
    "video.flow_field": "features.video.flow:FlowField",
    "video.keyframes": "features.video.keyframes:KeyframeScores",
    "video.temporal": "features.video.temporal:Temporal",
}

PREPARE: dict[str, str] = {
    "audio.channels": "features.audio.channels:Channels",
    "audio.denoise": "features.audio.denoise:Denoise",
    "audio.normalize": "features.audio.normalize:Normalize",
    "audio.trim": "features.audio.trim:Trim",
    "image.check": "features.image.quality:Check",
    "image.crop": "features.image.geometry:Crop",
    "image.denoise": "features.image.denoise:Denoise",
    "image.pad": "features.image.geometry:Pad",
    "image.resize": "features.image.geometry:Resize",
    "text.clean": "features.text.clean:Clean",
    "text.tokens": "features.text.tokens:Tokens",
    "video.keyframes": "features.video.keyframes:Keyframes",
}

AUGMENT: dict[str, str] = {
    "audio.augment": "features.audio.augment:Augment",
    "image.augment": "features.image.augment:Augmentation",
    "text.augment": "features.text.augment:Eda",
}


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
