"""VGG (Simonyan and Zisserman, 2015, table 1): 3x3 convolutions, max pooling and three dense layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .._core.words import word
from ..layers import Conv2D, Dense, Dropout, Flatten, Layer, LocalResponseNormalization, MaxPooling2D
from .sequential import Sequential

# Filters of every convolution, a group of equal image size a tuple; a negative number is a 1x1 convolution.
CONFIGURATIONS: Final = {
    "A": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "A-LRN": ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    "B": ((64, 64), (128, 128), (256, 256), (512, 512), (512, 512)),
    "C": ((64, 64), (128, 128), (256, 256, -256), (512, 512, -512), (512, 512, -512)),
    "D": ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
    "E": ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
}


def vgg(
    configuration: str = "D",
    classes: int = 1000,
    input_shape: Sequence[int] = (224, 224, 3),
    *,
    dense: int = 4096,
    dropout: float = 0.5,
    seed: int | None = None,
) -> Sequential:
    """Build VGG.

    Parameters
    ----------
    configuration : {'A', 'A-LRN', 'B', 'C', 'D', 'E'}
        Of 11, 11, 13, 16, 16 and 19 layers; 'D' is VGG-16, 'C' has 1x1 convolutions.
    classes : int
        Length of the output, which is a softmax.
    input_shape : sequence of int
        Height, width and channels of the images.
    dense : int
        Units of the two hidden dense layers.
    dropout : float
        The rate behind the two dense layers.
    seed : int, optional
        Makes the weights, and the draws of dropout, the same every time.

    Returns
    -------
    Sequential
        Built; no weight is allocated before it is used.

    Raises
    ------
    ConvError
        For an unknown configuration.

    References
    ----------
    Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, table
    1.

    Examples
    --------
    >>> from fastconv import models
    >>> models.vgg("D").count_params()
    138357544
    """
    known = {name.lower(): name for name in CONFIGURATIONS}
    chosen = known[word("configuration", configuration, tuple(known))]
    layers: list[Layer] = []
    for i, group in enumerate(CONFIGURATIONS[chosen], 1):
        for j, filters in enumerate(group, 1):
            kernel = 3 if filters > 0 else 1
            options: dict[str, Any] = {"padding": "same", "activation": "relu", "kernel_initializer": "he_normal"}
            layers.append(Conv2D(abs(filters), kernel, name=f"block{i}_conv{j}", **options))
            if chosen == "A-LRN" and i == 1:
                layers.append(LocalResponseNormalization(name="block1_lrn"))
        layers.append(MaxPooling2D(2, 2, name=f"block{i}_pool"))
    layers.append(Flatten(name="flatten"))
    for i in (1, 2):
        layers.append(Dense(dense, activation="relu", name=f"fc{i}"))
        if dropout:
            layers.append(Dropout(dropout, name=f"dropout{i}"))
    layers.append(Dense(classes, activation="softmax", name="predictions"))
    return Sequential(layers, input_shape, name=f"vgg_{chosen.lower()}", seed=seed)
