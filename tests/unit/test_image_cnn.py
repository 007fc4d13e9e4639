"""``image.cnn``: options, shapes, preprocessing, and that folding and batching change nothing."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from sklearn.datasets import load_sample_image
from torch import nn

from features.base import Extractor, NeedsWeights, WeightsRef
from features.errors import StateError
from features.image import backbones
from features.image.cnn import BoundCnn, Cnn, model_input
from features.time import ALWAYS, Span
from features.types import Device, Image
from pipeline import weights

CPU: Device = "cpu"


def _random_net(model: str, num_classes: int = 1000) -> nn.Module:
    """A torchvision network with weights and running statistics that are neither zero nor one."""
    torch.manual_seed(0)
    net = torchvision.models.get_model(model, weights=None, num_classes=num_classes)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return net.eval()


def _pictures(count: int, seed: int = 0) -> list[Image]:
    rng = np.random.default_rng(seed)
    shapes = [(int(h), int(w), 3) for h, w in rng.integers(40, 300, (count, 2))]
    return [Image(pixels=rng.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]


@pytest.fixture(scope="module")
def lite0() -> BoundCnn:
    cnn = Cnn(image_size=64, batch_size=4)
    return cnn.with_state(weights.load(cnn.weights_ref, Path()))


@pytest.fixture(scope="module")
def resnet_state() -> dict[str, torch.Tensor]:
    return _random_net("resnet18").state_dict()


def test_describing_needs_neither_torch_nor_opencv() -> None:
    code = (
        "import sys; from features.image.cnn import Cnn; c = Cnn(); c.dim, c.weights_ref, repr(c); "
        "sys.exit('torch' in sys.modules or 'cv2' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_width_is_the_networks() -> None:
    for layer in ("pool", "logits"):
        for size in (32, 64, 224):
            assert Cnn(layer=layer, image_size=size).dim == backbones.width(
                "efficientnet_lite0", (layer,), "mean", 1000, size
            )
    assert Cnn(layer="logits", num_classes=7, weights="file:x.pth").dim == 7
    assert Cnn(model="resnet18").dim == 512
    assert Cnn(model="resnet18", layer="logits").dim == 1000
    assert Cnn(model="mobilenet_v3_small", layer="pool").dim == 1024
    assert Cnn(model="regnet_y_400mf").dim == 440
    assert Cnn(model="swin_v2_t").dim == 768
    assert Cnn(model="vit_b_16", weights="IMAGENET1K_SWAG_E2E_V1").dim == 768
    assert Cnn(model="squeezenet1_1", layer="logits").dim == 1000


def test_where_the_weights_lie() -> None:
    assert Cnn().weights_ref.kind == "package"
    assert Cnn(weights="file:w/x.pth").weights_ref == WeightsRef(kind="file", locator="w/x.pth")
    default = Cnn(model="resnet50").weights_ref
    assert default == WeightsRef(kind="torchvision", locator="resnet50/IMAGENET1K_V2")
    older = Cnn(model="resnet50", weights="IMAGENET1K_V1").weights_ref
    assert older == WeightsRef(kind="torchvision", locator="resnet50/IMAGENET1K_V1")
    assert isinstance(Cnn(), NeedsWeights)
    assert isinstance(Cnn(), Extractor)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "resnet19"}, "model: got 'resnet19', allowed: .*; did you mean '?resnet1"),
        ({"model": "efficientnet_lite9"}, "did you mean 'efficientnet_lite0'"),
        ({"model": "zzzz"}, r"see torchvision\.models\.list_models"),
        ({"model": "fasterrcnn_resnet50_fpn"}, "allowed: 'efficientnet_lite0' or a torchvision classifier"),
        ({"model": "resnet18", "weights": "IMAGENET1K_V2"}, "for resnet18, allowed: DEFAULT, IMAGENET1K_V1, file:PATH"),
        ({"weights": "IMAGENET1K_V1"}, "weights: got 'IMAGENET1K_V1', allowed: 'DEFAULT', 'file:PATH'"),
        ({"weights": "file:"}, "without a path"),
        ({"layer": "last"}, "layer: got 'last', allowed: 'pool', 'logits'"),
        ({"precision": "float16"}, "precision: got 'float16', allowed: 'float32', 'bfloat16'"),
        ({"batch_size": 0}, "batch_size: got 0, allowed: >= 1"),
        ({"image_size": 16}, "image_size: got 16, allowed: >= 32"),
        ({"num_classes": 10}, "num_classes: got 10, allowed: 1000 unless weights are a file"),
        ({"num_classes": 0, "weights": "file:x.pth"}, "num_classes: got 0"),
        ({"model": "squeezenet1_1"}, "got 'pool' for squeezenet1_1, which has no linear classifier; allowed: 'logits'"),
        ({"model": "vit_b_16", "image_size": 100}, "image_size: got 100, which vit_b_16 does not take"),
    ],
)
def test_impossible_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cnn(**options)


def test_without_weights_it_says_so() -> None:
    with pytest.raises(StateError, match=r"batch of 1 for cpu but no weights; cure: with_state\(state of package"):
        Cnn()(_pictures(1), CPU)


def test_weights_that_do_not_fit(resnet_state: dict[str, torch.Tensor]) -> None:
    cnn = Cnn(model="resnet18")
    with pytest.raises(StateError, match=r"do not fit resnet18 with 1000 classes: conv1\.weight is missing; cure"):
        cnn.with_state({name: value for name, value in resnet_state.items() if name != "conv1.weight"})
    with pytest.raises(StateError, match=r"extra is unknown"):
        cnn.with_state({**resnet_state, "extra": torch.zeros(1)})
    with pytest.raises(StateError, match=r"fc\.bias has shape \[3\], allowed: \[1000\]"):
        cnn.with_state({**resnet_state, "fc.bias": torch.zeros(3)})
    with pytest.raises(StateError, match=r"is missing;.* and \d+ more"):
        cnn.with_state({})


def test_one_row_with_the_pictures_span(lite0: BoundCnn) -> None:
    images = [*_pictures(5), Image(pixels=np.zeros((9, 9, 3), dtype=np.uint8), span=Span(5, 8))]
    rows = lite0(images, CPU)
    assert [row.values.shape for row in rows] == [(1, lite0.dim)] * 6
    assert all(row.values.dtype == np.float32 and np.isfinite(row.values).all() for row in rows)
    assert (rows[0].start_ns[0], rows[0].end_ns[0]) == (ALWAYS.start_ns, ALWAYS.end_ns)
    assert (rows[5].start_ns[0], rows[5].end_ns[0]) == (5, 8)
    assert lite0([], CPU) == []


def test_rows_do_not_depend_on_the_batch(lite0: BoundCnn) -> None:
    images = _pictures(11)
    together = np.concatenate([row.values for row in lite0(images, CPU)])
    again = np.concatenate([row.values for row in lite0(images, CPU)])
    alone = np.concatenate([lite0([image], CPU)[0].values for image in images])
    backwards = np.concatenate([row.values for row in lite0(images[::-1], CPU)])[::-1]
    assert np.array_equal(together, again)
    assert np.array_equal(together, alone), "short batches are filled up"
    assert np.array_equal(together, backwards)
    assert np.ptp(together, axis=0).max() > 0.1


def _photographs() -> list[Image]:
    found = [load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    return [
        Image(pixels=np.ascontiguousarray(picture[:, part:][:, :400])) for picture in found for part in (0, 100, 240)
    ]


def test_bfloat16_points_the_same_way(lite0: BoundCnn) -> None:
    half = Cnn(image_size=64, precision="bfloat16").with_state(weights.load(Cnn().weights_ref, Path()))
    images = _photographs()
    for one, other in zip(lite0(images, CPU), half(images, CPU), strict=True):
        a, b = one.values[0], other.values[0]
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.995


def test_pickles_without_the_network(lite0: BoundCnn) -> None:
    images = _pictures(2)
    wanted = lite0(images, CPU)
    copy = pickle.loads(pickle.dumps(lite0))
    assert copy.options == lite0.options
    assert all(np.array_equal(a.values, b.values) for a, b in zip(wanted, copy(images, CPU), strict=True))


def test_the_given_state_is_left_alone(resnet_state: dict[str, torch.Tensor]) -> None:
    before = {name: value.clone() for name, value in resnet_state.items()}
    Cnn(model="resnet18", image_size=64, precision="bfloat16").with_state(resnet_state)(_pictures(1), CPU)
    assert all(torch.equal(before[name], value) for name, value in resnet_state.items())


def test_state_may_be_numpy_and_without_counters(resnet_state: dict[str, torch.Tensor]) -> None:
    arrays = {name: value.numpy() for name, value in resnet_state.items() if "num_batches_tracked" not in name}
    for array in arrays.values():
        array.flags.writeable = False
    cnn, images = Cnn(model="resnet18", image_size=64), _pictures(2)
    one, other = cnn.with_state(arrays)(images, CPU), cnn.with_state(resnet_state)(images, CPU)
    assert np.array_equal(one[1].values, other[1].values)


@pytest.mark.parametrize(
    "model", ["resnet18", "mobilenet_v3_small", "densenet121", "efficientnet_b0", "shufflenet_v2_x0_5", "mnasnet0_5"]
)
def test_folding_is_the_same_function(model: str) -> None:
    net = _random_net(model)
    cnn = Cnn(model=model, layer="logits", image_size=64)
    preset = cnn.preset()
    state = backbones.fit_state(net.state_dict(), model, 1000, 64)
    folded = backbones.network(
        state,
        model,
        layers=("logits",),
        spatial="mean",
        num_classes=1000,
        chosen=preset,
        dtype=torch.float32,
        device=CPU,
    )
    pixels = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(value).reshape(1, 3, 1, 1) for value in (preset.mean, preset.std))
    with torch.inference_mode():
        wanted = net((pixels.permute(0, 3, 1, 2).float() - mean) / std)
        found = folded(pixels)
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max() + 1e-6


def test_pool_is_what_enters_the_last_linear_layer(resnet_state: dict[str, torch.Tensor]) -> None:
    images = _pictures(3)
    pool = Cnn(model="resnet18", image_size=64).with_state(resnet_state)(images, CPU)
    logits = Cnn(model="resnet18", image_size=64, layer="logits").with_state(resnet_state)(images, CPU)
    weight, bias = resnet_state["fc.weight"].numpy(), resnet_state["fc.bias"].numpy()
    for row, scores in zip(pool, logits, strict=True):
        np.testing.assert_allclose(row.values @ weight.T + bias, scores.values, atol=1e-4)


def test_a_head_of_ones_own() -> None:
    state = _random_net("resnet18", num_classes=5).state_dict()
    cnn = Cnn(model="resnet18", weights="file:x.pth", num_classes=5, layer="logits", image_size=64)
    assert cnn.with_state(state)(_pictures(1), CPU)[0].dim == cnn.dim == 5


def test_presets_are_the_weights_own() -> None:
    lite0 = Cnn().preset()
    assert (lite0.resize, lite0.crop, lite0.mean[0], lite0.std[2]) == (256, 224, 127.0, 128.0)
    newer = Cnn(model="resnet50").preset()
    given = torchvision.models.ResNet50_Weights.IMAGENET1K_V2.transforms()
    assert (newer.resize, newer.crop) == (given.resize_size[0], given.crop_size[0])
    assert newer.mean == tuple(255 * mean for mean in given.mean)
    assert newer.std == tuple(255 * std for std in given.std)
    assert Cnn(model="efficientnet_b0").preset().interpolation == "bicubic"
    scaled = Cnn(image_size=112).preset()
    assert (scaled.resize, scaled.crop) == (128, 112)


@pytest.mark.parametrize("shape", [(64, 64), (400, 700), (1, 5000), (3, 2), (224, 224)])
def test_model_input_is_the_central_square(shape: tuple[int, int]) -> None:
    height, width = shape
    y, x = np.mgrid[0:height, 0:width]
    inside = np.abs(x - (width - 1) / 2) < min(shape) * 0.4375 - 1
    inside &= np.abs(y - (height - 1) / 2) < min(shape) * 0.4375 - 1
    pixels = np.where(inside, 250, 5).astype(np.uint8)[..., None].repeat(3, axis=2)
    found = model_input([Image(pixels=pixels)], Cnn().preset())
    assert found.shape == (1, 224, 224, 3)
    if min(shape) > 10:
        assert (found > 100).mean() > 0.88


def test_every_classifier_of_torchvision_describes_itself() -> None:
    for model in torchvision.models.list_models(module=torchvision.models):
        if any(part in model for part in ("resnet18", "vgg16_bn", "googlenet", "inception", "maxvit", "vit_b_32")):
            assert Cnn(model=model).dim >= 512
