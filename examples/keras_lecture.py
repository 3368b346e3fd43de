"""
The lecture in Keras
====================

The lecture's nets in its own words, Keras' layers, run on plain Keras and with ``fastconv.keras.install()``.

::

    pip install fastconv[keras] torch
    KERAS_BACKEND=torch python examples/keras_lecture.py    # fit and predict
    KERAS_BACKEND=numpy python examples/keras_lecture.py    # predict; plain Keras needs JAX there, with install() none

Five nets for images of 32 x 32: a VGG-style stack of 3x3 convolutions with max pooling, the same with stride 2 in place
of the pooling, one with 1x1 convolutions as bottlenecks, one that is fully convolutional and takes any size, and one
with dilated and transposed convolutions that labels every pixel. For each the largest difference between both results
and the times of a step are printed; on the NumPy backend without JAX there is nothing to compare with.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

import fastconv.keras

os.environ.setdefault("KERAS_BACKEND", "torch")
try:
    with fastconv.keras.installed():  # on NumPy Keras can be imported without JAX
        import keras
        from keras import layers
except ImportError as error:
    sys.exit(f"keras_lecture.py: error: {error}")

CLASSES, BATCH, ROUNDS = 10, 16, 5


def vgg() -> list[Any]:
    """Two 3x3 convolutions see what a 5x5 sees, with fewer weights and one more ReLU; then the image is halved."""
    net: list[Any] = []
    for filters in (32, 64, 128):
        net += [
            layers.Conv2D(filters=filters, kernel_size=(3, 3), padding="same", activation="relu"),
            layers.Conv2D(filters=filters, kernel_size=(3, 3), padding="same", activation="relu"),
            layers.MaxPooling2D(pool_size=(2, 2)),
        ]
    return [*net, layers.Flatten(), layers.Dense(128, activation="relu"), layers.Dense(CLASSES)]


def strided() -> list[Any]:
    """Stride 2 in place of max pooling, as in ResNet and DCGAN."""
    net: list[Any] = []
    for filters in (32, 64, 128):
        net += [
            layers.Conv2D(filters=filters, kernel_size=(3, 3), strides=(1, 1), padding="same", activation="relu"),
            layers.Conv2D(filters=filters, kernel_size=(3, 3), strides=(2, 2), padding="same", activation="relu"),
        ]
    return [*net, layers.Flatten(), layers.Dense(CLASSES)]


def bottleneck() -> list[Any]:
    """1x1 convolutions mix channels pixel by pixel: 128 to 32 before the 3x3, and back behind it."""
    net: list[Any] = [layers.Conv2D(filters=128, kernel_size=(3, 3), strides=(2, 2), padding="same", activation="relu")]
    for _ in range(2):
        net += [
            layers.Conv2D(filters=32, kernel_size=(1, 1), activation="relu"),
            layers.Conv2D(filters=32, kernel_size=(3, 3), padding="same", activation="relu"),
            layers.Conv2D(filters=128, kernel_size=(1, 1), activation="relu"),
        ]
    return [*net, layers.GlobalAveragePooling2D(), layers.Dense(CLASSES)]


def fully_convolutional() -> list[Any]:
    """No dense layer: the classes are a 1x1 convolution, and any size of image goes in."""
    return [
        layers.Conv2D(filters=32, kernel_size=(3, 3), activation="relu"),
        layers.MaxPooling2D(pool_size=(2, 2)),
        layers.Conv2D(filters=64, kernel_size=(3, 3), activation="relu"),
        layers.Conv2D(filters=CLASSES, kernel_size=(1, 1)),
        layers.GlobalAveragePooling2D(),
    ]


def every_pixel() -> list[Any]:
    """Dilation looks further with as many weights; the transposed convolution brings back the size."""
    return [
        layers.Conv2D(filters=32, kernel_size=(3, 3), strides=(2, 2), padding="same", activation="relu"),
        layers.Conv2D(filters=64, kernel_size=(3, 3), dilation_rate=(2, 2), padding="same", activation="relu"),
        layers.Conv2DTranspose(filters=32, kernel_size=(3, 3), strides=(2, 2), padding="same", activation="relu"),
        layers.Conv2D(filters=CLASSES, kernel_size=(1, 1)),
    ]


NETS: dict[str, tuple[Callable[[], list[Any]], tuple[int | None, int | None, int]]] = {
    "VGG-style stack": (vgg, (32, 32, 3)),
    "stride 2 for pooling": (strided, (32, 32, 3)),
    "1x1 bottlenecks": (bottleneck, (32, 32, 3)),
    "fully convolutional": (fully_convolutional, (None, None, 3)),
    "dilated, transposed": (every_pixel, (32, 32, 3)),
}
Side = Callable[[], AbstractContextManager[Any]]


def compare(name: str, rounds: int, sides: dict[str, Side]) -> None:
    """Print a net's difference and times."""
    make, shape = NETS[name]
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input(shape), *make()])
    random = np.random.default_rng(0)
    images = random.standard_normal((BATCH, 32, 32, 3), dtype=np.float32)
    trains = keras.config.backend() == "torch"
    results, times = {}, {side: [] for side in sides}
    for side, installed in sides.items():
        with installed():
            results[side] = net.predict(images, verbose=0)
    labels = random.integers(CLASSES, size=results["fastconv"].shape[:-1])
    if trains:
        net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for turn in range(rounds + 1):  # the first warms up
        for side, installed in sides.items():
            with installed():
                net.predict(images, verbose=0)
                start = time.perf_counter()
                net.fit(images, labels, verbose=0) if trains else net.predict(images, verbose=0)
                if turn:
                    times[side].append(1e3 * (time.perf_counter() - start))
    middle = {side: statistics.median(own) for side, own in times.items()}
    line = (
        f"{name:21} {net.count_params():9,} weights, {'fit' if trains else 'predict'} with {middle['fastconv']:7.1f} ms"
    )
    if "Keras" in sides:
        scale = np.abs(results["Keras"]).max()
        worst = np.abs(results["fastconv"] - results["Keras"]).max() / scale
        ratio = middle["Keras"] / middle["fastconv"]
        line += f", without {middle['Keras']:7.1f} ms: {ratio:.2f} times; largest relative difference {worst:.0e}"
        if worst > 1e-4:
            sys.exit(f"keras_lecture.py: error: {name}: results differ by {worst:.1e}")
    print(line, flush=True)
    if shape[0] is None:
        with fastconv.keras.installed():
            larger = net.predict(np.ones((1, 48, 80, 3), np.float32), verbose=0)
        print(f"{'':21} the same net on an image of 48 x 80: {larger.shape[-1]} scores")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one timing of each: a look in seconds")
    args = parser.parse_args()
    sides: dict[str, Side] = {"Keras": nullcontext, "fastconv": fastconv.keras.installed}
    backend = keras.config.backend()
    if backend == "numpy":
        try:
            import jax  # noqa: F401
        except ImportError:
            del sides["Keras"]
            print("JAX is missing: plain Keras does not run on NumPy here, and there is nothing to compare with.")
    print(f"Keras {keras.__version__} on {backend}, batches of {BATCH}")
    for name in NETS:
        compare(name, 1 if args.quick else ROUNDS, sides)


if __name__ == "__main__":
    main()
