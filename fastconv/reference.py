"""The NumPy twin of every public function: same names, same arguments, plain enough to be read beside a textbook.

One identity carries the file. A convolution is a sum over the taps (i, j) of its kernel,

    y[n, o, :, :] += w[o, c, i, j] * x[n, c, rows of tap i, columns of tap j]        (summed over c),

where tap i of output row p looks at padded row p * stride + i * dilation. Read from left to right it is the
convolution; with y given and x wanted it is the gradient of the input, which is the transposed convolution; with x and
y given and w wanted it is the gradient of the weight. A tap that looks at zero padding is skipped, not multiplied, so
an infinite weight over the padding contributes nothing.

Floats are computed in float64 and rounded once at the end; integers are computed exactly, in Python's own unbounded
integers where int64 could overflow. Options that only steer speed are accepted and ignored. Shapes come from
`geometry`, as everywhere; nothing here calls the compiled code.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._core import geometry, windows, words
from ._core.geometry import Geometry
from ._core.windows import PoolGeometry
from .activations import activation_name
from .errors import ConvError, ConvTypeError

Array = NDArray[Any]
Size = int | Sequence[int]
Padding = str | int | Sequence[int] | Sequence[Sequence[int]]
Tap = tuple[int, int, tuple[Array, Array], tuple[Array, Array]]

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "linear": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.minimum(np.maximum(x, 0), 6),
    "leaky_relu": lambda x: np.where(x < 0, 0.01 * x, x),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "hardswish": lambda x: x * np.minimum(np.maximum(x + 3, 0), 6) / 6,
}


# ---- The functions of fastconv --------------------------------------------------------------------------------------


def conv2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "NCHW",
    activation: str | None = None,
    residual: ArrayLike | None = None,
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """The convolution act(conv(input, weight) + bias + residual)."""
    x, batched = _to_nchw(input, data_format)
    w = _weight_to_oihw(weight, data_format)
    g = geometry.conv_geometry(x.shape, w.shape, stride, padding, dilation, groups, padding_mode)
    dtype = _result_dtype(x, w)
    b = None if bias is None else np.asarray(bias)
    r = None if residual is None else _to_nchw(residual, data_format)[0]
    with np.errstate(all="ignore"):
        y = _forward(g, _wide(x), _wide(w))
        if b is not None:
            y = y + _wide(b)[:, None, None]
        if r is not None:
            y = y + _wide(r)
        if activation is not None:
            y = ACTIVATIONS[activation_name(activation, tuple(ACTIVATIONS))](y)
        return _finish(y, dtype, data_format, batched, out)


def conv_transpose2d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """The input gradient of the convolution with these options, as an operation of its own, plus a bias."""
    y, batched = _to_nchw(input, data_format)
    w = _weight_to_oihw(weight, data_format)
    g = geometry.conv_transpose_geometry(y.shape, w.shape, stride, padding, output_padding, groups, dilation)
    with np.errstate(all="ignore"):
        x = _input_gradient(g, _wide(y), _wide(w))
        if bias is not None:
            x = x + _wide(np.asarray(bias))[:, None, None]
        return _finish(x, _result_dtype(y, w), data_format, batched, out)


def conv2d_backward(
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
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
) -> tuple[Array | None, Array | None, Array | None]:
    """The gradients of conv2d with respect to input, weight and bias."""
    x, batched = _to_nchw(input, data_format)
    w = _weight_to_oihw(weight, data_format)
    dy = _to_nchw(grad_output, data_format)[0]
    g = geometry.conv_geometry(x.shape, w.shape, stride, padding, dilation, groups, padding_mode)
    dx = dw = db = None
    with np.errstate(all="ignore"):
        if output_mask[0]:
            dx = _finish(_input_gradient(g, _wide(dy), _wide(w)), _result_dtype(dy, w), data_format, batched)
        if output_mask[1]:
            dw = _finish_weight(_weight_gradient(g, _wide(x), _wide(dy)), _result_dtype(dy, x), data_format)
        if output_mask[2]:
            db = _narrow(_wide(dy).sum(axis=(0, 2, 3)), _result_dtype(dy, dy))
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
    out: Array | None = None,
) -> Array:
    """Kernels that take turns over the output: pixel (y, x) is made with kernel [y mod tH, x mod tW]."""
    x, batched = _to_nchw(input, data_format)
    kernels = _tiles(weight, data_format)
    g = geometry.conv_geometry(x.shape, kernels.shape[2:], stride, padding, dilation, 1, name="tiled_conv2d")
    with np.errstate(all="ignore"):
        y = np.zeros((g.batch, g.out_channels, *g.output_size), np.result_type(_wide(x), _wide(kernels)))
        for a, b, pixels in _tile_pixels(kernels):
            y[pixels] = _forward(g, _wide(x), _wide(kernels)[a, b])[pixels]
        if bias is not None:
            y = y + _wide(np.asarray(bias))[:, None, None]
        return _finish(y, _result_dtype(x, kernels), data_format, batched, out)


def max_pool2d(
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    data_format: str = "NCHW",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array | tuple[Array, Array]:
    """The largest value of each window; a NaN counts as larger than all. Indices are flat: row * width + column."""
    x, batched = _to_nchw(input, data_format)
    g = windows.pool_geometry(x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    best, index = _max_pool(g, x)
    values = _finish(best, x.dtype.newbyteorder("="), data_format, batched, out)
    return (values, _finish(index, np.dtype(np.int64), data_format, batched)) if return_indices else values


def avg_pool2d(
    input: ArrayLike,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    data_format: str = "NCHW",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """The sum of each window over the number of its pixels, padding counted or not, or over `divisor_override`."""
    x, batched = _to_nchw(input, data_format)
    g = windows.pool_geometry(x.shape, kernel_size, stride, padding, 1, ceil_mode)
    with np.errstate(all="ignore"):
        total = np.zeros((*x.shape[:2], *g.output_size))
        for _, _, (out_rows, out_columns), (rows, columns) in _taps(g):
            total[:, :, out_rows, out_columns] += x[:, :, rows, columns]
        mean = total / _divisors(g, count_include_pad, divisor_override)
        return _finish(mean, x.dtype.newbyteorder("="), data_format, batched, out)


def conv1d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "NCL",
    activation: str | None = None,
    residual: ArrayLike | None = None,
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """The same as conv2d with a height of one."""
    last = _channels_last(data_format)
    y = conv2d(
        _with_height(input, last), _weight_with_height(weight, last), bias,
        (1, _one(stride)), _one_pads(padding), (1, _one(dilation)), groups,
        padding_mode=padding_mode, data_format="NHWC" if last else "NCHW", activation=activation,
        residual=None if residual is None else _with_height(residual, last),
    )  # fmt: skip
    return _into(np.squeeze(y, -3 if last else -2), out)


def conv_transpose1d(
    input: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None = None,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    data_format: str = "NCL",
    algorithm: str = "auto",
    num_threads: int | None = None,
    out: Array | None = None,
) -> Array:
    """The same as conv_transpose2d with a height of one."""
    last = _channels_last(data_format)
    y = conv_transpose2d(
        _with_height(input, last), _weight_with_height(weight, last), bias,
        (1, _one(stride)), _one_pads(padding), (0, _one(output_padding)), groups, (1, _one(dilation)),
        data_format="NHWC" if last else "NCHW",
    )  # fmt: skip
    return _into(np.squeeze(y, -3 if last else -2), out)


# ---- The functions of fastconv.grad ---------------------------------------------------------------------------------


def conv2d_input(
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
) -> Array:
    """The gradient of conv2d with respect to its input."""
    # Only the shape of this stand-in is used.
    input = np.broadcast_to(np.zeros((), np.asarray(grad_output).dtype), tuple(input_size))
    dx, _, _ = conv2d_backward(
        grad_output, input, weight, stride, padding, dilation, groups,
        output_mask=(True, False, False), padding_mode=padding_mode, data_format=data_format,
    )  # fmt: skip
    assert dx is not None
    return dx


def conv2d_weight(
    input: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    dilation: Size = 1,
    groups: int = 1,
    *,
    padding_mode: str = "zeros",
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
) -> Array:
    """The gradient of conv2d with respect to its weight."""
    weight = np.broadcast_to(np.zeros((), np.asarray(grad_output).dtype), tuple(weight_size))
    _, dw, _ = conv2d_backward(
        grad_output, input, weight, stride, padding, dilation, groups,
        output_mask=(False, True, False), padding_mode=padding_mode, data_format=data_format,
    )  # fmt: skip
    assert dw is not None
    return dw


def conv_transpose2d_input(
    input_size: Sequence[int],
    weight: ArrayLike,
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
) -> Array:
    """The gradient of conv_transpose2d with respect to its input: the convolution that it transposes."""
    dy, batched = _to_nchw(grad_output, data_format)
    w = _weight_to_oihw(weight, data_format)
    shape = _shape_to_nchw(input_size, data_format)
    g = geometry.conv_transpose_geometry(shape, w.shape, stride, padding, output_padding, groups, dilation)
    with np.errstate(all="ignore"):
        return _finish(_forward(g, _wide(dy), _wide(w)), _result_dtype(dy, w), data_format, batched)


def conv_transpose2d_weight(
    input: ArrayLike,
    weight_size: Sequence[int],
    grad_output: ArrayLike,
    stride: Size = 1,
    padding: Padding = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
    *,
    data_format: str = "NCHW",
    algorithm: str = "auto",
    num_threads: int | None = None,
) -> Array:
    """The gradient of conv_transpose2d with respect to its weight."""
    x = _to_nchw(input, data_format)[0]
    dy = _to_nchw(grad_output, data_format)[0]
    shape = _weight_shape_to_oihw(weight_size, data_format)
    g = geometry.conv_transpose_geometry(x.shape, shape, stride, padding, output_padding, groups, dilation)
    with np.errstate(all="ignore"):
        return _finish_weight(_weight_gradient(g, _wide(dy), _wide(x)), _result_dtype(dy, x), data_format)


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
) -> Array:
    """The gradient of tiled_conv2d with respect to its input."""
    dy, batched = _to_nchw(grad_output, data_format)
    kernels = _tiles(weight, data_format)
    shape = _shape_to_nchw(input_size, data_format)
    g = geometry.conv_geometry(shape, kernels.shape[2:], stride, padding, dilation, 1, name="tiled_conv2d_input")
    with np.errstate(all="ignore"):
        dx = np.zeros(shape, np.result_type(_wide(dy), _wide(kernels)))
        for a, b, pixels in _tile_pixels(kernels):
            dx += _input_gradient(g, _only(_wide(dy), pixels), _wide(kernels)[a, b])
        return _finish(dx, _result_dtype(dy, kernels), data_format, batched)


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
) -> Array:
    """The gradient of tiled_conv2d with respect to its weight."""
    x = _to_nchw(input, data_format)[0]
    dy = _to_nchw(grad_output, data_format)[0]
    stand_in = _tiles(np.broadcast_to(np.zeros((), dy.dtype), tuple(weight_size)), data_format)
    g = geometry.conv_geometry(x.shape, stand_in.shape[2:], stride, padding, dilation, 1, name="tiled_conv2d_weight")
    with np.errstate(all="ignore"):
        dw = np.zeros(stand_in.shape, np.result_type(_wide(x), _wide(dy)))
        for a, b, pixels in _tile_pixels(stand_in):
            dw[a, b] = _weight_gradient(g, _wide(x), _only(_wide(dy), pixels))
    if _channels_last(data_format):
        dw = dw.transpose(0, 1, 4, 5, 3, 2)
    return _narrow(dw, _result_dtype(dy, x))


def max_pool2d_input(
    input: ArrayLike,
    kernel_size: Size,
    grad_output: ArrayLike,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    data_format: str = "NCHW",
    num_threads: int | None = None,
) -> Array:
    """The gradient of max_pool2d: each value goes back to the pixel it came from."""
    x, batched = _to_nchw(input, data_format)
    dy = _to_nchw(grad_output, data_format)[0]
    g = windows.pool_geometry(x.shape, kernel_size, stride, padding, dilation, ceil_mode)
    index = _max_pool(g, x)[1]
    dx = np.zeros((*x.shape[:2], x.shape[2] * x.shape[3]), _wide(dy).dtype)
    image, channel = np.ogrid[: x.shape[0], : x.shape[1]]
    to: Any = (image[..., None, None], channel[..., None, None], index)
    np.add.at(dx, to, _wide(dy))
    return _finish(dx.reshape(x.shape), dy.dtype.newbyteorder("="), data_format, batched)


def avg_pool2d_input(
    input_size: Sequence[int],
    kernel_size: Size,
    grad_output: ArrayLike,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    data_format: str = "NCHW",
    num_threads: int | None = None,
) -> Array:
    """The gradient of avg_pool2d: each value goes back to its whole window in equal parts."""
    dy, batched = _to_nchw(grad_output, data_format)
    shape = _shape_to_nchw(input_size, data_format)
    g = windows.pool_geometry(shape, kernel_size, stride, padding, 1, ceil_mode)
    with np.errstate(all="ignore"):
        share = _wide(dy) / _divisors(g, count_include_pad, divisor_override)
        dx = np.zeros(shape)
        for _, _, (out_rows, out_columns), (rows, columns) in _taps(g):
            dx[:, :, rows, columns] += share[:, :, out_rows, out_columns]
        return _finish(dx, dy.dtype.newbyteorder("="), data_format, batched)


def abs_sum(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """S of the error bound (docs/accuracy.md): `function`, one of the above, on the magnitudes in float64."""

    def magnitude(value: Any) -> Any:
        return np.abs(value.astype(np.float64)) if isinstance(value, np.ndarray) else value

    kept = {name: magnitude(value) for name, value in options.items() if name not in ("activation", "out")}
    return function(*(magnitude(value) for value in arguments), **kept)


# ---- The three readings of the identity -----------------------------------------------------------------------------


def _forward(g: Geometry, x: Array, w: Array) -> Array:
    y = np.zeros((g.batch, g.out_channels, *g.output_size), np.result_type(x, w))
    by_group = _split_channels(y, g.groups)
    for i, j, outputs, inputs in _taps(g):
        window = _split_channels(x[:, :, *inputs], g.groups)
        by_group[:, :, :, *outputs] += _product(_tap_weight(g, w, i, j), window)
    return y


def _input_gradient(g: Geometry, dy: Array, w: Array) -> Array:
    dx = np.zeros((g.batch, g.in_channels, *g.input_size), np.result_type(dy, w))
    by_group = _split_channels(dx, g.groups)
    for i, j, outputs, inputs in _taps(g):
        window = _split_channels(dy[:, :, *outputs], g.groups)
        share = _product(_tap_weight(g, w, i, j).swapaxes(1, 2), window)
        if g.padding_mode == "zeros":
            by_group[:, :, :, *inputs] += share
        else:  # several output pixels may look at the same input pixel through the same tap
            everywhere: Any = (slice(None), slice(None), slice(None), *inputs)
            np.add.at(by_group, everywhere, share)
    return dx


def _weight_gradient(g: Geometry, x: Array, dy: Array) -> Array:
    dw = np.zeros((g.out_channels, g.in_channels // g.groups, *g.kernel_size), np.result_type(x, dy))
    by_group = dw.reshape(g.groups, g.out_channels // g.groups, *dw.shape[1:])
    for i, j, outputs, inputs in _taps(g):
        above = _split_channels(dy[:, :, *outputs], g.groups)
        below = _split_channels(x[:, :, *inputs], g.groups)
        by_group[:, :, :, i, j] = np.einsum("ngohw,ngchw->goc", above, below, optimize=dw.dtype != object)
    return dw


def _product(w: Array, x: Array) -> Array:
    """sum over c of w[g, o, c] * x[n, g, c, h, w]."""
    n, groups, channels, height, width = x.shape
    sums: Array = w @ x.reshape(n, groups, channels, height * width)
    return sums.reshape(n, groups, w.shape[1], height, width)


def _taps(g: Geometry | PoolGeometry) -> Iterator[Tap]:
    """Every tap (i, j) of the kernel, with the output pixels for which it exists and the input pixels it looks at."""
    mode = g.padding_mode if isinstance(g, Geometry) else "zeros"
    for i in range(g.kernel_size[0]):
        out_rows, rows = _axis_tap(g, 0, i, mode)
        for j in range(g.kernel_size[1]):
            out_columns, columns = _axis_tap(g, 1, j, mode)
            if out_rows.size and out_columns.size:
                yield i, j, (out_rows[:, None], out_columns), (rows[:, None], columns)


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
    for _, _, outputs, (rows, columns) in _taps(g):
        value, so_far = x[:, :, rows, columns], best[:, :, *outputs]
        first = index[:, :, *outputs] < 0
        # x != x is the test for NaN that integers pass too.
        better = first | (value > so_far) | ((value != value) & (so_far == so_far))
        best[:, :, *outputs] = np.where(better, value, so_far)
        index[:, :, *outputs] = np.where(better, rows * x.shape[3] + columns, index[:, :, *outputs])
    return best, index


def _divisors(g: PoolGeometry, count_include_pad: bool, divisor_override: int | None) -> Array:
    """What the sum of each window of an average pool is divided by, for every output pixel."""
    if divisor_override is not None:
        return np.full(g.output_size, divisor_override, np.float64)
    lengths = []
    for axis in (0, 1):
        before, after = g.padding[axis] if count_include_pad else (0, 0)
        start = np.arange(g.output_size[axis]) * g.stride[axis] - g.padding[axis][0]
        end = np.minimum(start + g.kernel_size[axis], g.input_size[axis] + after)
        lengths.append(np.maximum(end - np.maximum(start, -before), 0))
    area: Array = np.maximum(np.multiply.outer(*lengths), 1).astype(np.float64)
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
    return data_format.lower() in ("nhwc", "nlc", "channels_last")


def _to_nchw(array: ArrayLike, data_format: str) -> tuple[Array, bool]:
    """The array as (N, C, H, W), and whether it came with a batch axis."""
    x = _numeric(array)
    batched = x.ndim != 3
    if not batched:
        x = x[None]
    return (x.transpose(0, 3, 1, 2) if _channels_last(data_format) else x), batched


def _weight_to_oihw(weight: ArrayLike, data_format: str) -> Array:
    w = _numeric(weight)
    return w.transpose(3, 2, 0, 1) if _channels_last(data_format) else w


def _shape_to_nchw(shape: Sequence[int], data_format: str) -> tuple[int, ...]:
    return _to_nchw(np.broadcast_to(np.float32(0), tuple(shape)), data_format)[0].shape


def _weight_shape_to_oihw(shape: Sequence[int], data_format: str) -> tuple[int, ...]:
    return _weight_to_oihw(np.broadcast_to(np.float32(0), tuple(shape)), data_format).shape


def _finish(y: Array, dtype: np.dtype[Any], data_format: str, batched: bool, out: Array | None = None) -> Array:
    """The result in its own type and the caller's layout."""
    y = _narrow(y, dtype)
    if _channels_last(data_format):
        y = y.transpose(0, 2, 3, 1)
    return _into(np.ascontiguousarray(y if batched else y[0]), out)


def _finish_weight(dw: Array, dtype: np.dtype[Any], data_format: str) -> Array:
    dw = _narrow(dw, dtype)
    return np.ascontiguousarray(dw.transpose(2, 3, 1, 0)) if _channels_last(data_format) else dw


def _into(y: Array, out: Array | None) -> Array:
    if out is None:
        return y
    out[...] = y
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
    """(N, C, H, W) as (N, groups, C / groups, H, W)."""
    return x.reshape(x.shape[0], groups, x.shape[1] // groups, *x.shape[2:])


def _tap_weight(g: Geometry, w: Array, i: int, j: int) -> Array:
    """w[:, :, i, j] as (groups, O / groups, C / groups)."""
    return w[:, :, i, j].reshape(g.groups, g.out_channels // g.groups, g.in_channels // g.groups)


def _with_height(array: ArrayLike, channels_last: bool) -> Array:
    """(N, C, L) as (N, C, 1, L), (N, L, C) as (N, 1, L, C)."""
    return np.expand_dims(np.asarray(array), -3 if channels_last else -2)


def _weight_with_height(weight: ArrayLike, channels_last: bool) -> Array:
    return np.expand_dims(np.asarray(weight), 0 if channels_last else 2)


def _one(value: Size) -> int:
    return value if isinstance(value, int) else value[0]


def _one_pads(padding: Padding) -> Any:
    parsed = words.parse_padding(padding, 1)
    return parsed if isinstance(parsed, str) else ((0, 0), *parsed)
