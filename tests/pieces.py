"""Random problems for what computes a result piece by piece: nets and images for `tiled_predict`, convolutions that an
algorithm takes, and chunks, for `fastconv.dask`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastconv import ConvError, Input, Model, Sequential
from fastconv._core.problem import Direction
from fastconv._core.select import wishes
from fastconv.layers import (
    Activation,
    Add,
    Average,
    AveragePooling2D,
    BatchNormalization,
    Concatenate,
    Conv2D,
    Conv2DTranspose,
    Dense,
    DepthwiseConv2D,
    Dropout,
    LeakyReLU,
    LocalResponseNormalization,
    Maximum,
    MaxPooling2D,
    Multiply,
    ReLU,
    Residual,
    SeparableConv2D,
    Softmax,
    TiledConv2D,
    UpSampling2D,
    ZeroPadding2D,
)
from fastconv.testing.problems import conv_cases
from fastconv.testing.ways import way

Array = NDArray[Any]

# ---- nets --------------------------------------------------------------------------------------------------------


def _numbers(rng: Any, low: int, high: int) -> tuple[int, int]:
    return int(rng.integers(low, high)), int(rng.integers(low, high))


def _padding(rng: Any, kernel: tuple[int, int], least: int = 0) -> Any:
    if rng.random() < 0.7:
        return str(rng.choice(["valid", "same", "same_lower"]))
    return tuple(tuple(int(n) for n in rng.integers(least, k // 2 + 1, 2)) for k in kernel)


def _window(rng: Any) -> dict[str, Any]:
    """A kernel with strides or a dilation, of a convolution."""
    kernel = (3, 3) if rng.random() < 0.4 else _numbers(rng, 1, 6)
    strides = 1 if rng.random() < 0.5 else _numbers(rng, 1, 5)
    dilation = 1 if strides != 1 or rng.random() < 0.7 else _numbers(rng, 1, 4)
    return {"kernel_size": kernel, "strides": strides, "dilation_rate": dilation, "padding": _padding(rng, kernel, -1)}


def _pool(rng: Any) -> dict[str, Any]:
    size = _numbers(rng, 1, 5)
    return {"pool_size": size, "strides": rng.choice([None, 1, 2, 3]), "padding": _padding(rng, size)}


def _transposed(rng: Any, filters: int) -> Any:
    options, extra = _window(rng), None
    strides = options["strides"]
    if rng.random() < 0.5:
        extra = int(rng.integers(0, strides if strides == 1 else min(strides)))
    return Conv2DTranspose(filters, output_padding=extra, **options)


def _random_layer(rng: Any, channels: int, deep: bool) -> Any:
    """One of every kind that sees a part of the image, with any options."""
    filters = int(rng.choice([1, 3, 8, 32]))
    activation = str(rng.choice(["linear", "relu", "silu", "tanh", "leaky_relu", "softmax"]))
    kinds = [
        lambda: Conv2D(filters, activation=activation, **_window(rng)),
        lambda: Conv2D(32, 3, padding="same", activation=activation),
        lambda: DepthwiseConv2D(depth_multiplier=int(rng.integers(1, 3)), **_window(rng)),
        lambda: SeparableConv2D(filters, activation=activation, **_window(rng)),
        lambda: TiledConv2D(filters, tiles=_numbers(rng, 1, 4), activation=activation, **_window(rng)),
        lambda: _transposed(rng, filters),
        lambda: Conv2DTranspose(32, *((3, 1), (4, 2))[rng.integers(2)], "same", activation=activation),
        lambda: MaxPooling2D(**_pool(rng)),
        lambda: AveragePooling2D(**_pool(rng)),
        lambda: ZeroPadding2D((_numbers(rng, 0, 9), _numbers(rng, 0, 9))),
        lambda: UpSampling2D(_numbers(rng, 1, 4)),
        lambda: [BatchNormalization(), Activation("hard_swish"), LeakyReLU(0.3), ReLU(2.0)][rng.integers(4)],
        lambda: [LocalResponseNormalization(3), Softmax(), Dense(filters, activation), Dropout(0.5)][rng.integers(4)],
    ]
    if deep:
        kinds += [
            lambda: Residual(_body(rng, channels), activation="relu"),
            lambda: Residual([Conv2D(channels, 3, 2, "same")], [Conv2D(channels, 1, 2, "same")], activation),
            lambda: _wired(rng, channels, filters),
            lambda: Sequential([_random_layer(rng, channels, False) for _ in range(rng.integers(1, 3))]),
        ]
    return kinds[rng.integers(len(kinds))]()


def _wired(rng: Any, channels: int, filters: int) -> Any:
    """A net of several paths, one of which sees more than the others; two read one value."""
    x = Input((None, None, channels))
    y = Concatenate()([Conv2D(filters, 3, padding="same", activation="relu")(x), MaxPooling2D(2, 1, "same")(x), x])
    merge = [Add, Multiply, Maximum, Average][rng.integers(4)]()
    return Model(x, merge([Conv2D(filters, 5, padding="same")(y), Conv2D(filters, 1)(y)]))


def _body(rng: Any, channels: int) -> list[Any]:
    """What a residual block may add to its input; sometimes it does not fit and the caller draws again."""
    if rng.random() < 0.3:
        return [_random_layer(rng, channels, False) for _ in range(rng.integers(1, 3))]
    last = [Conv2D(channels, 1), Activation("relu"), MaxPooling2D(3, 1, "same")][rng.integers(3)]
    return [Conv2D(channels, 3, padding="same"), BatchNormalization(), last]


def _net(rng: Any) -> tuple[Sequential, tuple[int, int, int]]:
    """A net that takes an image of this shape."""
    while True:
        shape = (*(int(n) for n in rng.choice([1, 2, 5, 13, 24, 37], 2)), int(rng.choice([1, 3, 32])))
        made, current = [], shape
        for _ in range(rng.integers(1, 5)):
            layer = _random_layer(rng, current[2], True)
            try:
                after = layer.output_shape(current)
            except ConvError:
                continue
            if len(after) == 3 and 0 < after[0] * after[1] * after[2] < 20000:
                made.append(layer)
                current = after
        if made:
            return Sequential(made, input_shape=shape, seed=int(rng.integers(100))), shape


def random_net(seed: Any) -> tuple[Sequential, Array, list[Any]]:
    """A net with random weights, an image, and the sizes of tiles to cut it into."""
    rng = np.random.default_rng(seed)
    net, shape = _net(rng)
    for parameter in net.parameters():
        drawn = rng.uniform(0.5, 1, parameter.shape) if "variance" in parameter.name else None
        parameter.assign(rng.standard_normal(parameter.shape) if drawn is None else drawn)
    tiles: list[Any] = [_numbers(rng, 1, 12), 20]
    if shape[0] * shape[1] <= 200:
        tiles.append(1)
    image = rng.standard_normal(shape).astype("float32")
    if rng.random() < 0.3:  # the bits do not follow how it lies in memory
        image = np.asfortranarray(image)[::-1]
    return net, image, tiles


def described(layer: Any) -> str:
    own = {k: v for k, v in vars(layer).items() if k in ("kernel_size", "strides", "padding", "dilation_rate", "size",
           "output_padding", "pool_size", "filters", "tiles", "axis", "units")}  # fmt: skip
    return f"{type(layer).__name__}({own}{[described(inner) for inner in layer.sublayers()] or ''})"


# ---- convolutions --------------------------------------------------------------------------------------------------


def random_chunks(rng: np.random.Generator, size: int) -> tuple[int, ...]:
    """A random partition of an axis."""
    if size == 0:
        return (0,)
    cuts = sorted({int(cut) for cut in rng.integers(1, size + 1, rng.integers(0, 4))} | {size})
    return tuple(int(n) for n in np.diff([0, *cuts]))


ASKED = ("auto", *wishes())


def forced_problem(rng: np.random.Generator, algorithm: str) -> tuple[Any, Any, Any, dict[str, Any]]:
    """A small problem in float32 that the algorithm takes, by a bias or not."""
    case = None
    while case is None:
        (drawn,) = conv_cases(1, int(rng.integers(1 << 30)))
        drawn = replace(drawn, dtypes=("float32", "float32"), batch=drawn.batch or 1)
        case = drawn
        if algorithm != "auto":
            asked = way(algorithm)
            case = asked.method.example(drawn, asked.variant, Direction.FORWARD)
        if case is not None and 0 in (*case.size, case.in_channels, case.out_channels):
            case = None
    x, w, bias = case.arrays("reals")
    return x, w, bias, case.options() | {"algorithm": algorithm}
