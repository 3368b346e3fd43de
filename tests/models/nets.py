"""Nets of every wiring, small, for tests: a U-Net, a ResNet of own blocks, two heads, two inputs, shared layers."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import Input, Model, Sequential, layers


def unet(dtype: str = "float32", size: Any = 8, classes: int = 2, seed: int = 0) -> Model:
    """Down twice and up twice, with the maps of the way down laid beside those of the way up."""
    own: dict[str, Any] = {"dtype": dtype}

    def block(x: Any, filters: int) -> Any:
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, **own)(x)
        x = layers.ReLU(**own)(layers.BatchNormalization(momentum=0.8, **own)(x))
        return layers.Conv2D(filters, 3, padding="same", activation="relu", **own)(x)

    image = Input((size, size, 1), dtype=dtype, name="image")
    high = block(image, 3)
    low = block(layers.MaxPooling2D(**own)(high), 4)
    x = block(layers.MaxPooling2D(**own)(low), 5)
    x = block(layers.Concatenate(**own)([layers.Conv2DTranspose(4, 2, 2, **own)(x), low]), 4)
    x = block(layers.Concatenate(**own)([high, layers.UpSampling2D(2, **own)(x)]), 3)
    return Model(image, layers.Conv2D(classes, 1, activation="softmax", **own)(x), name="unet", seed=seed)


def resnet(dtype: str = "float32", seed: int = 0) -> Model:
    """Blocks whose sums are written as Keras' users do, one of them with a gate over channels."""
    own: dict[str, Any] = {"dtype": dtype}

    def block(x: Any, filters: int, strides: int) -> Any:
        y = layers.Conv2D(filters, 3, strides, "same", use_bias=False, **own)(x)
        y = layers.BatchNormalization(**own)(y)
        y = layers.Conv2D(filters, 3, padding="same", **own)(layers.Activation("relu", **own)(y))
        gate = layers.GlobalAveragePooling2D(keepdims=True, **own)(y)
        y = layers.Multiply(**own)([y, layers.Conv2D(filters, 1, activation="sigmoid", **own)(gate)])
        if strides > 1:
            x = layers.Conv2D(filters, 1, strides, **own)(x)
        return layers.ReLU(**own)(layers.Add(**own)([x, y]))

    x = image = Input((7, 6, 2), dtype=dtype)
    for filters, strides in ((2, 1), (4, 2), (4, 1)):
        x = block(x, filters, strides)
    x = layers.Dense(3, activation="softmax", **own)(layers.GlobalAveragePooling2D(**own)(x))
    return Model(image, x, name="own_resnet", seed=seed)


def two_heads(dtype: str = "float32", seed: int = 0) -> Model:
    """One trunk, a class and a place."""
    own: dict[str, Any] = {"dtype": dtype}
    image = Input((6, 6, 1), dtype=dtype)
    trunk = layers.Flatten(**own)(layers.Conv2D(3, 3, activation="relu", **own)(image))
    kind = layers.Dense(3, activation="softmax", name="kind", **own)(trunk)
    place = layers.Dense(2, name="place", **own)(layers.Dense(4, activation="tanh", **own)(trunk))
    return Model(image, [kind, place], name="two_heads", seed=seed)


def two_inputs(dtype: str = "float32", seed: int = 0) -> Model:
    """An image and numbers beside it, merged in every way."""
    own: dict[str, Any] = {"dtype": dtype}
    image, numbers = Input((5, 5, 2), dtype=dtype, name="image"), Input((3,), dtype=dtype, name="numbers")
    x = layers.GlobalMaxPooling2D(**own)(layers.Conv2D(4, 3, activation="relu", **own)(image))
    y = layers.Dense(4, activation="silu", **own)(numbers)
    merged = [
        merge(**own)([x, y])
        for merge in (layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum)
    ]
    out = layers.Dense(1, name="value", **own)(layers.Concatenate(**own)([*merged, numbers]))
    return Model([image, numbers], out, name="two_inputs", seed=seed)


def shared(dtype: str = "float32", seed: int = 0) -> Model:
    """A net within a net that sees both images, a layer called thrice, and a value that three read."""
    own: dict[str, Any] = {"dtype": dtype}
    tower = Sequential(
        [layers.Conv2D(3, 3, padding="same", activation="relu", **own), layers.BatchNormalization(**own),
         layers.GlobalAveragePooling2D(**own)],
    )  # fmt: skip
    one, other = Input((4, 5, 1), dtype=dtype, name="one"), Input((4, 5, 1), dtype=dtype, name="other")
    again = layers.Dense(3, activation="tanh", **own)
    a, b = again(tower(one)), again(tower(other))
    apart = layers.Subtract(**own)([a, b])
    x = layers.Concatenate(**own)([layers.Multiply(**own)([apart, apart]), again(apart), a + b])
    return Model([one, other], layers.Dense(1, **own)(x), name="shared", seed=seed)


def nested(dtype: str = "float32", seed: int = 0) -> Model:
    """A model of two outputs in a model, one of them read twice, the other an output too."""
    own: dict[str, Any] = {"dtype": dtype}
    image = Input((6, 6, 1), dtype=dtype)
    x = layers.Conv2D(2, 3, activation="relu", **own)(image)
    inner = Model(image, [x, layers.Conv2D(2, 2, **own)(x)], name="inner")
    begin = Input((6, 6, 1), dtype=dtype)
    wide, narrow = inner(begin)
    y = layers.Concatenate(axis=-1, **own)([layers.Flatten(**own)(wide), layers.Flatten(**own)(narrow)])
    return Model(begin, [layers.Dense(2, **own)(y), narrow], name="nested", seed=seed)


MADE = {made.__name__: made for made in (unet, resnet, two_heads, two_inputs, shared, nested)}


def data(net: Model, count: int = 4, seed: int = 1) -> tuple[list[Any], list[Any]]:
    """Inputs, and targets of mean squared error, of a net."""
    random = np.random.default_rng(seed)
    shapes = [tensor.shape[1:] for tensor in net.inputs], [tensor.shape[1:] for tensor in net.outputs]
    x, y = ([random.standard_normal((count, *shape)).astype(net.dtype) for shape in each] for each in shapes)
    return x, y
