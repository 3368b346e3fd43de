"""What `fastconv.torch.accelerate` does for PyTorch models: training steps and inference, beside the plain model.

The plain model runs in both memory formats, the faster of which counts; the accelerated one too. Every candidate
starts from the same weights, and the losses (or scores) are compared before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from ..arrays import Array
from ..models import Sequential, cifar_vgg, vgg
from ..threads import get_num_threads, set_num_threads
from .cases import NET, TRAIN
from .graph import torch_net
from .measure import TOLERANCE, Candidate, relative_error
from .nets import LEARNING_RATE, MOMENTUM, PASSES_A_STEP, TRAINING_TOLERANCE, formats, losses, prepared
from .peers import module
from .report import OURS, Row
from .suite import timed_row

MACS_RESNET18_CIFAR: Final = 555_422_720  # an image: 3x3 stem at 32 x 32, convolutions, 1x1 shortcuts, dense layer


@dataclass(frozen=True)
class TorchModel:
    """A PyTorch model at one batch: `make()` gives the same weights each time; `macs` are of one image."""

    name: str
    make: Callable[[], Any]
    image: tuple[int, int, int]
    classes: int
    macs: int
    batch: int
    training: bool = False

    @property
    def label(self) -> str:
        return f"{self.name}, batch {self.batch}"


def _from_ours(model: Sequential) -> Any:
    """A model of ours, without its softmax, as PyTorch modules."""
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


def _vgg_macs(model: Sequential) -> int:
    assert model.built_shape is not None
    return model.macs((None, *model.built_shape))


def select_torch_models(only: str | None = None) -> list[TorchModel]:
    """The models to measure whose label holds the text `only`."""
    models = [
        TorchModel(
            "CIFAR VGG net", lambda: _from_ours(cifar_vgg(seed=0)), (3, 32, 32), 10, _vgg_macs(cifar_vgg()), 64, True
        ),
        TorchModel("ResNet-18 CIFAR", resnet18_cifar, (3, 32, 32), 10, MACS_RESNET18_CIFAR, 64, True),
        TorchModel(
            "VGG-16", lambda: _from_ours(prepared(vgg("D", seed=0))), (3, 224, 224), 1000, _vgg_macs(vgg("D")), 1
        ),
    ]
    return [model for model in models if only is None or only in model.label]


def run_torch_model(model: TorchModel, threads: int, rounds: int, seconds: float | None = None) -> Row:
    """Check and time one model, plain and accelerated."""
    torch = module("torch")
    before, torch_before = get_num_threads(), torch.get_num_threads()
    set_num_threads(threads)
    torch.set_num_threads(threads)
    try:
        make, tolerance = (_training, TRAINING_TOLERANCE) if model.training else (_inference, TOLERANCE["float32"])
        plain, fast = ([make(model, *pair, accelerated) for pair in formats(torch)] for accelerated in (False, True))
        answer = _answer(plain[0], model)
        plain[0].error = 0.0
        for candidate in (plain[1], *fast):
            candidate.error = relative_error(_answer(candidate, model), answer)
            candidate.correct = candidate.error <= tolerance
        return timed_row(
            [*fast, *plain], {}, threads, rounds, seconds, "float32", set="accelerated", layer=model.label,
            family=model.name, pass_name=TRAIN if model.training else NET, counted=True, count=1,
            macs=model.macs * model.batch * (PASSES_A_STEP if model.training else 1),
            shape={"input": [model.batch, *model.image], "dtype": "float32"},
        )  # fmt: skip
    finally:
        set_num_threads(before)
        torch.set_num_threads(torch_before)


def _answer(candidate: Candidate, model: TorchModel) -> Array:
    return losses(candidate) if model.training else candidate.read(candidate.run())


def _candidate(accelerated: bool, variant: str, run: Callable[[], Any], report: Any) -> Candidate:
    note = f"{len(report.swapped)} of {len(report.decisions)} convolutions swapped" if accelerated else ""
    return Candidate(OURS if accelerated else "torch", variant, run, np.asarray, note)


def _prepared(model: TorchModel, memory_format: Any, accelerated: bool) -> tuple[Any, Any, Any]:
    """The model in its mode, a batch, and the report of `accelerate` where it is asked for."""
    torch = module("torch")
    net = model.make().train(model.training).to(memory_format=memory_format)
    x = np.random.default_rng(0).standard_normal((model.batch, *model.image), np.float32)
    images = torch.from_numpy(x).to(memory_format=memory_format)
    report = None
    if accelerated:
        report = module("fastconv.torch").accelerate(net, images)
    return net, images, report


def _training(model: TorchModel, variant: str, memory_format: Any, accelerated: bool) -> Candidate:
    torch = module("torch")
    net, images, report = _prepared(model, memory_format, accelerated)
    targets = torch.from_numpy(np.random.default_rng(1).integers(0, model.classes, model.batch))
    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, momentum=MOMENTUM)

    def run() -> Any:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(images), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return _candidate(accelerated, variant, run, report)


def _inference(model: TorchModel, variant: str, memory_format: Any, accelerated: bool) -> Candidate:
    torch = module("torch")
    net, images, report = _prepared(model, memory_format, accelerated)

    def run() -> Any:
        with torch.inference_mode():
            return net(images)

    return _candidate(accelerated, variant, run, report)
