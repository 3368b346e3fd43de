"""
Data-parallel training with PyTorch
===================================

With PyTorch's ``DistributedDataParallel``, fastconv convolves and PyTorch does the rest.

::

    pip install fastconv[torch]
    python examples/train_ddp.py --processes 1 2 4
    python examples/train_ddp.py --processes 1 2 --keras      # a Keras model on its torch backend

Every process takes its share of each global batch, and gloo averages the gradients. The losses and the images a second
(the median of all steps but the first) are printed for every number of processes, with the largest relative difference
of the losses from the first: the curves agree to rounding. ``--plain`` leaves all convolutions to PyTorch, or to Keras.

The net is smooth (GELU, average pooling) so that they can: where ReLU or a maximum switches over a difference in the
last bit, two trainings in float32 drift apart by percents within a hundred steps, in PyTorch alone just as here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

try:
    import torch
    import torch.distributed as dist
    import torch.multiprocessing as mp
except ImportError as error:
    sys.exit(f"train_ddp.py: error: needs PyTorch ({error}); install it with: pip install fastconv[torch]")
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from fastconv.torch import accelerate

CLASSES, SIZE, CHANNELS = 10, 16, 3
LEARNING_RATE, MOMENTUM = 0.01, 0.9


def keras_network(plain: bool) -> Any:
    """The same kind of net in Keras' layers: on its torch backend a model is a `torch.nn.Module`."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    from keras import layers

    import fastconv.keras

    if not plain:
        fastconv.keras.install()
    keras.utils.set_random_seed(0)
    net: list[Any] = [keras.Input((CHANNELS, SIZE, SIZE)), layers.Permute((2, 3, 1))]
    for filters in (32, 64):
        net += [
            layers.Conv2D(filters, 3, padding="same"), layers.GroupNormalization(8), layers.Activation("gelu"),
            layers.Conv2D(filters, 3, padding="same", activation="gelu"), layers.AveragePooling2D(2),
        ]  # fmt: skip
    return keras.Sequential([*net, layers.Flatten(), layers.Dense(CLASSES)])


def network() -> nn.Module:
    """A small net without batch statistics, which would depend on how a batch is shared out."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    inner = CHANNELS
    for outer in (32, 64):
        layers += [
            nn.Conv2d(inner, outer, 3, padding=1), nn.GroupNorm(8, outer), nn.GELU(),
            nn.Conv2d(outer, outer, 3, padding=1), nn.GELU(), nn.AvgPool2d(2),
        ]  # fmt: skip
        inner = outer
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inner * (SIZE // 4) ** 2, CLASSES))


def global_batch(step: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noise with a bright patch whose place is the class: the same for any number of processes."""
    random = torch.Generator().manual_seed(step)
    images = torch.randn(count, CHANNELS, SIZE, SIZE, generator=random)
    labels = torch.randint(CLASSES, (count,), generator=random)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 3 * (label // 5) + 2 : 3 * (label // 5) + 5, 3 * (label % 5) : 3 * (label % 5) + 3] += 0.5
    return images, labels


def keras_convolutions() -> int:
    """How many of a step's convolutions fastconv computed: of the first one, which is all that was called yet."""
    import fastconv.keras

    return int(fastconv.keras.report().taken.get("conv", 0))


def train(rank: int, processes: int, folder: str, steps: int, batch: int, keras: bool, plain: bool) -> None:
    """What one process does; the first one writes the losses."""
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // processes))
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting-{processes}", rank=rank, world_size=processes)
    net = keras_network(plain) if keras else network()
    swapped = 0 if keras or plain else len(accelerate(net).swapped)
    model = DistributedDataParallel(net)
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, momentum=MOMENTUM)
    losses: list[float] = []
    seconds: list[float] = []
    for step in range(steps):
        start = time.perf_counter()
        images, labels = global_batch(step, batch)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(images[rank::processes]), labels[rank::processes])
        loss.backward()
        optimizer.step()
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        losses.append(mean.item() / processes)
        if keras and step == 0:
            swapped = keras_convolutions()
        seconds.append(time.perf_counter() - start)
    if rank == 0:
        result = {"losses": losses, "seconds": seconds, "swapped": swapped}
        Path(folder, f"{processes}.json").write_text(json.dumps(result), encoding="utf-8")
    dist.barrier()  # nobody leaves while another still talks to it
    del model
    dist.destroy_process_group()


def curve(processes: int, steps: int, batch: int, keras: bool, plain: bool) -> dict[str, Any]:
    """The losses of a training shared by so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(train, (processes, folder, steps, batch, keras, plain), nprocs=processes)
        found: dict[str, Any] = json.loads(Path(folder, f"{processes}.json").read_text(encoding="utf-8"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4], metavar="N", help="default: 1 2 4")
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=64, metavar="N", help="of all processes (default: %(default)s)")
    parser.add_argument("--keras", action="store_true", help="a Keras model, with fastconv.keras.install()")
    parser.add_argument("--plain", action="store_true", help="without fastconv")
    args = parser.parse_args()
    if args.steps < 2:
        parser.error("at least two steps, of which the first is not counted")
    if args.batch % max(args.processes) or any(args.batch % count for count in args.processes):
        parser.error(f"a batch of {args.batch} cannot be shared equally by {args.processes} processes")
    first: list[float] = []
    for count in args.processes:
        found = curve(count, args.steps, args.batch, args.keras, args.plain)
        losses = found["losses"]
        first = first or losses
        worst = max(abs(a - b) / abs(b) for a, b in zip(losses, first, strict=True))
        print(
            f"{count} process(es): {found['swapped']} convolutions by fastconv, loss {losses[0]:.6f} -> "
            f"{losses[-1]:.6f} in {args.steps} steps, {args.batch / statistics.median(found['seconds'][1:]):.0f} "
            f"images/s; largest relative difference from {args.processes[0]}: {worst:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
