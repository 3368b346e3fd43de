"""`fit` and `predict` of Keras models with and without `fastconv.keras.install()`, in turns within one process.

    KERAS_BACKEND=torch python bench/keras_fit.py            # fit, images a second
    KERAS_BACKEND=numpy python bench/keras_fit.py            # predict, beside Keras' NumPy backend with JAX

Every turn times both sides on the same model; the medians of the turns and their ratio are printed, with the least and
the largest ratio of one turn. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

if "--one-thread" in sys.argv:  # before the libraries count processors
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import numpy as np

import fastconv.keras

try:
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


def data(net: Any, classes: int, count: int) -> tuple[Any, Any]:
    """Images of noise and labels."""
    random = np.random.default_rng(0)
    images = random.standard_normal((count, *net.input_shape[1:]), dtype=np.float32)
    return images, random.integers(classes, size=(count, *net.output_shape[1:-1]))


def measure(name: str, batch: int, steps: int, turns: int, clock: Callable[[], float]) -> None:
    """Print a row."""
    make, classes = NETS[name]
    keras.utils.set_random_seed(0)
    net = make()
    images, labels = data(net, classes, batch * steps)
    trains = keras.config.backend() == "torch"
    if trains:
        net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def run() -> float:
        start = clock()
        if trains:
            net.fit(images, labels, batch_size=batch, verbose=0, shuffle=False)
        else:
            net.predict(images, batch_size=batch, verbose=0)
        return len(images) / (clock() - start)

    sides = {"without": nullcontext, "with": fastconv.keras.installed}
    rates: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(turns + 1):  # the first warms up
        for side, context in sides.items():
            with context():
                net.predict(images[:batch], batch_size=batch, verbose=0)  # `installed` packs weights anew
                rate = run()
            if turn:
                rates[side].append(rate)
    without, ours = (statistics.median(rates[side]) for side in sides)
    ratios = sorted(b / a for a, b in zip(*rates.values(), strict=True))
    what = "fit" if trains else "predict"
    print(
        f"{what} {name:8} batch {batch:3}: {without:8.1f} images/s without, {ours:8.1f} with: "
        f"{ours / without:.2f} times ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=[*NETS], metavar="NET", help=f"of {', '.join(NETS)} (default: all)")
    parser.add_argument("--batch", type=int, default=32, metavar="N", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=4, metavar="N", help="batches a turn (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=7, metavar="N", help="default: %(default)s")
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
    print(
        f"Keras {keras.__version__} on {keras.config.backend()}, {len(os.sched_getaffinity(0))} processors", flush=True
    )
    for name in args.nets:
        measure(name, args.batch, args.steps, args.turns, time.process_time if args.one_thread else time.perf_counter)


if __name__ == "__main__":
    main()
