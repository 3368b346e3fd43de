"""Operators of the zoo's nets: each adds its nodes to a graph and says what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod, sqrt
from typing import Any

import numpy as np

from .functions import apply
from .graph import Graph, Shape, Value, normal, uniform

Sizes = int | Sequence[int]


def _each(sizes: Sizes, axes: int) -> tuple[int, ...]:
    return (sizes,) * axes if isinstance(sizes, int) else tuple(sizes)


def _window(x: Value, kernel: Sizes, stride: Sizes, padding: Sizes | None, dilation: Sizes = 1, ceil: bool = False
            ) -> tuple[dict[str, Any], Shape]:  # fmt: skip
    """The attributes of a window and the spatial shape behind it; a padding of None keeps the size at stride 1."""
    axes = len(x.shape) - 2
    k, s, d = _each(kernel, axes), _each(stride, axes), _each(dilation, axes)
    p = tuple(di * (ki - 1) // 2 for ki, di in zip(k, d, strict=True)) if padding is None else _each(padding, axes)
    after = []
    for n, ki, si, pi, di in zip(x.shape[2:], k, s, p, d, strict=True):
        rest = n + 2 * pi - di * (ki - 1) - 1
        after.append((-(-rest // si) if ceil else rest // si) + 1)
    options = {"kernel_shape": list(k), "strides": list(s), "pads": [*p, *p], "dilations": list(d)}
    return options, tuple(after)


def conv(g: Graph, x: Value, out: int, kernel: Sizes = 1, stride: Sizes = 1, padding: Sizes | None = None,
         dilation: Sizes = 1, groups: int = 1, bias: bool = True, act: str | None = None) -> Value:  # fmt: skip
    """A convolution; its results have a mean square of about one."""
    options, after = _window(x, kernel, stride, padding, dilation)
    shape = (out, x.channels // groups, *options["kernel_shape"])
    terms = prod(shape[1:])
    inputs = [x.name, g.weight(normal(shape, 1 / sqrt(terms * x.power)))]
    if bias:
        inputs.append(g.weight(normal((out,), 0.1)))
    g.macs += x.shape[0] * prod(after) * out * terms
    return apply(g, g.node("Conv", inputs, (x.shape[0], out, *after), 1.0, group=groups, **options), act)


def conv_transpose(g: Graph, x: Value, out: int, kernel: int, stride: int, padding: int, output_padding: int = 0,
                   bias: bool = True, act: str | None = None) -> Value:  # fmt: skip
    """A transposed convolution, of which every output meets about kernel / stride taps an axis."""
    axes = len(x.shape) - 2
    after = tuple((n - 1) * stride - 2 * padding + kernel + output_padding for n in x.shape[2:])
    terms = x.channels * max(1, kernel / stride) ** axes
    inputs = [x.name, g.weight(normal((x.channels, out, *[kernel] * axes), 1 / sqrt(terms * x.power)))]
    if bias:
        inputs.append(g.weight(normal((out,), 0.1)))
    g.macs += x.size * out * kernel**axes
    options: dict[str, Any] = {"kernel_shape": [kernel] * axes, "strides": [stride] * axes}
    options["pads"] = [padding] * 2 * axes
    if output_padding:
        options["output_padding"] = [output_padding] * axes
    return apply(g, g.node("ConvTranspose", inputs, (x.shape[0], out, *after), 1.0, **options), act)


def norm(g: Graph, x: Value, act: str | None = None, scale: float = 1.0, epsilon: float = 1e-5) -> Value:
    """Batch normalisation as it is exported before anybody folds it, with statistics as after training.

    `scale` makes it small where it is what a block adds to its shortcut.
    """
    c = (x.channels,)
    names = [
        g.weight(uniform(c, 0.5 * scale, 1.5 * scale)), g.weight(normal(c, 0.1)),
        g.weight(normal(c, 0.1 * sqrt(x.power))),
        g.weight(uniform(c, 0.6 * x.power, 1.6 * x.power, parameter=False)),
    ]  # fmt: skip
    mean = g.weights[names[2]]
    g.weights[names[2]] = type(mean)(mean.shape, mean.draw, parameter=False)
    # E[gamma^2] E[1 / variance] = 13/12 ln(1.6 / 0.6), and the squares of beta and of the mean, scaled alike
    after = 1.0833 * scale**2 * 0.981 * 1.01 + 0.01
    return apply(g, g.node("BatchNormalization", [x.name, *names], x.shape, after, epsilon=epsilon), act)


def conv_norm(g: Graph, x: Value, out: int, kernel: Sizes = 1, stride: Sizes = 1, act: str | None = "relu",
              scale: float = 1.0, epsilon: float = 1e-5, **options: Any) -> Value:  # fmt: skip
    """Convolution without a bias, batch normalisation, activation."""
    return norm(g, conv(g, x, out, kernel, stride, bias=False, **options), act, scale, epsilon)


def instance_norm(g: Graph, x: Value, act: str | None = None) -> Value:
    c = (x.channels,)
    names = [g.weight(uniform(c, 0.5, 1.5)), g.weight(normal(c, 0.1))]
    return apply(g, g.node("InstanceNormalization", [x.name, *names], x.shape, 1.1, epsilon=1e-5), act)


def layer_norm(g: Graph, x: Value, epsilon: float = 1e-6) -> Value:
    """Over the last axis, as the operator."""
    c = (x.shape[-1],)
    names = [g.weight(uniform(c, 0.5, 1.5)), g.weight(normal(c, 0.1))]
    return g.node("LayerNormalization", [x.name, *names], x.shape, 1.1, axis=-1, epsilon=epsilon)


def spelt_norm(g: Graph, x: Value, axes: Sequence[int], epsilon: float = 1e-5) -> Value:
    """Mean and variance over axes in small operators, as exporters below operator set 17 write LayerNorm.

    Its factor and shift lie along the last axis where that is one of `axes`, else along the channels.
    """
    kept = tuple(1 if axis in axes or axis - len(x.shape) in axes else n for axis, n in enumerate(x.shape))
    last = len(x.shape) - 1 in axes or -1 in axes
    shape = (x.shape[-1],) if last and 1 not in axes else (x.channels, *[1] * (len(x.shape) - 2))

    def mean(value: Value) -> Value:
        return g.node("ReduceMean", [value.name], kept, 1.0, axes=list(axes), keepdims=1)

    centred = g.node("Sub", [x.name, mean(x).name], x.shape, x.power)
    square = g.node("Pow", [centred.name, g.constant(2)], x.shape, 3.0)
    deviation = g.node("Sqrt", [g.node("Add", [mean(square).name, g.constant(epsilon)], kept, 1.0).name], kept, 1.0)
    unit = g.node("Div", [centred.name, deviation.name], x.shape, 1.0)
    scaled = g.node("Mul", [unit.name, g.weight(uniform(shape, 0.5, 1.5))], x.shape, 1.1)
    return g.node("Add", [scaled.name, g.weight(normal(shape, 0.1))], x.shape, 1.1)


def pool(g: Graph, x: Value, kind: str, kernel: Sizes, stride: Sizes, padding: Sizes = 0, ceil: bool = False) -> Value:
    """Maxima, or averages that count the padding as PyTorch's do."""
    options, after = _window(x, kernel, stride, padding, ceil=ceil)
    del options["dilations"]
    options["ceil_mode"] = int(ceil)
    if kind == "AveragePool":
        options["count_include_pad"] = 1
    return g.node(kind, [x.name], (*x.shape[:2], *after), x.power * (1.3 if kind == "MaxPool" else 0.8), **options)


def global_pool(g: Graph, x: Value) -> Value:
    return g.node("GlobalAveragePool", [x.name], (*x.shape[:2], *[1] * (len(x.shape) - 2)), 0.6 * x.power)


def reduce_mean(g: Graph, x: Value, axes: Sequence[int]) -> Value:
    """The mean over spatial axes, which it drops."""
    return g.node("ReduceMean", [x.name], tuple(n for i, n in enumerate(x.shape) if i not in axes), 0.6 * x.power,
                  axes=list(axes), keepdims=0)  # fmt: skip


def flatten(g: Graph, x: Value) -> Value:
    return g.node("Flatten", [x.name], (x.shape[0], prod(x.shape[1:])), x.power, axis=1)


def dense(g: Graph, x: Value, out: int, act: str | None = None) -> Value:
    """A Linear layer: of a matrix by Gemm, of more axes by MatMul and Add, as PyTorch's exporter has it."""
    n = x.shape[-1]
    scale = 1 / sqrt(n * x.power)
    bias = g.weight(normal((out,), 0.1))
    shape = (*x.shape[:-1], out)
    g.macs += prod(shape) * n
    if len(x.shape) == 2:
        made = g.node("Gemm", [x.name, g.weight(normal((out, n), scale)), bias], shape, 1.0, transB=1)
    else:
        product = g.node("MatMul", [x.name, g.weight(normal((n, out), scale))], shape, 1.0)
        made = g.node("Add", [bias, product.name], shape, 1.0)
    return apply(g, made, act)


def add(g: Graph, x: Value, y: Value, act: str | None = None) -> Value:
    return apply(g, g.node("Add", [x.name, y.name], x.shape, x.power + y.power), act)


def mul(g: Graph, x: Value, y: Value) -> Value:
    return g.node("Mul", [x.name, y.name], x.shape, x.power * y.power)


def concat(g: Graph, values: Sequence[Value], axis: int = 1) -> Value:
    shape = list(values[0].shape)
    shape[axis] = sum(value.shape[axis] for value in values)
    power = sum(value.power * value.shape[axis] for value in values) / shape[axis]
    return g.node("Concat", [value.name for value in values], tuple(shape), power, axis=axis)


def split(g: Graph, x: Value, sizes: Sequence[int], axis: int = 1) -> list[Value]:
    shapes = [tuple(size if i == axis else n for i, n in enumerate(x.shape)) for size in sizes]
    return g.nodes_of("Split", [x.name, g.constant(list(sizes), np.int64)], shapes, x.power, axis=axis)


def cut(g: Graph, x: Value, start: int, stop: int, axis: int, step: int = 1) -> Value:
    """A slice along one axis."""
    shape = tuple(len(range(n)[start:stop:step]) if i == axis else n for i, n in enumerate(x.shape))
    names = [g.constant([number], np.int64) for number in (start, stop, axis, step)]
    return g.node("Slice", [x.name, *names], shape, x.power)


def resize(g: Graph, x: Value, factor: int = 2) -> Value:
    """Nearest pixels, as PyTorch's upsampling by a factor is exported."""
    axes = len(x.shape) - 2
    scales = g.constant([1, 1, *[factor] * axes])
    return g.node("Resize", [x.name, "", scales], (*x.shape[:2], *(factor * n for n in x.shape[2:])), x.power,
                  mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric")  # fmt: skip


def pixel_shuffle(g: Graph, x: Value, block: int) -> Value:
    n, c, height, width = x.shape
    return g.node("DepthToSpace", [x.name], (n, c // block**2, height * block, width * block), x.power,
                  blocksize=block, mode="CRD")  # fmt: skip


def reflect(g: Graph, x: Value, padding: int) -> Value:
    pads = g.constant([0, 0, padding, padding] * 2, np.int64)
    height, width = x.shape[2:]
    return g.node("Pad", [x.name, pads], (*x.shape[:2], height + 2 * padding, width + 2 * padding), x.power,
                  mode="reflect")  # fmt: skip


def reshape(g: Graph, x: Value, shape: Sequence[int]) -> Value:
    return g.node("Reshape", [x.name, g.constant(list(shape), np.int64)], tuple(shape), x.power)


def transpose(g: Graph, x: Value, order: Sequence[int]) -> Value:
    return g.node("Transpose", [x.name], tuple(x.shape[axis] for axis in order), x.power, perm=list(order))


def softmax(g: Graph, x: Value, axis: int = -1) -> Value:
    axis %= len(x.shape)
    return g.node("Softmax", [x.name], x.shape, 2.5 / x.shape[axis] ** 2, axis=axis)


def matmul(g: Graph, x: Value, y: Value, power: float) -> Value:
    """The product of two values."""
    shape = (*x.shape[:-1], y.shape[-1])
    g.macs += prod(shape) * x.shape[-1]
    return g.node("MatMul", [x.name, y.name], shape, power)


def scaled(g: Graph, x: Value, factor: float | np.ndarray, op_type: str = "Mul") -> Value:
    """Times (or plus, as `op_type` says) a constant."""
    power = x.power * float(np.mean(np.square(factor))) if op_type == "Mul" else x.power
    return g.node(op_type, [x.name, g.constant(factor)], x.shape, power)


def layer_scale(g: Graph, x: Value, shape: Shape, size: float) -> Value:
    """Times a trained factor a channel."""
    factor = g.weight(uniform(shape, 0.5 * size, 1.5 * size))
    return g.node("Mul", [x.name, factor], x.shape, 1.08 * size**2 * x.power)


def lstm(g: Graph, x: Value, hidden: int) -> Value:
    """A bidirectional LSTM on (T, N, I), its two results behind each other: (T, N, 2 hidden)."""
    steps, batch, inputs = x.shape
    weights = [
        g.weight(normal((2, 4 * hidden, inputs), 1 / sqrt(inputs * x.power))),
        g.weight(normal((2, 4 * hidden, hidden), 1 / sqrt(hidden))), g.weight(normal((2, 8 * hidden), 0.1)),
    ]  # fmt: skip
    g.macs += steps * batch * 8 * hidden * (inputs + hidden)
    zeros = g.constant(np.zeros((2, batch, hidden)))
    made = g.node("LSTM", [x.name, *weights, "", zeros, zeros], (steps, 2, batch, hidden), 0.2,
                  hidden_size=hidden, direction="bidirectional")  # fmt: skip
    return reshape(g, transpose(g, made, (0, 2, 1, 3)), (steps, batch, 2 * hidden))
