"""Small nets: for digits, for CIFAR, and the fully-connected net that convolution replaced."""

from __future__ import annotations

from collections.abc import Sequence

from ..layers import Conv2D, Dense, Flatten, Layer, MaxPooling2D
from .sequential import Sequential


def mnist_net(classes: int = 10, input_shape: Sequence[int] = (28, 28, 1), seed: int | None = None) -> Sequential:
    """A net for 28 x 28 digits: 3x3 convolutions of 32, 64, pooling, another of 64, pooling, a dense layer.

    Parameters
    ----------
    classes : int
        Length of the output, which is a softmax.
    input_shape : sequence of int
        Height, width and channels of the images.
    seed : int, optional
        Makes the weights, and the draws of dropout, the same every time.

    Returns
    -------
    Sequential
        Built; no weight is allocated before it is used.
    """
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
    """A VGG for 32 x 32 images: 3x3 convolutions of 2x64, 2x128, 3x256 and 3x512, each group pooled, then one dense.

    Parameters
    ----------
    classes : int
        Length of the output, which is a softmax.
    input_shape : sequence of int
        Height, width and channels of the images.
    seed : int, optional
        Makes the weights, and the draws of dropout, the same every time.

    Returns
    -------
    Sequential
        Built; no weight is allocated before it is used.
    """
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
    """A fully connected net, in which every unit sees every pixel: what convolution replaced.

    Parameters
    ----------
    classes : int
        Length of the output, which is a softmax.
    input_shape : sequence of int
        Height, width and channels of the images.
    hidden : sequence of int
        Units of the hidden layers.
    seed : int, optional
        Makes the weights, and the draws of dropout, the same every time.

    Returns
    -------
    Sequential
        Built; no weight is allocated before it is used.
    """
    return Sequential(
        [Flatten(), *(Dense(units, activation="relu") for units in hidden), Dense(classes, activation="softmax")],
        input_shape,
        seed=seed,
        name="mlp",
    )
