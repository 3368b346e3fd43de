"""The steps of Fourier transforms: products with constant matrices, and the arrays between them."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from .direct import DirectProgram
from .fft_tiling import Tiling
from .method import Array, Pass, Problem, Sums, Triple


def angles(n: int, frequencies: int, positions: Any) -> Array:
    """2 pi f m / n, from whole numbers so that it is exact to a rounding."""
    turns: Array = np.outer(np.arange(frequencies), positions) % n
    return turns * (2 * np.pi / n)


def forward_real(n: int, used: int) -> Array:
    """((f, re), 1, used): of so many samples, followed by zeros"""
    angle = angles(n, n // 2 + 1, np.arange(used))
    return np.stack([np.cos(angle), -np.sin(angle)], 1).reshape(-1, 1, used)


def forward_complex(n: int, used: int) -> Array:
    """((f, re), re, used)"""
    angle = angles(n, n, np.arange(used))
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([c, s], 1), np.stack([-s, c], 1)], 1).reshape(2 * n, 2, used)


def backward_complex(n: int, positions: Any, outer: bool) -> Array:
    """((j, re), channels): of (f, re), or where re is the outer index of (re, f)."""
    angle = angles(n, n, positions).T
    c, s = np.cos(angle) / n, np.sin(angle) / n
    pairs = np.stack([np.stack([c, -s], 2), np.stack([s, c], 2)], 1)  # j, re of the result, f, re
    if outer:
        pairs = pairs.swapaxes(2, 3)
    return pairs.reshape(2 * len(angle), 2 * n, 1)


def backward_real(n: int, positions: Any) -> Array:
    """(j, (re, f))"""
    angle = angles(n, n // 2 + 1, positions).T
    weight = np.full(n // 2 + 1, 2 / n)
    weight[0] = 1 / n
    if n % 2 == 0:
        weight[-1] = 1 / n
    pair = np.stack([np.cos(angle) * weight, -np.sin(angle) * weight], 1)
    return pair.reshape(len(angle), -1, 1)


class Step:
    """A product with a constant matrix, (outputs, channels, taps along the last axis)."""

    def __init__(
        self, p: Problem, matrix: Array, images: int, inner: Triple, outer: Triple, low: int = 0, stride: int = 1,
        mode: int = 0,
    ) -> None:  # fmt: skip
        outputs, channels, taps = matrix.shape
        q = Pass(((0,), (0,), tuple(range(low, low + taps))), ((0,), (0,), tuple(range(taps))), (1, 1, stride))
        sums = sums_of(p, q, channels, outputs, 1, inner, outer, images, mode)
        self.program = DirectProgram(sums)
        weight = matrix.astype(p.types.compute).reshape(outputs, channels, 1, 1, taps)
        self.packed = self.program.pack(weight)
        self.shape_alone = np.broadcast_to(weight.dtype.type(0), weight.shape)

    def run(self, x: Array, out: Array, residual: Array | None = None, activation: int = 0) -> None:
        self.program.run(x, self.shape_alone, self.packed, None, residual, out, activation, False)


def sums_of(
    p: Problem, q: Pass, channels: int, outputs: int, groups: int, inner: Triple, outer: Triple, images: int,
    mode: int = 0,
) -> Sums:  # fmt: skip
    return Sums((q,), False, channels, outputs, groups, outer, inner, mode, images, True, p.types, p.machine)


POINT = Pass(((0,), (0,), (0,)), ((0,), (0,), (0,)), (1, 1, 1))


def product_sums(p: Problem, t: Tiling, tiles: int) -> Sums:
    """Over all channels for every frequency, for so many tiles."""
    size = (1, 1, tiles)
    return sums_of(p, POINT, 2 * p.channels, 2 * p.outputs, p.groups * t.frequencies, size, size, 1)


class Arena:
    """The arrays between the steps of a run: the memory of one block is that of the next."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self.held: dict[str, Array] = {}

    def lend(self, name: str, *shape: int) -> Array:
        """Values of no meaning."""
        count = prod(shape)
        if name not in self.held or self.held[name].size < count:
            self.held.pop(name, None)
            self.held[name] = np.empty(count, self.dtype)
        return self.held[name][:count].reshape(shape)


def three_axes(a: Array) -> Array:
    """With a depth and a height; a view."""
    return a[(slice(None), slice(None), *(None,) * (5 - a.ndim))]


def split(a: Array, count: int, own: int) -> Array:
    """The last axis as two; a view."""
    strides = (*a.strides[:-1], own * a.strides[-1], a.strides[-1])
    return np.lib.stride_tricks.as_strided(a, (*a.shape[:-1], count, own), strides)


