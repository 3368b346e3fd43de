"""The NumPy twin of every public function: same names, same arguments, plain enough to be read beside a textbook.

One identity carries the file. A convolution is a sum over the taps t of its kernel, one index an axis,

    y[n, o, places] += w[o, c, t] * x[n, c, places of tap t]        (summed over c),

where along an axis tap i of output p looks at padded position p * stride + i * dilation. Read from left to right it is
the convolution; with y given and x wanted it is the gradient of the input, which is the transposed convolution; with x
and y given and w wanted it is the gradient of the weight. A tap that looks at zero padding is skipped, not multiplied,
so an infinite weight over the padding contributes nothing.

Every function is written once, for any number of axes; `_of_axes` gives it its names. Floats are computed in float64
and rounded once at the end; integers are computed exactly, in Python's own unbounded integers where int64 could
overflow. Options that only steer speed are accepted and ignored. Shapes come from `_core.geometry`, as everywhere;
nothing here calls the compiled code.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import product
from math import erf, prod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._core import geometry, transposed, windows
from .._core.activations import activation_name
from .._core.geometry import Geometry
from .._core.windows import PoolGeometry
from .._core.words import Padding, Size
from ..errors import ConvError, ConvTypeError

Array = NDArray[Any]
Places = tuple[Any, ...]  # an index array for each spatial axis, to be broadcast: np.ix_
Tap = tuple[Places, Places, Places]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.minimum(np.maximum(x, 0), 6),
    "leaky_relu": lambda x: np.where(x < 0, 0.01 * x, x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "hardswish": lambda x: x * np.minimum(np.maximum(x + 3, 0), 6) / 6,
    "tanh": np.tanh,
    "gelu": lambda x: x * (0.5 * (1 + _erf(x * 0.5**0.5))),
    "gelu_tanh": lambda x: x * (0.5 * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))),
}


def _erf(x: Array) -> Array:
    return np.array([erf(value) for value in x.ravel().tolist()], np.float64).reshape(x.shape)


# ---- Names ----------------------------------------------------------------------------------------------------------


def _of_axes(name: str, function: Callable[..., Any], axes: int) -> Callable[..., Any]:
    """`function` of so many axes, its first argument, under its public name and with the signature of its twin."""

    def twin(*args: Any, **options: Any) -> Any:
        return function(axes, *args, **options)

    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1:]
    format_ = {1: "NCW", 2: "NCHW", 3: "NCDHW"}[axes]
    parameters = [p.replace(default=format_) if p.name == "data_format" else p for p in parameters]
    twin.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    twin.__name__ = twin.__qualname__ = name
    twin.__doc__ = function.__doc__
    return twin


# ---- The functions of fastconv --------------------------------------------------------------------------------------


def _conv(
    axes: int,
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "channels_first",
    activation: str | None = None,
    residual: ArrayLike | None = None,
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
    out: Array | None = None,
) -> Array:
    """The convolution act(conv(input, weight) + bias + residual)."""
    x, batched = _to_first(input, axes, data_format)
    w = _weight_to_first(weight, data_format)
    g = _geometry(x, w, stride, padding, dilation, groups, padding_mode, padding_value)
    dtype = _result_dtype(x, w)
    r = None if residual is None else _to_first(residual, axes, data_format)[0]
    with np.errstate(all="ignore"):
        y = _forward(g, _wide(x), _wide(w))
        if bias is not None:
            y = y + _per_channel(bias, axes)
        if r is not None:
            y = y + _wide(r)
        if activation is not None:
            y = ACTIVATIONS[activation_name(activation, tuple(ACTIVATIONS))](y)
        return _finish(y, dtype, data_format, batched, out)


def _conv_transpose(
    axes: int,
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    output_size: Size | None = None,
    data_format: str = "channels_first",
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
    out: Array | None = None,
) -> Array:
    """The input gradient of the convolution with these options, as an operation of its own, plus a bias."""
    y, batched = _to_first(input, axes, data_format)
    w = _weight_to_first(weight, data_format)
    g = transposed.conv_transpose_geometry(
        y.shape, w.shape, stride, padding, output_padding, groups, dilation, output_size=output_size
    )
    with np.errstate(all="ignore"):
        x = _input_gradient(g, _wide(y), _wide(w))
        if bias is not None:
            x = x + _per_channel(bias, axes)
        return _finish(x, _result_dtype(y, w), data_format, batched, out)


def _conv_backward(
    axes: int,
    grad_output: ArrayLike,
    input: ArrayLike,
    weight: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    output_mask: Sequence[bool] = (True, True, True),
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "channels_first",
    algorithm: str = "auto",
    num_threads: int | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """The gradients of the convolution with respect to input, weight and bias."""
    x, batched = _to_first(input, axes, data_format)
    w = _weight_to_first(weight, data_format)
    dy = _to_first(grad_output, axes, data_format)[0]
    g = _geometry(x, w, stride, padding, dilation, groups, padding_mode, padding_value)
    dx = dw = db = None
    with np.errstate(all="ignore"):
        if output_mask[0]:
            dx = _finish(_input_gradient(g, _wide(dy), _wide(w)), _result_dtype(dy, w), data_format, batched)
        if output_mask[1]:
            dw = _finish_weight(_weight_gradient(g, _wide(x), _wide(dy)), _result_dtype(dy, x), data_format)
        if output_mask[2]:
            db = _bias_gradient(dy, _result_dtype(dy, dy))
    return dx, dw, db


def tiled_conv2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    *,
    dilation: Size = 1,
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    max_workspace: int | None = None,
    out: Array | None = None,
) -> Array:
    """Kernels that take turns over the output: pixel (y, x) is made with kernel [y mod tH, x mod tW]."""
    x, batched = _to_first(input, 2, data_format)
    kernels = _tiles(weight, data_format)
    g = geometry.conv_geometry(x.shape, kernels.shape[2:], stride, padding, dilation, 1, name="tiled_conv2d")
    with np.errstate(all="ignore"):
        y = np.zeros((g.batch, g.out_channels, *g.output_size), np.result_type(_wide(x), _wide(kernels)))
        for a, b, pixels in _tile_pixels(kernels):
            y[pixels] = _forward(g, _wide(x), _wide(kernels)[a, b])[pixels]
        if bias is not None:
            y = y + _per_channel(bias, 2)
        return _finish(y, _result_dtype(x, kernels), data_format, batched, out)


class CausalConv1d:
    """The causal convolution of a sequence that arrives in chunks: that of all so far, less what was given before."""

    def __init__(
        self, weight: ArrayLike, bias: ArrayLike | None = None, stride: int = 1, dilation: int = 1, groups: int = 1, *,
        data_format: str = "NCW", activation: str | None = None,
    ) -> None:  # fmt: skip
        self.arguments: tuple[Any, ...] = (weight, bias, stride, "causal", dilation, groups)
        self.options: dict[str, Any] = {"data_format": data_format, "activation": activation}
        self.axis = -2 if _channels_last(data_format) else -1
        self.reset()

    def reset(self) -> None:
        """Begin a new sequence."""
        self.parts: list[Array] = []
        self.given = 0

    def run(self, chunk: ArrayLike) -> Array:
        """The outputs that a chunk completes."""
        self.parts.append(np.asarray(chunk))
        y = _conv(1, np.concatenate(self.parts, self.axis), *self.arguments, **self.options)
        new = np.moveaxis(np.moveaxis(y, self.axis, -1)[..., self.given :], -1, self.axis)
        self.given = y.shape[self.axis]
        return new


def _max(
    axes: int,
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    data_format: str = "channels_first",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    """The largest value of each window; a NaN counts as larger than all. Indices count all positions of a channel."""
    x, batched = _to_first(input, axes, data_format)
    g = windows.pool_geometry(x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    best, index = _max_pool(g, x)
    values = _finish(best, x.dtype.newbyteorder("="), data_format, batched, out)
    return (values, _finish(index, np.dtype(np.int64), data_format, batched)) if return_indices else values


def _average(
    axes: int,
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    data_format: str = "channels_first",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """The sum of each window over the number of its pixels, padding counted or not, or over `divisor_override`."""
    x, batched = _to_first(input, axes, data_format)
    g = windows.pool_geometry(x.shape, kernel_size, stride, padding, 1, ceil_mode)
    with np.errstate(all="ignore"):
        mean = _avg_pool(g, x, count_include_pad, divisor_override)
        return _finish(mean, x.dtype.newbyteorder("="), data_format, batched, out)


conv1d, conv2d, conv3d = (_of_axes(f"conv{n}d", _conv, n) for n in (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = (
    _of_axes(f"conv_transpose{n}d", _conv_transpose, n) for n in (1, 2, 3)
)
conv1d_backward, conv2d_backward, conv3d_backward = (
    _of_axes(f"conv{n}d_backward", _conv_backward, n) for n in (1, 2, 3)
)
max_pool1d, max_pool2d, max_pool3d = (_of_axes(f"max_pool{n}d", _max, n) for n in (1, 2, 3))
avg_pool1d, avg_pool2d, avg_pool3d = (_of_axes(f"avg_pool{n}d", _average, n) for n in (1, 2, 3))


# ---- The functions of fastconv.grad ---------------------------------------------------------------------------------


def _conv_input(
    axes: int,
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "channels_first",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """The gradient of the convolution with respect to its input."""
    # Only the shape of this stand-in is used.
    input = np.broadcast_to(np.zeros((), np.asarray(grad_output).dtype), tuple(input_size))
    dx, _, _ = _conv_backward(
        axes, grad_output, input, weight, stride, padding, dilation, groups,
        output_mask=(True, False, False), padding_mode=padding_mode, padding_value=padding_value,
        data_format=data_format,
    )  # fmt: skip
    assert dx is not None
    return _into(dx, out, accumulate)


def _conv_weight(
    axes: int,
    input: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    padding_value: float = 0,
    data_format: str = "channels_first",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """The gradient of the convolution with respect to its weight."""
    weight = np.broadcast_to(np.zeros((), np.asarray(grad_output).dtype), tuple(weight_size))
    _, dw, _ = _conv_backward(
        axes, grad_output, input, weight, stride, padding, dilation, groups,
        output_mask=(False, True, False), padding_mode=padding_mode, padding_value=padding_value,
        data_format=data_format,
    )  # fmt: skip
    assert dw is not None
    return _into(dw, out, accumulate)


def _conv_transpose_input(
    axes: int,
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    output_size: Size | None = None,
    data_format: str = "channels_first",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """The gradient of the transposed convolution with respect to its input: the convolution that it transposes."""
    dy, batched = _to_first(grad_output, axes, data_format)
    w = _weight_to_first(weight, data_format)
    shape = _shape_to_first(input_size, axes, data_format)
    g = transposed.conv_transpose_geometry(
        shape, w.shape, stride, padding, output_padding, groups, dilation, output_size=output_size
    )
    with np.errstate(all="ignore"):
        dx = _finish(_forward(g, _wide(dy), _wide(w)), _result_dtype(dy, w), data_format, batched)
        return _into(dx, out, accumulate)


def _conv_transpose_weight(
    axes: int,
    input: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    output_size: Size | None = None,
    data_format: str = "channels_first",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """The gradient of the transposed convolution with respect to its weight."""
    x = _to_first(input, axes, data_format)[0]
    dy = _to_first(grad_output, axes, data_format)[0]
    shape = _weight_to_first(np.broadcast_to(np.float32(0), tuple(weight_size)), data_format).shape
    g = transposed.conv_transpose_geometry(
        x.shape, shape, stride, padding, output_padding, groups, dilation, output_size=output_size
    )
    with np.errstate(all="ignore"):
        dw = _finish_weight(_weight_gradient(g, _wide(dy), _wide(x)), _result_dtype(dy, x), data_format)
        return _into(dw, out, accumulate)


def tiled_conv2d_input(
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    *,
    dilation: Size = 1,
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """The gradient of tiled_conv2d with respect to its input."""
    dy, batched = _to_first(grad_output, 2, data_format)
    kernels = _tiles(weight, data_format)
    shape = _shape_to_first(input_size, 2, data_format)
    g = geometry.conv_geometry(shape, kernels.shape[2:], stride, padding, dilation, 1, name="tiled_conv2d_input")
    with np.errstate(all="ignore"):
        dx = np.zeros(shape, np.result_type(_wide(dy), _wide(kernels)))
        for a, b, pixels in _tile_pixels(kernels):
            dx += _input_gradient(g, _only(_wide(dy), pixels), _wide(kernels)[a, b])
        return _into(_finish(dx, _result_dtype(dy, kernels), data_format, batched), out, accumulate)


def tiled_conv2d_weight(
    input: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    *,
    dilation: Size = 1,
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """The gradient of tiled_conv2d with respect to its weight."""
    x = _to_first(input, 2, data_format)[0]
    dy = _to_first(grad_output, 2, data_format)[0]
    stand_in = _tiles(np.broadcast_to(np.zeros((), dy.dtype), tuple(weight_size)), data_format)
    g = geometry.conv_geometry(x.shape, stand_in.shape[2:], stride, padding, dilation, 1, name="tiled_conv2d_weight")
    with np.errstate(all="ignore"):
        dw = np.zeros(stand_in.shape, np.result_type(_wide(x), _wide(dy)))
        for a, b, pixels in _tile_pixels(stand_in):
            dw[a, b] = _weight_gradient(g, _wide(x), _only(_wide(dy), pixels))
    if _channels_last(data_format):
        dw = dw.transpose(0, 1, 4, 5, 3, 2)
    return _into(_narrow(dw, _result_dtype(dy, x)), out, accumulate)


def _max_input(
    axes: int,
    input: ArrayLike,
    kernel_size: Size,
    grad_output: ArrayLike,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    data_format: str = "channels_first",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """The gradient of the largest value of each window: each value goes back to the pixel it came from."""
    x, batched = _to_first(input, axes, data_format)
    dy = _to_first(grad_output, axes, data_format)[0]
    g = windows.pool_geometry(x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    dx = _scattered(g, dy, _max_pool(g, x)[1])
    return _into(_finish(dx, dy.dtype.newbyteorder("="), data_format, batched), out, accumulate)


def _average_input(
    axes: int,
    input_size: Sequence[int],
    kernel_size: Size,
    grad_output: ArrayLike,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    data_format: str = "channels_first",
    num_threads: int | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array:
    """The gradient of the mean of each window: each value goes back to its whole window in equal parts."""
    dy, batched = _to_first(grad_output, axes, data_format)
    shape = _shape_to_first(input_size, axes, data_format)
    g = windows.pool_geometry(shape, kernel_size, stride, padding, 1, ceil_mode)
    with np.errstate(all="ignore"):
        dx = _avg_pool_gradient(g, dy, count_include_pad, divisor_override)
        return _into(_finish(dx, dy.dtype.newbyteorder("="), data_format, batched), out, accumulate)


conv1d_input, conv2d_input, conv3d_input = (_of_axes(f"conv{n}d_input", _conv_input, n) for n in (1, 2, 3))
conv1d_weight, conv2d_weight, conv3d_weight = (_of_axes(f"conv{n}d_weight", _conv_weight, n) for n in (1, 2, 3))
conv_transpose1d_input, conv_transpose2d_input, conv_transpose3d_input = (
    _of_axes(f"conv_transpose{n}d_input", _conv_transpose_input, n) for n in (1, 2, 3)
)
conv_transpose1d_weight, conv_transpose2d_weight, conv_transpose3d_weight = (
    _of_axes(f"conv_transpose{n}d_weight", _conv_transpose_weight, n) for n in (1, 2, 3)
)
max_pool1d_input, max_pool2d_input, max_pool3d_input = (
    _of_axes(f"max_pool{n}d_input", _max_input, n) for n in (1, 2, 3)
)
avg_pool1d_input, avg_pool2d_input, avg_pool3d_input = (
    _of_axes(f"avg_pool{n}d_input", _average_input, n) for n in (1, 2, 3)
)


def abs_sum(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """S of the error bound (docs/accuracy.md): `function`, one of the above, on the magnitudes in float64."""

    def magnitude(value: Any) -> Any:
        return np.abs(value.astype(np.float64)) if isinstance(value, np.ndarray) else value

    kept = {name: magnitude(value) for name, value in options.items() if name not in ("activation", "out")}
    if "padding_value" in kept:
        kept["padding_value"] = abs(kept["padding_value"])
    return function(*(magnitude(value) for value in arguments), **kept)


def rounded(array: ArrayLike, dtype: str) -> Array:
    """Weights as plans with `weights_dtype=dtype` hold them, or operands as `precision=dtype` rounds them, in float32:
    the nearest numbers of that type, of two as near the one that is even.

    A number of 'float16' has 11 significant bits, and none below 2**-24; one of 'bfloat16' 8, and none below 2**-133.
    """
    bits, least = {"float32": (24, -149), "float16": (11, -24), "bfloat16": (8, -133)}[dtype]
    x = np.asarray(array, np.float64)
    step = np.ldexp(1.0, np.maximum(np.frexp(x)[1] - bits, least))
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = np.where(np.isfinite(x), np.rint(x / step) * step, x)
        largest = (2 - 2.0 ** (1 - bits)) * 2.0 ** (15 if dtype == "float16" else 127)
        return np.where(np.abs(nearest) > largest, np.sign(nearest) * np.inf, nearest).astype(np.float32)


# ---- The three readings of the identity -----------------------------------------------------------------------------


def _geometry(
    x: Array, w: Array, stride: Size, padding: Padding, dilation: Size, groups: int, mode: str, value: float
) -> Geometry:
    """The convolution of these arrays, with the value of its padding as the input's type holds it."""
    g = geometry.conv_geometry(x.shape, w.shape, stride, padding, dilation, groups, mode, value)
    if g.padding_mode != "constant":
        return g
    with np.errstate(all="ignore"):
        held = np.asarray(g.padding_value).astype(x.dtype)
    if x.dtype.kind != "f" and held != g.padding_value:
        raise ConvTypeError(f"padding_value={value!r} is no {x.dtype}")
    return g._replace(padding_value=held.item())


def _filled(g: Geometry, x: Array) -> tuple[Geometry, Array]:
    """A padding that holds a constant as a part of the image, around which there is none."""
    if g.padding_mode != "constant":
        return g, x
    grown = [(0, 0), (0, 0), *((max(before, 0), max(after, 0)) for before, after in g.padding)]
    cropped = tuple((min(before, 0), min(after, 0)) for before, after in g.padding)
    x = np.pad(x, grown, constant_values=g.padding_value)
    return g._replace(input_size=x.shape[2:], padding=cropped, padding_mode="zeros", padding_value=0), x


def _forward(g: Geometry, x: Array, w: Array) -> Array:
    g, x = _filled(g, x)
    y = np.zeros((g.batch, g.out_channels, *g.output_size), np.result_type(x, w))
    by_group = _split_channels(y, g.groups)
    for tap, outputs, inputs in _taps(g):
        window = _split_channels(x[:, :, *inputs], g.groups)
        by_group[:, :, :, *outputs] += _product(_tap_weight(g, w, tap), window)
    return y


def _input_gradient(g: Geometry, dy: Array, w: Array) -> Array:
    dx = np.zeros((g.batch, g.in_channels, *g.input_size), np.result_type(dy, w))
    by_group = _split_channels(dx, g.groups)
    for tap, outputs, inputs in _taps(g):
        window = _split_channels(dy[:, :, *outputs], g.groups)
        share = _product(_tap_weight(g, w, tap).swapaxes(1, 2), window)
        if g.padding_mode in ("zeros", "constant"):
            by_group[:, :, :, *inputs] += share
        else:  # several output pixels may look at the same input pixel through the same tap
            everywhere: Any = (slice(None), slice(None), slice(None), *inputs)
            np.add.at(by_group, everywhere, share)
    return dx


def _weight_gradient(g: Geometry, x: Array, dy: Array) -> Array:
    g, x = _filled(g, x)
    dw = np.zeros((g.out_channels, g.in_channels // g.groups, *g.kernel_size), np.result_type(x, dy))
    by_group = dw.reshape(g.groups, g.out_channels // g.groups, *dw.shape[1:])
    for tap, outputs, inputs in _taps(g):
        above = _flat(_split_channels(dy[:, :, *outputs], g.groups))
        below = _flat(_split_channels(x[:, :, *inputs], g.groups))
        by_group[:, :, :, *tap] = np.einsum("ngop,ngcp->goc", above, below, optimize=dw.dtype != object)
    return dw


def _bias_gradient(dy: Array, dtype: np.dtype[Any]) -> Array:
    return _narrow(_wide(dy).sum(axis=(0, *range(2, dy.ndim))), dtype)


def _product(w: Array, x: Array) -> Array:
    """sum over c of w[g, o, c] * x[n, g, c, *places]."""
    sums: Array = w @ _flat(x)
    return sums.reshape(*x.shape[:2], w.shape[1], *x.shape[3:])


def _flat(x: Array) -> Array:
    """(N, groups, C / groups, *places) with all places in one axis."""
    return x.reshape(*x.shape[:3], prod(x.shape[3:]))


def _taps(g: Geometry | PoolGeometry) -> Iterator[Tap]:
    """Every tap of the kernel, with the output pixels for which it exists and the input pixels it looks at."""
    mode = g.padding_mode if isinstance(g, Geometry) else "zeros"
    for tap in product(*map(range, g.kernel_size)):
        along = [_axis_tap(g, axis, i, mode) for axis, i in enumerate(tap)]
        if all(outputs.size for outputs, _ in along):
            yield tap, np.ix_(*(outputs for outputs, _ in along)), np.ix_(*(inputs for _, inputs in along))


def _axis_tap(g: Geometry | PoolGeometry, axis: int, tap: int, mode: str) -> tuple[Array, Array]:
    """Along one axis: the outputs for which the tap exists, and the input position that each of them looks at."""
    outputs = np.arange(g.output_size[axis])
    size = g.input_size[axis]
    inputs = outputs * g.stride[axis] + tap * g.dilation[axis] - g.padding[axis][0]
    if mode == "replicate":
        inputs = np.clip(inputs, 0, size - 1)
    elif mode == "circular":
        inputs = inputs % size
    elif mode == "symmetric":  # a b c | c b a | a b c
        inputs = inputs % (2 * size)
        inputs = np.minimum(inputs, 2 * size - 1 - inputs)
    elif mode == "reflect":  # a b c | b | a b c
        inputs = inputs % max(2 * size - 2, 1)
        inputs = np.minimum(inputs, 2 * size - 2 - inputs)
    exists = (inputs >= 0) & (inputs < size)
    return outputs[exists], inputs[exists]


# ---- Pooling and tiling ---------------------------------------------------------------------------------------------


def _max_pool(g: PoolGeometry, x: Array) -> tuple[Array, Array]:
    shape = (*x.shape[:2], *g.output_size)
    best = np.full(shape, -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min, x.dtype)
    index = np.full(shape, -1, np.int64)
    for _, outputs, inputs in _taps(g):
        value, so_far = x[:, :, *inputs], best[:, :, *outputs]
        first = index[:, :, *outputs] < 0
        # x != x is the test for NaN that integers pass too.
        better = first | (value > so_far) | ((value != value) & (so_far == so_far))
        best[:, :, *outputs] = np.where(better, value, so_far)
        place = np.ravel_multi_index(inputs, g.input_size)
        index[:, :, *outputs] = np.where(better, place, index[:, :, *outputs])
    return best, index


def _scattered(g: PoolGeometry, dy: Array, index: Array) -> Array:
    """Every value of dy added to the place in its plane that `index` names."""
    batch, channels = dy.shape[:2]
    dx = np.zeros((batch * channels, prod(g.input_size)), _wide(dy).dtype)
    planes = np.arange(batch * channels)[:, None]
    shape = (batch * channels, prod(g.output_size))
    np.add.at(dx, (planes, index.reshape(shape)), _wide(dy).reshape(shape))
    return dx.reshape(batch, channels, *g.input_size)


def _avg_pool(g: PoolGeometry, x: Array, count_include_pad: bool, divisor_override: int | None) -> Array:
    total = np.zeros((*x.shape[:2], *g.output_size))
    for _, outputs, inputs in _taps(g):
        total[:, :, *outputs] += x[:, :, *inputs]
    mean: Array = total / _divisors(g, count_include_pad, divisor_override)
    return mean


def _avg_pool_gradient(g: PoolGeometry, dy: Array, count_include_pad: bool, divisor_override: int | None) -> Array:
    share = _wide(dy) / _divisors(g, count_include_pad, divisor_override)
    dx = np.zeros((*dy.shape[:2], *g.input_size))
    for _, outputs, inputs in _taps(g):
        dx[:, :, *inputs] += share[:, :, *outputs]
    return dx


def _divisors(g: PoolGeometry, count_include_pad: bool, divisor_override: int | None) -> Array:
    """What the sum of each window of an average pool is divided by, for every output pixel."""
    if divisor_override is not None:
        return np.full(g.output_size, divisor_override, np.float64)
    lengths = []
    for axis, outputs in enumerate(g.output_size):
        before, after = g.padding[axis] if count_include_pad else (0, 0)
        start = np.arange(outputs) * g.stride[axis] - g.padding[axis][0]
        end = np.minimum(start + g.kernel_size[axis], g.input_size[axis] + after)
        lengths.append(np.maximum(end - np.maximum(start, -before), 0))
    area: Array = np.maximum(reduce(np.multiply.outer, lengths), 1).astype(np.float64)
    return area


def _tiles(weight: ArrayLike, data_format: str) -> Array:
    """The kernels of a tiled convolution as (tH, tW, O, I, kH, kW)."""
    w = _numeric(weight)
    if w.ndim != 6:
        raise ConvError(f"weight must have 6 axes, (tH, tW, O, I, kH, kW) or channels last; received shape {w.shape}")
    if 0 in w.shape[:2]:
        raise ConvError(f"weight must hold at least one kernel in its first two axes; received shape {w.shape}")
    return w.transpose(0, 1, 5, 4, 2, 3) if _channels_last(data_format) else w


def _tile_pixels(kernels: Array) -> Iterator[tuple[int, int, tuple[slice, ...]]]:
    tile_height, tile_width = kernels.shape[:2]
    for a in range(tile_height):
        for b in range(tile_width):
            yield a, b, (slice(None), slice(None), slice(a, None, tile_height), slice(b, None, tile_width))


def _only(y: Array, pixels: tuple[slice, ...]) -> Array:
    kept = np.zeros_like(y)
    kept[pixels] = y[pixels]
    return kept


# ---- Layouts and types ----------------------------------------------------------------------------------------------


def _channels_last(data_format: str) -> bool:
    return data_format.lower() in ("nwc", "nlc", "nhwc", "ndhwc", "channels_last")


def _to_first(array: ArrayLike, axes: int, data_format: str) -> tuple[Array, bool]:
    """The array as (N, C, *spatial), and whether it came with a batch axis."""
    x = _numeric(array)
    batched = x.ndim != axes + 1
    if not batched:
        x = x[None]
    return (np.moveaxis(x, -1, 1) if _channels_last(data_format) else x), batched


def _weight_to_first(weight: ArrayLike, data_format: str) -> Array:
    """(*kernel, I, O) as (O, I, *kernel)."""
    w = _numeric(weight)
    return np.moveaxis(w, (-1, -2), (0, 1)) if _channels_last(data_format) else w


def _shape_to_first(shape: Sequence[int], axes: int, data_format: str) -> tuple[int, ...]:
    return _to_first(np.broadcast_to(np.float32(0), tuple(shape)), axes, data_format)[0].shape


def _per_channel(bias: ArrayLike, axes: int) -> Array:
    """A bias to be added to (N, C, *spatial)."""
    b = _wide(np.asarray(bias))
    return b.reshape(*b.shape, *(1,) * axes)


def _finish(y: Array, dtype: np.dtype[Any], data_format: str, batched: bool, out: Array | None = None) -> Array:
    """The result in its own type and the caller's layout."""
    y = _narrow(y, dtype)
    if _channels_last(data_format):
        y = np.moveaxis(y, 1, -1)
    y = np.ascontiguousarray(y if batched else y[0])
    if out is None:
        return y
    out[...] = y
    return out


def _finish_weight(dw: Array, dtype: np.dtype[Any], data_format: str) -> Array:
    dw = _narrow(dw, dtype)
    return np.ascontiguousarray(np.moveaxis(dw, (0, 1), (-1, -2))) if _channels_last(data_format) else dw


def _into(gradient: Array, out: Array | None, accumulate: bool) -> Array:
    """A gradient in `out`, on top of what that holds if it is to accumulate."""
    if out is None:
        return gradient
    with np.errstate(all="ignore"):
        exact = out.dtype.kind != "f"
        sum_ = (_wide(out) + _wide(gradient) if exact else out + gradient) if accumulate else gradient
        out[...] = _narrow(sum_, out.dtype)
    return out


def _numeric(array: ArrayLike) -> Array:
    x: Array = np.asarray(array)
    if x.dtype.kind not in "fiu" or x.dtype.itemsize > 8:
        raise ConvTypeError(f"real numbers of at most 64 bits are wanted, not {x.dtype}")
    return x


def _result_dtype(a: Array, b: Array) -> np.dtype[Any]:
    """The floating type of both; int32 for integers of 8 and 16 bits; int64 for wider ones."""
    if a.dtype.kind == b.dtype.kind == "f" and a.dtype.itemsize == b.dtype.itemsize:
        return a.dtype.newbyteorder("=")
    if "f" in (a.dtype.kind, b.dtype.kind):
        raise ConvTypeError(f"arrays must be of one floating type; received {a.dtype} and {b.dtype}")
    return np.dtype(np.int32 if max(a.dtype.itemsize, b.dtype.itemsize) <= 2 else np.int64)


def _wide(x: Array) -> Array:
    """The type to compute in: float64, or integers that cannot overflow."""
    if x.dtype.kind == "f":
        return x.astype(np.float64)
    # int64 holds 2**22 products of numbers up to 2**20; Python's integers have no limit.
    small = x.size == 0 or (x.min() >= -(2**20) and x.max() <= 2**20)
    return x.astype(np.int64 if small else object)


def _narrow(y: Array, dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "i" and y.size and (y.min() < np.iinfo(dtype).min or y.max() > np.iinfo(dtype).max):
        raise ConvError(f"the result does not fit in {dtype}: it ranges from {y.min()} to {y.max()}")
    return y.astype(dtype)


def _split_channels(x: Array, groups: int) -> Array:
    """(N, C, *spatial) as (N, groups, C / groups, *spatial)."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


def _tap_weight(g: Geometry, w: Array, tap: Places) -> Array:
    """w[:, :, *tap] as (groups, O / groups, C / groups)."""
    return w[:, :, *tap].reshape(g.groups, g.out_channels // g.groups, g.in_channels // g.groups)


from . import quantized  # noqa: E402, F401  made of what stands above
