"""A ``Case`` for every registered step, and what its checks have in common."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from made_media import audio, framed_by_silence, image, no_frames, pan, scene, text, timed_image, video

from features.base import Example, Extractor
from features.registry import EXTRACTORS, resolve
from features.time import Span
from features.types import AudioClip, FeatureSequence, Image, Media, Text, VideoClip


def fitted(step: Any) -> dict[str, Any]:
    found: dict[str, Any] = step.fit([Example(text(seed), str(seed % 2)) for seed in range(3)])
    return found


def fitted_on_pictures(step: Any) -> dict[str, Any]:
    found: dict[str, Any] = step.fit([Example(image(seed)) for seed in range(3)])
    return found


def tiny_vectors(step: Any) -> dict[str, Any]:
    from features.text.vector_files import parse_vectors

    return dict(parse_vectors(b"the 1 2 3\nmill -4 5 6.5\nrye 0 0 1\n"))


def tiny_transformer(step: Any) -> dict[str, Any]:
    """A model of two layers with random weights, and a vocabulary of whole words."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "mill", "ground", "wheat", "and", "rye"]
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    config = BertConfig(
        vocab_size=len(words), hidden_size=step.vector_size, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tensors = BertModel(config).state_dict()
    files = {"config.json": json.dumps(config.to_dict()).encode(), "tokenizer.json": tokenizer.to_str().encode()}
    return {"files": files, "tensors": tensors}


def random_resnet(step: Any) -> dict[str, Any]:
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found: dict[str, Any] = torchvision.models.get_model(step.model, weights=None).state_dict()
    return found


def random_small_cnn(step: Any) -> dict[str, Any]:
    from features.audio.networks import SmallCnn

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found: dict[str, Any] = SmallCnn(step.num_classes).state_dict()
    return found


@dataclass(frozen=True, kw_only=True)
class Case:
    """How one step is tried out.

    ``sample`` makes a medium from a seed and a start on the clock; ``least`` is the smallest one, and how many rows it
    gives; ``other`` are options that differ; ``state`` makes what the step must be bound to, ``reference`` what it
    compares with. ``batch_atol`` and ``device_atol``: how far rows may differ with the batch, and between CPU and CUDA.
    ``keeps``: what of a medium besides its kind a prepare step keeps, where that is not everything but its content.
    ``passes``: it refuses media or lets them pass as they are.
    """

    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    other: dict[str, Any]
    sample: Callable[..., Media]
    least: tuple[Media, int]
    state: Callable[[Any], dict[str, Any]] | None = None
    reference: Callable[[], Media] | None = None
    batch_atol: float = 0.0
    device_atol: float = 1e-4
    keeps: Callable[[Any], Any] | None = None
    passes: bool = False


SILENCE = AudioClip(samples=np.zeros((1, 0), np.float32), sample_rate=16_000)
PIXEL = Image(pixels=np.full((1, 1, 3), 7, np.uint8))

EXTRACTOR: dict[str, Case] = {
    "align.spatial": Case(
        options={"max_keypoints": 100},
        other={"keypoints": "orb"},
        sample=pan,
        least=(no_frames(), 0),
        reference=lambda: Image(pixels=scene()[15:95, 20:120, None].repeat(3, axis=2)),
    ),
    "audio.chroma": Case(other={"tuning": 0.1}, sample=audio, least=(SILENCE, 0)),
    "audio.cnn": Case(
        options={"model": "small", "weights": "file:s.pth", "num_classes": 4, "patch_frames": 20, "patch_hop": 10},
        other={"model": "small", "weights": "file:t.pth", "num_classes": 4},
        sample=audio,
        least=(SILENCE, 0),
        state=random_small_cnn,
        batch_atol=1e-5,
        device_atol=1e-3,
    ),
    "audio.mel": Case(other={"n_mels": 64}, sample=audio, least=(SILENCE, 0)),
    "audio.mfcc": Case(
        options={"n_mfcc": 13}, other={"n_mfcc": 14}, sample=audio, least=(SILENCE, 0), device_atol=2e-3
    ),
    "audio.prosody": Case(other={"rolloff": 0.9}, sample=audio, least=(SILENCE, 0)),
    "audio.stft": Case(other={"scale": "power"}, sample=audio, least=(SILENCE, 0)),
    "image.cnn": Case(
        options={"model": "resnet18", "image_size": 64},
        other={"model": "resnet18", "image_size": 96},
        sample=timed_image,
        least=(PIXEL, 1),
        state=random_resnet,
        device_atol=1e-3,
    ),
    "text.bow": Case(options={"size": 9}, other={"size": 8}, sample=text, least=(Text(()), 0), state=fitted),
    "text.class_probabilities": Case(
        options={"classes": ("0", "1")},
        other={"classes": ("1", "0")},
        sample=text,
        least=(Text(()), 0),
        state=fitted,
    ),
    "image.histogram": Case(other={"space": "gray"}, sample=timed_image, least=(PIXEL, 1)),
    "image.hog": Case(other={"orientations": 4}, sample=timed_image, least=(PIXEL, 1)),
    "image.pixels": Case(other={"range": "signed"}, sample=timed_image, least=(PIXEL, 1)),
    "image.quality": Case(other={"long_side": 32}, sample=timed_image, least=(PIXEL, 1)),
    "image.standardized_pixels": Case(
        other={"per": "pixel"}, sample=timed_image, least=(PIXEL, 1), state=fitted_on_pictures
    ),
    "text.pretrained_vectors": Case(
        options={"path": "v.vec", "vector_size": 3},
        other={"path": "w.vec", "vector_size": 3},
        sample=text,
        least=(Text(()), 0),
        state=tiny_vectors,
        batch_atol=1e-6,
    ),
    "text.tfidf": Case(options={"size": 9}, other={"size": 8}, sample=text, least=(Text(()), 0), state=fitted),
    "text.transformer": Case(
        options={"model": "m", "vector_size": 8, "max_tokens": 12},
        other={"model": "m", "vector_size": 8, "max_tokens": 16},
        sample=text,
        least=(Text(()), 0),
        state=tiny_transformer,
        batch_atol=1e-6,
    ),
    "text.word2vec": Case(
        options={"vector_size": 8, "epochs": 2},
        other={"vector_size": 8, "epochs": 3},
        sample=text,
        least=(Text(()), 0),
        state=fitted,
        batch_atol=1e-6,
    ),
    "video.flow": Case(other={"bins": 4}, sample=video(()), least=(no_frames(), 0)),
    "video.flow_field": Case(other={"rows": 4}, sample=video(()), least=(no_frames(), 0)),
    "video.keyframes": Case(other={"min_gap": 0.2}, sample=video((3,)), least=(no_frames(3), 0)),
    "video.temporal": Case(
        options={"model": "resnet18", "image_size": 32, "window": 0.8, "hop": 0.4},
        other={"model": "resnet18", "hop": 0.5},
        sample=video((3,)),
        least=(no_frames(3), 0),
        state=random_resnet,
        batch_atol=1e-4,
        device_atol=1e-3,
    ),
}

PREPARING: dict[str, Case] = {
    "audio.channels": Case(
        other={"policy": "first"}, sample=audio, least=(SILENCE, 0), keeps=lambda clip: (clip.sample_rate, clip.span)
    ),
    "audio.denoise": Case(other={"method": "spectral_gate"}, sample=audio, least=(SILENCE, 0), batch_atol=1e-6),
    "audio.normalize": Case(other={"method": "peak"}, sample=audio, least=(SILENCE, 0)),
    "audio.trim": Case(
        other={"top_db": 40.0}, sample=framed_by_silence, least=(SILENCE, 0), keeps=lambda clip: clip.sample_rate
    ),
    "image.check": Case(
        options={"max_luma": 0.9}, other={"min_side": 1}, sample=timed_image, least=(PIXEL, 1), passes=True
    ),
    "image.crop": Case(
        options={"width": 1, "height": 1},
        other={"width": 1, "height": 2},
        sample=timed_image,
        least=(PIXEL, 1),
        keeps=lambda picture: picture.span,
    ),
    "image.denoise": Case(other={"method": "median"}, sample=timed_image, least=(PIXEL, 1)),
    "image.pad": Case(other={"fill": "edge"}, sample=timed_image, least=(PIXEL, 1), keeps=lambda picture: picture.span),
    "image.resize": Case(
        options={"short_side": 24},
        other={"long_side": 24},
        sample=timed_image,
        least=(PIXEL, 1),
        keeps=lambda picture: picture.span,
    ),
    "text.clean": Case(other={"lowercase": False}, sample=text, least=(Text(()), 0)),
    "text.tokens": Case(
        options={"tokenizer": "regexp", "stem": "snowball"}, other={"stem": "porter"}, sample=text, least=(Text(()), 0)
    ),
    "video.keyframes": Case(other={"method": "uniform"}, sample=video((3,)), least=(no_frames(3), 0)),
}

AUGMENTING: dict[str, Case] = {
    "audio.augment": Case(
        options={"speed": 0.1, "noise": "pink"}, other={"gain_db": 3.0}, sample=audio, least=(SILENCE, 0)
    ),
    "text.augment": Case(
        options={"synonyms": "vectors", "path": "v.vec", "stop_words": "none", "min_similarity": -1.0},
        other={"alpha_sr": 0.2},
        sample=text,
        least=(Text(()), 0),
        state=tiny_vectors,
    ),
    "image.augment": Case(
        options={
            "crop": (0.5, 1.0),
            "flip_horizontal": 0.5,
            "flip_vertical": 0.5,
            "rotate": 15.0,
            "scale": (0.8, 1.25),
            "brightness": 0.2,
            "contrast": 0.2,
            "saturation": 0.2,
            "hue": 0.05,
            "blur": 1.5,
            "noise": 8.0,
            "erase": 0.5,
        },
        other={"rotate": 20.0},
        sample=timed_image,
        least=(PIXEL, 1),
    ),
}

extractors = pytest.mark.parametrize("name", sorted(EXTRACTORS))


def make(name: str, table: dict[str, str], cases: dict[str, Case]) -> Any:
    assert name in cases, f"{name}: no sample in tests/contract/cases.py; cure: add a Case for it"
    return resolve(name, table)(**cases[name].options)


@lru_cache(maxsize=32)
def ready(name: str) -> Extractor:
    """The extractor ``name`` with its state."""
    step, case = make(name, EXTRACTORS, EXTRACTOR), EXTRACTOR[name]
    found: Extractor = step if case.state is None else step.with_state(case.state(step))
    return found if case.reference is None else step.with_reference(case.reference())


def arrays(medium: Any) -> list[Any]:
    """Everything a medium is made of, in order."""
    return [getattr(medium, part.name) for part in dataclasses.fields(medium)]


def same(one: Any, other: Any) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(arrays(one), arrays(other), strict=True))


def span(medium: Any) -> Span:
    if isinstance(medium, Text):
        return Span(medium.segments[0].span.start_ns, medium.segments[-1].span.end_ns)
    if isinstance(medium, VideoClip):
        return Span(int(medium.start_ns[0]), int(medium.end_ns[-1]))
    found: Span = medium.span
    return found


def raw(found: FeatureSequence) -> tuple[bytes, ...]:
    return tuple(part.tobytes() for part in arrays(found))


def assert_close(one: FeatureSequence, other: FeatureSequence, atol: float) -> None:
    np.testing.assert_array_equal(one.start_ns, other.start_ns)
    np.testing.assert_array_equal(one.end_ns, other.end_ns)
    np.testing.assert_array_equal(one.valid, other.valid)
    np.testing.assert_allclose(one.values, other.values, atol=atol, rtol=0)


CUTS = pytest.mark.parametrize("size", [1, 2, 5, 1000])


def chunks(clip: VideoClip, size: int) -> list[VideoClip]:
    return [
        VideoClip(
            pixels=clip.pixels[k : k + size].copy(),
            start_ns=clip.start_ns[k : k + size],
            end_ns=clip.end_ns[k : k + size],
        )
        for k in range(0, len(clip), size)
    ]


def clock(medium: Any) -> Any:
    """Everything of a medium but its content: kind, length, times."""
    if isinstance(medium, Text):
        return [segment.span for segment in medium.segments]
    if isinstance(medium, AudioClip):
        return medium.samples.shape, medium.sample_rate, medium.start_ns
    return medium.pixels.shape, medium.span


def content(medium: Any) -> Any:
    return medium.segments if isinstance(medium, Text) else arrays(medium)[0]


def assert_alike(one: Any, other: Any, atol: float) -> None:
    assert clock(one) == clock(other)
    if isinstance(one, Text):
        assert one == other
    else:
        np.testing.assert_allclose(content(one), content(other), atol=atol, rtol=0)


class NoTorch:
    """Finds no torch, for whoever imports it from now on. What has imported it keeps it."""

    def find_spec(self, fullname: str, *_: Any) -> None:
        assert fullname != "torch", "computes with torch and does not name it in numerics"


def takes_torch_away(step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if "torch" not in step.numerics:
        monkeypatch.delitem(sys.modules, "torch")
        monkeypatch.setattr(sys, "meta_path", [NoTorch(), *sys.meta_path])
