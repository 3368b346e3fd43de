"""Training steps of a 3-D U-Net beside PyTorch: medians of turns taken in alternation.

    python bench/volume_training.py [--width 16] [--size 32 64 64] [--batch 1] [--threads 2] [--rounds 5]

The net of Cicek et al. (2016), with `--width 32` as wide as theirs, without normalisation, on one-channel volumes with
a class a voxel; SGD with momentum. PyTorch runs in both memory formats, the faster counts, and with
`fastconv.torch.accelerate`. The losses of the first steps are compared before the timing.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from torch import nn

import fastconv
from fastconv import Input, Model, layers
from fastconv.bench.measure import Candidate, time_interleaved
from fastconv.bench.nets import CHECKED_STEPS, LEARNING_RATE, MOMENTUM, TRAINING_TOLERANCE
from fastconv.losses import SparseCategoricalCrossentropy
from fastconv.optimizers import SGD
from fastconv.torch import accelerate

CLASSES = 3


def ours(width: int, size: tuple[int, ...]) -> Model:
    """The net in layers of fastconv."""

    def twice(x: Any, first: int, second: int) -> Any:
        for filters in (first, second):
            x = layers.Conv3D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal")(x)
        return x

    x = volume = Input((*size, 1))
    skips = []
    for level in range(3):
        skips.append(twice(x, width << level, width << level + 1))
        x = layers.MaxPooling3D()(skips[-1])
    x = twice(x, 8 * width, 16 * width)
    for level, skip in reversed(list(enumerate(skips))):
        up = layers.Conv3DTranspose(width << level + 2, 2, 2)(x)
        x = twice(layers.Concatenate()([skip, up]), width << level + 1, width << level + 1)
    return Model(volume, layers.Conv3D(CLASSES, 1)(x), seed=0)


class Theirs(nn.Module):
    """The net in modules of PyTorch."""

    def __init__(self, width: int) -> None:
        super().__init__()

        def twice(inner: int, first: int, second: int) -> nn.Sequential:
            return nn.Sequential(nn.Conv3d(inner, first, 3, padding=1), nn.ReLU(inplace=True),
                                 nn.Conv3d(first, second, 3, padding=1), nn.ReLU(inplace=True))  # fmt: skip

        self.down = nn.ModuleList(
            twice(width << level if level else 1, width << level, width << level + 1) for level in range(4)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(width << level + 2, width << level + 2, 2, 2) for level in (2, 1, 0)
        )
        self.joined = nn.ModuleList(
            twice(3 * (width << level + 1), width << level + 1, width << level + 1) for level in (2, 1, 0)
        )
        self.last = nn.Conv3d(2 * width, CLASSES, 1)

    def forward(self, x: Any) -> Any:
        skips = []
        for block in self.down[:-1]:
            skips.append(block(x))
            x = nn.functional.max_pool3d(skips[-1], 2)
        x = self.down[-1](x)
        for up, block in zip(self.up, self.joined, strict=True):
            x = block(torch.cat([skips.pop(), up(x)], 1))
        return self.last(x)


def copied(model: Model, net: Theirs) -> Theirs:
    """The module with the model's weights: both hold them in the order in which they are met."""
    convolutions = [m for m in net.modules() if isinstance(m, (nn.Conv3d, nn.ConvTranspose3d))]
    order = {id(m): i for i, m in enumerate(convolutions)}
    down = [m for block in net.down for m in block if id(m) in order]
    rest = [m for up, block in zip(net.up, net.joined, strict=True) for m in (up, *block) if id(m) in order]
    arrays = model.get_weights()
    with torch.no_grad():
        for i, one in enumerate([*down, *rest, net.last]):
            kernel, bias = arrays[2 * i : 2 * i + 2]
            one.weight.copy_(torch.from_numpy(np.moveaxis(kernel, (-1, -2), (0, 1)).copy()))
            one.bias.copy_(torch.from_numpy(bias.copy()))
    return net


def torch_step(net: Any, x: Any, classes: Any, memory_format: Any) -> Any:
    net = net.to(memory_format=memory_format)
    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, momentum=MOMENTUM)
    volumes = torch.from_numpy(np.moveaxis(x, -1, 1).copy()).to(memory_format=memory_format)
    targets = torch.from_numpy(classes)

    def step() -> Any:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(volumes), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--size", type=int, nargs=3, default=[32, 64, 64])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    fastconv.set_num_threads(given.threads)
    random = np.random.default_rng(0)
    shape = (given.batch, *given.size)
    x, classes = random.standard_normal((*shape, 1)).astype(np.float32), random.integers(0, CLASSES, shape)
    model = ours(given.width, tuple(given.size))
    steps = {}
    for name, memory_format in (("contiguous", torch.contiguous_format), ("channels last", torch.channels_last_3d)):
        steps[f"torch, {name}"] = torch_step(copied(model, Theirs(given.width)), x, classes, memory_format)
    quick = copied(model, Theirs(given.width))
    accelerate(quick)
    steps["torch, accelerated"] = torch_step(quick, x, classes, torch.channels_last_3d)
    model.compile(SGD(LEARNING_RATE, momentum=MOMENTUM), SparseCategoricalCrossentropy(from_logits=True))
    steps["fastconv"] = lambda: model.train_on_batch(x, classes)[0]
    losses = {name: np.array([float(step()) for _ in range(CHECKED_STEPS)]) for name, step in steps.items()}
    for name, found in losses.items():
        assert np.allclose(found, losses["fastconv"], rtol=TRAINING_TOLERANCE), (name, losses)
    candidates = [Candidate(name, "", step, np.asarray) for name, step in steps.items()]
    time_interleaved(candidates, given.rounds)
    print(f"{given.threads} threads, ISA {fastconv.info()['isa']}, torch {torch.__version__}, {shape}, medians")
    best = min(one.median for one in candidates[:2])
    for one in candidates:
        print(f"{one.peer:20}  {1e3 * one.median:8.1f} ms  {best / one.median:5.2f} times the faster plain one")


if __name__ == "__main__":
    main()
