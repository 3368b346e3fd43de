"""What `fastconv.torch.accelerate` does for PyTorch models: training steps and inference, beside the plain model.

The plain model runs in both memory formats, the faster of which counts; the accelerated one too. Every candidate
starts from the same weights, and the losses (or scores) are compared before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np

from .._core.arrays import Array
from .._core.named import named_function
from .._core.threads import get_num_threads, set_num_threads
from ..errors import ConvError
from ..models.catalogue import from_catalogue
from .cases import NET, TRAIN
from .graph import torch_net
from .measure import TOLERANCE, Candidate, relative_error
from .nets import LEARNING_RATE, MOMENTUM, PASSES_A_STEP, TRAINING_TOLERANCE, formats, losses, prepared
from .peers import module
from .report import OURS, Row
from .suite import timed_row

BATCHES: Final = {True: 16, False: 1}  # images of a training step and of inference, where nobody says
SIDE: Final = 224  # of an image, likewise


@dataclass(frozen=True)
class TorchModel:
    """A PyTorch model at one batch: `make()` gives the same weights each time; `image` is (C, H, W)."""

    name: str
    make: Callable[[], Any]
    image: tuple[int, int, int]
    batch: int
    training: bool = False

    @property
    def label(self) -> str:
        return f"{self.name}, batch {self.batch}"


def _from_catalogue(name: str) -> Any:
    """A model of ours, without its softmax, as PyTorch modules."""
    model = prepared(from_catalogue(name, seed=0))
    assert model.built_shape is not None
    return torch_net(model.layers, model.built_shape, softmax=False)


def resnet18_cifar(classes: int = 10) -> Any:
    """ResNet-18 with a 3x3 stem and no first pooling, as is usual for 32 x 32 images (seeded weights)."""
    torch = module("torch")
    nn = torch.nn
    torch.manual_seed(0)

    def conv(inner: int, outer: int, kernel: int, stride: int) -> list[Any]:
        return [nn.Conv2d(inner, outer, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outer)]

    class Block(nn.Module):  # type: ignore[name-defined, misc, unused-ignore]
        def __init__(self, inner: int, outer: int, stride: int) -> None:
            super().__init__()
            first, second = conv(inner, outer, 3, stride), conv(outer, outer, 3, 1)
            self.body = nn.Sequential(*first, nn.ReLU(inplace=True), *second)
            same = stride == 1 and inner == outer
            self.shortcut = nn.Identity() if same else nn.Sequential(*conv(inner, outer, 1, stride))

        def forward(self, x: Any) -> Any:
            return torch.relu_(self.body(x) + self.shortcut(x))

    layers: list[Any] = [*conv(3, 64, 3, 1), nn.ReLU(inplace=True)]
    inner = 64
    for group, outer in enumerate((64, 128, 256, 512)):
        layers += [Block(inner, outer, 2 if group else 1), Block(outer, outer, 1)]
        inner = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, classes))


# Names for `bench --torch-model`: what makes the model, and the side of its image.
TORCH_MODELS: Final[dict[str, tuple[Callable[[], Any], int]]] = {
    **{
        name: (partial(_from_catalogue, name), side)
        for name, side in (
            ("vgg11", 224), ("vgg13", 224), ("vgg16", 224), ("vgg19", 224), ("resnet18", 224), ("resnet34", 224),
            ("resnet50", 224), ("resnet101", 224), ("resnet152", 224), ("wide_resnet50", 224), ("cifar_vgg", 32),
        )
    },
    "resnet18_cifar": (resnet18_cifar, 32),
}  # fmt: skip
# What `bench --torch` measures: a label, a name, images a batch, and whether it trains.
MEASURED: Final = (
    ("CIFAR VGG net", "cifar_vgg", 64, True), ("ResNet-18 CIFAR", "resnet18_cifar", 64, True),
    ("VGG-16", "vgg16", 1, False),
)  # fmt: skip


def select_torch_models(only: str | None = None) -> list[TorchModel]:
    """The models to measure whose label holds the text `only`."""
    models = []
    for label, name, batch, training in MEASURED:
        make, side = TORCH_MODELS[name]
        models.append(TorchModel(label, make, (3, side, side), batch, training))
    return [model for model in models if only is None or only in model.label]


def named_torch_model(text: str, size: tuple[int, int] | None = None, batch: int | None = None) -> list[TorchModel]:
    """The model that a person names, in training and in inference.

    `text` is one of `TORCH_MODELS`, or 'path.py:function' or 'package.module:function' of a function that returns a
    `torch.nn.Module` for images; `size` is (height, width) of these. Raises `ConvError`, naming what is known.
    """
    place, colon, attribute = text.rpartition(":")
    if colon:
        make, sides, channels = _seeded(named_function(place, attribute)), (SIDE, SIDE), 0
        channels = _channels(text, make)
    elif text in TORCH_MODELS:
        make, side = TORCH_MODELS[text]
        sides, channels = (side, side), 3
    else:
        raise ConvError(
            f"no PyTorch model is named {text!r}; there are {', '.join(TORCH_MODELS)}, and path.py:function for others."
        )
    image = (channels, *(size or sides))
    return [TorchModel(text, make, image, batch or BATCHES[training], training) for training in (True, False)]


def _seeded(make: Callable[[], Any]) -> Callable[[], Any]:
    """The same weights each time."""

    def seeded() -> Any:
        module("torch").manual_seed(0)
        return make()

    return seeded


def _channels(text: str, make: Callable[[], Any]) -> int:
    """Channels of the image: those of the first convolution. What the function gives is looked at here."""
    torch = module("torch")
    try:
        net = make()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConvError(f"{text} does not return a model when it is called without arguments ({reason}).") from error
    if not isinstance(net, torch.nn.Module):
        raise ConvError(f"{text} must return a torch.nn.Module, but returned a {type(net).__name__}.")
    convolutions = [m for m in net.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))]
    if not convolutions:
        raise ConvError(f"{text} has no 2-D convolution, so there is nothing to accelerate.")
    return int(convolutions[0].in_channels)


def run_torch_model(model: TorchModel, threads: int, rounds: int, seconds: float | None = None) -> Row:
    """Check and time one model, plain and accelerated."""
    torch = module("torch")
    before, torch_before = get_num_threads(), torch.get_num_threads()
    set_num_threads(threads)
    torch.set_num_threads(threads)
    try:
        make, tolerance = (_training, TRAINING_TOLERANCE) if model.training else (_inference, TOLERANCE["float32"])
        macs, scores = _macs_and_scores(model)
        plain, fast = (
            [make(model, *pair, accelerated, scores) for pair in formats(torch)] for accelerated in (False, True)
        )
        answer = _answer(plain[0], model)
        plain[0].error = 0.0
        for candidate in (plain[1], *fast):
            candidate.error = relative_error(_answer(candidate, model), answer)
            candidate.correct = candidate.error <= tolerance
        return timed_row(
            [*fast, *plain], {}, threads, rounds, seconds, "float32", set="accelerated", layer=model.label,
            family=model.name, pass_name=TRAIN if model.training else NET, counted=True, count=1,
            macs=macs * model.batch * (PASSES_A_STEP if model.training else 1),
            shape={"input": [model.batch, *model.image], "dtype": "float32"},
        )  # fmt: skip
    finally:
        set_num_threads(before)
        torch.set_num_threads(torch_before)


def _macs_and_scores(model: TorchModel) -> tuple[int, tuple[int, ...]]:
    """Multiply-adds of convolutions and dense layers for one image, and the shape of its scores, found by a pass."""
    torch = module("torch")
    nn = torch.nn
    macs = 0

    def count(layer: Any, inputs: Any, output: Any) -> None:
        nonlocal macs
        values = inputs[0].numel() if isinstance(layer, nn.ConvTranspose2d) else output.numel()
        macs += values * int(np.prod(layer.weight.shape[1:]))  # of a transposed one: (in, out / groups, kH, kW)

    net = model.make().eval()
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            layer.register_forward_hook(count)
    try:
        with torch.inference_mode():
            scores = net(torch.zeros(1, *model.image))
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ConvError(f"{model.name} does not take images of shape {model.image} ({reason}).") from error
    if not isinstance(scores, torch.Tensor):
        raise ConvError(f"{model.name} must return one tensor, but returned a {type(scores).__name__}.")
    return macs, tuple(scores.shape)


def _answer(candidate: Candidate, model: TorchModel) -> Array:
    return losses(candidate) if model.training else candidate.read(candidate.run())


def _candidate(accelerated: bool, variant: str, run: Callable[[], Any], report: Any) -> Candidate:
    note = report.counts if accelerated else ""
    return Candidate(OURS if accelerated else "torch", variant, run, np.asarray, note)


def _prepared(model: TorchModel, memory_format: Any, accelerated: bool) -> tuple[Any, Any, Any]:
    """The model in its mode, a batch, and the report of `accelerate` where it is asked for."""
    torch = module("torch")
    net = model.make().train(model.training).to(memory_format=memory_format)
    for layer in net.modules():  # random zeros lie elsewhere in another memory format: losses could not be compared
        if isinstance(layer, torch.nn.modules.dropout._DropoutNd):
            layer.eval()
    x = np.random.default_rng(0).standard_normal((model.batch, *model.image), np.float32)
    images = torch.from_numpy(x).to(memory_format=memory_format)
    report = None
    if accelerated:
        report = module("fastconv.torch").accelerate(net, images)
    return net, images, report


def _training(
    model: TorchModel, variant: str, memory_format: Any, accelerated: bool, scores: tuple[int, ...]
) -> Candidate:
    """Steps towards random classes, or, where the scores are no vector, towards zeros."""
    torch = module("torch")
    net, images, report = _prepared(model, memory_format, accelerated)
    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, momentum=MOMENTUM)
    classes = scores[1] if len(scores) == 2 else 0
    targets = torch.from_numpy(np.random.default_rng(1).integers(0, max(1, classes), model.batch))

    def run() -> Any:
        optimizer.zero_grad()
        output = net(images)
        loss = torch.nn.functional.cross_entropy(output, targets) if classes else output.square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return _candidate(accelerated, variant, run, report)


def _inference(
    model: TorchModel, variant: str, memory_format: Any, accelerated: bool, scores: tuple[int, ...]
) -> Candidate:
    """Scores of one batch."""
    torch = module("torch")
    net, images, report = _prepared(model, memory_format, accelerated)

    def run() -> Any:
        with torch.inference_mode():
            return net(images)

    return _candidate(accelerated, variant, run, report)
