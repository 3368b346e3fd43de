"""Small nets: for digits, for CIFAR, and the fully-connected net that convolution replaced."""

from __future__ import annotations

from collections.abc import Sequence

from ..layers import Conv2D, Dense, Flatten, Layer, MaxPooling2D
from .sequential import Sequential


def mnist_net(classes: int = 10, input_shape: Sequence[int] = (28, 28, 1), seed: int | None = None) -> Sequential:
    """Two 3x3 convolutions (32, 64), pooling, another of 64, pooling, a dense layer: for 28 x 28 digits."""
    return Sequential(
        [
            Conv2D(32, 3, padding="same", activation="relu"),
            Conv2D(64, 3, padding="same", activation="relu"),
            MaxPooling2D(2),
            Conv2D(64, 3, padding="same", activation="relu"),
            MaxPooling2D(2),
            Flatten(),
            Dense(classes, activation="softmax"),
        ],
        input_shape,
        seed=seed,
        name="mnist_net",
    )


def cifar_vgg(classes: int = 10, input_shape: Sequence[int] = (32, 32, 3), seed: int | None = None) -> Sequential:
    """A VGG for 32 x 32 images: 3x3 convolutions of 2x64, 2x128, 3x256 and 3x512, each group pooled, then one dense."""
    layers: list[Layer] = []
    for filters, count in ((64, 2), (128, 2), (256, 3), (512, 3)):
        layers += [
            Conv2D(filters, 3, padding="same", activation="relu", kernel_initializer="he_normal") for _ in range(count)
        ]
        layers.append(MaxPooling2D(2))
    layers += [Flatten(), Dense(classes, activation="softmax")]
    return Sequential(layers, input_shape, seed=seed, name="cifar_vgg")


def mlp(
    classes: int = 10,
    input_shape: Sequence[int] = (28, 28, 1),
    hidden: Sequence[int] = (512, 512),
    seed: int | None = None,
) -> Sequential:
    """Fully connected: every unit sees every pixel. What a convolutional net does with a fraction of the weights."""
    return Sequential(
        [Flatten(), *(Dense(units, activation="relu") for units in hidden), Dense(classes, activation="softmax")],
        input_shape,
        seed=seed,
        name="mlp",
    )
