"""What every registered step must keep. A step without a ``Case`` here fails."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch

from features.base import (
    Augment,
    Example,
    Extractor,
    FrameSelector,
    NeedsFit,
    NeedsReference,
    NeedsWeights,
    Prepare,
    VideoExtractor,
)
from features.errors import StateError
from features.registry import AUGMENT, EXTRACTORS, PREPARE, resolve
from features.time import ALWAYS, NS_PER_SECOND, Span
from features.types import AudioClip, Device, FeatureSequence, Image, Media, Text, TextSegment, VideoClip

CPU: Device = "cpu"
SHIFT = 12_345_678_901


def audio(seed: int, start_ns: int = 0) -> AudioClip:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((2, 9000 + 1700 * seed)).astype(np.float32)
    return AudioClip(samples=np.float32(0.2) * noise, sample_rate=16_000, start_ns=start_ns)


def framed_by_silence(seed: int, start_ns: int = 0) -> AudioClip:
    clip = audio(seed, start_ns)
    quiet = np.zeros((2, 4000), np.float32)
    return AudioClip(
        samples=np.concatenate([quiet, clip.samples, quiet], axis=1), sample_rate=16_000, start_ns=start_ns
    )


def image(seed: int, start_ns: int | None = None) -> Image:
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (40 + 9 * seed, 64 - 5 * seed, 3), dtype=np.uint8)
    return Image(pixels=pixels, span=ALWAYS if start_ns is None else Span(start_ns, start_ns + NS_PER_SECOND))


def timed_image(seed: int, start_ns: int = 0) -> Image:
    return image(seed, start_ns)


def text(seed: int, start_ns: int = 0) -> Text:
    words = (*["the", "mill", "ground", "wheat", "and", "rye"], "Unbekannt", f"word{seed}")
    return Text(
        tuple(
            TextSegment(word, Span(start_ns + k * 100, start_ns + k * 100 + 80))
            for k, word in enumerate(words[seed:] + words[:seed])
        )
    )


def video(channels: tuple[int, ...]) -> Callable[..., VideoClip]:
    def make(seed: int, start_ns: int = 0) -> VideoClip:
        rng = np.random.default_rng(seed)
        shots = []
        for length in (14, 12 + seed, 17):
            blocks = rng.integers(0, 256, (6, 8, *channels)).repeat(8, axis=0).repeat(8, axis=1)
            grain = rng.integers(0, 256, blocks.shape)
            still = (6 * blocks + grain + np.roll(grain, (1, 1), (0, 1))) // 8  # cuts for one step, texture for another
            shots += [np.roll(still, k, axis=1) for k in range(length)]
        starts = start_ns + np.cumsum(rng.integers(30, 50, len(shots))) * 1_000_000
        ends = np.append(starts[1:], starts[-1] + 40_000_000)
        return VideoClip(pixels=np.stack(shots).astype(np.uint8), start_ns=starts, end_ns=ends)

    return make


def scene() -> np.ndarray:
    """A still picture full of corners, luma."""
    blocks = np.random.default_rng(9).integers(0, 256, (40, 52), dtype=np.uint8)
    return blocks.repeat(7, axis=0).repeat(7, axis=1)


def pan(seed: int, start_ns: int = 0) -> VideoClip:
    """The scene as a camera sees it that moves, and at the end something else."""
    starts = start_ns + np.cumsum([40_000_000, 35_000_000 + seed, 50_000_000])
    whole = scene()
    frames = [whole[k * 9 : k * 9 + 96, 11 * k + seed : 11 * k + seed + 128] for k in range(2)]
    frames.append(whole[::-1, ::-1][:96, :128] // 2)
    return VideoClip(pixels=np.stack(frames), start_ns=starts, end_ns=np.append(starts[1:], starts[-1:] + 40_000_000))


def no_frames(*shape: int) -> VideoClip:
    nothing = np.zeros(0, np.int64)
    return VideoClip(pixels=np.zeros((0, 48, 64, *shape), np.uint8), start_ns=nothing, end_ns=nothing)


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
prepares = pytest.mark.parametrize("name", sorted(PREPARE))


def make(name: str, table: dict[str, str], cases: dict[str, Case]) -> Any:
    assert name in cases, f"{name}: no sample in tests/contract/test_steps.py; cure: add a Case for it"
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


# Every step


TABLES = {"row": EXTRACTORS, "prepare": PREPARE, "augment": AUGMENT}
STEPS = [(name, EXTRACTORS, EXTRACTOR) for name in sorted(EXTRACTORS)]
STEPS += [(name, PREPARE, PREPARING) for name in sorted(PREPARE)]
STEPS += [(name, AUGMENT, AUGMENTING) for name in sorted(AUGMENT)]
steps = pytest.mark.parametrize(
    ("name", "table", "cases"),
    STEPS,
    ids=[f"{name}-{kind}" for kind, table in TABLES.items() for name in sorted(table)],
)


@steps
def test_options_are_the_repr_the_equality_the_hash_and_the_pickle(
    name: str, table: dict[str, str], cases: dict[str, Case]
) -> None:
    step = make(name, table, cases)
    kind = type(step)
    other = kind(**cases[name].other)
    namespace = {kind.__name__: kind}
    for value in (step, other):
        assert value == eval(repr(value), namespace) == pickle.loads(pickle.dumps(value)) == copy.deepcopy(value)
        assert hash(value) == hash(pickle.loads(pickle.dumps(value)))
    assert step != other
    first = dataclasses.fields(step)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(step, first, getattr(step, first))
    with pytest.raises(TypeError, match="positional argument"):
        kind(1)


def test_no_case_is_left_over() -> None:
    assert EXTRACTOR.keys() == EXTRACTORS.keys()
    assert PREPARING.keys() == PREPARE.keys()
    assert AUGMENTING.keys() == AUGMENT.keys()


# Extractors


@extractors
def test_an_extractor_is_one_and_says_what_it_needs(name: str) -> None:
    step = make(name, EXTRACTORS, EXTRACTOR)
    assert isinstance(step, Extractor)
    needs = isinstance(step, NeedsFit) or (isinstance(step, NeedsWeights) and step.weights_ref is not None)
    assert needs == (EXTRACTOR[name].state is not None)
    assert isinstance(step, NeedsReference) == (EXTRACTOR[name].reference is not None)
    bound = ready(name)
    assert isinstance(bound, Extractor)
    assert (bound.name, bound.stream, bound.dim) == (name, step.stream, step.dim)


@extractors
def test_rows_are_finite_as_wide_as_declared_and_inside_the_sample(name: str) -> None:
    sample = EXTRACTOR[name].sample(1, SHIFT)
    (found,) = ready(name)([sample], CPU)
    assert len(found) > 0
    assert found.dim == ready(name).dim
    assert np.isfinite(found.values).all()
    assert found.values[found.valid].any()
    assert not found.values[~found.valid].any()
    assert span(sample).start_ns <= found.start_ns.min()
    assert found.end_ns.max() <= span(sample).end_ns


def elsewhere(medium: Any, offset: int) -> Any:
    """The same medium with its arrays copied to addresses ``offset`` bytes past a multiple of 64."""
    moved = {}
    for part in dataclasses.fields(medium):
        value = getattr(medium, part.name)
        if isinstance(value, np.ndarray):
            room = np.empty(value.nbytes + 128, np.uint8)
            first = -room.ctypes.data % 64 + offset
            moved[part.name] = room[first : first + value.nbytes].view(value.dtype).reshape(value.shape)
            moved[part.name][...] = value
    return dataclasses.replace(medium, **moved)


@extractors
def test_the_same_sample_gives_the_same_bytes_wherever_it_lies_in_memory(name: str) -> None:
    # the length of what is held moves the addresses that a step's own arrays get: SIMD code may round by address
    step = ready(name)
    for seed in range(3):
        sample, held, found = EXTRACTOR[name].sample(seed), [], set()
        for turn in range(12):
            held.append(bytearray(1000 + 16 * turn))
            found.add(raw(step([elsewhere(sample, 16 * (turn % 4))], CPU)[0]))
        assert len(found) == 1


@extractors
def test_the_input_is_left_as_it_was(name: str) -> None:
    sample = EXTRACTOR[name].sample(1)
    ready(name)([sample], CPU)
    assert same(sample, EXTRACTOR[name].sample(1))


@extractors
def test_shifting_the_clock_shifts_the_times_and_nothing_else(name: str) -> None:
    case = EXTRACTOR[name]
    ((here,), (there,)) = (ready(name)([case.sample(1, start)], CPU) for start in (0, SHIFT))
    assert (here.values.tobytes(), here.valid.tobytes()) == (there.values.tobytes(), there.valid.tobytes())
    np.testing.assert_array_equal(here.start_ns + SHIFT, there.start_ns)
    np.testing.assert_array_equal(here.end_ns + SHIFT, there.end_ns)


@extractors
def test_rows_do_not_depend_on_what_else_is_in_the_batch(name: str) -> None:
    case = EXTRACTOR[name]
    samples = [case.sample(seed) for seed in range(3)]
    alone = [ready(name)([sample], CPU)[0] for sample in samples]
    for order in ((0, 1, 2), (2, 0, 1), (1, 1)):
        together = ready(name)([samples[k] for k in order], CPU)
        assert len(together) == len(order)
        for found, k in zip(together, order, strict=True):
            assert_close(found, alone[k], case.batch_atol)


@extractors
def test_the_least_sample_gives_the_rows_that_it_should(name: str) -> None:
    sample, rows = EXTRACTOR[name].least
    step = ready(name)
    assert step([], CPU) == []
    least, full = step([sample, EXTRACTOR[name].sample(0)], CPU)
    assert (len(least), least.dim) == (rows, step.dim)
    assert len(full) > 0


@extractors
def test_a_step_with_its_state_travels_to_another_process(name: str) -> None:
    sample = EXTRACTOR[name].sample(1)
    again = pickle.loads(pickle.dumps(ready(name)))
    assert raw(again([sample], CPU)[0]) == raw(ready(name)([sample], CPU)[0])


@pytest.mark.parametrize("name", [name for name in sorted(EXTRACTORS) if name in EXTRACTOR and EXTRACTOR[name].state])
def test_without_the_right_state_nothing_is_extracted(name: str) -> None:
    step = make(name, EXTRACTORS, EXTRACTOR)
    with pytest.raises(StateError, match=rf"{name}: .*cure: "):
        step([EXTRACTOR[name].sample(0)], CPU)
    with pytest.raises(StateError, match=name):
        step.with_state({})


@pytest.mark.parametrize("name", [name for name in sorted(EXTRACTORS) if EXTRACTOR[name].reference])
def test_without_what_it_compares_with_nothing_is_extracted(name: str) -> None:
    with pytest.raises(StateError, match=rf"{name}: .*cure: with_reference"):
        make(name, EXTRACTORS, EXTRACTOR)([EXTRACTOR[name].sample(0)], CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@extractors
def test_cpu_and_cuda_agree(name: str) -> None:
    samples = [EXTRACTOR[name].sample(seed) for seed in range(3)]
    ours, theirs = ready(name)(samples, CPU), ready(name)(samples, "cuda")
    for one, other in zip(ours, theirs, strict=True):
        assert_close(one, other, EXTRACTOR[name].device_atol)


# Video: fed chunk by chunk


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


@CUTS
@pytest.mark.parametrize("name", [name for name in sorted(EXTRACTORS) if name.startswith(("video.", "align."))])
def test_how_a_video_is_cut_into_chunks_does_not_matter_to_an_extractor(name: str, size: int) -> None:
    step, clip = ready(name), EXTRACTOR[name].sample(1)
    assert isinstance(step, VideoExtractor)
    assert isinstance(clip, VideoClip)
    sink = step.open(CPU)
    for chunk in chunks(clip, size):
        sink.push(chunk)
    assert raw(sink.finish()) == raw(step([clip], CPU)[0])


def selected(step: FrameSelector, pieces: list[VideoClip]) -> list[Image]:
    sink = step.select()
    for piece in pieces:
        sink.push(piece)
    return sink.finish()


SELECTORS = [name for name in sorted(PREPARE) if isinstance(make(name, PREPARE, PREPARING), FrameSelector)]


@CUTS
@pytest.mark.parametrize("name", SELECTORS)
def test_how_a_video_is_cut_into_chunks_does_not_matter_to_a_selector(name: str, size: int) -> None:
    step, clip = make(name, PREPARE, PREPARING), PREPARING[name].sample(1)
    assert isinstance(clip, VideoClip)
    whole, parts = selected(step, [clip]), selected(step, chunks(clip, size))
    assert len(whole) > 1
    assert len(parts) == len(whole)
    assert all(same(one, other) for one, other in zip(whole, parts, strict=True))
    assert same(clip, PREPARING[name].sample(1))


@pytest.mark.parametrize("name", SELECTORS)
def test_selected_frames_are_frames_of_the_video_and_move_with_its_clock(name: str) -> None:
    step, (here, there) = make(name, PREPARE, PREPARING), (PREPARING[name].sample(1, start) for start in (0, SHIFT))
    assert isinstance(here, VideoClip)
    assert isinstance(there, VideoClip)
    for one, other in zip(selected(step, [here]), selected(step, [there]), strict=True):
        assert np.array_equal(one.pixels, other.pixels)
        assert (one.span.start_ns + SHIFT, one.span.end_ns + SHIFT) == (other.span.start_ns, other.span.end_ns)
        assert any(np.array_equal(one.pixels, frame) for frame in here.pixels)
        assert span(here).start_ns <= one.span.start_ns < one.span.end_ns <= span(here).end_ns
    assert selected(step, []) == selected(step, [no_frames(3)]) == []


# Prepare steps


PREPARERS = [name for name in sorted(PREPARE) if name not in SELECTORS]
preparers = pytest.mark.parametrize("name", PREPARERS)


def prepared(name: str, batch: list[Any], device: Device = CPU) -> list[Any]:
    step = make(name, PREPARE, PREPARING)
    assert isinstance(step, Prepare)
    if PREPARING[name].state is not None:
        step = step.with_state(PREPARING[name].state(step))
    return step.prepare(batch, device)


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


@preparers
def test_prepared_media_keep_kind_count_order_length_and_clock(name: str) -> None:
    samples = [PREPARING[name].sample(seed, SHIFT * seed) for seed in range(3)] + [PREPARING[name].least[0]]
    found = prepared(name, samples)
    kept = PREPARING[name].keeps or clock
    assert [(type(medium), kept(medium)) for medium in found] == [(type(medium), kept(medium)) for medium in samples]
    if PREPARING[name].keeps:
        for one, other in zip(found, samples, strict=True):
            assert span(other).start_ns <= span(one).start_ns <= span(one).end_ns <= span(other).end_ns
    assert prepared(name, []) == []


@preparers
def test_preparing_does_something_and_leaves_the_input_as_it_was(name: str) -> None:
    sample = PREPARING[name].sample(1)
    (found,) = prepared(name, [sample])
    assert np.array_equal(content(found), content(sample)) == PREPARING[name].passes
    assert same(sample, PREPARING[name].sample(1))


@preparers
def test_preparing_depends_neither_on_the_batch_nor_on_the_clock_nor_on_the_time_of_day(name: str) -> None:
    case = PREPARING[name]
    together = prepared(name, [case.sample(seed) for seed in (2, 0, 1)])
    for found, seed in zip(together, (2, 0, 1), strict=True):
        assert_alike(found, prepared(name, [case.sample(seed)])[0], case.batch_atol)
    ((one,), (other,), (moved,)) = (prepared(name, [case.sample(1, start)]) for start in (0, 0, SHIFT))
    assert same(one, other)
    if isinstance(one, Text):
        assert [segment.text for segment in one.segments] == [segment.text for segment in moved.segments]
    else:
        assert content(one).tobytes() == content(moved).tobytes()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@preparers
def test_preparing_on_cuda_agrees(name: str) -> None:
    samples = [PREPARING[name].sample(seed) for seed in range(3)]
    for one, other in zip(prepared(name, samples), prepared(name, samples, "cuda"), strict=True):
        assert_alike(one, other, PREPARING[name].device_atol)


# Augmentations


augmenters = pytest.mark.parametrize("name", sorted(AUGMENT))


def augmented(name: str, batch: list[Any], seeds: list[int], device: Device = CPU) -> list[Any]:
    step = make(name, AUGMENT, AUGMENTING)
    assert isinstance(step, Augment)
    if AUGMENTING[name].state is not None:
        step = step.with_state(AUGMENTING[name].state(step))
    found: list[Any] = step.augment(batch, seeds, device)
    return found


@augmenters
def test_a_seed_decides_how_a_medium_is_altered_whatever_else_is_in_the_batch(name: str) -> None:
    case = AUGMENTING[name]
    seeds = [7, 2**62 + 1, 9]
    together = augmented(name, [case.sample(k) for k in range(3)], seeds)
    for k in (2, 0, 1):
        (alone,) = augmented(name, [case.sample(k)], [seeds[k]])
        assert type(alone) is type(case.sample(k))
        assert_alike(alone, together[k], case.batch_atol)
    assert augmented(name, [], []) == []


@augmenters
def test_seeds_alter_differently_and_leave_the_input_as_it_was(name: str) -> None:
    case = AUGMENTING[name]
    sample = case.sample(1)
    views = [augmented(name, [sample], [seed])[0] for seed in range(8)]
    assert len({repr([np.asarray(part).tobytes() for part in arrays(view)]) for view in views}) > 1
    assert same(sample, case.sample(1))


@augmenters
def test_the_least_sample_can_be_altered(name: str) -> None:
    sample, _ = AUGMENTING[name].least
    (found,) = augmented(name, [sample], [3])
    assert type(found) is type(sample)


@augmenters
def test_altered_media_move_with_the_clock(name: str) -> None:
    case = AUGMENTING[name]
    ((here,), (there,)) = (augmented(name, [case.sample(1, start)], [5]) for start in (0, SHIFT))
    if isinstance(here, Text):
        assert [part.text for part in here.segments] == [part.text for part in there.segments]
    else:
        assert content(here).tobytes() == content(there).tobytes()
    assert span(here).start_ns + SHIFT == span(there).start_ns


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@augmenters
def test_augmenting_on_cuda_agrees(name: str) -> None:
    samples, seeds = [AUGMENTING[name].sample(seed) for seed in range(3)], [1, 2, 3]
    ours, theirs = (augmented(name, samples, seeds, device) for device in (CPU, "cuda"))
    for one, other in zip(ours, theirs, strict=True):
        assert_alike(one, other, AUGMENTING[name].device_atol)


# Torch: processes import it before they begin where a step names it, and not at all where none does


class NoTorch:
    """Finds no torch, for whoever imports it from now on. What has imported it keeps it."""

    def find_spec(self, fullname: str, *_: Any) -> None:
        assert fullname != "torch", "computes with torch and does not name it in numerics"


def takes_torch_away(step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if "torch" not in step.numerics:
        monkeypatch.delitem(sys.modules, "torch")
        monkeypatch.setattr(sys, "meta_path", [NoTorch(), *sys.meta_path])


@extractors
def test_an_extractor_computes_with_torch_only_where_it_names_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step, sample = ready(name), EXTRACTOR[name].sample(0)
    takes_torch_away(step, monkeypatch)
    assert len(step([sample], CPU)) == 1


@preparers
def test_preparing_computes_with_torch_only_where_it_names_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = PREPARING[name].sample(0)
    takes_torch_away(make(name, PREPARE, PREPARING), monkeypatch)
    assert len(prepared(name, [sample])) == 1


@augmenters
def test_augmenting_computes_with_torch_only_where_it_names_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sample = AUGMENTING[name].sample(0)
    takes_torch_away(make(name, AUGMENT, AUGMENTING), monkeypatch)
    assert len(augmented(name, [sample], [1])) == 1
