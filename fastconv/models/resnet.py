"""Residual nets: ResNet (He et al., 2016), Wide ResNet (Zagoruyko and Komodakis, 2016) for ImageNet and for CIFAR.

Convolutions before a BatchNormalization have no bias; the stride of a bottleneck is in its 3x3, as in most
implementations ("ResNet v1.5").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from .._core.words import integer, word
from ..errors import ConvError
from ..layers import (
    Activation,
    BatchNormalization,
    Conv2D,
    Dense,
    Dropout,
    GlobalAveragePooling2D,
    Layer,
    MaxPooling2D,
    Residual,
)
from ..layers.base import positive, real
from .sequential import Sequential

# Blocks in each of the four groups, and whether they are bottlenecks.
DEPTHS: Final = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
CIFAR_BLOCKS: Final = ("basic", "bottleneck", "basic-wide", "wide-dropout")


def _conv(filters: int, kernel: int, stride: int, name: str) -> Conv2D:
    """A convolution without bias, padded by half the kernel on both sides."""
    return Conv2D(
        filters, kernel, stride, padding=kernel // 2, use_bias=False, kernel_initializer="he_normal", name=name
    )


def _norm(name: str) -> BatchNormalization:
    return BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)


def _relu(name: str) -> Activation:
    return Activation("relu", name=name)


def _block(inputs: int, inner: int, outputs: int, stride: int, bottleneck: bool, name: str) -> Residual:
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1; a 1x1 convolution as the shortcut where the shape changes."""
    if bottleneck:
        steps = [(inner, 1, 1), (inner, 3, stride), (outputs, 1, 1)]
    else:
        steps = [(inner, 3, stride), (outputs, 3, 1)]
    body: list[Layer] = []
    for i, (filters, kernel, step) in enumerate(steps, 1):
        body += [_conv(filters, kernel, step, f"conv{i}"), _norm(f"bn{i}")]
        if i < len(steps):
            body.append(_relu(f"relu{i}"))
    changed = stride != 1 or inputs != outputs
    shortcut = [_conv(outputs, 1, stride, "shortcut_conv"), _norm("shortcut_bn")] if changed else None
    return Residual(body, shortcut, activation="relu", name=name)


def _imagenet(
    depth: int, width: int, classes: int, input_shape: Sequence[int], seed: int | None, name: str
) -> Sequential:
    counts, bottleneck = DEPTHS[depth]
    layers: list[Layer] = [
        _conv(64, 7, 2, "stem_conv"),
        _norm("stem_bn"),
        _relu("stem_relu"),
        MaxPooling2D(3, 2, padding=1, name="stem_pool"),
    ]
    inputs = 64
    for group, count in enumerate(counts):
        inner = 64 * 2**group
        outputs = 4 * inner if bottleneck else inner
        for i in range(count):
            stride = 2 if group and i == 0 else 1
            layers.append(
                _block(inputs, inner * width, outputs, stride, bottleneck, f"group{group + 1}_block{i + 1}")
            )
            inputs = outputs
    layers += [GlobalAveragePooling2D(name="pool"), Dense(classes, activation="softmax", name="predictions")]
    return Sequential(layers, input_shape, name=name, seed=seed)


def resnet(
    depth: int = 50,
    classes: int = 1000,
    input_shape: Sequence[int] = (224, 224, 3),
    *,
    seed: int | None = None,
) -> Sequential:
    """Build ResNet; a bottleneck's stride is in its 3x3.

    Parameters
    ----------
    depth : {18, 34, 50, 101, 152}
        Layers.
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

    Raises
    ------
    ConvError
        For another depth.

    References
    ----------
    He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, table 1.

    Examples
    --------
    >>> from fastconv import models
    >>> table = models.resnet(50).table()
    >>> table.parameters, table.macs
    (25557032, 4089184256)
    """
    number = integer("depth", depth)
    if number not in DEPTHS:
        raise ConvError(f"depth of a ResNet must be one of {', '.join(map(str, DEPTHS))}, but got depth={depth!r}.")
    return _imagenet(number, 1, classes, input_shape, seed, f"resnet_{number}")


def wide_resnet(
    depth: int = 50,
    width: int = 2,
    classes: int = 1000,
    input_shape: Sequence[int] = (224, 224, 3),
    *,
    seed: int | None = None,
) -> Sequential:
    """Build ResNet-50 or -101 with wider 3x3 convolutions.

    Parameters
    ----------
    depth : {50, 101}
        Layers.
    width : int
        The factor of the channels of every 3x3 convolution.
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

    Raises
    ------
    ConvError
        For another depth.

    References
    ----------
    Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, section 3.4.
    """
    number, factor = integer("depth", depth), positive("width", width)
    if number not in (50, 101):
        raise ConvError(f"depth of a wide ResNet must be 50 or 101, but got depth={depth!r}.")
    return _imagenet(number, factor, classes, input_shape, seed, f"wide_resnet_{number}_{factor}")


def wide_resnet_cifar(
    depth: int = 28,
    width: int = 10,
    block: str = "basic",
    classes: int = 10,
    input_shape: Sequence[int] = (32, 32, 3),
    *,
    dropout: float = 0.3,
    seed: int | None = None,
) -> Sequential:
    """Build WRN-depth-width for CIFAR, in the pre-activation order.

    Parameters
    ----------
    depth : int
        6n + 4 for n blocks in each of three groups; a net of bottlenecks has as many blocks and is half as deep again.
    width : int
        The factor of all channels.
    block : {'basic', 'bottleneck', 'basic-wide', 'wide-dropout'}
        Two 3x3; 1x1, 3x3, 1x1 to four times the channels; the basic block that the paper widens; dropout between the
        two 3x3.
    classes : int
        Length of the output, which is a softmax.
    input_shape : sequence of int
        Height, width and channels of the images.
    dropout : float
        The rate of 'wide-dropout'.
    seed : int, optional
        Makes the weights, and the draws of dropout, the same every time.

    Returns
    -------
    Sequential
        Built; no weight is allocated before it is used.

    Raises
    ------
    ConvError
        For a depth that is not 6n + 4.

    References
    ----------
    Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, figure 1 and table 1.
    """
    kind = word("block", block, CIFAR_BLOCKS)
    number, factor = integer("depth", depth), positive("width", width)
    rate = real("dropout", dropout, 0, 1) if kind == "wide-dropout" else 0.0
    if number < 10 or (number - 4) % 6:
        raise ConvError(f"depth of a CIFAR wide ResNet must be 6n + 4 (10, 16, 22, 28, ...), but got depth={depth!r}.")
    layers: list[Layer] = [_conv(16, 3, 1, "stem_conv")]
    inputs = 16
    for group in range(3):
        inner = 16 * 2**group * factor
        outputs = 4 * inner if kind == "bottleneck" else inner
        for i in range((number - 4) // 6):
            stride = 2 if group and i == 0 else 1
            name = f"group{group + 1}_block{i + 1}"
            layers += _preactivated(inputs, inner, outputs, stride, kind == "bottleneck", rate, name)
            inputs = outputs
    layers += [
        _norm("bn"),
        _relu("relu"),
        GlobalAveragePooling2D(name="pool"),
        Dense(classes, activation="softmax", name="predictions"),
    ]
    return Sequential(layers, input_shape, name=f"wrn_{number}_{factor}", seed=seed)


def _preactivated(
    inputs: int, inner: int, outputs: int, stride: int, bottleneck: bool, rate: float, name: str
) -> list[Layer]:
    """BN, ReLU and convolution in turn; where the shape changes, the shortcut starts behind the first BN and ReLU."""
    if bottleneck:
        steps = [(inner, 1, 1), (inner, 3, stride), (outputs, 1, 1)]
    else:
        steps = [(inner, 3, stride), (outputs, 3, 1)]
    changed = stride != 1 or inputs != outputs
    before: list[Layer] = [_norm(f"{name}_bn1"), _relu(f"{name}_relu1")] if changed else []
    body: list[Layer] = []
    for i, (filters, kernel, step) in enumerate(steps, 1):
        if i > 1 or not changed:
            body += [_norm(f"bn{i}"), _relu(f"relu{i}")]
        if rate and i == 2:
            body.append(Dropout(rate, name="dropout"))
        body.append(_conv(filters, kernel, step, f"conv{i}"))
    shortcut = [_conv(outputs, 1, stride, "shortcut_conv")] if changed else None
    return [*before, Residual(body, shortcut, name=name)]
