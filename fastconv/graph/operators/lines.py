"""Bytes in native lines: what `operators.integers` computes, where the arrays lie alike and side by side.

Each function says whether it could; then the node is done by native works alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from ... import _native
from ..._core.arrays import Array
from ..._core.threads import effective
from .moving import memory_order
from .registry import Call

if TYPE_CHECKING:
    from .integers import Grid

MOST_FACTORS: Final = 1 << 16  # of a product by elements: each thread holds them as floats


def _lines(*arrays: Array) -> list[Array] | None:
    """Arrays of one shape as rows of elements, (rows, elements); None where they do not lie in one order, or nothing of
    them side by side."""
    order = memory_order(arrays[0])
    turned = [array.transpose(order) for array in arrays]
    if all(array.flags.c_contiguous for array in turned):
        return [array.reshape(1, -1) for array in turned]
    if not turned[0].ndim or any(array.strides[-1] != array.itemsize for array in turned):
        return None
    rows = []
    for array in turned:
        view = array[...]
        try:
            view.shape = (-1, array.shape[-1])
        except AttributeError:  # it would be a copy
            return None
        rows.append(view)
    return rows


def _plain(grid: Grid) -> bool:
    """Whether the scale is a positive number."""
    return bool(np.isfinite(grid.scale) and grid.scale > 0)


def look_up(call: Call, x: Array, table: Array, out: Array) -> bool:
    """out = table[x] of tables of bytes, by the bits of x."""
    found = _lines(x, out) if table.itemsize == 1 else None
    if found is None:
        return False
    own, to = found
    _native.bytes_look_up(
        to.view(np.uint8), own.view(np.uint8), np.ascontiguousarray(table).view(np.uint8), effective(call.threads)
    )
    call.natively()
    return True


def quantise(call: Call, x: Array, grid: Grid, out: Array) -> bool:
    """QuantizeLinear of float32."""
    found = _lines(x, out) if x.dtype == np.float32 and _plain(grid) else None
    if found is None:
        return False
    values, to = found
    _native.bytes_quantise(
        to, values, float(grid.scale), grid.zero, *grid.limits, grid.dtype == np.int8, effective(call.threads)
    )
    call.natively()
    return True


def dequantise(call: Call, x: Array, grid: Grid, out: Array) -> bool:
    """DequantizeLinear to float32."""
    found = _lines(x, out) if out.dtype == np.float32 else None
    if found is None:
        return False
    own, to = found
    _native.bytes_dequantise(to, own, float(grid.scale), grid.zero, grid.dtype == np.int8, effective(call.threads))
    call.natively()
    return True


def add(
    call: Call, a: Array, b: Array, first: Grid, second: Grid, grid: Grid, limits: tuple[int, int], out: Array
) -> bool:
    """A sum of two values, every step the standard's."""
    if not (a.shape == b.shape == out.shape and a.dtype == b.dtype == out.dtype):
        return False
    found = _lines(a, b, out)
    if found is None:
        return False
    own, other, to = found
    _native.bytes_add(
        to, own, other, float(first.scale), first.zero, float(second.scale), second.zero, float(grid.scale), grid.zero,
        *limits, grid.dtype == np.int8, effective(call.threads),
    )  # fmt: skip
    call.natively()
    return True


def scale(
    call: Call, a: Array, b: Array, first: Grid, second: Grid, grid: Grid, limits: tuple[int, int], out: Array
) -> bool:
    """A product of images and a value a channel, (N, C, 1 ..), or of an array and a smaller one of its last axes;
    every step is the standard's."""
    if not a.size or not a.dtype == b.dtype == out.dtype or a.shape != out.shape:
        return False
    x: Array
    y: Array
    factors: Array
    rest = b.shape[next((at for at, n in enumerate(b.shape) if n > 1), b.ndim) :]  # without what is repeated in front
    if a.ndim > 2 and b.shape == (*a.shape[:2], *(1,) * (a.ndim - 2)):
        order, rows = (0, *range(2, a.ndim), 1), (len(a), 1, -1, a.shape[1])
        x, y, factors = a.transpose(order), out.transpose(order), b.reshape(b.shape[:2])
    elif rest and b.ndim <= a.ndim and rest == a.shape[a.ndim - len(rest) :] and b.size <= MOST_FACTORS:
        if not b.flags.c_contiguous:  # its rows would be a copy, which a recorded run would read ever after
            return False
        x, y, factors, rows = a, out, b.reshape(1, -1), (1, 1, -1, b.size)
    else:
        return False
    if not (x.flags.c_contiguous and y.flags.c_contiguous and factors.flags.c_contiguous):
        return False
    _native.bytes_scale(
        y.reshape(rows), x.reshape(rows), factors, float(first.scale), first.zero, float(second.scale), second.zero,
        float(grid.scale), grid.zero, *limits, grid.dtype == np.int8, effective(call.threads),
    )  # fmt: skip
    call.natively()
    return True


def mean(
    call: Call, x: Array, factor: float, zero: int, grid: Grid, limits: tuple[int, int]
) -> Array | None:
    """The means of images whose channels lie side by side, (N, C, 1 ..)."""
    if x.ndim < 3 or not x.size:
        return None
    last = x.transpose(0, *range(2, x.ndim), 1)
    if not last.flags.c_contiguous:
        return None
    out = call.empty((x.shape[0], x.shape[1], *(1,) * (x.ndim - 2)), grid.dtype)
    rows = last.reshape(x.shape[0], 1, -1, x.shape[1])
    _native.bytes_mean(
        out.reshape(x.shape[:2]), rows, factor, zero, grid.zero, *limits, x.dtype == np.int8, grid.dtype == np.int8,
        effective(call.threads),
    )  # fmt: skip
    call.natively()
    return out
