"""`fit` and `predict` of Keras models with and without `fastconv.keras.install()`, each side in processes of its own.

    KERAS_BACKEND=torch python bench/keras_fit.py            # fit, images a second
    KERAS_BACKEND=numpy python bench/keras_fit.py            # predict, beside Keras' NumPy backend with JAX

The sides take turns, a process each; the medians of all and their ratio are printed, with the least and the largest
ratio of a turn. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

if "--one-thread" in sys.argv:  # before the libraries count processors
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np

import fastconv.keras

try:
    if "--side=with" in sys.argv:
        fastconv.keras.install()
    import keras
    from keras import layers
except ImportError as error:
    sys.exit(
        f"keras_fit.py: error: {error}; needs Keras and what its backend needs: pip install keras torch, or keras jax"
    )


def vgg() -> Any:
    """The lecture's stack of 3x3 convolutions, for images of 32x32: VGG's configuration B without its last block."""
    net = [keras.Input((32, 32, 3))]
    for filters in (64, 128, 256, 512):
        net += [layers.Conv2D(filters, 3, padding="same", activation="relu") for _ in range(2)]
        net += [layers.MaxPooling2D(2)]
    net += [layers.Flatten(), layers.Dense(256, activation="relu"), layers.Dense(10)]
    return keras.Sequential(net)


def vgg_normalised() -> Any:
    """The same with batch normalisation."""
    net = [keras.Input((32, 32, 3))]
    for filters in (64, 128, 256, 512):
        for _ in range(2):
            net += [
                layers.Conv2D(filters, 3, padding="same", use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
            ]
        net += [layers.MaxPooling2D(2)]
    net += [layers.Flatten(), layers.Dense(256, activation="relu"), layers.Dense(10)]
    return keras.Sequential(net)


def unet() -> Any:
    """Ronneberger, Fischer and Brox' net for images of 64x64, in three steps down, a class a pixel."""

    def twice(x: Any, filters: int) -> Any:
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        return x

    x = image = keras.Input((64, 64, 3))
    across = []
    for filters in (32, 64, 128):
        across.append(twice(x, filters))
        x = layers.MaxPooling2D(2)(across[-1])
    x = twice(x, 256)
    for skip in reversed(across):
        x = layers.Conv2DTranspose(skip.shape[-1], 2, strides=2)(x)
        x = twice(layers.Concatenate()([skip, x]), skip.shape[-1])
    return keras.Model(image, layers.Conv2D(2, 1)(x))


NETS: dict[str, tuple[Callable[[], Any], int]] = {"vgg": (vgg, 10), "vgg-bn": (vgg_normalised, 10), "unet": (unet, 2)}


RUNS = 4  # of a process


def data(net: Any, classes: int, count: int) -> tuple[Any, Any]:
    """Images of noise and labels."""
    random = np.random.default_rng(0)
    images = random.standard_normal((count, *net.input_shape[1:]), dtype=np.float32)
    return images, random.integers(classes, size=(count, *net.output_shape[1:-1]))


def rates(name: str, batch: int, steps: int, runs: int, clock: Callable[[], float]) -> list[float]:
    """Images a second of this process, warm."""
    make, classes = NETS[name]
    keras.utils.set_random_seed(0)
    net = make()
    images, labels = data(net, classes, batch * steps)
    trains = keras.config.backend() == "torch"
    if trains:
        net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    found = []
    for run in range(runs + 1):  # the first warms up
        start = clock()
        if trains:
            net.fit(images, labels, batch_size=batch, verbose=0, shuffle=False)
        else:
            net.predict(images, batch_size=batch, verbose=0)
        if run:
            found.append(len(images) / (clock() - start))
    return found


def measure(name: str, args: argparse.Namespace) -> None:
    """Print a row: both sides in turns."""
    found: dict[str, list[float]] = {"without": [], "with": []}
    for _ in range(args.turns):
        for side, own in found.items():
            command = [
                sys.executable, "-P", __file__, name, f"--side={side}", "--batch", str(args.batch), "--steps",
                str(args.steps), *(["--one-thread"] if args.one_thread else []),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"keras_fit.py: error: the side {side!r} failed:\n{done.stderr}")
            own.append(statistics.median(json.loads(done.stdout.splitlines()[-1])))
    without, ours = (statistics.median(own) for own in found.values())
    ratios = sorted(b / a for a, b in zip(*found.values(), strict=True))
    what = "fit" if keras.config.backend() == "torch" else "predict"
    print(
        f"{what} {name:8} batch {args.batch:3}: {without:8.1f} images/s without, {ours:8.1f} with: "
        f"{ours / without:.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=[*NETS], metavar="NET", help=f"of {', '.join(NETS)} (default: all)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=4, metavar="N", help="batches a turn (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--side", choices=("with", "without"), help="one side in this process: prints images a second")
    parser.add_argument(
        "--one-thread", action="store_true",
        help="one thread for everybody, and processor time in place of the clock's: what a busy machine allows",
    )  # fmt: skip
    args = parser.parse_args()
    if keras.config.backend() not in ("torch", "numpy"):
        parser.error(f"Keras runs on {keras.config.backend()}; set KERAS_BACKEND to torch or numpy")
    unknown = [name for name in args.nets if name not in NETS]
    if unknown:
        parser.error(f"unknown net {unknown[0]}; choose from {', '.join(NETS)}")
    clock = time.process_time if args.one_thread else time.perf_counter
    if args.side:
        for name in args.nets:
            print(json.dumps(rates(name, args.batch, args.steps, RUNS, clock)))
        return
    print(
        f"Keras {keras.__version__} on {keras.config.backend()}, {len(os.sched_getaffinity(0))} processors", flush=True
    )
    for name in args.nets:
        measure(name, args)


if __name__ == "__main__":
    main()
