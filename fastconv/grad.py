"""The gradients, one function each, as in `torch.nn.grad`: sizes in place of the arrays that are not needed.

Options mean what they mean in `functional`. A size is the shape of the array in the caller's axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from . import plan, threads
from ._core.types import FLOATS
from .arrays import (
    INT64,
    Array,
    DType,
    as_array,
    empty_activation,
    empty_weight,
    layout,
    lies_channels_last,
    result_dtype,
)
from .errors import ConvError
from .functional import checked_algorithm, checked_average, checked_tiles, require_gradient
from .geometry import (
    Geometry,
    Padding,
    Size,
    conv_geometry,
    conv_transpose_geometry,
    pool_geometry,
    shape,
    tiled_geometries,
)
from .remembered import Gradients, known_key, remember, remembered_gradients

# Sums over tiles are held for a slice of the channels of one image at a time, to bound the scratch memory.
SLICE_BYTES: Final = 4 << 20


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
    """The gradient of `conv2d` with respect to its input of shape `input_size`.

    Parameters
    ----------
    input_size : sequence of int
        The shape of the input.
    weight : array_like
        The weight of the forward call.
    grad_output : array_like
        The gradient with respect to the result, of its shape.
    stride, padding, dilation, groups : int, pair or str
        As in the call of `conv2d`.
    padding_mode, data_format, algorithm, num_threads : as for `conv2d`
        See there.

    Returns
    -------
    ndarray
        Of shape `input_size`.

    Raises
    ------
    ConvError, ConvTypeError
        For shapes or types that do not fit, or integer sums that leave the range of their type.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv2d_input((1, 1, 1, 3), np.array([[[[1.0, 10.0]]]]), np.array([[[[1.0, 2.0]]]]))
    array([[[[ 1., 12., 20.]]]])
    """
    key = known_key(
        ("conv2d_input", input_size), grad_output, weight, stride, padding, dilation, groups, padding_mode, data_format,
        algorithm, num_threads,
    )  # fmt: skip
    if key is not None and (known := remembered_gradients.get(key)) is not None:
        return known.input(grad_output, weight)  # type: ignore[arg-type]
    name = "conv2d_input"
    frame = layout(data_format)
    own_size = shape("input_size", input_size)
    own_weight, own_dy = as_array("weight", weight), as_array("grad_output", grad_output)
    size, batched = frame.logical_shape("input_size", own_size)
    w = frame.weight("weight", own_weight)
    dtype = result_dtype("grad_output", own_dy, "weight", own_weight)
    g = conv_geometry(
        size, w.shape, stride, padding, dilation, groups, padding_mode, name=name, shown=(own_size, own_weight.shape)
    )
    dy = require_gradient(name, frame, own_dy, (g.batch, g.out_channels, *g.output_size), batched)
    chosen, team = checked_algorithm(algorithm), threads.effective(num_threads)
    dx = empty_activation(size, dtype, frame.channels_last or lies_channels_last(dy))
    plan.input_gradient(g, dy, w, None, dx, algorithm=chosen, threads=team)
    if key is not None and batched and (frame.channels_last or own_dy.flags.c_contiguous):
        remember(remembered_gradients, key, Gradients(frame, g, chosen, team))
    return frame.from_logical(dx, batched)


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
    """The gradient of `conv2d` with respect to its weight of shape `weight_size`.

    Parameters
    ----------
    input : array_like
        The input of the forward call.
    weight_size : sequence of int
        The shape of the weight.
    grad_output : array_like
        The gradient with respect to the result, of its shape.
    stride, padding, dilation, groups : int, pair or str
        As in the call of `conv2d`.
    padding_mode, data_format, algorithm, num_threads : as for `conv2d`
        See there.

    Returns
    -------
    ndarray
        Of shape `weight_size`.

    Raises
    ------
    ConvError, ConvTypeError
        For shapes or types that do not fit, or integer sums that leave the range of their type.

    Examples
    --------
    >>> import numpy as np
    >>> from fastconv import grad
    >>> grad.conv2d_weight(np.array([[[[1.0, 2.0, 4.0]]]]), (1, 1, 1, 2), np.array([[[[1.0, 10.0]]]]))
    array([[[[21., 42.]]]])
    """
    key = known_key(
        ("conv2d_weight", weight_size), grad_output, input, stride, padding, dilation, groups, padding_mode,
        data_format, algorithm, num_threads,
    )  # fmt: skip
    if key is not None and (known := remembered_gradients.get(key)) is not None:
        return known.weight(grad_output, input)  # type: ignore[arg-type]
    name = "conv2d_weight"
    frame = layout(data_format)
    own_size = shape("weight_size", weight_size)
    own_input, own_dy = as_array("input", input), as_array("grad_output", grad_output)
    x, batched = frame.activation("input", own_input)
    size = frame.logical_weight_shape("weight_size", own_size)
    dtype = result_dtype("grad_output", own_dy, "input", own_input)
    g = conv_geometry(
        x.shape, size, stride, padding, dilation, groups, padding_mode, name=name, shown=(own_input.shape, own_size)
    )
    dy = require_gradient(name, frame, own_dy, (g.batch, g.out_channels, *g.output_size), batched)
    chosen, team = checked_algorithm(algorithm), threads.effective(num_threads)
    dw = empty_weight(size, dtype, frame.channels_last)
    plan.weight_gradient(g, x, dy, dw, algorithm=chosen, threads=team)
    if key is not None and batched:
        remember(remembered_gradients, key, Gradients(frame, g, chosen, team))
    return frame.weight_from_logical(dw)


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
    """The gradient of `conv_transpose2d` with respect to its input: the convolution that it transposes.

    Parameters
    ----------
    input_size : sequence of int
        The shape of the input.
    weight : array_like
        The weight of the forward call.
    grad_output : array_like
        The gradient with respect to the result, of its shape.
    stride, padding, output_padding, groups, dilation : int, pair or str
        As in the call of `conv_transpose2d`.
    data_format, algorithm, num_threads : as for `conv2d`
        See there.

    Returns
    -------
    ndarray
        Of shape `input_size`.

    Raises
    ------
    ConvError, ConvTypeError
        For shapes or types that do not fit, or integer sums that leave the range of their type.
    """
    name = "conv_transpose2d_input"
    frame = layout(data_format)
    own_size = shape("input_size", input_size)
    own_weight, own_dy = as_array("weight", weight), as_array("grad_output", grad_output)
    size, batched = frame.logical_shape("input_size", own_size)
    w = frame.weight("weight", own_weight)
    dtype = result_dtype("grad_output", own_dy, "weight", own_weight)
    g = conv_transpose_geometry(
        size, w.shape, stride, padding, output_padding, groups, dilation, name=name, shown=(own_size, own_weight.shape)
    )
    dy = require_gradient(name, frame, own_dy, (g.batch, g.in_channels, *g.input_size), batched)
    chosen, team = checked_algorithm(algorithm), threads.effective(num_threads)
    dx = empty_activation(size, dtype, frame.channels_last or lies_channels_last(dy))
    plan.forward(g, dy, w, None, None, None, dx, algorithm=chosen, threads=team)
    return frame.from_logical(dx, batched)


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
    """The gradient of `conv_transpose2d` with respect to its weight of shape `weight_size`.

    Parameters
    ----------
    input : array_like
        The input of the forward call.
    weight_size : sequence of int
        The shape of the weight.
    grad_output : array_like
        The gradient with respect to the result, of its shape.
    stride, padding, output_padding, groups, dilation : int, pair or str
        As in the call of `conv_transpose2d`.
    data_format, algorithm, num_threads : as for `conv2d`
        See there.

    Returns
    -------
    ndarray
        Of shape `weight_size`.

    Raises
    ------
    ConvError, ConvTypeError
        For shapes or types that do not fit, or integer sums that leave the range of their type.
    """
    name = "conv_transpose2d_weight"
    frame = layout(data_format)
    own_size = shape("weight_size", weight_size)
    own_input, own_dy = as_array("input", input), as_array("grad_output", grad_output)
    x, batched = frame.activation("input", own_input)
    size = frame.logical_weight_shape("weight_size", own_size)
    dtype = result_dtype("grad_output", own_dy, "input", own_input)
    g = conv_transpose_geometry(
        x.shape, size, stride, padding, output_padding, groups, dilation, name=name, shown=(own_input.shape, own_size)
    )
    dy = require_gradient(name, frame, own_dy, (g.batch, g.in_channels, *g.input_size), batched)
    chosen, team = checked_algorithm(algorithm), threads.effective(num_threads)
    dw = empty_weight(size, dtype, frame.channels_last)
    plan.weight_gradient(g, dy, x, dw, algorithm=chosen, threads=team)
    return frame.weight_from_logical(dw)


# ---- tiled convolution -------------------------------------------------------------------------------------------


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
    """The gradient of `tiled_conv2d` with respect to its input of shape `input_size`: the sum over the tiles.

    Parameters
    ----------
    input_size : sequence of int
        The shape of the input.
    weight : array_like
        The weight of the forward call.
    grad_output : array_like
        The gradient with respect to the result, of its shape.
    stride, padding : int, pair or str
        As in the call of `tiled_conv2d`.
    dilation, data_format, algorithm, num_threads : as for `tiled_conv2d`
        See there.

    Returns
    -------
    ndarray
        Of shape `input_size`.

    Raises
    ------
    ConvError, ConvTypeError
        For shapes or types that do not fit, or integer sums that leave the range of their type.
    """
    name = "tiled_conv2d_input"
    frame = layout(data_format)
    own_size = shape("input_size", input_size)
    own_weight, own_dy = as_array("weight", weight), as_array("grad_output", grad_output)
    size, batched = frame.logical_shape("input_size", own_size)
    kernels = frame.tiled_weight("weight", own_weight)
    tiles = checked_tiles(name, kernels.shape)
    dtype = result_dtype("grad_output", own_dy, "weight", own_weight)
    g = conv_geometry(
        size, kernels.shape[2:], stride, padding, dilation, 1, name=name, shown=(own_size, own_weight.shape)
    )
    dy = require_gradient(name, frame, own_dy, (g.batch, g.out_channels, *g.output_size), batched)
    chosen, team = checked_algorithm(algorithm), threads.effective(num_threads)
    dx = empty_activation(size, dtype, frame.channels_last or lies_channels_last(dy))
    wide = _sum_dtype(dtype)
    if dtype.itemsize < wide.itemsize and dtype in FLOATS:
        kernels = kernels.astype(wide)
    for n, channels in _slices(g, wide):
        some = g._replace(batch=1, in_channels=channels.stop - channels.start)
        image = dy[n : n + 1]
        if dtype in FLOATS:
            image = image.astype(wide, copy=False)
        total = np.zeros((1, some.in_channels, *g.input_size), wide)
        share = np.empty_like(total)
        for a, b, part in tiled_geometries(some, tiles):
            pixels = image[:, :, a :: tiles[0], b :: tiles[1]]
            if pixels.size:
                weight_part = kernels[a, b][:, channels]
                plan.input_gradient(part, pixels, weight_part, None, share, algorithm=chosen, threads=team)
                total = _sum(name, total, share)
        dx[n : n + 1, channels] = _within(name, total, dtype)
    return frame.from_logical(dx, batched)


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
    """The gradient of `tiled_conv2d` with respect to its weight of shape `weight_size`.

    Parameters
    ----------
    input : array_like
        The input of the forward call.
    weight_size : sequence of int
        The shape of the weight.
    grad_output : array_like
        The gradient with respect to the result, of its shape.
    stride, padding : int, pair or str
        As in the call of `tiled_conv2d`.
    dilation, data_format, algorithm, num_threads : as for `tiled_conv2d`
        See there.

    Returns
    -------
    ndarray
        Of shape `weight_size`.

    Raises
    ------
    ConvError, ConvTypeError
        For shapes or types that do not fit, or integer sums that leave the range of their type.
    """
    name = "tiled_conv2d_weight"
    frame = layout(data_format)
    own_size = shape("weight_size", weight_size)
    own_input, own_dy = as_array("input", input), as_array("grad_output", grad_output)
    x, batched = frame.activation("input", own_input)
    size = frame.logical_tiled_shape("weight_size", own_size)
    tiles = checked_tiles(name, size)
    dtype = result_dtype("grad_output", own_dy, "input", own_input)
    g = conv_geometry(x.shape, size[2:], stride, padding, dilation, 1, name=name, shown=(own_input.shape, own_size))
    dy = require_gradient(name, frame, own_dy, (g.batch, g.out_channels, *g.output_size), batched)
    chosen, team = checked_algorithm(algorithm), threads.effective(num_threads)
    result = np.empty(own_size, dtype)
    dw = frame.tiled_weight("weight_size", result)
    for a, b, part in tiled_geometries(g, tiles):
        pixels = dy[:, :, a :: tiles[0], b :: tiles[1]]
        plan.weight_gradient(part, x, pixels, dw[a, b], algorithm=chosen, threads=team)
    return result


def _slices(g: Geometry, dtype: DType) -> Iterator[tuple[int, slice]]:
    """Every image and, within it, slices of channels whose planes take at most `SLICE_BYTES`."""
    plane_bytes = max(1, g.input_size[0] * g.input_size[1] * dtype.itemsize)
    step = max(1, SLICE_BYTES // plane_bytes)
    for n in range(g.batch):
        for first in range(0, g.in_channels, step):
            yield n, slice(first, min(first + step, g.in_channels))


# ---- sums of several contributions -------------------------------------------------------------------------------


def _sum_dtype(dtype: DType) -> DType:
    """What sums of this result type are held in: float16 in float32, integers in int64."""
    if dtype in FLOATS:
        return np.dtype(np.float32) if dtype.itemsize == 2 else dtype
    return INT64


def _sum(name: str, total: Array, share: Array) -> Array:
    """total + share; integers that wrapped are refused."""
    sum_ = total + share
    # Two's complement addition wrapped where both terms differ in sign from their sum.
    if total.dtype == INT64 and bool((((total ^ sum_) & (share ^ sum_)) < 0).any()):
        raise _too_large(name, INT64)
    return sum_


def _within(name: str, total: Array, dtype: DType) -> Array:
    """`total` if it fits in the integers of `dtype`; any float."""
    if dtype not in FLOATS and dtype != INT64 and total.size:
        limits = np.iinfo(dtype)
        if total.min() < limits.min or total.max() > limits.max:
            raise _too_large(name, dtype)
    return total


def _too_large(name: str, dtype: DType) -> ConvError:
    return ConvError(
        f"{name}: the gradient leaves the range of {dtype}; nothing wraps silently. Convert grad_output to a wider "
        "integer type or to float64."
    )


# ---- pooling -----------------------------------------------------------------------------------------------------


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
    """The gradient of `max_pool2d` with respect to its input: a value goes to the (first) maximum of its window.

    Parameters
    ----------
    input : array_like
        The input of the forward call.
    kernel_size : int or (int, int)
        Rows and columns of the window.
    grad_output : array_like
        The gradient with respect to the result, of its shape.
    stride, padding, dilation, ceil_mode : int, pair, str or bool
        As in the call of `max_pool2d`.
    data_format, num_threads : as for `conv2d`
        See there.

    Returns
    -------
    ndarray
        Of the shape of `input` and the element type of `grad_output`.

    Raises
    ------
    ConvError, ConvTypeError
        For shapes or types that do not fit, or integer sums that leave the range of their type.
    """
    name = "max_pool2d_input"
    frame = layout(data_format)
    own_input, own_dy = as_array("input", input), as_array("grad_output", grad_output)
    x, batched = frame.activation("input", own_input)
    pg = pool_geometry(x.shape, kernel_size, stride, padding, dilation, ceil_mode, name=name, shown=own_input.shape)
    result_dtype("grad_output", own_dy, "input", own_input)
    dtype = result_dtype("grad_output", own_dy, "grad_output", own_dy)
    result_shape = (pg.batch, pg.channels, *pg.output_size)
    dy = require_gradient(name, frame, own_dy, result_shape, batched)
    team = threads.effective(num_threads)
    if dtype not in FLOATS and dy.size:
        most = pg.kernel_size[0] * pg.kernel_size[1] * max(abs(int(dy.max())), abs(int(dy.min())))
        if most > np.iinfo(INT64).max:
            raise _too_large(name, INT64)

    channels_last = frame.channels_last or lies_channels_last(x)
    where = empty_activation(result_shape, INT64, channels_last)
    plan.max_pool(pg, x, empty_activation(result_shape, x.dtype, channels_last), where, threads=team)
    wide = _sum_dtype(dtype)
    total = empty_activation(x.shape, wide, channels_last)
    plan.max_pool_gradient(pg, dy.astype(wide, copy=False), where, total, threads=team)
    dx = _within(name, total, dtype).astype(dtype, copy=False)
    return frame.from_logical(dx, batched)


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
    """The gradient of `avg_pool2d` with respect to its input of shape `input_size`.

    Parameters
    ----------
    input_size : sequence of int
        The shape of the input.
    kernel_size : int or (int, int)
        Rows and columns of the window.
    grad_output : array_like
        The gradient with respect to the result, of its shape.
    stride, padding, ceil_mode, count_include_pad, divisor_override : int, pair, str or bool
        As in the call of `avg_pool2d`.
    data_format, num_threads : as for `conv2d`
        See there.

    Returns
    -------
    ndarray
        Of shape `input_size`.

    Raises
    ------
    ConvError, ConvTypeError
        For shapes or types that do not fit, or integer sums that leave the range of their type.
    """
    name = "avg_pool2d_input"
    frame = layout(data_format)
    own_size = shape("input_size", input_size)
    own_dy = as_array("grad_output", grad_output)
    size, batched = frame.logical_shape("input_size", own_size)
    pg = pool_geometry(size, kernel_size, stride, padding, 1, ceil_mode, name=name, shown=own_size)
    dtype = own_dy.dtype
    include, divisor = checked_average(name, dtype, "grad_output", count_include_pad, divisor_override)
    dy = require_gradient(name, frame, own_dy, (pg.batch, pg.channels, *pg.output_size), batched)
    team = threads.effective(num_threads)
    wide = _sum_dtype(dtype)
    total = empty_activation(size, wide, frame.channels_last or lies_channels_last(dy))
    plan.avg_pool_gradient(
        pg, dy.astype(wide, copy=False), total, count_include_pad=include, divisor_override=divisor, threads=team
    )
    return frame.from_logical(total.astype(dtype, copy=False), batched)
