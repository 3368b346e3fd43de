"""The gradients of convolutions, from a caller's arguments to a plan: what they add to `ask`."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Final

import numpy as np

from ..errors import ConvError
from . import remember
from .arrays import INT64, Array, DType, empty, result_dtype
from .ask import Asked, asked
from .geometry import Geometry, tiled_geometries
from .later import Later
from .layouts import Layout, empty_activation, empty_weight
from .record import NamedTuple
from .types import FLOATS
from .words import mask

if TYPE_CHECKING:
    from . import operations
else:
    operations = Later("operations")

# Sums over tiles are held for a slice of the channels of one image at a time, to bound the scratch memory.
SLICE_BYTES: Final = 4 << 20
recall: Final = remember.recall


class Gradients(NamedTuple):
    """Gradients of arrays that were seen before, of contiguous batches: all that is left is to compute."""

    frame: Layout
    geometry: Geometry
    algorithm: str
    threads: int

    def input(self, grad_output: Array, weight: Array) -> Array:
        frame, g = self.frame, self.geometry
        result = empty(frame.from_logical_shape((g.batch, g.in_channels, *g.input_size)), grad_output.dtype)
        operations.input_gradient(
            g, frame.to_logical(grad_output), frame.weight("weight", weight), None, frame.to_logical(result),
            algorithm=self.algorithm, threads=self.threads,
        )  # fmt: skip
        return result

    def weight(self, grad_output: Array, input: Array) -> Array:
        frame, g = self.frame, self.geometry
        own_shape = frame.weight_from_logical_shape((g.out_channels, g.in_channels // g.groups, *g.kernel_size))
        result = empty(own_shape, grad_output.dtype)
        operations.weight_gradient(
            g, frame.to_logical(input), frame.to_logical(grad_output), frame.weight("weight", result),
            algorithm=self.algorithm, threads=self.threads,
        )  # fmt: skip
        return result

    def bias(self, grad_output: Array) -> Array:
        result = np.empty(self.geometry.out_channels, grad_output.dtype)
        operations.bias_gradient(self.frame.to_logical(grad_output), result, threads=self.threads)
        return result


def _gradients(a: Asked) -> Gradients:
    return Gradients(a.frame, a.geometry, a.algorithm, a.threads)


def _input_gradient(a: Asked, like: Array) -> Array:
    """The gradient with respect to the input of a convolution; the result lies as `like` does."""
    g, dy, w = a.geometry, a.grad_output, a.weight
    assert dy is not None and w is not None
    dx = empty_activation((g.batch, g.in_channels, *g.input_size), a.dtype, a.lies_last(like))
    operations.input_gradient(g, dy, w, None, dx, algorithm=a.algorithm, threads=a.threads)
    return a.frame.from_logical(dx, a.batched)


def _weight_gradient(a: Asked, x: Array, dy: Array) -> Array:
    """The gradient with respect to the weight of the convolution that makes `dy`'s shape from `x`'s."""
    g = a.geometry
    dw = empty_weight(
        (g.out_channels, g.in_channels // g.groups, *g.kernel_size), a.weight_dtype, a.frame.channels_last
    )
    operations.weight_gradient(g, x, dy, dw, algorithm=a.algorithm, threads=a.threads)
    return a.frame.weight_from_logical(dw)


def backward(
    axes: int,
    grad_output: object,
    input: object,
    weight: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    output_mask: object,
    padding_mode: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
) -> tuple[Array | None, Array | None, Array | None]:
    """The gradients with respect to input, weight and bias."""
    key = None
    if type(input) is np.ndarray and type(grad_output) is np.ndarray and input.dtype == grad_output.dtype:
        what = "backward" if input.flags.c_contiguous else "backward of a view"
        key = remember.gradient_key(
            axes, what, input.shape, grad_output, weight, stride, padding, dilation, groups, padding_mode, data_format,
            algorithm, num_threads,
        )  # fmt: skip
        if key is not None and (known := recall(key)) is not None:
            wanted = mask(output_mask)
            return (
                known.input(grad_output, weight) if wanted[0] else None,
                known.weight(grad_output, input) if wanted[1] else None,
                known.bias(grad_output) if wanted[2] else None,
            )
    a = asked(
        f"conv{axes}d_backward", axes, data_format, (stride, padding, dilation, groups, padding_mode), input,
        weight, algorithm, num_threads, gradient=(grad_output,),
    )  # fmt: skip
    x, dy, wanted = a.input, a.grad_output, mask(output_mask)
    assert x is not None and dy is not None
    grad_bias = None
    grad_input = _input_gradient(a, x) if wanted[0] else None
    grad_weight = _weight_gradient(a, x, dy) if wanted[1] else None
    if wanted[2]:
        grad_bias = np.empty(a.geometry.out_channels, result_dtype("grad_output", dy, "grad_output", dy))
        operations.bias_gradient(dy, grad_bias, threads=a.threads)
    if key is not None and a.batched and (a.frame.channels_last or x.flags.c_contiguous):
        remember.keep(key, _gradients(a))
    return grad_input, grad_weight, grad_bias


def input_gradient(
    axes: int,
    input_size: object,
    weight: object,
    grad_output: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    padding_mode: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
) -> Array:
    """The gradient of a convolution with respect to its input."""
    key = remember.gradient_key(
        axes, "input", input_size, grad_output, weight, stride, padding, dilation, groups, padding_mode, data_format,
        algorithm, num_threads,
    )  # fmt: skip
    if key is not None and (known := recall(key)) is not None:
        result: Array = known.input(grad_output, weight)
        return result
    a = asked(
        f"conv{axes}d_input", axes, data_format, (stride, padding, dilation, groups, padding_mode), input_size,
        weight, algorithm, num_threads, gradient=(grad_output,), input_shape="input_size",
    )  # fmt: skip
    assert a.grad_output is not None
    result = _input_gradient(a, a.grad_output)
    if key is not None and a.batched and (a.frame.channels_last or a.grad_output.flags.c_contiguous):
        remember.keep(key, _gradients(a))
    return result


def weight_gradient(
    axes: int,
    input: object,
    weight_size: object,
    grad_output: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    padding_mode: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
) -> Array:
    """The gradient of a convolution with respect to its weight."""
    key = remember.gradient_key(
        axes, "weight", weight_size, grad_output, input, stride, padding, dilation, groups, padding_mode, data_format,
        algorithm, num_threads,
    )  # fmt: skip
    if key is not None and (known := recall(key)) is not None:
        result: Array = known.weight(grad_output, input)
        return result
    a = asked(
        f"conv{axes}d_weight", axes, data_format, (stride, padding, dilation, groups, padding_mode), input,
        weight_size, algorithm, num_threads, gradient=(grad_output,), weight_shape="weight_size",
    )  # fmt: skip
    assert a.input is not None and a.grad_output is not None
    result = _weight_gradient(a, a.input, a.grad_output)
    if key is not None and a.batched:
        remember.keep(key, _gradients(a))
    return result


# ---- of transposed convolutions ----------------------------------------------------------------------------------


def transposed_input_gradient(
    axes: int,
    input_size: object,
    weight: object,
    grad_output: object,
    stride: object,
    padding: object,
    output_padding: object,
    groups: object,
    dilation: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
) -> Array:
    """The gradient of a transposed convolution with respect to its input: the convolution that it transposes."""
    a = asked(
        f"conv_transpose{axes}d_input", axes, data_format,
        (stride, padding, dilation, groups, output_padding), input_size, weight,
        algorithm, num_threads, transposed=True, gradient=(grad_output,), input_shape="input_size",
    )  # fmt: skip
    g, dy, w = a.geometry, a.grad_output, a.weight
    assert dy is not None and w is not None
    dx = empty_activation((g.batch, g.out_channels, *g.output_size), a.dtype, a.lies_last(dy))
    operations.forward(g, dy, w, None, None, None, dx, algorithm=a.algorithm, threads=a.threads)
    return a.frame.from_logical(dx, a.batched)


def transposed_weight_gradient(
    axes: int,
    input: object,
    weight_size: object,
    grad_output: object,
    stride: object,
    padding: object,
    output_padding: object,
    groups: object,
    dilation: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
) -> Array:
    """The gradient of a transposed convolution with respect to its weight: input and gradient change places."""
    a = asked(
        f"conv_transpose{axes}d_weight", axes, data_format,
        (stride, padding, dilation, groups, output_padding), input, weight_size,
        algorithm, num_threads, transposed=True, gradient=(grad_output,), weight_shape="weight_size",
    )  # fmt: skip
    assert a.input is not None and a.grad_output is not None
    return _weight_gradient(a, a.grad_output, a.input)


# ---- of tiled convolutions ---------------------------------------------------------------------------------------


def tiled_input_gradient(
    input_size: object,
    weight: object,
    grad_output: object,
    stride: object,
    padding: object,
    dilation: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
) -> Array:
    """The gradient of a tiled convolution with respect to its input: the sum over the tiles."""
    a = asked(
        "tiled_conv2d_input", 2, data_format, (stride, padding, dilation, 1, "zeros"), input_size, weight, algorithm,
        num_threads, gradient=(grad_output,), input_shape="input_size", tiled=True,
    )  # fmt: skip
    g, dy, kernels = a.geometry, a.grad_output, a.weight
    assert dy is not None and kernels is not None
    dx = empty_activation((g.batch, g.in_channels, *g.input_size), a.dtype, a.lies_last(dy))
    wide, tiles = sum_dtype(a.dtype), kernels.shape[:2]
    if a.dtype.itemsize < wide.itemsize and a.dtype in FLOATS:
        kernels = kernels.astype(wide)
    for n, channels in _slices(g, wide):
        some = g._replace(batch=1, in_channels=channels.stop - channels.start)
        image = dy[n : n + 1]
        if a.dtype in FLOATS:
            image = image.astype(wide, copy=False)
        total = np.zeros((1, some.in_channels, *g.input_size), wide)
        share = np.empty_like(total)
        for (top, left), part in tiled_geometries(some, tiles):
            pixels = image[:, :, top :: tiles[0], left :: tiles[1]]
            if pixels.size:
                kernel = kernels[top, left][:, channels]
                operations.input_gradient(part, pixels, kernel, None, share, algorithm=a.algorithm, threads=a.threads)
                total = _sum(a.name, total, share)
        dx[n : n + 1, channels] = within(a.name, total, a.dtype)
    return a.frame.from_logical(dx, a.batched)


def tiled_weight_gradient(
    input: object,
    weight_size: object,
    grad_output: object,
    stride: object,
    padding: object,
    dilation: object,
    data_format: object,
    algorithm: object,
    num_threads: int | None,
) -> Array:
    """The gradient of a tiled convolution with respect to its weight."""
    a = asked(
        "tiled_conv2d_weight", 2, data_format, (stride, padding, dilation, 1, "zeros"), input, weight_size, algorithm,
        num_threads, gradient=(grad_output,), weight_shape="weight_size", tiled=True,
    )  # fmt: skip
    x, dy = a.input, a.grad_output
    assert x is not None and dy is not None
    result = np.empty(a.shown_weight, a.weight_dtype)
    dw = a.frame.tiled_weight("weight_size", result)
    tiles = dw.shape[:2]
    for (top, left), part in tiled_geometries(a.geometry, tiles):
        pixels = dy[:, :, top :: tiles[0], left :: tiles[1]]
        operations.weight_gradient(part, x, pixels, dw[top, left], algorithm=a.algorithm, threads=a.threads)
    return result


def _slices(g: Geometry, dtype: DType) -> Iterator[tuple[int, slice]]:
    """Every image and, within it, slices of channels whose planes take at most `SLICE_BYTES`."""
    plane_bytes = max(1, prod(g.input_size) * dtype.itemsize)
    step = max(1, SLICE_BYTES // plane_bytes)
    for n in range(g.batch):
        for first in range(0, g.in_channels, step):
            yield n, slice(first, min(first + step, g.in_channels))


# ---- sums of several contributions -------------------------------------------------------------------------------


def sum_dtype(dtype: DType) -> DType:
    """What sums of this result type are held in: float16 in float32, integers in int64."""
    if dtype in FLOATS:
        return np.dtype(np.float32) if dtype.itemsize == 2 else dtype
    return INT64


def _sum(name: str, total: Array, share: Array) -> Array:
    """total + share; integers that wrapped are refused."""
    sum_ = total + share
    # Two's complement addition wrapped where both terms differ in sign from their sum.
    if total.dtype == INT64 and bool((((total ^ sum_) & (share ^ sum_)) < 0).any()):
        raise too_large(name, INT64)
    return sum_


def within(name: str, total: Array, dtype: DType) -> Array:
    """`total` if it fits in the integers of `dtype`; any float."""
    if dtype not in FLOATS and dtype != INT64 and total.size:
        limits = np.iinfo(dtype)
        if total.min() < limits.min or total.max() > limits.max:
            raise too_large(name, dtype)
    return total


def too_large(name: str, dtype: DType) -> ConvError:
    """The refusal of a gradient of integers whose sums do not fit."""
    return ConvError(
        f"{name}: the gradient leaves the range of {dtype}; nothing wraps silently. Convert grad_output to a wider "
        "integer type or to float64."
    )
