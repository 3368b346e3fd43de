"""Sums and affine maps over the channels of channels-last activations: what normalisation is made of."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def _axes(x: Array) -> tuple[int, ...]:
    return tuple(range(x.ndim - 1))


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance of every channel, over all other axes."""
    mean = x.mean(axis=_axes(x))
    centred = x - mean
    return mean, np.square(centred, out=centred).mean(axis=_axes(x))


def scale_shift(
    x: Array, scale: Array, shift: Array, *, relu: bool = False, out: Array | None = None
) -> Array:
    """x * scale + shift, at least 0 with `relu`; `out` may be x."""
    y = np.multiply(x, scale, out=out)
    y += shift
    return np.maximum(y, 0, out=y) if relu else y


def sums_with(dy: Array, x: Array, mean: Array) -> tuple[Array, Array]:
    """Sums over every channel of dy and of dy * (x - mean)."""
    return dy.sum(axis=_axes(dy)), (dy * (x - mean)).sum(axis=_axes(dy))


def combine(dy: Array, a: Array, x: Array, b: Array, c: Array) -> Array:
    """dy * a + x * b + c."""
    out = dy * a
    out += x * b
    out += c
    return out
