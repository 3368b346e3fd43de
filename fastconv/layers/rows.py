"""What training needs beside convolution and pooling, on channels-last activations: sums over pixels, affine maps of
channels, the gradients of ReLU and of max pooling. Native and parallel; sums are cut by shape, not by threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import _native
from .._core import pooling
from .._core.layouts import INWARD
from .._core.steps import SERIAL_BELOW
from .._core.threads import effective
from .._core.windows import PoolGeometry
from .._native import LONG_SUM
from . import memory

Array = NDArray[Any]


def _rows(x: Array) -> Array:
    """(pixels, channels), contiguous."""
    return np.ascontiguousarray(x).reshape(-1, x.shape[-1]) if x.size else np.empty((0, x.shape[-1]), x.dtype)


def team(x: Array) -> int:
    """Threads for work on every value of `x`."""
    return 1 if x.size < SERIAL_BELOW else effective(None)


def channel_sums(x: Array) -> Array:
    """The sum of every channel over all other axes."""
    total = np.zeros(x.shape[-1], x.dtype)
    if x.size:
        _native.channel_sums(_rows(x), total, team(x))
    return total


def _products(a: Array, shift_a: Array, b: Array, shift_b: Array) -> tuple[Array, Array]:
    total, product = np.zeros(a.shape[-1], a.dtype), np.zeros(a.shape[-1], a.dtype)
    if a.size:
        _native.channel_products(_rows(a), shift_a, _rows(b), shift_b, total, product, team(a))
    return total, product


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of every channel, over all other axes."""
    count = x.size // x.shape[-1]
    mean = channel_sums(x) / x.dtype.type(count)
    _, squares = _products(x, mean, x, mean)
    return mean, squares / x.dtype.type(count)


def sums_with(dy: Array, x: Array, mean: Array) -> tuple[Array, Array]:
    """Sums over every channel of dy and of dy * (x - mean)."""
    return _products(dy, np.zeros_like(mean), x, np.ascontiguousarray(mean))


def scale_shift(x: Array, scale: Array, shift: Array, *, relu: bool = False, out: Array | None = None) -> Array:
    """x * scale + shift, at least 0 with `relu`; `out` may be x."""
    return _affine(x, scale, None, None, shift, relu, out)


def combine(dy: Array, a: Array, x: Array, b: Array, c: Array) -> Array:
    """dy * a + x * b + c."""
    return _affine(dy, a, x, b, c, False, None)


def _affine(
    x: Array, a: Array, z: Array | None, b: Array | None, c: Array, relu: bool, out: Array | None
) -> Array:
    if out is None:
        out = memory.empty(x.shape, x.dtype)
    if x.size:
        a, c = (np.ascontiguousarray(v, x.dtype) for v in (a, c))
        if z is not None and b is not None:
            z, b = _rows(z), np.ascontiguousarray(b, x.dtype)
        _native.affine(out.reshape(-1, x.shape[-1]), _rows(x), a, z, b, c, relu, team(x))
    return out


def relu_gradient(dy: Array, y: Array, most: float = float("inf")) -> tuple[Array, Array]:
    """(dy where 0 < y < most, else 0; the sum of that over every channel); dy itself, where it is a step's own."""
    dz = dy if memory.may_overwrite(dy) else memory.empty(y.shape, y.dtype)
    total = np.zeros(y.shape[-1], y.dtype)
    if y.size:
        _native.relu_gradient(dz.reshape(-1, y.shape[-1]), _rows(dy), _rows(y), most, total, team(y))
    return dz, total


def max_pool_gradient(g: PoolGeometry, x: Array, y: Array, dy: Array, threads: int | None = None) -> Array:
    """The gradient of a max pooling of x (N, *spatial, C) to y, each value to the first maximum of its window."""
    threads = team(x) if threads is None else min(threads, team(x))
    dx = memory.empty(x.shape, x.dtype)
    if y.size == 0:
        dx[...] = 0
        return dx
    axes = len(g.kernel_size)
    if axes == 3 or pooling.windows_of_a_pixel(g) >= LONG_SUM:  # a pixel may be the maximum of very many
        inward = INWARD[x.ndim]
        logical, indices = x.transpose(inward), np.empty(y.shape, np.int64).transpose(inward)
        pooling.max_pool(g, logical, np.empty_like(y).transpose(inward), indices, threads=threads)
        pooling.max_pool_gradient(g, dy.transpose(inward), indices, dx.transpose(inward), threads=threads)
        return dx
    *_, top, left = 0, *(sides[0] for sides in g.padding)
    *_, height, width = 1, *g.kernel_size
    *_, down, across = 1, *g.stride
    x, y, dy = (np.ascontiguousarray(array) for array in (x, y, dy))
    to = dx
    if axes == 1:  # a sequence is an image of one row
        x, y, dy, to = (array[:, None] for array in (x, y, dy, dx))
    _native.max_pool_gradient(to, x, y, dy, (height, width), (down, across), (top, left), threads)
    return dx


def dense(x: Array, kernel: Array, out: Array) -> None:
    """out (N, outputs) = x (N, inputs) @ kernel (inputs, outputs), one pass over the kernel for eight samples.

    What prediction needs: weights as they lie, at the speed of memory, and no second library's threads, whose waiting
    would take the processors from the convolutions around.
    """
    if x.size and out.size:
        _native.dense(np.ascontiguousarray(x), np.ascontiguousarray(kernel), out, team(kernel))
    else:
        out[...] = 0
