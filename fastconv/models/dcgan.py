"""DCGAN (Radford, Metz and Chintala, 2016): strided convolution in place of pooling, transposed convolution to grow."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConvError
from ..layers import (
    Activation,
    BatchNormalization,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Flatten,
    Layer,
    LeakyReLU,
    Reshape,
)
from ..layers.base import positive
from .sequential import Sequential


def _norm(name: str) -> BatchNormalization:
    return BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)


def dcgan_generator(
    noise: int = 100, filters: int = 128, image: int = 64, channels: int = 3, *, seed: int | None = None
) -> Sequential:
    """Build DCGAN's generator: noise (N, noise) to images (N, image, image, channels) within [-1, 1].

    A dense layer to 4 x 4, then 5x5 transposed convolutions of stride 2, each with half the channels.

    Parameters
    ----------
    noise : int
        Length of the input vector.
    filters : int
        Channels of the last hidden image.
    image : int
        Height and width of the result: 8, 16, 32, 64, ...
    channels : int
        Channels of the result.
    seed : int, optional
        Makes the weights, and the draws of dropout, the same every time.

    Returns
    -------
    Sequential
        Built; no weight is allocated before it is used.

    Raises
    ------
    ConvError
        For a size that is no doubling of 4.

    References
    ----------
    Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
    Adversarial Networks", ICLR 2016, figure 1.
    """
    steps = _doublings(image)
    width = positive("filters", filters)
    first = width * 2 ** (steps - 1)
    layers: list[Layer] = [
        Dense(4 * 4 * first, use_bias=False, kernel_initializer="dcgan_normal", name="project"),
        Reshape((4, 4, first), name="reshape"),
        _norm("bn0"),
        Activation("relu", name="relu0"),
    ]
    for i in range(1, steps):
        layers += [
            Conv2DTranspose(
                first // 2**i, 5, 2, padding="same", use_bias=False, kernel_initializer="dcgan_normal", name=f"up{i}"
            ),
            _norm(f"bn{i}"),
            Activation("relu", name=f"relu{i}"),
        ]
    layers.append(
        Conv2DTranspose(
            channels, 5, 2, padding="same", activation="tanh", kernel_initializer="dcgan_normal", name=f"up{steps}"
        )
    )
    return Sequential(layers, (positive("noise", noise),), name="dcgan_generator", seed=seed)


def dcgan_discriminator(
    input_shape: Sequence[int] = (64, 64, 3), filters: int = 64, *, seed: int | None = None
) -> Sequential:
    """Build DCGAN's discriminator: images to the probability that they are real.

    5x5 convolutions of stride 2, LeakyReLU 0.2, no pooling.

    Parameters
    ----------
    input_shape : sequence of int
        Height, width and channels of the images.
    filters : int
        Channels of the first hidden image.
    seed : int, optional
        Makes the weights, and the draws of dropout, the same every time.

    Returns
    -------
    Sequential
        Built; no weight is allocated before it is used.

    Raises
    ------
    ConvError
        For a size that is no doubling of 4.

    References
    ----------
    Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
    Adversarial Networks", ICLR 2016.
    """
    steps = _doublings(input_shape[0])
    layers: list[Layer] = []
    for i in range(steps):
        width, name = positive("filters", filters) * 2**i, f"down{i + 1}"
        start = "dcgan_normal"
        layers.append(Conv2D(width, 5, 2, padding="same", use_bias=i == 0, kernel_initializer=start, name=name))
        if i:
            layers.append(_norm(f"bn{i + 1}"))
        layers.append(LeakyReLU(0.2, name=f"leaky{i + 1}"))
    layers += [
        Flatten(name="flatten"),
        Dense(1, activation="sigmoid", kernel_initializer="dcgan_normal", name="real"),
    ]
    return Sequential(layers, input_shape, name="dcgan_discriminator", seed=seed)


def _doublings(size: int) -> int:
    """How often 4 is doubled to `size`."""
    steps = positive("image", size).bit_length() - 3
    if steps < 1 or 4 << steps != size:
        raise ConvError(f"the image of a DCGAN must be 8, 16, 32, 64, ... pixels wide, but got {size}.")
    return steps
