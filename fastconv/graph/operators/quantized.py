"""Integers that stand for real numbers: scale * (q - zero point)."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ..._core.arrays import Array
from ..._core.quantised import Requantise
from ...functional import CONVOLUTIONS
from ..tensors import element_type, numpy_type
from . import lines
from .casts import converted
from .chain import integer_range
from .convolution import require_axes
from .integers import grid_of, to_bytes, to_floats
from .matrix import matmul
from .registry import Call, operator
from .windows import kernel_of


def _spread(call: Call, part: Array, x: Array) -> Array:
    """A scale or zero point for the whole array, an axis, or blocks along it."""
    if part.size == 1 and part.ndim < 2:
        return part.reshape(())
    axis = call.axis(x.ndim, 1)
    if part.ndim == 1:
        if part.size != x.shape[axis]:
            raise call.error(f"{part.size} scales do not fit axis {axis} of shape {x.shape}.")
        return part.reshape(-1, *(1,) * (x.ndim - 1 - axis))
    block = int(call.get("block_size", 0))
    if part.ndim != x.ndim or block < 1:
        raise call.error(f"scales of shape {part.shape} do not fit an input of shape {x.shape}.")
    call.check([n * block if at == axis else n for at, n in enumerate(part.shape)], part.dtype)
    return np.repeat(part, block, axis).take(np.arange(x.shape[axis]), axis)


@operator("DequantizeLinear", as_stored=True)
def dequantize(call: Call, x: Array, scale: Array, zero: Array | None = None) -> Array:
    """(x - zero) * scale."""
    grid = grid_of(scale, zero, x.dtype) if not call.get("output_dtype") and zero is not None else None
    if grid is not None and x.dtype == grid.dtype:
        out = call.result_like(x, x.shape, np.float32)
        if not (call.settled() and lines.dequantise(call, x, grid, out)):
            to_floats(x, grid, out)
        return out
    wide = x.astype(np.float32)
    if zero is not None:
        wide = wide - _spread(call, zero, x).astype(np.float32)
    kind = numpy_type(int(call.get("output_dtype"))) if call.get("output_dtype") else scale.dtype
    return (wide * _spread(call, scale, x).astype(np.float32)).astype(kind)


@operator("QuantizeLinear", as_stored=True)
def quantize(call: Call, x: Array, scale: Array, zero: Array | None = None) -> Array:
    """round(x / scale) + zero, kept in range."""
    kind = zero.dtype if zero is not None else numpy_type(int(call.get("output_dtype", 0) or 2))
    grid = grid_of(scale, zero, kind) if not call.get("precision") else None
    if grid is not None and x.dtype == np.float32:
        out = call.result_like(x, x.shape, kind)
        if not (call.settled() and lines.quantise(call, x, grid, out)):
            held = call.like(x)
            np.copyto(held, x)
            to_bytes(held, grid, *grid.limits, out)
        return out
    wide = x.astype(np.float32) / _spread(call, scale, x).astype(np.float32)
    if "int" not in kind.name:  # small floats round to what they have
        code = element_type(kind)
        return converted(call, wide if zero is None else wide + _spread(call, zero, x).astype(np.float32), code)
    shift = 0 if zero is None else _spread(call, zero, x).astype(np.int32)
    return _limited(np.rint(wide).astype(np.int64) + shift, kind)


def _limited(values: Array, kind: np.dtype[Any]) -> Array:
    low, high = integer_range(kind.name)
    return np.clip(values, low, high).astype(np.int32 if high < 1 << 15 else np.int64).astype(kind)


@operator("DynamicQuantizeLinear")
def dynamic_quantize(call: Call, x: Array) -> tuple[Array, Array, Array]:
    """To uint8 by the array's own range, which includes zero."""
    low, high = np.float32(min(0.0, float(x.min(initial=0)))), np.float32(max(0.0, float(x.max(initial=0))))
    scale = np.float32((high - low) / np.float32(255)) or np.float32(1)
    zero = np.uint8(np.clip(np.rint(-low / scale), 0, 255))
    y = _limited(np.rint(x / scale).astype(np.int64) + int(zero), np.dtype(np.uint8))
    return y, np.asarray(scale), np.asarray(zero)


def _shifted(x: Array, zero: Array | None, axis: int = 0) -> Array:
    wide = x.astype(np.int32)
    if zero is None:
        return wide
    part = zero.astype(np.int32)
    shape = [-1 if at == axis else 1 for at in range(x.ndim)] if part.size > 1 else []
    return wide - part.reshape(shape)


@operator("ConvInteger")
def conv_integer(call: Call, x: Array, w: Array, x_zero: Array | None = None, w_zero: Array | None = None) -> Array:
    """The exact convolution of small integers, as int32."""
    size = require_axes(call, x, w)
    window = kernel_of(call, size, w.shape[2:])
    # 16 bits hold the difference of two bytes, and fastconv adds such products up in 32.
    a, b = _shifted(x, x_zero).astype(np.int16), _shifted(w, w_zero).astype(np.int16)
    y: Array = CONVOLUTIONS[x.ndim - 2](
        a, b, None, window.stride, window.sides, window.dilation, call.get("group", 1), num_threads=call.threads
    )
    call.macs = y.size * prod(w.shape[1:])
    return y


@operator("QLinearConv")
def q_linear_conv(
    call: Call, x: Array, x_scale: Array, x_zero: Array, w: Array, w_scale: Array, w_zero: Array, y_scale: Array,
    y_zero: Array, bias: Array | None = None,
) -> Array:  # fmt: skip
    """A convolution from quantised to quantised."""
    sums = conv_integer(call, x, w, x_zero, w_zero)
    if bias is not None:
        sums = sums + bias.reshape(-1, *(1,) * (x.ndim - 2))
    return _requantised(x_scale, w_scale, y_scale, y_zero)(sums, 1)


def _requantised(a_scale: Array, b_scale: Array, y_scale: Array, y_zero: Array) -> Requantise:
    """What takes sums to the bytes of the result; the scale of `b` may be one a channel."""
    scale = a_scale.astype(np.float32).reshape(-1) * b_scale.astype(np.float32).reshape(-1)
    limits = integer_range(y_zero.dtype.name)
    zero = int(y_zero.ravel()[0])
    return Requantise(scale / y_scale.astype(np.float32).ravel()[0], zero, *limits, y_zero.dtype)


@operator("MatMulInteger")
def matmul_integer(call: Call, a: Array, b: Array, a_zero: Array | None = None, b_zero: Array | None = None) -> Any:
    """The exact product of small integers, as int32."""
    left = _shifted(a, a_zero, a.ndim - 2 if a_zero is not None and a_zero.size > 1 else 0)
    # float64 holds every sum, and has a fast product.
    sums = matmul(call, left.astype(np.float64), _shifted(b, b_zero, b.ndim - 1).astype(np.float64))
    call.native = False
    return sums.astype(np.int64).astype(np.int32)


@operator("QLinearMatMul")
def q_linear_matmul(
    call: Call, a: Array, a_scale: Array, a_zero: Array, b: Array, b_scale: Array, b_zero: Array, y_scale: Array,
    y_zero: Array,
) -> Array:  # fmt: skip
    """A matrix product from quantised to quantised."""
    sums = matmul_integer(call, a, b, a_zero, b_zero)
    if a_scale.size > 1:  # one a row
        rows = _requantised(b_scale, a_scale, y_scale, y_zero)
        return rows(sums, -2)
    return _requantised(a_scale, b_scale, y_scale, y_zero)(sums, -1)
